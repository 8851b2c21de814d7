"""`python -m cache verify`: every flipped bit and every lost or shortened chunk of the stores, by name.

Everything is read and compared with the checksums that were written with it: `hidden`, `state` and `checksum` as
plain bytes, padding included; columns through their codecs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from cache.features.chunks import UnitLayers, part_checksum, plain_chunk, read_checksums
from cache.features.rows import State, parts_of
from cache.features.seal import METADATA, SHARDED, broken_files, sealed
from cache.features.units import block_rows, unit_count, unit_rows, unit_size
from cache.files.hashes import fingerprint
from cache.files.remedy import features_command
from cache.media import damaged_part

OTHER_VERSION = "it carries no checksums of metadata: another version wrote it; delete the array"


@dataclass(frozen=True)
class Damage:
    """One thing that is not what was written.

    Attributes:
        store: folder below the features folder: `clean.zarr`, `media/frames16-size224`.
        array: `<modality>/<encoder>`, or "" for what belongs to the store as a whole.
        part: `hidden`, `state`, `source`, ..., a `zarr.json`, or a media part.
        problem: what is wrong, in words.
        unit: number of the unit; None for what belongs to no unit.
        rows: rows of its clips, in the order of `clip_id`.
        layer: number of the layer in the model, for `hidden`.
    """

    store: str
    array: str
    part: str
    problem: str
    unit: int | None = None
    rows: range | None = None
    layer: int | None = None

    def __str__(self) -> str:
        """One line."""
        clips = f" (clips {self.rows[0]} to {self.rows[-1]})" if self.rows else ""
        unit = "" if self.unit is None else f", unit {self.unit}{clips}"
        layer = "" if self.layer is None else f", layer {self.layer}"
        return f"{self.store} {self.array + ' ' if self.array else ''}{self.part}{unit}{layer}: {self.problem}"


@dataclass
class Report:
    """What verify found, and how much it looked at."""

    damage: list[Damage] = field(default_factory=list)
    chunks: int = 0
    arrays: int = 0
    media_parts: int = 0
    pending_units: int = 0

    def __str__(self) -> str:
        """The list, or that all is well."""
        looked = f"{self.chunks} chunks of {self.arrays} arrays, {self.media_parts} media parts"
        pending = f"; {self.pending_units} units are pending" if self.pending_units else ""
        if not self.damage:
            return f"all well: {looked}{pending}"
        return "\n".join([*map(str, self.damage), f"{len(self.damage)} damaged; looked at {looked}{pending}"])


def verify(features_dir: Path) -> Report:
    """Check every store and every media part of a features folder.

    Raises:
        ValueError: there is nothing to check.
    """
    report = Report()
    for path in stores_in(features_dir):
        # A modality's own zarr.json is guarded by each of its encoders.
        report.damage += dict.fromkeys(_store_damage(path, report))
    for part in media_parts_in(features_dir):
        report.media_parts += 1
        problem = damaged_part(part)
        if problem:
            folder = str(part.parent.relative_to(features_dir))
            report.damage.append(Damage(folder, "", part.name, problem, int(part.stem.removeprefix("unit-"))))
    return report


def stores_in(features_dir: Path) -> list[Path]:
    """The stores of a features folder.

    Raises:
        ValueError: there are none.
    """
    stores = sorted(features_dir.glob("*.zarr"), key=lambda path: (path.stem != "clean", path.name))
    if not stores:
        raise ValueError(
            f"{features_dir} holds no feature stores; name another folder, or run: {features_command(features_dir)}"
        )
    return stores


def arrays_in(store: Path) -> list[str]:
    """Every `<modality>/<encoder>` of a store, from its folders: zarr does not see one whose zarr.json is lost."""
    folders = (path for path in sorted(store.glob("*/*")) if path.is_dir())
    return [str(path.relative_to(store)) for path in folders if path.parent.name != "clip_id"]


def media_parts_in(features_dir: Path) -> list[Path]:
    """Every finished media part: both of its files, or the one that is left."""
    parts = set(features_dir.glob("media/*/unit-*.h5"))
    for sidecar in features_dir.glob("media/*/unit-*.sources.json"):
        parts.add(sidecar.with_name(sidecar.name.removesuffix(".sources.json") + ".h5"))
    return sorted(parts)


def _store_damage(path: Path, report: Report) -> Iterator[Damage]:
    broken = broken_files(path)
    if broken is None and arrays_in(path):
        yield Damage(path.name, "", METADATA, "it is missing or not complete")
    for name in broken or []:
        yield Damage(path.name, "", name, _problem(path / name))
    if broken == []:
        report.chunks += 1
        ids = _column(path / "clip_id", slice(None))
        corpus = json.loads((path / METADATA).read_bytes())["attributes"]["corpus_sha256"]
        if ids is None or fingerprint([str(clip_id) for clip_id in ids]) != corpus:
            yield Damage(path.name, "", "clip_id", _problem(path / "clip_id/c/0"))
    for array in arrays_in(path):
        report.arrays += 1
        yield from _array_damage(path, array, report)


def _array_damage(path: Path, array: str, report: Report) -> Iterator[Damage]:
    folder = path / array
    broken = broken_files(folder / "checksum")
    if broken is None:
        # Without states a run was killed while it made the array; with them, this is damage.
        written, there = any(folder.glob("state/c/*")), (folder / "checksum" / METADATA).exists()
        if written and there:
            yield Damage(path.name, array, f"checksum/{METADATA}", OTHER_VERSION)
        broken = [METADATA] if written and not there else []
    for name in broken:
        file = Path(os.path.normpath(folder / "checksum" / name))
        above = file.parent == folder.parent
        part = METADATA if above else str(file.relative_to(folder))
        yield Damage(path.name, folder.parent.name if above else array, part, _problem(file))
    shape = sealed(folder / "checksum")
    columns = Columns(folder, shape["clips"] if shape else 0, frozenset(Path(name).parent.name for name in broken))
    for unit in range(unit_count(shape["clips"]) if shape else 0):
        yield from UnitCheck(folder, array, shape, unit, columns).damage(report)


class Columns:
    """The columns of an array, read some units at a time; unit by unit where that fails."""

    def __init__(self, folder: Path, clips: int, broken: frozenset[str]) -> None:
        """`broken`: columns whose zarr.json is damaged."""
        self.folder, self.clips, self.broken = folder, clips, broken
        self._blocks: dict[str, tuple[range, npt.NDArray[Any] | None]] = {}

    def read(self, name: str, unit: int) -> npt.NDArray[Any] | None:
        """A unit's rows of a column; None where they cannot be read."""
        rows, block = unit_rows(self.clips, unit), block_rows(self.clips, unit)
        if self._blocks.get(name, (None,))[0] != block:
            self._blocks[name] = block, _column(self.folder / name, slice(block.start, block.stop))
        values = self._blocks[name][1]
        if values is None:
            return _column(self.folder / name, slice(rows.start, rows.stop))
        return values[rows.start - block.start : rows.stop - block.start]


