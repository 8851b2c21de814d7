"""One style for every figure: readable at column width (3.5 in), six points at least, safe for colour-blind readers.

Drawn with matplotlib's Figure objects, never pyplot: no global state, no display. Colours are those of Okabe
and Ito, "Color Universal Design" (2008), and a map of one hue, which colour-blind readers can tell apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from cache.corpus.clips import LABELS
from cache.files.atomic import revealed

COLUMN_WIDTH_INCHES = 3.5
FULL_WIDTH_INCHES = 7.0
DOTS_PER_INCH = 300
NOTE_INCHES = 0.15
NOTE_COLOUR = "#444444"
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


def figure_of(width_inches: float, height_inches: float, note: str) -> Figure:
    """An empty figure; a note takes a strip of its own along the bottom."""
    strip = note_strip(height_inches, note)
    layout = ConstrainedLayoutEngine(rect=(0, strip, 1, 1 - strip))
    figure = Figure(figsize=(width_inches, height_inches), dpi=DOTS_PER_INCH, layout=layout)
    FigureCanvasAgg(figure)
    if note:
        figure.text(0.99, 0.25 * strip, note, ha="right", va="bottom", fontsize=6, color=NOTE_COLOUR)
    return figure


def note_strip(height_inches: float, note: str) -> float:
    """The share of a figure's height that its note takes."""
    return NOTE_INCHES / height_inches if note else 0.0


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, complete or not at all."""
    with revealed(path) as part:
        figure.savefig(part, format="png", dpi=DOTS_PER_INCH)


def shortened(name: str, characters: int) -> str:
    """The end of a long name: of a run's folders the last ones tell it apart."""
    return name if len(name) <= characters else "..." + name[3 - characters :]
