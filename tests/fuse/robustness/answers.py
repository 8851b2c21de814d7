"""Predictions made up for tests: how often they are right is what a test says, by run, condition and modalities."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fuse.scores.predictions import Predictions, concatenate

LABEL_NAMES = ("calm", "happy", "sad", "angry")


def answered(shares: Mapping[tuple[str, str], float], speakers: int = 10, seed: int = 0) -> Predictions:
    """Predictions of a run: (modalities, condition) to the share of clips that are answered right.

    Every speaker has ten clips of each of four labels; speakers of odd numbers are women. Which clips are answered
    right is drawn once, so that what is right at a lower share is right at every higher one.
    """
    label_N = np.tile(np.repeat(np.arange(len(LABEL_NAMES)), 10), speakers)
    speaker_N = np.repeat(np.arange(1, speakers + 1), 10 * len(LABEL_NAMES))
    # In every speaker and label clips of all difficulties, so that shares of tenths are met exactly.
    rng = np.random.default_rng(seed)
    difficulty_N = np.concatenate([rng.permutation(10) for _ in range(len(label_N) // 10)]) / 10 + 0.05
    parts = []
    for (modalities, condition), share in shares.items():
        predicted_N = np.where(difficulty_N < share, label_N, (label_N + 1) % len(LABEL_NAMES))
        parts.append(
            Predictions.of(
                [f"clip-{row}" for row in range(len(label_N))],
                speaker_N.astype(str),
                np.where(speaker_N % 2, "female", "male"),
                label_N,
                0.6 * np.eye(len(LABEL_NAMES))[predicted_N] + 0.1,
                protocol="holdout",
                fold=0,
                seed=0,
                split="test",
                condition=condition,
                modalities=modalities,
                label_names=LABEL_NAMES,
            )
        )
    return concatenate(parts)
