"""`make sweep`: every configuration of a grid, every fold, every seed; chosen on validation, reported on test.

A run's row is in sweep.csv as soon as its stack, or its fine-tune, ends, and the same command goes on from there.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from cache.corpus.clips import Corpus
from cache.files.atomic import write_atomic
from cache.files.lock import locked
from cache.protocols.leakage import refuse_leaks
from configs.command.engines.job import require_engine
from configs.command.engines.slurm import refuse_running
from configs.command.entry import main
from configs.command.launch import ERROR_FILE, Interruption, rank_count
from configs.command.nodes.settings import refuse_several
from configs.loader import dump_config, load_config
from configs.schema.sweep import SweepConfig
from fuse.finetune.launch import SECONDS_OF_GRACE
from fuse.runs.folder import CONFIG
from fuse.runs.tables import corpus_of, print_notes, recorded, with_protocol
from fuse.sweep.grid import Run, configurations
from fuse.sweep.ledger import ROWS, read, rewrite
from fuse.sweep.plan import PLAN, SweepPlan, plan_sweep, read_plan, write_plan
from fuse.sweep.rank import every_run
from fuse.sweep.report import conclude
from fuse.sweep.tasks import tune_by_engine
from fuse.sweep.tuning import FineTunes


def run(config: SweepConfig) -> int:
    """Plan, print the plan, train what is missing, write the tables; returns the exit code."""
    refuse_several("a sweep")
    return _fine_tune(config) if config.stage == "finetune" else _train(config)


def _fine_tune(config: SweepConfig) -> int:
    interruption, ranks = Interruption(SECONDS_OF_GRACE), rank_count()
    interruption.listen()
    require_engine(config.engine)
    tunes = FineTunes.of(config)
    note, out, factors = tunes.checked(), Path(config.output_dir), list(config.grid)
    if config.dry_run:
        _print_counts(tunes.runs, set())
        return 0
    with locked(out, key="output_dir") as lock:
        refuse_running(out)
        done = _resume(out, config, factors)
        tunes.refuse_other_starts(out)
        _print_counts(tunes.runs, done)
        if config.engine.name == "torchrun":
            lost = tunes.work(out, done, interruption, ranks)
        else:
            lost = tune_by_engine(tunes, config, done, interruption, ranks, lock)
        return _finish(config, tunes.runs, factors, note, interruption, lost)


def _train(config: SweepConfig) -> int:
    """Heads on cached features, in stacks."""
    interruption, ranks = Interruption(), rank_count()
    config = _with_protocol(config)
    runs = every_run(config)
    corpus = _corpus_without_leaks(runs)
    out, factors = Path(config.output_dir), list(config.grid)
    if config.dry_run:
        _print_plan(runs, set(), plan_sweep(config, runs, corpus, ranks), ranks)
        return 0
    with locked(out, key="output_dir") as lock:
        done = _resume(out, config, factors)
        if not (out / PLAN).is_file():
            write_plan(plan_sweep(config, runs, corpus, ranks), out / PLAN)
        plan = read_plan(out / PLAN)
        plan.refuse_other_labels(corpus.labels, out)
        _print_plan(runs, done, plan, ranks)
        if plan.left(done):
            interruption.listen()
            _launch(out, interruption, ranks, lock)
        return _finish(config, runs, factors, plan.note, interruption)


def _with_protocol(config: SweepConfig) -> SweepConfig:
    """With the name of a protocol, which the ranks and a sweep that goes on find in its folder."""
    first = configurations(config)[0].fusion
    named = with_protocol(first, corpus_of(first)).protocol
    return config if named == first.protocol else replace(config, run={**config.run, "protocol": named})


def _corpus_without_leaks(runs: Sequence[Run]) -> Corpus:
    """The corpus, once it is sure that no clip stands on two sides of a fold."""
    first = runs[0].configuration.fusion
    corpus = corpus_of(first)
    print_notes(corpus)
    clips = corpus.clips
    folds = list(dict.fromkeys(one.fold for one in runs))
    for line in refuse_leaks(folds, clips, recorded(first, clips)):
        print(f"note: {line}")
    return corpus


def _resume(out: Path, config: SweepConfig, factors: Sequence[str]) -> set[int]:
    """Numbers of the runs that an earlier start of the same sweep finished."""
    kept = out / CONFIG
    text = dump_config(replace(config, dry_run=False))
    # Who starts a run is no part of it.
    there = replace(load_config(SweepConfig, kept), engine=config.engine) if kept.is_file() else None
    if there and there != replace(config, dry_run=False):
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
    config: SweepConfig,
    runs: Sequence[Run],
    factors: Sequence[str],
    note: str,
    interruption: Interruption,
    lost: str = "",
) -> int:
    """The tables; or, where runs are missing, why: `lost` says more of it where no signal came."""
    out = Path(config.output_dir)
    rows = read(out / ROWS, factors)
    left = len(runs) - len(rows)
    if interruption.exit_code and left:
        print(f"interrupted with {left} of {len(runs)} runs to go; the same command continues", file=sys.stderr)
        return interruption.exit_code
    if left:
        if lost:
            print(f"error: {lost}", file=sys.stderr)
        print(f"error: ranks died with {left} runs to go (see above); the same command continues", file=sys.stderr)
        return 1
    rewrite(out / ROWS, factors, rows)
    conclude(config, runs, rows, note)
    return 0


def _print_plan(runs: Sequence[Run], done: Collection[int], plan: SweepPlan, ranks: int) -> None:
    _print_counts(runs, done)
    if stacks := plan.left(done):
        widest = max(len(stack.runs) for stack in stacks)
        seconds = sum(stack.seconds for stack in stacks) / ranks
        print(f"{len(stacks)} stacks of up to {widest} heads on {ranks} ranks, about {_time(seconds)}")


def _print_counts(runs: Sequence[Run], done: Collection[int]) -> None:
    cells, folds, seeds = (
        {one.configuration.number for one in runs},
        {one.fold.number for one in runs},
        {one.seed for one in runs},
    )
    print(f"{len(cells)} configurations x {len(folds)} folds x {len(seeds)} seeds = {len(runs)} runs")
    if done:
        print(f"{len(done)} are done, {len(runs) - len(done)} to go")


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


if __name__ == "__main__":
    start = time.monotonic()
    code = main(SweepConfig, run, "Every configuration of a grid, every fold and seed.", flags=("dry_run",))
    print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)
    sys.exit(code)
