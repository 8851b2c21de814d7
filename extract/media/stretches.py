"""Stretches of one recording, each a clip: the file is read once for all of them, and once more for their frames.

Seconds count from the beginning of the recording, as players count them; a track that begins later is that much later.

Shape letters: T samples or frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cache.corpus.stretch import Stretch
from cache.media import SAMPLE_RATE_HZ, Failure, Media
from extract.media.cut import Cut
from extract.media.frames import Frames, even_indices
from extract.media.length import refuse_incomplete
from extract.media.picture import Picture, brought_to_size, reduction
from extract.media.sound import Sound, Waveform
from extract.media.strict import strict_pass
from extract.media.tracks import Tracks, open_media, survey

# Ends are often rounded up to what an annotation tool shows.
TOLERATED_SECONDS = 0.1


def decode_stretches(
    path: Path, stretches: Sequence[Stretch], frames: int, size: int, cut: Cut
) -> list[Media | Failure]:
    """Decode these stretches of a recording; one that reaches beyond its end fails by itself.

    Args:
        path: the recording.
        stretches: from when to when.
        frames: number of frames of each, evenly spaced over the stretch; 0 skips the picture.
        size, cut: as in `extract.media.decode.decode`.

    Raises:
        ValueError: the recording is damaged, or has neither sound nor picture; one line.
    """
    refuse_incomplete(path)
    tracks = survey(path)
    if tracks.sound is None and tracks.picture is None:
        raise ValueError("neither sound nor picture in the file")
    seen = Picture((), _nothing) if tracks.picture is not None and frames else None
    sound = strict_pass(path, tracks, seen)
    waveform_T = None if sound is None else sound.waveform()
    began = _beginning(path)
    # A stretch of sound alone ends with the sound, one of a film with the later of the two.
    heard = 0.0 if sound is None else sound.begins_seconds - began + sound.seconds
    shown = 0.0 if seen is None else _end(seen.times) - began
    numbers = [_numbers(seen.times, one, began, frames) if seen else [] for one in stretches]
    picture = _picked(path, tracks, numbers, reduction(size, cut)) if any(numbers) else None
    return [
        _beyond(one, max(heard, shown))
        or Media(_cut_sound(waveform_T, sound, one, began), *_cut_picture(picture, wanted, size, cut))
        for one, wanted in zip(stretches, numbers, strict=True)
    ]


def _nothing(frame_HWC: Frames) -> Frames:
    return frame_HWC[:0]


def _beginning(path: Path) -> float:
    """When the recording begins, by the clock of the file, in seconds."""
    with open_media(path) as container:
        return (container.start_time or 0) / 1_000_000


def _end(times: Sequence[float]) -> float:
    """When the last frame has been shown as long as the others on average."""
    return times[-1] + (times[-1] - times[0]) / max(1, len(times) - 1)


def _beyond(stretch: Stretch, length: float) -> Failure | None:
    ends = stretch.start_seconds if math.isinf(stretch.end_seconds) else stretch.end_seconds - TOLERATED_SECONDS
    if stretch.start_seconds < length and ends <= length:
        return None
    return Failure(f"the stretch {str(stretch)[1:]} s reaches beyond the recording, which is {length:.2f} s long")


def _numbers(times: Sequence[float], stretch: Stretch, began: float, wanted: int) -> list[int]:
    """Evenly spaced among the frames that begin inside the stretch; else the one that is shown when it begins."""
    shown = np.asarray(times) - began
    inside = np.flatnonzero((shown >= stretch.start_seconds) & (shown < stretch.end_seconds))
    if not len(inside):
        inside = np.flatnonzero(shown <= stretch.start_seconds)[-1:]
    return [int(inside[index]) for index in even_indices(len(inside), wanted)] if len(inside) else []


def _picked(
    path: Path, tracks: Tracks, numbers: Sequence[Sequence[int]], reduce: Callable[[Frames], Frames]
) -> Picture:
    picture = Picture(sorted({number for wanted in numbers for number in wanted}), reduce)
    strict_pass(path, Tracks(tracks.format, None, tracks.picture, tracks.frames, tracks.repeats), picture)
    return picture


def _cut_sound(waveform_T: Waveform | None, sound: Sound | None, stretch: Stretch, began: float) -> Waveform | None:
    if waveform_T is None or sound is None:
        return None
    late = sound.begins_seconds - began
    first = max(0, round((stretch.start_seconds - late) * SAMPLE_RATE_HZ))
    ends = stretch.end_seconds - late
    last = len(waveform_T) if math.isinf(ends) else max(0, round(ends * SAMPLE_RATE_HZ))
    return waveform_T[first:last].copy()


def _cut_picture(
    picture: Picture | None, wanted: Sequence[int], size: int, cut: Cut
) -> tuple[Frames | None, bool | None]:
    if picture is None or not wanted:
        return None, None
    return brought_to_size([picture.kept[number] for number in wanted], size, cut)
