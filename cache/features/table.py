"""Feature tables: what stage two trains on, joined from stores by clip id, never by position."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.conditions import CLEAN, MODALITIES, UNCHANGED, JointCondition
from cache.corpus.clips import Clip
from cache.features.provenance import Origin, refuse_mixing
from cache.features.rows import State
from cache.features.store import FeatureStore, open_store
from cache.files.remedy import features_command

Layers = int | str | tuple[int, int]
MIX = "mix"


@dataclass(frozen=True)
class FeatureTable:
    """Features of some clips under one condition.

    Attributes:
        clips: the clips, in the order of the rows.
        features: by modality, (clips, width) float32; NaN where `present` is False.
        present: by modality, whether the clip has it at all.
        left_out: ids of clips that failed in one of the modalities.
        random_weights: some encoder was never trained.
        condition: name of the condition.
        changed: modalities whose rows are not those of clean clips.
        mixed: modality to the number of layers that stand side by side to be mixed by learned weights.
        origins: by modality, which array its rows come from and how they were made.
        label_names: the label set of the corpus, in its order; empty where nobody asks for labels.
    """

    clips: tuple[Clip, ...]
    features: Mapping[str, npt.NDArray[np.float32]]
    present: Mapping[str, npt.NDArray[np.bool_]]
    left_out: tuple[str, ...]
    random_weights: bool
    condition: str
    mixed: Mapping[str, int] = field(default_factory=dict)
    changed: frozenset[str] = frozenset()
    origins: Mapping[str, Origin] = field(default_factory=dict)
    label_names: tuple[str, ...] = ()

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Index into `label_names` of each clip."""
        assert self.label_names, "this table was loaded without the label set of its corpus"
        number = {label: index for index, label in enumerate(self.label_names)}
        return np.array([number[clip.label] for clip in self.clips], np.int64)

    @property
    def speakers(self) -> npt.NDArray[np.str_]:
        """Speaker of each clip."""
        return np.array([clip.speaker for clip in self.clips], np.str_)

    def rows_of(self, clip_ids: Sequence[str]) -> tuple[int, ...]:
        """Row numbers of these clips, in their order."""
        position = {clip.clip_id: row for row, clip in enumerate(self.clips)}
        return tuple(position[clip_id] for clip_id in clip_ids)

    def take(self, clip_ids: Sequence[str]) -> FeatureTable:
        """The same table with these clips only, in this order."""
        rows = np.array(self.rows_of(clip_ids), np.intp)
        return replace(
            self,
            clips=tuple(self.clips[row] for row in rows),
            features={name: values[rows] for name, values in self.features.items()},
            present={name: values[rows] for name, values in self.present.items()},
        )


def one_after_other(first: FeatureTable, second: FeatureTable, remedy: str) -> FeatureTable:
    """The clips of both under one condition, the first's before the second's.

    Raises:
        ValueError: their features were made differently; one line with the difference and the remedy.
    """
    for name, origin in second.origins.items():
        refuse_mixing(name, origin, first.origins[name], remedy)
        widths = [table.features[name].shape[1] for table in (first, second)]
        if widths[0] != widths[1]:
            raise ValueError(f"{origin.store}: its {name} features are {widths[1]} wide, not {widths[0]}; {remedy}")
    return replace(
        first,
        clips=(*first.clips, *second.clips),
        features={name: np.concatenate([rows, second.features[name]]) for name, rows in first.features.items()},
        present={name: np.concatenate([rows, second.present[name]]) for name, rows in first.present.items()},
        left_out=(*first.left_out, *second.left_out),
        random_weights=first.random_weights or second.random_weights,
        changed=first.changed | second.changed,
    )


