"""The robustness table as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cache.conditions import CLEAN
from fuse.robustness.rows import Row
from fuse.runs.style import (
    BLACK,
    CHANCE_STYLE,
    COLUMN_WIDTH_INCHES,
    GREY,
    RUN_COLOURS,
    RUN_MARKERS,
    STYLE,
    figure_of,
    note_strip,
    percent_axis,
    save_both,
    shortened,
)

# Small and pale beside the mean; short and broad beside an interval.
SPEAKER_STYLE: dict[str, Any] = {"linestyle": "", "marker": ".", "markersize": 3.4, "alpha": 0.6, "markeredgewidth": 0}
# In the place of a score that would be the one of clean clips.
UNCHANGED = "unchanged"
LONG_NAME = 20
SEEDS_STYLE: dict[str, Any] = {"linewidth": 2.2, "alpha": 0.35, "solid_capstyle": "butt"}


def robustness_figure(rows: Sequence[Row], path: Path, note: str = "", *, classes: int) -> None:
    """UAR by condition, a panel per modality subset and a colour per run, as a PNG and an SVG.

    Conditions, subsets and runs stand in the order in which they first appear. For a single run a
    thin line marks each subset's own clean score, so that the distance to it is the drop. Where there are too few
    speakers for an interval, each of them is a small dot. A condition that does not change a subset has no score there,
    and its place says so.

    Args:
        rows: those of the table.
        note: a small footer.
        classes: how many labels the runs know.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("no rows to draw: the robustness table is empty")
    conditions, subsets, runs = (
        list(dict.fromkeys(names))
        for names in zip(*((row.condition, row.modalities, row.run) for row in rows), strict=True)
    )
    columns = 1 if len(subsets) == 1 else 2
    lines = -(-len(subsets) // columns)
    panel_inches = 0.3 + len(conditions) * max(0.12, 0.03 + 0.055 * len(runs))
    with mpl.rc_context(STYLE):
        figure = figure_of(COLUMN_WIDTH_INCHES, max(1.8, 0.9 + lines * panel_inches), note)
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
        # An odd number of panels leaves a place: beside the first, so that both columns end in an axis.
        key_axes = panels.pop(1) if len(panels) > len(subsets) else None
        for axes, subset in zip(panels, subsets, strict=True):
            axes.axvline(1 / classes, **CHANCE_STYLE, zorder=1)
            _draw_panel(axes, [row for row in rows if row.modalities == subset], conditions, runs)
            axes.set_title(fill(subset.replace("+", " + "), 22), loc="left")
        for axes in panels[-columns:]:
            axes.set_xlabel("UAR (%)")
        _set_table_axes(panels[0], rows, conditions)
        figure.suptitle(_table_title(rows), fontsize=STYLE["axes.titlesize"])
        _draw_key(figure, key_axes, rows, note)
        save_both(figure, path)


def _draw_panel(axes: Axes, rows: Sequence[Row], conditions: Sequence[str], runs: Sequence[str]) -> None:
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    _say_why_blank(axes, rows, conditions)
    for index, run in enumerate(runs):
        colour, marker = _run_style(index)
        offset = 0.0 if len(runs) == 1 else 0.64 * (index / (len(runs) - 1) - 0.5)
        for row in (row for row in rows if row.run == run):
            height = conditions.index(row.condition) + offset
            if row.condition == CLEAN and len(runs) == 1:
                axes.axvline(row.uar, color=colour, linewidth=0.5, alpha=0.6, zorder=1)
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [height, height], color=colour, linewidth=0.9)
            elif len(row.speakers_uar) > 1:
                speakers = list(row.speakers_uar.values())
                axes.plot(speakers, [height] * len(speakers), color=colour, **SPEAKER_STYLE)
            if row.sd_over_seeds:
                ends = [row.uar - row.sd_over_seeds, row.uar + row.sd_over_seeds]
                axes.plot(ends, [height, height], color=colour, **SEEDS_STYLE)
            axes.plot(row.uar, height, marker, color=colour, markersize=2.8, clip_on=False, zorder=3)


