"""Sound as it comes out of a decoder, brought to 16 kHz a piece at a time.

Samples at the rate of the track are held for a minute at most, so that memory grows with what is kept of a clip.

Shape letters: C channels, T samples.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from cache.media import SAMPLE_RATE_HZ

Waveform = npt.NDArray[np.float32]
# A clip of up to this length is resampled in one piece, as torchaudio resamples a whole waveform.
PIECE_SECONDS = 60
# torchaudio keeps a filter for every phase between the two rates: 160 for 44.1 kHz, 16 000 for 47 999 Hz.
LARGEST_FILTERS = 4_000_000
PLANES = 8  # that a frame of FFmpeg holds by itself
CENTRE, LOW = "FC", "LFE"
TO_MONO, BEHIND = {CENTRE: 1.0, "FL": math.sqrt(0.5), "FR": math.sqrt(0.5)}, 0.5
DEAD = 1e-6  # of the other channel's power: 60 dB below it nobody recorded anything
ZERO_CROSSINGS = 6  # of the filter, on each side: torchaudio's default


class Sound:
    """Collects the frames of one track as mono samples at 16 kHz.

    Attributes:
        samples: how many came so far, at the rate of the track.
        begins_seconds: when the first of them is played, by the clock of the file.
    """

    def __init__(self) -> None:
        """The rate is that of the first frame: headers of HE-AAC name half of it."""
        self.samples = 0
        self._power_C: npt.NDArray[np.float64] | None = None
        self._is_weighted = False
        self.begins_seconds = 0.0
        self._rate_hz = 0
        self._resampler: _Filters | _Swr | None = None

    @property
    def seconds(self) -> float:
        """Length of what came so far."""
        return self.samples / self._rate_hz if self._rate_hz else 0.0

    def add(self, frame: av.AudioFrame) -> None:
        """Take the next decoded frame; what is kept of its channels is said at `to_mono`.

        Raises:
            ValueError: a sample that is no number, or another rate than before.
        """
        samples_CT, names = channels_of(frame), [channel.name for channel in frame.layout.channels]
        mono_T = to_mono(samples_CT, names)
        if not np.isfinite(mono_T).all():
            raise ValueError("the sound contains values that are not finite")
        if self._resampler is None:
            self._rate_hz, self.begins_seconds = frame.sample_rate, frame.time or 0.0
            self._resampler = resampler(self._rate_hz)
        if frame.sample_rate != self._rate_hz:
            raise ValueError(f"the sound changes from {self._rate_hz} to {frame.sample_rate} Hz on the way")
        self.samples += len(mono_T)
        self._is_weighted |= CENTRE in names and len(names) > 1
        self._add_power((samples_CT.astype(np.float64) ** 2).sum(axis=1))
        self._resampler.add(mono_T)

    def waveform(self) -> Waveform:
        """All of it, (samples,) float32 at 16 kHz. To be called once, at the end."""
        waveform_T = self._resampler.end() if self._resampler else np.zeros(0, np.float32)
        peak = float(np.abs(waveform_T).max(initial=0.0)) if self._is_weighted else 0.0
        if peak > 1:
            return waveform_T / np.float32(peak)
        # The mean with a channel that holds nothing is half of the other.
        return waveform_T * np.float32(2) if self._is_one_sided else waveform_T

    def _add_power(self, power_C: npt.NDArray[np.float64]) -> None:
        same = self._power_C is not None and len(self._power_C) == len(power_C)
        self._power_C = self._power_C + power_C if same and self._power_C is not None else power_C

    @property
    def _is_one_sided(self) -> bool:
        if self._power_C is None or len(self._power_C) != 2:
            return False
        return bool(self._power_C.max() > 0 and self._power_C.min() <= DEAD * self._power_C.max())


def to_mono(samples_CT: Waveform, names: Sequence[str]) -> Waveform:
    """One channel (T,) of several.

    With a centre, as films have it for the voice: ITU-R BS.775-4, table 2, to one channel: the centre fully, left and
    right by 0.707, what is beside and behind by 0.5, and no low-frequency effects. Without one: the mean.
    """
    if CENTRE not in names or len(names) == 1:
        full = [not name.startswith(LOW) for name in names]
        mean_T: Waveform = (samples_CT[full] if any(full) and not all(full) else samples_CT).mean(axis=0)
        return mean_T
    weights_C = [TO_MONO.get(name, 0.0 if name.startswith(LOW) else BEHIND) for name in names]
    mixed_T: Waveform = np.asarray(weights_C, np.float32) @ samples_CT
    return mixed_T


def keep_layout(frame: av.AudioFrame) -> None:
    """Let the layout of a frame live for ever where its channels stand in an order of their own.

    PyAV 18 shares the list of such channels between frame and layout, and both free it: the process then dies later, at
    another clip. AIFF, CAF and MOV have such orders from five channels on.
    """
    if "(" in frame.layout.name:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(frame.layout))


def stored_values(frame: av.AudioFrame) -> npt.NDArray[Any]:
    """The samples of a frame as they were decoded, (C, T)."""
    count = frame.layout.nb_channels
    if frame.format.is_planar and count < PLANES:
        planes_CT: npt.NDArray[Any] = frame.to_ndarray()
        return planes_CT
    if frame.format.is_planar:
        # PyAV 18 looks for the last plane behind the last of eight. Between two layouts of memory nothing is held back.
        (frame,) = av.AudioResampler(format=frame.format.packed.name).resample(frame)
    interleaved: npt.NDArray[Any] = frame.to_ndarray()
    return interleaved.reshape(-1, count).T


def channels_of(frame: av.AudioFrame) -> Waveform:
    """The samples of a frame (C, T); whole numbers are scaled so that full scale is 1."""
    values = stored_values(frame)
    samples_CT: Waveform = values.astype(np.float32)
    if values.dtype == np.uint8:
        samples_CT = (samples_CT - np.float32(128)) / np.float32(128)
    elif values.dtype.kind == "i":
        samples_CT *= np.float32(0.5 ** (8 * values.itemsize - 1))
    return samples_CT


def resampler(rate_hz: int) -> _Filters | _Swr:
    """What brings sound of this rate to 16 kHz."""
    shared = math.gcd(rate_hz, SAMPLE_RATE_HZ)
    phases, step = SAMPLE_RATE_HZ // shared, rate_hz // shared
    return _Filters(rate_hz) if phases * (step + 2 * _reach(rate_hz)) <= LARGEST_FILTERS else _Swr(rate_hz)


def _reach(rate_hz: int) -> int:
    """Samples that a filter sees on each side of its place."""
    shared = math.gcd(rate_hz, SAMPLE_RATE_HZ)
    step = rate_hz // shared
    return math.ceil(ZERO_CROSSINGS * step / (0.99 * min(step, SAMPLE_RATE_HZ // shared)))


class _Filters:
    """torchaudio's windowed sinc, in pieces that overlap by what a filter sees."""

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        shared = math.gcd(rate_hz, SAMPLE_RATE_HZ)
        self.step, self.phases = rate_hz // shared, SAMPLE_RATE_HZ // shared
        self.steps_seen = math.ceil(_reach(rate_hz) / self.step) + 1
        self.steps_a_piece = max(1, PIECE_SECONDS * rate_hz // self.step)
        self._blocks: list[Waveform] = []
        self._waiting = 0
        self._steps_before = 0
        self._done: list[Waveform] = []

    def add(self, mono_T: Waveform) -> None:
        self._blocks.append(mono_T)
        self._waiting += len(mono_T)
        # What follows the piece must be there as well.
        if self._waiting > (self._steps_before + self.steps_a_piece + self.steps_seen) * self.step:
            self._resample_pieces()

    def end(self) -> Waveform:
        self._done.append(self._resampled(np.concatenate(self._blocks))[self._steps_before * self.phases :])
        return np.concatenate(self._done)

    def _resample_pieces(self) -> None:
        waiting_T = np.concatenate(self._blocks)
        before, piece, after = self._steps_before, self.steps_a_piece, self.steps_seen
        while len(waiting_T) > (before + piece + after) * self.step:
            resampled_T = self._resampled(waiting_T[: (before + piece + after) * self.step])
            self._done.append(resampled_T[before * self.phases : (before + piece) * self.phases])
            kept = max(0, before + piece - self.steps_seen)
            waiting_T, before = waiting_T[kept * self.step :].copy(), before + piece - kept
        self._blocks, self._waiting, self._steps_before = [waiting_T], len(waiting_T), before

    def _resampled(self, piece_T: Waveform) -> Waveform:
        import torch
        import torchaudio.functional

        resampled_T: Waveform = torchaudio.functional.resample(
            torch.from_numpy(piece_T), self.rate_hz, SAMPLE_RATE_HZ
        ).numpy()
        return resampled_T


class _Swr:
    """FFmpeg's resampler, for rates that share next to nothing with 16 kHz."""

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
        self._done: list[Waveform] = []
        self._taken = 0

    def add(self, mono_T: Waveform) -> None:
        frame = av.AudioFrame.from_ndarray(mono_T[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = self.rate_hz, self._taken, Fraction(1, self.rate_hz)
        self._taken += len(mono_T)
        self._keep(frame)

    def end(self) -> Waveform:
        self._keep(None)
        return np.concatenate(self._done)

    def _keep(self, frame: av.AudioFrame | None) -> None:
        self._done += [block.to_ndarray()[0] for block in self._resampler.resample(frame)]