@dataclass(frozen=True)
class UnitCheck:
    """One unit of one array.

    Attributes:
        folder: of the array.
        array: its name, `<modality>/<encoder>`.
        shape: clips, layers, width and provenance, as sealed.
        unit: number of the unit.
        columns: of the array, but for `hidden` and `state`.
    """

    folder: Path
    array: str
    shape: Mapping[str, Any]
    unit: int
    columns: Columns

    def damage(self, report: Report) -> Iterator[Damage]:
        """All damage of the unit. A pending unit is not checked: nothing says what its data should be."""
        chunk = plain_chunk(self._file("state"), np.uint8, (self._rows_per_chunk,), 0)
        rows, modality = len(self._rows), self.array.partition("/")[0]
        expected = read_checksums(self.folder, self.unit, self.shape["layers"] + len(parts_of(modality)))
        if chunk is None or chunk[rows:].any():
            report.chunks += 1
            yield self._damage("state", _sizes(self._file("state"), self._rows_per_chunk))
        elif (chunk == State.PENDING).all():
            report.pending_units += 1
            if expected is not None:
                yield self._damage("state", "it is missing though its data are complete, or its writer was killed")
        elif expected is None:
            yield self._damage("checksum", _problem(self._file("checksum")))
        else:
            report.chunks += len(expected)
            yield from self._compare(chunk[:rows], [int(crc) for crc in expected])

    def _compare(self, state: npt.NDArray[np.uint8], expected: Sequence[int]) -> Iterator[Damage]:
        layers = self.shape["layers"]
        problems = [self._layer_problem(layer, crc, state) for layer, crc in enumerate(expected[:layers])]
        if self._layers.is_sharded and problems[0] and len(set(problems)) == 1:
            # A shard that is gone, or has lost its index, is one thing and not one for each layer.
            yield self._damage("hidden", problems[0])
            problems = []
        for layer, problem in enumerate(problems):
            if problem:
                yield self._damage("hidden", problem, self.shape["provenance"].get("layers", range(layers))[layer])
        for part, crc in zip(parts_of(self.array.partition("/")[0]), expected[layers:], strict=True):
            if part in self.columns.broken and part != "state":
                continue
            values = state if part == "state" else self.columns.read(part, self.unit)
            if values is None or part_checksum(values) != crc:
                yield self._damage(part, _problem(self._file(part)))

    def _layer_problem(self, layer: int, crc: int, state: npt.NDArray[np.uint8]) -> str:
        rows, file = len(self._rows), self._layers.file(layer)
        hidden = self._layers.read(layer)
        if hidden is None:
            return _sizes(file, self._layers.file_bytes)
        padding = np.full_like(hidden[rows:], np.nan)
        if part_checksum(hidden[:rows]) != crc or hidden[rows:].tobytes() != padding.tobytes():
            return _problem(file)
        finite = np.isfinite(hidden[:rows][state == State.DONE]).all()
        return "" if finite else "clips are marked as done whose features are not finite"

    @property
    def _layers(self) -> UnitLayers:
        sizes = self._rows_per_chunk, self.shape["layers"], self.shape["width"]
        return UnitLayers(self.folder, self.unit, sizes, SHARDED in self.shape)

    def _file(self, part: str) -> Path:
        return self.folder / f"{part}/c/{self.unit}{'/0' if part == 'checksum' else ''}"

    def _damage(self, part: str, problem: str, layer: int | None = None) -> Damage:
        return Damage(self.folder.parents[1].name, self.array, part, problem, self.unit, self._rows, layer)

    @property
    def _rows(self) -> range:
        return unit_rows(self.shape["clips"], self.unit)

    @property
    def _rows_per_chunk(self) -> int:
        return unit_size(self.shape["clips"])


def _column(path: Path, where: slice) -> npt.NDArray[Any] | None:
    """Part of an array, through its codecs; None where it cannot be read."""
    try:
        return np.asarray(zarr.open_array(path, mode="r", zarr_format=3)[where])
    # zarr raises whatever its codecs and its reader of zarr.json do.
    except Exception:
        return None


def _problem(file: Path) -> str:
    return "it is not what was written" if file.exists() else "it is missing"


def _sizes(file: Path, expected: int) -> str:
    size = file.stat().st_size
    return "it is not what was written" if size == expected else f"it has {size} bytes, {expected} were written"