def _say_why_blank(axes: Axes, rows: Sequence[Row], conditions: Sequence[str]) -> None:
    there = {row.condition for row in rows}
    for height, condition in enumerate(conditions):
        if condition not in there:
            style: dict[str, Any] = {"fontsize": 6, "color": GREY, "ha": "left", "va": "center", "zorder": 2}
            style["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
            axes.text(0.03, height, UNCHANGED, transform=axes.get_yaxis_transform(), **style)


def _set_table_axes(axes: Axes, rows: Sequence[Row], conditions: Sequence[str]) -> None:
    """Shared by all panels: UAR from 0, conditions from the top."""
    highest = max(_upper(row) for row in rows)
    axes.set_xlim(0, min(1.0, float(np.ceil(highest * 10 + 0.2)) / 10))
    # Long names leave the panels no room for more numbers.
    bins = 3 if max(map(len, conditions)) > LONG_NAME else 5
    axes.xaxis.set_major_locator(MaxNLocator(nbins=bins, steps=[1, 2, 5, 10]))
    percent_axis(axes.xaxis)
    axes.set_yticks(range(len(conditions)), conditions)
    axes.set_ylim(len(conditions) - 0.4, -0.6)


def _draw_key(figure: Figure, free: Axes | None, rows: Sequence[Row], note: str) -> None:
    """What marks and lines mean, in the free place among the panels or below them."""
    handles = _key(rows)
    if free is not None:
        free.set_axis_off()
        free.legend(handles=handles, loc="center left", handlelength=1.6)
        return
    columns = 4
    height = figure.get_figheight()
    strip = note_strip(figure.get_figwidth(), height, note)
    # A legend outside the panels knows nothing of the note: both get strips of their own.
    key_strip = (0.16 + 0.14 * -(-len(handles) // columns)) / height
    figure.set_layout_engine("constrained", rect=(0, strip + key_strip, 1, 1 - strip - key_strip))
    above_note = (0, strip, 1, key_strip)
    figure.legend(handles=handles, loc="center", bbox_to_anchor=above_note, ncols=columns, handlelength=1.6)


def _key(rows: Sequence[Row]) -> list[Line2D]:
    runs = _runs(rows)
    only = RUN_COLOURS[0] if len(runs) == 1 else BLACK
    handles = []
    for index, run in enumerate(runs):
        colour, marker = _run_style(index)
        name = "UAR" if len(runs) == 1 else shortened(run, 22)
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=2.8, linewidth=0, label=name))
    if any(row.low is not None for row in rows):
        label = "95 % interval\nover speakers"
        handles.append(Line2D([], [], color=only, linewidth=0.9, label=label))
    if any(row.low is None and len(row.speakers_uar) > 1 for row in rows):
        handles.append(Line2D([], [], color=only, **SPEAKER_STYLE, label="a speaker"))
    if any(row.sd_over_seeds for row in rows):
        handles.append(Line2D([], [], color=only, **SEEDS_STYLE, label="\u00b1 SD\nover seeds"))
    if len(runs) == 1 and any(row.condition == CLEAN for row in rows):
        handles.append(Line2D([], [], color=only, linewidth=0.5, alpha=0.6, label="clean UAR"))
    return [*handles, Line2D([], [], **CHANCE_STYLE, label="chance")]


def _run_style(index: int) -> tuple[str, str]:
    return RUN_COLOURS[index % len(RUN_COLOURS)], RUN_MARKERS[index % len(RUN_MARKERS)]


def _table_title(rows: Sequence[Row]) -> str:
    runs = _runs(rows)
    clips = sorted({row.clips for row in rows})
    counted = f"{clips[0]} clips" if len(clips) == 1 else f"{clips[0]} to {clips[-1]} clips"
    return f"{shortened(runs[0], 30)}: {counted} per point" if len(runs) == 1 else f"{counted} per point"


def _upper(row: Row) -> float:
    return max([row.uar, *row.speakers_uar.values()]) if row.high is None else row.high


def _runs(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.run for row in rows))
