"""Clips for fine-tuning: their media, corrupted and cut on the fly.

What is drawn for a clip follows from (seed, epoch, clip id) alone: never from the rank or the batch.
Shape letters: T samples or frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from cache.conditions import UNCHANGED, Condition, JointCondition
from cache.corpus.clips import Clip
from cache.media import Media, MediaStore
from configs.schema.fusion import Augment
from extract.corrupt.apply import corrupt
from extract.corrupt.noise.sources import NoiseSources
from extract.corrupt.sound.level import Waveform, active_speech_power
from fuse.finetune.inputs.media import OpenMedia


@dataclass(frozen=True)
class ClipItem:
    """A clip, its label's number, its row in the media store, the text stage one encoded, the modalities it has."""

    clip: Clip
    label: int
    row: int
    transcript: str
    present: frozenset[str]


@dataclass(frozen=True)
class Signals:
    """One clip as the encoders will hear, see and read it; None where it has no such modality.

    `mask_seed`: of the spans that are hidden of what an encoder is given; None outside of training.
    """

    label: int
    by_modality: Mapping[str, Any]
    mask_seed: int | None = None


class MediaClips(Dataset[Signals]):
    """Clips read from the media store, under a condition and, in training, under random ones."""

    def __init__(
        self,
        items: Sequence[ClipItem],
        media: MediaStore | None,
        stored: int,
        *,
        condition: JointCondition = UNCHANGED,
        noises: NoiseSources | None = None,
        samples: int | None,
        augment: Augment | None = None,
        modality_dropout: float = 0.0,
        speeds: Sequence[float] = (),
        seed: int = 0,
    ) -> None:
        """The clips of one split.

        Args:
            items: the clips.
            media: None where only text is used.
            stored: number of clips in the media store.
            condition: what every clip is put under.
            noises: recordings that it mixes in, if it does.
            samples: length that sound is cut or repeated to; None: it stays whole.
            augment: for training: random conditions, and cuts at random; None: cuts from the centre.
            modality_dropout: in training, the chance that a modality of a clip is withheld.
            speeds: in training, those that sound is played at; none: as it is.
            seed: of everything that is drawn.
        """
        self.items, self.media = tuple(items), OpenMedia(media, stored) if media else None
        self.noises = noises
        self.parts = {part.modality: part for part in condition.parts}
        self.samples, self.augment, self.seed, self.epoch = samples, augment, seed, 0
        self.modality_dropout, self.speeds = modality_dropout, tuple(speeds)

    def set_epoch(self, epoch: int) -> None:
        """What is drawn differs from epoch to epoch."""
        self.epoch = epoch

    def close(self) -> None:
        """Close the files that were opened to read clips; those of loader processes end with them."""
        if self.media is not None:
            self.media.close()

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.items)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The number of each clip's label."""
        return np.array([item.label for item in self.items], np.int64)

    def __getitem__(self, index: int) -> Signals:
        """One clip."""
        item = self.items[index]
        media, share = self._read(item), 0.5
        conditions, mask_seed, withheld = self.parts, None, frozenset[str]()
        if self.augment is not None:
            rng = np.random.default_rng([self.seed, self.epoch, *item.clip.clip_id.encode()])
            conditions = {**self.parts, **drawn_conditions(self.augment, media, rng)}
            share, mask_seed = rng.random(), int(rng.integers(2**62))
            withheld = withheld_modalities(item.present, self.modality_dropout, rng)
            media = self._at_some_speed(media, rng)
        for condition in conditions.values():
            media = corrupt(media, condition, item.clip.clip_id, self.noises)
        sound = media.waveform_T
        if sound is not None and self.samples is not None:
            sound = of_length(sound, self.samples, share)
        text = item.transcript if "text" in item.present else None
        signals = {"audio": sound, "video": media.frames_THWC, "text": text}
        kept = {name: None if name in withheld else signal for name, signal in signals.items()}
        return Signals(item.label, kept, mask_seed)

    def _at_some_speed(self, media: Media, rng: np.random.Generator) -> Media:
        if media.waveform_T is None or not self.speeds:
            return media
        return replace(media, waveform_T=at_speed(media.waveform_T, self.speeds[int(rng.integers(len(self.speeds)))]))

    def _read(self, item: ClipItem) -> Media:
        wanted = item.present & {"audio", "video"}
        if self.media is None or not wanted:
            return Media(None, None)
        return self.media.read(item.row, *wanted)


def drawn_conditions(augment: Augment, media: Media, rng: np.random.Generator) -> dict[str, Condition]:
    """For each signal, by chance, one of its conditions with a seed of its own; it replaces any other.

    A silent clip takes no noise: it has no signal-to-noise ratio.
    """
    drawn = {}
    for signal in ("audio", "video"):
        choices = getattr(augment, signal)
        # As many draws whatever is configured: switching one signal's off leaves the other's as they were.
        chance, which, seed = rng.random(), rng.random(), int(rng.integers(2**62))
        silent = signal == "audio" and (media.waveform_T is None or not active_speech_power(media.waveform_T))
        if choices and chance < augment.probability and not silent:
            (part,) = choices[int(which * len(choices))].parts
            drawn[signal] = replace(part, seed=seed)
    return drawn


def withheld_modalities(present: frozenset[str], chance: float, rng: np.random.Generator) -> frozenset[str]:
    """Those of a clip's modalities that are withheld, each by this chance; one always stays."""
    names = sorted(present)
    # As many draws whatever the chance is.
    draws, stays = rng.random(len(names)), int(rng.integers(max(1, len(names))))
    withheld = frozenset(name for name, draw in zip(names, draws, strict=True) if draw < chance)
    return withheld - {names[stays]} if len(withheld) == len(names) and names else withheld


def at_speed(waveform_T: Waveform, speed: float) -> Waveform:
    """The sound, played faster (above 1) or more slowly, its pitch and formants with it (Ko et al. 2015, "Audio
    augmentation for speech recognition", Interspeech)."""
    # Here and not above: it takes a tenth of a second, and commands that train nothing would wait for it.
    import torchaudio.functional

    ratio = Fraction(speed).limit_denominator(100)
    if ratio == 1:
        return waveform_T
    played_T: Waveform = torchaudio.functional.resample(
        torch.from_numpy(waveform_T), ratio.numerator, ratio.denominator
    ).numpy()
    return played_T


def of_length(waveform_T: Waveform, samples: int, share: float) -> Waveform:
    """Exactly `samples`: cut out at `share` (0 start, 1 end) of what is too much, or repeated from the start."""
    if len(waveform_T) < samples:
        return np.resize(waveform_T, samples)
    start = round(share * (len(waveform_T) - samples))
    return waveform_T[start : start + samples]
