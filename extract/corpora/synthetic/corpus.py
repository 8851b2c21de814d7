"""The synthetic demo corpus: clips that speak and look like emotions, so that the pipeline runs without a download.

Names, folders and metadata are those of RAVDESS; nothing in the clips comes from it. Samples and pixels
depend on the seed and the clip alone: not on the number of processes, the order or the other clips.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from cache.corpus.clips import Clip, write_metadata
from cache.corpus.ravdess import LABELS, STATEMENTS, RavdessName, parse_ravdess_name
from cache.files.atomic import revealed
from configs.command.progress import Progress
from extract.corpora.synthetic.face import FRAMES_PER_SECOND, HEIGHT, WIDTH, draw_look, perform
from extract.corpora.synthetic.voice import CONTROL_HZ, SAMPLE_RATE_HZ, draw_voice, speak

SPEAKERS = range(17, 25)  # reaches into all three parts of the protocol `holdout`


def write_corpus(
    root: Path, seed: int = 0, speakers: Iterable[int] = SPEAKERS, repetitions: int = 1, processes: int = 2
) -> Path:
    """Write `root/Actor_17/01-01-01-01-01-01-17.mp4` and so on, then `root/metadata.csv`.

    Args:
        root: folder of the corpus; existing clips of the same names are replaced.
        seed: another seed gives other speakers and other takes.
        speakers: RAVDESS actor numbers, 1 to 24.
        repetitions: times that each speaker says each sentence with each emotion, 1 or 2.
        processes: clips made at the same time; does not change them.

    Returns:
        The path of the metadata. It is written last: where it stands, the corpus is complete.

    Raises:
        ValueError: a speaker or repetition that RAVDESS names cannot carry.
    """
    clips = corpus_clips(speakers, repetitions)
    metadata = root / "metadata.csv"
    metadata.unlink(missing_ok=True)
    write = partial(_write_clip, root, seed)
    with Progress("synthetic corpus", len(clips), "clips") as progress:
        for _ in _spread(write, clips, processes):
            progress.add(1)
    write_metadata(clips, metadata)
    return metadata


def corpus_clips(speakers: Iterable[int] = SPEAKERS, repetitions: int = 1) -> list[Clip]:
    """The clips of a corpus before they are made: every speaker, emotion, sentence and repetition once."""
    return [_clip(*take) for take in product(speakers, LABELS, STATEMENTS, range(1, repetitions + 1))]


def synthesise(clip_id: str, seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """One clip before compression.

    Args:
        clip_id: a RAVDESS file stem; says who speaks which sentence with which emotion.
        seed: seed of the corpus.

    Returns:
        Mono samples (T,) float32 within [-1, 1] at 48 kHz, and frames (F, 264, 352, 3) uint8 RGB at
        25 per second. Both last equally long, to within one frame.
    """
    name = parse_ravdess_name(clip_id)
    # A speaker is the same person in all clips; a take is of its own.
    speaker_rng = np.random.default_rng([seed, int(name.actor)])
    voice = draw_voice(name.sex, speaker_rng)
    look = draw_look(name.sex, int(name.actor), speaker_rng)
    take_rng = np.random.default_rng([seed, *clip_id.encode()])
    utterance = speak(name.statement, name.emotion, voice, take_rng)
    count = round(len(utterance.samples_T) / SAMPLE_RATE_HZ * FRAMES_PER_SECOND)
    at = np.minimum(np.arange(count) * CONTROL_HZ // FRAMES_PER_SECOND, len(utterance.opening_C) - 1)
    frames_FHWC = perform(look, name.emotion, utterance.opening_C[at], utterance.rounding_C[at], take_rng)
    return utterance.samples_T, frames_FHWC


def _clip(speaker: int, label: str, statement: str, repetition: int) -> Clip:
    name = RavdessName("audio-video", "speech", label, "normal", statement, str(repetition), str(speaker))
    return Clip(path=f"Actor_{speaker:02d}/{name.stem}.mp4", **name.metadata)


def _spread(write: partial[None], clips: list[Clip], processes: int) -> Iterator[None]:
    """Call `write` for every clip, in fresh processes: a forked one would inherit threads' locks."""
    if processes == 1:
        yield from map(write, clips)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(write, clips)


def _write_clip(root: Path, seed: int, clip: Clip) -> None:
    samples_T, frames_FHWC = synthesise(clip.clip_id, seed)
    with revealed(root / clip.path) as part:
        _mux(part, samples_T, frames_FHWC)


def _mux(path: Path, samples_T: npt.NDArray[np.float32], frames_FHWC: npt.NDArray[np.uint8]) -> None:
    """Write h264 and AAC into one mp4."""
    with av.open(str(path), "w", format="mp4") as container:
        # One thread: x264 decides differently with more, and the clips are made side by side already.
        video = container.add_stream(
            "libx264", rate=FRAMES_PER_SECOND, options={"crf": "20", "preset": "superfast", "threads": "1"}
        )
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono", bit_rate=96_000)
        for index, picture in enumerate(frames_FHWC):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FRAMES_PER_SECOND)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(samples_T[None], format="fltp", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = SAMPLE_RATE_HZ, 0, Fraction(1, SAMPLE_RATE_HZ)
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
