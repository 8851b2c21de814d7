"""Noise that was recorded: babble of the corpus's own speakers, and files of a folder. No torch is imported here.

Each source gives a stretch for a clip from a generator alone, and says for the provenance what it draws from.
Shape letter: T samples at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cache.corpus.clips import Corpus
from configs.schema.features import NoiseSettings
from extract.corrupt.noise.babble import Babble, babble_pool, training_speakers
from extract.corrupt.noise.excerpt import RecordingError
from extract.corrupt.noise.files import NoiseFiles
from extract.corrupt.sound.level import Waveform

# Of full scale. Raising anything quieter to speech level would be noise of the recorder, or infinite.
SILENCE_DB = -80.0
DRAWS = 20


class NoiseSource(Protocol):
    """Something that noise can be taken from."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of its recordings: clip ids, or paths inside the folder."""
        ...

    def draw(self, length: int, rng: np.random.Generator, clip_id: str) -> Waveform:
        """Noise (length,) for a clip, at any level; silence where the recording has some. Raises `RecordingError`."""
        ...

    def provenance(self) -> dict[str, Any]:
        """What the noise is drawn from: equal dicts, equal noise. Reads the files through."""
        ...


@dataclass(frozen=True)
class NoiseSources:
    """The sources of a run, by the kind of condition that draws from them."""

    by_kind: Mapping[str, NoiseSource]

    def draw(self, kind: str, length: int, rng: np.random.Generator, clip_id: str) -> Waveform:
        """Noise (length,) float32 of that kind for a clip; silent stretches are drawn again.

        Raises:
            RecordingError: one line: a file cannot be decoded, nobody else to babble, or nothing but silence.
        """
        for _ in range(DRAWS):
            noise_T = self.by_kind[kind].draw(length, rng, clip_id)
            if (noise_T.astype(np.float64) ** 2).mean() > 10 ** (SILENCE_DB / 10):
                return noise_T
        raise RecordingError(
            f"{kind}: {DRAWS} stretches drawn in a row were silent; take silent recordings out of its source"
        )

    def provenance(self, kind: str) -> dict[str, Any]:
        """What a kind draws from; empty for one that needs no recordings."""
        return self.by_kind[kind].provenance() if kind in self.by_kind else {}


def noise_sources(settings: NoiseSettings, corpus: Corpus, kinds: Iterable[str]) -> NoiseSources:
    """The sources that conditions of these kinds need; the others are not looked for.

    Raises:
        ValueError: one line naming the key of the configuration to set.
    """
    return NoiseSources({kind: RECORDED[kind].find(settings, corpus) for kind in sorted(set(kinds) & set(RECORDED))})


def known_sources(settings: NoiseSettings, corpus: Corpus, names: Mapping[str, Sequence[str]]) -> NoiseSources:
    """The same sources again from the names of their recordings, by kind; nothing is looked for."""
    return NoiseSources({kind: RECORDED[kind].of_names(settings, corpus, known) for kind, known in names.items()})


@dataclass(frozen=True)
class Recorded:
    """A kind of noise that is recorded: how its recordings are found, and how it is made of those that were found."""

    find: Callable[[NoiseSettings, Corpus], NoiseSource]
    of_names: Callable[[NoiseSettings, Corpus, Sequence[str]], NoiseSource]


def _find_babble(settings: NoiseSettings, corpus: Corpus) -> NoiseSource:
    return Babble(babble_pool(corpus, training_speakers(corpus, settings.babble_speakers)), corpus)


def _babble_of(_settings: NoiseSettings, corpus: Corpus, names: Sequence[str]) -> NoiseSource:
    clips = {clip.clip_id: clip for clip in corpus.clips}
    return Babble([clips[name] for name in names], corpus)


def _find_files(settings: NoiseSettings, _corpus: Corpus) -> NoiseSource:
    return NoiseFiles.of_folder(settings.folder)


def _files_of(settings: NoiseSettings, _corpus: Corpus, names: Sequence[str]) -> NoiseSource:
    assert settings.folder, "files were found in a folder"
    return NoiseFiles(Path(settings.folder).expanduser(), names)


RECORDED = {
    "noise-babble": Recorded(_find_babble, _babble_of),
    "noise-file": Recorded(_find_files, _files_of),
}
