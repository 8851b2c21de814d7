"""Clips become batches: prepared by the encoders' own means, in loader processes that hold no network.

Shape letters: B clips.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from cache.media import SAMPLE_RATE_HZ
from configs.schema.finetune import SpecAugment
from extract.encoders.preparer import OWN, Inputs, Preparer
from fuse.finetune.inputs.clips import MediaClips, Signals


@dataclass(frozen=True)
class Groups:
    """Inputs of clips that may not share a batch, in groups; `order_B`: where each clip stands among all groups."""

    parts: tuple[Inputs, ...]
    order_B: Tensor

    def to(self, device: torch.device) -> Groups:
        """The same on another device."""
        return Groups(tuple(_placed(part, device) for part in self.parts), self.order_B.to(device))


@dataclass(frozen=True)
class Batch:
    """Prepared clips.

    Attributes:
        labels_B: the number of each clip's label.
        inputs: by modality, what its `Preparer.inputs` returned, of all clips at once or of groups of them.
        present: by modality, whether the clip has it, of shape (B,).
        clips: how many count; none of a stand-in.
    """

    labels_B: Tensor
    inputs: Mapping[str, Inputs | Groups]
    present: Mapping[str, Tensor]
    clips: int

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        inputs = {
            name: one.to(device) if isinstance(one, Groups) else _placed(one, device)
            for name, one in self.inputs.items()
        }
        present = {name: values.to(device) for name, values in self.present.items()}
        return Batch(self.labels_B.to(device), inputs, present, self.clips)


def _placed(inputs: Inputs, device: torch.device) -> Inputs:
    return {key: value.to(device) for key, value in inputs.items()}


class Collator:
    """Turns clips into a `Batch`. Absent signals get a stand-in, so that every encoder runs in every batch.

    It goes to the loader processes, and holds no network.
    """

    def __init__(
        self,
        preparers: Mapping[str, Preparer],
        samples: int,
        frames: int,
        size: int,
        spec_augment: SpecAugment | None = None,
    ) -> None:
        """`samples` of sound, `frames` of `size` pixels: the shapes of the stand-ins."""
        self.preparers, self.samples, self.frames, self.size = preparers, samples, frames, size
        self.spec_augment = spec_augment

    def __call__(self, clips: Sequence[Signals]) -> Batch:
        """One batch, on the CPU."""
        inputs: dict[str, Inputs | Groups] = {}
        present = {}
        for name, preparer in self.preparers.items():
            signals = [clip.by_modality[name] for clip in clips]
            present[name] = torch.tensor([signal is not None for signal in signals])
            given = [self._absent(name) if one is None else one for one in signals]
            # Pictures are of one size, and texts are told apart from their padding.
            inputs[name] = self._sound(preparer, given, clips) if name == "audio" else preparer.inputs(given)
        return Batch(torch.tensor([clip.label for clip in clips]), inputs, present, len(clips))

    def stand_in(self) -> Batch:
        """A batch of one clip that has no modality and does not count: the right shapes, and nothing else."""
        return replace(self([Signals(0, dict.fromkeys(self.preparers))]), clips=0)

    def _sound(self, preparer: Preparer, given: Sequence[Any], clips: Sequence[Signals]) -> Inputs | Groups:
        groups: dict[Hashable, list[int]] = {}
        for row, sound_T in enumerate(given):
            if preparer.windows(sound_T):
                seconds = len(sound_T) / SAMPLE_RATE_HZ
                raise ValueError(
                    f"a clip of {seconds:.1f} s is longer than what {preparer.model.name} takes at a time, and "
                    "fine-tuning knows no windows; set audio_seconds"
                )
            groups.setdefault(preparer.padded_key(sound_T), []).append(row)
        parts = []
        for rows in groups.values():
            parts.append(preparer.inputs([given[row] for row in rows]))
            for place, row in enumerate(rows):
                if self.spec_augment is not None and (seed := clips[row].mask_seed) is not None:
                    hide_spans(parts[-1], place, self.spec_augment, np.random.default_rng(seed))
        if len(parts) == 1:
            return parts[0]
        return Groups(tuple(parts), torch.tensor([row for rows in groups.values() for row in rows]).argsort())

    def _absent(self, modality: str) -> Any:
        if modality == "text":
            return ""
        if modality == "audio":
            return np.zeros(self.samples, np.float32)
        return np.zeros((self.frames, self.size, self.size, 3), np.uint8)


def hide_spans(inputs: Inputs, row: int, spec: SpecAugment, rng: np.random.Generator) -> None:
    """Fill spans of one clip's sound with its mean, in place: of time, and of mel bands where there are such.

    Log-mel windows are (B, bands, frames) with the clip's own frames counted, or (B, frames, bands); waveforms (B, T).
    """
    name = next(key for key in ("input_features", "input_values") if key in inputs)
    values = inputs[name][row]
    if name == "input_features":
        values = values.T
    # Two log-mel frames make one token; what is behind the clip's own is padding.
    frames = min(len(values), 2 * int(inputs[OWN][row])) if OWN in inputs else len(values)
    mean = values[:frames].mean()
    axes = [(0, frames, spec.time_spans, spec.time_share)]
    if values.ndim == 2:
        axes.append((1, values.shape[1], spec.mel_spans, spec.mel_share))
    for axis, length, spans, share in axes:
        for _ in range(spans):
            taken = int(rng.random() * share * length)
            start = int(rng.random() * (length - taken + 1))
            values[:frames].narrow(axis, start, taken).fill_(mean)


class DrawnClips(Dataset[Signals]):
    """Clips as each epoch draws them: loader processes that live through all epochs are told which one it is."""

    def __init__(self, clips: MediaClips) -> None:
        """`clips`: in their order."""
        self.clips = clips

    def __getitem__(self, draw: tuple[int, int]) -> Signals:
        """The clip at a place, as an epoch draws it: (epoch, place)."""
        epoch, index = draw
        self.clips.set_epoch(epoch)
        return self.clips[index]


@dataclass(frozen=True)
class Loaders:
    """How clips become batches."""

    collator: Collator
    batch_size: int
    workers: int

    def over(self, clips: MediaClips | Subset[Signals]) -> DataLoader[Batch]:
        """Batches of these clips, in their order."""
        return self._loader(clips, batch_size=self.batch_size)

    def drawn(self, clips: MediaClips, passes: Iterable[list[tuple[int, int]]]) -> DataLoader[Batch]:
        """A batch per pass, each a list of (epoch, place of the clip)."""
        return self._loader(DrawnClips(clips), batch_sampler=passes)

    def _loader(self, clips: Dataset[Signals], **how: Any) -> DataLoader[Batch]:
        # Starting a loader draws a seed for its processes, from torch's own generator unless it is given another.
        loader: Any = DataLoader(
            clips, collate_fn=self.collator, num_workers=self.workers, generator=torch.Generator(), **how
        )
        return loader  # type: ignore[no-any-return]
