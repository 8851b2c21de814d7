"""Feature tables: what stage two trains on, joined from stores by clip id, never by position."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.clips import LABELS, Clip
from cache.conditions import CLEAN, parse_joint
from cache.feature_store import FeatureStore, State, open_store

Layers = int | str | tuple[int, int]


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
    """

    clips: tuple[Clip, ...]
    features: Mapping[str, npt.NDArray[np.float32]]
    present: Mapping[str, npt.NDArray[np.bool_]]
    left_out: tuple[str, ...]
    random_weights: bool
    condition: str

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Index into `LABELS` of each clip."""
        return np.array([LABELS.index(clip.label) for clip in self.clips], np.int64)

    @property
    def speakers(self) -> npt.NDArray[np.str_]:
        """Speaker of each clip."""
        return np.array([clip.speaker for clip in self.clips], np.str_)

    def rows_of(self, speakers: Sequence[str]) -> npt.NDArray[np.intp]:
        """Row numbers of the clips of these speakers."""
        return np.flatnonzero(np.isin(self.speakers, list(speakers)))

    def take(self, clip_ids: Sequence[str]) -> FeatureTable:
        """The same table with these clips only, in this order."""
        position = {clip.clip_id: row for row, clip in enumerate(self.clips)}
        rows = np.array([position[clip_id] for clip_id in clip_ids], np.intp)
        return replace(
            self,
            clips=tuple(self.clips[row] for row in rows),
            features={name: values[rows] for name, values in self.features.items()},
            present={name: values[rows] for name, values in self.present.items()},
        )


def load_table(
    features_dir: Path,
    clips: Sequence[Clip],
    modalities: Sequence[str],
    condition: str = CLEAN,
    layers: Layers | Mapping[str, Layers] = "mean",
    encoders: Mapping[str, str] | None = None,
) -> FeatureTable:
    """Load one condition. Modalities it does not change come from `clean.zarr`.

    Raises:
        ValueError: features are missing, pending or damaged; with the command that makes them.
    """
    columns = {
        name: _column(features_dir, clips, name, condition, layers_of(name, layers), (encoders or {}).get(name))
        for name in modalities
    }
    failed = np.any([column.failed for column in columns.values()], axis=0)
    table = FeatureTable(
        tuple(clips),
        {name: column.features for name, column in columns.items()},
        {name: column.present for name, column in columns.items()},
        tuple(clip.clip_id for clip, bad in zip(clips, failed, strict=True) if bad),
        any(column.random_weights for column in columns.values()),
        condition,
    )
    kept = [clip.clip_id for clip, bad in zip(clips, failed, strict=True) if not bad]
    if not kept:
        raise ValueError(f"{features_dir}: every clip failed in {', '.join(modalities)}; see failures.csv there")
    return table.take(kept) if table.left_out else table


def load_transcripts(
    features_dir: Path, clips: Sequence[Clip], condition: str = CLEAN, encoder: str | None = None
) -> list[str]:
    """The text that stage one encoded for each clip under a condition; "" where there was none.

    Raises:
        ValueError: the store or its text is not there; with the command that makes it.
    """
    store = _store_of(features_dir, "text", condition)
    transcripts = store.column(f"text/{_encoder_of(store, 'text', encoder)}", "transcript")
    return [str(transcripts[row]) for row in _rows(store, clips)]


@dataclass(frozen=True)
class _Column:
    features: npt.NDArray[np.float32]
    present: npt.NDArray[np.bool_]
    failed: npt.NDArray[np.bool_]
    random_weights: bool


def _column(
    features_dir: Path, clips: Sequence[Clip], modality: str, condition: str, layers: Layers, encoder: str | None
) -> _Column:
    store = _store_of(features_dir, modality, condition)
    path = f"{modality}/{_encoder_of(store, modality, encoder)}"
    rows = _rows(store, clips)
    states = store.states(path)[rows]
    if (states == State.PENDING).any():
        count = int((states == State.PENDING).sum())
        raise ValueError(f"{store.path} {path}: {count} clips are still pending; run make features again to finish")
    features = _read(store, path, layers)[rows]
    if not np.isfinite(features[states == State.DONE]).all():
        raise ValueError(f"{store.path} {path} marks clips as done whose features are missing; delete it and run again")
    random = bool(store.provenance(path).get("random_weights", False))
    return _Column(features, states == State.DONE, states == State.FAILED, random)


def _store_of(features_dir: Path, modality: str, condition: str) -> FeatureStore:
    """The store that holds this modality under this condition."""
    clean = open_store(features_dir / f"{CLEAN}.zarr")
    for part in parse_joint(condition):
        if not part.modality or modality not in part.changes or not _reaches(clean, modality):
            continue
        path = features_dir / f"{part.name}.zarr"
        if not path.exists() or not (store := open_store(path)).encoders(modality):
            raise ValueError(
                f"no cached {modality} features for {part.name} in {features_dir}; "
                f'run: make features SET="conditions=[{part.name}]"'
            )
        return store
    return clean


def _reaches(clean: FeatureStore, modality: str) -> bool:
    """Whether a change of the sound reaches this modality: text only through a recogniser."""
    if modality != "text":
        return True
    asr = [clean.provenance(f"text/{name}").get("asr", {}).get("model") for name in clean.encoders("text")]
    return any(asr)


def _encoder_of(store: FeatureStore, modality: str, wanted: str | None) -> str:
    known = store.encoders(modality)
    if wanted is not None and wanted in known:
        return wanted
    if wanted is None and len(known) == 1:
        return known[0]
    if not known:
        raise ValueError(
            f"no cached {modality} features in {store.path}; set encoders.{modality} and run make features"
        )
    choose = f"has no {wanted}" if wanted else "has several encoders"
    raise ValueError(f"{store.path} {modality} {choose}; set encoders.{modality} to one of {', '.join(known)}")


def _rows(store: FeatureStore, clips: Sequence[Clip]) -> npt.NDArray[np.intp]:
    position = {clip_id: row for row, clip_id in enumerate(store.clip_ids)}
    missing = [clip.clip_id for clip in clips if clip.clip_id not in position]
    if missing:
        raise ValueError(
            f"{store.path} lacks {len(missing)} clips of the corpus, first {missing[0]}; "
            "run make features with the same corpus and another features_dir"
        )
    return np.array([position[clip.clip_id] for clip in clips], np.intp)


def layers_of(modality: str, layers: Layers | Mapping[str, Any]) -> Layers:
    """One modality's choice of layers."""
    return layers.get(modality, "mean") if isinstance(layers, Mapping) else layers


