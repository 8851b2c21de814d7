"""Tables as CSV: a header, a line per row, nothing where there is no value, and lines that end in a line feed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.files.atomic import revealed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def csv_text(header: Sequence[str], rows: Iterable[Iterable[Any]] = ()) -> str:
    """A header and a line per row of values; a float as the shortest text that reads back as the same float."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write what `csv_text` returns to a file that appears complete or not at all; rows are not held together."""
    with revealed(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def csv_of(rows: Sequence[DataclassInstance]) -> str:
    """A column per field and a line per row; all rows are of one dataclass, and there is at least one."""
    return csv_text([field.name for field in fields(rows[0])], map(astuple, rows))
