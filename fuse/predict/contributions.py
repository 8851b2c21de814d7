"""What each modality contributed to a prediction: exact Shapley values over all subsets of modalities.

The worth of a subset is the probability that the model gives to the predicted label when only these modalities are
there and the others are withheld, as for a clip that lacks them. A modality's value is what it adds, averaged over
all orders in which modalities may arrive (Shapley, "A value for n-person games", 1953; for models: Lundberg & Lee,
arXiv 1705.07874, equation 4). Values add up to the probability less that of a clip without any modality.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations

Subset = frozenset[str]


def subsets(modalities: Sequence[str]) -> Iterator[Subset]:
    """All 2^m of them, the empty one first."""
    sizes = range(len(modalities) + 1)
    return map(frozenset, chain.from_iterable(combinations(modalities, size) for size in sizes))


def shapley_values(worth: Mapping[Subset, float], modalities: Sequence[str]) -> dict[str, float]:
    """The value of each modality, from the worth of every subset of them."""
    values = {}
    for name in modalities:
        others = [other for other in modalities if other != name]
        values[name] = math.fsum(
            (worth[subset | {name}] - worth[subset]) / (len(modalities) * math.comb(len(others), len(subset)))
            for subset in subsets(others)
        )
    return values
