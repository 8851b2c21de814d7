"""A stretch of a recording, as long as it is wanted. Shape letter: T samples at 16 kHz."""

from __future__ import annotations

import numpy as np

from cache.media import SAMPLE_RATE_HZ
from extract.corrupt.sound.level import Waveform

FADE_SECONDS = 0.05


class RecordingError(ValueError):
    """A recording for noise cannot be used: an error of the inputs, not of the clip that it was drawn for."""


def excerpt(recording_T: Waveform, length: int, rng: np.random.Generator) -> Waveform:
    """`length` samples of a recording (not empty) from a random place on; a shorter one is repeated without a click."""
    spare = len(recording_T) - length
    if spare >= 0:
        start = int(rng.integers(0, spare + 1))
        return recording_T[start : start + length]
    loop_T = seamless(recording_T)
    start = int(rng.integers(0, len(loop_T)))
    return loop_T[(start + np.arange(length)) % len(loop_T)]


def seamless(recording_T: Waveform) -> Waveform:
    """A recording whose end leads into its start: its last 50 ms are faded into its first 50 ms at constant power.

    It is that much shorter; of very short ones, half is faded.
    """
    fade = min(round(FADE_SECONDS * SAMPLE_RATE_HZ), len(recording_T) // 2)
    if not fade:
        return recording_T
    angle_T = np.pi / 2 * np.arange(fade) / fade
    loop_T = recording_T[:-fade].copy()
    loop_T[:fade] = np.sin(angle_T) * recording_T[:fade] + np.cos(angle_T) * recording_T[-fade:]
    return loop_T
