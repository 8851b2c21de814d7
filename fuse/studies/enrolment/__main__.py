"""How many unlabelled clips of a speaker does adaptation need? An enrolment curve for a run of stage two.

A test speaker's features are standardised by statistics of a few of that speaker's own clips, drawn again and again,
shrunk towards what the training speakers say (`fuse.runs.adaptation.enrolled`): in clean clips, for nobody knows the
noise before the first clip is heard, or (`prior: condition`) in clips under the condition that is tested. Every number
is of all clips of the speaker, so that the points of the curve are comparable; no label is used but for the neutral
clips, which one has to know to be neutral.
"""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cache.conditions import CLEAN, UNCHANGED
from cache.features.table import FeatureTable
from cache.files.atomic import write_atomic
from cache.files.commands import make_command, setting
from cache.files.csv import csv_of
from cache.protocols.folds import Fold
from configs.command.entry import main
from configs.command.progress import Progress
from configs.loader import dump_config
from configs.schema.studies import EnrolmentConfig
from fuse.model.fusion import FusionModel
from fuse.runs.adaptation import ADAPTED, SpeakerStatistics, adapted, enrolled, prior_of
from fuse.runs.caveats import caveats, run_in_words
from fuse.runs.checkpoint import Checkpoint, read_stage_two
from fuse.runs.folder import CHECKPOINT, CONFIG, PREDICTIONS, run_folders
from fuse.runs.predict import predictions_of
from fuse.runs.style import footer
from fuse.runs.tables import corpus_of, print_notes, raw_table, trained_config
from fuse.scores.intervals import uar_interval
from fuse.scores.jackknife import tallies
from fuse.scores.metrics import uar
from fuse.scores.predictions import Predictions, concatenate, write_predictions
from fuse.studies.enrolment.figure import enrolment_figure
from fuse.studies.enrolment.points import ALL, NEUTRAL, Point

# Enough to tell strengths apart on validation speakers.
CHOOSING_DRAWS = 5
# What every number says of what is known before the first clip.
PRIORS = {
    "clean": "prior: the training speakers' clean clips",
    "condition": "prior: the condition known beforehand",
}


@dataclass(frozen=True)
class Trained:
    """One fold's run (of the first seed): its folder, what it kept, and its head."""

    folder: Path
    kept: Checkpoint
    model: FusionModel

    @property
    def fold(self) -> Fold:
        """Who was trained on, and who was not."""
        return self.kept.fold


def run(config: EnrolmentConfig) -> int:
    """Draw, adapt, predict; write the curve as CSV, Markdown and figure, print it."""
    leaves = _first_seeds(run_folders(Path(config.run)))
    heads = [_load(leaf) for leaf in leaves]
    trained = trained_config(leaves[0], heads[0].kept, config.corpus, config.features_dir, config.labels)
    if trained.standardise != "speaker":
        settings = ["standardise=speaker", setting("output_dir", f"{config.run}-adapted")]
        raise ValueError(
            f"{config.run} was trained with standardise={trained.standardise}; "
            f"train one with: {make_command('train-fusion', settings, Path(config.run) / CONFIG)}"
        )
    corpus = corpus_of(trained)
    print_notes(corpus)
    tables = {joint: raw_table(trained, corpus, joint) for joint in config.all_conditions}
    own = tables.get(trained.condition) or raw_table(trained, corpus, trained.condition)
    for head in heads:
        for table in (own, *tables.values()):
            head.kept.refuse_other_ground(table, head.folder)
    clean = tables[UNCHANGED] if config.prior == CLEAN else None
    strengths = [_strength(config, head, own, clean or own) for head in heads]
    counts = [*map(str, config.clips), *([NEUTRAL] if NEUTRAL in corpus.labels else []), ALL]
    parts = []
    with Progress("enrolment", len(heads) * len(tables) * len(counts), "points") as progress:
        for head, strength in zip(heads, strengths, strict=True):
            for table in tables.values():
                prior = prior_of(clean or table, head.fold.train)
                for count in counts:
                    parts += list(_draws(head, table, prior, count, strength, config.draws, "test"))
                    progress.add(1)
    note = "; ".join(text for text in (caveats(trained, own), PRIORS[config.prior]) if text)
    seeds = f"first of {len(trained.seeds)} seeds" if len(trained.seeds) > 1 else "one seed"
    caption = run_in_words(config.run, trained.head, trained.modalities, seeds)
    _write(config, concatenate(parts), counts, strengths, note, caption)
    return 0


def drawn_statistics(
    table: FeatureTable, speaker: str, count: str, draw: int, prior: SpeakerStatistics, strength: float
) -> SpeakerStatistics:
    """A speaker's statistics from `count` clips (a number, `neutral` or `all`); which ones follows from the draw."""
    rows = np.flatnonzero(table.speakers == speaker)
    if count == NEUTRAL:
        rows = np.array([row for row in rows if table.clips[row].label == NEUTRAL], np.intp)
    elif count != ALL:
        seed = hashlib.sha256(f"{speaker}/{count}/{draw}".encode()).digest()
        chosen = np.random.default_rng(list(seed)).permutation(len(rows))[: int(count)]
        rows = rows[np.sort(chosen)]
    return enrolled({name: values[rows] for name, values in table.features.items()}, prior, strength)


