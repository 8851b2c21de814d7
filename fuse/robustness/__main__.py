"""`make robustness-table`: what noise, occlusion and missing modalities cost, per condition and modality subset.

Every number is computed from the predictions.csv that is written beside the table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from cache.files.atomic import write_atomic
from cache.files.csv import csv_of
from configs.command.entry import main
from configs.loader import dump_config
from configs.schema.studies import RobustnessConfig
from fuse.robustness.evaluation import evaluate_all, predictions_path
from fuse.robustness.figures.conditions import robustness_figure
from fuse.robustness.missing import MISSING
from fuse.robustness.numbers import table_of
from fuse.robustness.rows import Row
from fuse.runs.folder import CONFIG
from fuse.runs.style import footer
from fuse.scores.intervals import MINIMUM_SPEAKERS
from fuse.scores.metrics import uar_in_words
from fuse.scores.predictions import write_predictions


def run(config: RobustnessConfig) -> int:
    """Evaluate, write the table as Markdown, CSV and figure, print it."""
    config, evaluated, left_out = evaluate_all(config)
    table = table_of(evaluated, config.reference or "", config.baseline or "")
    note = "; ".join(dict.fromkeys(one.caveats for one in evaluated if one.caveats))
    out = Path(config.output_dir)
    text = markdown(table.rows, note, table.classes)
    write_atomic(out / CONFIG, dump_config(config))
    for one in evaluated:
        write_predictions(one.predictions, predictions_path(out, one.name, table.runs))
    write_atomic(out / "robustness_table.csv", csv_of(table.rows))
    write_atomic(out / "robustness_groups.csv", csv_of(table.groups))
    write_atomic(out / "robustness_table.md", text)
    below = footer("; ".join(one.caption for one in evaluated), note)
    drawn = [row for row in table.rows if row.section != MISSING]
    robustness_figure(drawn, out / "robustness_table.png", below, classes=table.classes)
    print(text)
    for line in left_out:
        print(line)
    print(f"table, figure and predictions: {out}")
    return 0


def markdown(rows: Sequence[Row], note: str, classes: int) -> str:
    """The table for a reader: per cents, intervals over speakers or, with few of them, each speaker's score.

    `classes`: how many labels the runs know.
    """
    enough = all(row.low is not None for row in rows)
    last = "95 % over speakers" if enough else "UAR by speaker"
    lines = [
        f"| run | modalities | condition | UAR % | accuracy % | drop from clean | {last} | clips |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        spread = f"{_percent(row.low)} to {_percent(row.high)}" if enough else row.speakers_uar
        lines.append(
            f"| {row.run} | {row.modalities} | {row.condition} | {_percent(row.uar)} | {_percent(row.accuracy)} "
            f"| {_drop(row)} | {spread} | {row.clips} |"
        )
    return "\n".join([*lines, "", *_legend(rows, enough, note, classes)])


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _drop(row: Row) -> str:
    if row.drop is None:
        return ""
    interval = f" ({_percent(row.drop_low)} to {_percent(row.drop_high)})" if row.drop_low is not None else ""
    return f"{_percent(row.drop)}{interval}"


def _legend(rows: Sequence[Row], enough: bool, note: str, classes: int) -> Iterator[str]:
    yield f"{uar_in_words(classes)} Drops are in points, paired by speaker."
    yield from _means(rows)
    if not enough:
        yield f"Under {MINIMUM_SPEAKERS} test speakers an interval would mislead, so each speaker's UAR is listed."
    yield "A subset has no row for a condition that does not touch it."
    yield "Modalities that are not listed were withheld at test time (replaced by the training mean)."
    if note:
        yield f"**{note}**"


def _means(rows: Sequence[Row]) -> Iterator[str]:
    """Over how many seeds the scores are means, for each run: one run's seeds say nothing of another's."""
    runs = {row.run: row.seeds for row in rows}
    counted = [f"{seeds} seed{'s' * (seeds > 1)}" for seeds in runs.values()]
    if max(runs.values()) > 1:
        of_runs = [f"{words} ({run})" for run, words in zip(runs, counted, strict=True)]
        said = counted[0] if len(set(counted)) == 1 else ", ".join(of_runs)
        yield f"Scores are means over {said}; each clip counts once per seed."


if __name__ == "__main__":
    sys.exit(main(RobustnessConfig, run, "What noise, occlusion and missing modalities cost a trained head."))
