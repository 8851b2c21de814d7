"""Noise that was recorded: babble of the corpus's own speakers, and files of a folder. No torch is imported here.

Each source gives a stretch for a clip from a generator alone, and says for the provenance what it draws from.
Shape letter: T samples at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from cache.corpus.clips import Corpus
from configs.schema.features import NoiseSettings
from extract.corrupt.noise.babble import Babble, babble_pool, training_speakers
from extract.corrupt.noise.files import NoiseFiles
from extract.corrupt.sound.level import Waveform

# Of full scale. Raising anything quieter to speech level would be noise of the recorder, or infinite.
SILENCE_DB = -80.0
DRAWS = 20


class NoiseSource(Protocol):
    """Something that noise can be taken from."""

    def draw(self, length: int, rng: np.random.Generator, clip_id: str) -> Waveform:
        """Noise (length,) for a clip, at any level; silence where the recording has some. Raises `ValueError`."""
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
            ValueError: one line: a file cannot be decoded, nobody else to babble, or nothing but silence.
        """
        for _ in range(DRAWS):
            noise_T = self.by_kind[kind].draw(length, rng, clip_id)
            if (noise_T.astype(np.float64) ** 2).mean() > 10 ** (SILENCE_DB / 10):
                return noise_T
        raise ValueError(
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
    return NoiseSources({kind: RECORDED[kind](settings, corpus) for kind in sorted(set(kinds) & set(RECORDED))})


def _babble(settings: NoiseSettings, corpus: Corpus) -> NoiseSource:
    return Babble(babble_pool(corpus, training_speakers(corpus, settings.babble_speakers)), corpus)


def _files(settings: NoiseSettings, _corpus: Corpus) -> NoiseSource:
    return NoiseFiles.of_folder(settings.folder)


RECORDED: dict[str, Callable[[NoiseSettings, Corpus], NoiseSource]] = {
    "noise-babble": _babble,
    "noise-file": _files,
}
