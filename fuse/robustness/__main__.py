"""`make robustness-table`: what noise, occlusion and missing modalities cost, per condition and modality subset.

Every number is computed from the predictions.csv that is written beside the table.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.conditions import CLEAN, UNCHANGED
from cache.corpus.labels import label_difference
from cache.features.table import FeatureTable
from cache.files.atomic import write_atomic
from cache.files.csv import csv_of
from configs.command.entry import main
from configs.command.progress import Progress
from configs.loader import dump_config
from configs.schema.studies import RobustnessConfig
from fuse.robustness.conditions import with_cached
from fuse.robustness.figure import robustness_figure
from fuse.robustness.rows import BySpeaker, Row
from fuse.runs.caveats import caveats, run_in_words
from fuse.runs.checkpoint import Checkpoint, read_stage_two
from fuse.runs.folder import CHECKPOINT, CONFIG, PREDICTIONS, run_folders
from fuse.runs.predict import predictions_of
from fuse.runs.style import footer
from fuse.runs.tables import corpus_of, print_notes, table_under, tested, trained_config
from fuse.scores.intervals import MINIMUM_SPEAKERS, uar_interval
from fuse.scores.jackknife import tallies
from fuse.scores.metrics import speaker_scores, summarise, uar, uar_in_words
from fuse.scores.paired_test import difference
from fuse.scores.predictions import Predictions, concatenate, write_predictions


@dataclass(frozen=True)
class Evaluated:
    """A run's predictions for its test speakers under every condition and subset; `caption`: what run it is."""

    name: str
    predictions: Predictions
    caveats: str
    caption: str


def run(config: RobustnessConfig) -> int:
    """Evaluate, write the table as Markdown, CSV and figure, print it."""
    plans = [(Path(folder), run_folders(Path(folder))) for folder in config.runs]
    names = _names([folder for folder, _ in plans])
    left_out: list[str] = []
    if config.conditions is None:
        config, left_out = with_cached(config, [leaves[0] for _, leaves in plans])
    total = sum(len(leaves) for _, leaves in plans) * len(config.all_conditions)
    with Progress("robustness", total, "evaluations") as progress:
        evaluated = [_evaluate(config, name, leaves, progress) for name, (_, leaves) in zip(names, plans, strict=True)]
    rows = [row for one in evaluated for row in table_rows(one, list(map(str, config.all_conditions)))]
    note = "; ".join(dict.fromkeys(one.caveats for one in evaluated if one.caveats))
    out = Path(config.output_dir)
    classes = _classes(evaluated)
    text = markdown(rows, note, classes)
    write_atomic(out / CONFIG, dump_config(config))
    for one in evaluated:
        folder = out if len(evaluated) == 1 else out / one.name
        write_predictions(one.predictions, folder / PREDICTIONS)
    write_atomic(out / "robustness_table.csv", csv_of(rows))
    write_atomic(out / "robustness_table.md", text)
    below = footer("; ".join(one.caption for one in evaluated), note)
    robustness_figure(rows, out / "robustness_table.png", below, classes=classes)
    print(text)
    for line in left_out:
        print(line)
    print(f"table, figure and predictions: {out}")
    return 0


def _classes(evaluated: Sequence[Evaluated]) -> int:
    """How many labels the runs know; scores of runs that know different ones do not belong in one table."""
    first, *others = evaluated
    for one in others:
        if difference := label_difference(first.predictions.label_names, one.predictions.label_names):
            raise ValueError(f"runs: {one.name} knows other labels than {first.name} ({difference}); give each a table")
    return len(first.predictions.label_names)


def table_rows(evaluated: Evaluated, conditions: Sequence[str]) -> Iterator[Row]:
    """A row per modality subset and condition, each compared with the same subset on clean clips."""
    subsets = dict.fromkeys(str(name) for name in evaluated.predictions.modalities)
    for subset in subsets:
        clean = evaluated.predictions.select(modalities=subset, condition=CLEAN)
        for condition in conditions:
            rows = evaluated.predictions.select(modalities=subset, condition=condition)
            if len(rows):
                yield _row(evaluated.name, subset, condition, rows, clean)


