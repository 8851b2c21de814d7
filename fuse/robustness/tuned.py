"""A fine-tuned run in the table: its own encoders make the rows of its test speakers, from decoded clips, on all ranks.

Ranks share out batches and need no process group: there is nothing to tell one another.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.numpy import load_file

from cache.conditions import JointCondition
from cache.features.table import FeatureTable
from cache.files.atomic import write_atomic
from configs.command.launch import ERROR_FILE, Interruption
from configs.loader import dump_config, load_config
from configs.schema.finetune import FinetuneConfig
from configs.schema.fusion import Augment, FusionConfig
from configs.schema.studies import TunedRowsConfig
from extract.encoders.loading import rank_device
from fuse.finetune.inputs.batches import Loaders
from fuse.finetune.inputs.recordings import recordings_again
from fuse.finetune.load import clips_of, load
from fuse.finetune.network import EndToEndModel
from fuse.finetune.plan import FinetunePlan, plan_finetune
from fuse.finetune.training.rows import Rows, own_rows, put_together
from fuse.finetune.training.stepper import World
from fuse.runs.checkpoint import Checkpoint, read_checkpoint
from fuse.runs.folder import CHECKPOINT, CONFIG, run_folders
from fuse.runs.tables import trained_config

Part = Literal["validation", "test"]


def rows_file(rank: int, number: int) -> str:
    """Where a rank leaves the rows that it made, by their number in `TunedEncoders.share`."""
    return f"{rank}-{number}.safetensors"


@dataclass(frozen=True)
class TunedEncoders:
    """The encoders of one fold of a fine-tuned run.

    Attributes:
        leaf: its folder.
        checkpoint: with the weights of its encoders.
        config: how the run of stage two was trained that it continues: what its clips and features are.
        noise_folder: of the files of `noise-file`; None: the one that the last `make features` was given.
        parts: whose clips are encoded: `validation`, `test` or both.
        made: by condition, the rows of these clips, once they are made.
        clip_ids: by condition, whose rows these are.
    """

    leaf: Path
    checkpoint: Checkpoint
    config: FusionConfig
    noise_folder: str | None = None
    parts: tuple[Part, ...] = ("test",)
    made: dict[JointCondition, Rows] = field(default_factory=dict)
    clip_ids: dict[JointCondition, list[str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        leaf: Path,
        checkpoint: Checkpoint,
        corpus: str | None = None,
        features_dir: str | None = None,
        noise_folder: str | None = None,
        parts: tuple[Part, ...] = ("test",),
    ) -> TunedEncoders:
        """Those of a run's folder; `corpus`, `features_dir`: others than its own.

        Raises:
            ValueError: the run that it continues is no longer there.
        """
        tuned = load_config(FinetuneConfig, leaf / CONFIG)
        (start,) = run_folders(Path(tuned.init))
        given = (corpus or tuned.corpus, features_dir or tuned.features_dir, tuned.labels)
        remote = None if features_dir else tuned.remote
        config = replace(trained_config(start, checkpoint, *given), condition=tuned.condition, remote=remote)
        return cls(leaf, checkpoint, config, noise_folder, parts)

    def table(self, given: FeatureTable, condition: JointCondition) -> FeatureTable:
        """The table with rows of these encoders in the place of those of the clips that were encoded."""
        rows = self.made[condition]
        places = {clip.clip_id: row for row, clip in enumerate(given.clips)}
        encoded = [places[clip_id] for clip_id in self.clip_ids[condition]]
        features = {name: values.copy() for name, values in given.features.items()}
        for name, values in features.items():
            values[encoded] = rows[name]
        return replace(given, features=features)

    def make(self, conditions: Sequence[JointCondition], ranks: int, interruption: Interruption | None = None) -> bool:
        """Have the clips encoded under these conditions.

        Args:
            conditions: all of them are checked before any clip is encoded.
            ranks: how many share the clips out.
            interruption: of the command; None: one rank is this process.

        Returns:
            whether it came to its end: not where a signal came.

        Raises:
            ValueError: one line: the decoded clips are not there, a condition mixes in recordings that are not found
                again, or what a rank has met.
        """
        if not conditions:
            return True
        plans = [self.plan(condition) for condition in conditions]
        if ranks == 1 and interruption is None:
            shares = [self.encode(plans, World(0, 1, rank_device()))]
        else:
            shares = self._by_ranks(conditions, ranks, interruption or Interruption())
        if not shares:
            return False
        for number, (condition, plan) in enumerate(zip(conditions, plans, strict=True)):
            found: list[Rows] = []
            for place, part in enumerate(self.parts, start=number * len(self.parts)):
                own = [share[place] for share in shares]
                found.append(put_together(own, len(plan.parts[part]), plan.config.optim.batch_size))
            self.made[condition] = {name: np.concatenate([rows[name] for rows in found]) for name in found[0]}
            self.clip_ids[condition] = [item.clip.clip_id for part in self.parts for item in plan.parts[part]]
        return True

    def encode(self, plans: Sequence[FinetunePlan], world: World) -> list[Rows]:
        """By condition, and then by part, the rows that this rank makes."""
        torch.set_num_threads(plans[0].config.threads)
        model, loaders = self._loaded(plans[0], world.device)
        return [own_rows(model, loaders, clips_of(plan, part), world) for plan in plans for part in self.parts]

    def plan(self, condition: JointCondition) -> FinetunePlan:
        """What is encoded under a condition, and of what it is mixed.

        Raises:
            ValueError: one line: as `make`.
        """
        tuned = load_config(FinetuneConfig, self.leaf / CONFIG)
        known = self.config
        own = replace(tuned, corpus=known.corpus, features_dir=known.features_dir, remote=known.remote)
        return plan_under(own, condition, self.config, self.checkpoint.encoders, self.noise_folder)

    def _by_ranks(
        self, conditions: Sequence[JointCondition], ranks: int, interruption: Interruption
    ) -> list[list[Rows]]:
        """What each rank made; nothing where a signal came."""
        given = (self.config.corpus, self.config.features_dir, self.noise_folder)
        asked = TunedRowsConfig(str(self.leaf), tuple(conditions), self.parts, *given)
        with tempfile.TemporaryDirectory() as name:
            folder, error_file = Path(name), Path(name, ERROR_FILE)
            write_atomic(folder / CONFIG, dump_config(asked))
            interruption.torchrun(["fuse.robustness.rank", name, str(error_file)], ranks, 0)
            if interruption.exit_code:
                return []
            if error_file.exists():
                raise ValueError(error_file.read_text())
            numbers = range(len(conditions) * len(self.parts))
            files = [[folder / rows_file(rank, number) for number in numbers] for rank in range(ranks)]
            if not all(path.exists() for own in files for path in own):
                raise ValueError(f"ranks that encode for {self.leaf} died (see above); the same command starts again")
            return [[load_file(path) for path in own] for own in files]

    def _loaded(self, plan: FinetunePlan, device: torch.device) -> tuple[EndToEndModel, Loaders]:
        model, loaders = load(plan, device)
        for name, weights in self.checkpoint.networks.items():
            model.networks[name].load_state_dict(weights)
        return model, loaders


def asked_for(asked: TunedRowsConfig) -> tuple[TunedEncoders, list[FinetunePlan]]:
    """On a rank: the encoders, and a plan for each condition."""
    leaf = Path(asked.leaf)
    given = (asked.corpus, asked.features_dir, asked.noise_folder, asked.parts)
    tuned = TunedEncoders.of(leaf, read_checkpoint(leaf / CHECKPOINT), *given)
    return tuned, [tuned.plan(condition) for condition in asked.conditions]


def plan_under(
    tuned: FinetuneConfig,
    condition: JointCondition,
    stage_two: FusionConfig,
    encoders: Mapping[str, str],
    noise_folder: str | None = None,
) -> FinetunePlan:
    """A fine-tune as what encodes its clips under a condition, with nothing to learn.

    Args:
        tuned: its configuration.
        condition: whose features are cached: what it says of clips is what stage one did.
        stage_two: of the run that is continued; its corpus and features.
        encoders: by modality, their names.
        noise_folder: as `TunedEncoders`.

    Raises:
        ValueError: one line: as `TunedEncoders.make`.
    """
    noises = recordings_again(condition, stage_two, encoders["audio"], noise_folder) if "audio" in encoders else None
    asked = replace(tuned, condition=condition, augment=Augment(), unfreeze="none", lora=None)
    return plan_finetune(asked, noises)


def tuned_table(folds: Sequence[TunedEncoders], cached: FeatureTable, condition: JointCondition) -> FeatureTable:
    """The table with rows of each fold's own encoders for its test speakers; NaN for clips of nobody's.

    Raises:
        ValueError: as `TunedEncoders.table`.
    """
    nothing = {name: np.full_like(values, np.nan) for name, values in cached.features.items()}
    table = replace(cached, features=nothing)
    for one in folds:
        table = one.table(table, condition)
    return table


def refuse_shared_speakers(folds: Sequence[TunedEncoders]) -> None:
    """Refuse fine-tunes that test on the same speakers: a clip has one row in the table.

    Raises:
        ValueError: one line with the folders.
    """
    for one, other in combinations(folds, 2):
        if shared := set(one.checkpoint.fold.test) & set(other.checkpoint.fold.test):
            raise ValueError(
                f"{one.leaf} and {other.leaf} both test on speaker {min(shared)}: of a fine-tuned run the table takes "
                "one seed of each fold; name one of them in runs"
            )
