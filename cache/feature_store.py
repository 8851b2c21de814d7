"""Feature stores: one zarr v3 store per condition, written unit by unit, complete or pending.

Layout of `<features_dir>/<condition>.zarr` (shapes in clips, layers, width; chunks are one unit high):

    clip_id                         str     (clips,)                rows of every array, in this order
    <modality>/<encoder>/hidden     float32 (clips, layers, width)  NaN where not written
    <modality>/<encoder>/state      uint8   (clips,)                see `State`
    <modality>/<encoder>/source     str     (clips,)                sha256 of the media file
    <modality>/<encoder>/reason     str     (clips,)                why a clip failed or is absent
    <modality>/<encoder>/checksum   uint32  (units, layers)         CRC-32 of each chunk of `hidden`
    text/<encoder>/transcript, words (JSON) str; confidence, wer float32: (clips,)

A unit is written data first, forced to the disk, then `state`: a crash leaves it pending.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr

from cache.atomic import fsync_path
from cache.units import unit_count, unit_rows, unit_size

Strings = npt.NDArray[np.object_]
TRANSCRIPT_COLUMNS = {"transcript": str, "words": str, "confidence": np.float32, "wer": np.float32}


class State(enum.IntEnum):
    """What is known of one clip in one array."""

    PENDING = 0
    DONE = 1
    FAILED = 2
    ABSENT = 3


@dataclass(frozen=True)
class ArraySpec:
    """One modality's array: who wrote it, how large a row is, everything that changes its numbers."""

    modality: str
    encoder: str
    layers: int
    width: int
    provenance: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Group of the array inside a store."""
        return f"{self.modality}/{self.encoder}"


@dataclass
class UnitRows:
    """The rows of one unit, filled by whoever computes them. Rows start pending, with NaN features."""

    hidden_BLD: npt.NDArray[np.float32]
    state: npt.NDArray[np.uint8]
    source: list[str]
    reason: list[str]
    columns: dict[str, list[Any]] = field(default_factory=dict)

    @classmethod
    def empty(cls, rows: int, spec: ArraySpec) -> UnitRows:
        """Room for `rows` clips of `spec`."""
        hidden_BLD = np.full((rows, spec.layers, spec.width), np.nan, np.float32)
        columns: dict[str, list[Any]] = {}
        if spec.modality == "text":
            columns = {n: ["" if kind is str else math.nan] * rows for n, kind in TRANSCRIPT_COLUMNS.items()}
        return cls(hidden_BLD, np.zeros(rows, np.uint8), [""] * rows, [""] * rows, columns)

    def fail(self, row: int, reason: str) -> None:
        """Record that a clip could not be encoded."""
        self.state[row], self.reason[row] = State.FAILED, reason

    def absent(self, row: int, reason: str) -> None:
        """Record that the clip has no such modality."""
        self.state[row], self.reason[row] = State.ABSENT, reason

    def done(self, row: int, hidden_LD: npt.NDArray[np.float32]) -> None:
        """Store one clip's features; values that are not finite are a failure, not data."""
        bad = np.flatnonzero(~np.isfinite(hidden_LD).all(axis=1))
        if bad.size:
            self.fail(row, f"encoder returned values that are not finite in layer {bad[0]}")
            return
        self.hidden_BLD[row], self.state[row] = hidden_LD, State.DONE


def fingerprint(values: Sequence[str]) -> str:
    """SHA-256 of a sequence of strings."""
    return hashlib.sha256(json.dumps(list(values)).encode()).hexdigest()


