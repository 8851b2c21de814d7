"""The confusion matrix of one evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from fuse.runs.style import COLUMN_WIDTH_INCHES, FULL_WIDTH_INCHES, STYLE, drawn_labels, figure_of, save
from fuse.scores.metrics import confusion_counts, described, summarise
from fuse.scores.predictions import Predictions

# Up to so many classes: a matrix of column width; counts in the cells; anything in the cells; a name for each class.
NARROW, COUNTED, WRITTEN, NAMED = 9, 20, 30, 60


def confusion_matrix_figure(predictions: Predictions, path: Path, note: str = "") -> None:
    """One evaluation's confusion matrix: row percentages over counts, labels in order, as a PNG.

    With more than 20 labels counts are left out, with more than 30 all numbers, and with more than 60 some names.

    Args:
        predictions: one split, condition and modality subset; folds and seeds are summed.
        note: a small footer.
    """
    summary, names = summarise(predictions), drawn_labels(predictions.label_names)
    counts_CC = confusion_counts(predictions.label, predictions.predicted, len(names))
    clips_C = counts_CC.sum(axis=1, keepdims=True)
    percent_CC = 100 * counts_CC / np.maximum(clips_C, 1)
    size = (COLUMN_WIDTH_INCHES, 3.55) if len(names) <= NARROW else (FULL_WIDTH_INCHES, 7.05)
    with mpl.rc_context(STYLE):
        figure = figure_of(*size, note)
        axes = figure.add_subplot()
        image = axes.imshow(percent_CC, cmap="Blues", vmin=0, vmax=100, aspect="equal")
        _write_cells(axes, counts_CC, percent_CC)
        if len(names) > WRITTEN:
            figure.colorbar(image, ax=axes, shrink=0.6, label="% of row")
        shown = range(0, len(names), -(-len(names) // NAMED))
        axes.set_xticks(shown, [names[place] for place in shown], rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(shown, [names[place] for place in shown])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("predicted emotion")
        counted = "clips" if summary["seeds"] == 1 else "clips x seeds"
        below = f", {counted} below" if len(names) <= COUNTED else ""
        axes.set_ylabel(f"true emotion (% of row{below})")
        spread = summary["uar_sd_over_seeds"]
        over_seeds = ": " if spread is None else f", SD over seeds {100 * spread:.1f}\n"
        axes.set_title(f"UAR {100 * summary['uar']:.1f} %{over_seeds}{described(summary)}")
        save(figure, path)


def _write_cells(axes: Axes, counts_CC: NDArray[np.int64], percent_CC: NDArray[np.float64]) -> None:
    """A percentage over a count in each cell, as far as there is room; a row without clips stays grey."""
    classes = len(counts_CC)
    edges = np.arange(classes - 1) + 0.5
    if classes <= NAMED:
        axes.hlines(edges, -0.5, classes - 0.5, color="white", linewidth=0.8)
        axes.vlines(edges, -0.5, classes - 0.5, color="white", linewidth=0.8)
    clips_C = counts_CC.sum(axis=1).tolist()
    for row in (row for row, clips in enumerate(clips_C) if not clips):
        axes.axhspan(row - 0.5, row + 0.5, color="#E8E8E8", linewidth=0, zorder=3)
        if classes <= WRITTEN:
            axes.text((classes - 1) / 2, row, "no clips", ha="center", va="center", fontsize=6, zorder=4)
    for row, column in np.ndindex(counts_CC.shape):
        if not clips_C[row] or classes > WRITTEN or (classes > COUNTED and not counts_CC[row, column]):
            continue
        # The map turns dark half way.
        colour = "white" if percent_CC[row, column] > 55 else "black"
        text, count = f"{percent_CC[row, column]:.0f}", str(counts_CC[row, column])
        # Cells lie inside the axes: the layout need not measure hundreds of texts.
        style: dict[str, Any] = {"ha": "center", "va": "center", "color": colour, "in_layout": False}
        if classes > COUNTED:
            axes.text(column, row, text, fontsize=6, **style)
            continue
        axes.text(column, row - 0.12, text, fontsize=7, **style)
        axes.text(column, row + 0.27, count, fontsize=6, **style)
