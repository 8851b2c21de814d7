from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from cache.corpus.ravdess import LABELS
from fuse.scores import paired_test as comparison
from fuse.scores.paired_test import compare, difference, holm, p_in_words, sign_flip_p
from fuse.scores.predictions import Predictions

# In twentieths: tied differences, opposite ones and zeros are common.
coarse = st.lists(st.integers(-20, 20).map(lambda number: number / 20), min_size=1, max_size=9)


def evaluation(right: Sequence[int]) -> Predictions:
    """Ten neutral clips per speaker, that many of them right."""
    speakers = [str(number + 1) for number in range(len(right)) for _ in range(10)]
    predicted = [0 if index < count else 1 for count in right for index in range(10)]
    return Predictions.of(
        [f"{speaker}-{index % 10}" for index, speaker in enumerate(speakers)],
        speakers,
        [""] * len(speakers),
        [0] * len(speakers),
        np.eye(8)[predicted],
        protocol="luna5",
        fold=0,
        seed=0,
        split="test",
        condition="clean",
        modalities="audio",
        label_names=LABELS,
    )


def by_listing(differences: Sequence[float]) -> float:
    """Every sign pattern, one after the other, in exact arithmetic."""
    twentieths = [round(20 * value) for value in differences]
    patterns = list(itertools.product((1, -1), repeat=len(twentieths)))
    sums = [sum(sign * value for sign, value in zip(pattern, twentieths, strict=True)) for pattern in patterns]
    return sum(abs(one) >= abs(sum(twentieths)) for one in sums) / len(patterns)