class FeatureStore:
    """One condition's features. Many processes may write, each its own units."""

    def __init__(self, path: Path, group: zarr.Group) -> None:
        """Use `create` or `open_store`."""
        self.path = path
        self.group = group
        self.clip_ids: tuple[str, ...] = tuple(str(name) for name in _array(group, "clip_id")[:])

    @classmethod
    def create(cls, path: Path, clip_ids: Sequence[str]) -> FeatureStore:
        """Open the store, making it first if need be; refuse one that was made for other clips."""
        group = _open_group(path, "a")
        corpus = fingerprint(clip_ids)
        # The attribute is written after the ids: it says that they are complete.
        if "corpus_sha256" not in group.attrs:
            shape = {"shape": (len(clip_ids),), "chunks": (max(1, len(clip_ids)),)}
            array = group.create_array("clip_id", dtype=str, overwrite=True, **shape)  # type: ignore[arg-type]
            array[:] = np.array(clip_ids, dtype=object)
            group.attrs["corpus_sha256"] = corpus
        if group.attrs["corpus_sha256"] != corpus:
            raise ValueError(
                f"{path} holds features of other clips than this corpus lists; "
                f"set another features_dir, or delete {path}"
            )
        return cls(path, group)

    def require(self, spec: ArraySpec) -> None:
        """Make the arrays of `spec`, or check that those there were made the same way.

        Raises:
            ValueError: naming every difference in provenance and the way out.
        """
        rows, size = len(self.clip_ids), unit_size(len(self.clip_ids))
        stored: dict[str, Any] = {}
        if (self.path / spec.path / "zarr.json").exists():
            stored = self.group[spec.path].attrs.asdict()
            if stored and stored != dict(spec.provenance):
                raise ValueError(
                    f"{self.path} {spec.path} was made differently: {_differences(stored, spec.provenance)}; "
                    f"set another features_dir, or delete {self.path / spec.path} to recompute it"
                )
        # The parent explicitly: a crash between the two would leave it implied, and other bytes behind.
        group = self.group.require_group(spec.modality).require_group(spec.encoder)
        plain: dict[str, Any] = {"shape": (rows,), "chunks": (size,)}
        for name in ("source", "reason"):
            _require(group, name, dtype=str, **plain)
        if spec.modality == "text":
            for name, kind in TRANSCRIPT_COLUMNS.items():
                _require(group, name, dtype=kind, **plain, **({} if kind is str else {"fill_value": math.nan}))
        _require(group, "state", dtype=np.uint8, **plain, compressors=None)
        _require(
            group,
            "checksum",
            shape=(unit_count(rows), spec.layers),
            chunks=(1, spec.layers),
            dtype=np.uint32,
            compressors=None,
        )
        # Hidden states are noise to a compressor: 7 % smaller, several times slower to read.
        _require(
            group,
            "hidden",
            shape=(rows, spec.layers, spec.width),
            chunks=(size, 1, spec.width),
            dtype=np.float32,
            fill_value=math.nan,
            compressors=None,
        )
        if not stored:
            group.attrs.put(dict(spec.provenance))

    def states(self, path: str) -> npt.NDArray[np.uint8]:
        """State of every clip in the array `<modality>/<encoder>`."""
        return np.asarray(_array(self.group, f"{path}/state")[:], np.uint8)

    def reasons(self, path: str) -> list[str]:
        """Why clips failed or are absent; "" for the others."""
        return [str(reason) for reason in _array(self.group, f"{path}/reason")[:]]

    def unit_is_pending(self, path: str, unit: int) -> bool:
        """Whether any clip of the unit still waits."""
        rows = unit_rows(len(self.clip_ids), unit)
        return bool((_array(self.group, f"{path}/state")[rows.start : rows.stop] == State.PENDING).any())

    def write_unit(self, spec: ArraySpec, unit: int, rows: UnitRows) -> None:
        """Write one whole unit: data, forced to the disk, then its state."""
        if (rows.state == State.PENDING).any():
            raise AssertionError(f"unit {unit} of {spec.path} has rows that nobody decided on")
        span = unit_rows(len(self.clip_ids), unit)
        group, where = self.group[spec.path], slice(span.start, span.stop)
        assert isinstance(group, zarr.Group)
        _array(group, "hidden")[where] = rows.hidden_BLD
        columns: dict[str, list[Any]] = {"source": rows.source, "reason": rows.reason, **rows.columns}
        for name, values in columns.items():
            array = _array(group, name)
            array[where] = np.array(values, dtype=object if isinstance(values[0], str) else array.dtype)
        _array(group, "checksum")[unit] = _checksums(rows.hidden_BLD)
        self._force_to_disk(spec.path, unit, ["hidden", "checksum", *columns])
        _array(group, "state")[where] = rows.state
        self._force_to_disk(spec.path, unit, ["state"])

    def reset_unit(self, path: str, unit: int) -> None:
        """Set a unit back to pending, for good before this returns."""
        rows = unit_rows(len(self.clip_ids), unit)
        _array(self.group, f"{path}/state")[rows.start : rows.stop] = np.uint8(State.PENDING)
        self._force_to_disk(path, unit, ["state"])

    def read_layer(self, path: str, layer: int) -> npt.NDArray[np.float32]:
        """One layer of every clip, (clips, width); rows that are not done are NaN.

        Raises:
            ValueError: a chunk is not what was written (flipped bits, deleted files).
        """
        array = _array(self.group, f"{path}/hidden")
        try:
            hidden = np.asarray(array[:, layer], np.float32)
        # A chunk is cut off: zarr raises whatever its codecs do.
        except ValueError as error:
            raise self._damage(path, layer, self._first_unreadable(array, layer)) from error
        checksums = np.asarray(_array(self.group, f"{path}/checksum")[:, layer])
        written = self.states(path) != State.PENDING
        for unit in range(len(checksums)):
            rows = unit_rows(len(self.clip_ids), unit)
            if written[rows.start] and _checksum(hidden[rows.start : rows.stop]) != checksums[unit]:
                raise self._damage(path, layer, unit)
        return hidden

    def _damage(self, path: str, layer: int, unit: int) -> ValueError:
        return ValueError(
            f"{self.path} {path}/hidden: unit {unit}, layer {layer} is damaged; "
            f"delete {self.path / path} and run make features again"
        )

    def _first_unreadable(self, array: Any, layer: int) -> int:
        for unit in range(unit_count(len(self.clip_ids))):
            rows = unit_rows(len(self.clip_ids), unit)
            try:
                array[rows.start : rows.stop, layer]
            except ValueError:
                return unit
        raise AssertionError("every unit can be read")

    def column(self, path: str, name: str) -> list[Any]:
        """A per-clip column such as `transcript` or `wer`."""
        values = _array(self.group, f"{path}/{name}")[:]
        return [str(value) for value in values] if values.dtype.kind in "OTU" else list(values)

    def encoders(self, modality: str) -> list[str]:
        """Names of the encoders with features of that modality."""
        return sorted(self.group[modality].group_keys()) if modality in self.group else []  # type: ignore[union-attr]

    def provenance(self, path: str) -> dict[str, Any]:
        """How an array was made."""
        return dict(self.group[path].attrs.asdict())

    def shape(self, path: str) -> tuple[int, int, int]:
        """(clips, layers, width) of an array."""
        clips, layers, width = _array(self.group, f"{path}/hidden").shape
        return clips, layers, width

    def _force_to_disk(self, path: str, unit: int, names: Sequence[str]) -> None:
        """zarr renames whole chunks into place but does not fsync them."""
        for name in names:
            folder = self.path / path / name / "c"
            if not folder.exists():  # zarr leaves out chunks that are all fill value
                continue
            chunk = folder / str(unit)
            chunks = [p for p in chunk.rglob("*") if p.is_file()] if chunk.is_dir() else [chunk]
            for file in [p for p in chunks if p.exists()]:
                fsync_path(file)
                fsync_path(file.parent)
            fsync_path(folder)


