"""`make report`: one page about runs, report.html, and pictures of what each rests on, written into its folder.

features.png shows clips of one fold that nobody trained on; layers.png and layers.csv score every layer of each
modality by itself, on validation speakers. The page (`fuse.studies.report.page`) shows these and all that is known of
how the runs do: it reads predictions, and trains nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from cache.corpus.clips import Corpus, read_corpus
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
from fuse.runs.checkpoint import read_checkpoint
from fuse.runs.folder import CHECKPOINT, CONFUSION_MATRIX, REPORT, TRAINING_CURVES
from fuse.runs.style import footer
from fuse.runs.tables import corpus_of, print_notes, table_under, trained_config
from fuse.studies.report.features_figure import features_figure
from fuse.studies.report.layers import INVERSE_PENALTY, LayerScore, StoredLayer, probe_layer, stored_layers
from fuse.studies.report.layers_figure import layers_figure
from fuse.studies.report.page.clips import choose, contribution_rows, nothing_given, probability_rows
from fuse.studies.report.page.evidence import rounded
from fuse.studies.report.page.media import Shown, transcripts_of
from fuse.studies.report.page.media import shown_clips as shown_media
from fuse.studies.report.page.page import ClipBrowser, Grounds, write_page
from fuse.studies.report.page.subjects import Subject, read_subjects
from fuse.studies.report.projection import METHODS, Projection, project

PAGE = "report.html"
FEATURES = "features.png"
LAYERS = "layers.png"
LAYERS_TABLE = "layers.csv"
FUSED = "fused"
# t-SNE takes minutes for more, and nobody can tell more points apart.
CLIPS_SHOWN_AT_MOST = 1500
# Their last layer sees the modalities themselves.
WITHOUT_HIDDEN_LAYER = ("linear", "lda", "logistic")


def run(config: ReportConfig) -> int:
    """Draw each run's figures, write its table and the page, say where everything is."""
    torch.set_num_threads(config.threads)
    folders = run_names(config.run)
    subjects = read_subjects(folders, config.robustness)
    grounds = {one.name: found for one in subjects if (found := _grounds(config, one)) is not None}
    page = Path(config.out) if config.out else folders[0] / PAGE
    write_page(page, subjects, grounds, browser_of(config, subjects))
    for one in subjects:
        for note in one.notes:
            print(f"{one.name}: {note}")
    print(f"report: {page} ({page.stat().st_size / 1e6:.1f} MB, one file; open it in a browser)")
    return 0


def run_names(given: Sequence[str]) -> list[Path]:
    """Folders of runs; what is none may be several with spaces between them, as `RUN="a b"` gives them."""
    parts = [[text] if Path(text).is_dir() or not text.split() else text.split() for text in given]
    return [Path(name) for names in parts for name in names]


def _grounds(config: ReportConfig, subject: Subject) -> Grounds | None:
    """What a run rests on, drawn into its folder; None for a fine-tuned one, whose features are nowhere kept."""
    # First the checkpoint: a fine-tuned run says there what it is.
    checkpoint = read_checkpoint(subject.leaves[0] / CHECKPOINT)
    if checkpoint.fine_tuned:
        print(f"{subject.folder}: fine-tuned, with encoders of its own: no pictures of features and layers")
        return None
    leaf, folder = subject.leaves[0], subject.folder
    trained = trained_config(leaf, checkpoint, config.corpus, config.features_dir, config.labels)
    corpus = corpus_of(trained)
    print_notes(corpus)
    table = table_under(trained, corpus, trained.condition)
    checkpoint.refuse_other_ground(table, leaf)
    fold, note = checkpoint.fold, caveats(trained, table)
    below = footer(run_in_words(str(folder), trained.head, trained.modalities, trained.condition), note)
    with threadpool_limits(config.threads):
        scores = probe_layers(trained, corpus)
        write_atomic(folder / LAYERS_TABLE, csv_of(scores))
        scored_on = "validation clips" if fold.leaks_speakers else "validation speakers"
        classes = len(table.label_names)
        layers_figure(scores, folder / LAYERS, layers_title(trained, scores), below, scored_on, classes=classes)
        shown, whose = shown_clips(fold, table)
        title = f"{whose}: fold {fold.number} of {trained.protocol}, seed {checkpoint.seed}"
        training = table.take(fold.clip_ids("train", table.clips))
        projections = draw_features(checkpoint.head(), training, shown, folder / FEATURES, title, below)
    _print(folder, scores, note)
    made = {name: {"encoder": checkpoint.encoders.get(name, ""), **one} for name, one in checkpoint.features.items()}
    return Grounds(
        layers=[rounded(asdict(score)) for score in scores],
        clips=[{"clip": clip.clip_id, "label": clip.label, "speaker": clip.speaker} for clip in shown.clips],
        places={name: one.coordinates for name, one in projections.items()},
        provenance=made,
        note=note,
    )


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
) -> dict[str, Projection]:
    """features.png: the raw features of each modality, and what the head's last layer sees; returns what is drawn."""
    spaces, references = feature_spaces(model, shown), feature_spaces(model, training)
    projections = {name: project(spaces[name], references[name]) for name in spaces}
    names = {name: space_name(name, values_ND) for name, values_ND in spaces.items()}
    if FUSED in names and model.settings.head in WITHOUT_HIDDEN_LAYER:
        names[FUSED] += "\n(side by side: no hidden layer)"
    placed = {method: {names[name]: one.coordinates[method] for name, one in projections.items()} for method in METHODS}
    shares = {names[name]: one.shares for name, one in projections.items()}
    sexes_N = np.array([clip.sex for clip in shown.clips])
    features_figure(placed, shown.labels, shown.label_names, shown.speakers, sexes_N, path, title, note, shares)
    return projections


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


def browser_of(config: ReportConfig, subjects: Sequence[Subject]) -> ClipBrowser:
    """Clips of the first run to look at and listen to, as far as they are there."""
    first = subjects[0]
    chosen = choose(first, config.clips)
    if not chosen:
        return ClipBrowser()
    ids = [one.clip_id for one in chosen]
    probabilities = [row for one in subjects for row in probability_rows(one, chosen)]
    staged = [one for one in subjects if not read_checkpoint(one.leaves[0] / CHECKPOINT).fine_tuned]
    contributions = [row for one in staged for row in contribution_rows(one, chosen, nothing_given(one))]
    trained = yaml.safe_load(first.config)
    features_dir = Path(config.features_dir or (trained.get("target") or trained)["features_dir"])
    corpus = read_corpus(Path(config.corpus or (trained.get("target") or trained)["corpus"]), follow_links=True)
    shown: dict[str, Shown] = {}
    notes = ["media=false: without pictures and sound"]
    if config.media:
        shown, notes = shown_media(features_dir, corpus, ids, first.conditions, config.media_megabytes)
    return ClipBrowser(
        chosen=chosen,
        probabilities=probabilities,
        contributions=contributions,
        statements={clip.clip_id: clip.statement for clip in corpus.clips if clip.clip_id in ids},
        shown=shown,
        heard=transcripts_of(features_dir, ids, first.conditions),
        notes=notes,
    )


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
    sys.exit(main(ReportConfig, run, "A page about runs, and pictures of what each rests on."))
