"""Predictions of a trained head for the clips of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from cache.features.table import FeatureTable
from fuse.model.fusion import FusionModel
from fuse.scores.predictions import Predictions

# Rows at once: what a model makes of them on its way takes several times their room. Few corpora test on more.
AT_ONCE = 2**16


def predict(model: FusionModel, rows: Mapping[str, torch.Tensor]) -> npt.NDArray[np.float64]:
    """Class probabilities (N, C) from raw features, NaN where a clip lacks a modality."""
    model.eval()
    count = max(map(len, rows.values()))
    with torch.inference_mode():
        parts = [
            model({name: values[start : start + AT_ONCE] for name, values in rows.items()}).double().softmax(1)
            for start in range(0, max(count, 1), AT_ONCE)
        ]
        probabilities_NC: npt.NDArray[np.float64] = torch.cat(parts).numpy()
    return probabilities_NC


def predictions_of(
    model: FusionModel,
    table: FeatureTable,
    protocol: str,
    fold: int,
    seed: int,
    split: str,
    modalities: Sequence[str] | None = None,
) -> Predictions:
    """Predict a table's clips; modalities of the model that are not named are withheld."""
    given = tuple(model.widths) if modalities is None else tuple(modalities)
    rows = {
        name: torch.from_numpy(table.features[name])
        if name in given
        else torch.full((len(table.clips), width), torch.nan)
        for name, width in model.widths.items()
    }
    return Predictions.of(
        [clip.clip_id for clip in table.clips],
        [clip.speaker for clip in table.clips],
        [clip.sex for clip in table.clips],
        table.labels,
        predict(model, rows),
        protocol=protocol,
        fold=fold,
        seed=seed,
        split=split,
        condition=table.condition,
        modalities="+".join(given),
        label_names=table.label_names,
    )
