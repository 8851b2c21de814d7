"""The robustness table in Markdown: the table, the rules, the subsets, and what a reader must know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fuse.robustness.formats.columns import UNCHANGED, chosen, legends
from fuse.robustness.formats.sheets import Line, Sheet, main_sheet, subset_sheets
from fuse.robustness.rows import RobustnessTable
from fuse.robustness.rules import Verdict
from fuse.scores.intervals import MINIMUM_SPEAKERS
from fuse.scores.metrics import uar_in_words

MARKS = {"row": "{}", "mean": "*{}*", "heading": "**{}**"}


def markdown(table: RobustnessTable, rules: Sequence[Verdict], note: str, columns: Sequence[str] = ()) -> str:
    """Everything, for a reader.

    Args:
        table: the numbers.
        rules: what was asked of them.
        note: what must be said of the runs; "" if nothing.
        columns: keys of `COLUMNS`; empty: those that fit a page.
    """
    main = main_sheet(table, columns)
    parts = [f"{main.title}\n", *_sheet(main), "", *_legend(table, note, columns)]
    if rules:
        parts += ["", "Rules:", "", *map(_rule, rules)]
    for sheet in subset_sheets(table):
        parts += ["", f"{sheet.title} ({UNCHANGED}: as clean)\n", *_sheet(sheet)]
    return "\n".join([*parts, ""])


def _sheet(sheet: Sheet) -> Iterator[str]:
    yield f"| {' | '.join(sheet.header)} |"
    yield "|" + "---|" * len(sheet.header)
    for line in sheet.lines:
        yield f"| {' | '.join(_cells(line, len(sheet.header)))} |"


def _cells(line: Line, width: int) -> list[str]:
    marked = [MARKS[line.kind].format(cell) if cell else "" for cell in line.cells]
    return [*marked, *([""] * (width - len(marked)))]


def _rule(verdict: Verdict) -> str:
    many = f", holds under {verdict.held} of {verdict.conditions} conditions" if verdict.conditions > 1 else ""
    numbers = f"{verdict.condition}: {100 * verdict.uar:.1f} against {100 * verdict.against:.1f} %"
    return f"- **{'pass' if verdict.passed else 'fail'}** {verdict.run}: {verdict.rule} ({numbers}{many})"


def _legend(table: RobustnessTable, note: str, columns: Sequence[str]) -> Iterator[str]:
    clips = sorted({row.clips for row in table.rows})
    counted = f"{clips[0]} clips" if len(clips) == 1 else f"{clips[0]} to {clips[-1]} clips"
    yield f"{uar_in_words(table.classes)} {counted}, {max(row.speakers for row in table.rows)} speakers."
    if said := legends(table, columns):
        yield said
    yield from _means(table)
    if any(row.speakers < MINIMUM_SPEAKERS for row in table.rows):
        where = "listed" if "interval" in chosen(table, columns) else "in the CSV"
        yield f"Under {MINIMUM_SPEAKERS} test speakers an interval would mislead; each speaker's UAR is {where}."
    yield "Modalities that are not listed were withheld at test time (the run's stand-in takes their place)."
    if note:
        yield f"**{note}**"


def _means(table: RobustnessTable) -> Iterator[str]:
    """Over how many seeds the scores are means, for each run: one run's seeds say nothing of another's."""
    runs = {row.run: row.seeds for row in table.rows}
    counted = [f"{seeds} seed{'s' * (seeds > 1)}" for seeds in runs.values()]
    if max(runs.values()) > 1:
        of_runs = [f"{words} ({run})" for run, words in zip(runs, counted, strict=True)]
        said = counted[0] if len(set(counted)) == 1 else ", ".join(of_runs)
        yield f"Scores are means over {said}; each clip counts once per seed."
