from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from fuse.scores.intervals import Interval, difference_interval, interval_about, uar_interval
from fuse.scores.jackknife import Tally


def tally(right: list[int], clips: int = 20) -> Tally:
    """One speaker per number: so many of the clips right, all of one class."""
    names = tuple(str(number) for number in range(len(right)))
    return Tally(names, np.full((len(right), 1), clips), np.array(right)[:, None])


def test_the_interval_is_that_of_a_t_test() -> None:
    right = [10, 12, 14, 11, 13, 9, 14, 13, 12]
    interval = uar_interval([tally(right)])
    assert interval is not None
    expected = stats.ttest_1samp(np.array(right) / 20, 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert interval.estimate == pytest.approx(np.mean(right) / 20)
    assert interval.speakers == 9


def test_under_eight_speakers_there_is_no_interval() -> None:
    assert uar_interval([tally([10] * 7)]) is None
    assert uar_interval([tally([10])]) is None
    assert uar_interval([tally([10] * 8)]) == Interval(0.5, 0.5, 0.5, 8)


def test_an_interval_stays_within_what_the_score_can_be() -> None:
    interval = uar_interval([tally([20] * 7 + [14])])
    assert interval is not None
    assert interval.high == 1.0
    assert interval.low < 0.95
    low = uar_interval([tally([0] * 7 + [6])])
    assert low is not None
    assert low.low == 0.0
    assert interval_about(0.0, [-0.9] * 4 + [0.9] * 4, bounds=(-1.0, 1.0)).low < -0.5


def test_an_estimate_need_not_be_the_mean_of_the_values() -> None:
    values = [0.5, 0.6, 0.7, 0.55, 0.62, 0.48, 0.71, 0.66, 0.59]
    about, mean = interval_about(0.4, values, (0.0, 1.0)), interval_about(float(np.mean(values)), values, (0.0, 1.0))
    assert about.estimate == 0.4
    assert about.high - 0.4 == pytest.approx(0.4 - about.low) == pytest.approx(mean.high - mean.estimate)


def test_a_difference_of_two_groups_needs_four_speakers_of_each() -> None:
    assert difference_interval([0.5] * 3, [0.6] * 9) is None
    first, second = [0.9, 0.8, 0.7, 0.95], [0.1, 0.2, 0.3, 0.15]
    interval = difference_interval(first, second)
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx(welch(np.array(first), np.array(second)))
    assert interval.estimate == pytest.approx(0.65)
    assert interval.speakers == 8


def welch(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float]:
    """Welch's interval as he wrote it."""
    parts = [group.var(ddof=1) / len(group) for group in (first, second)]
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(group) - 1) for part, group in zip(parts, (first, second), strict=True)
    )
    half = stats.t.ppf(0.975, freedom) * np.sqrt(sum(parts))
    middle = first.mean() - second.mean()
    return float(middle - half), float(middle + half)
