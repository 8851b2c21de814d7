"""Media file to `Media`, in worker processes: a decoder that hangs or crashes costs one clip, not the run."""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from cache.corpus.stretch import Stretch, part_hash
from cache.files.hashes import sha256_of
from cache.media import Failure, Media, Source
from configs.command.workers import TookTooLongError, WorkerDiedError, Workers
from extract.media.by_decord import are_alike, frames_by_decord
from extract.media.cut import PLAIN, Cut
from extract.media.frames import Frames
from extract.media.length import refuse_incomplete
from extract.media.picture import Picture, brought_to_size, frame_numbers, reduction
from extract.media.sound import Sound
from extract.media.stretches import decode_stretches
from extract.media.strict import strict_pass
from extract.media.tracks import Tracks, survey

TROUBLE_OF_THE_MACHINE = (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT)
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
# Their frames are in memory at once.
STRETCHES_AT_ONCE = 64


def decode(path: Path, frames: int, size: int, cut: Cut = PLAIN, reader: str = "auto") -> Media:
    """Decode one clip: what a player would show and play of it, or nothing.

    Args:
        path: any container that FFmpeg reads.
        frames: number of evenly spaced frames to keep; 0 skips the picture.
        size: side of the square they are brought to, in pixels.
        cut: how they are brought there.
        reader: whose frames are kept, as in `MediaSettings`.

    Returns:
        waveform (samples,) float32, mono, 16 kHz, and frames (frames, size, size, 3) uint8; None for
        a track that the file does not have or that is empty. `face_found` is None where no face was looked for.

    Raises:
        ValueError: the file is damaged; one line.
    """
    refuse_incomplete(path)
    tracks = survey(path)
    if tracks.sound is None and tracks.picture is None:
        raise ValueError("neither sound nor picture in the file")
    if tracks.picture is None or not frames:
        return Media(_waveform(strict_pass(path, tracks, None)), None)
    reduce = reduction(size, cut)
    numbers, picture, sound = _sampled(path, tracks, frames, reduce)
    kept = [picture.kept[number] for number in numbers]
    others = frames_by_decord(path, numbers, reduce) if reader == "decord" and not tracks.repeats else None
    alike = others is not None and are_alike(kept, others)
    frames_THWC, face_found = brought_to_size(others if others and alike else kept, size, cut)
    return Media(_waveform(sound), frames_THWC, face_found, overruled=reader == "decord" and not alike)


def _sampled(
    path: Path, tracks: Tracks, frames: int, reduce: Callable[[Frames], Frames]
) -> tuple[list[int], Picture, Sound | None]:
    """Numbers of the frames that are wanted, and a picture that has them."""
    picture = Picture(frame_numbers(tracks.frames, tracks.repeats, frames), reduce)
    sound = strict_pass(path, tracks, picture)
    numbers = frame_numbers(picture.count, tracks.repeats, frames)
    if not picture.kept.keys() >= set(numbers):
        # Packets and frames are not the same everywhere. Now it is known how many frames there are.
        picture = Picture(numbers, reduce)
        strict_pass(path, replace(tracks, sound=None), picture)
    return numbers, picture, sound


def _waveform(sound: Sound | None) -> Any:
    return None if sound is None else sound.waveform()


def decode_all(
    paths: Sequence[Path],
    *,
    frames: int,
    size: int,
    workers: int,
    timeout_seconds: float,
    check: Callable[[], None],
    cut: Cut = PLAIN,
    reader: str = "auto",
    stretches: Sequence[Stretch | None] | None = None,
    pool: Workers | None = None,
) -> Iterator[tuple[Media | Failure, Source]]:
    """Decode clips in order, `workers` at a time; yields each clip with the file it came from.

    Clips that are stretches of one file and follow each other are read together.

    `check` is called at least once a second while waiting and ends the work by raising. `pool`: of `decoders`, for a
    caller that comes again and keeps it (to start one and end it takes longer than to decode a clip); it stays open.
    """
    with nullcontext(pool) if pool is not None else decoders(workers, cut, reader) as pool:
        groups = list(_groups(paths, stretches or [None] * len(paths), 1 if cut.face else STRETCHES_AT_ONCE))
        tasks = [(path, several, frames, size, cut, reader) for path, several in groups]
        futures = [pool.schedule(_decode_source, task, timeout_seconds) for task in tasks]
        try:
            for (path, several), future in zip(groups, futures, strict=True):
                check()
                while not wait([future], timeout=1.0).done:
                    check()
                yield from _outcomes(path, several, future, timeout_seconds)
        finally:
            # A pool that stays open goes on without what nobody waits for.
            for future in futures:
                future.cancel()