def markdown(rows: Sequence[Row], note: str, classes: int) -> str:
    """The table for a reader: per cents, intervals over speakers or, with few of them, each speaker's score.

    `classes`: how many labels the runs know.
    """
    enough = all(row.low is not None for row in rows)
    last = "95 % over speakers" if enough else "UAR by speaker"
    lines = [
        f"| run | modalities | condition | UAR % | accuracy % | drop from clean | {last} | clips |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        spread = f"{_percent(row.low)} to {_percent(row.high)}" if enough else row.speakers_uar
        lines.append(
            f"| {row.run} | {row.modalities} | {row.condition} | {_percent(row.uar)} | {_percent(row.accuracy)} "
            f"| {_drop(row)} | {spread} | {row.clips} |"
        )
    return "\n".join([*lines, "", *_legend(rows, enough, note, classes)])


def _evaluate(config: RobustnessConfig, name: str, leaves: Sequence[Path], progress: Progress) -> Evaluated:
    checkpoints = [read_stage_two(leaf / CHECKPOINT) for leaf in leaves]
    trained = trained_config(leaves[0], checkpoints[0], config.corpus, config.features_dir, config.labels)
    corpus = tested(trained, corpus_of(trained))
    print_notes(corpus)
    subsets = _subsets(config, name, trained.modalities)
    parts, note = [], ""
    for condition in config.all_conditions:
        table = table_under(trained, corpus, condition)
        note = note or caveats(trained, table)
        touched = subsets if condition == UNCHANGED else _touched(subsets, table)
        for leaf, checkpoint in zip(leaves, checkpoints, strict=True):
            checkpoint.refuse_other_ground(table, leaf)
            parts += _predict(checkpoint, table, touched)
            progress.add(1)
    caption = run_in_words(name, trained.head, trained.modalities, f"trained on {trained.condition}")
    return Evaluated(name, concatenate(parts), note, caption)


def _predict(checkpoint: Checkpoint, table: FeatureTable, subsets: Sequence[tuple[str, ...]]) -> list[Predictions]:
    model = checkpoint.head()
    test = table.take(checkpoint.fold.clip_ids("test", table.clips))
    identity = (checkpoint.protocol, checkpoint.fold.number, checkpoint.seed)
    return [predictions_of(model, test, *identity, "test", subset) for subset in subsets]


def _touched(subsets: Sequence[tuple[str, ...]], table: FeatureTable) -> list[tuple[str, ...]]:
    """The subsets that a condition changes: occlusion says nothing about sound alone, noise nothing of a statement."""
    return [subset for subset in subsets if table.changed & set(subset)]


def _subsets(config: RobustnessConfig, name: str, own: Sequence[str]) -> list[tuple[str, ...]]:
    """The subsets to evaluate, in the run's own order of modalities, the full set first."""
    if not config.modalities:
        sizes = range(len(own), 0, -1)
        return [subset for size in sizes for subset in itertools.combinations(own, size)]
    wanted = [tuple(m for m in own if m in subset) for subset in config.modalities if set(subset) <= set(own)]
    if not wanted:
        raise ValueError(f"modalities: run {name} was trained on {', '.join(own)}; none of the subsets fits it")
    return list(dict.fromkeys(wanted))


def _row(name: str, subset: str, condition: str, rows: Predictions, clean: Predictions) -> Row:
    scores = speaker_scores(rows, uar)
    summary, interval = summarise(rows), uar_interval(tallies(rows))
    drop = difference(clean, rows) if condition != CLEAN else None
    drop_interval = drop.interval if drop else None
    return Row(
        run=name,
        modalities=subset,
        condition=condition,
        uar=summary["uar"],
        accuracy=summary["accuracy"],
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        drop=drop.estimate if drop else None,
        drop_low=drop_interval.low if drop_interval else None,
        drop_high=drop_interval.high if drop_interval else None,
        clips=summary["clips"],
        speakers=summary["speakers"],
        seeds=summary["seeds"],
        sd_over_seeds=summary["uar_sd_over_seeds"],
        speakers_uar=BySpeaker(scores),
    )


def _names(folders: Sequence[Path]) -> list[str]:
    short = [folder.name for folder in folders]
    return short if len(set(short)) == len(short) else ["-".join(folder.parts[-2:]) for folder in folders]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _drop(row: Row) -> str:
    if row.drop is None:
        return ""
    interval = f" ({_percent(row.drop_low)} to {_percent(row.drop_high)})" if row.drop_low is not None else ""
    return f"{_percent(row.drop)}{interval}"


def _legend(rows: Sequence[Row], enough: bool, note: str, classes: int) -> Iterator[str]:
    yield f"{uar_in_words(classes)} Drops are in points, paired by speaker."
    yield from _means(rows)
    if not enough:
        yield f"Under {MINIMUM_SPEAKERS} test speakers an interval would mislead, so each speaker's UAR is listed."
    yield "A subset has no row for a condition that does not touch it."
    yield "Modalities that are not listed were withheld at test time (replaced by the training mean)."
    if note:
        yield f"**{note}**"


def _means(rows: Sequence[Row]) -> Iterator[str]:
    """Over how many seeds the scores are means, for each run: one run's seeds say nothing of another's."""
    runs = {row.run: row.seeds for row in rows}
    counted = [f"{seeds} seed{'s' * (seeds > 1)}" for seeds in runs.values()]
    if max(runs.values()) > 1:
        of_runs = [f"{words} ({run})" for run, words in zip(runs, counted, strict=True)]
        said = counted[0] if len(set(counted)) == 1 else ", ".join(of_runs)
        yield f"Scores are means over {said}; each clip counts once per seed."


if __name__ == "__main__":
    sys.exit(main(RobustnessConfig, run, "What noise, occlusion and missing modalities cost a trained head."))
