"""A run is its folder: everything needed to check it, to recompute its numbers and to use its head."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from cache.files.atomic import write_atomic
from cache.files.commands import make_command, setting
from configs.command.again import again, beside
from fuse.runs.checkpoint import Checkpoint, write_checkpoint
from fuse.runs.confusion_figure import confusion_matrix_figure
from fuse.runs.style import footer, numbered_labels
from fuse.runs.training_figure import RunHistory, training_curves_figure
from fuse.scores.intervals import uar_interval
from fuse.scores.jackknife import tallies
from fuse.scores.metrics import classification_text, speaker_scores, summarise, uar
from fuse.scores.predictions import SPLITS, Predictions, write_predictions
from fuse.scores.speakers import speaker_sexes, spread_of

CONFIG = "config.yaml"
METRICS = "metrics.json"
PREDICTIONS = "predictions.csv"
CHECKPOINT = "best_model.pth"
CONFUSION_MATRIX = "confusion_matrix.png"
TRAINING_CURVES = "training_curves.png"
REPORT = "classification_report.txt"
EVENTS = "tensorboard"
STAGING = ".new"
# Of a fine-tuned run: its encoders for others.
EXPORT = "export"
# Settings that say where and how a run is made, not what it is.
FREE_TO_DIFFER = frozenset(
    {
        "output_dir",
        "remote",
        "overwrite",
        "threads",
        "device",
        "stack_width",
        "loader_workers",
        "checkpoint_minutes",
        "hang_seconds",
        "tensorboard",
    }
)


def write_run(
    folder: Path,
    *,
    config_yaml: str,
    predictions: Predictions,
    history: Sequence[RunHistory],
    checkpoint: Checkpoint | None,
    shown: str = "test",
    extra: Mapping[str, Any] | None = None,
    note: str = "",
    caption: str = "",
    tensorboard: bool = False,
) -> dict[str, Any]:
    """Write a run's files, each complete or not at all, and return what metrics.json holds.

    metrics.json comes last and its absence says that the run is not complete: one that is written again
    loses it first.

    Args:
        folder: the run's folder; it is made where it is missing.
        config_yaml: the resolved configuration.
        predictions: the test split, and the validation split where there is one, of one condition and one
            modality subset; one seed and fold, or several.
        history: of each run, what its training curves show.
        checkpoint: of its model; None where the folder only sums up the runs below it.
        shown: the split that confusion matrix and report are of.
        extra: further keys of metrics.json, as JSON knows them.
        note: a caveat to stand in the figures, the report and metrics.json.
        caption: what the figures are of: run, head, modalities and condition.
        tensorboard: whether losses, scores and figures are written for TensorBoard as well; of one run, not of a sum.

    Raises:
        ValueError: there are no predictions of what is shown, or they are not one evaluation (see `summarise`).
        pickle.UnpicklingError: the checkpoint holds something else than weights and plain values.
    """
    if not len(predictions.select(split=shown)):
        raise ValueError(f"{folder}: a run needs predictions of its {shown} speakers, and there are none")
    metrics = _metrics(predictions, extra or {}, note)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / METRICS).unlink(missing_ok=True)
    write_atomic(folder / CONFIG, config_yaml)
    write_predictions(predictions, folder / PREDICTIONS)
    if checkpoint is None:
        # What an earlier run left here would not belong to these numbers.
        (folder / CHECKPOINT).unlink(missing_ok=True)
    else:
        write_checkpoint(checkpoint, folder / CHECKPOINT)
    _write_shown(folder, predictions, shown, history, note, caption)
    if tensorboard:
        write_events(folder, history, metrics)
    write_atomic(folder / METRICS, json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    return metrics


def _write_shown(
    folder: Path, predictions: Predictions, shown: str, history: Sequence[RunHistory], note: str, caption: str
) -> None:
    """Figures and report."""
    scored = predictions.select(split=shown)
    below = footer(caption, note)
    confusion_matrix_figure(scored, folder / CONFUSION_MATRIX, below)
    training_curves_figure(history, folder / TRAINING_CURVES, below, classes=len(predictions.label_names))
    said = [line for line in (numbered_labels(predictions.label_names), note) if line]
    write_atomic(folder / REPORT, classification_text(scored) + "".join(f"\n{line}\n" for line in said))


def write_events(folder: Path, history: Sequence[RunHistory], metrics: Mapping[str, Any]) -> None:
    """What TensorBoard shows of a run: losses and validation UAR by epoch, test scores, and the figures that are there.

    PyTorch's own writer names its file by time, machine and process; it is no part of what makes equal runs equal.
    """
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder / EVENTS, ignore_errors=True)
    with SummaryWriter(str(folder / EVENTS)) as writer:
        for run in history:
            for name in ("train_loss", "validation_loss", "validation_uar"):
                for epoch, value in enumerate(getattr(run.history, name), start=1):
                    writer.add_scalar(name.replace("_", "/", 1), value, epoch)
        for name in ("uar", "accuracy", "ece"):
            if metrics["test"]:
                writer.add_scalar(f"test/{name}", metrics["test"][name], 0)
        for name in (CONFUSION_MATRIX, TRAINING_CURVES):
            with Image.open(folder / name) as picture:
                pixels_HWC = np.asarray(picture.convert("RGB"))
            writer.add_image(Path(name).stem, pixels_HWC, dataformats="HWC")


def refuse_no_tensorboard(wanted: bool) -> None:
    """Refuse to train for TensorBoard where its package is not there: that would come out when all is done.

    Raises:
        ValueError: one line with the command that installs it.
    """
    if wanted and find_spec("tensorboard") is None:
        raise ValueError(f"tensorboard=true needs its package: {sys.executable} -m pip install tensorboard")


def refuse_other_run(out: Path, config_yaml: str, overwrite: bool) -> None:
    """Refuse to replace a run of another configuration, unless that is asked for.

    Raises:
        ValueError: one line with the first key that differs, and what to do.
    """
    if overwrite or not (out / CONFIG).is_file() or not (is_complete(out) or any(out.glob("fold-*/seed-*"))):
        return
    there, wanted = (yaml.safe_load(text) or {} for text in ((out / CONFIG).read_text(encoding="utf-8"), config_yaml))
    for key in (*wanted, *there):
        # A key that an older version did not know says as little as an empty one.
        if key not in FREE_TO_DIFFER and (there.get(key) or None) != (wanted.get(key) or None):
            raise ValueError(
                f"{out} holds a run of another configuration ({key}: {there.get(key)} there, {wanted.get(key)} now); "
                f"set another output_dir, or replace it: {again('overwrite=true')}"
            )


@contextmanager
def replacing(out: Path, keep: str = "") -> Iterator[Path]:
    """Yield a folder for a new run; a whole run that was written there takes the earlier one's place, else it vanishes.

    So an interrupted run leaves the one before it whole, and old and new numbers never stand side by side. Ranks that
    died while they wrote raise nothing here: only metrics.json, which comes last, says that they were done.

    Args:
        out: the run's folder.
        keep: an entry of the new folder that outlives whatever interrupts this, and is there the next time: what a
            long training needs to go on. It goes when the run is whole.
    """
    staging = out / STAGING
    _clear(staging, keep)
    staging.mkdir(parents=True, exist_ok=True)
    try:
        yield staging
        if is_complete(staging):
            _swap(staging, out, keep)
            shutil.rmtree(staging)
    finally:
        _clear(staging, keep)


def _clear(staging: Path, keep: str) -> None:
    """Remove all but one entry; and the folder where that is not there, or empty."""
    for entry in staging.iterdir() if staging.is_dir() else ():
        if entry.name != keep or (entry.is_dir() and not any(entry.iterdir())):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    if staging.is_dir() and not any(staging.iterdir()):
        staging.rmdir()


def _swap(staging: Path, out: Path, keep: str) -> None:
    (out / METRICS).unlink(missing_ok=True)
    for fold in out.glob("fold-*"):
        if any(fold.glob("seed-*")):
            shutil.rmtree(fold)
    shutil.rmtree(out / EVENTS, ignore_errors=True)
    # Of the folder itself everything that a run may hold: a sum of runs has no checkpoint of its own.
    for name in (CONFIG, PREDICTIONS, CHECKPOINT, CONFUSION_MATRIX, TRAINING_CURVES, REPORT):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / EXPORT, ignore_errors=True)
    entries = [entry for entry in staging.iterdir() if entry.name != keep]
    for entry in sorted(entries, key=lambda path: path.name == METRICS):
        entry.rename(out / entry.name)


def is_complete(folder: Path) -> bool:
    """Whether a run was written to its end."""
    return (folder / METRICS).is_file()


def run_folders(folder: Path) -> list[Path]:
    """The runs of one folder: each `fold-K/seed-S` below it, in numerical order, or the folder itself.

    Raises:
        ValueError: there is no run, or one of several was never finished.
    """
    leaves = [path for path in folder.glob("fold-*/seed-*") if path.is_dir() and _numbers(folder, path)]
    leaves.sort(key=lambda path: _numbers(folder, path))
    # One fold and seed comes of training them all.
    whole = folder.parents[1] if folder.match("fold-*/seed-*") else folder
    kept = whole / CONFIG
    config = kept if kept.is_file() else beside("fusion*.yaml", "output_dir", str(whole))
    command = make_command("train-fusion", [setting("output_dir", whole)], config)
    remedy = f"train {'it' if leaves else 'one'} with: {command}"
    for leaf in leaves:
        if not is_complete(leaf):
            raise ValueError(f"run {leaf} is not complete (no {METRICS}); {remedy}")
    if not leaves and not is_complete(folder):
        raise ValueError(f"no run in {folder} (no {METRICS}); {remedy}")
    return leaves or [folder]


def _metrics(predictions: Predictions, extra: Mapping[str, Any], note: str) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for split in reversed(SPLITS):
        part = predictions.select(split=split)
        metrics[split] = _evaluation(part) if len(part) else None
    assert not set(metrics) & set(extra), "extra must not replace the scores"
    labels = {"labels": list(predictions.label_names)}
    return {**metrics, **labels, **extra, **({"note": note} if note else {})}


def _evaluation(predictions: Predictions) -> dict[str, Any]:
    scores = speaker_scores(predictions, uar)
    interval = uar_interval(tallies(predictions))
    return {
        **summarise(predictions),
        "interval": asdict(interval) if interval else None,
        "spread": asdict(spread_of(scores, speaker_sexes(predictions))),
        "speakers_uar": scores,
    }


def _numbers(folder: Path, leaf: Path) -> tuple[int, ...]:
    """(K, S) of fold-K/seed-S; () for any other name."""
    texts = [part.partition("-")[2] for part in leaf.relative_to(folder).parts]
    return tuple(map(int, texts)) if all(text.isdecimal() for text in texts) else ()
