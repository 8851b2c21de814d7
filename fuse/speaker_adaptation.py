"""Standardising each speaker's features by that speaker's own clips: no label is used, but the clips are seen.

Speakers differ in level, pitch and face; what is left after taking that out is more about the emotion. Mean and
SD normalisation per speaker is old practice in the field (Schuller et al., "Recognising realistic emotions and affect
in speech", Speech Communication 53(9-10), 2011, section 4). Every number made so must say ADAPTED.

Shape letters: N clips, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cache.feature_table import FeatureTable

ADAPTED = "speaker-adapted, unlabelled"
SMALLEST_SCALE = 1e-6
Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SpeakerStatistics:
    """What is known of one speaker's features, by modality: mean_D and scale_D (SD)."""

    mean: Mapping[str, Vector]
    scale: Mapping[str, Vector]


def speaker_statistics(table: FeatureTable) -> dict[str, SpeakerStatistics]:
    """Of each speaker, over all clips of the table that have the modality.

    Raises:
        ValueError: a speaker has too few clips with a modality to say how they spread.
    """
    return {speaker: _statistics(table, speaker) for speaker in dict.fromkeys(table.speakers.tolist())}


def adapted(table: FeatureTable, statistics: Mapping[str, SpeakerStatistics] | None = None) -> FeatureTable:
    """The table with each speaker's rows standardised, by their own statistics in it unless others are given.

    Raises:
        ValueError: a speaker without statistics.
    """
    known = speaker_statistics(table) if statistics is None else statistics
    features = {name: values.copy() for name, values in table.features.items()}
    for speaker in dict.fromkeys(table.speakers.tolist()):
        if speaker not in known:
            raise ValueError(f"speaker {speaker} was never enrolled; enrolled: {', '.join(known)}")
        rows = table.speakers == speaker
        for name, values in features.items():
            values[rows] = (values[rows] - known[speaker].mean[name]) / known[speaker].scale[name]
    return replace(table, features=features)


def _statistics(table: FeatureTable, speaker: str) -> SpeakerStatistics:
    rows = table.speakers == speaker
    mean, scale = {}, {}
    for name, values in table.features.items():
        own_ND = values[rows & table.present[name]].astype(np.float64)
        if len(own_ND) < 2:
            raise ValueError(
                f"standardise=speaker: speaker {speaker} has {len(own_ND)} clips with {name}; "
                "give each speaker at least 2, or set standardise=train"
            )
        mean[name] = own_ND.mean(0).astype(np.float32)
        scale[name] = own_ND.std(0).clip(SMALLEST_SCALE).astype(np.float32)
    return SpeakerStatistics(mean, scale)
