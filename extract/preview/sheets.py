"""What `make preview` draws: a contact sheet of frames and a sheet of spectrograms, as PNGs.

Colours are those of Okabe and Ito, "Color Universal Design" (2008), and matplotlib's magma, which rises evenly
in lightness: colour-blind readers and grey prints lose nothing. Drawn without pyplot: no global state, no display.

Shape letters: T time (samples or frames), H height, W width, C colour channels, F frequencies, S spectra.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten, wrap
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from cache.files.atomic import revealed
from cache.media import SAMPLE_RATE_HZ
from extract.media.frames import Frames, even_indices

DOTS_PER_INCH = 300
INK, VERMILION, GREY = "#000000", "#D55E00", "#555555"
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
}

SHOWN_FRAMES = 8
FRAME_DOTS = 224
EDGE = 1 / 28  # of a frame's side, on each side
LABEL_INCHES = 1.1
HEADER_INCHES = 0.48
FOOTER_INCHES = 0.3
LABEL_CHARACTERS = 11

WINDOW_SAMPLES = 512
HOP_SAMPLES = 160
RANGE_DB = 70.0
FLOOR = 1e-7
SHEET_INCHES = 3.5
COLUMNS = 2
TRANSCRIPT_CHARACTERS = 32
TRANSCRIPT_LINES = 3


@dataclass(frozen=True)
class Panel:
    """One sound: the condition's name, mono samples at 16 kHz, what stands under it, and whether that is a failure."""

    name: str
    waveform_T: npt.NDArray[np.float32]
    lines: tuple[str, ...] = ()
    is_wrong: bool = False


def contact_sheet(rows: Sequence[tuple[str, Frames]], path: Path, title: str) -> None:
    """Draw frames of a clip, a row per condition, each frame at one dot per pixel where it has 224.

    A frame that was lost and shows another frame's picture has an orange edge.

    Args:
        rows: the condition's name and its frames (T, H, W, 3), as many in every row; the first is clean.
        path: the PNG.
        title: one line.
    """
    clean_THWC = rows[0][1]
    count = len(clean_THWC)
    shown = even_indices(count, min(SHOWN_FRAMES, count))
    strips = [_strip(frames_THWC, clean_THWC, shown) for _, frames_THWC in rows]
    cell_inches = FRAME_DOTS * (1 + 2 * EDGE) / DOTS_PER_INCH
    picture_inches = cell_inches * len(shown), cell_inches * len(rows)
    width, height = LABEL_INCHES + picture_inches[0], HEADER_INCHES + picture_inches[1] + FOOTER_INCHES
    with mpl.rc_context(STYLE):
        figure = _figure(width, height)
        box = (LABEL_INCHES / width, FOOTER_INCHES / height, picture_inches[0] / width, picture_inches[1] / height)
        axes = figure.add_axes(box)
        axes.set_axis_off()
        axes.imshow(np.concatenate(strips), extent=(0, len(shown), len(rows), 0), aspect="auto")
        for row, (name, _) in enumerate(rows):
            text = _on_lines(name)
            axes.text(-0.08, row + 0.5, text, ha="right", va="center", fontsize=11)
        for column, index in enumerate(shown):
            axes.text(column + 0.5, -0.05, f"frame {index + 1}", ha="center", va="bottom", fontsize=9, color=GREY)
        figure.text(LABEL_INCHES / width, 1 - 0.06 / height, title, ha="left", va="top", fontsize=11)
        note = f"{len(shown)} of {count} frames; orange edge: a lost frame, shown as another one"
        figure.text(LABEL_INCHES / width, 0.08 / height, note, ha="left", va="bottom", fontsize=9, color=GREY)
        _save(figure, path)


def spectrogram_sheet(panels: Sequence[Panel], path: Path, title: str, note: str) -> None:
    """Draw the spectrogram of every sound, all on one dB scale, with its lines of text under it.

    Args:
        panels: the sounds, in order.
        path: the PNG.
        title: one or more lines.
        note: a line at the bottom.
    """
    levels_FS = [spectrogram_db(panel.waveform_T) for panel in panels]
    # A single loud bin, such as the lowest of pink noise, would leave the voice in the dark.
    top = 5 * np.ceil(np.percentile(np.concatenate([level_FS.ravel() for level_FS in levels_FS]), 99.9) / 5)
    rows = -(-len(panels) // COLUMNS)
    with mpl.rc_context({**STYLE, "font.size": 6.5}):
        figure = _figure(SHEET_INCHES, 0.85 + sum(_row_inches(panels, row) for row in range(rows)), "constrained")
        grid = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).ravel().tolist()
        for axes in grid[len(panels) :]:
            axes.remove()
        drawn = grid[: len(panels)]
        for axes, panel, level_FS in zip(drawn, panels, levels_FS, strict=True):
            image = _draw_panel(axes, panel, level_FS, (top - RANGE_DB, top))
        drawn[0].set_xlim(0, max(len(panel.waveform_T) for panel in panels) / SAMPLE_RATE_HZ)
        for axes in drawn[-COLUMNS:]:
            axes.tick_params(labelbottom=True)
        bar = figure.colorbar(image, ax=drawn, location="top", aspect=50, pad=0.02, shrink=0.7)
        bar.set_label("level (dB, 0: a full-scale tone)", fontsize=6.5)
        bar.ax.tick_params(labelsize=6)
        bar.outline.set_linewidth(0.4)
        figure.suptitle(title, fontsize=7.5)
        figure.supylabel("frequency (kHz)", fontsize=6.5)
        figure.supxlabel(f"time (s)\n{note}", fontsize=6.5)
        _save(figure, path)


