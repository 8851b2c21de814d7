from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cache.corpus.ravdess import LABELS
from fuse.scores.metrics import speaker_scores, uar
from fuse.scores.predictions import Predictions, concatenate
from fuse.scores.speakers import SpeakerSpread, speaker_sexes, spread_of


def evaluation(right: dict[str, int], sexes: dict[str, str], seed: int = 0) -> Predictions:
    """Ten neutral clips per speaker, that many of them right."""
    speakers = [speaker for speaker in right for _ in range(10)]
    predicted = [0 if index < count else 1 for count in right.values() for index in range(10)]
    return Predictions.of(
        [f"{speaker}-{index % 10}" for index, speaker in enumerate(speakers)],
        speakers,
        [sexes[speaker] for speaker in speakers],
        [0] * len(speakers),
        np.eye(8)[predicted],
        protocol="luna5",
        fold=0,
        seed=seed,
        split="test",
        condition="clean",
        modalities="audio",
        label_names=LABELS,
    )


def speaker_spread(made: Predictions) -> SpeakerSpread:
    return spread_of(speaker_scores(made, uar), speaker_sexes(made))


SEXES = {"1": "male", "2": "female", "3": "male", "10": "female"}


def test_spread_worst_and_gap_by_hand() -> None:
    made = evaluation({"1": 4, "2": 9, "3": 8, "10": 7}, SEXES)
    spread = speaker_spread(made)
    assert spread.sd == pytest.approx(np.std([0.4, 0.9, 0.8, 0.7], ddof=1))
    assert (spread.worst_speaker, spread.worst_score) == ("1", 0.4)
    assert spread.female_minus_male == pytest.approx(0.8 - 0.6)
    assert (spread.speakers, spread.females, spread.males) == (4, 2, 2)
    assert spread.gap_interval is None


def test_seeds_are_averaged_before_the_worst_is_found() -> None:
    # Seed by seed speaker 1 and speaker 2 are worst with 0.2; on average it is speaker 3.
    seeds = [evaluation({"1": 2, "2": 9, "3": 5}, SEXES), evaluation({"1": 9, "2": 2, "3": 4}, SEXES, seed=1)]
    spread = speaker_spread(concatenate(seeds))
    assert spread.worst_speaker == "3"
    assert spread.worst_score == pytest.approx(0.45)
    assert spread.female_minus_male == pytest.approx(0.55 - 0.5)


def test_of_equal_speakers_the_first_is_named() -> None:
    assert speaker_spread(evaluation({"1": 6, "2": 5, "10": 5}, SEXES)).worst_speaker == "2"


def test_one_sex_or_none_has_no_gap() -> None:
    one_sided = speaker_spread(evaluation({"1": 4, "3": 8}, SEXES))
    assert (one_sided.female_minus_male, one_sided.females, one_sided.males) == (None, 0, 2)
    unknown = speaker_spread(evaluation({"1": 4, "2": 8}, {"1": "", "2": "unknown"}))
    assert (unknown.female_minus_male, unknown.females, unknown.males) == (None, 0, 0)


def test_a_speaker_of_unknown_sex_counts_in_the_spread_and_not_in_the_gap() -> None:
    spread = speaker_spread(evaluation({"1": 4, "2": 8, "3": 0}, {"1": "m", "2": " Female", "3": ""}))
    assert spread.female_minus_male == pytest.approx(0.4)
    assert spread.worst_speaker == "3"
    assert (spread.speakers, spread.females, spread.males) == (3, 1, 1)


def test_a_speaker_said_to_be_both_is_neither() -> None:
    made = concatenate([evaluation({"1": 4}, {"1": "male"}), evaluation({"1": 5}, {"1": "female"}, seed=1)])
    assert speaker_sexes(made) == {"1": ""}


def test_a_single_speaker_has_no_spread() -> None:
    spread = speaker_spread(evaluation({"1": 4}, SEXES))
    assert (spread.sd, spread.worst_score) == (None, 0.4)


def test_the_interval_of_the_gap_is_that_of_welchs_test() -> None:
    rng = np.random.default_rng(2)
    scores = {str(number): float(score) for number, score in enumerate(rng.uniform(0.4, 0.9, 11))}
    sexes = {name: "female" if int(name) < 4 else "male" for name in scores}
    interval = spread_of(scores, sexes).gap_interval
    assert interval is not None
    values = list(scores.values())
    expected = stats.ttest_ind(values[:4], values[4:], equal_var=False).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert interval.estimate == pytest.approx(np.mean(values[:4]) - np.mean(values[4:]))
    assert interval.speakers == 11


def test_equal_scores_have_a_gap_of_no_width() -> None:
    names = [str(number) for number in range(8)]
    interval = spread_of(dict.fromkeys(names, 0.5), dict(zip(names, ["f"] * 4 + ["m"] * 4, strict=True))).gap_interval
    assert interval is None  # "f" and "m" are what a corpus may say; `speaker_sexes` spells them out.
    sexes = dict(zip(names, ["female"] * 4 + ["male"] * 4, strict=True))
    interval = spread_of(dict.fromkeys(names, 0.5), sexes).gap_interval
    assert interval is not None
    assert (interval.low, interval.high) == (0.0, 0.0)


@pytest.mark.parametrize("scores", [{}, {"1": float("nan"), "2": 0.5}])
def test_a_speaker_without_a_score_is_an_error(scores: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a spread over speakers needs a score for each"):
        spread_of(scores, {})
