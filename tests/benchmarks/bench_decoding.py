"""Decoding of 720p clips: one strict pass against decord with a strict pass behind it, as it was done before."""

from __future__ import annotations

from pathlib import Path

import torch
import torchaudio.functional

from extract.media.decode import decode
from extract.media.frames import even_indices, resize_and_crop
from extract.media.picture import Picture
from extract.media.strict import strict_pass
from extract.media.tracks import survey
from tests.benchmarks.stopwatch import interleaved
from tests.tiny.corpus import pictures, tone, write_mp4
from tests.tiny.places import SHARED

CLIPS, SECONDS, FPS, FRAMES, SIZE, ROUNDS = 10, 3.7, 30, 16, 224, 3


def run(folder: Path) -> list[str]:
    """Time the readers in one thread; returns the lines of the report."""
    torch.set_num_threads(1)
    clips, where = _clips(folder)
    times = interleaved(
        {
            "before": lambda: list(map(_decord_and_strict_pass, clips)),
            "av": lambda: [decode(clip, FRAMES, SIZE, reader="av") for clip in clips],
            "decord": lambda: [decode(clip, FRAMES, SIZE, reader="decord") for clip in clips],
        },
        ROUNDS,
    )
    rates = {name: f"{len(clips) / taken.cpu_seconds:.1f} clips/s" for name, taken in times.items()}
    return [
        f"{len(clips)} clips of 1280x720 ({where}), one thread, clips per second of processor time:",
        f"  decord and a strict pass that keeps nothing, as before: {rates['before']}",
        f"  media.reader=av (auto): {rates['av']}; before takes {times['before'].over(times['av'])}",
        f"  media.reader=decord: {rates['decord']}; it takes {times['decord'].over(times['av'])}",
    ]


def _decord_and_strict_pass(path: Path) -> None:
    import decord

    samples_CT = decord.AudioReader(str(path), sample_rate=-1, mono=True)[:].asnumpy()
    torchaudio.functional.resample(torch.from_numpy(samples_CT.mean(axis=0)), 48_000, 16_000)
    reader = decord.VideoReader(str(path), num_threads=1)
    resize_and_crop(reader.get_batch(even_indices(len(reader), FRAMES)).asnumpy(), SIZE)
    strict_pass(path, survey(path), Picture((), lambda frame_HWC: frame_HWC))


def _clips(folder: Path) -> tuple[list[Path], str]:
    real = sorted((SHARED / "ravdess/video").rglob("*.mp4"))
    if real:
        return real[:: max(1, len(real) // CLIPS)][:CLIPS], "RAVDESS"
    return [_made(folder, number) for number in range(CLIPS)], "made here"


def _made(folder: Path, number: int) -> Path:
    frames_THWC = pictures(round(SECONDS * FPS), 1280, 720, seed=number)
    sound_T = tone(SECONDS, 48_000, seed=number)
    return write_mp4(folder / f"{number}.mp4", sound_T, frames_THWC, rate_hz=48_000, fps=FPS)
