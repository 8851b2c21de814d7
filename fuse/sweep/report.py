"""What a sweep found: configurations by validation score, what validation chose, and its test score.

Test scores of what was not chosen are nowhere: they would only tempt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache.files.atomic import write_atomic
from configs.loader import dump_config
from configs.schema.sweep import SweepConfig
from fuse.runs.caveats import run_in_words
from fuse.runs.folder import PREDICTIONS
from fuse.runs.style import footer
from fuse.scores.intervals import Interval, uar_interval
from fuse.scores.jackknife import tallies
from fuse.scores.metrics import described, summarise, uar_in_words
from fuse.scores.paired_test import Comparison, compare, p_in_words
from fuse.scores.predictions import Predictions, concatenate, read_predictions, write_predictions
from fuse.sweep.choice import Chosen, choose
from fuse.sweep.figure import Row, sweep_figure
from fuse.sweep.grid import Configuration, Run
from fuse.sweep.ground import Outcome
from fuse.sweep.ledger import DIVERGED, UAR
from fuse.sweep.rank import scored

# Of more than these, a figure's footer has their number.
CONDITIONS_NAMED = 3


@dataclass(frozen=True)
class Cell:
    """One configuration's validation score, folds pooled, mean over seeds and conditions; None where it diverged."""

    configuration: Configuration
    uar: float | None
    interval: Interval | None
    diverged: int
    sd_over_seeds: float | None = None


def conclude(config: SweepConfig, runs: Sequence[Run], rows: Mapping[int, Mapping[str, str]], note: str) -> None:
    """Write sweep.md, sweep.png, best.yaml and the chosen runs' predictions; print the tables."""
    out = Path(config.output_dir)
    outcomes = [_outcome(config, run, rows[run.number]) for run in runs]
    cells = sorted(_cells(outcomes), key=lambda cell: -1 if cell.uar is None else -cell.uar)
    chosen = {value: choose(part) for value, part in _by_value(config, outcomes).items()} if config.test else {}
    test = _test_table(config, chosen) if config.test else ["The test speakers were not scored (test: false)."]
    classes = next((len(one.predictions.label_names) for one in outcomes if one.predictions is not None), 0)
    lines = [*_validation_table(config, cells, classes), "", *test, *([f"**{note}**"] if note else [])]
    write_atomic(out / "sweep.md", "\n".join(lines) + "\n")
    finished = [cell for cell in cells if cell.uar is not None]
    if finished:
        write_atomic(out / "best.yaml", _best(finished[0]))
        drawn = [_drawn(cell, cell.uar) for cell in finished if cell.uar is not None]
        sweep_figure(drawn, out / "sweep.png", footer(_caption(config, cells), note), classes=classes)
    for value, one in chosen.items():
        if one is not None:
            write_predictions(one.test, out / "chosen" / _folder(value) / PREDICTIONS)
    print("\n".join(lines))
    print(f"sweep: {out}")


def _outcome(config: SweepConfig, run: Run, row: Mapping[str, str]) -> Outcome:
    if row[DIVERGED]:
        return Outcome(run, None, None, 0, int(row[DIVERGED]) - 1)
    predictions = read_predictions(scored(config, run.number))
    return Outcome(run, predictions, float(row[UAR]), 0, None)


def _cells(outcomes: Sequence[Outcome]) -> Iterator[Cell]:
    by_number: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        by_number.setdefault(outcome.run.configuration.number, []).append(outcome)
    for part in by_number.values():
        diverged = sum(outcome.predictions is None for outcome in part)
        several = [one.predictions.select(split="validation") for one in part if one.predictions is not None]
        if diverged:
            yield Cell(part[0].run.configuration, None, None, diverged)
            continue
        together = concatenate(several)
        value, interval = score_of(together)
        yield Cell(part[0].run.configuration, value, interval, 0, _sd_over_seeds(together))


def score_of(predictions: Predictions) -> tuple[float, Interval | None]:
    """Mean UAR over the conditions, folds pooled, and its interval over speakers."""
    return _mean_uar(predictions), uar_interval(tallies(*by_condition(predictions).values()))


def _mean_uar(predictions: Predictions) -> float:
    return float(np.mean([summarise(part)["uar"] for part in by_condition(predictions).values()]))


def _sd_over_seeds(predictions: Predictions) -> float | None:
    """Of the score that `score_of` is the mean of; None for one seed."""
    seeds = np.unique(predictions.seed).tolist()
    scores = [_mean_uar(predictions.select(seed=seed)) for seed in seeds] if len(seeds) > 1 else []
    return float(np.std(scores, ddof=1)) if scores else None


def by_condition(predictions: Predictions) -> dict[str, Predictions]:
    """One evaluation each."""
    names = dict.fromkeys(predictions.condition.tolist())
    return {str(name): predictions.select(condition=str(name)) for name in names}