def load_table(
    features_dir: Path,
    clips: Sequence[Clip],
    modalities: Sequence[str],
    condition: JointCondition = UNCHANGED,
    layers: Layers | Mapping[str, Layers] = "mean",
    encoders: Mapping[str, str] | None = None,
    label_names: Sequence[str] = (),
) -> FeatureTable:
    """Load one condition. Modalities it does not change come from `clean.zarr`.

    A modality that stage one does not know (imported features) comes from the condition where it was imported
    for that, else from clean.

    Raises:
        ValueError: features are missing, pending or damaged, with the command that makes them; or those of the
            condition were made otherwise than those of clean clips (see `cache.features.provenance`).
    """
    columns = {
        name: _column(features_dir, clips, name, condition, layers_of(name, layers), (encoders or {}).get(name))
        for name in modalities
    }
    failed = np.any([column.states == State.FAILED for column in columns.values()], axis=0)
    if failed.all():
        raise ValueError(f"{features_dir}: every clip failed in {', '.join(modalities)}; see failures.csv there")
    return FeatureTable(
        tuple(clip for clip, bad in zip(clips, failed, strict=True) if not bad),
        {name: column.features(~failed) for name, column in columns.items()},
        {name: column.states[~failed] == State.DONE for name, column in columns.items()},
        tuple(clip.clip_id for clip, bad in zip(clips, failed, strict=True) if bad),
        any(column.random_weights for column in columns.values()),
        condition.name,
        {name: column.kept_layers for name, column in columns.items() if column.layers == MIX},
        frozenset(name for name, column in columns.items() if column.changed),
        {name: column.origin for name, column in columns.items()},
        tuple(label_names),
    )


def sharing(table: FeatureTable, other: FeatureTable) -> FeatureTable:
    """The table, with the other's rows where both are the same rows of the same store: they are held once."""
    if table.clips != other.clips:
        return table
    same = [name for name, origin in table.origins.items() if other.origins.get(name) == origin]
    return replace(table, features={**table.features, **{name: other.features[name] for name in same}})


def origin_of(
    features_dir: Path,
    modality: str,
    condition: JointCondition,
    layers: Layers | Mapping[str, Layers],
    encoder: str | None,
) -> Origin:
    """How the rows would be made that `load_table` would load of a modality; none is read.

    Raises:
        ValueError: as `load_table`.
    """
    store = _store_of(features_dir, modality, condition, encoder)
    path = f"{modality}/{_encoder_of(store, modality, encoder)}"
    store.refuse_broken_metadata(path)
    return _origin(store, path, layers_of(modality, layers))


def load_transcripts(
    features_dir: Path, clips: Sequence[Clip], condition: JointCondition = UNCHANGED, encoder: str | None = None
) -> list[str]:
    """The text that stage one encoded for each clip under a condition; "" where there was none.

    Raises:
        ValueError: the store or its text is not there; with the command that makes it.
    """
    store = _store_of(features_dir, "text", condition, encoder)
    transcripts = store.column(f"text/{_encoder_of(store, 'text', encoder)}", "transcript")
    return [str(transcripts[row]) for row in _rows(store, clips)]


def load_word_error_rates(
    features_dir: Path, clips: Sequence[Clip], condition: JointCondition = UNCHANGED, encoder: str | None = None
) -> npt.NDArray[np.float32] | None:
    """What stage one's recogniser got wrong in each clip under a condition, (N,), NaN where a clip has no statement.

    Args:
        encoder: whose transcripts; None: those of the only text encoder, or of the first.

    Returns:
        None where no recogniser was run under the condition.
    """
    clean = open_store(features_dir / f"{CLEAN}.zarr")
    known = clean.encoders("text")
    name = encoder if encoder in known else next(iter(known), None)
    if name is None or not reaches(clean, "text", name):
        return None
    heard = [part.name for part in condition.parts if "text" in part.changes]
    path = features_dir / f"{heard[0] if heard else CLEAN}.zarr"
    if not path.exists() or name not in open_store(path).encoders("text"):
        return None
    store = open_store(path)
    return np.asarray(store.column(f"text/{name}", "wer"), np.float32)[_rows(store, clips)]


