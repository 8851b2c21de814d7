"""AdamW with cosine annealing for a stack of heads that may differ in learning rate, weight decay and length."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fuse.head import Weights


@dataclass(frozen=True)
class Pace:
    """How one head is updated: learning rate at the start, weight decay, and updates until the rate is 0."""

    lr: float
    weight_decay: float
    updates: int


class StackedAdamW:
    """torch's fused AdamW over slices of the stack, a slice per run of heads with one pace.

    Loshchilov & Hutter 2019 (arXiv 1711.05101); annealing as torch.optim.lr_scheduler.CosineAnnealingLR, by update.
    """

    def __init__(self, weights: Weights, paces: Sequence[Pace]) -> None:
        """`weights`: (M, ...) each, which are updated in place; heads with more updates come first."""
        self._weights = weights
        self._slices, groups, start = [], [], 0
        for pace, same in itertools.groupby(paces):
            part = slice(start, start + len(list(same)))
            start = part.stop
            self._slices.append((part, pace))
            views = [weight.detach()[part] for weight in weights.values()]
            groups.append({"params": views, "lr": pace.lr, "weight_decay": pace.weight_decay})
        self._adamw = torch.optim.AdamW(groups, fused=True)
        self._done = [0] * len(groups)

    def step(self, gradients: Weights, heads: int) -> None:
        """Update the first `heads` heads; `gradients` are of those."""
        for number, (group, (part, pace)) in enumerate(zip(self._adamw.param_groups, self._slices, strict=True)):
            active = part.stop <= heads
            for view, name in zip(group["params"], self._weights, strict=True):
                # A tensor without a gradient is skipped: its moments stay as they are.
                view.grad = gradients[name][part] if active else None
            group["lr"] = pace.lr * _annealed(self._done[number], pace.updates)
            self._done[number] += active
        self._adamw.step()


def _annealed(done: int, updates: int) -> float:
    return (1 + math.cos(math.pi * done / updates)) / 2
