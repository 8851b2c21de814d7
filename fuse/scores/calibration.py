"""Calibration: whether a head's confidence says when it is wrong. Pure functions of probabilities and labels.

Shape letters: N clips, C classes, B bins. A clip's confidence is its highest probability, and the class that has it
(the first of several equal ones) is the predicted one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """Clips by confidence, in bins of equal width: bin b holds confidences above b / B and up to (b + 1) / B.

    Attributes:
        clips_B: clips in each bin.
        confidence_B: their mean confidence, 0 to 1; NaN where a bin is empty.
        accuracy_B: share of them that is right; NaN where a bin is empty.
    """

    clips_B: NDArray[np.int64]
    confidence_B: NDArray[np.float64]
    accuracy_B: NDArray[np.float64]


def reliability_bins(
    probabilities_NC: NDArray[np.float64], label_N: NDArray[np.int64], bins: int = BINS
) -> ReliabilityBins:
    """The points of a reliability diagram.

    Raises:
        ValueError: there are no clips, or the arrays do not fit each other.
    """
    confidence_N, right_N = _confidence(probabilities_NC, label_N)
    # Of equal width and closed above, as in the paper: a confidence of exactly b / B belongs to the bin below.
    bin_N = np.searchsorted(np.arange(1, bins) / bins, confidence_N, side="left")
    clips_B: NDArray[np.int64] = np.bincount(bin_N, minlength=bins)
    confidence_B, accuracy_B = (
        _means(values_N, bin_N, clips_B) for values_N in (confidence_N, right_N.astype(np.float64))
    )
    return ReliabilityBins(clips_B, confidence_B, accuracy_B)


def expected_calibration_error(
    probabilities_NC: NDArray[np.float64], label_N: NDArray[np.int64], bins: int = BINS
) -> float:
    """ECE, 0 to 1: the mean over clips of how far their bin's accuracy is from its confidence.

    With 15 bins, as in Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 2. Its value is
    biased upwards with few clips: compare it between runs on the same clips.

    Raises:
        ValueError: as `reliability_bins`.
    """
    found = reliability_bins(probabilities_NC, label_N, bins)
    filled_B = found.clips_B > 0
    gap_B = np.abs(found.accuracy_B - found.confidence_B)[filled_B]
    return float(gap_B @ found.clips_B[filled_B] / found.clips_B.sum())


def brier_score(probabilities_NC: NDArray[np.float64], label_N: NDArray[np.int64]) -> float:
    """Mean over clips of the squared distance to the truth, summed over classes: 0 is best, 2 is worst.

    Equal probabilities for all C classes give 1 - 1 / C (Brier, "Verification of Forecasts Expressed in Terms of
    Probability", Monthly Weather Review 78(1), 1950).

    Raises:
        ValueError: as `reliability_bins`.
    """
    _confidence(probabilities_NC, label_N)
    truth_NC = np.eye(probabilities_NC.shape[1])[label_N]
    return float(np.square(probabilities_NC - truth_NC).sum(axis=1).mean())


def risk_coverage(
    probabilities_NC: NDArray[np.float64], label_N: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How often a head errs on the clips that it answers, when it answers the most confident ones only.

    Geifman & El-Yaniv, "Selective Classification for Deep Neural Networks", NIPS 2017, section 2. Clips of equal
    confidence stand for each other: the risk is its mean over their orders, so the order of the rows changes nothing.

    Returns:
        Coverage of shape (N,), the shares 1/N to 1 of clips answered, and risk of shape (N,), the share of those that
        is wrong.

    Raises:
        ValueError: as `reliability_bins`.
    """
    confidence_N, right_N = _confidence(probabilities_NC, label_N)
    # Groups of equal confidence, the most confident first.
    _, group_N, size_G = np.unique(-confidence_N, return_inverse=True, return_counts=True)
    wrong_G = np.bincount(group_N, weights=~right_N) / size_G
    answered_N = np.arange(1, len(confidence_N) + 1)
    return answered_N / len(confidence_N), np.cumsum(np.repeat(wrong_G, size_G)) / answered_N


def area_under_risk_coverage(probabilities_NC: NDArray[np.float64], label_N: NDArray[np.int64]) -> float:
    """AURC, 0 to 1: the mean risk over all coverages; lower is better, and at best not 0 where clips are wrong.

    Geifman, Uziel & El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", ICLR 2019.

    Raises:
        ValueError: as `reliability_bins`.
    """
    return float(risk_coverage(probabilities_NC, label_N)[1].mean())


def _confidence(
    probabilities_NC: NDArray[np.float64], label_N: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Highest probability of each clip, and whether it is that of the true class."""
    if probabilities_NC.ndim != 2 or len(probabilities_NC) != len(label_N):
        raise ValueError(f"probabilities of shape {probabilities_NC.shape} for {len(label_N)} labels")
    if not len(label_N):
        raise ValueError("no clips to score: the selection of predictions is empty")
    if not np.isfinite(probabilities_NC).all():
        raise ValueError("some probabilities are not numbers")
    if label_N.min() < 0 or label_N.max() >= probabilities_NC.shape[1]:
        raise ValueError(f"a label is not an index from 0 to {probabilities_NC.shape[1] - 1}")
    return probabilities_NC.max(axis=1), probabilities_NC.argmax(axis=1) == label_N


def _means(values_N: NDArray[np.float64], bin_N: NDArray[np.intp], clips_B: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean value in each bin; NaN where it is empty."""
    mean_B = np.full(len(clips_B), np.nan)
    np.divide(np.bincount(bin_N, weights=values_N, minlength=len(clips_B)), clips_B, out=mean_B, where=clips_B > 0)
    return mean_B