def open_store(path: Path) -> FeatureStore:
    """Open a finished store for reading."""
    try:
        return FeatureStore(path, _open_group(path, "r"))
    except (FileNotFoundError, KeyError) as error:
        raise ValueError(f"no feature store {path}; run: make features SET=conditions=[{path.stem}]") from error


def remove_leftovers(path: Path) -> None:
    """Delete temporary files of writers that were killed. Only while no writer is alive."""
    for leftover in path.rglob("*.partial"):
        leftover.unlink(missing_ok=True)


def _checksums(hidden_BLD: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    return np.array([_checksum(hidden_BLD[:, layer]) for layer in range(hidden_BLD.shape[1])], np.uint32)


def _checksum(chunk_BD: npt.NDArray[np.float32]) -> int:
    return zlib.crc32(np.ascontiguousarray(chunk_BD, "<f4").data)


def _open_group(path: Path, mode: Literal["r", "a"]) -> zarr.Group:
    try:
        return zarr.open_group(path, mode=mode, zarr_format=3)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and run make features again") from error


def _array(group: zarr.Group, path: str) -> Any:
    # zarr types a selection as any scalar or array; here it is always an array.
    return group[path]


def _require(group: zarr.Group, name: str, **kwargs: Any) -> None:
    if name not in group:
        group.create_array(name, **kwargs)


def _differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    old, new = _flat(stored), _flat(wanted)
    changed = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    return "; ".join(f"{key} was {old.get(key, 'not recorded')}, is {new.get(key, 'not recorded')}" for key in changed)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value})
    return flat
