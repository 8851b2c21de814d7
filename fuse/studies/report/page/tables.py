"""The tables of a page, as great_tables writes them: plain HTML, every value escaped.

Its `opt_interactive` would fetch React from the network and put 0.4 MB into the page for each table. So headers sort by
`sortable.js` (3 kB, beside the template), and the page hides the rows that do not hold what is typed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from great_tables import GT
from markupsafe import Markup

# Without great_tables' own style: its colours are for white pages, and some of its rules for all tables of a page.
BARE = re.compile(r"<table.*</table>", re.DOTALL)
SORTABLE = "gt_table sortable n-last"
# Columns of robustness_table.csv that hold numbers which are no shares.
WHOLE = frozenset({"clips", "speakers", "seeds"})
NOT_PERCENT = frozenset({"brier", "mce", "relative_mce", "p", "p_holm"})
NAMES = {
    "uar": "UAR %",
    "accuracy": "accuracy %",
    "low": "95 % from",
    "high": "95 % to",
    "drop": "drop, points",
    "drop_low": "drop from",
    "drop_high": "drop to",
    "sd_over_seeds": "SD over seeds",
    "speakers_uar": "UAR by speaker",
}


def table_html(rows: Sequence[Mapping[str, Any]], table_id: str) -> Markup:
    """Rows as a table that can be sorted; floats with a digit after the point, nothing where there is no value."""
    frame = pd.DataFrame(list(rows))
    floats = [name for name in frame if pd.api.types.is_float_dtype(frame[name])]
    table = GT(frame, id=table_id)
    if floats:
        table = table.fmt_number(columns=floats, decimals=1, use_seps=False).sub_missing(missing_text="")
    # What great_tables took from the rows is escaped by it.
    bare = BARE.search(table.as_raw_html())
    assert bare, "great_tables writes tables"
    return Markup(bare[0].replace('class="gt_table"', f'id="{table_id}" class="{SORTABLE}"', 1))


def robustness_columns(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """The rows of robustness_table.csv as a reader wants them: per cents, and no column that is empty throughout."""
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if any(row.get(name) for row in rows)]
    numeric = [name for name in names if all(_is_number(row.get(name, "")) for row in rows)]
    return [
        {NAMES.get(name, name.replace("_", " ")): _value(name, row.get(name, ""), name in numeric) for name in names}
        for row in rows
    ]


def _value(name: str, text: str, is_number: bool) -> Any:
    if not is_number:
        return text
    if not text:
        return None
    if name in WHOLE:
        return int(float(text))
    return float(text) if name in NOT_PERCENT else 100 * float(text)


def _is_number(text: str) -> bool:
    try:
        float(text or 0)
    except ValueError:
        return False
    return True
