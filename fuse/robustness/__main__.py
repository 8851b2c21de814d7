"""`make robustness-table`: what noise, occlusion and missing modalities cost, per condition and modality subset.

Every number is computed from the predictions.csv that is written beside the table; word error rates alone are those
of the transcripts in the feature stores.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

from cache.files.atomic import write_atomic
from cache.files.csv import csv_of, csv_text
from configs.command.entry import main
from configs.command.nodes.settings import refuse_several
from configs.loader import dump_config
from configs.schema.studies import RobustnessConfig
from fuse.robustness.evaluation import evaluate_all, predictions_path
from fuse.robustness.figures.conditions import robustness_figure
from fuse.robustness.figures.curves import curves_figure
from fuse.robustness.figures.joint import joint_figure
from fuse.robustness.formats.latex import latex
from fuse.robustness.formats.markdown import markdown
from fuse.robustness.missing import MISSING
from fuse.robustness.numbers import Evaluated, table_of
from fuse.robustness.rows import Group, RobustnessTable
from fuse.robustness.rules import Verdict, verdicts
from fuse.runs.folder import CONFIG
from fuse.runs.style import footer
from fuse.scores.predictions import write_predictions


def run(config: RobustnessConfig) -> int:
    """Evaluate, write the table in every format with its figures and the predictions that it rests on, print it."""
    refuse_several("a table")
    config, evaluated, left_out = evaluate_all(config)
    table = table_of(evaluated, config.reference or "", config.baseline or "")
    note = "; ".join(dict.fromkeys(one.caveats for one in evaluated if one.caveats))
    rules, out = verdicts(table, evaluated), Path(config.output_dir)
    text = markdown(table, rules, note, config.columns)
    write_atomic(out / CONFIG, dump_config(config))
    for one in evaluated:
        write_predictions(one.predictions, predictions_path(out, one.name, table.runs))
    write_atomic(out / "robustness_table.csv", csv_of(table.rows))
    write_atomic(out / "robustness_groups.csv", _csv(Group, table.groups))
    write_atomic(out / "robustness_rules.csv", _csv(Verdict, rules))
    write_atomic(out / "robustness_table.md", text)
    write_atomic(out / "robustness_table.tex", latex(table, note, config.columns))
    _draw(table, evaluated, note, config, out)
    print(text)
    for line in left_out:
        print(line)
    print(f"table, figures and predictions: {out}")
    return 0


def _csv(kind: type[Group] | type[Verdict], rows: Sequence[Group] | Sequence[Verdict]) -> str:
    """Of no rows a header alone: clean clips have no groups, and the file of an earlier table must not stay."""
    return csv_text([field.name for field in fields(kind)], map(astuple, rows))


def _draw(
    table: RobustnessTable, evaluated: Sequence[Evaluated], note: str, config: RobustnessConfig, out: Path
) -> None:
    """The table, the curves, and the pairs; where there are none of an earlier table's pictures, none stays."""
    below = footer("; ".join(one.caption for one in evaluated), note)
    grid = set(map(str, config.grid))
    drawn = [row for row in table.rows if row.section != MISSING and row.condition not in grid]
    robustness_figure(drawn, out / "robustness_table.png", below, classes=table.classes)
    for figure, name in ((curves_figure, "robustness_curves.png"), (joint_figure, "robustness_joint.png")):
        if not figure(table, out / name, below):
            for path in (out / name, (out / name).with_suffix(".svg")):
                path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(RobustnessConfig, run, "What noise, occlusion and missing modalities cost a trained head."))
