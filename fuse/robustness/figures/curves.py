"""UAR against the level of a corruption: a panel per family, a line per run or, for one run, per set of modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cache.conditions import CLEAN
from fuse.robustness.numbers import curve_of
from fuse.robustness.rows import RobustnessTable, Row, full_subset
from fuse.runs.style import (
    CHANCE_STYLE,
    FULL_WIDTH_INCHES,
    RUN_COLOURS,
    RUN_MARKERS,
    STYLE,
    figure_of,
    note_strip,
    percent_axis,
    save_both,
    shortened,
)

PANELS_ACROSS, PANEL_INCHES, KEY_INCHES = 4, 1.5, 0.3
Line = Mapping[str, Row]


def curves_figure(table: RobustnessTable, path: Path, note: str = "") -> bool:
    """UAR by level, from clean clips to the worst level, with its 95 % interval over speakers as a band.

    Families with a single level have no curve. With too few speakers for an interval the band is one SD over seeds, and
    with one seed there is none.

    Returns:
        Whether there was a curve to draw; nothing is written otherwise.
    """
    lines = _lines(table)
    families = list(
        dict.fromkeys(row.family for own in lines.values() for row in own.values() if row.level is not None)
    )
    families = [name for name in families if any(len(curve_of(own, name)) > 2 for own in lines.values())]
    if not families:
        return False
    lines = {name: own for name, own in lines.items() if any(curve_of(own, family) for family in families)}
    down = -(-len(families) // PANELS_ACROSS)
    across = min(PANELS_ACROSS, len(families))
    with mpl.rc_context(STYLE):
        height = KEY_INCHES + down * PANEL_INCHES
        figure = figure_of(FULL_WIDTH_INCHES * max(across, 2) / PANELS_ACROSS, height, note)
        panels = figure.subplots(down, across, sharey=True, squeeze=False).ravel().tolist()
        for axes, family in zip(panels, families, strict=False):
            _draw(axes, family, lines, table.classes)
        for axes in panels[len(families) :]:
            axes.set_axis_off()
        for axes in panels[::across]:
            axes.set_ylabel("UAR (%)")
        strip, key = note_strip(figure.get_figwidth(), height, note), KEY_INCHES / height
        figure.set_layout_engine("constrained", rect=(0, strip + key, 1, 1 - strip - key))
        figure.legend(handles=_key(list(lines)), loc="center", bbox_to_anchor=(0, strip, 1, key), ncols=across + 1)
        save_both(figure, path)
    return True


def _lines(table: RobustnessTable) -> dict[str, Line]:
    """By name, the rows of each run; for a single run, of all modalities and of each alone."""
    if len(table.runs) > 1:
        return {run: _under(table.rows, run, full_subset(table.rows, run)) for run in table.runs}
    (run,) = table.runs
    full = full_subset(table.rows, run)
    subsets = [full, *(name for name in full.split("+") if name != full)]
    drawn = {name.replace("+", " + "): _under(table.rows, run, name) for name in subsets}
    return {name: own for name, own in drawn.items() if CLEAN in own}


def _under(rows: Sequence[Row], run: str, subset: str) -> dict[str, Row]:
    return {row.condition: row for row in rows if (row.run, row.modalities) == (run, subset)}


def _draw(axes: Axes, family: str, lines: Mapping[str, Line], classes: int) -> None:
    axes.grid(axis="y")
    axes.axhline(1 / classes, **CHANCE_STYLE, zorder=1)
    for number, own in enumerate(lines.values()):
        curve = curve_of(own, family)
        colour, marker = RUN_COLOURS[number % len(RUN_COLOURS)], RUN_MARKERS[number % len(RUN_MARKERS)]
        steps = range(len(curve))
        axes.plot(steps, [row.uar for row in curve], f"{marker}-", color=colour, markersize=2.6)
        low, high = ([_band(row)[end] for row in curve] for end in (0, 1))
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    longest = max((curve_of(own, family) for own in lines.values()), key=len)
    axes.set_xticks(range(len(longest)), [_tick(row) for row in longest])
    axes.set_title(family, loc="left")
    axes.set_ylim(0, 1)
    percent_axis(axes.yaxis)


def _band(row: Row) -> tuple[float, float]:
    if row.low is not None and row.high is not None:
        return row.low, row.high
    spread = row.sd_over_seeds or 0.0
    return row.uar - spread, row.uar + spread


def _tick(row: Row) -> str:
    """The level as its condition spells it: "10db", "50"."""
    if row.condition == CLEAN:
        return CLEAN
    return row.condition.removeprefix(f"{row.family}-").replace("minus", "-")


def _key(names: Sequence[str]) -> list[Line2D]:
    marks = [
        Line2D(
            [],
            [],
            color=RUN_COLOURS[number % len(RUN_COLOURS)],
            marker=RUN_MARKERS[number % len(RUN_MARKERS)],
            markersize=2.8,
            label=shortened(name, 30),
        )
        for number, name in enumerate(names)
    ]
    return [*marks, Line2D([], [], **CHANCE_STYLE, label="chance")]
