"""A fine-tuned run in the table: its own encoders make the rows of its test speakers, from decoded clips, on all ranks.

Ranks share out batches and need no process group: there is nothing to tell one another.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from cache.conditions import JointCondition
from cache.corpus.clips import read_corpus
from cache.features.store import open_store
from cache.features.table import FeatureTable
from cache.files.atomic import write_atomic
from configs.command.launch import ERROR_FILE, Interruption
from configs.loader import dump_config, load_config
from configs.schema.features import NoiseSettings
from configs.schema.finetune import FinetuneConfig
from configs.schema.fusion import Augment, FusionConfig
from configs.schema.studies import RobustnessConfig
from extract.corrupt.noise.sources import NoiseSources, known_sources
from extract.encoders.loading import rank_device
from fuse.finetune.inputs.batches import Loaders
from fuse.finetune.load import clips_of, load
from fuse.finetune.network import EndToEndModel
from fuse.finetune.plan import FinetunePlan, plan_finetune
from fuse.finetune.training.rows import Rows, own_rows, put_together
from fuse.finetune.training.stepper import World
from fuse.runs.checkpoint import Checkpoint
from fuse.runs.folder import CONFIG, run_folders
from fuse.runs.tables import trained_config, with_root


def rows_file(rank: int, condition: int) -> str:
    """Where a rank leaves the rows that it made under a condition, by its number."""
    return f"{rank}-{condition}.safetensors"


@dataclass(frozen=True)
class TunedEncoders:
    """The encoders of one fold of a fine-tuned run.

    Attributes:
        leaf: its folder.
        checkpoint: with the weights of its encoders.
        config: how the run of stage two was trained that it continues: what its clips and features are.
        made: by condition, the rows of its test clips, once they are made.
    """

    leaf: Path
    checkpoint: Checkpoint
    config: FusionConfig
    made: dict[JointCondition, Rows] = field(default_factory=dict)

    @classmethod
    def of(cls, leaf: Path, checkpoint: Checkpoint, corpus: str | None, features_dir: str | None) -> TunedEncoders:
        """Those of a run's folder; `corpus`, `features_dir`: others than its own.

        Raises:
            ValueError: the run that it continues is no longer there.
        """
        tuned = load_config(FinetuneConfig, leaf / CONFIG)
        (start,) = run_folders(Path(tuned.init))
        given = (corpus or tuned.corpus, features_dir or tuned.features_dir, tuned.labels)
        config = replace(trained_config(start, checkpoint, *given), condition=tuned.condition)
        return cls(leaf, checkpoint, config)

    def table(self, given: FeatureTable, condition: JointCondition) -> FeatureTable:
        """The table with rows of these encoders in the place of those of the test speakers.

        Raises:
            ValueError: the decoded clips are not there, or the condition mixes in recordings that are not known.
        """
        plan, rows = self._plan(condition), self.made[condition]
        places = {clip.clip_id: row for row, clip in enumerate(given.clips)}
        test = [places[item.clip.clip_id] for item in plan.parts["test"]]
        features = {name: values.copy() for name, values in given.features.items()}
        for name, values in features.items():
            values[test] = rows[name]
        return replace(given, features=features)

    def make(self, conditions: Sequence[JointCondition], ranks: int) -> None:
        """Have the test clips encoded under these conditions.

        Raises:
            ValueError: one line, of what a rank has met.
        """
        if ranks == 1:
            shares = [self.share(conditions, World(0, 1, rank_device()))]
        else:
            shares = self._by_ranks(conditions, ranks)
        for number, condition in enumerate(conditions):
            plan = self._plan(condition)
            own = [share[number] for share in shares]
            self.made[condition] = put_together(own, len(plan.parts["test"]), plan.config.optim.batch_size)

    def share(self, conditions: Sequence[JointCondition], world: World) -> list[Rows]:
        """By condition, the rows that this rank makes."""
        plans = [self._plan(condition) for condition in conditions]
        torch.set_num_threads(plans[0].config.threads)
        model, loaders = self._loaded(plans[0], world.device)
        return [own_rows(model, loaders, clips_of(plan, "test"), world) for plan in plans]

    def _by_ranks(self, conditions: Sequence[JointCondition], ranks: int) -> list[list[Rows]]:
        asked = RobustnessConfig(
            runs=(str(self.leaf),),
            conditions=tuple(conditions),
            corpus=self.config.corpus,
            features_dir=self.config.features_dir,
        )
        with tempfile.TemporaryDirectory() as name:
            folder, error_file = Path(name), Path(name, ERROR_FILE)
            write_atomic(folder / CONFIG, dump_config(asked))
            Interruption().torchrun(["fuse.robustness.rank", name, str(error_file)], ranks, 0)
            if error_file.exists():
                raise ValueError(error_file.read_text())
            files = [[folder / rows_file(rank, number) for number in range(len(conditions))] for rank in range(ranks)]
            if not all(path.exists() for own in files for path in own):
                raise ValueError(f"ranks that encode for {self.leaf} died (see above); the same command starts again")
            return [[load_file(path) for path in own] for own in files]

    def _plan(self, condition: JointCondition) -> FinetunePlan:
        tuned = load_config(FinetuneConfig, self.leaf / CONFIG)
        asked = replace(
            tuned,
            corpus=self.config.corpus,
            features_dir=self.config.features_dir,
            condition=condition,
            augment=Augment(),
            unfreeze="none",
            lora=None,
        )
        return plan_finetune(asked, self._noises(condition))

    def _noises(self, condition: JointCondition) -> NoiseSources | None:
        """The babble that stage one mixed in, from the clips that its store names."""
        babble = [part for part in condition.parts if part.kind == "noise-babble"]
        if not babble:
            return None
        store = open_store(Path(self.config.features_dir, f"{babble[0].name}.zarr"))
        (array,) = [f"audio/{name}" for name in store.encoders("audio") if name == self.checkpoint.encoders["audio"]]
        drawn = store.provenance(array)["noise"]
        read = read_corpus(Path(self.config.corpus), follow_links=True, mapping=self.config.labels)
        corpus = with_root(read, Path(self.config.features_dir))
        known = {clip.clip_id for clip in corpus.clips}
        if not set(drawn["pool"]) <= known:
            raise ValueError(f"{babble[0].name}: {self.config.corpus} lacks clips that are heard in it; leave it out")
        noises = known_sources(NoiseSettings(), corpus, {babble[0].kind: drawn["pool"]})
        if noises.provenance(babble[0].kind) != drawn:
            raise ValueError(f"{babble[0].name}: clips that are heard in it have changed; leave it out")
        return noises

    def _loaded(self, plan: FinetunePlan, device: torch.device) -> tuple[EndToEndModel, Loaders]:
        model, loaders = load(plan, device)
        for name, weights in self.checkpoint.networks.items():
            model.networks[name].load_state_dict(weights)
        return model, loaders


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
