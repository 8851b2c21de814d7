"""Clips become batches: prepared by the encoders' own means, in loader processes that hold no network.

Shape letters: B clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, Subset

from extract.encoders.preparer import Inputs, Preparer
from fuse.finetune.clips import MediaClips, Signals


@dataclass(frozen=True)
class Batch:
    """Prepared clips: `labels_B`, and by modality the encoder's inputs and which clips are `present`."""

    labels_B: Tensor
    inputs: Mapping[str, Inputs]
    present: Mapping[str, Tensor]

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        inputs = {name: {key: value.to(device) for key, value in one.items()} for name, one in self.inputs.items()}
        present = {name: values.to(device) for name, values in self.present.items()}
        return Batch(self.labels_B.to(device), inputs, present)


class Collator:
    """Turns clips into a `Batch`. Absent signals get a stand-in, so that every encoder runs in every batch.

    It goes to the loader processes, and holds no network.
    """

    def __init__(self, preparers: Mapping[str, Preparer], samples: int, frames: int, size: int) -> None:
        """`samples` of sound, `frames` of `size` pixels: the shapes of the stand-ins."""
        self.preparers, self.samples, self.frames, self.size = preparers, samples, frames, size

    def __call__(self, clips: Sequence[Signals]) -> Batch:
        """One batch, on the CPU."""
        inputs, present = {}, {}
        for name, preparer in self.preparers.items():
            signals = [clip.by_modality[name] for clip in clips]
            present[name] = torch.tensor([signal is not None for signal in signals])
            inputs[name] = preparer.inputs([self._absent(name) if one is None else one for one in signals])
        return Batch(torch.tensor([clip.label for clip in clips]), inputs, present)

    def stand_in(self) -> Batch:
        """A batch of one clip that has no modality: the right shapes, and nothing else."""
        return self([Signals(0, dict.fromkeys(self.preparers))])

    def _absent(self, modality: str) -> Any:
        if modality == "text":
            return ""
        if modality == "audio":
            return np.zeros(self.samples, np.float32)
        return np.zeros((self.frames, self.size, self.size, 3), np.uint8)


@dataclass(frozen=True)
class Loaders:
    """How clips become batches."""

    collator: Collator
    batch_size: int
    workers: int

    def over(
        self, clips: MediaClips | Subset[Signals], sampler: DistributedSampler[Signals] | None = None
    ) -> DataLoader[Signals]:
        """Batches of these clips, in their order or the sampler's. They arrive as `Batch`."""
        return DataLoader(clips, self.batch_size, sampler=sampler, collate_fn=self.collator, num_workers=self.workers)
