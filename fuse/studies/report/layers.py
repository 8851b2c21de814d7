"""What each layer knows by itself: a logistic regression per modality and layer, scored on validation speakers.

Test speakers are never looked at, so that layers may be chosen by these numbers.
Shape letters: N clips, D width.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from cache.conditions import CLEAN, JointCondition
from cache.corpus.clips import Clip
from cache.features.store import open_store
from cache.features.table import FeatureTable
from cache.protocols.folds import Fold
from fuse.scores.intervals import uar_interval
from fuse.scores.jackknife import Tally
from fuse.scores.metrics import uar
from fuse.studies.report.projection import standardised

# The same for every layer: 0.01, 0.1 and 1 lie within 0.03 of each other on validation speakers, voices and faces.
INVERSE_PENALTY = 0.1
STEPS = 500


@dataclass(frozen=True)
class LayerScore:
    """One layer's probe; `uar`, `low` and `high` as shares, the last two None with too few speakers."""

    modality: str
    encoder: str
    layer: int
    uar: float
    low: float | None
    high: float | None
    speakers: int
    clips: int


@dataclass(frozen=True)
class StoredLayer:
    """A layer that stage one kept, or the single one of imported features."""

    modality: str
    encoder: str
    layer: int


def stored_layers(
    features_dir: Path, modalities: Sequence[str], condition: JointCondition, encoders: Mapping[str, str]
) -> list[StoredLayer]:
    """Every layer of these modalities, modality by modality, from the first to the last.

    Raises:
        ValueError: a store is not there.
    """
    found = []
    for modality in modalities:
        for name in (*(part.name for part in condition.parts), CLEAN):
            path = features_dir / f"{name}.zarr"
            store = open_store(path) if path.exists() or name == CLEAN else None
            known = store.encoders(modality) if store else []
            if store and known:
                encoder = encoders.get(modality, known[0])
                found += [StoredLayer(modality, encoder, layer) for layer in store.layers(f"{modality}/{encoder}")]
                break
    return found


def probe_layer(table: FeatureTable, folds: Sequence[Fold], what: StoredLayer) -> LayerScore:
    """Train on each fold's training clips, score its validation clips; clips without the modality stay out.

    Args:
        table: that layer's features of the modality.
        folds: of a protocol; a clip is scored once, in the first fold that validates on it.

    Raises:
        ValueError: no clip of a fold has the modality.
    """
    features_ND, present_N = table.features[what.modality], table.present[what.modality]
    rows, predicted = [], []
    for fold in validated_once(folds, table.clips):
        train, validation = (_rows(table, fold, part, present_N) for part in ("train", "validation"))
        if not len(train) or not len(validation):
            raise ValueError(f"fold {fold.number}: no training or no validation clip has {what.modality}")
        rows.append(validation)
        predicted.append(probe(features_ND[train], table.labels[train], features_ND[validation]))
    index = np.concatenate(rows)
    return _score(what, table.labels[index], np.concatenate(predicted), table.speakers[index])


def probe(
    training_TD: NDArray[np.float32], labels_T: NDArray[np.int64], features_ND: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Multinomial logistic regression on standardised features: the classes (N,) of `features_ND`."""
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=STEPS)
    with warnings.catch_warnings():
        # Features without information may take longer; the last step is as good a probe of them as any.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(standardised(training_TD, training_TD), labels_T)
    predicted_N: NDArray[np.int64] = model.predict(standardised(features_ND, training_TD))
    return predicted_N


def validated_once(folds: Sequence[Fold], clips: Sequence[Clip]) -> list[Fold]:
    """The first folds that validate on clips which no other of them validates on: each clip counts once."""
    kept, seen = [], set[str]()
    for fold in folds:
        validation = set(fold.clip_ids("validation", clips))
        if not validation & seen:
            kept.append(fold)
            seen |= validation
    return kept


def _rows(table: FeatureTable, fold: Fold, part: str, present_N: NDArray[np.bool_]) -> NDArray[np.intp]:
    wanted = set(fold.clip_ids(part, table.clips))
    return np.flatnonzero([clip.clip_id in wanted for clip in table.clips] & present_N)


def _score(
    what: StoredLayer, label_N: NDArray[np.int64], predicted_N: NDArray[np.int64], speaker_N: NDArray[np.str_]
) -> LayerScore:
    tally = Tally.of(label_N, predicted_N, speaker_N)
    interval = uar_interval([tally])
    return LayerScore(
        what.modality,
        what.encoder,
        what.layer,
        uar(label_N, predicted_N),
        interval.low if interval else None,
        interval.high if interval else None,
        len(tally.speakers),
        len(label_N),
    )
