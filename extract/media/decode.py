"""Media file to `Media`, in worker processes: a decoder that hangs or crashes costs one clip, not the run."""

from __future__ import annotations

import itertools
import multiprocessing
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as DecodeTimeoutError
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from pebble import ProcessExpired, ProcessPool

from cache.media import SAMPLE_RATE_HZ, Failure, Media, Source
from extract.media.cut import PLAIN, Cut
from extract.media.damage import refuse_damaged

# A container counts in packets, some of which a decoder keeps to itself: this much may be missing.
TOLERATED_SECONDS = 0.1
# Written by programs that cannot go back to fill in the size.
UNKNOWN_RIFF_SIZE = 0xFFFF_FFFF


@dataclass(frozen=True)
class Streams:
    """What a container says of itself. 0 where it has no such stream or does not say."""

    sample_rate_hz: int
    channels: int
    sound_seconds: float
    has_picture: bool
    picture_frames: int


def probe(path: Path) -> Streams:
    """Read a container's header.

    Raises:
        ValueError: it is not a media file.
    """
    _refuse_incomplete(path)
    try:
        with av.open(str(path)) as container:
            sound, picture = container.streams.best("audio"), container.streams.best("video")
            # The cover of a sound file is no picture of the speaker.
            if picture and picture.disposition & av.stream.Disposition.attached_pic:
                picture = None
            return Streams(
                sound.rate if sound else 0,
                sound.channels if sound else 0,
                float(sound.duration * sound.time_base) if sound and sound.duration else 0.0,
                picture is not None,
                picture.frames if picture else 0,
            )
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError(f"not a readable media file: {getattr(error, 'strerror', error)}") from error


def _refuse_incomplete(path: Path) -> None:
    size = path.stat().st_size
    if not size:
        raise ValueError("the file is empty (0 bytes)")
    with path.open("rb") as file:
        head = file.read(12)
    # FFmpeg takes the end of a WAV file for the end of the sound, whatever the header says.
    declared = int.from_bytes(head[4:8], "little") + 8
    if head[:4] == b"RIFF" and head[8:] == b"WAVE" and size < declared < UNKNOWN_RIFF_SIZE:
        raise ValueError(f"only {size} of {declared} bytes are there")


def decode(path: Path, frames: int, size: int, cut: Cut = PLAIN) -> Media:
    """Decode one clip.

    Args:
        path: any container that FFmpeg reads.
        frames: number of evenly spaced frames to keep; 0 skips the picture.
        size: side of the square they are brought to, in pixels.
        cut: how they are brought there.

    Returns:
        waveform (samples,) float32, mono, 16 kHz, and frames (frames, size, size, 3) uint8; None for
        a stream that the container does not have. `face_found` is None where no face was looked for.

    Raises:
        ValueError: the file is damaged; one line.
    """
    streams = probe(path)
    if not streams.sample_rate_hz and not streams.has_picture:
        raise ValueError("neither sound nor picture in the file")
    waveform_T = _waveform(path, streams) if streams.sample_rate_hz else None
    wanted = streams.has_picture and frames
    frames_THWC, face_found = _frames(path, streams, frames, size, cut) if wanted else (None, None)
    # Last: what is simply missing has been named by then.
    refuse_damaged(path, picture=bool(frames))
    return Media(waveform_T, frames_THWC, face_found)


def decode_all(
    paths: Sequence[Path],
    *,
    frames: int,
    size: int,
    workers: int,
    timeout_seconds: float,
    check: Callable[[], None],
    cut: Cut = PLAIN,
) -> Iterator[tuple[Media | Failure, Source]]:
    """Decode clips in order, `workers` at a time; yields each clip with the file it came from.

    `check` is called at least once a second while waiting and ends the work by raising.
    """
    # Each pool's workers are forked from a server that has imported these once; nothing runs there.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torchaudio.functional", "decord", *(["cv2"] if cut.face else [])])
    with ProcessPool(max_workers=workers, context=context) as pool:
        tasks = [(path, frames, size, cut) for path in paths]
        futures = [pool.schedule(_decode_source, task, timeout=timeout_seconds) for task in tasks]
        try:
            for path, future in zip(paths, futures, strict=True):
                check()
                while not wait([future], timeout=1.0).done:
                    check()
                yield _outcome(path, future, timeout_seconds)
        except BaseException:
            pool.stop()
            raise