def scipys(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    found = stats.permutation_test(
        (first, second),
        lambda one, other, axis: np.mean(one - other, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    return float(found.pvalue)


@pytest.mark.parametrize("speakers", [2, 3, 8, 11])
@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_p_is_scipys(speakers: int, shift: float) -> None:
    rng = np.random.default_rng(speakers)
    for _ in range(5):
        first, second = rng.uniform(size=speakers) + shift, rng.uniform(size=speakers)
        assert sign_flip_p(first - second) == pytest.approx(scipys(first, second), abs=1e-12)


def test_three_speakers_by_hand() -> None:
    # Only +++ and --- are as far: 2 of 8 patterns, the least that three speakers can give.
    assert sign_flip_p([0.1, 0.2, 0.3]) == 0.25
    # 1 + 2 - 3 = 0: nothing is nearer.
    assert sign_flip_p([0.1, 0.2, -0.3]) == 1.0
    # Of +-1 +-2 +-4 those at 5 or more: 7, 5 and their opposites.
    assert sign_flip_p([-0.1, 0.2, 0.4]) == 0.5


def test_eight_speakers_by_hand() -> None:
    assert sign_flip_p([0.2] * 8) == 2 / 256
    # The sum of the signs is 6 or more with at most one minus: 1 + 8 patterns, and as many below.
    assert sign_flip_p([0.2] * 7 + [-0.2]) == 18 / 256


def test_a_speaker_without_a_difference_changes_nothing() -> None:
    assert sign_flip_p([0.1, 0.2, 0.3, 0.0, 0.0]) == 0.25
    assert sign_flip_p([0.0] * 5) == 1.0
    assert sign_flip_p([0.0] * 40) == 1.0


def test_one_speaker_proves_nothing() -> None:
    assert sign_flip_p([0.5]) == 1.0


@settings(max_examples=80, deadline=None)
@given(coarse)
def test_ties_count_as_in_exact_arithmetic(differences: list[float]) -> None:
    assert sign_flip_p(differences) == by_listing(differences)


@settings(max_examples=40, deadline=None)
@given(coarse, st.sampled_from([1e-6, 0.1, 3.0, 1e6]), st.randoms())
def test_scale_sign_and_order_change_nothing(differences: list[float], scale: float, shuffler: Any) -> None:
    shuffled = list(differences)
    shuffler.shuffle(shuffled)
    expected = sign_flip_p(differences)
    for same in (shuffled, [-value for value in differences], [scale * value for value in differences]):
        assert sign_flip_p(same) == expected


def test_24_speakers_are_exact_and_close_to_a_paired_t_test() -> None:
    differences = np.random.default_rng(4).normal(0.02, 0.06, 24)
    exact = sign_flip_p(differences)
    assert exact == sign_flip_p(differences, seed=9)
    assert exact * 2**24 == round(exact * 2**24)
    assert exact == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.01)
    # Every speaker better by the same: the smallest p there is.
    assert sign_flip_p([0.01] * 24) == 2 / 2**24


def test_many_speakers_are_drawn_and_agree_with_the_exact_p(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(5).normal(0.02, 0.06, 20)
    exact = sign_flip_p(differences)
    monkeypatch.setattr(comparison, "EXACT_SPEAKERS", 16)
    drawn = sign_flip_p(differences)
    assert drawn == sign_flip_p(differences)
    assert drawn == pytest.approx(exact, abs=5 * np.sqrt(exact * (1 - exact) / comparison.DRAWS))
    assert drawn != exact


def test_tied_draws_count() -> None:
    # Equal differences: a sign test, and one pattern in nine ties with the observed one. 0.1 is not a binary number.
    expected = stats.binomtest(24, 40).pvalue
    noise = np.sqrt(expected * (1 - expected) / comparison.DRAWS)
    assert sign_flip_p([0.1] * 24 + [-0.1] * 16) == pytest.approx(expected, abs=5 * noise)


def test_a_drawn_p_is_never_zero() -> None:
    assert sign_flip_p([0.5] * 60) == 1 / (comparison.DRAWS + 1)


@pytest.mark.parametrize("differences", [[], [0.1, float("nan")], [float("inf")]])
def test_what_is_no_difference_is_refused(differences: list[float]) -> None:
    with pytest.raises(ValueError, match="a paired test needs a difference for each speaker"):
        sign_flip_p(differences)


def test_holm_by_hand() -> None:
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, and never below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([0.02, 0.02, 0.02]) == pytest.approx([0.06] * 3)
    assert holm([]) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferroni_and_rejects_step_by_step(p_values: list[float]) -> None:
    corrected = holm(p_values)
    for p, p_holm in zip(p_values, corrected, strict=True):
        assert p <= p_holm <= min(1.0, len(p_values) * p) + 1e-15
    for level in (0.01, 0.05, 0.3):
        rejected: list[int] = []
        for place, number in enumerate(sorted(range(len(p_values)), key=lambda one: p_values[one])):
            if (len(p_values) - place) * p_values[number] > level:
                break
            rejected.append(number)
        assert {number for number, p in enumerate(corrected) if p <= level} == set(rejected)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_what_is_no_p_value_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="p values are from 0 to 1"):
        holm([0.5, p])


def test_compare_tests_each_pair_and_corrects_over_all() -> None:
    base = evaluation([5] * 8)
    pairs = {"better": (evaluation([7, 8, 6, 7, 9, 6, 7, 8]), base), "same": (evaluation([4, 6] * 4), base)}
    found = compare(pairs)
    assert list(found) == ["better", "same"]
    better, same = found["better"], found["same"]
    assert (better.p, better.p_holm, better.speakers, better.exact) == (2 / 256, 4 / 256, 8, True)
    assert same.estimate == pytest.approx(0)
    assert (same.p, same.p_holm) == (1.0, 1.0)
    differences = [0.2, 0.3, 0.1, 0.2, 0.4, 0.1, 0.2, 0.3]
    assert better.estimate == pytest.approx(np.mean(differences))
    assert better.interval is not None
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert (better.interval.low, better.interval.high) == pytest.approx((expected.low, expected.high))
    assert compare({}) == {}


def test_compare_says_when_it_has_drawn_and_gives_no_interval_for_few() -> None:
    many, few = (
        compare({0: (evaluation([6] * 33), evaluation([5] * 33))}),
        compare({0: (evaluation([6]), evaluation([5]))}),
    )
    assert (many[0].exact, many[0].speakers) == (False, 33)
    assert (few[0].interval, few[0].p, few[0].exact) == (None, 1.0, True)


def test_a_paired_difference_is_a_paired_t_test_over_speakers() -> None:
    clean, noisy = [9, 8, 7, 10, 6, 8, 9, 7, 5], [7, 7, 4, 9, 5, 5, 8, 6, 2]
    drop = difference(evaluation(clean), evaluation(noisy))
    assert drop.interval is not None
    expected = stats.ttest_rel(np.array(clean) / 10, np.array(noisy) / 10).confidence_interval(0.95)
    assert (drop.interval.low, drop.interval.high) == pytest.approx((expected.low, expected.high))
    assert drop.estimate == drop.interval.estimate == pytest.approx((np.mean(clean) - np.mean(noisy)) / 10)


def test_pairing_does_not_depend_on_the_order_of_the_rows() -> None:
    clean, noisy = evaluation([9, 5, 7]), evaluation([4, 5, 6])
    shuffled = noisy.take(np.random.default_rng(0).permutation(len(noisy)))
    assert difference(clean, shuffled).contributions == pytest.approx({"1": 0.5, "2": 0.0, "3": 0.1})


def test_only_clips_that_both_evaluations_have_are_compared() -> None:
    clean, noisy = evaluation([5, 5]), evaluation([5, 5])
    # Speaker 1 loses three clips that were right under noise: no drop, only failures.
    fewer = noisy.take(~np.isin(noisy.clip_id, ["1-0", "1-1", "1-2"]))
    assert difference(clean, fewer).contributions == {"1": 0.0, "2": 0.0}


def test_different_speakers_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="speaker 3 has no clip in both evaluations; compare the same speakers"):
        difference(evaluation([5, 5, 5]), evaluation([5, 5]))
    with pytest.raises(ValueError, match="has no clip in both"):
        difference(evaluation([5]).select(speaker="9"), evaluation([5]))


def test_no_p_is_printed_as_0() -> None:
    """A sweep's table said 0.000."""
    assert [p_in_words(p) for p in (0.0, 0.0004, 0.001, 0.0416, 1.0)] == ["<0.001", "<0.001", "0.001", "0.042", "1.000"]
