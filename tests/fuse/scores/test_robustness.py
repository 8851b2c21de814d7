"""What corruption costs, against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fuse.scores.predictions import Predictions, concatenate
from fuse.scores.robustness import (
    changed_share,
    corruption_error,
    effective_robustness,
    guess_margin,
    mean_of_known,
    relative_corruption_error,
    relative_drop,
    relative_robustness,
)


def answers(predicted: list[int], seed: int = 0, condition: str = "clean", clips: str = "abcd") -> Predictions:
    return Predictions.of(
        list(clips),
        ["1"] * len(clips),
        [""] * len(clips),
        [0] * len(clips),
        np.eye(3)[predicted],
        protocol="holdout",
        fold=0,
        seed=seed,
        split="test",
        condition=condition,
        modalities="audio",
        label_names=("x", "y", "z"),
    )


def test_a_relative_drop_is_a_share_of_what_there_was() -> None:
    assert relative_drop(0.8, 0.6) == pytest.approx(0.25)
    assert relative_drop(0.8, 0.9) == pytest.approx(-0.125)
    assert relative_drop(0.0, 0.0) is None


def test_ce_is_a_ratio_of_sums_and_no_mean_of_ratios() -> None:
    """AlexNet's errors 0.5 and 0.9, ours 0.1 and 0.9: (0.1 + 0.9) / (0.5 + 0.9), where the ratios' mean is 0.6."""
    assert corruption_error([0.1, 0.9], [0.5, 0.9]) == pytest.approx(1.0 / 1.4)
    assert corruption_error([0.4], [0.4]) == 1.0
    assert corruption_error([0.4], [0.0]) is None


def test_relative_ce_takes_the_clean_errors_off_both() -> None:
    """Ours (0.4 - 0.2) + (0.6 - 0.2) = 0.6; the baseline's (0.5 - 0.4) + (0.8 - 0.4) = 0.5."""
    assert relative_corruption_error([0.4, 0.6], 0.2, [0.5, 0.8], 0.4) == pytest.approx(1.2)
    assert relative_corruption_error([0.4], 0.2, [0.3], 0.3) is None


def test_mce_is_the_mean_over_the_corruptions_that_have_one() -> None:
    assert mean_of_known([0.5, None, 1.5]) == pytest.approx(1.0)
    assert mean_of_known([None]) is None


def test_the_area_is_the_mean_height_of_the_curve() -> None:
    """0.8, 0.6, 0.2 at severities 0, 1/2, 1: half of 0.7 and half of 0.4."""
    assert relative_robustness([0.8, 0.6, 0.2]) == pytest.approx(0.55)
    assert relative_robustness([0.8, 0.2]) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="an area under a curve needs"):
        relative_robustness([0.8])


def test_effective_robustness_is_what_the_clean_score_does_not_explain() -> None:
    """The baseline loses 0.2 and 0.4, this run 0.1 and 0.2: 0.1 and 0.2 above what 0.9 on clean clips promises."""
    assert effective_robustness([0.9, 0.8, 0.7], [0.7, 0.5, 0.3]) == pytest.approx(0.15)
    assert effective_robustness([0.9, 0.7], [0.5, 0.3]) == pytest.approx(0.0)


def test_other_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="2 levels against the baseline's 1; test both under the same conditions"):
        corruption_error([0.1, 0.2], [0.1])
    with pytest.raises(ValueError, match="same conditions"):
        effective_robustness([0.1, 0.2], [0.1])


def test_changed_answers_count_whether_they_were_right_or_not() -> None:
    clean = concatenate([answers([0, 1, 2, 0]), answers([0, 0, 0, 0], seed=1)])
    noisy = concatenate([answers([0, 2, 2, 1], condition="n"), answers([0, 0, 0, 1], seed=1, condition="n")])
    assert changed_share(clean, noisy) == pytest.approx((0.5 + 0.25) / 2)
    # A clip that failed under noise has not changed its answer, nor kept it.
    fewer = answers([1, 1], condition="n", clips="ca")
    assert changed_share(answers([0, 1, 2, 0]), fewer) == 1.0
    with pytest.raises(ValueError, match="no clip is in both"):
        changed_share(clean.select(seed=0), answers([0], condition="n", clips="e"))


def test_a_guesser_stays_below_the_margin() -> None:
    """Two labels of 50 clips: each recall has the variance 0.25 / 50, UAR a quarter of their sum; simulated beside."""
    margin = guess_margin([50, 50])
    assert margin == pytest.approx(2 * np.sqrt((0.25 / 50 + 0.25 / 50) / 4))
    clips = [8, 4, 4]
    right = np.random.default_rng(0).binomial(clips, 1 / 3, size=(20_000, 3)) / clips
    assert right.mean(axis=1).std() == pytest.approx(guess_margin(clips) / 2, rel=0.02)
