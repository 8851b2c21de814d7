"""How loud a waveform is, and how loud it may get. Shape letters: T samples at 16 kHz, F frames of 20 ms."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cache.media import SAMPLE_RATE_HZ

Waveform = npt.NDArray[np.float32]
Samples = npt.NDArray[np.float32] | npt.NDArray[np.float64]
SPEECH_FRAME_SECONDS = 0.02
SPEECH_RANGE_DB = 30.0


def active_speech_power(waveform_T: Samples) -> float:
    """Mean power of the 20 ms frames within 30 dB of the loudest, so that pauses do not count as signal."""
    length = round(SPEECH_FRAME_SECONDS * SAMPLE_RATE_HZ)
    whole = len(waveform_T) // length * length
    samples_FT = (
        (waveform_T[:whole] if whole else waveform_T)
        .astype(np.float64)
        .reshape(-1, length if whole else len(waveform_T))
    )
    power_F = (samples_FT**2).mean(axis=1)
    return float(power_F[power_F >= power_F.max() * 10 ** (-SPEECH_RANGE_DB / 10)].mean())


def speech_power(waveform_T: Waveform) -> float:
    """The active speech power of a clip that has some.

    Raises:
        ValueError: the clip is silent, so that no ratio exists.
    """
    speech = active_speech_power(waveform_T) if waveform_T.size else 0.0
    if speech == 0:
        raise ValueError("the waveform is silent: no signal-to-noise ratio can be set")
    return speech


def within_full_scale(samples_T: Samples) -> Waveform:
    """Samples as float32, scaled down as a whole where one would pass full scale: nothing is clipped."""
    scaled_T: Waveform = (samples_T / max(1.0, float(np.abs(samples_T).max(initial=0)))).astype(np.float32)
    return scaled_T
