"""Babble: other speakers of the corpus talking at once. They come from the training split, never from a test speaker.

Shape letter: T samples at 16 kHz.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cache.corpus.clips import Clip, Corpus, normal_speaker
from cache.corpus.stretch import part_hash
from cache.files.hashes import fingerprint, sha256_of
from cache.media import Failure, Media
from configs.schema.protocols import load_protocol
from extract.corrupt.noise.excerpt import RecordingError, excerpt
from extract.corrupt.sound.level import Waveform, active_speech_power
from extract.media.decode import decode_all
from extract.media.tracks import declares_sound

# Babble of 6 to 128 talkers masks speech most, and about equally: S. A. Simpson and M. Cooke, Consonant identification
# in N-talker babble is a nonmonotonic function of N, JASA 118(5), 2775-2778, 2005.
TALKERS = 8
CLIPS_PER_SPEAKER = 2
POOL_CLIPS = 48
SECONDS_TO_DECODE = 60.0
FALLBACK_PROTOCOL = "holdout"
_NAME_SOME = "give clips the split train, or name speakers in noise.babble_speakers"


@dataclass(frozen=True)
class Voice:
    """A clip of the pool, ready to be mixed."""

    speaker: str
    waveform_T: Waveform


class Babble:
    """Stretches of several voices at once, none of them the clip's own speaker."""

    def __init__(self, pool: Sequence[Clip], corpus: Corpus) -> None:
        """`pool`: the clips to mix, from `babble_pool`."""
        self.pool, self.corpus = tuple(pool), corpus
        self.speakers = {clip.clip_id: clip.speaker for clip in corpus.clips}

    @property
    def names(self) -> tuple[str, ...]:
        """The ids of the pool's clips."""
        return tuple(clip.clip_id for clip in self.pool)

    def draw(self, length: int, rng: np.random.Generator, clip_id: str) -> Waveform:
        """Eight voices at the same level, (length,): of as many speakers as there are, from random places on.

        With fewer than eight clips by others, all of them. For a clip outside the corpus, all are others.

        Raises:
            RecordingError: there is nobody else, or a clip of the pool cannot be decoded.
        """
        own = self.speakers.get(clip_id)
        others = [voice for voice in self.voices if voice.speaker != own]
        if not others:
            raise RecordingError(f"noise-babble: no training speaker but {own} can be heard; {_NAME_SOME}")
        chosen = islice(_each_speaker_first([others[index] for index in rng.permutation(len(others))]), TALKERS)
        mixed_T: Waveform = np.sum([excerpt(voice.waveform_T, length, rng) for voice in chosen], axis=0)
        return mixed_T

    @cached_property
    def voices(self) -> tuple[Voice, ...]:
        """The pool at equal active speech power, decoded at first use; a silent clip is left out."""
        decoded = decode_all(
            [self.corpus.source(clip) for clip in self.pool],
            frames=0,
            size=1,
            workers=1,
            timeout_seconds=SECONDS_TO_DECODE,
            check=lambda: None,
            stretches=[clip.stretch for clip in self.pool],
        )
        voices = [_voice(clip, media) for clip, (media, _) in zip(self.pool, decoded, strict=True)]
        return tuple(voice for voice in voices if voice is not None)

    def provenance(self) -> dict[str, Any]:
        """The clips of the pool and a hash over their media files."""
        hashes = [part_hash(sha256_of(self.corpus.source(clip)), clip.stretch) for clip in self.pool]
        return {
            "talkers": TALKERS,
            "pool": [clip.clip_id for clip in self.pool],
            "pool_sha256": fingerprint(hashes),
        }


def training_speakers(corpus: Corpus, named: Sequence[str] | None) -> frozenset[str]:
    """Who may be heard in babble.

    Args:
        corpus: all clips.
        named: `noise.babble_speakers`. None: the speakers of the clips whose split is train, unless some of their
            clips have another split; in a corpus without splits, the training speakers of the protocol holdout.

    Raises:
        ValueError: there are none, or they are not in the corpus.
    """
    present = frozenset(clip.speaker for clip in corpus.clips)
    if named is not None:
        speakers = frozenset(map(normal_speaker, named))
        if not speakers or speakers - present:
            unknown = ", ".join(sorted(speakers - present)) or "nobody"
            raise ValueError(f"noise.babble_speakers names {unknown}: the corpus has {', '.join(sorted(present))}")
        return speakers
    training = frozenset(clip.speaker for clip in corpus.clips if clip.split == "train")
    if training:
        return training - {clip.speaker for clip in corpus.clips if clip.split not in ("train", "")}
    return present & frozenset(load_protocol(FALLBACK_PROTOCOL).rule.divide(corpus.clips)[0].train)


def babble_pool(corpus: Corpus, speakers: Collection[str]) -> tuple[Clip, ...]:
    """A fixed small set of clips with sound: up to two of each speaker, 48 in all.

    Which ones follows from the ids alone (by their hash), not from the order of the corpus.

    Raises:
        ValueError: it does not hold two speakers, so that some clip would have nobody else in its babble.
    """
    clips: dict[str, list[Clip]] = {name: [] for name in sorted(speakers, key=_digest)}
    for clip in sorted(corpus.clips, key=lambda clip: _digest(clip.clip_id)):
        clips.get(clip.speaker, []).append(clip)
    queues = [(clip for clip in own if _has_sound(corpus.source(clip))) for own in clips.values()]
    takes = (clip for _ in range(CLIPS_PER_SPEAKER) for queue in queues for clip in islice(queue, 1))
    pool = tuple(islice(takes, POOL_CLIPS))
    heard = {clip.speaker for clip in pool}
    if len(heard) < 2:
        found = f"only speaker {min(heard)}" if heard else "none"
        raise ValueError(
            f"noise-babble needs clips with sound of two training speakers, the corpus has {found}; {_NAME_SOME}"
        )
    return pool


def _has_sound(path: Path) -> bool:
    # Only what the header says: this runs at every start, also when nothing is left to do.
    try:
        return path.is_file() and declares_sound(path)
    except (ValueError, OSError):
        return False


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _voice(clip: Clip, media: Media | Failure) -> Voice | None:
    if isinstance(media, Failure):
        raise RecordingError(
            f"noise-babble: clip {clip.clip_id}, one of its voices, cannot be decoded ({media.reason}); mend the file"
            " or name other speakers in noise.babble_speakers"
        )
    power = active_speech_power(media.waveform_T) if media.waveform_T is not None and media.waveform_T.size else 0.0
    return Voice(clip.speaker, (media.waveform_T / np.sqrt(power)).astype(np.float32)) if power else None


def _each_speaker_first(voices: Sequence[Voice]) -> list[Voice]:
    """The same clips in another order: the first of every speaker, then the second of every speaker, and so on."""
    seen: Counter[str] = Counter()
    turns = []
    for voice in voices:
        turns.append(seen[voice.speaker])
        seen[voice.speaker] += 1
    return [voices[index] for index in np.argsort(turns, kind="stable")]
