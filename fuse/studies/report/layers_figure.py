"""What each layer knows, as a figure: the scores of its probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

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
from fuse.studies.report.layers import LayerScore


def layers_figure(
    rows: Sequence[LayerScore],
    path: Path,
    title: str,
    note: str = "",
    scored_on: str = "validation speakers",
    *,
    classes: int,
) -> None:
    """UAR of a probe by layer, a line per modality, with intervals over speakers, as a PNG.

    A modality with a single layer has a place of its own beside the layers.

    Args:
        rows: one per modality and layer.
        title: what the probe is and what its numbers rest on.
        note: a small footer.
        scored_on: whose UAR it is.
        classes: how many labels the corpus has.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("no layers to draw: nothing was probed")
    modalities = list(dict.fromkeys(row.modality for row in rows))
    curves = {name: [row for row in rows if row.modality == name] for name in modalities}
    with mpl.rc_context(STYLE):
        figure = figure_of(COLUMN_WIDTH_INCHES, 2.6, note)
        axes = figure.add_subplot()
        axes.axhline(1 / classes, **CHANCE_STYLE, label="chance", zorder=1)
        _draw_curves(axes, curves)
        axes.set_ylim(0, min(1.0, 0.05 + max(row.uar if row.high is None else row.high for row in rows)))
        axes.set_ylabel(f"UAR on {scored_on} (%)")
        percent_axis(axes.yaxis)
        axes.grid(axis="y")
        figure.suptitle(title, fontsize=STYLE["axes.titlesize"])
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, handlelength=1.6)
        save(figure, path)


def _draw_curves(axes: Axes, curves: Mapping[str, Sequence[LayerScore]]) -> None:
    several = {name: rows for name, rows in curves.items() if len(rows) > 1}
    deepest = max((row.layer for rows in several.values() for row in rows), default=-1)
    single = {name: deepest + 1 + place for place, name in enumerate(name for name in curves if name not in several)}
    for number, (name, rows) in enumerate(curves.items()):
        # Side by side, so that intervals do not hide each other.
        offset = 0.1 * (list(several).index(name) - (len(several) - 1) / 2) if name in several else 0.0
        places = [single.get(name, row.layer) + offset for row in rows]
        colour, marker = RUN_COLOURS[number % len(RUN_COLOURS)], RUN_MARKERS[number % len(RUN_MARKERS)]
        for place, row in zip(places, rows, strict=True):
            if row.low is not None and row.high is not None:
                axes.plot([place, place], [row.low, row.high], color=colour, linewidth=0.8)
        axes.plot(places, [row.uar for row in rows], color=colour, marker=marker, markersize=3.5, label=name)
    ticks = {**{layer: str(layer) for layer in range(deepest + 1)}, **{place: name for name, place in single.items()}}
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xlabel("layer of the encoder (0: embeddings)" if several else "features with a single layer")
    axes.set_xlim(-0.4, len(ticks) - 0.6)
