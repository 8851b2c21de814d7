"""AdamW with cosine annealing for a stack of heads that may differ in learning rate, weight decay and length."""

from __future__ import annotations

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


@dataclass
class _Group:
    """The heads of one pace, as runs of neighbours: views of their weights and moments, and their updates so far."""

    pace: Pace
    runs: list[slice]
    weights: list[Tensor]
    first_moments: list[Tensor]
    second_moments: list[Tensor]
    done: Tensor
    updates: int = 0


class StackedAdamW:
    """torch's fused AdamW, once for all heads of one pace.

    Loshchilov & Hutter 2019 (arXiv 1711.05101); annealing as torch.optim.lr_scheduler.CosineAnnealingLR, by update. The
    kernel is called directly: torch.optim's own bookkeeping costs as much as a small head's whole update.
    """

    def __init__(self, weights: Weights, paces: Sequence[Pace]) -> None:
        """`weights`: (M, ...) each, which are updated in place; heads with more updates come first."""
        self._groups: list[_Group] = []
        own = [weight.detach() for weight in weights.values()]
        moments = [[torch.zeros_like(weight) for weight in own] for _ in range(2)]
        for pace in dict.fromkeys(paces):
            runs = _runs([head for head, other in enumerate(paces) if other == pace])
            mine, first, second = ([weight[run] for weight in several for run in runs] for several in (own, *moments))
            self._groups.append(_Group(pace, runs, mine, first, second, torch.zeros((), device=own[0].device)))

    def step(self, gradients: Sequence[Tensor], heads: int) -> None:
        """Update the first `heads` heads; `gradients` are of those, in the order of the weights."""
        for group in self._groups:
            if group.runs[-1].stop > heads:
                continue
            # The kernel reads memory as it lies.
            own = [gradient[run].contiguous() for gradient in gradients for run in group.runs]
            group.done.add_(1)
            torch._fused_adamw_(
                group.weights,
                own,
                group.first_moments,
                group.second_moments,
                [],
                [group.done] * len(own),
                lr=group.pace.lr * _annealed(group.updates, group.pace.updates),
                beta1=0.9,
                beta2=0.999,
                weight_decay=group.pace.weight_decay,
                eps=1e-8,
                amsgrad=False,
                maximize=False,
            )
            group.updates += 1


def _runs(heads: Sequence[int]) -> list[slice]:
    """Ascending numbers as runs of neighbours."""
    starts = [head for place, head in enumerate(heads) if place == 0 or heads[place - 1] != head - 1]
    stops = [head + 1 for place, head in enumerate(heads) if place == len(heads) - 1 or heads[place + 1] != head + 1]
    return [slice(start, stop) for start, stop in zip(starts, stops, strict=True)]


def _annealed(done: int, updates: int) -> float:
    return (1 + math.cos(math.pi * done / updates)) / 2
