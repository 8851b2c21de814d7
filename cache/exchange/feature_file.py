"""Features that others computed, as a file: a CSV with the column `clip_id`, or an npz with the arrays
`clip_id` and `features`. Read strictly: a cell that is no finite number stops with its line and column."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

CLIP_ID = "clip_id"
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class FeatureFile:
    """Its rows.

    Attributes:
        clip_ids: each once.
        hidden_BLD: (clips, layers, width) float32, finite.
        columns: names of the dimensions; empty where the file has none.
    """

    clip_ids: tuple[str, ...]
    hidden_BLD: npt.NDArray[np.float32]
    columns: tuple[str, ...]


def read_feature_file(path: Path, skip: Sequence[str] = ()) -> FeatureFile:
    """Read a CSV or npz file.

    Args:
        path: the file; its suffix says what it is.
        skip: columns of a CSV to leave out.

    Raises:
        ValueError: one line naming the file and what is wrong, where it is.
    """
    readers = {".csv": lambda: _read_csv(path, skip), ".npz": lambda: _read_npz(path)}
    if path.suffix not in readers:
        raise ValueError(f"{path}: features are imported from {' or '.join(readers)} files")
    if not path.is_file():
        raise ValueError(f"no file {path}")
    features = readers[path.suffix]()
    _refuse_duplicates(path, CLIP_ID, features.clip_ids)
    return features


def _read_csv(path: Path, skip: Sequence[str]) -> FeatureFile:
    header, lines = _lines(path)
    _refuse_duplicates(path, "column", header)
    if CLIP_ID not in header:
        raise ValueError(f"{path} has no column {CLIP_ID}; it has {', '.join(header[:5])}, ...")
    unknown = [name for name in skip if name not in header]
    if unknown:
        raise ValueError(f"--skip {unknown[0]}: {path} has no such column")
    columns = tuple(name for name in header if name != CLIP_ID and name not in skip)
    if not lines or not columns:
        raise ValueError(f"{path} holds no features: {len(lines)} rows and {len(columns)} columns beside {CLIP_ID}")
    ids, places = header.index(CLIP_ID), [header.index(name) for name in columns]
    _refuse_ragged(path, lines, len(header))
    rows = [[line[place] for place in places] for _, line in lines]
    hidden_BW = _numbers(path, columns, [number for number, _ in lines], rows)
    return FeatureFile(tuple(line[ids].strip() for _, line in lines), hidden_BW[:, None], columns)


def _lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and every other line with its number."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = [(reader.line_num, line) for line in reader if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8: {error}") from error
    return ([name.strip() for name in lines[0][1]], lines[1:]) if lines else ([], [])


def _refuse_ragged(path: Path, lines: Sequence[tuple[int, list[str]]], width: int) -> None:
    for number, line in lines:
        if len(line) != width:
            raise ValueError(f"{path} line {number}: {len(line)} cells, the header has {width}")


def _numbers(
    path: Path, columns: Sequence[str], numbers: Sequence[int], rows: Sequence[Sequence[str]]
) -> npt.NDArray[np.float32]:
    """(clips, width); the cells of a column must all be numbers."""
    hidden_BW = np.array([[_number(cell) for cell in row] for row in rows])
    bad = ~np.isfinite(hidden_BW)
    for column in np.flatnonzero(bad.any(axis=0)).tolist():
        first = int(np.argmax(bad[:, column]))
        cell, name = rows[first][column], columns[column]
        text = bad[:, column].all() and not any(row[column].strip().lower() in ("", "nan", "inf") for row in rows)
        advice = f"; the whole column is text: leave it out with --skip {name}" if text else ""
        raise ValueError(f"{path} line {numbers[first]}, column {name}: {cell!r} is not a finite number{advice}")
    return hidden_BW.astype(np.float32)


def _number(cell: str) -> float:
    """What a cell says as a float32; NaN for anything else. Python would read 1_0 as ten."""
    try:
        value = float(cell) if "_" not in cell else float("nan")
    except ValueError:
        return float("nan")
    return value if abs(value) <= LARGEST else float("inf")


def _read_npz(path: Path) -> FeatureFile:
    try:
        with np.load(path, allow_pickle=False) as content:
            lacking = [name for name in (CLIP_ID, "features") if name not in content]
            if lacking:
                raise ValueError(f"it has no array {lacking[0]}")
            ids, features = content[CLIP_ID], content["features"]
    except (ValueError, OSError, BadZipFile) as error:
        raise ValueError(f"{path} is no npz file of {CLIP_ID} and features: {error}") from error
    clip_ids = tuple(str(name) for name in ids) if ids.ndim == 1 and ids.dtype.kind == "U" else ()
    if not clip_ids or features.ndim not in (2, 3) or len(features) != len(clip_ids) or not features.size:
        raise ValueError(
            f"{path}: {CLIP_ID} must be strings (clips,) and features numbers (clips, width) or "
            f"(clips, layers, width); they are {ids.dtype} {ids.shape} and {features.dtype} {features.shape}"
        )
    return FeatureFile(clip_ids, _finite(path, clip_ids, features), ())


def _finite(path: Path, clip_ids: Sequence[str], features: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    if features.dtype.kind not in "fiu":
        raise ValueError(f"{path}: features must be numbers, not {features.dtype}")
    with np.errstate(over="ignore"):
        hidden_BLD = np.asarray(features, np.float32)
    hidden_BLD = hidden_BLD if hidden_BLD.ndim == 3 else hidden_BLD[:, None]
    bad = np.argwhere(~np.isfinite(hidden_BLD))
    if len(bad):
        row, layer, column = bad[0]
        raise ValueError(
            f"{path}: clip {clip_ids[row]}, layer {layer}, column {column}: "
            f"{features.reshape(hidden_BLD.shape)[row, layer, column]} is not a finite number in float32"
        )
    return hidden_BLD


def _refuse_duplicates(path: Path, what: str, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not name or name in seen:
            raise ValueError(f"{path}: {what} {name!r} {'appears twice' if name else 'is empty'}")
        seen.add(name)
