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
HEADERS = re.compile(r' headers="[^"]*"')
# Columns of the robustness table's files that hold no shares: text, whole numbers, and numbers with three digits.
TEXTS = frozenset({"run", "modalities", "condition", "section", "family", "speakers_uar", "worst_speaker"})
WHOLE = frozenset({"clips", "speakers", "seeds", "level", "conditions"})
PROBABILITIES = frozenset({"p", "p_holm"})
SMALL = frozenset({"brier"}) | PROBABILITIES
# No test says that something is certain, as "0.000" would. In a page "<" sorts before digits.
LEAST = 0.001
NAMES = {
    "uar": "UAR %",
    "interval": "95 %",
    "accuracy": "accuracy %",
    "drop": "drop, points",
    "drop_interval": "drop, 95 %",
    "relative_drop": "relative drop %",
    "sd_over_seeds": "SD over seeds",
    "speakers_uar": "UAR by speaker",
    "corruption_error": "CE %",
    "relative_corruption_error": "relative CE %",
    "relative_robustness": "area under UAR %",
    "effective_robustness": "effective robustness, points",
    "worst_speaker_uar": "worst speaker %",
    "worst_speaker": "who",
    "female_minus_male": "women - men",
    "ece": "ECE %",
    "brier": "Brier",
    "changed": "changed %",
    "wer": "WER %",
    "difference": "to reference",
    "p_holm": "p (Holm)",
}
# Bounds stand in one column, as a reader takes them in.
LOWER, UPPER = {"low": "interval", "drop_low": "drop_interval"}, {"low": "high", "drop_low": "drop_high"}
# What fits a page, of a table with two dozen columns; what a phone shows of it comes first.
SHORT = (
    *("run", "uar", "modalities", "condition", "interval", "drop", "ece", "worst_speaker_uar", "corruption_error"),
    *("difference", "p_holm"),
)


def table_html(rows: Sequence[Mapping[str, Any]], table_id: str) -> Markup:
    """Rows as a table that can be sorted; floats with a digit after the point, nothing where there is no value."""
    texts = [{name: _shown(value) for name, value in row.items()} for row in rows]
    frame = pd.DataFrame(texts).fillna("")
    numbers = [name for name in frame if all(map(_is_number, frame[name]))]
    table = GT(frame, id=table_id)
    # What great_tables took from the rows is escaped by it.
    bare = BARE.search((table.cols_align("right", columns=numbers) if numbers else table).as_raw_html())
    assert bare, "great_tables writes tables"
    html = HEADERS.sub("", bare[0]).replace('class="gt_table"', f'id="{table_id}" class="{SORTABLE}"', 1)
    return Markup(html)


def robustness_columns(rows: Sequence[Mapping[str, str]], wanted: Sequence[str] = ()) -> list[dict[str, str]]:
    """Rows of the robustness table's files as a reader wants them: per cents, and no column that is empty throughout.

    `wanted`: names of columns, in their order; empty: all.
    """
    joined = [_with_intervals(row) for row in rows]
    names = wanted or dict.fromkeys(name for row in joined for name in row)
    there = [name for name in names if any(row.get(name) for row in joined)]
    return [
        {NAMES.get(name, name.replace("_", " ")): _text(name, row.get(name, "")) for name in there} for row in joined
    ]


def rule_columns(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Rows of robustness_rules.csv: the rule in words, whether it holds, and where it comes off worst."""
    return [
        {
            "run": row["run"],
            "holds": "pass" if row["passed"] == "True" else "fail",
            "rule": row["rule"],
            "conditions": f"{row['held']} of {row['conditions']}",
            "worst under": row["condition"],
            "UAR %": _text("uar", row["uar"]),
            "against %": _text("uar", row["against"]),
        }
        for row in rows
    ]


def _with_intervals(row: Mapping[str, str]) -> dict[str, str]:
    """The row with two bounds in one column, where the lower one stood."""
    found: dict[str, str] = {}
    for name, text in row.items():
        if name in LOWER:
            upper = row.get(UPPER[name], "")
            found[LOWER[name]] = f"{_text(name, text)} to {_text(name, upper)}" if text and upper else ""
        elif name not in UPPER.values():
            found[name] = text
    return found


def _text(name: str, text: str) -> str:
    if not text or name in TEXTS or name in LOWER.values():
        return text
    if name in WHOLE:
        return f"{float(text):g}"
    if name in PROBABILITIES and float(text) < LEAST:
        return f"<{LEAST}"
    return f"{float(text):.3f}" if name in SMALL else f"{100 * float(text):.1f}" if _is_number(text) else text


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def _is_number(text: str) -> bool:
    try:
        float(text.removeprefix("<") or 0)
    except ValueError:
        return False
    return True