def decoders(workers: int, cut: Cut, reader: str) -> Workers:
    """Processes that decode."""
    wanted = [*(["decord"] if reader == "decord" else []), *(["cv2"] if cut.face else [])]
    return Workers(workers, ["torch", "torchaudio.functional", "av", *wanted])


def _groups(
    paths: Sequence[Path], stretches: Sequence[Stretch | None], most: int
) -> Iterator[tuple[Path, list[Stretch | None]]]:
    """Each file with the stretches that are wanted of it; whole files are alone."""
    several: list[Stretch | None] = []
    for number, (path, stretch) in enumerate(zip(paths, stretches, strict=True)):
        several.append(stretch)
        last = number + 1 == len(paths) or paths[number + 1] != path or stretches[number + 1] is None
        if last or stretch is None or len(several) == most:
            yield path, several
            several = []


def _outcomes(
    path: Path, stretches: Sequence[Stretch | None], future: Future[Any], timeout_seconds: float
) -> list[tuple[Media | Failure, Source]]:
    try:
        outcomes: list[tuple[Media | Failure, Source]] = future.result()
        return outcomes
    except TookTooLongError:
        failure = Failure(f"decoding took longer than {timeout_seconds:g} s")
    except WorkerDiedError as error:
        _refuse_a_signal(-error.exit_code)
        failure = Failure(f"the decoder crashed (exit code {error.exit_code})")
    return [(failure, Source.of(path, stretch=stretch)) for stretch in stretches]


def _refuse_a_signal(number: int) -> None:
    """A batch system signals decoders too, and torchrun does: their rank ends next, and no clip has failed."""
    if number in STOPPING:
        name = signal.Signals(number).name
        raise OSError(errno.EINTR, f"a decoder was stopped by {name}; the same command continues")


def _decode_source(
    path: Path, stretches: Sequence[Stretch | None], frames: int, size: int, cut: Cut, reader: str
) -> list[tuple[Media | Failure, Source]]:
    import torch

    torch.set_num_threads(1)
    source = Source.of(path)
    sources = [replace(source, sha256=part_hash(source.sha256, one)) for one in stretches]
    if not path.is_file():
        return [(Failure("no such file"), one) for one in sources]
    try:
        wanted = [stretch for stretch in stretches if stretch is not None]
        decoded: list[Media | Failure] = (
            decode_stretches(path, wanted, frames, size, cut) if wanted else [decode(path, frames, size, cut, reader)]
        )
    # Whatever a decoder raises on a damaged file is that clip's failure.
    except Exception as error:
        if not source.sha256:
            _refuse_unreadable_disk(path)
        decoded = [Failure(_reason(error, path))] * len(stretches)
    return list(zip(decoded, sources, strict=True))


def _refuse_unreadable_disk(path: Path) -> None:
    """A failed clip is remembered: a disk or server that fails must end the rank instead, and leave the unit pending.

    FFmpeg says "Input/output error" of damaged files as well, so the bytes are read without it.
    """
    try:
        sha256_of(path)
    except OSError as error:
        if error.errno in TROUBLE_OF_THE_MACHINE:
            raise OSError(error.errno, f"{error.strerror}; the same command tries again", str(path)) from error


def _reason(error: Exception, path: Path) -> str:
    """One line without time, path or addresses (decord adds all three): equal failures read the same."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = re.sub(r"^\[[\d:]+\] \S+\.(cc|h):\d+: ", "", lines[0]).replace(str(path), path.name)
    return " ".join(line.split())[:300]