def spectrogram_db(waveform_T: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Level over time and frequency: 32 ms Hann windows every 10 ms.

    Returns:
        (F, S) in dB, 257 frequencies from 0 to 8 kHz; 0 is a sine at full scale.
    """
    missing = max(0, WINDOW_SAMPLES - len(waveform_T)) or (WINDOW_SAMPLES - len(waveform_T)) % HOP_SAMPLES
    samples_T = np.pad(waveform_T, (0, missing))
    window = np.hanning(WINDOW_SAMPLES)
    windows_ST = np.lib.stride_tricks.sliding_window_view(samples_T, WINDOW_SAMPLES)[::HOP_SAMPLES]
    amplitude_SF = np.abs(np.fft.rfft(windows_ST * window)) * (2 / window.sum())
    level_FS: npt.NDArray[np.float32] = (20 * np.log10(np.maximum(amplitude_SF, FLOOR))).T.astype(np.float32)
    return level_FS


def _figure(width_inches: float, height_inches: float, layout: Any = None) -> Figure:
    figure = Figure(figsize=(width_inches, height_inches), dpi=DOTS_PER_INCH, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    with revealed(path) as part:
        figure.savefig(part, format="png", dpi=DOTS_PER_INCH)


def _on_lines(name: str) -> str:
    """A condition's name with line breaks after some of its hyphens."""
    lines = [""]
    for part in re.findall("[^-]+-?", name):
        if lines[-1] and len(lines[-1] + part) > LABEL_CHARACTERS:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _strip(frames_THWC: Frames, clean_THWC: Frames, shown: Sequence[int]) -> Frames:
    """The shown frames side by side, each with an edge: orange where the frame is another one's picture."""
    edge = max(1, round(EDGE * frames_THWC.shape[1]))
    colour = np.array([round(255 * part) for part in mpl.colors.to_rgb(VERMILION)], np.uint8)
    height, width = frames_THWC.shape[1:3]
    cells = []
    for index in shown:
        cell_HWC = np.full((height + 2 * edge, width + 2 * edge, 3), 255, np.uint8)
        if is_replaced(frames_THWC[index], clean_THWC, index):
            # Half of the edge stays white: neighbours do not run into each other.
            cell_HWC[edge // 2 : -(edge // 2) or None, edge // 2 : -(edge // 2) or None] = colour
        cell_HWC[edge:-edge, edge:-edge] = frames_THWC[index]
        cells.append(cell_HWC)
    return np.concatenate(cells, axis=1)


def is_replaced(frame_HWC: Frames, clean_THWC: Frames, index: int) -> bool:
    """Whether frame `index` shows not its own picture but that of another frame of the clean clip."""
    return not np.array_equal(frame_HWC, clean_THWC[index]) and any(
        np.array_equal(frame_HWC, other_HWC) for other_HWC in clean_THWC
    )


def _row_inches(panels: Sequence[Panel], row: int) -> float:
    lines = max(len(_under(panel)) for panel in panels[COLUMNS * row : COLUMNS * (row + 1)])
    return 0.72 + 0.11 * lines


def _under(panel: Panel) -> list[str]:
    """The lines under a panel, wrapped; a recogniser that loops writes pages, of which the beginning is enough."""
    most = TRANSCRIPT_CHARACTERS * TRANSCRIPT_LINES - 12
    return [
        part for line in panel.lines for part in wrap(shorten(line, most, placeholder=" ..."), TRANSCRIPT_CHARACTERS)
    ]


def _draw_panel(
    axes: Axes, panel: Panel, level_FS: npt.NDArray[np.float32], range_db: tuple[float, float]
) -> AxesImage:
    seconds = (level_FS.shape[1] * HOP_SAMPLES + WINDOW_SAMPLES - HOP_SAMPLES) / SAMPLE_RATE_HZ
    extent = (0, seconds, 0, SAMPLE_RATE_HZ / 2000)
    image = axes.imshow(
        level_FS, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=range_db[0], vmax=range_db[1]
    )
    axes.set_title(panel.name, fontsize=7, loc="left", pad=2.5)
    axes.tick_params(labelsize=6, pad=1.5)
    axes.set_yticks([0, 4, 8])
    colour = VERMILION if panel.is_wrong else INK
    axes.set_xlabel("\n".join(_under(panel)), fontsize=6, loc="left", color=colour, labelpad=2)
    return image
