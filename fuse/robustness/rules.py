"""What a fusion owes its modalities, as rules that hold or do not, each in words with the numbers that decide it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cache.conditions import CLEAN
from fuse.robustness.missing import MISSING
from fuse.robustness.numbers import Evaluated
from fuse.robustness.rows import BOTH, CORRUPTED, RobustnessTable, Row, full_subset
from fuse.scores.robustness import guess_margin

# How far below what it is compared with a score may lie: a point of UAR, and half of one on clean clips.
MARGIN, CLEAN_MARGIN = 0.01, 0.005
TEXT = "text"
BySubset = Mapping[str, Mapping[str, Row]]


@dataclass(frozen=True)
class Verdict:
    """Whether a rule holds for a run.

    Attributes:
        run: its name.
        rule: the rule in words.
        passed: whether it holds under every condition that it speaks of.
        held: under how many of `conditions` it does.
        condition: where the run comes off worst, with its UAR there and the one that it is held against.
    """

    run: str
    rule: str
    passed: bool
    held: int
    conditions: int
    condition: str
    uar: float
    against: float


@dataclass(frozen=True)
class _Case:
    condition: str
    uar: float
    against: float


def verdicts(table: RobustnessTable, evaluated: Sequence[Evaluated]) -> list[Verdict]:
    """Every rule that can be asked of these runs, run by run; docs/robustness.md says what each is for."""
    return [verdict for one in evaluated for verdict in _of_run(table, one)]


def _of_run(table: RobustnessTable, one: Evaluated) -> Iterator[Verdict]:
    run, own = one.name, _by_subset(table.rows, one.name)
    full = full_subset(table.rows, run)
    if "+" in full:
        yield from _not_below_the_rest(table.rows, run, full, own)
        best = f"{_said(full)} is not more than a point below the best single modality"
        yield from _verdict(run, best, _against_the_best(table.rows, full, own), MARGIN)
    reference = _by_subset(table.rows, table.reference).get(full, {})
    # A run of other modalities is no other way to fuse the same ones.
    compared = run != table.reference and CLEAN in reference and full == full_subset(table.rows, table.reference)
    if compared:
        words = f"{run} is not more than half a point below {table.reference} on clean clips"
        yield from _verdict(run, words, [_Case(CLEAN, own[full][CLEAN].uar, reference[CLEAN].uar)], CLEAN_MARGIN)
    if one.same_words and TEXT in own:
        label_N = one.predictions.select(modalities=TEXT, condition=CLEAN, seed=int(one.predictions.seed[0])).label
        _, clips_C = np.unique(label_N, return_counts=True)
        chance, margin = 1 / len(clips_C), guess_margin(clips_C.tolist())
        # The other way round: it is chance that must not lie below.
        case = _Case(CLEAN, -own[TEXT][CLEAN].uar, -chance)
        yield from _verdict(run, "text alone is at chance on clean speech", [case], margin)


def _not_below_the_rest(rows: Sequence[Row], run: str, full: str, own: BySubset) -> Iterator[Verdict]:
    """What is damaged or missing must not drag down what is whole: a rule for each set of modalities that is struck.

    What is whole alone: this run with the others withheld, or a run that was trained on nothing else, the better one.
    """
    names = full.split("+")
    found: dict[tuple[str, ...], list[_Case]] = {}
    for condition, row in own[full].items():
        if row.section not in (*CORRUPTED, BOTH, MISSING) or row.family == MISSING:
            continue
        struck = [name for name in names if row.family == f"{MISSING}-{name}" or condition in own.get(name, {})]
        rest = "+".join(name for name in names if name not in struck)
        whole = [one[CLEAN].uar for one in (own.get(rest, {}), *_trained_on(rows, [rest])) if CLEAN in one]
        if struck and whole:
            found.setdefault(tuple(struck), []).append(_Case(condition, row.uar, max(whole)))
    for struck_names, cases in found.items():
        rest = _said("+".join(name for name in names if name not in struck_names))
        words = f"{_said(full)} is not below {rest} alone when {' and '.join(struck_names)} is damaged or missing"
        yield from _verdict(run, words, cases, MARGIN)


def _against_the_best(rows: Sequence[Row], full: str, own: BySubset) -> list[_Case]:
    """Each condition's best modality: of this run with the others withheld, or of a run that has no other."""
    alone = [own[name] for name in full.split("+") if name in own]
    alone += _trained_on(rows, full.split("+"))
    sections = (CLEAN, *CORRUPTED, BOTH)
    return [
        _Case(condition, row.uar, max(_under(one, condition).uar for one in alone))
        for condition, row in own[full].items()
        if alone and row.section in sections
    ]


def _under(one: Mapping[str, Row], condition: str) -> Row:
    """A modality's row under that part of a joint condition that touches it; clean where none does."""
    return next((one[part] for part in (condition, *condition.split("+")) if part in one), one[CLEAN])


def _trained_on(rows: Sequence[Row], subsets: Sequence[str]) -> list[Mapping[str, Row]]:
    """The rows by condition of each run that has one of these subsets and no more."""
    full = {run: full_subset(rows, run) for run in dict.fromkeys(row.run for row in rows)}
    return [_by_subset(rows, run)[subset] for run, subset in full.items() if subset in subsets]


def _verdict(run: str, rule: str, cases: Sequence[_Case], margin: float) -> Iterator[Verdict]:
    if cases:
        held = sum(case.uar >= case.against - margin for case in cases)
        worst = min(cases, key=lambda case: case.uar - case.against)
        numbers = (abs(worst.uar), abs(worst.against))
        yield Verdict(run, rule, held == len(cases), held, len(cases), worst.condition, *numbers)


def _by_subset(rows: Sequence[Row], run: str) -> dict[str, dict[str, Row]]:
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row.run == run:
            found.setdefault(row.modalities, {})[row.condition] = row
    return found


def _said(subset: str) -> str:
    return subset.replace("+", " + ")
