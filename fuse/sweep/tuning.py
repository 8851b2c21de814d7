"""A sweep of fine-tunes: one after the other, each on all ranks; every run is a run folder of `make finetune-e2e`.

What was interrupted goes on: runs that have a row are done, and a run that stopped in the middle finds its own state.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cache.files.atomic import write_atomic
from cache.files.hashes import sha256_of
from cache.protocols.folds import Fold
from configs.command.launch import Interruption
from configs.schema.finetune import FinetuneConfig
from configs.schema.sweep import SweepConfig
from fuse.finetune.launch import fine_tune
from fuse.finetune.plan import FinetunePlan, plan_finetune
from fuse.finetune.start import find_start, resolve
from fuse.finetune.training.loop import Diverged
from fuse.robustness.tuned import Part, TunedEncoders, plan_under, tuned_table
from fuse.runs.caveats import RANDOM_NOTE
from fuse.runs.checkpoint import read_checkpoint
from fuse.runs.folder import CHECKPOINT, METRICS, PREDICTIONS, is_complete, run_folders
from fuse.runs.predict import predictions_of
from fuse.runs.tables import corpus_of, table_under, trained_config
from fuse.scores.predictions import concatenate, read_predictions, write_predictions
from fuse.sweep.grid import Run, configurations
from fuse.sweep.ground import score
from fuse.sweep.ledger import ROWS, append, row_of
from fuse.sweep.rank import run_folder, scored

STARTS = "starts.json"
PARTS: tuple[Part, ...] = ("validation", "test")


@dataclass(frozen=True)
class FineTunes:
    """Every run of the sweep, and what each of them is as a command of its own."""

    sweep: SweepConfig
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
        return cls(config, tuple(runs), configs)

    def checked(self) -> str:
        """Check each configuration on its first start; returns what must stand beside the numbers.

        Raises:
            ValueError: one line, of the first that cannot be trained.
        """
        first = {run.configuration.number: run.number for run in reversed(self.runs)}
        plans = [plan_finetune(self.configs[number]) for _, number in sorted(first.items())]
        self._refuse_missing_conditions(plans)
        for note in dict.fromkeys(note for plan in plans for note in plan.notes):
            print(f"note: {note}")
        return RANDOM_NOTE if any(plan.random_weights for plan in plans) else ""

    def _refuse_missing_conditions(self, plans: Sequence[FinetunePlan]) -> None:
        """A night later is too late for a condition that is not cached. Rates make no difference to it."""
        grounds = {
            (one.start.folder, one.config.corpus, one.config.features_dir, one.config.encoders): one for one in plans
        }
        for plan in grounds.values():
            start, kept = plan.start.folder, plan.start.checkpoint
            stage_two = trained_config(start, kept, plan.config.corpus, plan.config.features_dir, plan.config.labels)
            for condition in self.sweep.conditions:
                plan_under(plan.config, condition, stage_two, kept.encoders)

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
            if not self.predict(run.number, interruption, ranks):
                return ""
            print(f"validation UAR {self._keep(out, run):.3f}", flush=True)
        return ""

    def collect(self, out: Path, done: Collection[int], diverged: Mapping[int, int]) -> None:
        """Rows of runs that were fine-tuned elsewhere; `diverged`: in which epoch, by the run's number."""
        for run in self.runs:
            if run.number in done:
                continue
            if self.is_done(run.number):
                self._keep(out, run)
            elif run.number in diverged:
                append(out / ROWS, row_of(run, None, 0, diverged[run.number]))

    def is_done(self, number: int) -> bool:
        """Whether a run is there with all that it is scored by: only its row may be missing."""
        return is_complete(run_folder(Path(self.sweep.output_dir), number)) and scored(self.sweep, number).is_file()

    def predict(self, number: int, interruption: Interruption, ranks: int) -> bool:
        """Write what a finished run says under the conditions of the sweep; False where a signal came.

        Under the condition that it was trained on, that is known: those are its own predictions.
        """
        folder, path = run_folder(Path(self.sweep.output_dir), number), scored(self.sweep, number)
        if path.is_file():
            return True
        written, parts = read_predictions(folder / PREDICTIONS), PARTS if self.sweep.test else PARTS[:1]
        checkpoint = read_checkpoint(folder / CHECKPOINT)
        tuned = TunedEncoders.of(folder, checkpoint, parts=parts)
        if not tuned.make([one for one in self.sweep.conditions if one != tuned.config.condition], ranks, interruption):
            return False
        corpus, head = corpus_of(tuned.config), checkpoint.head()
        identity = (checkpoint.protocol, checkpoint.fold.number, checkpoint.seed)
        found = []
        for condition in self.sweep.conditions:
            if condition == tuned.config.condition:
                found.append(written)
                continue
            table = tuned_table([tuned], table_under(tuned.config, corpus, condition), condition)
            for part in parts:
                clips = table.take(checkpoint.fold.clip_ids(part, table.clips))
                found.append(predictions_of(head, clips, *identity, part))
        write_predictions(concatenate(found), path)
        return True

    def _keep(self, out: Path, run: Run) -> float:
        """The row of a run that is done; returns its validation UAR."""
        uar = score(read_predictions(scored(self.sweep, run.number)))
        best = json.loads((run_folder(out, run.number) / METRICS).read_text(encoding="utf-8"))["best_epoch"]
        append(out / ROWS, row_of(run, uar, best - 1, None))
        return uar