def points(predictions: Predictions, counts: Sequence[str]) -> Iterator[Point]:
    """The curve, condition by condition."""
    names = [name.split("/") for name in dict.fromkeys(predictions.condition.tolist())]
    for condition in dict.fromkeys(name[0] for name in names):
        for count in counts:
            draws = [name for name in names if name[:2] == [condition, f"enrolled-{count}"]]
            parts = [predictions.select(condition="/".join(name)) for name in draws]
            each = [uar(part.label, part.predicted) for part in parts]
            interval = uar_interval(tallies(*parts))
            yield Point(
                condition,
                count,
                float(np.mean(each)),
                interval.low if interval else None,
                interval.high if interval else None,
                float(np.std(each, ddof=1)) if len(each) > 1 else 0.0,
                len(each),
                len(np.unique(parts[0].speaker)),
            )


def clips_for_half(curve: Sequence[Point]) -> float | None:
    """Clips at which half of the gain from none to all is reached, between points on a straight line."""
    by_count = {point.clips: point.uar for point in curve}
    if "0" not in by_count:
        return None
    half = (by_count["0"] + by_count[ALL]) / 2
    steps = [(int(point.clips), point.uar) for point in curve if point.clips.isdecimal()]
    for (few, low), (many, high) in itertools.pairwise(steps):
        if low < half <= high:
            return few + (many - few) * (half - low) / (high - low)
    return None


def _draws(
    head: Trained, table: FeatureTable, prior: SpeakerStatistics, count: str, strength: float, draws: int, split: str
) -> Iterator[Predictions]:
    speakers = getattr(head.fold, split)
    some = table.take(head.fold.clip_ids(split, table.clips))
    for draw in range(draws if count.isdecimal() and count != "0" else 1):
        known = {name: drawn_statistics(table, name, count, draw, prior, strength) for name in speakers}
        named = replace(adapted(some, known), condition=f"{table.condition}/enrolled-{count}/draw-{draw}")
        yield predictions_of(head.model, named, head.kept.protocol, head.fold.number, head.kept.seed, split)


def _strength(config: EnrolmentConfig, head: Trained, table: FeatureTable, known: FeatureTable) -> float:
    """The candidate with the best mean UAR on this fold's validation speakers, over the counts of the curve."""
    counts = [str(count) for count in config.clips if count]
    prior = prior_of(known, head.fold.train)

    def score(strength: float) -> float:
        draws = min(config.draws, CHOOSING_DRAWS)
        found = [part for count in counts for part in _draws(head, table, prior, count, strength, draws, "validation")]
        return float(np.mean([uar(part.label, part.predicted) for part in found])) if found else 0.0

    return max(config.strengths, key=score)


def _load(leaf: Path) -> Trained:
    kept = read_stage_two(leaf / CHECKPOINT)
    return Trained(leaf, kept, kept.head())


def _first_seeds(leaves: Sequence[Path]) -> list[Path]:
    """One run per fold: what varies here are the clips that are drawn."""
    return list({leaf.parent: leaf for leaf in reversed(leaves)}.values())[::-1]


def _write(
    config: EnrolmentConfig,
    predictions: Predictions,
    counts: Sequence[str],
    strengths: Sequence[float],
    note: str,
    caption: str,
) -> None:
    out = Path(config.output_dir)
    curve = list(points(predictions, counts))
    text = "\n".join(_markdown(curve, strengths, note)) + "\n"
    write_atomic(out / CONFIG, dump_config(config))
    write_predictions(predictions, out / PREDICTIONS)
    write_atomic(out / "enrolment.csv", csv_of(curve))
    write_atomic(out / "enrolment.md", text)
    enrolment_figure(curve, out / "enrolment.png", footer(caption, note), classes=len(predictions.label_names))
    print(text)
    print(f"curve, figure and predictions: {out}")


def _markdown(curve: Sequence[Point], strengths: Sequence[float], note: str) -> Iterator[str]:
    yield f"| condition | clips known of the speaker | UAR %, {ADAPTED} | 95 % over speakers | SD over draws |"
    yield "|---|---|---|---|---|"
    for point in curve:
        span = "too few speakers" if point.low is None else f"{100 * point.low:.1f} to {100 * (point.high or 0):.1f}"
        spread = f"{100 * point.sd_over_draws:.1f}" if point.draws > 1 else ""
        yield f"| {point.condition} | {point.clips} | {100 * point.uar:.1f} | {span} | {spread} |"
    yield ""
    for condition in dict.fromkeys(point.condition for point in curve):
        half = clips_for_half([point for point in curve if point.condition == condition])
        said = "is not on the curve" if half is None else f"takes {half:.1f} clips"
        yield f"{condition}: half of the gain from no clip to all {said}."
    chosen: Mapping[float, int] = {value: strengths.count(value) for value in dict.fromkeys(strengths)}
    folds = ", ".join(f"{value:g} ({times} folds)" for value, times in chosen.items())
    yield f"The training speakers' statistics weigh as many clips as validation chose: {folds}."
    yield "Scores are of all clips of the test speakers, those that enrolled them among them; the mean over draws."
    if any(point.clips == NEUTRAL for point in curve):
        yield "neutral: the neutral clips alone, which one has to know to be neutral. No other label is used."
    if note:
        yield f"**{note}**"


if __name__ == "__main__":
    sys.exit(main(EnrolmentConfig, run, "How many unlabelled clips of a speaker does adaptation need?"))
