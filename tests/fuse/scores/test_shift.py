from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fuse.scores.calibration import expected_calibration_error
from fuse.scores.predictions import Predictions, concatenate
from fuse.scores.shift import AS_IT_IS, calibration_under_shift, fitted_temperature, tempered

CLIPS, CLASSES = 4000, 4


def drawn(seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities that are what they say: each label is drawn from its clip's."""
    rng = np.random.default_rng(seed)
    probabilities_NC = rng.dirichlet([0.5] * CLASSES, CLIPS)
    label_N = (probabilities_NC.cumsum(1) < rng.random((CLIPS, 1))).sum(1).clip(max=CLASSES - 1)
    return probabilities_NC, label_N


def part(split: str, condition: str, sharpness: float, seed: int) -> Predictions:
    """Too sure by that factor."""
    probabilities_NC, label_N = drawn(seed)
    ids = [f"{split}-{number}" for number in range(CLIPS)]
    return Predictions.of(
        ids,
        [split] * CLIPS,
        [""] * CLIPS,
        label_N,
        tempered(probabilities_NC, 1 / sharpness),
        protocol="holdout",
        fold=1,
        seed=0,
        split=split,
        condition=condition,
        modalities="audio",
        label_names=("a", "b", "c", "d"),
    )


def test_a_temperature_is_worked_out_by_hand() -> None:
    """Odds of 4 to 1 at temperature 2 are 2 to 1."""
    np.testing.assert_allclose(tempered(np.array([[0.8, 0.2]]), 2.0), [[2 / 3, 1 / 3]])
    np.testing.assert_allclose(tempered(np.array([[0.8, 0.2]]), 1.0), [[0.8, 0.2]])
    assert np.isfinite(tempered(np.array([[1.0, 0.0]]), 0.01)).all()


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_made_probabilities_too_sure(sharpness: float) -> None:
    probabilities_NC, label_N = drawn(1)
    assert fitted_temperature(tempered(probabilities_NC, 1 / sharpness), label_N) == pytest.approx(sharpness, rel=0.05)


def test_a_temperature_of_clean_clips_does_not_fit_what_is_not_clean() -> None:
    every = concatenate(
        [
            part("validation", "clean", 1.0, 1),
            part("validation", "noise-white-0db", 3.0, 2),
            part("test", "clean", 1.0, 3),
            part("test", "noise-white-0db", 3.0, 4),
        ]
    )
    ways = {"clean": ["clean"], "noise": ["noise-white-0db"]}
    found = {(row.temperature, row.condition): row for row in calibration_under_shift(every, ways)}
    assert len(found) == 6
    test = every.select(split="test", condition="noise-white-0db")
    as_it_is = found[AS_IT_IS, "noise-white-0db"]
    assert as_it_is.ece == expected_calibration_error(test.probabilities_NC, test.label)
    assert as_it_is.clips == CLIPS
    assert found["clean", "noise-white-0db"].ece > 0.1 > 0.03 > found["noise", "noise-white-0db"].ece
    assert found["noise", "noise-white-0db"].brier < as_it_is.brier
    assert found["noise", "clean"].ece > found["clean", "clean"].ece


def test_a_condition_without_predictions_is_named() -> None:
    both = concatenate([part("validation", "clean", 1.0, 1), part("test", "clean", 1.0, 2)])
    with pytest.raises(ValueError, match="no validation predictions under noise-white-0db"):
        calibration_under_shift(both, {"noise": ["noise-white-0db"]})
    with pytest.raises(ValueError, match="no clips to fit a temperature on"):
        fitted_temperature(np.zeros((0, 4)), np.zeros(0, np.int64))
