from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from fuse.metrics import accuracy, uar
from fuse.predictions import Predictions
from fuse.statistics import Interval, paired_difference, speaker_differences, speaker_interval


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


def simulated_uar(rng: np.random.Generator, corpora: int, speakers: int) -> NDArray[np.float64]:
    """Per-speaker UAR as in RAVDESS speech: 4 neutral clips, 8 of each other emotion, SD 0.09 over speakers."""
    recall = rng.beta(17, 6, size=(corpora, speakers))
    uar_by_class = [rng.binomial(clips, recall) / clips for clips in (4, 8, 8, 8, 8, 8, 8, 8)]
    mean: NDArray[np.float64] = np.mean(uar_by_class, axis=0)
    return mean


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    truth, corpora = 17 / 23, 2000
    scores = simulated_uar(np.random.default_rng(5), corpora, 24)
    covered = 0
    for row in scores:
        interval = speaker_interval(named(row.tolist()))
        assert interval is not None
        covered += interval.low <= truth <= interval.high
    assert 0.93 <= covered / corpora <= 0.97


def test_uar_is_the_metric_unless_told() -> None:
    first, second = corpus([0.9] * 8), corpus([0.7] * 8)
    assert paired_difference(first, second) == paired_difference(first, second, uar)