def _by_value(config: SweepConfig, outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """The outcomes to choose among, by value of the factor that is compared."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        value = outcome.run.configuration.factors[config.compare] if config.compare else "all"
        groups.setdefault(value, []).append(outcome)
    return groups


def _validation_table(config: SweepConfig, cells: Sequence[Cell], classes: int) -> Iterator[str]:
    """`classes`: how many labels the runs know; 0 where every run diverged."""
    factors = list(config.grid)
    yield f"| {' | '.join(factors)} | validation UAR % | 95 % over speakers |"
    yield "|---" * (len(factors) + 2) + "|"
    for cell in cells:
        values = " | ".join(cell.configuration.factors[factor] for factor in factors)
        score = f"{cell.diverged} runs diverged" if cell.uar is None else _percent(cell.uar)
        yield f"| {values} | {score} | {_range(cell.interval)} |"
    yield ""
    said = f"{uar_in_words(classes)} " if classes else ""
    yield f"{said}Folds are pooled, seeds averaged, never the best of."
    if len(config.conditions) > 1:
        yield f"Scores are means over {', '.join(map(str, config.conditions))}."


def _test_table(config: SweepConfig, chosen: Mapping[str, Chosen | None]) -> Iterator[str]:
    yield "Chosen on each fold's validation clips, scored on its test clips:"
    yield ""
    first = config.compare or "chosen among"
    yield f"| {first} | condition | test UAR % | 95 % over speakers | difference | p (Holm) |"
    yield "|---|---|---|---|---|---|"
    found = {value: one for value, one in chosen.items() if one is not None}
    against = config.references or _first(found)
    compared = _compared(found, against)
    for value, one in found.items():
        for condition, part in by_condition(one.test).items():
            interval = uar_interval(tallies(part))
            comparison = compared.get((value, condition))
            yield (
                f"| {value} | {condition} | {_percent(summarise(part)['uar'])} | {_range(interval)} "
                f"| {_difference(comparison)} |"
            )
    yield ""
    if against:
        named = "; ".join(f"{value} against {other}" for value, other in against.items())
        yield f"Differences in points, paired by speaker, sign-flip test: {named}."
        yield ""
    for value, one in found.items():
        counts = Counter(_free_factors(config, cell) for cell in one.by_fold.values())
        texts = [f"{name or 'the only one'} ({times} of {len(one.by_fold)} folds)" for name, times in counts.items()]
        yield f"{value}: {'; '.join(texts)}."
    if found:
        yield f"Test: {described(summarise(next(iter(by_condition(next(iter(found.values())).test).values()))))}."


def _first(found: Mapping[str, Chosen]) -> dict[str, str]:
    """Where no value says what it is compared with: the first one."""
    names = list(found)
    return dict.fromkeys(names[1:], names[0]) if names else {}


def _compared(found: Mapping[str, Chosen], against: Mapping[str, str]) -> dict[tuple[str, str], Comparison]:
    """Paired tests, Holm-corrected over the table."""
    parts = {value: by_condition(one.test) for value, one in found.items()}
    pairs = {
        (value, condition): (part, parts[other][condition])
        for value, other in against.items()
        if value in found and other in found
        for condition, part in parts[value].items()
    }
    return compare(pairs) if pairs else {}


def _free_factors(config: SweepConfig, cell: Configuration) -> str:
    return ", ".join(text for factor, text in cell.factors.items() if factor != config.compare)


def _difference(comparison: Comparison | None) -> str:
    if comparison is None:
        return " | "
    return f"{100 * comparison.estimate:+.1f} | {p_in_words(comparison.p_holm)}"


def _best(cell: Cell) -> str:
    score = "" if cell.uar is None else f"{_percent(cell.uar)} %"
    opening = f"# {cell.configuration.name}: validation UAR {score}, the best of the sweep"
    return f"{opening}\n{dump_config(cell.configuration.config)}"


def _drawn(cell: Cell, uar: float) -> Row:
    low, high = (cell.interval.low, cell.interval.high) if cell.interval else (None, None)
    return Row(cell.configuration.name, cell.configuration.factors, uar, low, high, cell.sd_over_seeds)


def _caption(config: SweepConfig, cells: Sequence[Cell]) -> str:
    """What all configurations share of run, head, modalities and condition; what varies stands in the figure."""
    every = [cell.configuration.config for cell in cells]
    heads, subsets = {one.head or "" for one in every}, {"+".join(one.modalities or ()) for one in every}
    conditions = [*map(str, config.conditions)] or sorted({str(one.condition) for one in every})
    shown = ", ".join(conditions) if len(conditions) <= CONDITIONS_NAMED else f"mean of {len(conditions)} conditions"
    head = heads.pop() if len(heads) == 1 else "several heads"
    return run_in_words(config.output_dir, head, [subsets.pop() if len(subsets) == 1 else "several modalities"], shown)


def _folder(value: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "+-." else "-" for letter in value)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _range(interval: Interval | None) -> str:
    return f"{_percent(interval.low)} to {_percent(interval.high)}" if interval else "too few speakers"
