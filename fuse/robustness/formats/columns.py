"""The columns that a table can have: what stands above each, and in it, for a row and for a mean over rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fuse.robustness.rows import Group, RobustnessTable, Row
from fuse.scores.intervals import MINIMUM_SPEAKERS
from fuse.scores.paired_test import p_in_words

# What says nothing: a score that there is not, and one that is that of clean clips.
NONE, UNCHANGED = "", "="


def _none(_line: Row | Group) -> str:
    return NONE


@dataclass(frozen=True)
class Column:
    """A column: its title, and its cell for a row and for a group.

    `of_others`: it compares with the reference or the baseline, which has no such column itself. `legend`: what a
    reader must know; "" where the title says it.
    """

    title: str
    row: Callable[[Row], str]
    group: Callable[[Group], str] = _none
    of_others: bool = False
    legend: str = ""


def percent(value: float | None) -> str:
    """A share in per cents, or points, with one digit."""
    return NONE if value is None else f"{100 * value:.1f}"


def _interval(row: Row) -> str:
    return f"{percent(row.low)} to {percent(row.high)}" if row.low is not None else str(row.speakers_uar)


def _drop(row: Row) -> str:
    interval = f" ({percent(row.drop_low)} to {percent(row.drop_high)})" if row.drop_low is not None else ""
    return f"{percent(row.drop)}{interval}"


def _p(row: Row) -> str:
    # Few speakers have few patterns of signs: of two, p is at least 0.5 whatever the scores are.
    if row.p_holm is None or row.speakers < MINIMUM_SPEAKERS:
        return NONE
    return p_in_words(row.p_holm)


def _worst(row: Row) -> str:
    return NONE if row.worst_speaker_uar is None else f"{percent(row.worst_speaker_uar)} ({row.worst_speaker})"


def _three_digits(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


COLUMNS = {
    "uar": Column("UAR %", lambda row: percent(row.uar), lambda group: percent(group.uar)),
    "interval": Column("95 % over speakers", _interval),
    "accuracy": Column("accuracy %", lambda row: percent(row.accuracy), lambda group: percent(group.accuracy)),
    "drop": Column(
        "drop from clean",
        _drop,
        lambda group: percent(group.drop),
        legend="Drops are in points, paired by speaker.",
    ),
    "relative_drop": Column(
        "relative drop %",
        lambda row: percent(row.relative_drop),
        lambda group: percent(group.relative_drop),
        legend="Relative drop: the share of the clean UAR that is lost.",
    ),
    "corruption_error": Column(
        "CE %",
        lambda row: percent(row.corruption_error),
        lambda group: percent(group.corruption_error),
        of_others=True,
        legend="CE: errors (1 - UAR) over those of {baseline}; its mean over families is mCE (arXiv 1903.12261).",
    ),
    "relative_corruption_error": Column(
        "relative CE %",
        _none,
        lambda group: percent(group.relative_corruption_error),
        of_others=True,
        legend="Relative CE: what corruption adds to the errors, over what it adds to those of {baseline}.",
    ),
    "relative_robustness": Column(
        "area %",
        _none,
        lambda group: percent(group.relative_robustness),
        legend="Area: that under UAR by severity, clean to the worst level (MultiBench's relative robustness).",
    ),
    "effective_robustness": Column(
        "effective robustness",
        _none,
        lambda group: percent(group.effective_robustness),
        of_others=True,
        legend="Effective robustness: points above the curve of {baseline}, moved to the same clean UAR.",
    ),
    "worst_speaker": Column("worst speaker %", _worst, legend="Worst speaker: the lowest UAR of a speaker (who)."),
    "female_minus_male": Column(
        "female - male",
        lambda row: percent(row.female_minus_male),
        legend="Female - male: points between the mean UAR of women and of men.",
    ),
    "ece": Column("ECE", lambda row: _three_digits(row.ece), lambda group: _three_digits(group.ece)),
    "brier": Column("Brier", lambda row: _three_digits(row.brier), legend="Brier score: 0 to 2, lower is better."),
    "changed": Column(
        "changed %",
        lambda row: percent(row.changed),
        lambda group: percent(group.changed),
        legend="Changed: clips that are answered otherwise than when they are clean.",
    ),
    "wer": Column("WER %", lambda row: percent(row.wer), legend="WER: word error rate of the transcripts."),
    "difference": Column(
        "difference",
        lambda row: percent(row.difference),
        of_others=True,
        legend="Difference: points of UAR above {reference}.",
    ),
    "p": Column(
        "p",
        _p,
        of_others=True,
        legend="p: that of the difference from {reference}, sign flips over speakers, Holm over the whole table.",
    ),
    "clips": Column("clips", lambda row: str(row.clips)),
}
ONE_RUN = ("uar", "interval", "accuracy", "drop", "relative_drop", "ece", "changed")
SEVERAL_RUNS = ("uar", "corruption_error", "p")


def chosen(table: RobustnessTable, columns: Sequence[str]) -> list[str]:
    """The columns of a table: those that were asked for, or what fits a page; none that is empty throughout."""
    wanted = columns or ((*ONE_RUN, "wer") if len(table.runs) == 1 else SEVERAL_RUNS)
    cells = {name: (COLUMNS[name].row, COLUMNS[name].group) for name in wanted}
    return [
        name
        for name, (of_row, of_group) in cells.items()
        if any(map(of_row, table.rows)) or any(map(of_group, table.groups))
    ]


def legends(table: RobustnessTable, columns: Sequence[str]) -> str:
    """What a reader must know of the columns of a table; "" where their titles say it."""
    said = (COLUMNS[name].legend for name in chosen(table, columns))
    return " ".join(filter(None, said)).format(reference=table.reference, baseline=table.baseline)
