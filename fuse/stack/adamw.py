"""AdamW with cosine annealing for a stack of heads that may differ in learning rate, weight decay and length."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fuse.model.heads.layer import Weights


@dataclass(frozen=True)
class Pace:
    """How one head is updated: learning rate at the start, weight decay, and updates until the rate is 0."""

    lr: float
    weight_decay: float
    updates: int


@dataclass(frozen=True)
class _Slice:
    """Neighbours of one pace: views of their weights and moments, and how often they were updated."""

    heads: slice
    pace: Pace
    weights: list[Tensor]
    first_moments: list[Tensor]
    second_moments: list[Tensor]
    done: list[Tensor]


class StackedAdamW:
    """torch's fused AdamW over slices of the stack, a slice per run of heads with one pace.

    Loshchilov & Hutter 2019 (arXiv 1711.05101); annealing as torch.optim.lr_scheduler.CosineAnnealingLR, by update. The
    kernel is called directly: torch.optim's own bookkeeping costs as much as a small head's whole update.
    """

    def __init__(self, weights: Weights, paces: Sequence[Pace]) -> None:
        """`weights`: (M, ...) each, which are updated in place; heads with more updates come first."""
        self._slices: list[_Slice] = []
        moments = [[torch.zeros_like(weight) for weight in weights.values()] for _ in range(2)]
        start = 0
        for pace, same in itertools.groupby(paces):
            heads = slice(start, start + len(list(same)))
            start = heads.stop
            own, first, second = ([one.detach()[heads] for one in several] for several in (weights.values(), *moments))
            done = [torch.zeros((), device=view.device) for view in own]
            self._slices.append(_Slice(heads, pace, own, first, second, done))
        self._updates = [0] * len(self._slices)

    def step(self, gradients: Sequence[Tensor], heads: int) -> None:
        """Update the first `heads` heads; `gradients` are of those, in the order of the weights."""
        for number, part in enumerate(self._slices):
            if part.heads.stop > heads:
                return
            # The kernel reads memory as it lies.
            own = [gradient[part.heads].contiguous() for gradient in gradients]
            torch._foreach_add_(part.done, 1)
            torch._fused_adamw_(
                part.weights,
                own,
                part.first_moments,
                part.second_moments,
                [],
                part.done,
                lr=part.pace.lr * _annealed(self._updates[number], part.pace.updates),
                beta1=0.9,
                beta2=0.999,
                weight_decay=part.pace.weight_decay,
                eps=1e-8,
                amsgrad=False,
                maximize=False,
            )
            self._updates[number] += 1


def _annealed(done: int, updates: int) -> float:
    return (1 + math.cos(math.pi * done / updates)) / 2