def _outcome(path: Path, future: Any, timeout_seconds: float) -> tuple[Media | Failure, Source]:
    try:
        outcome: tuple[Media | Failure, Source] = future.result()
        return outcome
    except DecodeTimeoutError:
        return Failure(f"decoding took longer than {timeout_seconds:g} s"), Source.of(path)
    except ProcessExpired as error:
        return Failure(f"the decoder crashed (exit code {error.exitcode})"), Source.of(path)


def _decode_source(path: Path, frames: int, size: int, cut: Cut) -> tuple[Media | Failure, Source]:
    import torch

    torch.set_num_threads(1)
    source = Source.of(path)
    if not path.is_file():
        return Failure("no such file"), source
    try:
        return decode(path, frames, size, cut), source
    # Whatever a decoder raises on a damaged file is that clip's failure.
    except Exception as error:
        return Failure(_reason(error, path)), source


def _reason(error: Exception, path: Path) -> str:
    """One line without time, path or addresses (decord adds all three): equal failures read the same."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = re.sub(r"^\[[\d:]+\] \S+\.(cc|h):\d+: ", "", lines[0]).replace(str(path), path.name)
    return " ".join(line.split())[:300]


def _waveform(path: Path, streams: Streams) -> npt.NDArray[np.float32]:
    import torch
    import torchaudio.functional

    samples_CT = _one_channel(path) if streams.channels == 1 else _several_channels(path)
    decoded_seconds = samples_CT.shape[1] / streams.sample_rate_hz
    if decoded_seconds + TOLERATED_SECONDS < streams.sound_seconds:
        raise ValueError(f"only {decoded_seconds:.2f} of {streams.sound_seconds:.2f} s of sound could be decoded")
    if not np.isfinite(samples_CT).all():
        raise ValueError("the sound contains values that are not finite")
    waveform_T = torch.from_numpy(samples_CT.mean(axis=0))
    resampled_T: npt.NDArray[np.float32] = torchaudio.functional.resample(
        waveform_T, streams.sample_rate_hz, SAMPLE_RATE_HZ
    ).numpy()
    return resampled_T


def _one_channel(path: Path) -> npt.NDArray[np.float32]:
    import decord

    samples_CT: npt.NDArray[np.float32] = decord.AudioReader(str(path), sample_rate=-1, mono=True)[:].asnumpy()
    return samples_CT


def _several_channels(path: Path) -> npt.NDArray[np.float32]:
    """By PyAV: decord 0.6 returns memory that it does not own, or a sum beyond full scale."""
    with av.open(str(path)) as container:
        planar = av.AudioResampler(format="fltp")
        frames = itertools.chain(container.decode(container.streams.best("audio")), [None])
        blocks = [block.to_ndarray() for frame in frames for block in planar.resample(frame)]
    return np.concatenate(blocks, axis=1)


def _frames(
    path: Path, streams: Streams, frames: int, size: int, cut: Cut
) -> tuple[npt.NDArray[np.uint8], bool | None]:
    import decord

    from extract.media.frames import even_indices, resize_and_crop

    reader = decord.VideoReader(str(path), num_threads=1)
    available = len(reader)
    if not available or available < streams.picture_frames:
        raise ValueError(f"only {available} of {streams.picture_frames} frames could be decoded")
    frames_THWC = reader.get_batch(even_indices(available, frames)).asnumpy()
    if not cut.face:
        return resize_and_crop(frames_THWC, size, cut), None
    from extract.media.face import crop_to_face

    square_THWC, face_found = crop_to_face(frames_THWC)
    return resize_and_crop(square_THWC, size, cut), face_found
