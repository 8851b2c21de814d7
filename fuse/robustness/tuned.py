"""A fine-tuned run in the table: its own encoders make the rows of its test speakers, from decoded clips."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from cache.conditions import JointCondition
from cache.features.table import FeatureTable
from configs.loader import load_config
from configs.schema.finetune import FinetuneConfig
from configs.schema.fusion import Augment, FusionConfig
from fuse.finetune.inputs.batches import Loaders
from fuse.finetune.load import clips_of, load
from fuse.finetune.network import EndToEndModel
from fuse.finetune.plan import FinetunePlan, plan_finetune
from fuse.finetune.training.rows import rows_of
from fuse.finetune.training.stepper import World
from fuse.runs.checkpoint import Checkpoint
from fuse.runs.folder import CONFIG, run_folders
from fuse.runs.tables import trained_config


@dataclass(frozen=True)
class TunedEncoders:
    """The encoders of a fine-tuned run.

    Attributes:
        leaf: its folder.
        checkpoint: with the weights of its encoders.
        config: how the run of stage two was trained that it continues: what its clips and features are.
    """

    leaf: Path
    checkpoint: Checkpoint
    config: FusionConfig

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

    def table(self, cached: FeatureTable, condition: JointCondition) -> FeatureTable:
        """The table with rows of these encoders in the place of cached ones; NaN for all but the test speakers.

        Raises:
            ValueError: the decoded clips are not there, or the condition mixes in recordings.
        """
        plan = self._plan(condition)
        model, loaders = self._loaded
        rows = rows_of(model, loaders, clips_of(plan, "test"), World(0, 1, next(model.parameters()).device))
        places = {clip.clip_id: row for row, clip in enumerate(cached.clips)}
        test = [places[item.clip.clip_id] for item in plan.parts["test"]]
        features = {}
        for name, values in cached.features.items():
            features[name] = np.full_like(values, np.nan)
            features[name][test] = rows[name]
        return replace(cached, features=features)

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
        return plan_finetune(asked)

    @cached_property
    def _loaded(self) -> tuple[EndToEndModel, Loaders]:
        plan = self._plan(self.config.condition)
        model, loaders = load(plan, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        for name, weights in self.checkpoint.networks.items():
            model.networks[name].load_state_dict(weights)
        return model, loaders
