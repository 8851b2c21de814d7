"""Is one run better than another? Paired by speaker, with a test that assumes nothing of the scores' distribution.

Sign-flip permutation (Fisher, The Design of Experiments, 1935, section 21): were two runs equally good, each speaker's
difference might as well have the other sign. Over a table of comparisons p values are corrected by Holm's procedure
("A simple sequentially rejective multiple test procedure", Scandinavian J. of Statistics 6(2), 1979).

Shape letters: S speakers, D draws of signs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fuse.metrics import Metric, uar
from fuse.predictions import Predictions
from fuse.statistics import Interval, speaker_differences, speaker_interval

# 2 to the power of 16 sign patterns take a hundredth of a second.
EXACT_SPEAKERS = 16
DRAWS = 100_000
# Sums of the same numbers in another order differ by rounding; such ties count.
TIE = 1e-12
Key = TypeVar("Key")


@dataclass(frozen=True)
class Comparison:
    """One run minus another, as means over speakers.

    Attributes:
        estimate: the mean difference, as a share.
        interval: its 95 % t interval; None under 8 speakers.
        p: two-sided, of the sign-flip test.
        p_holm: corrected for all comparisons of the table.
        speakers: pairs that it rests on.
        exact: every pattern of signs was tried.
    """

    estimate: float
    interval: Interval | None
    p: float
    p_holm: float
    speakers: int
    exact: bool


def sign_flip_p(differences: Sequence[float] | NDArray[np.float64], seed: int = 0) -> float:
    """Two-sided p of "no difference": the share of sign patterns whose mean is as far from 0.

    Exact up to 16 speakers; above, over 100 000 drawn patterns and the observed one (Phipson & Smyth,
    "Permutation p-values should never be zero", 2010, arXiv 1603.05766, section 4).

    Raises:
        ValueError: there are no differences, or some are not numbers.
    """
    values_S = np.asarray(differences, dtype=np.float64)
    if not values_S.size or not np.isfinite(values_S).all():
        raise ValueError("a paired test needs a difference for each speaker; some are not numbers, or there are none")
    observed = abs(values_S.sum()) - TIE
    if len(values_S) <= EXACT_SPEAKERS:
        patterns = (np.arange(2 ** len(values_S))[:, None] >> np.arange(len(values_S))) & 1
        return float(np.mean(np.abs((1 - 2 * patterns) @ values_S) >= observed))
    signs_DS = np.random.default_rng(seed).integers(0, 2, (DRAWS, len(values_S)), np.int8) * 2 - 1
    as_far = int(np.count_nonzero(np.abs(signs_DS @ values_S) >= observed))
    return (as_far + 1) / (DRAWS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's corrected p values, in the order given."""
    order = np.argsort(p_values, kind="stable")
    corrected, highest = [0.0] * len(p_values), 0.0
    for place, number in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[number]))
        corrected[number] = highest
    return corrected


def compare(pairs: Mapping[Key, tuple[Predictions, Predictions]], metric: Metric = uar) -> dict[Key, Comparison]:
    """Each pair's first minus its second, tested over speakers and corrected over all pairs.

    Raises:
        ValueError: a pair has not the same speakers.
    """
    differences = {key: speaker_differences(*pair, metric) for key, pair in pairs.items()}
    values = {key: np.array(list(one.values())) for key, one in differences.items()}
    p_values = [sign_flip_p(one) for one in values.values()]
    return {
        key: Comparison(
            float(values[key].mean()),
            speaker_interval(one, (-1.0, 1.0)),
            p,
            p_holm,
            len(one),
            len(one) <= EXACT_SPEAKERS,
        )
        for (key, one), p, p_holm in zip(differences.items(), p_values, holm(p_values), strict=True)
    }
