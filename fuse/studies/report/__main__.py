"""`make report`: pictures of what a run rests on, written into its folder beside those from training.

features.png shows clips of one fold that nobody trained on; layers.png and layers.csv score every layer of each
modality by itself, on validation speakers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from cache.corpus.clips import Corpus
from cache.features.table import FeatureTable
from cache.files.atomic import write_atomic
from cache.files.csv import csv_of
from cache.protocols.folds import Fold
from configs.command.entry import main
from configs.command.progress import Progress
from configs.schema.fusion import FusionConfig
from configs.schema.protocols import load_protocol
from configs.schema.studies import ReportConfig
from fuse.model.fusion import FusionModel
from fuse.runs.caveats import caveats, run_in_words
from fuse.runs.checkpoint import read_stage_two
from fuse.runs.folder import CHECKPOINT, CONFUSION_MATRIX, REPORT, TRAINING_CURVES, run_folders
from fuse.runs.style import footer
from fuse.runs.tables import corpus_of, print_notes, table_under, trained_config
from fuse.studies.report.features_figure import features_figure
from fuse.studies.report.layers import INVERSE_PENALTY, LayerScore, StoredLayer, probe_layer, stored_layers
from fuse.studies.report.layers_figure import layers_figure
from fuse.studies.report.projection import METHODS, project

FEATURES = "features.png"
LAYERS = "layers.png"
LAYERS_TABLE = "layers.csv"
FUSED = "fused"
# t-SNE takes minutes for more, and nobody can tell more points apart.
CLIPS_SHOWN_AT_MOST = 1500
# Their last layer sees the modalities themselves.
WITHOUT_HIDDEN_LAYER = ("linear", "lda", "logistic")


def run(config: ReportConfig) -> int:
    """Draw the figures, write the table, say where everything is."""
    torch.set_num_threads(config.threads)
    folder = Path(config.run)
    leaf = run_folders(folder)[0]
    # First the checkpoint: a fine-tuned run says there what it is.
    checkpoint = read_stage_two(leaf / CHECKPOINT)
    trained = trained_config(leaf, checkpoint, config.corpus, config.features_dir, config.labels)
    corpus = corpus_of(trained)
    print_notes(corpus)
    table = table_under(trained, corpus, trained.condition)
    checkpoint.refuse_other_ground(table, leaf)
    fold, note = checkpoint.fold, caveats(trained, table)
    below = footer(run_in_words(config.run, trained.head, trained.modalities, trained.condition), note)
    with threadpool_limits(config.threads):
        scores = probe_layers(trained, corpus)
        write_atomic(folder / LAYERS_TABLE, csv_of(scores))
        scored_on = "validation clips" if fold.leaks_speakers else "validation speakers"
        classes = len(table.label_names)
        layers_figure(scores, folder / LAYERS, layers_title(trained, scores), below, scored_on, classes=classes)
        shown, whose = shown_clips(fold, table)
        title = f"{whose}: fold {fold.number} of {trained.protocol}, seed {checkpoint.seed}"
        training = table.take(fold.clip_ids("train", table.clips))
        draw_features(checkpoint.head(), training, shown, folder / FEATURES, title, below)
    _print(folder, scores, note)
    return 0


def probe_layers(trained: FusionConfig, corpus: Corpus) -> list[LayerScore]:
    """Every layer of the run's modalities by itself, over the folds of the run's protocol."""
    stored = stored_layers(Path(trained.features_dir), trained.modalities, trained.condition, trained.encoders)
    protocol, scores = load_protocol(trained.protocol), []
    with Progress("report", len(stored), "layers") as progress:
        for what in stored:
            table = _table_of(trained, corpus, what)
            scores.append(probe_layer(table, protocol.folds(table.clips), what))
            progress.add(1)
    return scores


def _table_of(trained: FusionConfig, corpus: Corpus, what: StoredLayer) -> FeatureTable:
    encoders = {what.modality: what.encoder}
    alone = replace(trained, modalities=(what.modality,), layers=what.layer, encoders=encoders)
    return table_under(alone, corpus, trained.condition)


def layers_title(trained: FusionConfig, scores: Sequence[LayerScore]) -> str:
    """What the probe is and what its numbers rest on."""
    most = max(scores, key=lambda score: score.clips)
    rests = f"{trained.protocol}: {most.clips} clips, {most.speakers} speakers"
    interval = ", 95 % intervals" if any(score.low is not None for score in scores) else ", too few for intervals"
    return f"logistic regression on one layer (C = {INVERSE_PENALTY:g})\n{rests}{interval}"


def shown_clips(fold: Fold, table: FeatureTable) -> tuple[FeatureTable, str]:
    """Clips that the head was not trained on, and in words whose they are.

    Those of the test speakers; where there is only one, of the validation speakers too, to compare with.
    """
    parts = ["test"] if len(fold.test) > 1 else ["validation", "test"]
    clip_ids = [clip_id for part in parts for clip_id in fold.clip_ids(part, table.clips)]
    every = np.linspace(0, len(clip_ids) - 1, min(len(clip_ids), CLIPS_SHOWN_AT_MOST)).round().astype(int)
    shown = table.take([clip_ids[place] for place in every])
    counted = f"{len(every)} clips" if len(every) == len(clip_ids) else f"{len(every)} of {len(clip_ids)} clips"
    speakers = len(np.unique(shown.speakers))
    if fold.leaks_speakers:
        return shown, f"{counted} for test, of {speakers} speakers trained on"
    return shown, f"{counted} of {speakers} {' and '.join(parts)} speakers"


def draw_features(
    model: FusionModel, training: FeatureTable, shown: FeatureTable, path: Path, title: str, note: str
) -> None:
    """features.png: the raw features of each modality, and what the head's last layer sees of all of them."""
    spaces, references = feature_spaces(model, shown), feature_spaces(model, training)
    projections = {name: project(spaces[name], references[name]) for name in spaces}
    names = {name: space_name(name, values_ND) for name, values_ND in spaces.items()}
    if FUSED in names and model.settings.head in WITHOUT_HIDDEN_LAYER:
        names[FUSED] += "\n(side by side: no hidden layer)"
    placed = {method: {names[name]: one.coordinates[method] for name, one in projections.items()} for method in METHODS}
    shares = {names[name]: one.shares for name, one in projections.items()}
    sexes_N = np.array([clip.sex for clip in shown.clips])
    features_figure(placed, shown.labels, shown.label_names, shown.speakers, sexes_N, path, title, note, shares)


