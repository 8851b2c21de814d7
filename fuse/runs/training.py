"""Runs of stage two: every fold and seed of a configuration trained, predicted and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.corpus.clips import Corpus
from cache.features.table import FeatureTable
from cache.protocols.folds import Fold
from configs.command.again import again
from configs.command.progress import Progress
from configs.loader import dump_config
from configs.schema.fusion import FusionConfig
from fuse.model.fusion import FusionModel, ModelSettings, Standardiser
from fuse.runs.adaptation import SpeakerStatistics, speaker_statistics
from fuse.runs.caveats import caveats, run_in_words
from fuse.runs.checkpoint import Checkpoint
from fuse.runs.familiarity import Familiarity, familiarity
from fuse.runs.folder import write_run
from fuse.runs.predict import predictions_of
from fuse.runs.tables import Tables, raw_table
from fuse.runs.training_figure import RunHistory
from fuse.scores.predictions import Predictions, concatenate
from fuse.stack.job import Fitted, History, Job
from fuse.stack.rows import cached_rows, torch_device
from fuse.stack.stack import Schedule
from fuse.stack.width import fit_jobs, width_of


@dataclass(frozen=True)
class TrainedRun:
    """One fold and seed; `stack_width`: how many heads were trained at once, which the last bits depend on."""

    fold: Fold
    seed: int
    model: FusionModel
    history: History
    predictions: Predictions
    stack_width: int


def train_all(config: FusionConfig, tables: Tables, folds: Sequence[Fold], progress: Progress) -> list[TrainedRun]:
    """Train every fold and seed at once, and predict each fold's other speakers.

    Raises:
        ValueError: a run's loss is not finite; names the run, the epoch and what to lower.
    """
    cached = cached_rows(tables.main, tables.variants, torch_device(config.device))
    pairs = [(fold, seed) for fold in folds for seed in config.seeds]
    jobs = [Job.of(config, tables.main, fold, seed) for fold, seed in pairs]
    settings, schedule = ModelSettings.of(config, tables.main), Schedule.of(config)
    width = width_of(settings, cached, jobs, schedule, config.stack_width)
    fitted = fit_jobs(settings, cached, jobs, schedule, width, progress.add)
    return [_trained(config, tables.main, *pair, one, width) for pair, one in zip(pairs, fitted, strict=True)]


def write_runs(config: FusionConfig, table: FeatureTable, runs: Sequence[TrainedRun], out: Path) -> dict[str, Any]:
    """A folder per run and, where there are several, one that sums them up; returns the latter's metrics."""
    note = caveats(config, table)
    caption = run_in_words(config.output_dir, config.head, config.modalities, config.condition)
    text = dump_config(config)
    speakers = _known_speakers(config, table)
    familiar = {one.fold: _familiarity(table, one) for one in {one.fold: one for one in runs}.values()}
    metrics: dict[str, Any] = {}
    shared = {"left_out": list(table.left_out), "stack_width": runs[0].stack_width}
    for one in runs:
        folder = out if len(runs) == 1 else out / f"fold-{one.fold.number}" / f"seed-{one.seed}"
        metrics = write_run(
            folder,
            config_yaml=text,
            predictions=one.predictions,
            history=[_history(one)],
            checkpoint=_checkpoint(config, table, one, speakers, familiar[one.fold]),
            extra={"best_epoch": one.history.best_epoch + 1, **shared},
            note=note,
            caption=caption,
            tensorboard=config.tensorboard,
        )
    if len(runs) > 1:
        metrics = write_run(
            out,
            config_yaml=text,
            predictions=concatenate([one.predictions for one in runs]),
            history=[_history(one) for one in runs],
            checkpoint=None,
            extra={"runs": len(runs), **shared},
            note=note,
            caption=caption,
        )
    return metrics


def _checkpoint(
    config: FusionConfig,
    table: FeatureTable,
    one: TrainedRun,
    speakers: Mapping[str, SpeakerStatistics],
    familiar: Mapping[str, Familiarity],
) -> Checkpoint:
    return Checkpoint(
        settings=one.model.settings,
        state=one.model.state_dict(),
        label_names=table.label_names,
        layers=config.layers,
        standardise=config.standardise,
        condition=config.condition.name,
        protocol=config.protocol,
        fold=one.fold,
        seed=one.seed,
        encoders={name: origin.encoder for name, origin in table.origins.items()},
        features={name: origin.made for name, origin in table.origins.items()},
        speakers=speakers,
        familiarity=familiar,
    )


def _familiarity(table: FeatureTable, one: TrainedRun) -> dict[str, Familiarity]:
    """What a fold's training rows look like, standardised as its model sees them; runs of a fold share it."""
    parts = [np.array(table.rows_of(one.fold.clip_ids(part, table.clips)), np.intp) for part in ("train", "validation")]
    return {
        name: familiarity(*(_standardised(one.model.standardiser, name, values[rows]) for rows in parts))
        for name, values in table.features.items()
    }


def _standardised(standardiser: Standardiser, name: str, rows_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The same rows, in place: they may be as large as the table."""
    rows_ND -= standardiser.mean_[name].detach().numpy()
    rows_ND /= standardiser.scale_[name].detach().numpy()
    return rows_ND


def _known_speakers(config: FusionConfig, table: FeatureTable) -> dict[str, SpeakerStatistics]:
    """What an adapted run keeps of every speaker, so that they are known when their clips are predicted again."""
    if config.standardise != "speaker":
        return {}
    return speaker_statistics(raw_table(config, Corpus(Path(), table.clips, table.label_names), config.condition))


def _trained(
    config: FusionConfig, table: FeatureTable, fold: Fold, seed: int, fitted: Fitted, width: int
) -> TrainedRun:
    if fitted.history.diverged is not None:
        raise ValueError(
            f"fold {fold.number}, seed {seed}: training diverged in epoch {fitted.history.diverged + 1}; "
            f"lower optim.lr: {again(f'optim.lr={config.optim.lr / 10:g}')}"
        )
    parts = [
        predictions_of(
            fitted.model,
            table.take(fold.clip_ids(split, table.clips)),
            config.protocol,
            fold.number,
            seed,
            split,
        )
        for split in ("validation", "test")
    ]
    return TrainedRun(fold, seed, fitted.model, fitted.history, concatenate(parts), width)


def _history(one: TrainedRun) -> RunHistory:
    return RunHistory(one.fold.number, one.seed, one.history)
