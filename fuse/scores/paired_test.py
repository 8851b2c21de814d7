"""Is one run better than another? Paired by speaker, with a test that assumes nothing of the scores' distribution.

The difference is that of two pooled UARs on the same clips. Sign-flip permutation (Fisher, The Design of Experiments,
1935, section 21): were two runs equally good, each speaker's answers might as well be exchanged between them, which
turns the sign of what that speaker contributes to the difference, and only that (`fuse.scores.jackknife`). Over a table
of comparisons p values are corrected by Holm's procedure ("A simple sequentially rejective multiple test procedure",
Scandinavian J. of Statistics 6(2), 1979).

Shape letters: S speakers, D draws of signs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fuse.scores.intervals import MINIMUM_SPEAKERS, Interval, interval_about
from fuse.scores.jackknife import Tally, contributions, jackknife, tallies
from fuse.scores.predictions import Predictions

# 2 to the power of 32 sign patterns, counted by halves, take a hundredth of a second.
EXACT_SPEAKERS = 32
DRAWS = 100_000
# Sums of the same numbers in another order differ by rounding; such ties count. As a share of the largest sum.
TIE = 1e-12
Key = TypeVar("Key")


@dataclass(frozen=True)
class Difference:
    """One run's pooled UAR minus another's, as a share, on the clips that both have.

    Attributes:
        estimate: the difference; where both have the same clips, that of the two scores.
        interval: its 95 % t interval over speakers; None under 8 of them.
        contributions: by speaker; their mean is the estimate.
    """

    estimate: float
    interval: Interval | None
    contributions: dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """A difference of two runs, and how likely one as large is if the runs are equally good.

    Attributes:
        estimate: the difference of their pooled UARs, as a share.
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


def difference(first: Predictions, second: Predictions) -> Difference:
    """First minus second on the clips that both evaluations have; seeds are averaged.

    A clip that failed in one of them would otherwise change who is compared with whom. Paired by speaker a difference
    is far sharper than the two scores: what makes a speaker easy or hard cancels.

    Raises:
        ValueError: one of them lacks a speaker of the other, or is not one evaluation.
    """
    shared = np.intersect1d(first.clip_id, second.clip_id)
    pair = [part.take(np.isin(part.clip_id, shared)) for part in (first, second)]
    speakers = {speaker for part in (first, second) for speaker in part.speaker.tolist()}
    unpaired = sorted(speakers - set(pair[0].speaker.tolist()))
    if unpaired:
        raise ValueError(f"speaker {unpaired[0]} has no clip in both evaluations; compare the same speakers")
    one, other = (tallies(part) for part in pair)
    parts = contributions(one, other)
    estimate = float(np.mean(list(parts.values())))
    interval = _interval(estimate, one, other) if len(parts) >= MINIMUM_SPEAKERS else None
    return Difference(estimate, interval, parts)


def _interval(estimate: float, first: Sequence[Tally], second: Sequence[Tally]) -> Interval:
    """By the pseudo-values of the difference, which are the differences of the pseudo-values."""
    one, other = jackknife(first).pseudo_values, jackknife(second).pseudo_values
    return interval_about(estimate, [one[speaker] - other[speaker] for speaker in one], (-1.0, 1.0))


def sign_flip_p(differences: Sequence[float] | NDArray[np.float64], seed: int = 0) -> float:
    """Two-sided p of "no difference": the share of sign patterns whose mean is as far from 0.

    `scipy.stats.permutation_test` gives the same p (the tests compare them), but it goes through every pattern, 16.8
    million for 24 speakers and for each line of a table; `wilcoxon` sees only the ranks of the differences.

    Its levels come in steps: with 8 speakers of 2 in 256, so that at 0.05 it errs in 4.7 % of tables at most, and tied
    differences make it err more seldom still. Exact up to 32 speakers; above, over 100 000 drawn patterns and the
    observed one (Phipson & Smyth, "Permutation p-values should never be zero", 2010, arXiv 1603.05766, section 4).

    Raises:
        ValueError: there are no differences, or some are not numbers.
    """
    values_S = np.asarray(differences, dtype=np.float64)
    if not values_S.size or not np.isfinite(values_S).all():
        raise ValueError("a paired test needs a difference for each speaker; some are not numbers, or there are none")
    threshold = abs(float(values_S.sum())) - TIE * float(np.abs(values_S).sum())
    if threshold <= 0:
        return 1.0
    return _exact_p(values_S, threshold) if len(values_S) <= EXACT_SPEAKERS else _drawn_p(values_S, threshold, seed)


def _exact_p(values_S: NDArray[np.float64], threshold: float) -> float:
    """Meet in the middle: for each sum over one half of the speakers, count the large enough ones of the other half.

    Horowitz & Sahni, "Computing partitions with applications to the knapsack problem", J. ACM 21(2), 1974.
    """
    half = len(values_S) // 2
    one, other = _signed_sums(values_S[:half]), np.sort(_signed_sums(values_S[half:]))
    above = int((len(other) - np.searchsorted(other, np.sort(threshold - one), side="left")).sum())
    # Each pattern has its opposite, so as many sums lie below.
    return float(2 * above / 2 ** len(values_S))


def _signed_sums(values_S: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sums of all sign patterns, of shape (2 to the power of S,)."""
    sums = np.zeros(1)
    for value in values_S:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _drawn_p(values_S: NDArray[np.float64], threshold: float, seed: int) -> float:
    rng, as_far = np.random.default_rng(seed), 0
    # In batches, so that a corpus of a thousand speakers does not fill the memory.
    for _ in range(10):
        signs_DS = rng.integers(0, 2, (DRAWS // 10, len(values_S)), np.int8) * 2 - 1
        as_far += int(np.count_nonzero(np.abs(signs_DS @ values_S) >= threshold))
    return (as_far + 1) / (DRAWS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's corrected p values, in the order given. scipy corrects false discovery rates only.

    Raises:
        ValueError: one of them is not between 0 and 1.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"p values are from 0 to 1, not {', '.join(map(str, p_values))}")
    order = np.argsort(p_values, kind="stable")
    corrected, highest = [0.0] * len(p_values), 0.0
    for place, number in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[number]))
        corrected[number] = highest
    return corrected


def p_in_words(p: float) -> str:
    """To three digits, and never as 0: no test says that."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def compare(pairs: Mapping[Key, tuple[Predictions, Predictions]]) -> dict[Key, Comparison]:
    """Each pair's first minus its second, tested over speakers and corrected over all pairs.

    Raises:
        ValueError: a pair has not the same speakers.
    """
    found = {key: difference(*pair) for key, pair in pairs.items()}
    p_values = [sign_flip_p(list(one.contributions.values())) for one in found.values()]
    return {
        key: Comparison(one.estimate, one.interval, p, p_holm, speakers, speakers <= EXACT_SPEAKERS)
        for (key, one), p, p_holm in zip(found.items(), p_values, holm(p_values), strict=True)
        for speakers in [len(one.contributions)]
    }
