from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fuse.scores.intervals import (
    Interval,
    bootstrap_t_interval,
    difference_interval,
    paired_difference,
    speaker_differences,
    speaker_interval,
)
from fuse.scores.metrics import accuracy, uar
from fuse.scores.predictions import Predictions


def corpus(recalls: list[float], clips: int = 10, condition: str = "clean") -> Predictions:
    """One speaker per recall, all clips neutral, that share of them right."""
    right = [round(recall * clips) for recall in recalls]
    predicted = [0 if index < count else 1 for count in right for index in range(clips)]
    speakers = [str(number + 1) for number in range(len(recalls)) for _ in range(clips)]
    ids = [f"{speaker}-{index % clips}" for index, speaker in enumerate(speakers)]
    return Predictions.of(
        ids,
        speakers,
        [""] * len(ids),
        [0] * len(ids),
        np.eye(8)[predicted],
        protocol="luna5",
        fold=0,
        seed=0,
        split="test",
        condition=condition,
        modalities="audio",
    )


def named(values: list[float]) -> dict[str, float]:
    return {str(index): value for index, value in enumerate(values)}


def test_the_interval_is_that_of_a_t_test() -> None:
    values = [0.5, 0.6, 0.7, 0.55, 0.62, 0.48, 0.71, 0.66, 0.59]
    interval = speaker_interval(named(values))
    assert interval is not None
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert interval.estimate == pytest.approx(np.mean(values))
    assert interval.speakers == 9


def test_under_eight_speakers_there_is_no_interval() -> None:
    assert speaker_interval(named([0.5] * 7)) is None
    assert speaker_interval(named([0.5] * 8)) == Interval(0.5, 0.5, 0.5, 8)


def test_an_interval_stays_within_what_the_score_can_be() -> None:
    interval = speaker_interval(named([1.0] * 7 + [0.7]))
    assert interval is not None
    assert interval.high == 1.0
    assert interval.low < 0.95
    low = speaker_interval(named([0.0] * 7 + [0.3]))
    assert low is not None
    assert low.low == 0.0
    loss = speaker_interval(named([-0.9] * 4 + [0.9] * 4), bounds=(-1.0, 1.0))
    assert loss is not None
    assert loss.low < -0.5


def test_a_speaker_without_a_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="some are not numbers"):
        speaker_interval(named([0.5] * 8 + [float("nan")]))


def test_a_paired_difference_is_a_paired_t_test_over_speakers() -> None:
    clean = [0.9, 0.8, 0.7, 1.0, 0.6, 0.8, 0.9, 0.7, 0.5]
    noisy = [0.7, 0.7, 0.4, 0.9, 0.5, 0.5, 0.8, 0.6, 0.2]
    drop = paired_difference(corpus(clean), corpus(noisy, condition="noise-white-10db"))
    assert drop is not None
    expected = stats.ttest_rel(clean, noisy).confidence_interval(0.95)
    assert (drop.low, drop.high) == pytest.approx((expected.low, expected.high))
    assert drop.estimate == pytest.approx(np.mean(clean) - np.mean(noisy))


def test_pairing_does_not_depend_on_the_order_of_the_rows() -> None:
    clean, noisy = corpus([0.9, 0.5, 0.7]), corpus([0.4, 0.5, 0.6])
    shuffled = noisy.take(np.random.default_rng(0).permutation(len(noisy)))
    assert speaker_differences(clean, shuffled) == pytest.approx({"1": 0.5, "2": 0.0, "3": 0.1})
    assert speaker_differences(clean, shuffled, accuracy) == pytest.approx({"1": 0.5, "2": 0.0, "3": 0.1})


def test_only_clips_that_both_evaluations_have_are_compared() -> None:
    clean, noisy = corpus([0.5, 0.5]), corpus([0.5, 0.5], condition="noise-white-10db")
    # Speaker 1 loses three clips that were right under noise: no drop, only failures.
    fewer = noisy.take(~np.isin(noisy.clip_id, ["1-0", "1-1", "1-2"]))
    assert speaker_differences(clean, fewer) == {"1": 0.0, "2": 0.0}


def test_different_speakers_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="speaker 3 has no clip in both evaluations"):
        speaker_differences(corpus([0.5, 0.5, 0.5]), corpus([0.5, 0.5]))
    with pytest.raises(ValueError, match="has no clip in both"):
        speaker_differences(corpus([0.5]).select(speaker="9"), corpus([0.5]))


