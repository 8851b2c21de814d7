from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import pytest

from cache.files.csv import csv_of, csv_text, write_csv


@dataclass(frozen=True)
class Row:
    name: str
    score: float | None
    clips: int = 0


def test_every_byte_of_a_table() -> None:
    rows = [Row("plain", 1 / 3), Row('a "word", two\nlines', None, 7), Row("été", 1e-300)]
    expected = 'name,score,clips\nplain,0.3333333333333333,0\n"a ""word"", two\nlines",,7\nété,1e-300,0\n'
    assert csv_of(rows) == expected
    assert [row["name"] for row in csv.DictReader(io.StringIO(expected))] == [row.name for row in rows]


def test_a_file_is_the_text(tmp_path: Path) -> None:
    header, rows = ["a", "b"], [("été", 1 / 3), ('a "word",\r\ntwo lines', None)]
    write_csv(tmp_path / "new" / "x.csv", header, iter(rows))
    assert (tmp_path / "new" / "x.csv").read_bytes() == csv_text(header, rows).encode()
    with pytest.raises(csv.Error):
        write_csv(tmp_path / "new" / "y.csv", header, [1, 2])  # type: ignore[list-item]
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["x.csv"]


def test_a_table_without_rows_is_its_header() -> None:
    assert csv_text(["clip_id", "reason"]) == "clip_id,reason\n"
    assert csv_text(["clip_id"], iter([["a"], ("b",)])) == "clip_id\na\nb\n"
