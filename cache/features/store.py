"""Feature stores: one zarr v3 store per condition, written unit by unit, complete or pending.

A unit is written data first, forced to the disk, then `state`: a crash leaves it pending. See `cache.features.layout`
for the arrays; docs/store.md says more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from cache.features.chunks import (
    UnitLayers,
    force_to_disk,
    forget_kept,
    keep_rows,
    kept_rows,
    needless_kept,
    part_checksum,
    plain_chunk,
    read_checksums,
    remove_unit,
    sealed_checksums,
)
from cache.features.creation import is_written, make_arrays, make_store, open_group, refuse_broken_metadata, way_out
from cache.features.layout import array_of, read_clip_ids
from cache.features.rows import ArraySpec, State, UnitRows, parts_of
from cache.features.seal import SHARDED, broken_files, sealed
from cache.features.units import unit_count, unit_rows, unit_size
from cache.files.hashes import fingerprint
from cache.files.remedy import features_command


class FeatureStore:
    """One condition's features. Many processes may write, each its own units."""

    def __init__(self, path: Path, group: zarr.Group, clip_ids: tuple[str, ...]) -> None:
        """Use `create` or `open_store`."""
        self.path, self.group, self.clip_ids = path, group, clip_ids
        self._sharded: dict[str, bool] = {}

    @classmethod
    def create(cls, path: Path, clip_ids: Sequence[str]) -> FeatureStore:
        """Open the store, making it first if need be; refuse one that was made for other clips."""
        # Of equal ids one copy: a million of them in each of many stores would fill the memory.
        return cls(path, make_store(path, clip_ids), tuple(clip_ids))

    def require(self, spec: ArraySpec, is_sharded: bool | None = None) -> None:
        """Make the arrays of `spec`, or check that those there were made the same way.

        `is_sharded`: whether new ones keep their units as shards; None: as suits their size.

        Raises:
            ValueError: naming every difference in provenance and the way out.
        """
        make_arrays(self.path, self.group, len(self.clip_ids), spec, is_sharded)

    def refuse_broken_metadata(self, path: str) -> None:
        """Refuse an array of which a zarr.json is not what was written.

        Raises:
            ValueError: naming the file and the way out.
        """
        refuse_broken_metadata(self.path, path)

    def states(self, path: str) -> npt.NDArray[np.uint8]:
        """State of every clip in the array `<modality>/<encoder>`."""
        return np.concatenate([self.unit_states(path, unit) for unit in range(unit_count(len(self.clip_ids)))])

    def unit_states(self, path: str, unit: int) -> npt.NDArray[np.uint8]:
        """State of every clip of a unit."""
        chunk = plain_chunk(self.path / path / f"state/c/{unit}", np.uint8, (unit_size(len(self.clip_ids)),), 0)
        if chunk is None:
            raise self._damage(path, "state", unit)
        return chunk[: len(unit_rows(len(self.clip_ids), unit))]

    def reasons(self, path: str) -> list[str]:
        """Why clips failed or are absent; "" for the others."""
        return self.column(path, "reason")

    def unit_is_pending(self, path: str, unit: int) -> bool:
        """Whether any clip of the unit still waits."""
        return bool((self.unit_states(path, unit) == State.PENDING).any())

    def write_unit(self, spec: ArraySpec, unit: int, rows: UnitRows) -> None:
        """Write one whole unit: data, forced to the disk, then its state."""
        if (rows.state == State.PENDING).any():
            raise AssertionError(f"unit {unit} of {spec.path} has rows that nobody decided on")
        # What is kept of it stays until its state is there: a crash in between costs nothing.
        remove_unit(self.path / spec.path, unit)
        span = unit_rows(len(self.clip_ids), unit)
        group, where = self.group[spec.path], slice(span.start, span.stop)
        assert isinstance(group, zarr.Group)
        array_of(group, "hidden")[where] = rows.hidden_BLD
        columns: dict[str, Any] = {"state": rows.state, "source": rows.source, "reason": rows.reason, **rows.columns}
        parts = {name: _column(columns[name], array_of(group, name)) for name in parts_of(spec.modality)}
        for name, column in parts.items():
            if name != "state":
                array_of(group, name)[where] = column
        layers = [part_checksum(rows.hidden_BLD[:, layer]) for layer in range(spec.layers)]
        array_of(group, "checksum")[unit] = sealed_checksums([*layers, *map(part_checksum, parts.values())])
        folder = self.path / spec.path
        force_to_disk(folder, ["hidden", "checksum", *parts], unit)
        array_of(group, "state")[where] = rows.state
        force_to_disk(folder, ["state"], unit)
        forget_kept(folder, unit)

    def reset_unit(self, path: str, unit: int) -> None:
        """Set a unit back to pending, for good before this returns; its chunks are deleted, the state first."""
        remove_unit(self.path / path, unit)
        forget_kept(self.path / path, unit)

    def keep_rows(self, spec: ArraySpec, unit: int, rows: UnitRows, which: npt.NDArray[np.bool_]) -> None:
        """Keep those rows of a unit that is not complete which `which` (clips,) marks."""
        keep_rows(self.path / spec.path, unit, spec, self.unit_clips(unit), rows, which)

    def kept_rows(self, spec: ArraySpec, unit: int) -> UnitRows:
        """A unit's rows as far as they are kept, the others pending."""
        return kept_rows(self.path / spec.path, unit, spec, self.unit_clips(unit))

    def unit_clips(self, unit: int) -> tuple[str, ...]:
        """Ids of a unit's clips."""
        span = unit_rows(len(self.clip_ids), unit)
        return self.clip_ids[span.start : span.stop]

    def read_layer(self, path: str, layer: int) -> npt.NDArray[np.float32]:
        """One layer of every clip, (clips, width), by its place among those kept; rows that are not done are NaN.

        Raises:
            ValueError: a chunk is not what was written (flipped bits, deleted files).
        """
        clips, _, width = self.shape(path)
        hidden = np.empty((clips, width), np.float32)
        for where, (values,) in self.read_rows(path, [layer], np.arange(clips)):
            hidden[where] = values
        return hidden

    def read_rows(
        self, path: str, layers: Sequence[int], rows: npt.NDArray[np.intp]
    ) -> Iterator[tuple[npt.NDArray[np.intp], list[npt.NDArray[np.float32]]]]:
        """Some layers of some clips, unit by unit: no more than one unit is in memory, and no other one is read.

        Args:
            path: of the array.
            layers: places among those that are kept.
            rows: numbers of the clips, in any order.

        Yields:
            Places in `rows` of those clips that are of one unit; and of each layer, their features (k, width), NaN for
            those that are not done.

        Raises:
            ValueError: a chunk is not what was written (flipped bits, deleted files).
        """
        shape = self.shape(path)
        units = rows // unit_size(shape[0])
        order = np.argsort(units, kind="stable")
        for where in np.split(order, np.flatnonzero(np.diff(units[order])) + 1) if len(rows) else ():
            unit = int(units[where[0]])
            own = rows[where] - unit_rows(shape[0], unit).start
            yield where, self._layers_of_unit(path, unit, layers, own, shape)

    def _layers_of_unit(
        self, path: str, unit: int, layers: Sequence[int], own: npt.NDArray[np.intp], shape: tuple[int, int, int]
    ) -> list[npt.NDArray[np.float32]]:
        """Of the clips with numbers `own` in the unit."""
        states = self.unit_states(path, unit)
        if (states == State.PENDING).all():
            return [np.full((len(own), shape[2]), np.nan, np.float32) for _ in layers]
        expected = self._checksums(path, unit, states, shape[1])
        return [self._layer(path, unit, layer, expected, shape)[own] for layer in layers]

    def read_unit(self, path: str, unit: int) -> UnitRows:
        """All that is known of a unit's rows; of one that is pending, what is kept of it.

        Raises:
            ValueError: something of it is not what was written.
        """
        spec = self.spec(path)
        if self.unit_is_pending(path, unit):
            return self.kept_rows(spec, unit)
        span = unit_rows(len(self.clip_ids), unit)
        rows = UnitRows.empty(len(span), spec)
        rows.state = self.unit_states(path, unit)
        expected, shape = self._checksums(path, unit, rows.state, spec.layers), self.shape(path)
        for layer in range(spec.layers):
            rows.hidden_BLD[:, layer] = self._layer(path, unit, layer, expected, shape)
        own = {"source": rows.source, "reason": rows.reason, **rows.columns}
        for part, crc in zip(parts_of(spec.modality), expected[spec.layers :], strict=True):
            if part != "state":
                own[part][:] = self._part(path, part, unit, span, int(crc))
        return rows

    def spec(self, path: str) -> ArraySpec:
        """What an array was made as."""
        modality, _, encoder = path.partition("/")
        _, layers, width = self.shape(path)
        return ArraySpec(modality, encoder, layers, width, self.provenance(path))

    def _checksums(self, path: str, unit: int, states: npt.NDArray[np.uint8], layers: int) -> npt.NDArray[np.uint32]:
        """Those of a unit's layers and parts; its states are compared with theirs."""
        expected = read_checksums(self.path / path, unit, layers + len(parts_of(path.partition("/")[0])))
        if expected is None:
            raise self._damage(path, "checksum", unit)
        if part_checksum(states) != expected[layers]:
            raise self._damage(path, "state", unit)
        return expected

    def _layer(
        self, path: str, unit: int, layer: int, expected: npt.NDArray[np.uint32], shape: tuple[int, int, int]
    ) -> npt.NDArray[np.float32]:
        clips, layers, width = shape
        count = len(unit_rows(clips, unit))
        if path not in self._sharded:
            self._sharded[path] = SHARDED in sealed(self.path / path / "checksum")
        sizes = unit_size(clips), layers, width
        chunk = UnitLayers(self.path / path, unit, sizes, self._sharded[path]).read(layer)
        if chunk is None or part_checksum(chunk[:count]) != expected[layer]:
            raise self._damage(path, "hidden", unit, layer)
        return chunk[:count]

    def _part(self, path: str, name: str, unit: int, span: range, crc: int) -> list[Any]:
        try:
            values = array_of(self.group, f"{path}/{name}")[span.start : span.stop]
        except ValueError as error:
            raise self._damage(path, name, unit) from error
        if part_checksum(values) != crc:
            raise self._damage(path, name, unit)
        return [str(value) for value in values] if values.dtype.kind in "OTU" else list(values)

    def column(self, path: str, name: str, rows: range | None = None) -> list[Any]:
        """A per-clip column such as `transcript` or `wer`, of all clips or of `rows`, which follow one another."""
        if name == "state":
            return list(self.states(path))
        array = array_of(self.group, f"{path}/{name}")
        try:
            values = array[slice(rows.start, rows.stop) if rows else slice(None)]
        # A chunk is cut off, or its codecs find damage.
        except ValueError as error:
            raise self._damage(path, name, self._first_unreadable(array)) from error
        return [str(value) for value in values] if values.dtype.kind in "OTU" else list(values)

    def _first_unreadable(self, array: Any) -> int:
        for unit in range(unit_count(len(self.clip_ids))):
            rows = unit_rows(len(self.clip_ids), unit)
            try:
                array[rows.start : rows.stop]
            except ValueError:
                return unit
        raise AssertionError("every unit can be read")

    def _damage(self, path: str, name: str, unit: int, layer: int | None = None) -> ValueError:
        where = f"unit {unit}" if layer is None else f"unit {unit}, layer {self.layers(path)[layer]}"
        return ValueError(f"{self.path} {path}/{name}: {where} is damaged; {way_out(self.path)}")

    def encoders(self, modality: str) -> list[str]:
        """Names of the encoders with features of that modality, as far as their arrays are complete."""
        folders = [path for path in (self.path / modality).glob("*") if path.is_dir()]
        return sorted(p.name for p in folders if broken_files(p / "checksum") is not None or is_written(p))

    def arrays(self) -> list[str]:
        """Every complete `<modality>/<encoder>`."""
        modalities = sorted(path.name for path in self.path.iterdir() if path.is_dir() and path.name != "clip_id")
        return [f"{modality}/{encoder}" for modality in modalities for encoder in self.encoders(modality)]

    def provenance(self, path: str) -> dict[str, Any]:
        """How an array was made."""
        copy = sealed(self.path / path / "checksum").get("provenance")
        return dict(self.group[path].attrs.asdict()) if copy is None else copy

    def layers(self, path: str) -> tuple[int, ...]:
        """Numbers of the layers that are kept of the model's, in the order of the array."""
        return tuple(self.provenance(path).get("layers", range(self.shape(path)[1])))

    def shape(self, path: str) -> tuple[int, int, int]:
        """(clips, layers, width) of an array."""
        shape = sealed(self.path / path / "checksum")
        if not shape:
            refuse_broken_metadata(self.path, path)
            command = features_command(self.path.parent, [self.path.stem])
            raise ValueError(f"{self.path} {path} is not complete; run: {command}")
        return shape["clips"], shape["layers"], shape["width"]


def open_store(path: Path) -> FeatureStore:
    """Open a finished store for reading.

    Raises:
        ValueError: there is none, or its clip ids are damaged.
    """
    try:
        group = open_group(path, "r")
        corpus, store = group.attrs["corpus_sha256"], FeatureStore(path, group, read_clip_ids(group))
    except (FileNotFoundError, KeyError) as error:
        command = features_command(path.parent, [path.stem])
        raise ValueError(f"no feature store {path}; run: {command}") from error
    if broken_files(path) or fingerprint(store.clip_ids) != corpus:
        raise ValueError(f"{path} is damaged; {way_out(path)}")
    return store


def remove_leftovers(path: Path) -> None:
    """Delete temporary files of writers that were killed. Only while no writer is alive."""
    for folder, _, names in os.walk(path):
        for name in names:
            if name.endswith(".partial") or (name.startswith(".") and ".part" in name):
                Path(folder, name).unlink(missing_ok=True)
    for leftover in needless_kept(path):
        leftover.unlink(missing_ok=True)


def _column(values: Sequence[Any] | npt.NDArray[Any], array: Any) -> npt.NDArray[Any]:
    return np.array(values, dtype=object if isinstance(values[0], str) else array.dtype)
