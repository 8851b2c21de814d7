"""One definition of UAR: the score, its interval and its differences are about the same number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from cache.corpus.ravdess import LABELS
from fuse.scores.intervals import uar_interval
from fuse.scores.jackknife import Tally, contributions, jackknife, tallies
from fuse.scores.metrics import speaker_scores, summarise, uar
from fuse.scores.paired_test import difference
from fuse.scores.predictions import Predictions, concatenate

CLASSES = 8
# RAVDESS: half as many neutral clips as of each other emotion.
BALANCED = (4, 8, 8, 8, 8, 8, 8, 8)


def evaluation(clips_SC: NDArray[np.int64], seed: int = 0, right: float | NDArray[np.float64] = 0.6) -> Predictions:
    """Speakers with that many clips of each class, each of them right by chance, of all or of each speaker."""
    rng = np.random.default_rng(seed)
    speaker_N = np.repeat(np.arange(len(clips_SC)), clips_SC.sum(axis=1))
    label_N = np.concatenate([np.repeat(np.arange(CLASSES), row) for row in clips_SC])
    predicted_N = np.where(
        rng.random(len(label_N)) < np.broadcast_to(right, len(clips_SC))[speaker_N],
        label_N,
        rng.integers(0, CLASSES, len(label_N)),
    )
    return Predictions.of(
        [f"clip-{number}" for number in range(len(label_N))],
        speaker_N.astype(str),
        [""] * len(label_N),
        label_N,
        np.eye(CLASSES)[predicted_N],
        protocol="luna5",
        fold=0,
        seed=seed,
        split="test",
        condition="clean",
        modalities="audio",
        label_names=LABELS,
    )


def unequal(speakers: int = 10, seed: int = 0) -> NDArray[np.int64]:
    """From a few clips to a hundred; some speakers lack classes."""
    return np.random.default_rng(seed).geometric(0.15, (speakers, CLASSES)) - 1


def of_seeds(clips_SC: NDArray[np.int64], seeds: range) -> Predictions:
    return concatenate([evaluation(clips_SC, seed) for seed in seeds])


def test_speakers_with_equal_clips_keep_every_number() -> None:
    first, second = (of_seeds(np.tile(BALANCED, (24, 1)), seeds) for seeds in (range(3), range(5, 8)))
    own, other = speaker_scores(first, uar), speaker_scores(second, uar)
    assert jackknife(tallies(first)).pseudo_values == pytest.approx(own, abs=1e-12)
    interval, expected = uar_interval(tallies(first)), stats.ttest_1samp(list(own.values()), 0)
    assert interval is not None
    assert interval.estimate == pytest.approx(np.mean(list(own.values())), abs=1e-12)
    assert (interval.low, interval.high) == pytest.approx(tuple(expected.confidence_interval()), abs=1e-12)
    differences = {name: own[name] - other[name] for name in own}
    found = difference(first, second)
    assert found.contributions == pytest.approx(differences, abs=1e-12)
    assert found.estimate == pytest.approx(np.mean(list(differences.values())), abs=1e-12)
    paired = stats.ttest_1samp(list(differences.values()), 0).confidence_interval()
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(paired), abs=1e-12)


def test_with_unequal_speakers_the_interval_is_about_the_pooled_score() -> None:
    # It used to be about the mean of the speakers' own scores, here points away: the easier ones have more clips.
    clips_SC = unequal()
    made = evaluation(clips_SC[np.argsort(clips_SC.sum(axis=1))], right=np.linspace(0.1, 0.9, 10))
    interval, pooled = uar_interval(tallies(made)), summarise(made)["uar"]
    assert abs(np.mean(list(speaker_scores(made, uar).values())) - pooled) > 0.03
    assert interval is not None
    assert interval.estimate == pytest.approx(pooled, abs=1e-12)
    assert (interval.low + interval.high) / 2 == pytest.approx(pooled, abs=1e-12)


def test_with_unequal_speakers_a_paired_difference_is_that_of_the_two_scores() -> None:
    clips_SC = unequal()
    first, second = of_seeds(clips_SC, range(2)), evaluation(clips_SC, 7, right=0.4)
    found, expected = difference(first, second), summarise(first)["uar"] - summarise(second)["uar"]
    assert found.estimate == pytest.approx(expected, abs=1e-12)
    assert np.mean(list(found.contributions.values())) == pytest.approx(expected, abs=1e-12)
    assert found.interval is not None
    assert (found.interval.low + found.interval.high) / 2 == pytest.approx(expected, abs=1e-12)


def test_pseudo_values_by_leaving_speakers_out() -> None:
    made = evaluation(unequal())
    pooled, names = summarise(made)["uar"], np.unique(made.speaker).tolist()
    for name, value in jackknife(tallies(made)).pseudo_values.items():
        without = made.take(made.speaker != name)
        expected = len(names) * pooled - (len(names) - 1) * uar(without.label, without.predicted)
        assert value == pytest.approx(expected, abs=1e-12)


def test_a_class_that_one_speaker_alone_has_goes_with_that_speaker() -> None:
    # Two classes, and a third of which speaker 0 has the only clips: recalls 1, 1 and 0, so 2/3; without 0 it is 1.
    clips_SC = np.zeros((8, CLASSES), np.int64)
    clips_SC[:, :2], clips_SC[0, 2] = 5, 5
    made = evaluation(clips_SC, right=1.0)
    wrong = np.where(made.label == 2, 0, made.label)
    found = jackknife([Tally.of(made.label, wrong, made.speaker)])
    assert found.uar == pytest.approx(2 / 3)
    assert found.pseudo_values.pop("0") == pytest.approx(8 * 2 / 3 - 7)
    assert list(found.pseudo_values.values()) == pytest.approx([2 / 3] * 7)
    # The third recall is known of one speaker only, and is far from the others: so little is known of their mean.
    interval = uar_interval([Tally.of(made.label, wrong, made.speaker)])
    assert interval is not None
    assert interval.low < 0.1
    assert interval.high == 1.0


def test_several_evaluations_count_as_their_mean() -> None:
    few, many = unequal(seed=1), unequal(seed=2)
    parts = [evaluation(few), evaluation(many, seed=3)]
    both, each = jackknife(tallies(*parts)), [jackknife(tallies(part)) for part in parts]
    assert both.uar == pytest.approx(np.mean([one.uar for one in each]), abs=1e-12)
    for name, value in both.pseudo_values.items():
        assert value == pytest.approx(np.mean([one.pseudo_values[name] for one in each]), abs=1e-12)


def test_a_speaker_whose_clips_all_failed_in_one_condition_is_left_out_of_the_other_alone() -> None:
    clips_SC = unequal(9)
    whole = evaluation(clips_SC)
    lacking = whole.take(whole.speaker != "4")
    # It used to be a KeyError.
    found = jackknife(tallies(whole, lacking))
    left = [part.take(part.speaker != "4") for part in (whole, lacking)]
    without = np.mean([uar(part.label, part.predicted) for part in left])
    assert found.pseudo_values["4"] == pytest.approx(9 * found.uar - 8 * without, abs=1e-12)


def test_folds_that_validate_on_a_speaker_twice_count_twice() -> None:
    # Leave-one-speaker-out does: such rows are two, as in the pooled score, and go together.
    once = evaluation(unequal())
    again = Predictions(**{**vars(once), "fold": np.ones_like(once.fold)})
    twice = concatenate([once, again.take(again.speaker == "3")])
    twice = Predictions(**{**vars(twice), "split": np.full(len(twice), "validation")})
    found = jackknife(tallies(twice))
    assert found.uar == pytest.approx(summarise(twice)["uar"], abs=1e-12)
    without = twice.take(twice.speaker != "3")
    expected = 10 * found.uar - 9 * uar(without.label, without.predicted)
    assert found.pseudo_values["3"] == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 12))
def test_exchanging_one_speakers_answers_turns_one_sign(seed: int, speakers: int) -> None:
    clips_SC = unequal(speakers, seed)
    clips_SC[:, 0] += 1
    first, second = evaluation(clips_SC, seed), evaluation(clips_SC, seed + 1)
    before = difference(first, second).contributions
    swapped = str(seed % speakers)
    own = first.speaker == swapped
    one, other = first.predicted.copy(), second.predicted.copy()
    one[own], other[own] = second.predicted[own], first.predicted[own]
    after = contributions([Tally.of(first.label, one, first.speaker)], [Tally.of(second.label, other, second.speaker)])
    for name in before:
        assert after[name] == pytest.approx(-before[name] if name == swapped else before[name], abs=1e-12)


@pytest.mark.parametrize("count", [lambda made: tallies(made), lambda made: [Tally.of(*three(made))]])
def test_nobody_can_be_left_out_of_one(count: Callable[[Predictions], list[Tally]]) -> None:
    with pytest.raises(ValueError, match="needs two or more, not 1"):
        jackknife(count(evaluation(unequal(1) + 1)))
    with pytest.raises(ValueError, match="no clips to score"):
        count(evaluation(unequal(1) + 1).select(speaker="9"))


def three(made: Predictions) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.str_]]:
    return made.label, made.predicted, made.speaker
