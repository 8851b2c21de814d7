"""Stage two, `make train-fusion`: heads on cached features, one run per fold and seed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cache.corpus.clips import read_corpus
from cache.features.table import FeatureTable
from cache.protocols.folds import LEAKS_SPEAKERS, Fold
from cache.protocols.leakage import recorded_hashes, refuse_leaks
from configs.command.entry import main
from configs.command.progress import Progress
from configs.loader import dump_config
from configs.schema.fusion import FusionConfig
from configs.schema.protocols import load_protocol
from fuse.model.fusion import FusionModel, ModelSettings, plain_settings
from fuse.model.heads.base import Penalty
from fuse.runs.adaptation import ADAPTED, SpeakerStatistics, speaker_statistics
from fuse.runs.folder import METRICS, write_run
from fuse.runs.tables import Tables, load_tables, raw_table
from fuse.scores.predictions import Predictions, concatenate
from fuse.stack.job import Fitted, History, Job
from fuse.stack.rows import cached_rows
from fuse.stack.stack import Schedule
from fuse.stack.width import fit_jobs

RANDOM_NOTE = "random-weight encoders: plumbing, not a result"


@dataclass(frozen=True)
class TrainedRun:
    """One fold and seed."""

    fold: Fold
    seed: int
    model: FusionModel
    history: History
    predictions: Predictions


def run(config: FusionConfig) -> int:
    """Train every fold and seed, write the run folders, print the scores."""
    torch.set_num_threads(config.threads)
    corpus = read_corpus(Path(config.corpus))
    protocol = load_protocol(config.protocol)
    tables = load_tables(config, corpus.clips)
    folds = protocol.folds(tables.main.clips)
    for line in refuse_leaks(folds, tables.main.clips, recorded_hashes(Path(config.features_dir), tables.main.clips)):
        print(f"note: {line}")
    out = Path(config.output_dir)
    _clear(out)
    with Progress("fusion", len(folds) * len(config.seeds), "runs") as progress:
        runs = train_all(config, tables, folds, progress)
    metrics = write_runs(config, tables.main, runs, out)
    _report(out, tables.main, metrics, caveats(config, tables.main))
    return 0


def train_all(config: FusionConfig, tables: Tables, folds: Sequence[Fold], progress: Progress) -> list[TrainedRun]:
    """Train every fold and seed at once, and predict each fold's other speakers.

    Raises:
        ValueError: a run's loss is not finite; names the run, the epoch and what to lower.
    """
    cached = cached_rows(tables.main, tables.variants, torch_device(config.device))
    pairs = [(fold, seed) for fold in folds for seed in config.seeds]
    jobs = [job_of(config, tables.main, fold, seed) for fold, seed in pairs]
    fitted = fit_jobs(settings_of(config, tables.main), cached, jobs, schedule_of(config), progress.add)
    return [_trained(config, tables.main, *pair, one) for pair, one in zip(pairs, fitted, strict=True)]


def settings_of(config: FusionConfig, table: FeatureTable) -> ModelSettings:
    """What the heads of a configuration are shaped by."""
    widths = {name: values.shape[1] for name, values in table.features.items()}
    return ModelSettings(config.head, widths, config.hidden, config.dropout, dict(table.mixed), config.missing)


def schedule_of(config: FusionConfig) -> Schedule:
    """What the heads of a configuration share in time."""
    return Schedule(config.optim.epochs, config.optim.batch_size, config.optim.keep)


def job_of(config: FusionConfig, table: FeatureTable, fold: Fold, seed: int) -> Job:
    """One fold and seed of a configuration."""
    optim = config.optim
    return Job(
        rows_of(table, fold, "train"),
        rows_of(table, fold, "validation"),
        seed,
        optim.lr,
        optim.weight_decay,
        config.dropout,
        optim.label_smoothing,
        optim.mixup,
        config.augment.probability,
        config.modality_dropout,
        Penalty(optim.shrinkage, optim.regularisation),
        config.standardise != "none",
    )


def rows_of(table: FeatureTable, fold: Fold, part: str) -> tuple[int, ...]:
    """Row numbers of a fold's clips."""
    wanted = frozenset(fold.clip_ids(part, table.clips))
    return tuple(row for row, clip in enumerate(table.clips) if clip.clip_id in wanted)


def torch_device(name: str) -> torch.device:
    """Where heads are trained.

    Raises:
        ValueError: a GPU is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda: torch finds no GPU here; set device=auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _trained(config: FusionConfig, table: FeatureTable, fold: Fold, seed: int, fitted: Fitted) -> TrainedRun:
    if fitted.history.diverged is not None:
        raise ValueError(
            f"fold {fold.number}, seed {seed}: training diverged in epoch {fitted.history.diverged + 1}; "
            f"lower optim.lr={config.optim.lr:g}"
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
    return TrainedRun(fold, seed, fitted.model, fitted.history, concatenate(parts))


def predict(model: FusionModel, rows: Mapping[str, torch.Tensor]) -> npt.NDArray[np.float64]:
    """Class probabilities (N, C) from raw features, NaN where a clip lacks a modality."""
    model.eval()
    with torch.inference_mode():
        probabilities_NC: npt.NDArray[np.float64] = model(rows).double().softmax(1).numpy()
    return probabilities_NC


def predictions_of(
    model: FusionModel,
    table: FeatureTable,
    protocol: str,
    fold: int,
    seed: int,
    split: str,
    modalities: Sequence[str] | None = None,
) -> Predictions:
    """Predict a table's clips; modalities of the model that are not named are withheld."""
    given = tuple(model.widths) if modalities is None else tuple(modalities)
    rows = {
        name: torch.from_numpy(table.features[name])
        if name in given
        else torch.full((len(table.clips), width), torch.nan)
        for name, width in model.widths.items()
    }
    return Predictions.of(
        [clip.clip_id for clip in table.clips],
        [clip.speaker for clip in table.clips],
        [clip.sex for clip in table.clips],
        table.labels,
        predict(model, rows),
        protocol=protocol,
        fold=fold,
        seed=seed,
        split=split,
        condition=table.condition,
        modalities="+".join(given),
    )


