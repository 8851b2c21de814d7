"""Random numbers for a stack of heads: each head's follow from its seed alone, whatever company it trains in.

Every purpose (batch order, dropout, ...) has a stream of its own, begun anew each epoch, so that switching one on
moves no other, and a head with fewer batches is not put out of step by one with more. Heads of one seed share their
draws: comparisons between them are not blurred by luck. Numbers are drawn on the CPU and so are the same on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Numbers of a purpose that are drawn in one call, for several batches where heads are small.
AT_ONCE = 2**15

PURPOSES = ("order", "variants", "absences", "dropout", "mixup")


class Streams:
    """The streams of M heads.

    Shape letters: M heads, S different seeds among them.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        """Nothing can be drawn before `begin`."""
        self.device = device
        self.seeds = list(dict.fromkeys(seeds))
        self._place_M = torch.tensor([self.seeds.index(seed) for seed in seeds], device=device)
        self._one_each = len(self.seeds) == len(seeds)
        self._generators: dict[str, list[torch.Generator]] = {}
        self._ahead: dict[str, Tensor] = {}

    def begin(self, epoch: int) -> None:
        """Begin the streams of an epoch."""
        self._epoch = epoch
        self._generators = {}
        self._ahead = {}

    def uniform(self, purpose: str, heads: int, *shape: int) -> Tensor:
        """From 0 to 1, of shape `(heads, *shape)`, for the first so many heads of the stack."""
        count = math.prod(shape)
        ahead_SN = self._ahead.get(purpose)
        if ahead_SN is None or ahead_SN.shape[1] < count:
            ahead_SN = self._drawn(purpose, count, ahead_SN)
        self._ahead[purpose] = ahead_SN[:, count:]
        drawn = ahead_SN[:, :count].view(-1, *shape)
        return drawn[:heads] if self._one_each else drawn[self._place_M[:heads]]

    def order(self, seed: int, clips: int) -> Tensor:
        """One seed's order of so many training clips in this epoch; the same for heads that share it."""
        return torch.randperm(clips, generator=self._generator("order", seed))

    def beta(self, alphas: Sequence[float], heads: int) -> Tensor:
        """A draw from Beta(alpha, alpha) for each of the first heads, (heads,); 1 where alpha is 0."""
        uniform_M = self.uniform("mixup", heads, 1)[:, 0].double().cpu().numpy()
        drawn = [_beta(alpha, share) if alpha else 1.0 for alpha, share in zip(alphas, uniform_M, strict=False)]
        return torch.tensor(drawn[:heads], dtype=torch.float32, device=self.device)

    def _drawn(self, purpose: str, count: int, ahead_SN: Tensor | None) -> Tensor:
        """What is left of a stream, and more of it: a generator goes on where it was, so how much does not matter."""
        more = count * max(1, AT_ONCE // count // len(self.seeds))
        drawn_SN = torch.stack([torch.rand(more, generator=one) for one in self._of(purpose)]).to(self.device)
        return drawn_SN if ahead_SN is None else torch.cat([ahead_SN, drawn_SN], dim=1)

    def _of(self, purpose: str) -> list[torch.Generator]:
        if purpose not in self._generators:
            self._generators[purpose] = [self._generator(purpose, seed) for seed in self.seeds]
        return self._generators[purpose]

    def _generator(self, purpose: str, seed: int) -> torch.Generator:
        state = np.random.SeedSequence([seed, PURPOSES.index(purpose), self._epoch]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def _beta(alpha: float, uniform: float) -> float:
    """A draw from Beta(alpha, alpha) that follows one uniform number."""
    return float(np.random.default_rng(int(uniform * 2**24)).beta(alpha, alpha))
