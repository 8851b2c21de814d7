"""The files that hold one unit's share of an array: read as plain bytes, forced to the disk, removed.

Knows zarr's folders, not zarr: chunks that no codec has touched are read ten times faster without it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.files.atomic import fsync_path


def plain_chunk(file: Path, dtype: npt.DTypeLike, shape: tuple[int, ...], fill: float) -> npt.NDArray[Any] | None:
    """A chunk without codecs: of fill value where it is not stored, None where it has another size."""
    try:
        values = np.fromfile(file, dtype)
    except FileNotFoundError:
        return np.full(shape, fill, dtype)
    whole = values.size == np.prod(shape) and file.stat().st_size == values.nbytes
    return values.reshape(shape) if whole else None


def part_checksum(values: npt.NDArray[Any]) -> int:
    """CRC-32 of one layer, or of one column, of a unit: of little-endian bytes, or of the strings as a JSON list."""
    if values.dtype.kind in "OTU":
        return zlib.crc32(json.dumps([str(value) for value in values]).encode())
    return zlib.crc32(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data)


def sealed_checksums(checksums: Iterable[int]) -> npt.NDArray[np.uint32]:
    """A row of the array `checksum`: the checksums, then their own."""
    row = np.array(list(checksums), "<u4")
    return np.append(row, np.uint32(zlib.crc32(row.tobytes()))).astype(np.uint32)


def read_checksums(folder: Path, unit: int, count: int) -> npt.NDArray[np.uint32] | None:
    """The `count` checksums of a unit of the array in `folder`; None where they are missing or damaged."""
    row = plain_chunk(folder / f"checksum/c/{unit}/0", "<u4", (count + 1,), 0)
    return None if row is None or zlib.crc32(row[:-1].tobytes()) != row[-1] else row[:-1]


def chunk_files(folder: Path, name: str, unit: int) -> list[Path]:
    """The chunks of a unit in `<folder>/<name>`, as far as they are there: zarr leaves out those of fill value."""
    chunk = folder / name / "c" / str(unit)
    files = chunk.rglob("*") if chunk.is_dir() else [chunk]
    return sorted(file for file in files if file.is_file() and not file.name.endswith(".partial"))


def force_to_disk(folder: Path, names: Iterable[str], unit: int) -> None:
    """fsync a unit's chunks and the folders that list them: zarr renames chunks into place, no more."""
    for name in names:
        top = folder / name / "c"
        folders = set()
        for file in chunk_files(folder, name, unit):
            fsync_path(file)
            folders |= {parent for parent in file.parents if parent.is_relative_to(top)}
        for parent in folders:
            fsync_path(parent)


def remove_unit(folder: Path, unit: int) -> None:
    """Delete a unit's chunks for good: `state` first, so that a crash leaves a pending unit.

    Files are removed, not overwritten: zarr would read a damaged chunk before it writes a part of it.
    """
    for name in sorted((child.name for child in folder.iterdir() if child.is_dir()), key=lambda n: (n != "state", n)):
        for file in chunk_files(folder, name, unit):
            file.unlink()
            fsync_path(file.parent)