def _read(store: FeatureStore, path: str, layers: Layers) -> npt.NDArray[np.float32]:
    count = store.shape(path)[1]
    chosen = layer_numbers(layers, count)
    if not chosen or min(chosen) < 0 or max(chosen) >= count:
        raise ValueError(f"layers={layers}: {store.path} {path} has layers 0 to {count - 1}")
    if side_by_side(layers):
        return np.concatenate([store.read_layer(path, layer) for layer in chosen], axis=1)
    # Summed one by one: all layers of a large corpus would not fit in memory.
    total = store.read_layer(path, chosen[0]).astype(np.float64)
    for layer in chosen[1:]:
        total += store.read_layer(path, layer)
    return (total / len(chosen)).astype(np.float32)


def layer_numbers(layers: Layers, count: int) -> tuple[int, ...]:
    """The layers that are used, of an encoder that has `count` of them."""
    if isinstance(layers, int):
        return (layers,)
    if layers == "last":
        return (count - 1,)
    if layers == "mean":
        return tuple(range(count))
    if isinstance(layers, tuple):
        return tuple(range(layers[0], layers[1] + 1))
    if isinstance(layers, str) and re.fullmatch(r"\d+(\+\d+)+", layers):
        return tuple(map(int, layers.split("+")))
    raise ValueError(f"layers={layers}: give a number, last, mean, [first, last], or 2+3 for two side by side")


def side_by_side(layers: Layers) -> bool:
    """Whether several layers are concatenated ("2+3") and not averaged."""
    return isinstance(layers, str) and "+" in layers
