"""Standardising each speaker's features by that speaker's own clips: no label is used, but the clips are seen.

Speakers differ in level, pitch and face; what is left after taking that out is more about the emotion. Mean and
SD normalisation per speaker is old practice in the field (Schuller et al., "Recognising realistic emotions and affect
in speech", Speech Communication 53(9-10), 2011, section 4). Every number made so must say ADAPTED.

Shape letters: N clips, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cache.features.table import FeatureTable

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


def prior_of(table: FeatureTable, speakers: Sequence[str]) -> SpeakerStatistics:
    """What is known of a speaker who was never heard: the mean of these speakers, and the spread within one of them."""
    known = {name: one for name, one in speaker_statistics(table).items() if name in speakers}
    mean = {name: np.mean([one.mean[name] for one in known.values()], axis=0) for name in table.features}
    within = {name: np.mean([one.scale[name] ** 2 for one in known.values()], axis=0) for name in table.features}
    return SpeakerStatistics(mean, {name: np.sqrt(values) for name, values in within.items()})


def enrolled(rows: Mapping[str, Vector], prior: SpeakerStatistics, strength: float) -> SpeakerStatistics:
    """A speaker's statistics from a few clips, which weigh against a prior that weighs `strength` clips.

    Means and variances are shrunk each by itself, as posterior means under conjugate priors (Murphy, "Conjugate
    Bayesian analysis of the Gaussian distribution", 2007, equations 20 and 98, without the term that takes a speaker's
    offset for spread: offsets are what adaptation is to remove). No clip gives the prior, very many the clips' own.

    Args:
        rows: modality to (k, D); NaN rows are clips that lack it.
    """
    mean, scale = {}, {}
    for name, values in rows.items():
        own_kD = values[np.isfinite(values).all(axis=1)].astype(np.float64)
        weight = len(own_kD) / (len(own_kD) + strength)
        centre_D = own_kD.mean(0) if len(own_kD) else prior.mean[name]
        spread_D = own_kD.var(0) if len(own_kD) else prior.scale[name] ** 2
        mean[name] = (weight * centre_D + (1 - weight) * prior.mean[name]).astype(np.float32)
        variance_D = weight * spread_D + (1 - weight) * prior.scale[name] ** 2
        scale[name] = np.sqrt(variance_D).clip(SMALLEST_SCALE).astype(np.float32)
    return SpeakerStatistics(mean, scale)


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
