"""The enrolment curve: UAR against the clips that are known of a speaker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes

from fuse.runs.style import (
    CHANCE_STYLE,
    COLUMN_WIDTH_INCHES,
    RUN_COLOURS,
    RUN_MARKERS,
    STYLE,
    figure_of,
    percent_axis,
    save,
)
from fuse.studies.enrolment.points import NEUTRAL, Point


def enrolment_figure(points: Sequence[Point], path: Path, note: str = "", *, classes: int) -> None:
    """UAR by clips known of the speaker, a line per condition, as a PNG.

    Args:
        points: those of the curve; the order of their `clips` is the axis's.
        note: a small footer.
        classes: how many labels the run knows.

    Raises:
        ValueError: there are no points.
    """
    if not points:
        raise ValueError("no points to draw: the enrolment curve is empty")
    counts = [count for count in dict.fromkeys(point.clips for point in points) if count != NEUTRAL]
    places, names = {count: place for place, count in enumerate(counts)}, list(counts)
    if any(point.clips == NEUTRAL for point in points):
        places[NEUTRAL] = len(counts)
        names.append("neutral\nones")
    with mpl.rc_context(STYLE):
        figure = figure_of(COLUMN_WIDTH_INCHES, 2.6, note)
        axes = figure.add_subplot()
        for number, condition in enumerate(dict.fromkeys(point.condition for point in points)):
            _draw(axes, [point for point in points if point.condition == condition], places, number)
        axes.axhline(1 / classes, **CHANCE_STYLE, zorder=1, label="chance")
        if NEUTRAL in places:
            axes.axvline(len(counts) - 0.5, color="#BBBBBB", linewidth=0.6)
        axes.set_xticks(list(places.values()), names)
        axes.set_xlabel("unlabelled clips known of the test speaker")
        axes.set_ylabel("UAR, all clips of the speaker (%)")
        percent_axis(axes.yaxis)
        axes.set_ylim(0, 1)
        axes.grid(axis="y")
        figure.legend(loc="outside upper left", ncols=3)
        axes.set_title("bars: 95 % over speakers", loc="left")
        save(figure, path)


def _draw(axes: Axes, points: Sequence[Point], places: Mapping[str, int], number: int) -> None:
    colour, marker = RUN_COLOURS[number % len(RUN_COLOURS)], RUN_MARKERS[number % len(RUN_MARKERS)]
    for point in points:
        if point.low is not None and point.high is not None:
            place = places[point.clips] + 0.06 * number
            axes.plot([place, place], [point.low, point.high], color=colour, linewidth=0.8, zorder=2)
    line = [point for point in points if point.clips != NEUTRAL]
    style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 3, "clip_on": False}
    x = [places[point.clips] + 0.06 * number for point in line]
    axes.plot(x, [point.uar for point in line], **style, label=points[0].condition, zorder=3)
    for point in points:
        if point.clips == NEUTRAL:
            axes.plot(places[NEUTRAL] + 0.06 * number, point.uar, **style, fillstyle="none", zorder=3)
