"""Training curves of one run or of several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fuse.runs.style import (
    BLUE,
    CHANCE_STYLE,
    COLUMN_WIDTH_INCHES,
    GREY,
    STYLE,
    VERMILION,
    figure_of,
    percent_axis,
    save,
)
from fuse.stack.job import History

LEGEND: dict[str, Any] = {"handlelength": 1.6, "columnspacing": 1.2}


@dataclass(frozen=True)
class RunHistory:
    """One run's curves; a list of them may be empty where it was not measured.

    `start_uar` is the validation UAR before the first epoch, of a run that continues another. It is drawn at 0, and a
    best epoch of -1 then means the start.
    """

    fold: int
    seed: int
    history: History
    start_uar: float | None = None


def training_curves_figure(runs: Sequence[RunHistory], path: Path, note: str = "", *, classes: int) -> None:
    """Loss and validation UAR by epoch: every run thin, their mean thick, each best epoch a dot, as a PNG.

    Args:
        runs: those to draw. Their epochs count from 0, on the axis from 1.
        note: a small footer.
        classes: how many labels there are, of which a guess takes one.

    Raises:
        ValueError: there are no runs, or a best epoch that the run did not reach.
    """
    if not runs:
        raise ValueError("no training history to draw: the list of runs is empty")
    if all(len(run.history.validation_uar) == 1 and run.start_uar is None for run in runs):
        _single_epochs_figure(runs, path, note, classes)
        return
    with mpl.rc_context(STYLE):
        figure = figure_of(COLUMN_WIDTH_INCHES, 3.6, note)
        loss_axes, uar_axes = figure.subplots(2, 1, sharex=True)
        _draw_runs(loss_axes, (run.history.train_loss for run in runs), GREY, "training")
        _draw_runs(loss_axes, (run.history.validation_loss for run in runs), BLUE, "validation")
        loss_axes.set_ylabel("cross-entropy (nats)")
        _draw_runs(uar_axes, (run.history.validation_uar for run in runs), BLUE, "UAR")
        _mark_best(uar_axes, runs)
        uar_axes.axhline(1 / classes, **CHANCE_STYLE, label="chance", zorder=1)
        uar_axes.set_ylabel("validation UAR (%)")
        percent_axis(uar_axes.yaxis)
        uar_axes.set_xlabel("epoch")
        uar_axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        starts = [run.start_uar for run in runs if run.start_uar is not None]
        if starts:
            uar_axes.plot([0] * len(starts), starts, "o", color=BLUE, markersize=3.5, fillstyle="none", label="before")
        longest = max(len(run.history.train_loss) for run in runs)
        uar_axes.set_xlim(-0.5 if starts else 0.5, longest + 0.5)
        for axes in (loss_axes, uar_axes):
            _start_at_zero(axes)
            axes.grid(axis="y")
            # Above the axes: inside, some curve or the line of chance would cross it.
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=4, **LEGEND)
        figure.suptitle("\n".join([_runs_title(runs), *_best_in_words(runs)]), fontsize=STYLE["axes.titlesize"])
        save(figure, path)


def _single_epochs_figure(runs: Sequence[RunHistory], path: Path, note: str, classes: int) -> None:
    """Where there is no curve: every run's validation UAR, a line per fold, and the losses in words."""
    folds = sorted({run.fold for run in runs})
    with mpl.rc_context(STYLE):
        figure = figure_of(COLUMN_WIDTH_INCHES, 1.25 + 0.17 * len(folds), note)
        axes = figure.add_subplot()
        axes.axvline(1 / classes, **CHANCE_STYLE, label="chance", zorder=1)
        for height, fold in enumerate(folds):
            values = [run.history.validation_uar[0] for run in runs if run.fold == fold]
            # Runs that agree would hide each other.
            heights = height + np.linspace(-0.22, 0.22, len(values)) if len(values) > 1 else [height]
            label = "a run" if height == 0 else None
            axes.plot(values, heights, "o", color=BLUE, markersize=2.8, markeredgewidth=0, alpha=0.8, label=label)
        if len(runs) > 1:
            scores = [run.history.validation_uar[0] for run in runs]
            axes.axvline(float(np.mean(scores)), color=VERMILION, linewidth=1.0, label=_mean(runs, scores), zorder=1)
        axes.set_xlim(0, 1)
        axes.set_yticks(range(len(folds)), [f"fold {fold}" for fold in folds])
        axes.set_ylim(len(folds) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set_xlabel(f"validation UAR (%)\n{_losses(runs)}")
        percent_axis(axes.xaxis)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, **LEGEND)
        title = f"{_runs_title(runs)}\nno curves: a single epoch, or solved in closed form"
        figure.suptitle(title, fontsize=STYLE["axes.titlesize"])
        save(figure, path)


