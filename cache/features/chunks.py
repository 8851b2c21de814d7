"""The files that hold one unit's share of an array: read as plain bytes, forced to the disk, removed.

Knows zarr's folders, not zarr: chunks that no codec has touched are read ten times faster without it.

Of a unit that is not complete, `<modality>/<encoder>/.unit-00003.kept` holds the rows that have been decided on, so
that they are not computed again: the SHA-256 of an npz, then the npz. It is bound to the array's provenance and to the
unit's clips, and goes when the unit is complete.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
import numpy.typing as npt

from cache.features.rows import ArraySpec, UnitRows
from cache.files.atomic import fsync_path, write_atomic

KEPT_PATTERN = ".unit-*.kept"
DIGEST_BYTES = 32
# In the index of a shard: two numbers for each chunk, of this value where it is not stored.
PLACE_BYTES, NOT_STORED = 16, 2**64 - 1


def plain_chunk(file: Path, dtype: npt.DTypeLike, shape: tuple[int, ...], fill: float) -> npt.NDArray[Any] | None:
    """A chunk without codecs: of fill value where it is not stored, None where it has another size."""
    try:
        values = np.fromfile(file, dtype)
    except FileNotFoundError:
        return np.full(shape, fill, dtype)
    whole = values.size == np.prod(shape) and file.stat().st_size == values.nbytes
    return values.reshape(shape) if whole else None


@dataclass(frozen=True)
class UnitLayers:
    """The layers of a unit of an array, in files of their own or in one shard.

    Attributes:
        folder: of the array.
        unit: number of the unit.
        shape: rows of a whole unit, layers, width.
        is_sharded: they share a file.
    """

    folder: Path
    unit: int
    shape: tuple[int, int, int]
    is_sharded: bool

    def file(self, layer: int) -> Path:
        """The file that a layer, by its place among those kept, is in."""
        return self.folder / f"hidden/c/{self.unit}/{0 if self.is_sharded else layer}/0"

    @property
    def file_bytes(self) -> int:
        """How large a file is in which nothing is left out."""
        rows, layers, width = self.shape
        return layers * (4 * rows * width + PLACE_BYTES) + 4 if self.is_sharded else 4 * rows * width

    def read(self, layer: int) -> npt.NDArray[np.float32] | None:
        """One layer, with the rows that pad the last unit: NaN where it is not stored, None where it is damaged."""
        rows, layers, width = self.shape
        if not self.is_sharded:
            return plain_chunk(self.file(layer), "<f4", (rows, width), math.nan)
        try:
            with self.file(layer).open("rb") as file:
                places = _places_in_shard(file, layers, 4 * rows * width)
                if places is None or places[layer] is None:
                    return None if places is None else np.full((rows, width), np.nan, np.float32)
                file.seek(places[layer] or 0)
                return np.fromfile(file, "<f4", rows * width).reshape(rows, width)
        except FileNotFoundError:
            return np.full((rows, width), np.nan, np.float32)


def _places_in_shard(file: BinaryIO, layers: int, layer_bytes: int) -> list[int | None] | None:
    """Where each layer begins in a shard, None for one that is all fill value; None: it is not as zarr writes it.

    A shard ends with the offset and the length of each chunk, and their CRC-32C.
    """
    index_bytes = layers * PLACE_BYTES + 4
    if file.seek(0, os.SEEK_END) < index_bytes:
        return None
    end = file.seek(-index_bytes, os.SEEK_END)
    index = file.read(index_bytes)
    if google_crc32c.value(index[:-4]) != int.from_bytes(index[-4:], "little"):
        return None
    places = [None if at == NOT_STORED else int(at) for at in np.frombuffer(index[:-4], "<u8")[::2]]
    stored = sorted(at for at in places if at is not None)
    return places if stored == list(range(0, end, layer_bytes)) and end == layer_bytes * len(stored) else None


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


def kept_file(folder: Path, unit: int) -> Path:
    """Where the array in `folder` keeps the rows of a unit that is not complete."""
    return folder / f".unit-{unit:05d}.kept"


def keep_rows(
    folder: Path, unit: int, spec: ArraySpec, clip_ids: Sequence[str], rows: UnitRows, which: npt.NDArray[np.bool_]
) -> None:
    """Keep those rows of a unit that `which` (clips,) marks; they replace what was kept of it.

    Args:
        folder: of the array.
        unit: number of the unit.
        spec: how the rows are made.
        clip_ids: of the whole unit.
        rows: of the whole unit.
        which: the rows to keep; each has been decided on.
    """
    places = np.flatnonzero(which)
    columns = {"source": rows.source, "reason": rows.reason, **rows.columns}
    texts = {name: [_plain(values[place]) for place in places] for name, values in columns.items()}
    content = io.BytesIO()
    np.savez(
        content,
        made=np.array(_made(spec, clip_ids)),
        columns=np.array(json.dumps(texts)),
        places=places,
        state=rows.state[places],
        hidden=rows.hidden_BLD[places],
    )
    payload = content.getvalue()
    write_atomic(kept_file(folder, unit), hashlib.sha256(payload).digest() + payload)


def kept_rows(folder: Path, unit: int, spec: ArraySpec, clip_ids: Sequence[str]) -> UnitRows:
    """The rows that are kept of a unit, the others pending; all are where nothing fits or the file is damaged."""
    rows, kept = UnitRows.empty(len(clip_ids), spec), _read(kept_file(folder, unit))
    if kept is None or str(kept["made"]) != _made(spec, clip_ids):
        return rows
    places = kept["places"]
    rows.state[places], rows.hidden_BLD[places] = kept["state"], kept["hidden"]
    own = {"source": rows.source, "reason": rows.reason, **rows.columns}
    for name, values in json.loads(str(kept["columns"])).items():
        for place, value in zip(places, values, strict=True):
            own[name][place] = value
    return rows


def forget_kept(folder: Path, unit: int) -> None:
    """Delete what is kept of a unit."""
    kept_file(folder, unit).unlink(missing_ok=True)


def needless_kept(folder: Path) -> Iterator[Path]:
    """What is kept of units that are complete: their writer was killed before it could delete it."""
    # Beside the arrays' own folders: those of chunks, of which there are many, hold none.
    for file in sorted(folder.glob(f"*/*/{KEPT_PATTERN}")):
        number = int(file.name.removeprefix(".unit-").removesuffix(".kept"))
        # A pending unit has no states: zarr leaves out what is all zero.
        if (file.parent / f"state/c/{number}").exists():
            yield file


def _made(spec: ArraySpec, clip_ids: Sequence[str]) -> str:
    made = {"path": spec.path, "layers": spec.layers, "width": spec.width, "provenance": dict(spec.provenance)}
    return json.dumps({**made, "clips": list(clip_ids)}, sort_keys=True)


def _read(file: Path) -> Mapping[str, Any] | None:
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    digest, payload = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        return None
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
        return dict(arrays)


def _plain(value: Any) -> str | float:
    return value if isinstance(value, str) else float(value)
