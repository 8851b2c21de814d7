"""The robustness table in LaTeX, with booktabs' rules, by pandas: escaped, for `\\input` in a paper."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fuse.robustness.formats.columns import legends
from fuse.robustness.formats.sheets import Line, Sheet, main_sheet
from fuse.robustness.rows import RobustnessTable, full_subset
from fuse.scores.metrics import uar_in_words

if TYPE_CHECKING:
    import pandas as pd

# What fits a page; more lines are broken over several.
LONGEST = 40
# Seven columns with two intervals do not fit a page of an article otherwise.
WIDEST = 12
MINUS = re.compile(r"(?<!\w)-(?=\d)")
SMALL = r"\footnotesize\setlength{\tabcolsep}{3pt}"
SPECIAL = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
    # In the fonts of an article as it comes, "<" prints as an exclamation mark upside down, "|" as a dash.
    | {"<": "$<$", ">": "$>$", "|": r"\textbar{}"}
)


def latex(table: RobustnessTable, note: str, columns: Sequence[str] = ()) -> str:
    """The main table as a `table`, or a `longtable` where it is longer than a page.

    Several runs stand side by side under the name of each column.

    Args:
        table: the numbers.
        note: what must be said of the runs; it goes into the caption.
        columns: keys of `COLUMNS`; empty: those that fit a page.
    """
    sheet = main_sheet(table, columns)
    long = len(sheet.lines) > LONGEST
    styled = _frame(sheet).style.hide(axis="index")
    text: str = styled.to_latex(
        hrules=True,
        column_format="l" + "r" * len(sheet.tiers),
        multicol_align="c",
        caption=_escaped(" ".join(_caption(table, sheet, note, columns))),
        label="tab:robustness",
        position=None if long else "t",
        position_float=None if long else "centering",
        environment="longtable" if long else None,
    )
    if long:
        return f"% \\usepackage{{booktabs,longtable}}\n{{{SMALL}\n{text}}}\n"
    # A float begins with the size of the text around it, so the smaller one is said inside.
    return "% \\usepackage{booktabs}\n" + text.replace("\\centering\n", f"\\centering{SMALL}\n", 1)


def _caption(table: RobustnessTable, sheet: Sheet, note: str, columns: Sequence[str]) -> Iterator[str]:
    full = {run: full_subset(table.rows, run) for run in table.runs}
    if len(set(full.values())) > 1:
        yield "; ".join(f"{run}: {modalities}" for run, modalities in full.items()) + "."
    else:
        yield f"{sheet.title}."
    yield uar_in_words(table.classes)
    yield from filter(None, (legends(table, columns), f"{note}." if note else ""))


def _frame(sheet: Sheet) -> pd.DataFrame:
    """The sheet's cells as LaTeX, under one line of names, or two where runs stand side by side."""
    # Only then: every command that reads a table would wait for it.
    import pandas as pd

    tiers = [tuple(map(_escaped, tier)) for tier in (("", sheet.header[0]), *sheet.tiers)]
    alone = not any(run for _, run in sheet.tiers)
    names = pd.Index(list(map(_stacked, sheet.header))) if alone else pd.MultiIndex.from_tuples(tiers)
    return pd.DataFrame([_cells(line, len(tiers)) for line in sheet.lines], columns=names)


def _stacked(title: str) -> str:
    """The title of a column, in two lines where that makes it narrower."""
    words = title.split()
    halves = [(" ".join(words[:cut]), " ".join(words[cut:])) for cut in range(1, len(words))]
    if len(title) <= WIDEST or not halves:
        return _escaped(title)
    upper, lower = min(halves, key=lambda pair: max(map(len, pair)))
    return rf"\shortstack[r]{{{_escaped(upper)}\\{_escaped(lower)}}}"


def _cells(line: Line, width: int) -> list[str]:
    """Headings are bold, stand off a little and take no room from their column; means are slanted."""
    cells = [_escaped(line.cells[0]), *map(_numbers, line.cells[1:])]
    if line.kind == "heading":
        cells = [rf"\addlinespace \rlap{{\textbf{{{cells[0]}}}}}"]
    if line.kind == "mean":
        cells = [cell and rf"\textit{{{cell}}}" for cell in cells]
    return [*cells, *([""] * (width - len(cells)))]


def _numbers(cell: str) -> str:
    """A range with a dash, unless one end is below zero; minus as it is set in mathematics."""
    escaped = _escaped(cell)
    return MINUS.sub("$-$", escaped) if MINUS.search(cell) else escaped.replace(" to ", "--")


def _escaped(text: str) -> str:
    """pandas would escape cells, but not a caption, nor `<`."""
    return text.translate(SPECIAL)
