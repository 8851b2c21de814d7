"""Corruptions: a condition applied to decoded media. Each touches one signal and draws from `rng` alone.

Shape letters: T time (samples or frames), H height, W width, C colour channels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from cache.conditions import CLEAN, Condition
from cache.media_store import SAMPLE_RATE_HZ, Media

Waveform = npt.NDArray[np.float32]
Frames = npt.NDArray[np.uint8]
SPEECH_FRAME_SECONDS = 0.02
SPEECH_RANGE_DB = 30.0


def corrupt(media: Media, condition: Condition, clip_id: str) -> Media:
    """The clip under `condition`; a signal it does not touch, or that is not there, is passed on."""
    rng = condition.rng(clip_id)
    if condition.modality == "audio" and media.waveform_T is not None:
        return Media(SOUND[condition.kind](media.waveform_T, condition.level, rng), media.frames_THWC)
    if condition.modality == "video" and media.frames_THWC is not None:
        return Media(media.waveform_T, PICTURE[condition.kind](media.frames_THWC, condition.level, rng))
    assert condition.kind == CLEAN or condition.modality, condition
    return media


def active_speech_power(waveform_T: Waveform) -> float:
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


def add_noise(waveform_T: Waveform, noise_T: Waveform, snr_db: float) -> Waveform:
    """Mix so that active speech stands `snr_db` above the noise's mean power.

    A mix that would pass full scale is scaled down as a whole: the ratio stays, nothing is clipped.

    Raises:
        ValueError: the clip is silent, so that no ratio exists.
    """
    speech = active_speech_power(waveform_T) if waveform_T.size else 0.0
    if speech == 0:
        raise ValueError("the waveform is silent: no signal-to-noise ratio can be set")
    noise_power = float((noise_T.astype(np.float64) ** 2).mean())
    gain = np.sqrt(speech / noise_power / 10 ** (snr_db / 10))
    mix_T = waveform_T.astype(np.float64) + gain * noise_T
    scaled_T: Waveform = (mix_T / max(1.0, float(np.abs(mix_T).max()))).astype(np.float32)
    return scaled_T


def white_noise(waveform_T: Waveform, snr_db: int, rng: np.random.Generator) -> Waveform:
    """Add Gaussian white noise at `snr_db`."""
    return add_noise(waveform_T, rng.standard_normal(len(waveform_T)).astype(np.float32), snr_db)


def occlude_block(frames_THWC: Frames, percent: int, rng: np.random.Generator) -> Frames:
    """Black out one randomly placed block of `percent` of the area, the same in every frame."""
    height, width = frames_THWC.shape[1:3]
    block_height = max(1, round(height * (percent / 100) ** 0.5))
    block_width = min(width, max(1, round(percent / 100 * height * width / block_height)))
    top = int(rng.integers(0, height - block_height + 1))
    left = int(rng.integers(0, width - block_width + 1))
    occluded_THWC = frames_THWC.copy()
    occluded_THWC[:, top : top + block_height, left : left + block_width] = 0
    return occluded_THWC


def drop_frames(frames_THWC: Frames, percent: int, rng: np.random.Generator) -> Frames:
    """Lose `percent` of the frames; each is replaced by the last kept one (leading ones by the first kept)."""
    return frames_THWC[kept_frames(len(frames_THWC), percent, rng)]


def kept_frames(count: int, percent: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """For each frame the index of the frame that is shown in its place; at least one frame is kept."""
    dropped = rng.choice(count, min(count - 1, round(percent / 100 * count)), replace=False)
    shown = np.arange(count)
    shown[dropped] = -1
    first = shown[shown >= 0][0]
    replacement: npt.NDArray[np.intp] = np.maximum(np.maximum.accumulate(shown), first)
    return replacement


SOUND: dict[str, Callable[[Waveform, int, np.random.Generator], Waveform]] = {"noise-white": white_noise}
PICTURE: dict[str, Callable[[Frames, int, np.random.Generator], Frames]] = {
    "occlude-block": occlude_block,
    "drop-frames": drop_frames,
}
