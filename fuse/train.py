"""Stage two, `make train-fusion`: heads on cached features, one run per fold and seed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cache.clips import Clip, read_corpus
from cache.feature_table import FeatureTable, load_table
from cache.splits import Fold
from configs.fusion import FusionConfig
from configs.loader import dump_config, main
from configs.protocols import load_protocol
from extract.progress import Progress
from fuse.fit import History, Rows, TrainingRows, fit, predict
from fuse.heads import FusionModel
from fuse.predictions import Predictions, concatenate
from fuse.run_folder import METRICS, write_run

RANDOM_NOTE = "random-weight encoders: plumbing, not a result"


@dataclass(frozen=True)
class Tables:
    """What training reads: one table to train, validate and test on, and variants to draw from."""

    main: FeatureTable
    variants: Mapping[str, Sequence[FeatureTable]]


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
    folds = protocol.folds({clip.speaker for clip in tables.main.clips})
    out = Path(config.output_dir)
    _clear(out)
    runs = []
    with Progress("fusion", len(folds) * len(config.seeds), "runs") as progress:
        for fold in folds:
            for seed in config.seeds:
                runs.append(train_one(config, tables, fold, seed))
                progress.add(1)
    metrics = write_runs(config, tables.main, runs, out)
    _report(out, tables.main, metrics)
    return 0


def load_tables(config: FusionConfig, clips: Sequence[Clip]) -> Tables:
    """The table of `condition` and those of the variants that training draws from."""
    features_dir = Path(config.features_dir)
    main_table = load_table(features_dir, clips, config.modalities, config.condition, config.layers, config.encoders)
    variants = {}
    for signal in ("audio", "video"):
        changed = [name for name in config.modalities if name == signal or (signal == "audio" and name == "text")]
        names = getattr(config.augment, signal) if signal in config.modalities else ()
        variants[signal] = [
            load_table(features_dir, clips, changed, name, config.layers, config.encoders) for name in names
        ]
    return Tables(main_table, variants)


def train_one(config: FusionConfig, tables: Tables, fold: Fold, seed: int) -> TrainedRun:
    """Fit one head on the fold's training speakers and predict its other speakers."""
    table = tables.main
    raw = {name: torch.from_numpy(values) for name, values in table.features.items()}
    train, validation, test = (table.rows_of(part) for part in (fold.train, fold.validation, fold.test))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        widths = {name: values.shape[1] for name, values in raw.items()}
        model = FusionModel(config.head, widths, config.hidden, config.dropout)
    model.standardiser.fit({name: values[train] for name, values in raw.items()}, config.standardise == "train")
    rows = _training_rows(config, tables, model, raw)
    history = fit(model, rows, torch.from_numpy(table.labels), train, validation, config.optim, seed)
    parts = [
        predictions_of(
            model, table.take([table.clips[row].clip_id for row in index]), config.protocol, fold.number, seed, split
        )
        for split, index in (("validation", validation), ("test", test))
    ]
    return TrainedRun(fold, seed, model, history, concatenate(parts))


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
    note = RANDOM_NOTE if table.random_weights else ""
    text = dump_config(config)
    metrics: dict[str, Any] = {}
    for one in runs:
        folder = out if len(runs) == 1 else out / f"fold-{one.fold.number}" / f"seed-{one.seed}"
        metrics = write_run(
            folder,
            config_yaml=text,
            predictions=one.predictions,
            history=[_history(one)],
            checkpoint=checkpoint_of(config, one),
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


def checkpoint_of(config: FusionConfig, one: TrainedRun) -> dict[str, Any]:
    """Everything that is needed to use the head again; plain values and tensors only."""
    return {
        "settings": one.model.settings,
        "state": one.model.state_dict(),
        "features": {key: asdict(config)[key] for key in ("encoders", "layers", "modalities")},
        "protocol": config.protocol,
        "fold": one.fold.number,
        "seed": one.seed,
        "speakers": {"train": one.fold.train, "validation": one.fold.validation, "test": one.fold.test},
    }


def load_model(path: Path) -> tuple[FusionModel, dict[str, Any]]:
    """A trained head and its checkpoint."""
    try:
        checkpoint: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        model = FusionModel(**checkpoint["settings"])
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


def _training_rows(config: FusionConfig, tables: Tables, model: FusionModel, raw: Rows) -> TrainingRows:
    standardised = model.standardiser(raw)
    variants = {
        signal: [_variant_rows(model, table, tables.main, raw) for table in several]
        for signal, several in tables.variants.items()
    }
    return TrainingRows(standardised, variants, config.augment.probability)


def _variant_rows(model: FusionModel, variant: FeatureTable, main_table: FeatureTable, raw: Rows) -> Rows:
    """A variant's rows in the main table's order; a clip that failed under the variant keeps its own row."""
    position = {clip.clip_id: row for row, clip in enumerate(variant.clips)}
    rows = [position.get(clip.clip_id, -1) for clip in main_table.clips]
    has = torch.tensor([row >= 0 for row in rows])
    mixed = dict(raw)
    for name, values in variant.features.items():
        mixed[name] = torch.where(has[:, None], torch.from_numpy(values[rows]), raw[name])
    standardised = model.standardiser(mixed)
    return {name: standardised[name] for name in variant.features}


def _history(one: TrainedRun) -> dict[str, Any]:
    return {"fold": one.fold.number, "seed": one.seed, **asdict(one.history)}


def _clear(out: Path) -> None:
    """Remove an earlier run's scores and folds, so that old and new numbers never stand side by side."""
    (out / METRICS).unlink(missing_ok=True)
    for fold in out.glob("fold-*"):
        if any(fold.glob("seed-*")):
            shutil.rmtree(fold)


def _report(out: Path, table: FeatureTable, metrics: Mapping[str, Any]) -> None:
    for split in ("validation", "test"):
        scores = metrics[split]
        print(
            f"{split:10} UAR {scores['uar']:.3f}  accuracy {scores['accuracy']:.3f}  "
            f"({scores['clips']} clips, {scores['speakers']} speakers)"
        )
    print_caveats(out, table.left_out, table.random_weights)


def print_caveats(out: Path, left_out: Sequence[str], random_weights: bool) -> None:
    """The last lines of every run: what its numbers rest on, and where they are."""
    if left_out:
        print(f"{len(left_out)} clips left out: they failed in stage one (failures.csv)")
    if random_weights:
        print(f"note: {RANDOM_NOTE}")
    print(f"run folder: {out}")


if __name__ == "__main__":
    sys.exit(main(FusionConfig, run, "Stage two: train fusion heads on cached features."))
