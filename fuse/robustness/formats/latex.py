"""The robustness table in LaTeX, with booktabs' rules, by pandas: escaped, for `\\input` in a paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fuse.robustness.formats.sheets import Sheet, main_sheet
from fuse.robustness.rows import RobustnessTable
from fuse.scores.metrics import uar_in_words

if TYPE_CHECKING:
    import pandas as pd

# What fits a page; more lines are broken over several.
LONGEST = 50
SPECIAL = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
)


def latex(table: RobustnessTable, note: str, columns: Sequence[str] = ()) -> str:
    """The main table as a `table`, or a `longtable` where it is longer than a page.

    Args:
        table: the numbers.
        note: what must be said of the runs; it goes into the caption.
        columns: keys of `COLUMNS`; empty: those that fit a page.
    """
    sheet = main_sheet(table, columns)
    long = len(sheet.lines) > LONGEST
    said = [f"{sheet.title}: UAR by condition.", uar_in_words(table.classes), f"{note}." if note else ""]
    styled = _frame(sheet).style.format(escape="latex").format_index(escape="latex", axis=1)
    text: str = styled.hide(axis="index").to_latex(
        hrules=True,
        column_format="l" + "r" * (len(sheet.header) - 1),
        caption=_escaped(" ".join(filter(None, said))),
        label="tab:robustness",
        position=None if long else "t",
        position_float=None if long else "centering",
        environment="longtable" if long else None,
    )
    packages = "booktabs, longtable" if long else "booktabs"
    return f"% \\usepackage{{{packages.replace(', ', ',')}}}\n{text}"


def _frame(sheet: Sheet) -> pd.DataFrame:
    """The sheet's cells; two columns may have one name, so they are given by number."""
    # Only then: every command that reads a table would wait for it.
    import pandas as pd

    width = len(sheet.header)
    lines = [[*line.cells, *([""] * (width - len(line.cells)))] for line in sheet.lines]
    return pd.DataFrame(lines, columns=pd.Index(sheet.header))


def _escaped(text: str) -> str:
    """A caption is passed on by pandas as it stands."""
    return text.translate(SPECIAL)