def write_runs(config: FusionConfig, table: FeatureTable, runs: Sequence[TrainedRun], out: Path) -> dict[str, Any]:
    """A folder per run and, where there are several, one that sums them up; returns the latter's metrics."""
    note = caveats(config, table)
    text = dump_config(config)
    speakers = _enrolled(config, table)
    metrics: dict[str, Any] = {}
    for one in runs:
        folder = out if len(runs) == 1 else out / f"fold-{one.fold.number}" / f"seed-{one.seed}"
        metrics = write_run(
            folder,
            config_yaml=text,
            predictions=one.predictions,
            history=[_history(one)],
            checkpoint=checkpoint_of(config, one) | speakers,
            extra={"best_epoch": one.history.best_epoch + 1, "left_out": list(table.left_out)},
            note=note,
        )
    if len(runs) > 1:
        metrics = write_run(
            out,
            config_yaml=text,
            predictions=concatenate([one.predictions for one in runs]),
            history=[_history(one) for one in runs],
            checkpoint=None,
            extra={"runs": len(runs), "left_out": list(table.left_out)},
            note=note,
        )
    return metrics


def caveats(config: FusionConfig, table: FeatureTable) -> str:
    """What must stand beside every number of a configuration; "" if nothing."""
    leaks = load_protocol(config.protocol).leaks_speakers
    said = {RANDOM_NOTE: table.random_weights, LEAKS_SPEAKERS: leaks, ADAPTED: config.standardise == "speaker"}
    return "; ".join(text for text, applies in said.items() if applies)


def checkpoint_of(config: FusionConfig, one: TrainedRun) -> dict[str, Any]:
    """Everything that is needed to use the head again; plain values and tensors only."""
    return {
        "settings": plain_settings(one.model.settings),
        "state": one.model.state_dict(),
        "features": {key: asdict(config)[key] for key in ("encoders", "layers", "modalities")},
        "protocol": config.protocol,
        "fold": one.fold.number,
        "seed": one.seed,
        "division": asdict(one.fold),
        "standardise": config.standardise,
    }


def _enrolled(config: FusionConfig, table: FeatureTable) -> dict[str, Any]:
    """What an adapted run keeps of every speaker, so that they are known when their clips are predicted again."""
    if config.standardise != "speaker":
        return {}
    known = speaker_statistics(raw_table(config, table.clips, config.condition))
    return {
        "speakers": {
            speaker: {
                part: {name: torch.from_numpy(values) for name, values in getattr(one, part).items()}
                for part in ("mean", "scale")
            }
            for speaker, one in known.items()
        }
    }


def enrolled_statistics(checkpoint: Mapping[str, Any]) -> dict[str, SpeakerStatistics]:
    """The speakers that an adapted run knows, for `fuse.runs.adaptation.adapted`."""
    kept = checkpoint.get("speakers", {})
    return {
        speaker: SpeakerStatistics(
            *({name: values.numpy() for name, values in one[part].items()} for part in ("mean", "scale"))
        )
        for speaker, one in kept.items()
    }


def fold_of(checkpoint: Mapping[str, Any]) -> Fold:
    """The fold that a checkpoint was trained in: who was never seen there."""
    return Fold(**checkpoint["division"])


def load_model(path: Path) -> tuple[FusionModel, dict[str, Any]]:
    """A trained head and its checkpoint."""
    try:
        checkpoint: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        model = FusionModel(ModelSettings(**checkpoint["settings"]))
        model.load_state_dict(checkpoint["state"])
    except (OSError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"{path} is no checkpoint of a fusion head ({type(error).__name__}); train one again"
        ) from error
    if "encoders" in checkpoint:
        raise ValueError(
            f"{path} was fine-tuned with encoders of its own, which cached features do not come from; "
            "name the run of stage two"
        )
    return model.eval(), checkpoint


def _history(one: TrainedRun) -> dict[str, Any]:
    return {"fold": one.fold.number, "seed": one.seed, **asdict(one.history)}


def _clear(out: Path) -> None:
    """Remove an earlier run's scores and folds, so that old and new numbers never stand side by side."""
    (out / METRICS).unlink(missing_ok=True)
    for fold in out.glob("fold-*"):
        if any(fold.glob("seed-*")):
            shutil.rmtree(fold)


def _report(out: Path, table: FeatureTable, metrics: Mapping[str, Any], note: str) -> None:
    for split in ("validation", "test"):
        scores = metrics[split]
        print(
            f"{split:10} UAR {scores['uar']:.3f}  accuracy {scores['accuracy']:.3f}  "
            f"({scores['clips']} clips, {scores['speakers']} speakers)"
        )
    print_caveats(out, table.left_out, note)


def print_caveats(out: Path, left_out: Sequence[str], note: str) -> None:
    """The last lines of every run: what its numbers rest on, and where they are."""
    if left_out:
        print(f"{len(left_out)} clips left out: they failed in stage one (failures.csv)")
    if note:
        print(f"note: {note}")
    print(f"run folder: {out}")


if __name__ == "__main__":
    sys.exit(main(FusionConfig, run, "Stage two: train fusion heads on cached features."))
