"""Sound conditions: what is done to the waveform of a clip. The input is never modified; randomness comes from `rng`.

Every function returns as many samples as it was given, float32, none beyond full scale: what would pass it is scaled
down as a whole, never cut. Shape letter: T samples at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cache.media import SAMPLE_RATE_HZ
from extract.corrupt.sound.codec import through_codec
from extract.corrupt.sound.level import Waveform, active_speech_power, speech_power, within_full_scale
from extract.corrupt.sound.room import room_response
from extract.corrupt.sound.telephone import telephone

# Below, pink noise is flat: infrasound would take 40 % of the power of a usual clip's noise and change no feature.
LOWEST_PINK_HZ = 20.0


def add_noise(waveform_T: Waveform, noise_T: Waveform, snr_db: float) -> Waveform:
    """Mix so that active speech stands `snr_db` above the noise's mean power.

    Raises:
        ValueError: the clip is silent, so that no ratio exists.
    """
    speech = speech_power(waveform_T)
    noise_power = float((noise_T.astype(np.float64) ** 2).mean())
    gain = np.sqrt(speech / noise_power / 10 ** (snr_db / 10))
    return within_full_scale(waveform_T.astype(np.float64) + gain * noise_T)


def white_noise(waveform_T: Waveform, snr_db: int, rng: np.random.Generator) -> Waveform:
    """Add Gaussian white noise at `snr_db`."""
    return add_noise(waveform_T, rng.standard_normal(len(waveform_T)).astype(np.float32), snr_db)


def pink_noise(waveform_T: Waveform, snr_db: int, rng: np.random.Generator) -> Waveform:
    """Add Gaussian noise at `snr_db` whose power falls with 1/f from 20 Hz on: as much in every octave."""
    speech_power(waveform_T)
    white_T = rng.standard_normal(len(waveform_T))
    hertz = np.fft.rfftfreq(len(white_T), 1 / SAMPLE_RATE_HZ)
    pink_T = np.fft.irfft(np.fft.rfft(white_T) / np.sqrt(np.maximum(hertz, LOWEST_PINK_HZ)), len(white_T))
    return add_noise(waveform_T, pink_T.astype(np.float32), snr_db)


def reverberate(waveform_T: Waveform, milliseconds: int, rng: np.random.Generator) -> Waveform:
    """The sound in a room with that RT60, at the same active speech power, without what follows the clip's end."""
    # Here and not above: scipy.signal takes more than half a second, and most ranks never need it.
    from scipy.signal import fftconvolve

    if not waveform_T.any():
        return waveform_T.copy()
    room_T = room_response(milliseconds, rng)
    wet_T = fftconvolve(waveform_T.astype(np.float64), room_T)[: len(waveform_T)]
    return within_full_scale(wet_T * np.sqrt(active_speech_power(waveform_T) / active_speech_power(wet_T)))


def clip_peaks(waveform_T: Waveform, percent: int, _rng: np.random.Generator) -> Waveform:
    """Cut off (hard clipping) what lies above `percent` of the clip's own peak; no gain makes up for it."""
    limit = percent / 100 * float(np.abs(waveform_T).max(initial=0))
    return within_full_scale(np.clip(waveform_T, -limit, limit))


def telephone_band(waveform_T: Waveform, _level: int, _rng: np.random.Generator) -> Waveform:
    """The sound over a telephone line: `extract.corrupt.sound.telephone`."""
    return within_full_scale(telephone(waveform_T))


def coded_as_mp3(waveform_T: Waveform, kbps: int, _rng: np.random.Generator) -> Waveform:
    """The sound through MP3 and back: `extract.corrupt.sound.codec`."""
    return within_full_scale(through_codec(waveform_T, "mp3", kbps))


def coded_as_aac(waveform_T: Waveform, kbps: int, _rng: np.random.Generator) -> Waveform:
    """The sound through AAC and back: `extract.corrupt.sound.codec`."""
    return within_full_scale(through_codec(waveform_T, "aac", kbps))


def silence(waveform_T: Waveform, _level: int, _rng: np.random.Generator) -> Waveform:
    """Nothing but zeros."""
    return np.zeros_like(waveform_T)


def gain(waveform_T: Waveform, level_db: int, _rng: np.random.Generator) -> Waveform:
    """The same sound, `level_db` louder; as far as full scale allows, for nothing is cut."""
    return within_full_scale(waveform_T.astype(np.float64) * 10 ** (level_db / 20))


def cut_start(waveform_T: Waveform, milliseconds: int, _rng: np.random.Generator) -> Waveform:
    """The sound from so many milliseconds on, and as many of silence behind it: the only one that moves it in time."""
    cut = round(milliseconds / 1000 * SAMPLE_RATE_HZ)
    moved_T = np.zeros_like(waveform_T)
    moved_T[: max(0, len(waveform_T) - cut)] = waveform_T[cut:]
    return within_full_scale(moved_T)


SOUND: dict[str, Callable[[Waveform, int, np.random.Generator], Waveform]] = {
    "noise-white": white_noise,
    "noise-pink": pink_noise,
    "reverb-room": reverberate,
    "clip-peak": clip_peaks,
    "band-telephone": telephone_band,
    "codec-mp3": coded_as_mp3,
    "codec-aac": coded_as_aac,
    "silence-track": silence,
    "gain-track": gain,
    "cut-start": cut_start,
}
