"""What features look like: clips on two axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cache.names import by_number
from fuse.runs.style import (
    BLACK,
    BLUE,
    FULL_WIDTH_INCHES,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    STYLE,
    VERMILION,
    drawn_labels,
    figure_of,
    note_strip,
    save,
)

PALE = "#D5D5D5"
Style = tuple[str, str]
COLOURS = (GREY, SKY, ORANGE, BLUE, VERMILION, PURPLE, GREEN, BLACK)
MARKERS = ("o", "s", "^", "v", "D", "P", "X", "*")
# Of more labels than these, nobody could find one's points in the key.
LABELS_SHOWN_AT_MOST = 32
# No palette tells two dozen speakers apart: the first four of each sex have a colour, the others share one.
WARM: tuple[Style, ...] = ((VERMILION, "o"), (ORANGE, "D"), (PURPLE, "s"), ("#7A3B00", "P"))
COOL: tuple[Style, ...] = ((BLUE, "^"), (GREEN, "v"), (SKY, "X"), (BLACK, "*"))
SPEAKER_STYLES: Mapping[str, tuple[Style, ...]] = {
    "female": WARM,
    "male": COOL,
    "": tuple(style for pair in zip(COOL, WARM, strict=True) for style in pair),
}
OTHERS: Style = (PALE, ".")
PANEL_INCHES = 1.78
KEY_COLUMNS = 4


def features_figure(
    placed: Mapping[str, Mapping[str, NDArray[np.float64]]],
    labels_N: NDArray[np.int64],
    label_names: Sequence[str],
    speakers_N: NDArray[np.str_],
    sexes_N: NDArray[np.str_],
    path: Path,
    shown: str,
    note: str = "",
    shares: Mapping[str, tuple[float, float]] | None = None,
) -> None:
    """Clips on two axes, a row per feature space and a column per method, by emotion and by speaker, as a PNG.

    Args:
        placed: by method and then by the name of a space, coordinates (N, 2) of the same N clips; NaN where a clip
            has no place.
        labels_N: index into `label_names` of each clip; `speakers_N` and `sexes_N` ("female", "male" or "") alike.
        shown: the title: which clips these are.
        note: a small footer.
        shares: by the name of a space, what the two principal components hold of the variance, 0 to 1.

    Raises:
        ValueError: there are no clips.
    """
    if not len(labels_N):
        raise ValueError("no clips to draw: the table of features is empty")
    names = drawn_labels(label_names)
    emotions = {names[label]: _label_style(label) for label in np.unique(labels_N).tolist()[:LABELS_SHOWN_AT_MOST]}
    speakers = _speaker_styles(speakers_N, sexes_N)
    named_N = np.array([name if name in speakers else "others" for name in speakers_N.tolist()])
    emotion_N = np.array([name if name in emotions else "others" for name in (names[n] for n in labels_N.tolist())])
    colourings = {"emotion": (emotion_N, emotions), "speaker": (named_N, speakers)}
    spaces = list(next(iter(placed.values())))
    with mpl.rc_context(STYLE):
        keys = [_emotion_key(emotions), _speaker_key(speakers, speakers_N, sexes_N)]
        lines = max(-(-len(key) // _columns(key)) for key in keys)
        height = 0.5 + PANEL_INCHES * len(spaces) + 0.12 * lines
        figure = figure_of(FULL_WIDTH_INCHES, height, note)
        panels = figure.subplots(len(spaces), len(placed) * len(colourings), squeeze=False)
        for column, (kind, method) in enumerate((kind, method) for kind in colourings for method in placed):
            for row, space in enumerate(spaces):
                _draw_clips(panels[row, column], placed[method][space], *colourings[kind])
                _name_axes(panels[row, column], method, (shares or {}).get(space))
            panels[0, column].set_title(f"{method}, by {kind}")
        for row, space in enumerate(spaces):
            _name_space(panels[row, 0], space)
        figure.suptitle(shown, fontsize=STYLE["axes.titlesize"])
        _draw_keys(figure, keys, lines, note)
        save(figure, path)


def _columns(key: Sequence[Line2D]) -> int:
    """Long names take more room than four in a row have."""
    return KEY_COLUMNS if max((len(str(one.get_label())) for one in key), default=0) <= 11 else KEY_COLUMNS - 1


def _label_style(number: int) -> Style:
    """Every eight labels the markers move on by one, so that no two labels look alike."""
    turn, place = divmod(number, len(COLOURS))
    return COLOURS[place], MARKERS[(place + turn) % len(MARKERS)]


def _draw_clips(
    axes: Axes, coordinates_N2: NDArray[np.float64], names_N: NDArray[np.str_], styles: Mapping[str, Style]
) -> None:
    # Those without a colour lie below the others.
    for name in dict.fromkeys(["others", *styles]):
        colour, marker = styles.get(name, OTHERS)
        points = coordinates_N2[(names_N == name) & np.isfinite(coordinates_N2).all(axis=1)]
        size = 14 if marker in "*P." else 8
        axes.scatter(points[:, 0], points[:, 1], s=size, c=colour, marker=marker, linewidths=0.15, edgecolors="white")
    if not np.isfinite(coordinates_N2).any():
        axes.text(0.5, 0.5, "no clip has it", transform=axes.transAxes, ha="center", va="center")
    axes.set_aspect("equal", adjustable="datalim")


def _name_axes(axes: Axes, method: str, shares: tuple[float, float] | None) -> None:
    axes.set_box_aspect(1)
    name = "PC" if method == "PCA" else method
    held = [f" ({100 * share:.0f} % of variance)" for share in shares] if shares and name == "PC" else ["", ""]
    axes.set_xlabel(f"{name} 1{held[0]}", fontsize=6, labelpad=2)
    axes.set_ylabel(f"{name} 2{held[1]}", fontsize=6, labelpad=2)
    if name == "PC":
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
        axes.tick_params(pad=1.5, labelsize=6)
    else:
        # Distances in t-SNE have no unit.
        axes.set_xticks([])
        axes.set_yticks([])


def _name_space(axes: Axes, space: str) -> None:
    axes.annotate(
        space,
        (-0.34, 0.5),
        xycoords="axes fraction",
        rotation=90,
        ha="right",
        va="center",
        ma="center",
    )


def _speaker_styles(speakers_N: NDArray[np.str_], sexes_N: NDArray[np.str_]) -> dict[str, Style]:
    """Speaker to colour and marker, in numerical order by sex; those for whom none is left are not in it."""
    sex_of = dict(zip(speakers_N.tolist(), sexes_N.tolist(), strict=True))
    styles: dict[str, Style] = {}
    for sex, free in SPEAKER_STYLES.items():
        names = by_number(name for name, own in sex_of.items() if _known(own) == sex)
        styles |= dict(zip(names, free, strict=False))
    return styles


def _known(sex: str) -> str:
    return sex if sex in SPEAKER_STYLES else ""


def _emotion_key(styles: Mapping[str, Style]) -> list[Line2D]:
    return [_handle(name, style) for name, style in styles.items()]


def _speaker_key(styles: Mapping[str, Style], speakers_N: NDArray[np.str_], sexes_N: NDArray[np.str_]) -> list[Line2D]:
    sex_of = dict(zip(speakers_N.tolist(), sexes_N.tolist(), strict=True))
    key = [_handle(f"{name} ({sex_of[name]})" if sex_of[name] else name, style) for name, style in styles.items()]
    others = len(set(sex_of) - set(styles))
    return [*key, _handle(f"{others} others", OTHERS)] if others else key


def _handle(label: str, style: Style) -> Line2D:
    colour, marker = style
    return Line2D([], [], color=colour, marker=marker, markersize=4, linewidth=0, markeredgewidth=0, label=label)


def _draw_keys(figure: Figure, keys: Sequence[list[Line2D]], lines: int, note: str) -> None:
    """A key below each half of the figure."""
    height = figure.get_figheight()
    below, strip = note_strip(figure.get_figwidth(), height, note), (0.12 + 0.13 * lines) / height
    figure.set_layout_engine("constrained", rect=(0, below + strip, 1, 1 - below - strip), w_pad=0.02, h_pad=0.045)
    for number, key in enumerate(keys):
        where = (0.04 + number * 0.48, below, 0.48, strip)
        columns = -(-len(key) // lines)
        figure.legend(
            handles=key, loc="center", bbox_to_anchor=where, ncols=columns, handletextpad=0.1, columnspacing=1.0
        )
