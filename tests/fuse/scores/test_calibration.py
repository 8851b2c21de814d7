from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss

from fuse.scores.calibration import (
    area_under_risk_coverage,
    brier_score,
    expected_calibration_error,
    reliability_bins,
    risk_coverage,
)

METRICS = (expected_calibration_error, brier_score, area_under_risk_coverage)


def sure(confidences: list[float], right: list[bool]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Two classes; class 0 has the confidence, and is the true one where the clip is right."""
    confidence_N = np.array(confidences)
    return np.stack([confidence_N, 1 - confidence_N], axis=1), np.where(right, 0, 1).astype(np.int64)


@st.composite
def evaluations(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rows, rng = draw(st.integers(1, 40)), np.random.default_rng(draw(st.integers(0, 10_000)))
    # In tenths, so that clips of equal confidence are common.
    probabilities_NC = rng.multinomial(10, np.full(8, 1 / 8) if rows % 2 else rng.dirichlet(np.ones(8)), size=rows) / 10
    return probabilities_NC, rng.integers(0, 8, rows)


def test_ece_by_hand() -> None:
    # Four clips at 0.9, three right: |0.75 - 0.9| for 4 of 6; two at 0.6, both right: |1 - 0.6| for 2 of 6.
    made = sure([0.9] * 4 + [0.6] * 2, [True, True, True, False, True, True])
    assert expected_calibration_error(*made) == pytest.approx((4 * 0.15 + 2 * 0.4) / 6)


def test_ece_nets_within_a_bin_not_between_bins() -> None:
    # 0.91 and 0.93 share a bin of 15: mean confidence 0.92 against accuracy 0.5.
    assert expected_calibration_error(*sure([0.91, 0.93], [True, False])) == pytest.approx(0.42)
    # 0.65 and 0.95 do not: (0.35 + 0.95) / 2, though over both it would be 0.3.
    assert expected_calibration_error(*sure([0.65, 0.95], [True, False])) == pytest.approx(0.65)
    assert expected_calibration_error(*sure([0.65, 0.95], [True, False]), bins=1) == pytest.approx(0.3)


def test_bins_are_closed_above() -> None:
    found = reliability_bins(*sure([0.6, 0.6 + 1e-9, 2 / 3, 1.0], [True] * 4))
    assert found.clips_B.tolist() == [0] * 8 + [1, 2, 0, 0, 0, 0, 1]
    assert found.confidence_B[14] == 1.0
    assert np.isnan(found.accuracy_B[0])
    assert found.accuracy_B[9] == 1.0


def test_brier_by_hand() -> None:
    probabilities_NC = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    # 0.09 + 0.04 + 0.01, and 0.01 + 0.81 + 0.64.
    assert brier_score(probabilities_NC, np.array([0, 1])) == pytest.approx((0.14 + 1.46) / 2)
    assert brier_score(np.full((5, 8), 1 / 8), np.arange(5)) == pytest.approx(7 / 8)
    assert brier_score(np.eye(8), np.roll(np.arange(8), 1)) == 2.0


@settings(max_examples=50, deadline=None)
@given(evaluations())
def test_brier_equals_scikit_learn(made: tuple[NDArray[np.float64], NDArray[np.int64]]) -> None:
    probabilities_NC, label_N = made
    expected = brier_score_loss(label_N, probabilities_NC, labels=range(8), scale_by_half=False)
    assert brier_score(probabilities_NC, label_N) == pytest.approx(expected)


def test_risk_coverage_by_hand() -> None:
    coverage_N, risk_N = risk_coverage(*sure([0.6, 0.9, 0.8, 0.7], [False, True, False, True]))
    assert coverage_N.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk_N.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 2 / 4])
    made = sure([0.6, 0.9, 0.8, 0.7], [False, True, False, True])
    assert area_under_risk_coverage(*made) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_clips_of_equal_confidence_share_their_errors() -> None:
    # Right first: 0, 1/2; wrong first: 1, 1/2. The mean of the two orders: 1/2, 1/2.
    assert risk_coverage(*sure([0.8, 0.8], [True, False]))[1].tolist() == [0.5, 0.5]
    _, risk_N = risk_coverage(*sure([0.9, 0.8, 0.8, 0.8], [True, False, True, True]))
    assert risk_N.tolist() == pytest.approx([0, 1 / 6, (2 / 3) / 3, 1 / 4])


@settings(max_examples=50, deadline=None)
@given(evaluations(), st.integers(0, 100))
def test_no_score_depends_on_the_order_of_the_rows(
    made: tuple[NDArray[np.float64], NDArray[np.int64]], seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(made[1]))
    for metric in METRICS:
        assert metric(made[0][order], made[1][order]) == pytest.approx(metric(*made), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(evaluations())
def test_bounds_and_ends(made: tuple[NDArray[np.float64], NDArray[np.int64]]) -> None:
    wrong = float(np.mean(made[0].argmax(axis=1) != made[1]))
    coverage_N, risk_N = risk_coverage(*made)
    assert (coverage_N[-1], risk_N[-1]) == (1.0, pytest.approx(wrong))
    ece = expected_calibration_error(*made)
    # Never below what the bins leave when pooled into one.
    assert expected_calibration_error(*made, bins=1) - 1e-12 <= ece <= 1
    assert 0 <= brier_score(*made) <= 2


def test_a_perfect_ranking_is_better_than_none_and_a_reversed_one_is_worse() -> None:
    right = [True] * 6 + [False] * 2
    ranked = sure([0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.6, 0.55], right)
    flat, reversed_ = sure([0.8] * 8, right), sure([0.55, 0.6, 0.7, 0.75, 0.8, 0.85, 0.98, 0.99], right)
    assert area_under_risk_coverage(*flat) == pytest.approx(0.25)
    assert area_under_risk_coverage(*ranked) == pytest.approx((1 / 7 + 2 / 8) / 8)
    assert area_under_risk_coverage(*reversed_) > 0.5


@pytest.mark.parametrize("metric", METRICS)
def test_what_cannot_be_scored_is_refused(metric: object) -> None:
    assert callable(metric)
    for probabilities_NC, label_N, message in (
        (np.zeros((0, 8)), np.array([], dtype=int), "no clips to score"),
        (np.full((2, 8), 1 / 8), np.array([0]), r"shape \(2, 8\) for 1 labels"),
        (np.full((1, 8), 1 / 8), np.array([8]), "not an index from 0 to 7"),
        (np.full((1, 8), 1 / 8), np.array([-1]), "not an index from 0 to 7"),
        (np.full((1, 8), np.nan), np.array([0]), "not numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            metric(probabilities_NC, label_N)


def test_a_probability_rounded_above_one_falls_into_the_last_bin() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reliability_bins(*sure([1.0005], [True])).clips_B[-1] == 1
