"""A sweep as a figure: its configurations in order, and what each choice does on average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fuse.runs.style import (
    BLUE,
    CHANCE_STYLE,
    COLUMN_WIDTH_INCHES,
    FULL_WIDTH_INCHES,
    GREY,
    STYLE,
    VERMILION,
    figure_of,
    percent_axis,
    save,
)

SHOWN_AT_MOST = 30
BEST_SHOWN, WORST_SHOWN = 15, 5
ROW_INCHES = 0.145
# Of one width, so that the values of a factor stand below its name.
FIXED_WIDTH = "DejaVu Sans Mono"
TABLE_CHARACTERS, NARROW_TABLE_CHARACTERS = 52, 30
EFFECT_CHARACTERS = 22
SHORTEST_COLUMN = 5


@dataclass(frozen=True)
class Row:
    """One configuration: its name, factor to the text of its value, and its score as a share.

    `low` and `high` bound the score over speakers; None where there are too few for an interval. `sd_over_seeds` is the
    standard deviation of the score over seeds; None for one seed.
    """

    name: str
    factors: Mapping[str, str]
    uar: float
    low: float | None
    high: float | None
    sd_over_seeds: float | None = None


@dataclass(frozen=True)
class _Line:
    """A line of the right panel: the name of a factor, or one of its values with the scores of those that have it."""

    text: str
    scores: tuple[float, ...]


def sweep_figure(
    rows: Sequence[Row], path: Path, note: str = "", score: str = "validation UAR", *, classes: int
) -> None:
    """Configurations by score with their intervals, and the main effect of each factor, as a PNG.

    A main effect is the mean score over all configurations that share a value; each of them is a faint dot. Of more
    than 30 configurations the best 15 and the worst 5 are listed; the main effects rest on all of them.

    Args:
        rows: one per configuration.
        note: a small footer.
        score: name of what is on the axes.
        classes: how many labels the runs know.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("no configurations to draw: the sweep has no finished runs")
    ordered = sorted(rows, key=lambda row: -row.uar)
    listed, left_out = _listed(ordered)
    effects = _effects(rows) if len(_varying(rows)) > 1 else []
    places = max(len(listed) + bool(left_out), len(effects) - 1)
    with mpl.rc_context(STYLE):
        # The effects of a single factor are its configurations: one panel says it all.
        width = FULL_WIDTH_INCHES if effects else COLUMN_WIDTH_INCHES
        figure = figure_of(width, 0.85 + ROW_INCHES * max(places + 1, 4), note)
        panels = figure.subplots(1, 2 if effects else 1, squeeze=False, sharex=True).ravel().tolist()
        _draw_configurations(
            panels[0], listed, left_out, _table(listed, TABLE_CHARACTERS if effects else NARROW_TABLE_CHARACTERS)
        )
        panels[0].set_title(_title(ordered, bool(left_out)), loc="left")
        if effects:
            _draw_effects(panels[1], effects)
            panels[1].set_title("main effects: mean by value\n(grey: its configurations)", loc="left")
        for axes in panels:
            axes.set_ylim(places - 0.4, -1.6)
            axes.set_xlabel(f"{score} (%)")
            axes.axvline(1 / classes, **CHANCE_STYLE, zorder=1)
        _set_scores(panels[0], rows)
        save(figure, path)


def _listed(ordered: Sequence[Row]) -> tuple[list[Row], int]:
    """The configurations that are shown one by one, and how many are not."""
    if len(ordered) <= SHOWN_AT_MOST:
        return list(ordered), 0
    return [*ordered[:BEST_SHOWN], *ordered[-WORST_SHOWN:]], len(ordered) - BEST_SHOWN - WORST_SHOWN


def _draw_configurations(axes: Axes, listed: Sequence[Row], left_out: int, table: Sequence[str]) -> None:
    places = [place + (bool(left_out) and place >= BEST_SHOWN) for place in range(len(listed))]
    for place, row in zip(places, listed, strict=True):
        colour = VERMILION if place == 0 else BLUE
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [place, place], color=colour, linewidth=0.9)
        if row.sd_over_seeds:
            ends = [row.uar - row.sd_over_seeds, row.uar + row.sd_over_seeds]
            axes.plot(ends, [place, place], color=colour, linewidth=2.4, alpha=0.35, solid_capstyle="butt")
        axes.plot(row.uar, place, "o", color=colour, markersize=3.2)
    ticks = dict(zip([-1, *places], table, strict=True))
    if left_out:
        ticks[BEST_SHOWN] = f"({left_out} more)".ljust(len(table[0]))
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=6, family=FIXED_WIDTH)
    axes.get_yticklabels()[0].set_fontweight("bold")
    _set_rows(axes)


