"""Tiny clips, corpora and encoders for tests: everything is synthesised, nothing takes more than a second."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from cache.corpus.clips import Clip, write_metadata
from cache.corpus.ravdess import LABELS
from configs.schema.demo import RandomEncodersConfig
from extract.corpora.synthetic.encoders import write_random_encoders


def tone(seconds: float, rate_hz: int = 16_000, seed: int = 0) -> npt.NDArray[np.float32]:
    """Syllable-like bursts of a harmonic tone with a little noise, (samples,) float32, peak below 0.5."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    pitch_hz = rng.uniform(90, 300)
    harmonics = sum(np.sin(2 * np.pi * pitch_hz * k * time) / k for k in range(1, 6))
    bursts = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * time)
    waveform: npt.NDArray[np.float32] = (0.15 * harmonics * bursts + 0.001 * rng.standard_normal(len(time))).astype(
        np.float32
    )
    return waveform


def pictures(count: int, width: int = 64, height: int = 48, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A bright square that moves over a coloured gradient, (T, H, W, 3) uint8: no two frames alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    ground = np.stack([255 * x / width, 255 * y / height, np.full_like(x, rng.integers(0, 200))], axis=-1)
    frames = np.repeat(ground[None].astype(np.uint8), count, axis=0)
    for index, frame in enumerate(frames):
        left = (width - 12) * index // max(1, count - 1)
        frame[height // 3 : height // 3 + 12, left : left + 12] = rng.integers(128, 256, 3)
    return frames


def write_mp4(
    path: Path,
    waveform: npt.NDArray[np.float32] | None,
    frames_THWC: npt.NDArray[np.uint8] | None,
    *,
    rate_hz: int = 16_000,
    fps: int = 15,
    faststart: bool = False,
) -> Path:
    """Write h264 and AAC. `waveform` is (samples,) or (channels, samples); None leaves the stream out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        packets: list[Iterator[Any]] = []
        if frames_THWC is not None:
            packets.append(_picture_packets(container, frames_THWC, fps))
        if waveform is not None:
            packets.append(_sound_packets(container, np.atleast_2d(waveform), rate_hz))
        # A packet of each in turn, as cameras write them: a cut file then lacks the end of both.
        for turn in itertools.zip_longest(*packets):
            for packet in turn:
                if packet is not None:
                    container.mux(packet)
    return path


def _picture_packets(container: Any, frames_THWC: npt.NDArray[np.uint8], fps: int) -> Iterator[Any]:
    stream = container.add_stream("libx264", rate=fps)
    stream.height, stream.width = frames_THWC.shape[1:3]
    stream.pix_fmt = "yuv420p"
    stream.options = {"crf": "10", "preset": "ultrafast"}
    stream.codec_context.thread_count = 1

    def packets() -> Iterator[Any]:
        for frame in frames_THWC:
            yield from stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24"))
        yield from stream.encode()

    return packets()


def _sound_packets(container: Any, waveform_CT: npt.NDArray[np.float32], rate_hz: int) -> Iterator[Any]:
    layout = "mono" if len(waveform_CT) == 1 else "stereo"
    stream = container.add_stream("aac", rate=rate_hz, layout=layout)

    def packets() -> Iterator[Any]:
        for start in range(0, waveform_CT.shape[1], 1024):
            block = np.ascontiguousarray(waveform_CT[:, start : start + 1024], np.float32)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate_hz, start, Fraction(1, rate_hz)
            yield from stream.encode(frame)
        yield from stream.encode()

    return packets()


def write_tiny_mp4(path: Path, seconds: float = 0.8, seed: int = 0) -> Path:
    """A clip with both streams, 64 x 48 pixels, 15 frames a second."""
    return write_mp4(path, tone(seconds, seed=seed), pictures(max(1, round(15 * seconds)), seed=seed))


def write_tiny_corpus(root: Path, speakers: Sequence[str], labels: Sequence[str] = LABELS, takes: int = 1) -> Path:
    """An mp4 for every speaker, label and take; returns the metadata.csv in `root`."""
    clips = []
    for number, (speaker, label, take) in enumerate(itertools.product(speakers, labels, range(takes))):
        clip_id = f"s{speaker}-{label}-{take}"
        statement = ("Kids are talking by the door", "Dogs are sitting by the door")[take % 2]
        sex = "male" if int(speaker) % 2 else "female"
        clips.append(Clip(clip_id, f"clips/{clip_id}.mp4", label, speaker, statement=statement, sex=sex))
        write_tiny_mp4(root / clips[-1].path, 0.6 + 0.1 * (number % 3), seed=number)
    write_metadata(clips, root / "metadata.csv")
    return root / "metadata.csv"


def write_tiny_encoders(folder: Path, size: int = 32) -> dict[str, Path]:
    """Random encoders of the true architectures: width 16, one block, `size` pixels; by modality."""
    return write_random_encoders(RandomEncodersConfig(out=str(folder), width=16, blocks=1, size=size, patch=16))
