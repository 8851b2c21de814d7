"""One rank of a sweep: every world-size-th stack of the plan, each run's predictions and row as its stack ends."""

from __future__ import annotations

import sys
from pathlib import Path

from cache.features.provenance import refuse_others
from configs.command.entry import rank_main
from configs.command.progress import Progress
from configs.loader import load_config
from configs.schema.protocols import load_protocol
from configs.schema.sweep import SweepConfig
from fuse.runs.folder import CONFIG, PREDICTIONS
from fuse.runs.tables import corpus_of
from fuse.scores.predictions import write_predictions
from fuse.sweep.grid import Run, configurations, runs_of
from fuse.sweep.ground import Ground, Outcome, ground_of, train_stack, use_threads
from fuse.sweep.ledger import ROWS, append, read, row_of
from fuse.sweep.plan import PLAN, read_plan

RUNS = "runs"
# Of a fine-tune, what is said under the conditions of the sweep: predictions.csv is of the one that it was trained on.
UNDER_CONDITIONS = "conditions.csv"
REMEDY = "put back the features that it began with, or choose another output_dir"


def run_folder(out: Path, number: int) -> Path:
    """Where a run's predictions are."""
    return out / RUNS / str(number)


def scored(config: SweepConfig, number: int) -> Path:
    """The predictions that a run is scored by."""
    name = UNDER_CONDITIONS if config.stage == "finetune" and config.conditions else PREDICTIONS
    return run_folder(Path(config.output_dir), number) / name


def every_run(config: SweepConfig) -> list[Run]:
    """All runs of a sweep, as launcher and ranks number them.

    Raises:
        ValueError: the grid, the corpus or the protocol is not right.
    """
    cells = configurations(config)
    first = cells[0].fusion
    return runs_of(cells, load_protocol(first.protocol).folds(corpus_of(first).clips))


def work(out: Path, rank: int, world_size: int) -> None:
    """Train this rank's stacks; neighbours of one shape share their tables."""
    config = load_config(SweepConfig, out / CONFIG)
    runs = every_run(config)
    done = read(out / ROWS, list(config.grid))
    # By number alone, and then without what is done: other ranks are adding rows by now.
    plan = read_plan(out / PLAN)
    stacks = [stack for stack in plan.stacks[rank::world_size] if not stack.is_done(done)]
    first = runs[0].configuration.fusion
    use_threads(first.threads)
    corpus = corpus_of(first)
    ground: Ground | None = None
    shape = ""
    title = f"sweep, rank {rank} of {world_size}"
    with Progress(title, sum(len(stack.runs) for stack in stacks), "runs", shown=rank == 0) as progress:
        for stack in stacks:
            chosen = [runs[number] for number in stack.runs]
            cell = chosen[0].configuration
            if ground is None or shape != cell.shape:
                shape, ground = cell.shape, None  # the old tables go before the new ones come
                ground = ground_of(cell.fusion, corpus, config)
                refuse_others(plan.features[stack.shape], ground.main.origins, f"the sweep {out}", REMEDY)
            for outcome in train_stack(ground, chosen):
                if outcome.run.number not in done:
                    _keep(out, outcome)
            progress.add(len(chosen))


def _keep(out: Path, outcome: Outcome) -> None:
    """Predictions first: a run that has a row has them too."""
    if outcome.predictions is not None:
        write_predictions(outcome.predictions, run_folder(out, outcome.run.number) / PREDICTIONS)
    row = row_of(outcome.run, outcome.validation_uar, outcome.best_epoch, outcome.diverged)
    append(out / ROWS, row)


if __name__ == "__main__":
    sys.exit(rank_main(work))
