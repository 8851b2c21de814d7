"""Figures of a run and of the robustness table: one style, readable at column width (3.5 in).

Drawn with matplotlib's Figure objects, never pyplot: no global state, no display. Colours are those of Okabe
and Ito, "Color Universal Design" (2008), and a map of one hue, which colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cache.atomic import revealed
from cache.clips import LABELS
from fuse.metrics import confusion_counts, described, summarise
from fuse.predictions import Predictions

COLUMN_WIDTH_INCHES = 3.5
DOTS_PER_INCH = 300
NOTE_INCHES = 0.14
CHANCE = 1 / len(LABELS)
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"),
)
GREY = "#8A8A8A"
RUN_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
RUN_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
CHANCE_STYLE: dict[str, Any] = {"color": GREY, "linestyle": (0, (2, 2)), "linewidth": 0.8}
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.0,
    "axes.axisbelow": True,
    "grid.linewidth": 0.4,
    "grid.color": "#DDDDDD",
}


def confusion_matrix_figure(predictions: Predictions, path: Path, note: str = "") -> None:
    """One evaluation's confusion matrix: row percentages over counts, emotions in order, as a PNG.

    Args:
        predictions: one split, condition and modality subset; folds and seeds are summed.
        note: a small footer.
    """
    summary = summarise(predictions)
    counts_CC = confusion_counts(predictions.label, predictions.predicted)
    clips_C = counts_CC.sum(axis=1, keepdims=True)
    percent_CC = 100 * counts_CC / np.maximum(clips_C, 1)
    with mpl.rc_context(STYLE):
        figure = _figure(COLUMN_WIDTH_INCHES, 3.55, note)
        axes = figure.add_subplot()
        axes.imshow(percent_CC, cmap="Blues", vmin=0, vmax=100, aspect="equal")
        _write_cells(axes, counts_CC, percent_CC)
        axes.set_xticks(range(len(LABELS)), LABELS, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(LABELS)), LABELS)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("predicted emotion")
        counted = "clips" if summary["seeds"] == 1 else "clips x seeds"
        axes.set_ylabel(f"true emotion (% of row, {counted} below)")
        axes.set_title(f"UAR {summary['uar']:.3f}: {described(summary)}")
        _save(figure, path)


def training_curves_figure(history: Sequence[Mapping[str, Any]], path: Path, note: str = "") -> None:
    """Loss and validation UAR by epoch: every run thin, their mean thick, each best epoch a dot, as a PNG.

    Args:
        history: one mapping per run: `seed`, `fold`, `train_loss`, `validation_loss`, `validation_uar` (a
            value per epoch; a list may be empty where it was not measured) and `best_epoch`, which indexes
            them from 0. On the axis epochs count from 1. A run that continues another may add `start_uar`,
            its validation UAR before the first epoch, drawn at 0; a best epoch of -1 then means the start.
        note: a small footer.

    Raises:
        ValueError: there are no runs, or a best epoch that the run did not reach.
    """
    if not history:
        raise ValueError("no training history to draw: the list of runs is empty")
    with mpl.rc_context(STYLE):
        figure = _figure(COLUMN_WIDTH_INCHES, 3.3, note)
        loss_axes, uar_axes = figure.subplots(2, 1, sharex=True)
        _draw_runs(loss_axes, history, "train_loss", GREY, "training")
        _draw_runs(loss_axes, history, "validation_loss", BLUE, "validation")
        loss_axes.set_ylabel("cross-entropy (nats)")
        _draw_runs(uar_axes, history, "validation_uar", BLUE, "validation")
        _mark_best(uar_axes, history)
        uar_axes.axhline(CHANCE, **CHANCE_STYLE, label="chance", zorder=1)
        uar_axes.set_ylabel("UAR")
        uar_axes.set_xlabel("epoch")
        uar_axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        starts = [run["start_uar"] for run in history if "start_uar" in run]
        if starts:
            uar_axes.plot([0] * len(starts), starts, "o", color=BLUE, markersize=3.5, fillstyle="none", label="before")
        longest = max(len(run["train_loss"]) for run in history)
        uar_axes.set_xlim(-0.5 if starts else 0.5, longest + 0.5)
        for axes in (loss_axes, uar_axes):
            _start_at_zero(axes)
            axes.grid(axis="y")
            axes.legend(loc="best")
        loss_axes.set_title(_runs_title(history))
        _save(figure, path)


def robustness_figure(rows: Sequence[Mapping[str, Any]], path: Path, note: str = "") -> None:
    """UAR by condition, a panel per modality subset and a colour per run, as a PNG.

    Conditions, subsets and runs stand in the order in which they first appear. For a single run a
    thin line marks each subset's own clean score, so that the distance to it is the drop.

    Args:
        rows: one mapping per number: `run`, `modalities`, `condition`, `uar`, `low`, `high`, `clips`; `low`
            and `high` are None where there are too few speakers for an interval.
        note: a small footer.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("no rows to draw: the robustness table is empty")
    conditions, subsets, runs = (_in_order(rows, name) for name in ("condition", "modalities", "run"))
    columns = 1 if len(subsets) == 1 else 2
    lines = -(-len(subsets) // columns)
    panel_inches = 0.3 + len(conditions) * max(0.12, 0.03 + 0.055 * len(runs))
    with mpl.rc_context(STYLE):
        figure = _figure(COLUMN_WIDTH_INCHES, max(1.8, 0.9 + lines * panel_inches), note)
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
        # An odd number of panels leaves a place: beside the first, so that both columns end in an axis.
        key_axes = panels.pop(1) if len(panels) > len(subsets) else None
        for axes, subset in zip(panels, subsets, strict=True):
            _draw_panel(axes, [row for row in rows if row["modalities"] == subset], conditions, runs)
            axes.set_title(fill(subset.replace("+", " + "), 22), loc="left")
        for axes in panels[-columns:]:
            axes.set_xlabel("UAR")
        _set_table_axes(panels[0], rows, conditions)
        figure.suptitle(_table_title(rows), fontsize=STYLE["axes.titlesize"])
        _draw_key(figure, key_axes, rows, note)
        _save(figure, path)


def _figure(width_inches: float, height_inches: float, note: str) -> Figure:
    """An empty figure; a note takes a strip of its own along the bottom."""
    strip = _note_strip(height_inches, note)
    layout = ConstrainedLayoutEngine(rect=(0, strip, 1, 1 - strip))
    figure = Figure(figsize=(width_inches, height_inches), dpi=DOTS_PER_INCH, layout=layout)
    FigureCanvasAgg(figure)
    if note:
        figure.text(0.99, 0.25 * strip, note, ha="right", va="bottom", fontsize=5.5, color="#555555")
    return figure


def _note_strip(height_inches: float, note: str) -> float:
    return NOTE_INCHES / height_inches if note else 0.0


def _save(figure: Figure, path: Path) -> None:
    with revealed(path) as part:
        figure.savefig(part, format="png", dpi=DOTS_PER_INCH)


def _write_cells(axes: Axes, counts_CC: NDArray[np.int64], percent_CC: NDArray[np.float64]) -> None:
    """A percentage over a count in each cell; a row without clips stays grey."""
    edges = np.arange(len(LABELS) - 1) + 0.5
    axes.hlines(edges, -0.5, len(LABELS) - 0.5, color="white", linewidth=0.8)
    axes.vlines(edges, -0.5, len(LABELS) - 0.5, color="white", linewidth=0.8)
    clips_C = counts_CC.sum(axis=1).tolist()
    for row in (row for row, clips in enumerate(clips_C) if not clips):
        axes.axhspan(row - 0.5, row + 0.5, color="#E8E8E8", linewidth=0, zorder=3)
        axes.text(3.5, row, "no clips", ha="center", va="center", fontsize=6, zorder=4)
    for row, column in np.ndindex(counts_CC.shape):
        if not clips_C[row]:
            continue
        # The map turns dark half way.
        colour = "white" if percent_CC[row, column] > 55 else "black"
        text, count = f"{percent_CC[row, column]:.0f}", str(counts_CC[row, column])
        # Cells lie inside the axes: the layout need not measure 128 texts.
        style: dict[str, Any] = {"ha": "center", "va": "center", "color": colour, "in_layout": False}
        axes.text(column, row - 0.12, text, fontsize=7, **style)
        axes.text(column, row + 0.27, count, fontsize=5, **style)


def _draw_runs(axes: Axes, history: Sequence[Mapping[str, Any]], name: str, colour: str, label: str) -> None:
    """Each run's curve thin and, over the epochs that all of them reached, their mean thick."""
    curves = [np.asarray(run[name], dtype=np.float64) for run in history if len(run[name])]
    if not curves:
        return
    # A line through a single epoch has no length.
    marker = "." if max(len(curve) for curve in curves) == 1 else None
    if len(curves) > 1:
        for curve in curves:
            axes.plot(_epochs(curve), curve, color=colour, linewidth=0.4, alpha=0.45, marker=marker)
        label = f"{label}, mean"
    shortest = min(len(curve) for curve in curves)
    mean = np.mean([curve[:shortest] for curve in curves], axis=0)
    axes.plot(_epochs(mean), mean, color=colour, linewidth=1.6, label=label, marker=marker)


def _start_at_zero(axes: Axes) -> None:
    """Loss and UAR are read against zero; a diverged run's infinities do not stretch the axis."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines])
    finite = values[np.isfinite(values)]
    axes.set_ylim(0, 1.08 * float(finite.max()) if finite.size and finite.max() > 0 else 1.0)


def _epochs(curve: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.arange(1, len(curve) + 1)


def _mark_best(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    points = []
    for run in history:
        best, values = int(run["best_epoch"]), run["validation_uar"]
        if best == -1 and "start_uar" in run:
            points.append((0, run["start_uar"]))
            continue
        if not len(values):
            continue
        if not 0 <= best < len(values):
            raise ValueError(f"best_epoch {best} of seed {run['seed']} is not one of its {len(values)} epochs")
        points.append((best + 1, values[best]))
    if points:
        size = 4.0 if len(points) == 1 else 2.6
        label = "best epoch" if len(points) == 1 else "best epoch of each run"
        axes.plot(*zip(*points, strict=True), "o", color=VERMILION, markersize=size, label=label, zorder=5)


def _runs_title(history: Sequence[Mapping[str, Any]]) -> str:
    if len(history) == 1:
        return f"fold {history[0]['fold']}, seed {history[0]['seed']}"
    folds, seeds = (len({run[name] for run in history}) for name in ("fold", "seed"))
    return f"{len(history)} runs: {folds} fold{'s' * (folds > 1)}, {seeds} seed{'s' * (seeds > 1)}"


def _draw_panel(axes: Axes, rows: Sequence[Mapping[str, Any]], conditions: Sequence[str], runs: Sequence[str]) -> None:
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.axvline(CHANCE, **CHANCE_STYLE, zorder=1)
    for index, run in enumerate(runs):
        colour, marker = _run_style(index)
        offset = 0.0 if len(runs) == 1 else 0.64 * (index / (len(runs) - 1) - 0.5)
        for row in (row for row in rows if row["run"] == run):
            height = conditions.index(row["condition"]) + offset
            if row["condition"] == "clean" and len(runs) == 1:
                axes.axvline(row["uar"], color=colour, linewidth=0.5, alpha=0.6, zorder=1)
            if row["low"] is not None:
                axes.plot([row["low"], row["high"]], [height, height], color=colour, linewidth=0.9)
            axes.plot(row["uar"], height, marker, color=colour, markersize=2.8)


def _set_table_axes(axes: Axes, rows: Sequence[Mapping[str, Any]], conditions: Sequence[str]) -> None:
    """Shared by all panels: UAR from 0, conditions from the top."""
    highest = max(_upper(row) for row in rows)
    axes.set_xlim(0, min(1.0, float(np.ceil(highest * 10 + 0.2)) / 10))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(range(len(conditions)), conditions)
    axes.set_ylim(len(conditions) - 0.4, -0.6)


def _draw_key(figure: Figure, free: Axes | None, rows: Sequence[Mapping[str, Any]], note: str) -> None:
    """What marks and lines mean, in the free place among the panels or below them."""
    handles = _key(rows)
    if free is not None:
        free.set_axis_off()
        free.legend(handles=handles, loc="center left", handlelength=1.6)
        return
    columns = 4
    height = figure.get_figheight()
    note_strip = _note_strip(height, note)
    # A legend outside the panels knows nothing of the note: both get strips of their own.
    key_strip = (0.16 + 0.14 * -(-len(handles) // columns)) / height
    figure.set_layout_engine("constrained", rect=(0, note_strip + key_strip, 1, 1 - note_strip - key_strip))
    above_note = (0, note_strip, 1, key_strip)
    figure.legend(handles=handles, loc="center", bbox_to_anchor=above_note, ncols=columns, handlelength=1.6)


def _key(rows: Sequence[Mapping[str, Any]]) -> list[Line2D]:
    runs = _in_order(rows, "run")
    only = RUN_COLOURS[0] if len(runs) == 1 else BLACK
    handles = []
    for index, run in enumerate(runs):
        colour, marker = _run_style(index)
        name = "UAR" if len(runs) == 1 else _shortened(run, 22)
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=2.8, linewidth=0, label=name))
    if any(row["low"] is not None for row in rows):
        label = "95 % interval\nover speakers"
        handles.append(Line2D([], [], color=only, linewidth=0.9, label=label))
    if len(runs) == 1 and "clean" in _in_order(rows, "condition"):
        handles.append(Line2D([], [], color=only, linewidth=0.5, alpha=0.6, label="clean UAR"))
    return [*handles, Line2D([], [], **CHANCE_STYLE, label="chance")]


def _run_style(index: int) -> tuple[str, str]:
    return RUN_COLOURS[index % len(RUN_COLOURS)], RUN_MARKERS[index % len(RUN_MARKERS)]


def _table_title(rows: Sequence[Mapping[str, Any]]) -> str:
    runs = _in_order(rows, "run")
    clips = sorted({int(row["clips"]) for row in rows})
    counted = f"{clips[0]} clips" if len(clips) == 1 else f"{clips[0]} to {clips[-1]} clips"
    return f"{_shortened(runs[0], 30)}: {counted} per point" if len(runs) == 1 else f"{counted} per point"


def _shortened(name: str, characters: int) -> str:
    """The end of a long name: of a run's folders the last ones tell it apart."""
    return name if len(name) <= characters else "..." + name[3 - characters :]


def _upper(row: Mapping[str, Any]) -> float:
    return float(row["uar"] if row["high"] is None else row["high"])


def _in_order(rows: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    return list(dict.fromkeys(str(row[name]) for row in rows))
