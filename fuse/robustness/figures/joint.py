"""Pairs of a sound and a picture condition as a heat map: UAR, a panel per run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes

from cache.conditions import CLEAN, parse_joint
from fuse.robustness.rows import BOTH, PICTURE, SOUND, RobustnessTable, Row, full_subset
from fuse.runs.style import COLUMN_WIDTH_INCHES, STYLE, figure_of, percent_axis, save_both, shortened

CELL_INCHES, LEFT_INCHES, ABOVE_INCHES = 0.34, 1.1, 1.5
# White letters on what is darker.
DARK = 0.55
Cells = Mapping[tuple[str, str], float]


def joint_figure(table: RobustnessTable, path: Path, note: str = "") -> bool:
    """UAR of each run with all of its modalities; sound conditions across, picture conditions down, clean ones first.

    Returns:
        Whether there were pairs to draw; nothing is written otherwise.
    """
    cells = {run: found for run in table.runs if (found := _cells(table.rows, run))}
    if not cells:
        return False
    across, down = (list(dict.fromkeys(pair[place] for found in cells.values() for pair in found)) for place in (0, 1))
    width = max(COLUMN_WIDTH_INCHES, len(cells) * (LEFT_INCHES + CELL_INCHES * len(across)))
    height = ABOVE_INCHES + CELL_INCHES * len(down)
    with mpl.rc_context(STYLE):
        figure = figure_of(width, height, note)
        panels = figure.subplots(1, len(cells), squeeze=False, sharey=True).ravel().tolist()
        for axes, (run, found) in zip(panels, cells.items(), strict=True):
            _draw(axes, found, across, down)
            axes.set_title(shortened(run, 30), loc="left")
        image = panels[0].images[0]
        bar = figure.colorbar(image, ax=panels, label="UAR (%)", shrink=0.9)
        percent_axis(bar.ax.yaxis)
        save_both(figure, path)
    return True


def _cells(rows: Sequence[Row], run: str) -> dict[tuple[str, str], float]:
    """UAR by sound and picture condition, `clean` where only one of the two was changed; empty without any pair."""
    own = [row for row in rows if row.run == run and row.modalities == full_subset(rows, run)]
    pairs = {row.condition: row.uar for row in own if row.section == BOTH}
    if not pairs:
        return {}
    found = {(CLEAN, CLEAN): next(row.uar for row in own if row.condition == CLEAN)}
    paired = {part.name for name in pairs for part in parse_joint(name).parts}
    for row in own:
        if row.section in (SOUND, PICTURE) and row.condition in paired:
            found[(row.condition, CLEAN) if row.section == SOUND else (CLEAN, row.condition)] = row.uar
    for name, score in pairs.items():
        sound, picture = sorted(parse_joint(name).parts, key=lambda part: part.modality != "audio")
        found[sound.name, picture.name] = score
    return found


def _draw(axes: Axes, cells: Cells, across: Sequence[str], down: Sequence[str]) -> None:
    shares = [[cells.get((sound, picture), float("nan")) for sound in across] for picture in down]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for line, scores in enumerate(shares):
        for place, score in enumerate(scores):
            colour = "white" if score > DARK else "black"
            text = "" if score != score else f"{100 * score:.0f}"
            axes.text(place, line, text, ha="center", va="center", fontsize=6.5, color=colour)
    axes.set_xticks(range(len(across)), across, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(down)), down)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
