"""Choosing on validation, reporting on test: fold by fold, so that no test speaker has a say in what is chosen.

Nested cross-validation: Varma & Simon, "Bias in error estimation when using cross-validation for model selection",
BMC Bioinformatics 7:91, 2006.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fuse.scores.predictions import Predictions, concatenate
from fuse.sweep.grid import Configuration
from fuse.sweep.ground import Outcome


@dataclass(frozen=True)
class Chosen:
    """What validation chose: fold number to configuration, and the test predictions that follow."""

    by_fold: Mapping[int, Configuration]
    test: Predictions


def choose(outcomes: Sequence[Outcome]) -> Chosen | None:
    """For each fold the configuration with the best mean validation UAR over seeds; None if a fold has none.

    A configuration of which a seed diverged is not chosen in that fold. Ties go to the one that comes first.
    """
    scores: dict[tuple[int, int], list[float]] = defaultdict(list)
    for outcome in outcomes:
        value = -np.inf if outcome.validation_uar is None else outcome.validation_uar
        scores[outcome.run.fold.number, outcome.run.configuration.number].append(value)
    cells = {outcome.run.configuration.number: outcome.run.configuration for outcome in outcomes}
    by_fold = {}
    for fold in sorted({fold for fold, _ in scores}):
        means = {number: float(np.mean(scores[fold, number])) for number in cells if (fold, number) in scores}
        best = max(means, key=lambda number: (means[number], -number))
        if not np.isfinite(means[best]):
            return None
        by_fold[fold] = cells[best]
    return Chosen(by_fold, _test(outcomes, by_fold))


def _test(outcomes: Sequence[Outcome], by_fold: Mapping[int, Configuration]) -> Predictions:
    parts = [
        outcome.predictions.select(split="test")
        for outcome in outcomes
        if outcome.predictions is not None
        and outcome.run.configuration.number == by_fold[outcome.run.fold.number].number
    ]
    return concatenate(parts)
