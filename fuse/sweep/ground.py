"""One stack of a sweep: from tables to the predictions of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cache.corpus.clips import Corpus
from cache.features.table import FeatureTable, sharing
from cache.protocols.leakage import refuse_tuned_on
from configs.schema.fusion import FusionConfig
from configs.schema.sweep import SweepConfig
from fuse.model.fusion import ModelSettings
from fuse.runs.predict import predictions_of
from fuse.runs.tables import load_tables, refuse_mixed, table_under, tuned_on
from fuse.scores.metrics import uar
from fuse.scores.predictions import SPLITS, Predictions, concatenate
from fuse.stack.job import Fitted, Job
from fuse.stack.rows import CachedRows, cached_rows, torch_device
from fuse.stack.stack import Schedule, fit_stack
from fuse.sweep.grid import Run


@dataclass(frozen=True)
class Ground:
    """What the runs of one shape stand on: rows to train on, tables to be scored on by condition."""

    config: FusionConfig
    main: FeatureTable
    cached: CachedRows
    scored: Mapping[str, FeatureTable]
    splits: Sequence[str]


@dataclass(frozen=True)
class Outcome:
    """A finished run; `predictions` and `validation_uar` are None where it diverged."""

    run: Run
    predictions: Predictions | None
    validation_uar: float | None
    best_epoch: int
    diverged: int | None


def ground_of(config: FusionConfig, corpus: Corpus, sweep: SweepConfig) -> Ground:
    """Load everything that runs of this shape need.

    Raises:
        ValueError: features are missing; with the command that makes them.
    """
    tables = load_tables(config, corpus)
    scored = {
        joint.name: tables.main
        if joint == config.condition
        else sharing(table_under(config, corpus, joint), tables.main)
        for joint in sweep.conditions or (config.condition,)
    }
    for table in scored.values():
        refuse_mixed(tables.main, table)
    cached = cached_rows(tables.main, tables.variants, torch_device(config.device))
    return Ground(config, tables.main, cached, scored, SPLITS if sweep.test else ("validation",))


def jobs_of(ground: Ground, runs: Sequence[Run]) -> list[Job]:
    """What the runs ask of the trainer.

    Raises:
        ValueError: one would test on speakers that an encoder was fine-tuned on.
    """
    refuse_tuned_on([run.fold for run in runs], tuned_on(ground.main))
    return [Job.of(run.configuration.fusion, ground.main, run.fold, run.seed) for run in runs]


def train_stack(ground: Ground, runs: Sequence[Run]) -> list[Outcome]:
    """Train runs of one shape together, and predict each one's validation and test clips."""
    settings = ModelSettings.of(ground.config, ground.main)
    fitted = fit_stack(settings, ground.cached, jobs_of(ground, runs), Schedule.of(ground.config))
    return [_outcome(ground, run, one) for run, one in zip(runs, fitted, strict=True)]


def score(predictions: Predictions) -> float:
    """Mean UAR over the conditions of one run's (or fold's) validation clips."""
    validation = predictions.select(split="validation")
    parts = [validation.select(condition=str(name)) for name in np.unique(validation.condition)]
    return float(np.mean([uar(part.label, part.predicted) for part in parts]))


def _outcome(ground: Ground, run: Run, fitted: Fitted) -> Outcome:
    history = fitted.history
    if history.diverged is not None:
        return Outcome(run, None, None, history.best_epoch, history.diverged)
    parts = [
        predictions_of(
            fitted.model,
            table.take(run.fold.clip_ids(split, table.clips)),
            run.configuration.fusion.protocol,
            run.fold.number,
            run.seed,
            split,
        )
        for table in ground.scored.values()
        for split in ground.splits
    ]
    predictions = concatenate(parts)
    return Outcome(run, predictions, score(predictions), history.best_epoch, None)


def use_threads(count: int) -> None:
    """Torch's threads of this process; results must not depend on how many ranks there are."""
    torch.set_num_threads(count)
