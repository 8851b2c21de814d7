"""Calibration under shift: what one temperature, fitted where it can be, is worth under conditions that it never saw.

Ovadia et al., "Can You Trust Your Model's Uncertainty?", NeurIPS 2019 (arXiv 1906.02530): a temperature that is
fitted on clean clips stops fitting as soon as the clips are not clean.

Shape letters: N clips, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fuse.scores.calibration import brier_score, expected_calibration_error
from fuse.scores.predictions import Predictions, concatenate

# Of a logarithm: probabilities of 0 stay comparable.
SMALLEST = 1e-12
LARGEST_LOG_TEMPERATURE = 5.0
AS_IT_IS = "as it is"


@dataclass(frozen=True)
class ShiftRow:
    """One condition under one way to find the temperature: ECE, 0 to 1, and Brier score, 0 to 2, on so many clips."""

    temperature: str
    condition: str
    ece: float
    brier: float
    clips: int


def tempered(probabilities_NC: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Probabilities whose logits are divided by a temperature: above 1 less sure, below 1 surer; 1 changes nothing."""
    logits_NC = np.log(np.maximum(probabilities_NC, SMALLEST)) / temperature
    powers_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    cooled_NC: NDArray[np.float64] = powers_NC / powers_NC.sum(axis=1, keepdims=True)
    return cooled_NC


def fitted_temperature(probabilities_NC: NDArray[np.float64], label_N: NDArray[np.int64]) -> float:
    """The temperature of the least log loss (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).

    Raises:
        ValueError: there are no clips.
    """
    # Here, for every command imports the scores and few fit one.
    from scipy.optimize import minimize_scalar

    if not len(label_N):
        raise ValueError("no clips to fit a temperature on: the selection of predictions is empty")

    # Only then: every command would wait for scipy.

    def log_loss(log_temperature: float) -> float:
        cooled_NC = tempered(probabilities_NC, float(np.exp(log_temperature)))
        return float(-np.log(np.maximum(cooled_NC[np.arange(len(label_N)), label_N], SMALLEST)).mean())

    bounds = (-LARGEST_LOG_TEMPERATURE, LARGEST_LOG_TEMPERATURE)
    return float(np.exp(minimize_scalar(log_loss, bounds=bounds, method="bounded").x))


def calibration_under_shift(predictions: Predictions, fitted_on: Mapping[str, Sequence[str]]) -> list[ShiftRow]:
    """ECE and Brier score on the test clips, by condition: as the run is, and with each fold's temperature.

    Args:
        predictions: of one run, validation and test clips, under several conditions.
        fitted_on: by the name of a way, the conditions on whose validation clips each fold and seed is fitted.

    Raises:
        ValueError: a condition was not predicted.
    """
    rows = list(_scored(AS_IT_IS, predictions.select(split="test")))
    for name, conditions in fitted_on.items():
        parts = [_with_own_temperature(one, conditions) for one in _runs(predictions)]
        rows += _scored(name, concatenate(parts))
    return rows


def _runs(predictions: Predictions) -> list[Predictions]:
    """Each fold and seed by itself."""
    pairs = dict.fromkeys(zip(predictions.fold.tolist(), predictions.seed.tolist(), strict=True))
    return [predictions.select(fold=fold, seed=seed) for fold, seed in pairs]


def _with_own_temperature(one: Predictions, conditions: Sequence[str]) -> Predictions:
    chosen = [one.select(split="validation", condition=name) for name in conditions]
    for name, part in zip(conditions, chosen, strict=True):
        if not len(part):
            raise ValueError(f"no validation predictions under {name}; predict it, or fit on others alone")
    validation, test = concatenate(chosen), one.select(split="test")
    temperature = fitted_temperature(validation.probabilities_NC, validation.label)
    return replace(test, probabilities_NC=tempered(test.probabilities_NC, temperature))


def _scored(name: str, test: Predictions) -> list[ShiftRow]:
    rows = []
    for condition in dict.fromkeys(test.condition.tolist()):
        one = test.select(condition=condition)
        ece = expected_calibration_error(one.probabilities_NC, one.label)
        rows.append(ShiftRow(name, condition, ece, brier_score(one.probabilities_NC, one.label), len(one)))
    return rows
