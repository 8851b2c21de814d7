"""Tables of a page: numbers as a reader wants them."""

from __future__ import annotations

from fuse.studies.report.page.subjects import read_subjects
from fuse.studies.report.page.tables import SHORT, robustness_columns, rule_columns, table_html
from tests.fuse.studies.report.page.conftest import CONDITIONS, HOSTILE, Written

ROW = {
    "run": "one",
    "modalities": "audio",
    "condition": "noise-white-0db",
    "uar": "0.51239",
    "low": "0.4",
    "high": "0.6051",
    "drop": "",
    "clips": "32",
    "brier": "0.5",
    "level": "-5",
    "worst_speaker": "9",
    "p_holm": "0.0204",
    "speakers_uar": "9: 12.5",
}


def test_shares_are_per_cents_and_bounds_stand_together() -> None:
    """A level in dB, a speaker's number and a p value were once multiplied by 100 with the scores."""
    (row,) = robustness_columns([ROW])
    assert row == {
        "run": "one",
        "modalities": "audio",
        "condition": "noise-white-0db",
        "UAR %": "51.2",
        "95 %": "40.0 to 60.5",
        "clips": "32",
        "Brier": "0.500",
        "level": "-5",
        "who": "9",
        "p (Holm)": "0.020",
        "UAR by speaker": "9: 12.5",
    }
    assert list(robustness_columns([ROW], SHORT)[0]) == ["run", "UAR %", "modalities", "condition", "95 %", "p (Holm)"]


def test_a_small_p_is_not_nought() -> None:
    rows = [{"run": "one", "p_holm": text} for text in ("0.0002", "0.0204")]
    assert [row["p (Holm)"] for row in robustness_columns(rows)] == ["<0.001", "0.020"]
    html = table_html(robustness_columns(rows), "table")
    assert "&lt;0.001" in html
    assert html.count("gt_row gt_right") == 2


def test_rules_say_whether_they_hold_and_where_they_come_off_worst(written: Written) -> None:
    (subject,) = read_subjects([written.run], None)
    (rule,) = rule_columns(subject.rules)
    assert (rule["holds"], rule["conditions"], rule["worst under"]) == ("fail", "2 of 5", CONDITIONS[-1])
    assert (rule["UAR %"], rule["against %"]) == ("25.0", "50.0")


def test_a_table_is_escaped_sortable_and_without_a_style_of_its_own() -> None:
    html = table_html([{"run": HOSTILE, "UAR %": 51.25}, {"run": "b", "UAR %": None}], "scores")
    assert html.startswith('<table id="scores" class="gt_table sortable n-last"')
    assert "<img" not in html
    assert "<style" not in html
    assert ">51.2</td>" in html
    assert html.count("gt_row gt_right") == 2