def _table(listed: Sequence[Row], characters: int) -> list[str]:
    """Names of the factors that vary, and below them each configuration's values; or names, if those say more."""
    factors = _varying(listed)
    lines = [[row.factors.get(factor, "") for factor in factors] for row in listed]
    if not factors or len({tuple(line) for line in lines}) < len(lines):
        factors, lines = ["configuration"], [[row.name] for row in listed]
    lines = [_short(factors), *lines]
    widths = _widths([max(map(len, column)) for column in zip(*lines, strict=True)], characters)
    return [
        "  ".join(_cut(word, width).ljust(width) for word, width in zip(line, widths, strict=True)) for line in lines
    ]


def _short(factors: Sequence[str]) -> list[str]:
    """Names without the section of their key, unless two would then be one."""
    short = [factor.rpartition(".")[2] for factor in factors]
    return short if len(set(short)) == len(short) else list(factors)


def _widths(wanted: Sequence[int], characters: int) -> list[int]:
    """Characters of each column: what it needs, the widest less where all would not fit."""
    widths = list(wanted)
    while sum(widths) + 2 * (len(widths) - 1) > characters and max(widths) > SHORTEST_COLUMN:
        widths[widths.index(max(widths))] -= 1
    return widths


def _cut(word: str, characters: int) -> str:
    """A long word without its middle: both ends tell it apart."""
    if len(word) <= characters:
        return word
    end = (characters - 2) // 2
    return f"{word[: characters - 2 - end]}..{word[len(word) - end :]}"


def _varying(rows: Sequence[Row]) -> list[str]:
    names = dict.fromkeys(name for row in rows for name in row.factors)
    return [name for name in names if len({row.factors.get(name) for row in rows}) > 1]


def _effects(rows: Sequence[Row]) -> list[_Line]:
    lines = []
    factors = _varying(rows)
    for factor, name in zip(factors, _short(factors), strict=True):
        lines.append(_Line(name, ()))
        values = dict.fromkeys(row.factors[factor] for row in rows if factor in row.factors)
        for value in sorted(values, key=float) if all(map(_is_number, values)) else values:
            scores = [row.uar for row in rows if row.factors.get(factor) == value]
            lines.append(_Line(value, tuple(scores)))
    return lines


def _draw_effects(axes: Axes, lines: Sequence[_Line]) -> None:
    for place, line in enumerate(lines, start=-1):
        if not line.scores:
            continue
        axes.plot(line.scores, [place] * len(line.scores), ".", color=GREY, markersize=2.6, alpha=0.6)
        axes.plot(np.mean(line.scores), place, "o", color=BLUE, markersize=3.6)
        before = lines[place]
        if before.scores and _is_number(line.text) and _is_number(before.text):
            # Only numbers have an order that a line may follow.
            axes.plot([np.mean(before.scores), np.mean(line.scores)], [place - 1, place], color=BLUE, linewidth=0.8)
    axes.set_yticks(range(-1, len(lines) - 1), [_cut(line.text, EFFECT_CHARACTERS) for line in lines], fontsize=6)
    for label, line in zip(axes.get_yticklabels(), lines, strict=True):
        label.set_fontweight("normal" if line.scores else "bold")
    _set_rows(axes)


def _set_rows(axes: Axes) -> None:
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)


def _set_scores(axes: Axes, rows: Sequence[Row]) -> None:
    """From the lowest to the highest number that is drawn; chance only where it is near."""
    lowest = min(min(row.uar - (row.sd_over_seeds or 0), row.uar if row.low is None else row.low) for row in rows)
    highest = max(max(row.uar + (row.sd_over_seeds or 0), row.uar if row.high is None else row.high) for row in rows)
    margin = max(0.01, 0.04 * (highest - lowest))
    axes.set_xlim(max(0.0, lowest - margin), min(1.0, highest + margin))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    percent_axis(axes.xaxis)


def _title(ordered: Sequence[Row], some_left_out: bool) -> str:
    counted = f"{len(ordered)} configuration{'s' * (len(ordered) > 1)}"
    if some_left_out:
        counted += f", the best {BEST_SHOWN} and worst {WORST_SHOWN}"
    drawn = {
        "95 % intervals over speakers": any(row.low is not None for row in ordered),
        "broad: \u00b1 SD over seeds": any(row.sd_over_seeds for row in ordered),
    }
    return "\n".join([counted, *(text for text, applies in drawn.items() if applies)])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