def test_bootstrap_t_is_that_of_all_possible_draws() -> None:
    # Eight speakers have 6435 different draws; each one's probability is multinomial.
    values = np.array([0.5, 0.62, 0.7, 0.55, 0.91, 0.48, 0.71, 0.66])
    bars = np.array(list(itertools.combinations(range(15), 7)))
    edges = np.concatenate([np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), 15)], axis=1)
    counts = np.diff(edges, axis=1) - 1
    weights = stats.multinomial.pmf(counts, 8, np.full(8, 1 / 8))
    t_of_draw, error = [], values.std(ddof=1) / np.sqrt(8)
    for count in counts:
        drawn = np.repeat(values, count)
        distance, spread = drawn.mean() - values.mean(), drawn.std(ddof=1)
        t_of_draw.append(distance / (spread / np.sqrt(8)) if spread > 1e-12 else np.sign(distance) * np.inf)
    order = np.argsort(t_of_draw)
    reached = np.cumsum(weights[order])
    low_t, high_t = (np.array(t_of_draw)[order][np.searchsorted(reached, share)] for share in (0.025, 0.975))
    interval = bootstrap_t_interval(named(values.tolist()), draws=199_999)
    assert interval is not None
    found = (interval.low, interval.high)
    assert found == pytest.approx((values.mean() - high_t * error, values.mean() - low_t * error), abs=0.003)
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.speakers == 8


def test_bootstrap_t_of_skewed_scores_is_longer_on_the_side_where_more_may_hide() -> None:
    # One poor speaker among good ones: there may be more of them, so the mean may be much lower.
    scores = named([0.95, 0.97, 0.96, 0.94, 0.98, 0.95, 0.96, 0.93, 0.97, 0.55])
    plain, studentised = speaker_interval(scores), bootstrap_t_interval(scores)
    assert plain is not None
    assert studentised is not None
    assert studentised.estimate - studentised.low > 2 * (plain.estimate - plain.low)
    assert studentised.high - studentised.estimate < plain.high - plain.estimate


def test_bootstrap_t_is_about_the_t_interval_where_scores_are_even() -> None:
    scores = named(np.random.default_rng(0).normal(0.7, 0.05, 200).tolist())
    plain, studentised = speaker_interval(scores), bootstrap_t_interval(scores)
    assert plain is not None
    assert studentised is not None
    assert (studentised.low, studentised.high) == pytest.approx((plain.low, plain.high), abs=0.001)


def test_bootstrap_t_draws_by_its_seed() -> None:
    scores = named([0.5, 0.6, 0.7, 0.55, 0.62, 0.48, 0.71, 0.66, 0.59])
    first = bootstrap_t_interval(scores, seed=1)
    assert first == bootstrap_t_interval(scores, seed=1)
    assert first != bootstrap_t_interval(scores, seed=2)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=8, max_size=30), st.floats(0.01, 0.5), st.floats(0, 0.5))
def test_bootstrap_t_moves_with_the_scores(right: list[int], scale: float, shift: float) -> None:
    scores = [count / 60 for count in right]
    wide = (-1e9, 1e9)
    before = bootstrap_t_interval(named(scores), wide, draws=399)
    after = bootstrap_t_interval(named([shift + scale * score for score in scores]), wide, draws=399)
    assert before is not None
    assert after is not None
    assert before.low <= before.estimate <= before.high
    # An end at the bound is no distance: it stays where it is.
    for end in ("low", "high"):
        value = getattr(before, end)
        moved = value if abs(value) == wide[1] else shift + scale * value
        assert getattr(after, end) == pytest.approx(moved, abs=1e-6)


def test_bootstrap_t_of_few_equal_or_missing_scores() -> None:
    assert bootstrap_t_interval(named([0.5] * 7)) is None
    assert bootstrap_t_interval(named([0.5] * 8)) == Interval(0.5, 0.5, 0.5, 8)
    with pytest.raises(ValueError, match="some are not numbers"):
        bootstrap_t_interval(named([0.5] * 8 + [float("nan")]))
    with pytest.raises(ValueError, match=r"10 draws have no 2\.5 % tail"):
        bootstrap_t_interval(named([0.5] * 8), draws=10)
    # A third of the draws lack the only poor speaker: all alike, so infinitely far, and that end is the bound.
    cut = bootstrap_t_interval(named([0.9] * 7 + [0.5]))
    assert cut is not None
    assert cut.low == 0.0
    assert cut.high < 0.95
    # Rounding leaves these draws a variance a little below zero.
    uncut = bootstrap_t_interval(named([17 / 60] * 10 + [48 / 60]), bounds=(-np.inf, np.inf))
    assert uncut is not None
    assert uncut.high == np.inf


def test_a_difference_of_two_groups_needs_four_speakers_of_each() -> None:
    assert difference_interval([0.5] * 3, [0.6] * 9) is None
    interval = difference_interval([0.9, 0.8, 0.7, 0.95], [0.1, 0.2, 0.3, 0.15])
    assert interval is not None
    expected = stats.ttest_ind([0.9, 0.8, 0.7, 0.95], [0.1, 0.2, 0.3, 0.15], equal_var=False).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_uar_is_the_metric_unless_told() -> None:
    first, second = corpus([0.9] * 8), corpus([0.7] * 8)
    assert paired_difference(first, second) == paired_difference(first, second, uar)
