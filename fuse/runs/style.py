"""One style for every figure: readable at column width (3.5 in), six points at least, safe for colour-blind readers.

Drawn with matplotlib's Figure objects, never pyplot: no global state, no display. Colours are those of Okabe
and Ito, "Color Universal Design" (2008), and a map of one hue, which colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from textwrap import wrap
from typing import Any

from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine

from cache.files.atomic import revealed

COLUMN_WIDTH_INCHES = 3.5
FULL_WIDTH_INCHES = 7.0
DOTS_PER_INCH = 300
# A strip along the bottom: its first line, and each further one.
NOTE_INCHES, NOTE_LINE_INCHES = 0.15, 0.1
# Of the note's six points; what is wider than usual has the margins to run into.
CHARACTERS_PER_INCH = 21
NOTE_COLOUR = "#444444"
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"),
)
GREY = "#8A8A8A"
RUN_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
RUN_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
CHANCE_STYLE: dict[str, Any] = {"color": GREY, "linestyle": (0, (2, 2)), "linewidth": 0.8}
# It comes with matplotlib, and so draws the same on every machine. It has Latin, Greek, Cyrillic, Georgian, Armenian,
# Arabic and Hebrew letters, but none of Chinese, Japanese, Korean or the scripts of India.
FONT = "DejaVu Sans"
LABEL_CHARACTERS = 16
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": [FONT],
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
    # Names inside an SVG are drawn at random without it.
    "svg.hashsalt": "trifuse",
}


def figure_of(width_inches: float, height_inches: float, note: str) -> Figure:
    """An empty figure; a note takes a strip of its own along the bottom, in as many lines as it needs."""
    strip = note_strip(width_inches, height_inches, note)
    layout = ConstrainedLayoutEngine(rect=(0, strip, 1, 1 - strip))
    figure = Figure(figsize=(width_inches, height_inches), dpi=DOTS_PER_INCH, layout=layout)
    FigureCanvasAgg(figure)
    if note:
        text = "\n".join(_note_lines(width_inches, note))
        bottom = 0.25 * NOTE_INCHES / height_inches
        figure.text(0.99, bottom, text, ha="right", va="bottom", fontsize=6, color=NOTE_COLOUR, linespacing=1.1)
    return figure


def note_strip(width_inches: float, height_inches: float, note: str) -> float:
    """The share of a figure's height that its note takes."""
    further = len(_note_lines(width_inches, note)) - 1
    return (NOTE_INCHES + NOTE_LINE_INCHES * further) / height_inches if note else 0.0


def _note_lines(width_inches: float, note: str) -> list[str]:
    # Between two dollars, matplotlib would read formulas.
    plain = note.replace("$", r"\$")
    return [part for line in plain.splitlines() for part in wrap(line, int(CHARACTERS_PER_INCH * width_inches))]


def footer(caption: str, note: str) -> str:
    """What stands below a figure: what is drawn (run, head, modalities, condition), and what must be said of it."""
    return "\n".join(text for text in (caption, note) if text)


def percent_axis(axis: Axis) -> None:
    """Ticks of shares as whole per cents, as in the tables; the label says "%"."""
    axis.set_major_formatter(lambda share, _: f"{100 * share:.3g}")


def save(figure: Figure, path: Path) -> None:
    """Write a PNG or an SVG, by the path's ending, complete or not at all; equal figures give equal bytes."""
    kind = path.suffix.removeprefix(".")
    with revealed(path) as part:
        figure.savefig(part, format=kind, dpi=DOTS_PER_INCH, metadata={"Date": None} if kind == "svg" else None)


def save_both(figure: Figure, path: Path) -> None:
    """Write a PNG, and the same as an SVG beside it."""
    save(figure, path)
    save(figure, path.with_suffix(".svg"))


def drawn_labels(label_names: Sequence[str]) -> list[str]:
    """What stands for each label in a figure: its first letters, or its number ("#3", from 1).

    The number stands where the figure's font lacks a letter, or where two labels would look the same.
    """
    texts = [_cut(label) if _has_letters(label) else "" for label in label_names]
    times = Counter(texts)
    return [text if text and times[text] == 1 else f"#{number}" for number, text in enumerate(texts, start=1)]


def numbered_labels(label_names: Sequence[str]) -> str:
    """What the numbers in figures stand for, in a line of text; "" where every label is drawn."""
    pairs = zip(drawn_labels(label_names), label_names, strict=True)
    lacking = [f"{text} {label}" for text, label in pairs if text.startswith("#") and text != label]
    return f"In figures, numbers stand for labels: {', '.join(lacking)}." if lacking else ""


def _cut(label: str) -> str:
    short = label if len(label) <= LABEL_CHARACTERS else label[: LABEL_CHARACTERS - 1] + "\u2026"
    # Between two of them, matplotlib would read formulas.
    return short.replace("$", r"\$")


def _has_letters(label: str) -> bool:
    return all(ord(letter) in _letters() for letter in label)


@cache
def _letters() -> frozenset[int]:
    return frozenset(get_font(findfont(FONT)).get_charmap())


def shortened(name: str, characters: int) -> str:
    """The end of a long name: of a run's folders the last ones tell it apart."""
    return name if len(name) <= characters else "..." + name[3 - characters :]
