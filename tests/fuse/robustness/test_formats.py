"""The table as text and pictures: what a reader sees, whatever the runs are called."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from matplotlib.figure import Figure

from configs.schema.studies import RobustnessColumn
from fuse.robustness.figures.curves import curves_figure
from fuse.robustness.figures.joint import joint_figure
from fuse.robustness.formats.columns import COLUMNS
from fuse.robustness.formats.latex import latex
from fuse.robustness.formats.markdown import markdown
from fuse.robustness.formats.sheets import main_sheet
from fuse.robustness.numbers import Evaluated, table_of
from fuse.robustness.rows import RobustnessTable
from fuse.robustness.rules import verdicts
from tests.fuse.robustness.answers import answered
from tests.tiny.figure_texts import texts

BOTH = "audio+face"
SHARES = {
    (BOTH, "clean"): 0.9,
    (BOTH, "noise-white-10db"): 0.8,
    (BOTH, "noise-white-0db"): 0.6,
    (BOTH, "drop-frames-30"): 0.9,
    (BOTH, "noise-white-0db+drop-frames-30"): 0.5,
    (BOTH, "missing-50"): 0.6,
    ("audio", "clean"): 0.7,
    ("audio", "noise-white-10db"): 0.5,
    ("audio", "noise-white-0db"): 0.2,
    ("face", "clean"): 0.7,
    ("face", "drop-frames-30"): 0.6,
}
# Everything that LaTeX reads otherwise than it is written.
ODD = r"50%_of #1 & {x} ^~\$"


def table_named(*names: str, speakers: int = 10) -> tuple[RobustnessTable, list[Evaluated]]:
    runs = [
        Evaluated(name, answered({**SHARES, (BOTH, "noise-white-0db"): 0.6 + 0.2 * number}, speakers))
        for number, name in enumerate(names)
    ]
    reference = names[0] if len(names) > 1 else ""
    return table_of(runs, reference, reference), runs


def cells(text: str, first: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {first} |")][:1]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_one_run_has_its_interval_drop_and_means() -> None:
    table, runs = table_named("ours")
    text = markdown(table, verdicts(table, runs), "plumbing")
    assert cells(text, "condition")[:5] == ["condition", "UAR %", "95 % over speakers", "accuracy %", "drop from clean"]
    assert cells(text, "noise-white-0db")[:5] == [
        "noise-white-0db",
        "60.0",
        "60.0 to 60.0",
        "60.0",
        "30.0 (30.0 to 30.0)",
    ]
    assert cells(text, "*mean of noise-white*")[1] == "*70.0*"
    assert "| **sound** |" in text
    assert "chance is 25 %. 400 clips, 10 speakers." in text
    assert "- **fail** ours: audio + face is not below face alone when audio is damaged or missing (noise-" in text
    assert "**plumbing**" in text
    # No other run to compare with: no empty columns for it.
    assert "CE %" not in text


def test_runs_stand_side_by_side_and_comparisons_beside_the_others_alone() -> None:
    text = markdown(table_named("plain", "ours")[0], [], "")
    header = cells(text, "condition")
    assert header == ["condition", "plain: UAR %", "ours: UAR %", "ours: CE %", "ours: p"]
    assert cells(text, "noise-white-0db") == ["noise-white-0db", "60.0", "80.0", "50.0", "0.021"]
    assert "over those of plain; its mean over families is mCE (arXiv 1903.12261)" in text
    assert cells(text, "*mean over sound and picture conditions*")[3] == "*83.3*"


def test_subsets_have_a_table_of_their_own() -> None:
    text = markdown(table_named("ours")[0], [], "").partition("with some modalities alone")[2]
    assert cells(text, "condition") == ["condition", "audio", "face"]
    assert cells(text, "noise-white-0db") == ["noise-white-0db", "20.0", "="]
    assert cells(text, "drop-frames-30") == ["drop-frames-30", "=", "60.0"]


def test_answers_that_change_stand_beside_what_nobody_minds() -> None:
    shares = {(BOTH, "clean"): 0.9, (BOTH, "gain-track-minus1db"): 0.8}
    text = markdown(table_of([Evaluated("ours", answered(shares))]), [], "", ["uar"])
    assert cells(text, "gain-track-minus1db")[1] == "80.0 (10.0)"
    assert cells(text, "clean")[1] == "90.0"


def test_columns_can_be_chosen_and_are_those_of_the_configuration() -> None:
    assert set(COLUMNS) == set(get_args(RobustnessColumn))
    table, _ = table_named("plain", "ours")
    sheet = main_sheet(table, ["worst_speaker", "female_minus_male", "brier"])
    assert sheet.header[1:3] == ("plain: worst speaker %", "ours: worst speaker %")
    assert len(sheet.header) == 7
    # Transcripts there are none of: an empty column would say nothing.
    assert main_sheet(table, ["wer", "clips"]).header == ("condition", "plain: clips", "ours: clips")


def test_a_run_that_a_condition_does_not_change_says_so() -> None:
    face = Evaluated("face", answered({("face", "clean"): 0.7, ("face", "drop-frames-30"): 0.6}))
    table = table_of([*table_named("ours")[1], face], "ours", "ours")
    text = markdown(table, [], "", ["uar"])
    assert cells(text, "condition") == ["condition", "ours (audio+face): UAR %", "face (face): UAR %"]
    assert cells(text, "noise-white-0db") == ["noise-white-0db", "60.0", "="]
    assert cells(text, "missing-50") == ["missing-50", "60.0", ""]
    rule = "audio + face is not below face alone when audio is damaged or missing"
    assert {one.rule: one.against for one in verdicts(table, table_named("ours")[1])}[rule] == pytest.approx(0.7)


def test_few_speakers_are_listed() -> None:
    text = markdown(table_named("ours", speakers=2)[0], [], "")
    assert cells(text, "noise-white-0db")[2] == "1: 60.0, 2: 60.0"
    assert "Under 8 test speakers an interval would mislead; each speaker's UAR is listed." in text
    # Side by side there is no room for them, and the line still said that they were there.
    assert "each speaker's UAR is in the CSV." in markdown(table_named("plain", "ours", speakers=2)[0], [], "")
    assert "p" not in main_sheet(table_named("plain", "ours", speakers=2)[0], ["uar", "p"]).header[-1].split()


def check_structure(text: str) -> None:
    """What a compiler would stop at: rules, cells per line, and signs that are escaped."""
    body = text.partition(r"\begin{tabular}")[2] or text.partition(r"\begin{longtable}")[2]
    assert [text.count(rule) > 0 for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [True] * 3
    columns = len(re.match(r"\{([lr]+)\}", body)[1])  # type: ignore[index]
    lines = [
        line
        for line in body.splitlines()
        if line.endswith(r"\\") and not line.startswith(("\\caption", "\\multicolumn"))
    ]
    assert len(lines) > 5
    for line in lines:
        spanned = sum(int(span) - 1 for span in re.findall(r"\\multicolumn\{(\d+)\}", line))
        assert len(re.findall(r"(?<!\\)&", line)) + spanned == columns - 1, line
    # "<" by itself prints as an exclamation mark upside down.
    assert not re.search(r"(?<!\$)[<>](?!\$)|\|", "\n".join(lines))
    signs = re.sub(r"\$(<|>|-)\$", "", "\n".join(lines))
    plain = re.sub(r"\\[a-zA-Z]+(\[\w\])?|\\.|[{}]", "", signs)
    assert not re.search(r"[%#_$~^]", plain), plain
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    for name in ("table", "tabular", "longtable"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}")


def test_latex_has_booktabs_rules_and_escapes_every_name() -> None:
    text = latex(table_named("plain", ODD)[0], "100 % random_weights")
    check_structure(text)
    assert (
        r"\caption{audio+face. UAR: mean recall over the emotions; chance is 25 \%. CE: errors (1 - UAR) over" in text
    )
    assert r"& \multicolumn{2}{c}{UAR \%} & CE \% &" in text
    assert r"100 \% random\_weights." in text
    assert r"noise-white-0db & 60.0 & 80.0 & 50.0 & 0.021 \\" in text
    assert r"50\%\_of \#1 \& \{x\}" in text


def test_a_table_longer_than_a_page_is_broken_over_several() -> None:
    many = {(BOTH, "clean"): 0.9} | {(BOTH, f"noise-white-{level}db"): 0.8 for level in range(45)}
    text = latex(table_of([Evaluated("ours", answered(many, speakers=2))]), "")
    check_structure(text)
    assert r"\begin{longtable}" in text
    assert text.startswith(r"% \usepackage{booktabs,longtable}")


def test_latex_of_runs_of_other_modalities_says_in_its_caption_which_has_which() -> None:
    face = Evaluated("face", answered({("face", "clean"): 0.7, ("face", "drop-frames-30"): 0.6}))
    text = latex(table_of([*table_named("ours")[1], face], "ours", "ours"), "", ["uar"])
    assert r"\caption{ours: audio+face; face: face. UAR" in text
    assert r"condition & ours & face \\" in text


def test_small_p_negative_drops_and_ranges_are_set_as_such() -> None:
    shares = {(BOTH, "clean"): 0.6, (BOTH, "noise-white-10db"): 0.9, (BOTH, "noise-white-0db"): 0.5}
    text = latex(table_of([Evaluated("ours", answered(shares))]), "", ["interval", "drop"])
    check_structure(text)
    assert re.search(r"noise-white-10db & [\d.]+--[\d.]+ & \$-\$30\.0 \(\$-\$[\d.]+ to ", text), text
    better = dict.fromkeys(shares, 0.95)
    both = [Evaluated("ours", answered(shares, 16)), Evaluated("better", answered(better, 16))]
    assert r"$<$0.001" in latex(table_of(both, "ours", "ours"), "", ["uar", "p"])


@pytest.mark.skipif(
    not (shutil.which("pdflatex") or shutil.which("tectonic")), reason="no pdflatex and no tectonic here"
)
@pytest.mark.parametrize(("names", "longer"), [(("ours",), True), (("plain", ODD), False)])
def test_latex_compiles_and_fits_a_page(names: tuple[str, ...], longer: bool, tmp_path: Path) -> None:
    levels = {(BOTH, f"noise-pink-{level}db"): 0.8 for level in range(45 if longer else 5)}
    runs = [
        Evaluated(name, answered({(BOTH, "clean"): 0.9, (BOTH, "noise-white-0db"): 0.6} | levels)) for name in names
    ]
    text = latex(table_of(runs, names[0], names[0]), "100 % random_weights")
    packages = r"\usepackage{booktabs,longtable}\usepackage[margin=1in]{geometry}"
    document = "\n".join([r"\documentclass{article}", packages, r"\begin{document}"])
    (tmp_path / "paper.tex").write_text(f"{document}\n{text}\n\\end{{document}}\n")
    compiler = ["pdflatex", "-halt-on-error"] if shutil.which("pdflatex") else ["tectonic"]
    # A longtable knows how wide it is from the second time on.
    for _ in range(2):
        done = subprocess.run([*compiler, "paper.tex"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert "too large" not in done.stdout


def test_curves_go_from_clean_to_the_worst_level(tmp_path: Path, drawn: list[Figure]) -> None:
    assert curves_figure(table_named("plain", "ours")[0], tmp_path / "curves.png")
    (panel,) = [axes for axes in drawn[0].axes if axes.get_title(loc="left") == "noise-white"]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["clean", "10db", "0db"]
    lines = [np.asarray(line.get_ydata()).tolist() for line in panel.lines if len(np.asarray(line.get_xdata())) == 3]
    assert [pytest.approx(line) for line in lines] == [[0.9, 0.8, 0.6], [0.9, 0.8, 0.8]]
    assert {"plain", "ours", "chance"} <= set(texts(drawn[0]))
    assert (tmp_path / "curves.svg").read_text().startswith("<?xml")


def test_pairs_are_a_map_with_clean_clips_at_its_corner(tmp_path: Path, drawn: list[Figure]) -> None:
    assert joint_figure(table_named("ours")[0], tmp_path / "joint.png")
    panel = drawn[0].axes[0]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["clean", "noise-white-0db"]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["clean", "drop-frames-30"]
    assert [text.get_text() for text in panel.texts] == ["90", "60", "90", "50"]


def test_equal_tables_give_equal_pictures(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert joint_figure(table_named("ours")[0], tmp_path / f"{name}.png")
    for ending in ("png", "svg"):
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    bare = table_of([Evaluated("ours", answered({(BOTH, "clean"): 0.9, (BOTH, "band-telephone"): 0.8}))])
    assert not curves_figure(bare, tmp_path / "curves.png")
    assert not joint_figure(bare, tmp_path / "joint.png")
    assert not list(tmp_path.iterdir())
