"""`python -m cache export`: features as one HDF5, npz or CSV file, joined by clip id, for people without this project.

HDF5 and npz hold every array of a condition side by side under `<modality>/<encoder>/`: `hidden` (clips, layers,
width), `state`, `layers` (numbers of the layers), transcripts where there are any, and `provenance` as JSON;
`clip_id` stands at the top. Rows are the clips that are done in at least one of the arrays; where one is not done,
its row is NaN and `state` says why. A CSV holds one array: `clip_id` and a column per dimension, clips that are done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from cache.conditions import CLEAN, parse_condition
from cache.features.rows import TRANSCRIPT_COLUMNS, State
from cache.features.store import FeatureStore, open_store
from cache.files.atomic import revealed, write_atomic
from cache.files.csv import csv_text
from cache.files.remedy import features_command


@dataclass(frozen=True)
class Export:
    """What is exported.

    Attributes:
        features_dir: folder of the stores.
        to: file to write; its suffix says what it becomes.
        condition: store to read.
        modality: of the arrays; "": all of the condition.
        layers: numbers as of the model, or `last`; empty: all, for a CSV the last.
    """

    features_dir: Path
    to: Path
    condition: str = CLEAN
    modality: str = ""
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Chosen:
    """The arrays of an export, their states, and the rows that are written."""

    store: FeatureStore
    paths: tuple[str, ...]
    rows: npt.NDArray[np.intp]
    layers: dict[str, tuple[int, ...]]

    @property
    def clip_ids(self) -> list[str]:
        return [self.store.clip_ids[row] for row in self.rows]

    def read(self, path: str, layer: int) -> npt.NDArray[np.float32]:
        return self.store.read_layer(path, self.store.layers(path).index(layer))[self.rows]


def export(what: Export) -> str:
    """Write the file; returns what was written.

    Raises:
        ValueError: features are missing, pending or damaged, or the file's kind is not known.
    """
    writers: dict[str, Callable[[Path, _Chosen], None]] = {".h5": _write_h5, ".npz": _write_npz, ".csv": _write_csv}
    if what.to.suffix not in writers:
        raise ValueError(f"--to {what.to}: the file must end in {', '.join(writers)}")
    chosen = _choose(what)
    writers[what.to.suffix](what.to, chosen)
    return f"{what.to}: {len(chosen.rows)} clips of {', '.join(chosen.paths)} ({what.condition})"


def _choose(what: Export) -> _Chosen:
    parse_condition(what.condition)
    store = open_store(what.features_dir / f"{what.condition}.zarr")
    paths = tuple(path for path in store.arrays() if what.modality in ("", path.partition("/")[0]))
    if not paths:
        there = ", ".join(store.arrays()) or "no features"
        raise ValueError(f"{store.path} has no {what.modality or 'features'}; it has {there}")
    if what.to.suffix == ".csv" and len(paths) > 1:
        raise ValueError(f"a CSV holds one array; {store.path} has {', '.join(paths)}: choose with --modality, or .h5")
    done = np.zeros(len(store.clip_ids), np.bool_)
    for path in paths:
        store.refuse_broken_metadata(path)
        states = store.states(path)
        if (states == State.PENDING).any():
            waiting = int((states == State.PENDING).sum())
            command = features_command(store.path.parent, [store.path.stem])
            raise ValueError(f"{store.path} {path}: {waiting} clips are pending; to finish, run: {command}")
        done |= states == State.DONE
    if not done.any():
        raise ValueError(f"{store.path}: no clip is done in {', '.join(paths)}")
    layers = what.layers or (("last",) if what.to.suffix == ".csv" else ("all",))
    return _Chosen(store, paths, np.flatnonzero(done), {path: _layers(store, path, layers) for path in paths})


def _layers(store: FeatureStore, path: str, wanted: Sequence[str]) -> tuple[int, ...]:
    stored = store.layers(path)
    if tuple(wanted) in (("all",), ("last",)):
        return stored if wanted[0] == "all" else stored[-1:]
    if all(layer.isdecimal() and int(layer) in stored for layer in wanted) and len(set(wanted)) == len(wanted):
        return tuple(map(int, wanted))
    raise ValueError(f"--layers {' '.join(wanted)}: give all, last, or some of {', '.join(map(str, stored))} ({path})")


def _columns(chosen: _Chosen) -> Iterator[tuple[str, npt.NDArray[np.generic]]]:
    """Everything of an h5 or npz file beside `hidden`; strings as arrays of objects."""
    yield "clip_id", np.array(chosen.clip_ids, object)
    for path in chosen.paths:
        yield f"{path}/state", chosen.store.states(path)[chosen.rows]
        yield f"{path}/layers", np.array(chosen.layers[path])
        provenance = json.dumps(chosen.store.provenance(path), indent=1)
        yield f"{path}/provenance", np.array(provenance, object)
        for name, kind in TRANSCRIPT_COLUMNS.items() if path.startswith("text/") else ():
            values = chosen.store.column(path, name)
            yield f"{path}/{name}", np.array([values[row] for row in chosen.rows], object if kind is str else kind)


def _write_h5(to: Path, chosen: _Chosen) -> None:
    with revealed(to) as part, h5py.File(part, "w") as file:
        for name, values in _columns(chosen):
            file.create_dataset(name, data=values, dtype=h5py.string_dtype() if values.dtype == object else None)
        for path, layers in chosen.layers.items():
            shape = (len(chosen.rows), len(layers), chosen.store.shape(path)[2])
            hidden = file.create_dataset(f"{path}/hidden", shape, np.float32)
            # Layer by layer: all of a large corpus would not fit in memory.
            for place, layer in enumerate(layers):
                hidden[:, place] = chosen.read(path, layer)


def _write_npz(to: Path, chosen: _Chosen) -> None:
    arrays = {name: v.astype(np.str_) if v.dtype == object else v for name, v in _columns(chosen)}
    for path, layers in chosen.layers.items():
        arrays[f"{path}/hidden"] = np.stack([chosen.read(path, layer) for layer in layers], axis=1)
    with revealed(to) as part:
        np.savez(part, allow_pickle=False, **arrays)


def _write_csv(to: Path, chosen: _Chosen) -> None:
    (path,) = chosen.paths
    layers, width = chosen.layers[path], chosen.store.shape(path)[2]
    names = chosen.store.provenance(path).get("columns") or []
    if len(layers) > 1 or len(names) != width:
        names = [f"layer{layer}_{column}" for layer in layers for column in range(width)]
    values = np.concatenate([chosen.read(path, layer) for layer in layers], axis=1)
    # The shortest text that reads as the same float32.
    rows = ([clip, *map(str, row)] for clip, row in zip(chosen.clip_ids, values, strict=True))
    write_atomic(to, csv_text(["clip_id", *names], rows))
