"""Which clips a rank sees in which step: from (seed, epoch) alone, shared out over any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# An epoch and the place of a clip among those that are trained on.
Draw = tuple[int, int]


@dataclass(frozen=True)
class Order:
    """The steps of a training.

    A step's clips are the same whatever the number of ranks, as long as `batch_size * accumulate * ranks` is; the last
    step of an epoch takes what is left, and no clip is repeated.

    Attributes:
        clips: how many there are.
        batch_size: of one rank's pass through the network.
        accumulate: passes of a rank whose gradients are added up before a step.
    """

    clips: int
    batch_size: int
    accumulate: int
    seed: int
    rank: int
    ranks: int

    @property
    def global_batch(self) -> int:
        """Clips of a step, over all ranks."""
        return self.batch_size * self.accumulate * self.ranks

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-self.clips // self.global_batch)

    def clips_of(self, step: int) -> int:
        """How many clips a step has, over all ranks."""
        return min(self.global_batch, self.clips - step * self.global_batch)

    def passes(self, epoch: int, step: int) -> list[list[int]]:
        """The clips of this rank in one step, by pass; nothing where a short step has fewer clips than ranks."""
        start = step * self.global_batch
        own = self._shuffled(epoch)[start : start + self.global_batch][self.rank :: self.ranks].tolist()
        return [own[first : first + self.batch_size] for first in range(0, len(own), self.batch_size)]

    def from_there(self, epoch: int, step: int, epochs: int) -> Iterator[list[Draw]]:
        """Every pass from a position to the end, for a loader that lives as long as the training."""
        for current in range(epoch, epochs):
            for number in range(step if current == epoch else 0, self.steps):
                for indices in self.passes(current, number):
                    yield [(current, index) for index in indices]

    def torch_seed(self, epoch: int, step: int, number: int) -> int:
        """Of what the network itself draws (dropout) in one pass; so no generator's state has to be kept."""
        keys = [self.seed, epoch, step, number, self.rank]
        return int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0])

    def _shuffled(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(self.clips)
