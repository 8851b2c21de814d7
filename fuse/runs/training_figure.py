"""Training curves of one run or of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fuse.runs.style import BLUE, CHANCE, CHANCE_STYLE, COLUMN_WIDTH_INCHES, GREY, STYLE, VERMILION, figure_of, save

LEGEND: dict[str, Any] = {"handlelength": 1.6, "columnspacing": 1.2}


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
    if all(len(run["validation_uar"]) == 1 and "start_uar" not in run for run in history):
        _single_epochs_figure(history, path, note)
        return
    with mpl.rc_context(STYLE):
        figure = figure_of(COLUMN_WIDTH_INCHES, 3.6, note)
        loss_axes, uar_axes = figure.subplots(2, 1, sharex=True)
        _draw_runs(loss_axes, history, "train_loss", GREY, "training")
        _draw_runs(loss_axes, history, "validation_loss", BLUE, "validation")
        loss_axes.set_ylabel("cross-entropy (nats)")
        _draw_runs(uar_axes, history, "validation_uar", BLUE, "UAR")
        _mark_best(uar_axes, history)
        uar_axes.axhline(CHANCE, **CHANCE_STYLE, label="chance", zorder=1)
        uar_axes.set_ylabel("validation UAR")
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
            # Above the axes: inside, some curve or the line of chance would cross it.
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=4, **LEGEND)
        figure.suptitle(_runs_title(history), fontsize=STYLE["axes.titlesize"])
        save(figure, path)


def _single_epochs_figure(history: Sequence[Mapping[str, Any]], path: Path, note: str) -> None:
    """Where there is no curve: every run's validation UAR, a line per fold, and the losses in words."""
    folds = sorted({int(run["fold"]) for run in history})
    with mpl.rc_context(STYLE):
        figure = figure_of(COLUMN_WIDTH_INCHES, 1.25 + 0.17 * len(folds), note)
        axes = figure.add_subplot()
        axes.axvline(CHANCE, **CHANCE_STYLE, label="chance", zorder=1)
        for height, fold in enumerate(folds):
            values = [run["validation_uar"][0] for run in history if run["fold"] == fold]
            # Runs that agree would hide each other.
            heights = height + np.linspace(-0.22, 0.22, len(values)) if len(values) > 1 else [height]
            label = "a run" if height == 0 else None
            axes.plot(values, heights, "o", color=BLUE, markersize=2.8, markeredgewidth=0, alpha=0.8, label=label)
        if len(history) > 1:
            mean = float(np.mean([run["validation_uar"][0] for run in history]))
            axes.axvline(mean, color=VERMILION, linewidth=1.0, label=f"mean {mean:.3f}", zorder=1)
        axes.set_xlim(0, 1)
        axes.set_yticks(range(len(folds)), [f"fold {fold}" for fold in folds])
        axes.set_ylim(len(folds) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set_xlabel(f"validation UAR\n{_losses(history)}")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, **LEGEND)
        title = f"{_runs_title(history)}\nno curves: a single epoch, or solved in closed form"
        figure.suptitle(title, fontsize=STYLE["axes.titlesize"])
        save(figure, path)


def _losses(history: Sequence[Mapping[str, Any]]) -> str:
    """ "cross-entropy: training 0.12 to 0.15, validation 1.90 to 2.30 nats"."""
    words = []
    for name in ("training", "validation"):
        values = [run[f"{'train' if name == 'training' else name}_loss"][-1] for run in history]
        low, high = f"{min(values):.2f}", f"{max(values):.2f}"
        words.append(f"{name} {low}" if low == high else f"{name} {low} to {high}")
    return f"cross-entropy: {', '.join(words)} nats"


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
        label = "best epoch" if len(points) == 1 else "best epochs"
        axes.plot(*zip(*points, strict=True), "o", color=VERMILION, markersize=size, label=label, zorder=5)


def _runs_title(history: Sequence[Mapping[str, Any]]) -> str:
    if len(history) == 1:
        return f"fold {history[0]['fold']}, seed {history[0]['seed']}"
    folds, seeds = (len({run[name] for run in history}) for name in ("fold", "seed"))
    return f"{len(history)} runs: {folds} fold{'s' * (folds > 1)}, {seeds} seed{'s' * (seeds > 1)}"