def _losses(runs: Sequence[RunHistory]) -> str:
    """ "cross-entropy: training 0.12 to 0.15, validation 1.90 to 2.30 nats"."""
    words = []
    losses = {
        "training": [run.history.train_loss[-1] for run in runs],
        "validation": [run.history.validation_loss[-1] for run in runs],
    }
    for name, values in losses.items():
        low, high = f"{min(values):.2f}", f"{max(values):.2f}"
        words.append(f"{name} {low}" if low == high else f"{name} {low} to {high}")
    return f"cross-entropy: {', '.join(words)} nats"


def _draw_runs(axes: Axes, values: Iterable[Sequence[float]], colour: str, label: str) -> None:
    """Each run's curve thin and, over the epochs that all of them reached, their mean thick."""
    curves = [np.asarray(curve, dtype=np.float64) for curve in values if len(curve)]
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


def _mark_best(axes: Axes, runs: Sequence[RunHistory]) -> None:
    points = [point for run in runs if (point := _best(run)) is not None]
    if points:
        size = 4.0 if len(points) == 1 else 2.6
        label = "best epoch" if len(points) == 1 else "best epochs"
        axes.plot(*zip(*points, strict=True), "o", color=VERMILION, markersize=size, label=label, zorder=5)


def _best(run: RunHistory) -> tuple[int, float] | None:
    """The epoch whose weights are used, on the axis, and its score; None where nothing was measured."""
    best, values = run.history.best_epoch, run.history.validation_uar
    if best == -1 and run.start_uar is not None:
        return 0, run.start_uar
    if not len(values):
        return None
    if not 0 <= best < len(values):
        raise ValueError(f"best_epoch {best} of seed {run.seed} is not one of its {len(values)} epochs")
    return best + 1, values[best]


def _best_in_words(runs: Sequence[RunHistory]) -> list[str]:
    """A line about the scores of the best epochs, where there are any."""
    scored = [(run, point[1]) for run in runs if (point := _best(run)) is not None]
    if not scored:
        return []
    which = "epoch" if len(scored) == 1 else "epochs"
    return [f"best {which}: UAR {_mean(*zip(*scored, strict=True))}"]


def _mean(runs: Sequence[RunHistory], scores: Sequence[float]) -> str:
    """ "mean 47.9 %, SD over seeds 1.2": of the runs' scores, a seed's being the mean over its folds."""
    seeds = {run.seed: [uar for one, uar in zip(runs, scores, strict=True) if one.seed == run.seed] for run in runs}
    said = f"{'mean ' if len(scores) > 1 else ''}{100 * np.mean(scores):.1f} %"
    by_seed = [float(np.mean(values)) for values in seeds.values()]
    return f"{said}, SD over seeds {100 * np.std(by_seed, ddof=1):.1f}" if len(by_seed) > 1 else said


def _runs_title(runs: Sequence[RunHistory]) -> str:
    if len(runs) == 1:
        return f"fold {runs[0].fold}, seed {runs[0].seed}"
    folds, seeds = len({run.fold for run in runs}), len({run.seed for run in runs})
    return f"{len(runs)} runs: {folds} fold{'s' * (folds > 1)}, {seeds} seed{'s' * (seeds > 1)}"