@dataclass(frozen=True)
class _Column:
    """One modality of some clips: where it is. Nothing but states has been read.

    Attributes:
        store: of the features.
        path: of the array in it.
        layers: which are wanted.
        rows: of the clips, (N,).
        states: of the clips, (N,); none is pending.
    """

    store: FeatureStore
    path: str
    layers: Layers
    rows: npt.NDArray[np.intp]
    states: npt.NDArray[np.uint8]

    def features(self, which: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """Of those clips that `which` (N,) marks."""
        features = _read(self.store, self.path, self.layers, self.rows[which])
        # A sum is not finite where any number is not, and needs no copy of them all.
        if not np.isfinite(features.sum(axis=1, dtype=np.float64)[self.states[which] == State.DONE]).all():
            raise ValueError(
                f"{self.store.path} {self.path} marks clips as done whose features are missing; delete it and run again"
            )
        return features

    @property
    def random_weights(self) -> bool:
        return bool(self.store.provenance(self.path).get("random_weights", False))

    @property
    def kept_layers(self) -> int:
        return len(self.store.layers(self.path))

    @property
    def changed(self) -> bool:
        return self.store.path.stem != CLEAN

    @property
    def origin(self) -> Origin:
        return _origin(self.store, self.path, self.layers)


def _column(
    features_dir: Path,
    clips: Sequence[Clip],
    modality: str,
    condition: JointCondition,
    layers: Layers,
    encoder: str | None,
) -> _Column:
    store = _store_of(features_dir, modality, condition, encoder)
    path = f"{modality}/{_encoder_of(store, modality, encoder)}"
    store.refuse_broken_metadata(path)
    if store.path.stem != CLEAN:
        _refuse_other_than_clean(store, path, layers, encoder)
    rows = _rows(store, clips)
    states = store.states(path)[rows]
    if (states == State.PENDING).any():
        count = int((states == State.PENDING).sum())
        command = features_command(features_dir, [store.path.stem])
        raise ValueError(f"{store.path} {path}: {count} clips are still pending; to finish, run: {command}")
    return _Column(store, path, layers, rows, states)


def _origin(store: FeatureStore, path: str, layers: Layers) -> Origin:
    encoder = path.partition("/")[2]
    return Origin.of(str(store.path), encoder, store.provenance(path), _used(layers, store.layers(path)))


def _refuse_other_than_clean(store: FeatureStore, path: str, layers: Layers, wanted: str | None) -> None:
    """Refuse a condition's features that were made otherwise than those of clean clips, where there are any.

    An encoder that is named, and that clean clips lack, is compared with nothing here.
    """
    modality, _, encoder = path.partition("/")
    clean = open_store(store.path.with_name(f"{CLEAN}.zarr"))
    known = [name for name in clean.encoders(modality) if name == encoder or wanted is None]
    if known:
        other = f"{modality}/{encoder if encoder in known else known[0]}"
        clean.refuse_broken_metadata(other)
        remedy = f"delete {store.path / path} and make it again with the settings of {CLEAN}"
        refuse_mixing(modality, _origin(store, path, layers), _origin(clean, other, layers), remedy)


def _store_of(features_dir: Path, modality: str, condition: JointCondition, encoder: str | None) -> FeatureStore:
    """The store that holds this modality, by this encoder where one is named, under this condition."""
    clean = open_store(features_dir / f"{CLEAN}.zarr")
    if modality not in MODALITIES:
        return _imported(features_dir, modality, condition) or clean
    for part in condition.parts:
        if not part.modality or modality not in part.changes or not reaches(clean, modality, encoder):
            continue
        path = features_dir / f"{part.name}.zarr"
        if not path.exists() or not (store := open_store(path)).encoders(modality):
            raise ValueError(
                f"no cached {modality} features for {part.name} in {features_dir}; "
                f"run: {features_command(features_dir, [part.name])}"
            )
        return store
    return clean


def _imported(features_dir: Path, modality: str, condition: JointCondition) -> FeatureStore | None:
    """The store of the one part of a condition that a modality was imported for; None: there is no such part."""
    paths = [path for part in condition.parts if (path := features_dir / f"{part.name}.zarr").exists()]
    stores = [store for store in map(open_store, paths) if store.encoders(modality)]
    if len(stores) > 1:
        names = " and ".join(store.path.stem for store in stores)
        raise ValueError(f"{modality} was imported for {names}: nothing says what it is under {condition}")
    return stores[0] if stores else None


def reaches(clean: FeatureStore, modality: str, encoder: str | None) -> bool:
    """Whether a change of the sound reaches this modality: text only through the recogniser that its encoder read."""
    if modality != "text":
        return True
    known = clean.encoders("text")
    read = [encoder] if encoder in known else known
    return any(clean.provenance(f"text/{name}").get("asr", {}).get("model") for name in read)


def _encoder_of(store: FeatureStore, modality: str, wanted: str | None) -> str:
    known = store.encoders(modality)
    if wanted is not None and wanted in known:
        return wanted
    if wanted is None and len(known) == 1:
        return known[0]
    if not known and modality not in MODALITIES:
        raise ValueError(
            f"no cached {modality} features in {store.path}; stage one makes {', '.join(MODALITIES)}, "
            f"others are imported: python -m cache import FILE --modality {modality} --features-dir {store.path.parent}"
        )
    if not known:
        named = f"encoders.{modality}=<hub name or folder>"
        there = [name for name in MODALITIES if store.encoders(name)]
        without = f", or do without them: modalities=[{','.join(there)}]" if there else ""
        command = features_command(store.path.parent, (), [named])
        raise ValueError(f"no cached {modality} features in {store.path}; run: {command}{without}")
    choose = f"has no {wanted}" if wanted else "has several encoders"
    remedy = f"set encoders.{modality} to one of {', '.join(known)}"
    named = f"encoders.{modality}=<hub name or folder of {wanted}>"
    more = f", or run: {features_command(store.path.parent, (), [named])}" if wanted else ""
    raise ValueError(f"{store.path} {modality} {choose}; {remedy}{more}")


def _rows(store: FeatureStore, clips: Sequence[Clip]) -> npt.NDArray[np.intp]:
    position = {clip_id: row for row, clip_id in enumerate(store.clip_ids)}
    missing = [clip.clip_id for clip in clips if clip.clip_id not in position]
    if missing:
        raise ValueError(
            f"{store.path} lacks {len(missing)} clips of the corpus, first {missing[0]}; "
            f"run: {features_command(store.path.parent, (), ['corpus=<this corpus>', 'features_dir=<another>'])}"
        )
    return np.array([position[clip.clip_id] for clip in clips], np.intp)


def layers_of(modality: str, layers: Layers | Mapping[str, Any]) -> Layers:
    """One modality's choice of layers."""
    return layers.get(modality, "mean") if isinstance(layers, Mapping) else layers


def _read(store: FeatureStore, path: str, layers: Layers, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    """The layers that are meant, of these rows: (N, width). A unit at a time, for a store may be larger than memory."""
    stored = store.layers(path)
    places = [stored.index(layer) for layer in _chosen(store, path, layers, stored)]
    beside = side_by_side(layers)
    features = np.empty((len(rows), store.shape(path)[2] * (len(places) if beside else 1)), np.float32)
    for where, values in store.read_rows(path, places, rows):
        features[where] = np.concatenate(values, axis=1) if beside else _mean(values)
    return features


def _mean(values: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    if len(values) == 1:
        return values[0]
    total = values[0].astype(np.float64)
    for layer in values[1:]:
        total += layer
    return (total / len(values)).astype(np.float32)


def _chosen(store: FeatureStore, path: str, layers: Layers, stored: Sequence[int]) -> Sequence[int]:
    """Numbers of the layers that are meant.

    Raises:
        ValueError: stage one did not keep them.
    """
    chosen = _used(layers, stored)
    if not chosen or not set(chosen) <= set(stored):
        every = list(stored) == list(range(len(stored)))
        known = f"{stored[0]} to {stored[-1]}" if every and len(stored) > 1 else ", ".join(map(str, stored))
        modality = path.partition("/")[0]
        raise ValueError(
            f"layers={layers}: {store.path} {path} has layers {known}; choose of these, "
            f"for one modality with layers={{{modality}: {stored[-1]}}}"
        )
    return chosen


def _used(layers: Layers, stored: Sequence[int]) -> Sequence[int]:
    """Numbers of the layers that are meant; `mean`, `mix` and `last` are of those that stage one kept."""
    if layers in ("mean", MIX, "last"):
        return stored[-1:] if layers == "last" else stored
    return layer_numbers(layers, len(stored))


def layer_numbers(layers: Layers, count: int) -> tuple[int, ...]:
    """The layers that are used, of an encoder that has `count` of them."""
    if isinstance(layers, int):
        return (layers,)
    if layers == "last":
        return (count - 1,)
    if layers in ("mean", MIX):
        return tuple(range(count))
    if isinstance(layers, tuple):
        return tuple(range(layers[0], layers[1] + 1))
    if isinstance(layers, str) and re.fullmatch(r"\d+(\+\d+)+", layers):
        return tuple(map(int, layers.split("+")))
    raise ValueError(f"layers={layers}: give a number, last, mean, mix, [first, last], or 2+3 for two side by side")


def side_by_side(layers: Layers) -> bool:
    """Whether several layers stand side by side ("2+3", or all of them to be mixed) and are not averaged."""
    return isinstance(layers, str) and (layers == MIX or "+" in layers)
