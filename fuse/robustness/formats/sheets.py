"""The table as a reader wants it: conditions down, runs side by side, means where a group ends; text in cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cache.conditions import CLEAN
from fuse.robustness.formats.columns import COLUMNS, NONE, UNCHANGED, chosen, percent
from fuse.robustness.missing import MISSING
from fuse.robustness.rows import (
    BOTH,
    CORRUPTIONS,
    PICTURE,
    SECTIONS,
    SOUND,
    STABILITY,
    Group,
    RobustnessTable,
    Row,
    full_subset,
)
from fuse.scores.intervals import MINIMUM_SPEAKERS

HEADINGS = {
    SOUND: "sound",
    PICTURE: "picture",
    BOTH: "sound and picture",
    MISSING: "missing at random, per cent of clips",
    STABILITY: "changes that nobody minds (per cent of answers that change)",
    CORRUPTIONS: "sound and picture conditions",
}


@dataclass(frozen=True)
class Line:
    """A line of a sheet; `kind`: "row", "mean", or "heading", which has a first cell only."""

    kind: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Sheet:
    """One table as text: what it is of, its header, and its lines.

    `tiers`: the header in two, what a column is and of which run ("" where there is one run, or a column is of all).
    """

    title: str
    header: tuple[str, ...]
    lines: tuple[Line, ...]
    tiers: tuple[tuple[str, str], ...] = ()


def main_sheet(table: RobustnessTable, columns: Sequence[str] = ()) -> Sheet:
    """Every condition, for every run with all of its modalities.

    Args:
        table: the numbers.
        columns: keys of `COLUMNS`; empty: those that fit a page.
    """
    full = {run: full_subset(table.rows, run) for run in table.runs}
    rows = {(row.run, row.condition): row for row in table.rows if row.modalities == full[row.run]}
    groups = {(one.run, one.section, one.family): one for one in table.groups if one.modalities == full[one.run]}
    places = [
        (name, run)
        for name in chosen(table, columns)
        for run in table.runs
        if _has(table, name, run) and _says_something(name, run, rows, groups)
    ]
    tiers = tuple(_title(name, run, table) for name, run in places)
    header = (f"{_named(run, full)}: {title}" if run else title for title, run in tiers)
    lines = tuple(_lines(rows, groups, places))
    return Sheet(", ".join(dict.fromkeys(full.values())), ("condition", *header), lines, tiers)


def subset_sheets(table: RobustnessTable) -> list[Sheet]:
    """UAR of every other subset of modalities, side by side, a sheet for each run that was given any; without pairs."""
    sheets = []
    for run in table.runs:
        own = [row for row in table.rows if row.run == run]
        others = [name for name in dict.fromkeys(row.modalities for row in own) if name != full_subset(own, run)]
        conditions = [row.condition for row in own if row.section in (CLEAN, SOUND, PICTURE)]
        if others:
            uar = {(row.modalities, row.condition): percent(row.uar) for row in own}
            lines = tuple(
                Line("row", (name, *(uar.get((subset, name), UNCHANGED) for subset in others)))
                for name in dict.fromkeys(conditions)
                if any((subset, name) in uar for subset in others)
            )
            sheets.append(Sheet(f"{run}: UAR % with some modalities alone", ("condition", *others), lines))
    return sheets


def _cell(column: str, row: Row | None, section: str) -> str:
    """A run that has no row for a condition of the sound or the picture is one that it does not change.

    Of changes that nobody minds the answers that change are what counts: they stand behind UAR, whatever the columns.
    """
    if row is None:
        return UNCHANGED if column == "uar" and section in (SOUND, PICTURE) else NONE
    changed = f" ({percent(row.changed)})" if column == "uar" and section == STABILITY else ""
    return COLUMNS[column].row(row) + changed


def _has(table: RobustnessTable, name: str, run: str) -> bool:
    """Comparisons with a run stand beside the others only; the rate of the transcripts is that of all runs."""
    if name == "wer":
        return run == table.runs[0]
    compared = table.reference if name in ("difference", "p") else table.baseline
    return not COLUMNS[name].of_others or run != compared


def _says_something(
    name: str,
    run: str,
    rows: Mapping[tuple[str, str], Row],
    groups: Mapping[tuple[str, str, str], Group],
) -> bool:
    """Whether a run has a column at all: none of p where it has no subset in common with the reference."""
    of_rows = (COLUMNS[name].row(row) for (of, _), row in rows.items() if of == run)
    return any(of_rows) or any(COLUMNS[name].group(one) for (of, *_), one in groups.items() if of == run)


def _title(name: str, run: str, table: RobustnessTable) -> tuple[str, str]:
    title = "UAR by speaker" if name == "interval" and not _enough(table) else COLUMNS[name].title
    return title, "" if len(table.runs) == 1 or name == "wer" else run


def _named(run: str, full: Mapping[str, str]) -> str:
    return f"{run} ({full[run]})" if len(set(full.values())) > 1 else run


def _enough(table: RobustnessTable) -> bool:
    return all(row.speakers >= MINIMUM_SPEAKERS for row in table.rows)


def _lines(
    rows: Mapping[tuple[str, str], Row],
    groups: Mapping[tuple[str, str, str], Group],
    places: Sequence[tuple[str, str]],
) -> Iterator[Line]:
    def mean(section: str, family: str, name: str) -> Line:
        found = ((column, groups.get((run, section, family))) for column, run in places)
        return Line("mean", (name, *(COLUMNS[column].group(one) if one else NONE for column, one in found)))

    first = {condition: row for (_, condition), row in rows.items()}
    for section in SECTIONS:
        inside = [row for row in first.values() if row.section == section]
        families = dict.fromkeys(row.family for row in inside)
        if inside and section != CLEAN:
            yield Line("heading", (HEADINGS[section],))
        for family in families:
            conditions = [row.condition for row in inside if row.family == family]
            for condition in conditions:
                found = ((column, rows.get((run, condition))) for column, run in places)
                yield Line("row", (condition, *(_cell(column, row, section) for column, row in found)))
            if len(conditions) > 1 and section != STABILITY:
                yield mean(section, family, f"mean of {family}")
        if len(families) > 1 and section != STABILITY:
            yield mean(section, "", f"mean over {HEADINGS[section].partition(',')[0]}")
    if {SOUND, PICTURE} <= {row.section for row in first.values()}:
        yield mean(CORRUPTIONS, "", f"mean over {HEADINGS[CORRUPTIONS]}")
