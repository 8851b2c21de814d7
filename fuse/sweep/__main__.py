"""`make sweep`: every configuration of a grid, every fold, every seed; chosen on validation, reported on test.

A run's row is in sweep.csv as soon as its stack ends, and the same command goes on from there.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from cache.corpus.clips import read_corpus
from cache.files.atomic import write_atomic
from cache.files.lock import locked
from cache.protocols.leakage import recorded_hashes, refuse_leaks
from configs.command.entry import main
from configs.command.launch import ERROR_FILE, Interruption, rank_count
from configs.loader import dump_config, load_config
from configs.schema.sweep import SweepConfig
from fuse.model.fusion import ModelSettings
from fuse.runs.caveats import caveats
from fuse.runs.folder import CONFIG
from fuse.stack.stack import Schedule
from fuse.stack.width import cut, measure
from fuse.sweep.grid import Run, by_shape
from fuse.sweep.ground import ground_of, jobs_of
from fuse.sweep.ledger import ROWS, read, rewrite
from fuse.sweep.rank import PLAN, every_run
from fuse.sweep.report import conclude


@dataclass(frozen=True)
class SweepPlan:
    """What is left to do: stacks of run numbers, and how long one rank would take for them all."""

    stacks: Sequence[Sequence[int]]
    seconds: float
    note: str


def run(config: SweepConfig) -> int:
    """Plan, print the plan, train what is missing, write the tables; returns the exit code."""
    interruption, ranks = Interruption(), rank_count()
    runs = every_run(config)
    out = Path(config.output_dir)
    if config.dry_run:
        _print_plan(runs, runs, make_plan(config, runs, ranks), ranks)
        return 0
    with locked(out) as lock:
        factors = list(config.grid)
        done = _resume(out, config, factors)
        left = [one for one in runs if one.number not in done]
        plan = make_plan(config, left, ranks)
        _print_plan(runs, left, plan, ranks)
        if left:
            interruption.listen()
            write_atomic(out / PLAN, json.dumps(plan.stacks))
            _launch(out, interruption, ranks, lock)
        return _finish(config, runs, factors, plan.note, interruption)


def make_plan(config: SweepConfig, runs: Sequence[Run], ranks: int) -> SweepPlan:
    """Check every shape of run against the stores, and measure how wide its stacks should be.

    No wider than that every rank has one of each shape.
    """
    first = runs[0].configuration.config if runs else every_run(config)[0].configuration.config
    torch.set_num_threads(first.threads)
    clips = read_corpus(Path(first.corpus)).clips
    folds = list(dict.fromkeys(one.fold for one in runs))
    for line in refuse_leaks(folds, clips, recorded_hashes(Path(first.features_dir), clips)):
        print(f"note: {line}")
    stacks: list[list[int]] = []
    seconds, notes = 0.0, {}
    for same in by_shape(runs):
        ground = ground_of(same[0].configuration.config, clips, config)
        jobs = jobs_of(ground, same)
        schedule = Schedule.of(ground.config)
        measured = measure(ModelSettings.of(ground.config, ground.main), ground.cached, jobs, schedule)
        width = min(measured.width, -(-len(jobs) // ranks))
        stacks += [[same[place].number for place in part] for part in cut(jobs, width)]
        seconds += measured.seconds(jobs, schedule)
        notes[caveats(ground.config, ground.main)] = True
    return SweepPlan(stacks, seconds, "; ".join(note for note in notes if note))


def _resume(out: Path, config: SweepConfig, factors: Sequence[str]) -> set[int]:
    """Numbers of the runs that an earlier start of the same sweep finished."""
    kept = out / CONFIG
    text = dump_config(replace(config, dry_run=False))
    if kept.is_file() and load_config(SweepConfig, kept) != replace(config, dry_run=False):
        raise ValueError(f"{out} holds another sweep (see {kept}); choose another output_dir, or delete it")
    rows = read(out / ROWS, factors)
    write_atomic(kept, text)
    rewrite(out / ROWS, factors, rows)
    return set(rows)


def _launch(out: Path, interruption: Interruption, ranks: int, lock: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        error_file = Path(folder, ERROR_FILE)
        # No restarts: rows that are there stay, and the same command goes on.
        interruption.torchrun(["fuse.sweep.rank", str(out), str(error_file)], ranks, 0, keep_open=[lock])
        if error_file.exists():
            raise ValueError(error_file.read_text())


def _finish(
    config: SweepConfig, runs: Sequence[Run], factors: Sequence[str], note: str, interruption: Interruption
) -> int:
    out = Path(config.output_dir)
    rows = read(out / ROWS, factors)
    left = len(runs) - len(rows)
    if interruption.exit_code and left:
        print(f"interrupted with {left} of {len(runs)} runs to go; the same command continues", file=sys.stderr)
        return interruption.exit_code
    if left:
        print(f"error: ranks died with {left} runs to go (see above); the same command continues", file=sys.stderr)
        return 1
    rewrite(out / ROWS, factors, rows)
    conclude(config, runs, rows, note)
    return 0


def _print_plan(runs: Sequence[Run], left: Sequence[Run], plan: SweepPlan, ranks: int) -> None:
    cells, folds, seeds = (
        {one.configuration.number for one in runs},
        {one.fold.number for one in runs},
        {one.seed for one in runs},
    )
    print(f"{len(cells)} configurations x {len(folds)} folds x {len(seeds)} seeds = {len(runs)} runs")
    if len(left) < len(runs):
        print(f"{len(runs) - len(left)} are done, {len(left)} to go")
    if left:
        widest = max(map(len, plan.stacks))
        print(
            f"{len(plan.stacks)} stacks of up to {widest} heads on {ranks} ranks, about {_time(plan.seconds / ranks)}"
        )


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


if __name__ == "__main__":
    start = time.monotonic()
    code = main(SweepConfig, run, "Every configuration of a grid, every fold and seed.", flags=("dry_run",))
    print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)
    sys.exit(code)
