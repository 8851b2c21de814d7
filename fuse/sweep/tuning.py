"""A sweep of fine-tunes: one after the other, each on all ranks; every run is a run folder of `make finetune-e2e`.

What was interrupted goes on: runs that have a row are done, and a run that stopped in the middle finds its own state.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cache.files.atomic import write_atomic
from cache.files.hashes import sha256_of
from cache.protocols.folds import Fold
from configs.command.launch import Interruption
from configs.schema.finetune import FinetuneConfig
from configs.schema.sweep import SweepConfig
from fuse.finetune.launch import fine_tune
from fuse.finetune.plan import plan_finetune
from fuse.finetune.start import find_start, resolve
from fuse.finetune.training.loop import Diverged
from fuse.runs.caveats import RANDOM_NOTE
from fuse.runs.folder import CHECKPOINT, METRICS, PREDICTIONS, is_complete, run_folders
from fuse.scores.predictions import read_predictions
from fuse.sweep.grid import Run, configurations
from fuse.sweep.ground import score
from fuse.sweep.ledger import ROWS, append, row_of
from fuse.sweep.rank import run_folder

STARTS = "starts.json"


@dataclass(frozen=True)
class FineTunes:
    """Every run of the sweep, and what each of them is as a command of its own."""

    runs: tuple[Run, ...]
    configs: Mapping[int, FinetuneConfig]

    @classmethod
    def of(cls, config: SweepConfig) -> FineTunes:
        """Those of a sweep: every configuration, from every run of stage two that its `init` holds.

        Raises:
            ValueError: one line: a configuration that contradicts its start, or starts of other folds and seeds.
        """
        runs: list[Run] = []
        configs: dict[int, FinetuneConfig] = {}
        folds: list[tuple[Fold, int]] = []
        for cell in configurations(config):
            assert isinstance(cell.config, FinetuneConfig)
            starts = [find_start(leaf) for leaf in run_folders(Path(cell.config.init))]
            own = [(one.fold, one.checkpoint.seed) for one in starts]
            folds = folds or own
            if folds != own:
                raise ValueError(
                    f"init={cell.config.init} ({cell.name}) has other folds or seeds than the init before it; all "
                    "configurations of a sweep are scored on the same clips"
                )
            resolved = [resolve(replace(cell.config, init=str(start.folder)), start) for start in starts]
            # As the tables and best.yaml say it: the run that is chosen is one to be tested, and used.
            chosen = {**starts[0].fixed, "export": config.run.get("export", True), "test": True}
            named = replace(cell, config=replace(cell.config, **chosen))
            for start, one in zip(starts, resolved, strict=True):
                number = len(runs)
                runs.append(Run(number, named, start.fold, start.checkpoint.seed))
                configs[number] = replace(one, output_dir=str(run_folder(Path(config.output_dir), number)))
        return cls(tuple(runs), configs)

    def checked(self) -> str:
        """Check each configuration on its first start; returns what must stand beside the numbers.

        Raises:
            ValueError: one line, of the first that cannot be trained.
        """
        first = {run.configuration.number: run.number for run in reversed(self.runs)}
        plans = [plan_finetune(self.configs[number]) for _, number in sorted(first.items())]
        for note in dict.fromkeys(note for plan in plans for note in plan.notes):
            print(f"note: {note}")
        return RANDOM_NOTE if any(plan.random_weights for plan in plans) else ""

    def refuse_other_starts(self, out: Path) -> None:
        """Refuse to go on from a run of stage two that was trained anew since the sweep began; at first, remember it.

        Raises:
            ValueError: one line with the run.
        """
        folders = {config.init: sha256_of(Path(config.init, CHECKPOINT)) for config in self.configs.values()}
        kept = out / STARTS
        there = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else folders
        for folder, sha256 in folders.items():
            if there.get(folder) != sha256:
                raise ValueError(
                    f"{folder} was trained anew since the sweep {out} began with it; choose another output_dir, or "
                    f"delete {out}"
                )
        write_atomic(kept, json.dumps(folders, indent=1) + "\n")

    def work(self, out: Path, done: Collection[int], interruption: Interruption, ranks: int) -> str:
        """Fine-tune what is missing; returns why it ended early, "" where it did not or was told to."""
        for run in self.runs:
            if run.number in done:
                continue
            if interruption.exit_code:
                return ""
            where = f"fold {run.fold.number}, seed {run.seed}"
            print(f"run {run.number + 1} of {len(self.runs)}: {run.configuration.name}; {where}", flush=True)
            folder = run_folder(out, run.number)
            try:
                # A kill may have come between the run and its row.
                if not is_complete(folder):
                    ended = fine_tune(plan_finetune(self.configs[run.number]), interruption, ranks)
                    if not ended.done:
                        return ended.lost
            except Diverged as diverged:
                print(f"note: {diverged}")
                append(out / ROWS, row_of(run, None, 0, diverged.epoch))
                continue
            print(f"validation UAR {_keep(out, run):.3f}", flush=True)
        return ""

    def collect(self, out: Path, done: Collection[int], diverged: Mapping[int, int]) -> None:
        """Rows of runs that were fine-tuned elsewhere; `diverged`: in which epoch, by the run's number."""
        for run in self.runs:
            if run.number in done:
                continue
            if is_complete(run_folder(out, run.number)):
                _keep(out, run)
            elif run.number in diverged:
                append(out / ROWS, row_of(run, None, 0, diverged[run.number]))


def _keep(out: Path, run: Run) -> float:
    """The row of a run whose folder is whole; returns its validation UAR."""
    folder = run_folder(out, run.number)
    uar = score(read_predictions(folder / PREDICTIONS))
    best = json.loads((folder / METRICS).read_text(encoding="utf-8"))["best_epoch"]
    append(out / ROWS, row_of(run, uar, best - 1, None))
    return uar
