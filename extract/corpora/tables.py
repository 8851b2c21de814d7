"""A table with a line per clip: ours, Hugging Face's with `file_name`, or audformat's with `file`, `start` and `end`.

Which it is, its columns say. Paths start from the folder of the table where the file is there, else from the corpus
root. `start` and `end` are seconds, or times as pandas writes them ("0 days 00:00:01.500000"); where both say the whole
file they are dropped. Further columns (the user's own) are at hand for `fill` and `by`, and are not written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cache.corpus.parquet import SUFFIX
from cache.corpus.paths import meant_path
from cache.corpus.sheet import USUAL_NAMES, column_name, columns_of, place_in, read_rows
from cache.names import did_you_mean
from configs.schema.corpora import CorpusConfig
from extract.corpora.listing import COLUMNS

PATHS = ("path", "file_name", "file")
TIMES = ("start", "end")
# What people call these columns; said as a hint, never taken without being told.
USUAL = {"label": ("emotion", "emotions", "class", "target"), "speaker": ("speaker_id", "spk", "actor", "subject")}
PANDAS_TIME = re.compile(r"(?:(\d+) days?)?,? ?(?:(\d+):(\d\d):(\d\d(?:\.\d+)?))?")


@dataclass(frozen=True)
class TableRow:
    """A line of a table, with our names for its columns beside its own."""

    file: Path
    line: int
    cells: dict[str, str]

    @property
    def where(self) -> str:
        """The line, for messages."""
        return place_in(self.file, self.line)


def table_rows(root: Path, config: CorpusConfig) -> tuple[list[TableRow], list[str]]:
    """Every line that names a clip, and notes.

    Raises:
        ValueError: one line: no table, no column with paths, a column that is not there, a time that is none.
    """
    rows, notes = [], []
    for split, file in tables(root, config):
        columns = _columns(file, config)
        for line, cells in read_rows(file, [*columns.values()]):
            row = {**cells, **{name: cells.get(column, "").strip() for name, column in columns.items()}}
            row |= ({"split": split} if split else {}) | _times(file, line, row)
            rows.append(TableRow(file, line, row))
        others = [f"{name} is {column}" for name, column in columns.items() if name != column]
        notes.append(f"read {file}" + (f": {', '.join(others)}" if others else ""))
        if "speaker" not in columns:
            notes.append(f"{file} has no column speaker{_hint('speaker', columns_of(file))}")
    return rows, notes


def placed(root: Path, file: Path, path: str, follow_links: bool) -> str:
    """A table's path as one that starts from the corpus root.

    Raises:
        ValueError: one line: it leaves the root.
    """
    real_root = os.path.realpath(root)
    if PurePosixPath(path).is_absolute() and os.path.commonpath([real_root, os.path.realpath(path)]) == real_root:
        return os.path.relpath(os.path.realpath(path), real_root)
    beside = os.path.relpath(os.path.realpath(file.parent), real_root)
    if beside != "." and not beside.startswith(".."):
        below = meant_path(root, str(PurePosixPath(beside, path.replace("\\", "/"))), follow_links)
        if (root / below).is_file():
            return below
    return meant_path(root, path, follow_links)


def output_columns(row: Mapping[str, str]) -> dict[str, str]:
    """Those of a row's columns that metadata.csv has: ours, and the stretch of the file."""
    return {name: value for name, value in row.items() if name in (*COLUMNS, *TIMES)}


def stretch_id(clip_id: str, row: Mapping[str, str]) -> str:
    """The id of a stretch of a file: that of the file, and when it starts and ends."""
    times = [row[name] for name in TIMES if row.get(name)]
    return "-".join((clip_id, *times))


def tables(root: Path, config: CorpusConfig) -> list[tuple[str, Path]]:
    """Splits ("" where the table is for all) and their tables.

    Raises:
        ValueError: one line: a table is not there, or which one is meant is not clear.
    """
    if isinstance(config.csv, Mapping):
        return [(split, _there(root, name)) for split, name in config.csv.items()]
    if config.csv is not None:
        return [("", _there(root, config.csv))]
    found = tables_in(root)
    named = [file for file in found if file.name in USUAL_NAMES] or found
    if len(named) != 1:
        what = f"{len(named)} tables ({', '.join(file.name for file in named[:5])})" if named else "no .csv file"
        raise ValueError(f"{root} holds {what}; say which one lists the clips: CSV=<file>")
    return [("", named[0])]


def tables_in(folder: Path) -> list[Path]:
    """The tables of a folder: CSV files, or where there is none, Parquet."""
    return sorted(folder.glob("*.csv")) or sorted(folder.glob(f"*{SUFFIX}"))


def _there(root: Path, name: str) -> Path:
    places = (Path(name), root / name)
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise ValueError(f"no table {places[0]}, nor {places[1]}; say where it is: CSV=<file>")
    return file


def _columns(file: Path, config: CorpusConfig) -> dict[str, str]:
    """Our name to the table's, of every column that is read."""
    there = columns_of(file)
    picked = {name: column_name(column) for name, column in config.columns.items()}
    for name, column in picked.items():
        if column not in there:
            known = ", ".join(filter(None, there))
            raise ValueError(f"{file} has no column {column}{did_you_mean(column, there)} for {name}; it has {known}")
    columns = {name: name for name in (*COLUMNS, *TIMES) if name in there} | picked
    if "path" not in columns and "path" not in config.fill:
        columns["path"] = next((name for name in PATHS if name in there), "")
        if not columns["path"]:
            raise ValueError(
                f"{file} has no column {', '.join(PATHS)}; say which one holds the files: SET=columns.path=<column>, "
                'or how they are named: fill: {path: "{a}_{b}.wav"}'
            )
    if "label" not in columns and "label" not in config.fill:
        raise ValueError(f"{file} has no column label{_hint('label', there)}; it has {', '.join(filter(None, there))}")
    return columns


def _hint(name: str, there: Sequence[str]) -> str:
    column = next((usual for usual in USUAL[name] if usual in there), "<column>")
    return f"; say which one it is: {name.upper()}={column}"


def _times(file: Path, line: int, row: Mapping[str, str]) -> dict[str, str]:
    """`start` and `end` in seconds; "" for both where they say the whole file."""
    texts = {name: row.get(name, "").strip() for name in TIMES}
    try:
        seconds = {name: _seconds(text) for name, text in texts.items()}
    except ValueError as error:
        raise ValueError(f"{place_in(file, line)}: {error}") from error
    start, end = seconds["start"], seconds["end"]
    if end is not None and end <= (start or 0.0):
        raise ValueError(f"{place_in(file, line)}: end {texts['end']} is not after start {texts['start'] or 0}")
    if not start and end is None:
        return dict.fromkeys(TIMES, "")
    return {"start": str(start or 0.0), "end": "" if end is None else str(end)}


def _seconds(text: str) -> float | None:
    if text.casefold() in ("", "nat", "nan"):
        return None
    try:
        seconds = float(text)
    except ValueError:
        found = PANDAS_TIME.fullmatch(text)
        if not found:
            raise ValueError(f"{text!r} is no time; write seconds, e.g. 1.5") from None
        days, hours, minutes, rest = (float(part or 0) for part in found.groups())
        seconds = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{text!r} is no time in a file; write seconds from its start, e.g. 1.5")
    return seconds
