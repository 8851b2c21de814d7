"""The run of stage two that a fine-tune continues, and what it decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache.files.commands import make_command, setting
from cache.protocols.folds import Fold
from configs.loader import load_config
from configs.schema.finetune import FinetuneConfig
from configs.schema.fusion import FusionConfig
from fuse.model.fusion import FusionModel
from fuse.runs.checkpoint import Checkpoint, read_stage_two
from fuse.runs.folder import CHECKPOINT, CONFIG, run_folders


@dataclass(frozen=True)
class Start:
    """The run of stage two that is continued; `labels`: the names that it gives to labels of its corpus."""

    folder: Path
    fusion: FusionModel
    checkpoint: Checkpoint
    labels: Mapping[str, str | None]

    @property
    def fold(self) -> Fold:
        """Its speakers: who was never seen there stays unseen."""
        return self.checkpoint.fold

    @property
    def fixed(self) -> dict[str, Any]:
        """The keys of the configuration that this run decides."""
        kept = self.checkpoint
        return {
            "modalities": kept.modalities,
            "protocol": kept.protocol,
            "head": kept.settings.head,
            "hidden": kept.settings.hidden,
            "dropout": kept.settings.dropout,
            "layers": kept.layers,
            "standardise": kept.standardise,
        }


def find_start(init: Path) -> Start:
    """The one run of stage two in a folder.

    Raises:
        ValueError: there is none, several, or it is no run of stage two.
    """
    runs = run_folders(init)
    if len(runs) > 1:
        raise ValueError(f"init={init} holds {len(runs)} runs; name the one to continue, e.g. init={runs[0]}")
    checkpoint = read_stage_two(runs[0] / CHECKPOINT)
    config = load_config(FusionConfig, runs[0] / CONFIG)
    if config.target is not None:
        settings = ["target=null", "protocol=auto", setting("output_dir", f"{init}-source")]
        raise ValueError(
            f"{init} is of two corpora; fine-tuning knows one: start from a run on the source alone, by: "
            f"{make_command('train-fusion', settings, runs[0] / CONFIG)}"
        )
    return Start(runs[0], checkpoint.head(), checkpoint, config.labels)


def resolve(config: FinetuneConfig, start: Start) -> FinetuneConfig:
    """Fill in what the continued run decides.

    Raises:
        ValueError: the configuration says something else.
    """
    if start.checkpoint.standardise == "speaker":
        raise ValueError(
            f"{start.folder} is adapted to each speaker's cached features, which fine-tuning changes; "
            "start from a run with standardise=train"
        )
    for name, value in start.fixed.items():
        given = getattr(config, name)
        same = set(given) == set(value) if name == "modalities" and given else given == value
        if given is not None and not same:
            raise ValueError(
                f"{name}={_shown(given)} contradicts the run it starts from ({start.folder}: {_shown(value)}); "
                f"leave {name} out, or set init to another run"
            )
    labels = dict(start.labels) if config.labels is None else config.labels
    return replace(config, **start.fixed, labels=labels, seeds=config.seeds or (start.checkpoint.seed,))


def _shown(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)
