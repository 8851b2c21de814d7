"""sweep.csv: a row per run, appended as it finishes by whichever rank trained it.

A row is one write to a file opened for appending, so that rows of several ranks do not mix; a row cut off by a
kill is no row, and its run is done again.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from cache.files.atomic import write_atomic
from cache.files.csv import csv_text
from fuse.sweep.grid import Run

ROWS = "sweep.csv"
RUN, UAR, BEST_EPOCH, DIVERGED = "run", "validation_uar", "best_epoch", "diverged_epoch"


def header(factors: Sequence[str]) -> list[str]:
    """Column names."""
    return [RUN, *factors, "fold", "seed", UAR, BEST_EPOCH, DIVERGED]


def row_of(run: Run, uar: float | None, best_epoch: int, diverged: int | None) -> dict[str, str]:
    """A run's row; epochs count from 1. A run that diverged has no score."""
    outcome = {UAR: "" if uar is None else f"{uar:.6f}", BEST_EPOCH: "" if uar is None else str(best_epoch + 1)}
    name = {RUN: str(run.number), **run.configuration.factors, "fold": str(run.fold.number), "seed": str(run.seed)}
    return {**name, **outcome, DIVERGED: "" if diverged is None else str(diverged + 1)}


def append(path: Path, row: Mapping[str, str]) -> None:
    """One row, on the disk when this returns."""
    with path.open("ab", buffering=0) as file:
        file.write(csv_text(list(row.values())).encode())
        os.fsync(file.fileno())


def read(path: Path, factors: Sequence[str]) -> dict[int, dict[str, str]]:
    """Rows by run number; without the line that a kill cut off.

    Raises:
        ValueError: the file has other columns than this sweep.
    """
    if not path.is_file():
        return {}
    text = path.read_bytes().decode("utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    lines = list(csv.reader(io.StringIO(whole)))
    columns = header(factors)
    if lines and lines[0] != columns:
        raise ValueError(f"{path} has columns of another sweep; choose another output_dir, or delete it")
    rows = (dict(zip(columns, line, strict=True)) for line in lines[1:] if len(line) == len(columns))
    return {int(row[RUN]): row for row in rows}


def rewrite(path: Path, factors: Sequence[str], rows: Mapping[int, Mapping[str, str]]) -> None:
    """All rows in the order of their runs: the same bytes whoever finished first."""
    columns = header(factors)
    write_atomic(path, csv_text(columns, ([row[name] for name in columns] for _, row in sorted(rows.items()))))
