"""`make compare`: is one run better than another? Any runs, fine-tuned or of stage two, by their predictions alone.

Each pair is tested over its speakers (`fuse.scores.paired_test`), and the p values are corrected over all pairs of the
command. What a run was trained on does not matter, as long as both tested the same speakers: a run that is a folder
for each fold, each on features of its own encoder, is one evaluation like any other.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cache.corpus.labels import label_difference
from cache.files.atomic import write_atomic
from cache.files.csv import csv_of
from configs.command.entry import main
from configs.schema.studies import CompareConfig
from fuse.runs.folder import PREDICTIONS
from fuse.scores.intervals import MINIMUM_SPEAKERS
from fuse.scores.metrics import described, summarise, uar_in_words
from fuse.scores.paired_test import Comparison, compare, p_in_words
from fuse.scores.predictions import Predictions, concatenate, read_predictions

TABLE, ROWS = "compare.md", "compare.csv"
Pair = tuple[str, str]


@dataclass(frozen=True)
class Line:
    """A pair: pooled UAR of both as shares, means over seeds, and their difference with its 95 % interval and p.

    `low` and `high` are None under 8 speakers, whose patterns of signs are too few for a test as well.
    """

    run: str
    against: str
    uar: float
    uar_against: float
    difference: float
    low: float | None
    high: float | None
    p: float
    p_holm: float
    clips: int
    speakers: int


def run(config: CompareConfig) -> int:
    """Test every pair, print the table and write it."""
    tested = {
        name: predictions_of(Path(name)) for name in dict.fromkeys(name for pair in config.pairs for name in pair)
    }
    for pair in config.pairs:
        refuse_other_labels(pair, tested)
    found = compare({pair: (tested[pair[0]], tested[pair[1]]) for pair in config.pairs})
    lines = [line_of(pair, tested, one) for pair, one in found.items()]
    notes = [note for pair in config.pairs for note in notes_of(pair, tested)]
    text = "\n".join([*table(lines), "", *_below(tested, len(lines)), *(f"note: {note}" for note in notes)]) + "\n"
    out = Path(config.output_dir)
    write_atomic(out / ROWS, csv_of(lines))
    write_atomic(out / TABLE, text)
    print(text, end="")
    print(f"comparison: {out}")
    return 0


def predictions_of(folder: Path) -> Predictions:
    """What a run says of its test clips: a folder's own predictions, or those of its folds put together.

    Raises:
        ValueError: there are none, or they are not one evaluation.
    """
    own = folder / PREDICTIONS
    if own.is_file():
        return read_predictions(own).select(split="test")
    # By fold, and of several seeds of a fold by seed.
    leaves = sorted(folder.glob(f"fold-*/{PREDICTIONS}")) or sorted(folder.glob(f"fold-*/seed-*/{PREDICTIONS}"))
    if not leaves:
        raise ValueError(f"{folder} has no {PREDICTIONS}, nor has a fold-* in it; name the folder of a run")
    parts = []
    for leaf in leaves:
        part = read_predictions(leaf).select(split="test")
        (number,) = [piece.partition("-")[2] for piece in leaf.relative_to(folder).parts if piece.startswith("fold-")]
        if not number.isdecimal():
            raise ValueError(f"{leaf.parent}: folds are numbered, as in fold-1")
        # A fold that was trained by itself, under a protocol of its own, is a fold of the run all the same.
        parts.append(
            replace(part, fold=np.full(len(part), int(number)), protocol=np.full(len(part), str(folder), np.str_))
        )
    return concatenate(parts)


def refuse_other_labels(pair: Pair, tested: Mapping[str, Predictions]) -> None:
    """Refuse to compare runs that know different labels, and those without test clips.

    Raises:
        ValueError: one line with the difference.
    """
    one, other = (tested[name] for name in pair)
    if differs := label_difference(other.label_names, one.label_names):
        raise ValueError(f"{pair[0]} knows other labels than {pair[1]} ({differs})")
    for name in pair:
        if not len(tested[name]):
            raise ValueError(f"{name} was not tested (test: false); train it with test=true")


def line_of(pair: Pair, tested: Mapping[str, Predictions], found: Comparison) -> Line:
    """A row of the table."""
    scores = [summarise(tested[name]) for name in pair]
    low, high = (found.interval.low, found.interval.high) if found.interval else (None, None)
    return Line(
        *pair,
        scores[0]["uar"],
        scores[1]["uar"],
        found.estimate,
        low,
        high,
        found.p,
        found.p_holm,
        len(np.intersect1d(tested[pair[0]].clip_id, tested[pair[1]].clip_id)),
        found.speakers,
    )


def notes_of(pair: Pair, tested: Mapping[str, Predictions]) -> list[str]:
    """What makes two runs differ beside themselves: other conditions, folds that are not of the same speakers."""
    one, other = (tested[name] for name in pair)
    notes = []
    conditions = [str(part.condition[0]) for part in (one, other)]
    if conditions[0] != conditions[1]:
        notes.append(f"{pair[0]} was tested under {conditions[0]}, {pair[1]} under {conditions[1]}")
    if _folds(one) != _folds(other):
        notes.append(f"folds of {pair[0]} and {pair[1]} have other speakers: they were trained on others as well")
    return notes


def table(lines: Sequence[Line]) -> list[str]:
    """In Markdown, UAR in per cent and differences in points."""
    rows = ["| run | UAR % | against | UAR % | difference | p | p (Holm) |", "|---|---|---|---|---|---|---|"]
    for one in lines:
        interval = f" ({_points(one.low)} to {_points(one.high)})" if one.low is not None else ""
        p, p_holm = ("", "") if one.speakers < MINIMUM_SPEAKERS else (p_in_words(one.p), p_in_words(one.p_holm))
        rows.append(
            f"| {one.run} | {100 * one.uar:.1f} | {one.against} | {100 * one.uar_against:.1f} "
            f"| {_points(one.difference)}{interval} | {p} | {p_holm} |"
        )
    return rows


def _below(tested: Mapping[str, Predictions], pairs: int) -> list[str]:
    first = next(iter(tested.values()))
    corrected = f"; Holm: corrected over {pairs} pairs" if pairs > 1 else ""
    few = len(np.unique(first.speaker)) < MINIMUM_SPEAKERS
    said = f"Under {MINIMUM_SPEAKERS} speakers, too few for an interval or a test." if few else ""
    return [
        f"{uar_in_words(len(first.label_names))} Folds are pooled, seeds averaged.",
        f"Test: {described(summarise(first))}.",
        f"Differences in points (95 % over speakers), sign-flip test over speakers{corrected}.",
        *([said] if said else []),
    ]


def _folds(predictions: Predictions) -> set[frozenset[str]]:
    """The speakers of each fold."""
    return {
        frozenset(predictions.speaker[predictions.fold == number].tolist()) for number in np.unique(predictions.fold)
    }


def _points(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.1f}"


if __name__ == "__main__":
    sys.exit(main(CompareConfig, run, "Is one run better than another? Paired by speaker."))