def space_name(name: str, values_ND: NDArray[np.float32]) -> str:
    """What stands beside a row of the figure; clips of equal features would hide each other unnoticed."""
    given_ND = values_ND[np.isfinite(values_ND).all(axis=1)]
    words = [name, f"{values_ND.shape[1]} features"]
    different = len(np.unique(given_ND, axis=0))
    if different < len(given_ND) / 2:
        words.append(f"only {different} different rows")
    if len(given_ND) < len(values_ND):
        words.append(f"{len(given_ND)} clips have it")
    return "\n".join(words)


def feature_spaces(model: FusionModel, table: FeatureTable) -> dict[str, NDArray[np.float32]]:
    """Each modality's rows as the head reads them, and the fused ones of several; NaN where a clip lacks a modality."""
    if len(table.features) == 1:
        return dict(table.features)
    rows = {name: torch.from_numpy(values) for name, values in table.features.items()}
    with torch.inference_mode():
        fused_NH = model.fused(rows).numpy()
    return {**table.features, FUSED: fused_NH}


def _print(folder: Path, scores: Sequence[LayerScore], note: str) -> None:
    for modality in dict.fromkeys(score.modality for score in scores):
        best = max((score for score in scores if score.modality == modality), key=lambda score: score.uar)
        print(
            f"{modality:10} best layer {best.layer} of {sum(score.modality == modality for score in scores)}: "
            f"validation UAR {best.uar:.3f} ({best.clips} clips, {best.speakers} speakers)"
        )
    if note:
        print(f"note: {note}")
    names = (FEATURES, LAYERS, LAYERS_TABLE, CONFUSION_MATRIX, TRAINING_CURVES, REPORT)
    print(f"in {folder}: {', '.join(name for name in names if (folder / name).is_file())}")


if __name__ == "__main__":
    sys.exit(main(ReportConfig, run, "Pictures of what a run rests on: its features, and what each layer knows."))
