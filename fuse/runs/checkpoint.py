"""What a run keeps of its head, so that it can be used again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cache.protocols.folds import Fold
from fuse.model.fusion import FusionModel, ModelSettings
from fuse.runs.adaptation import SpeakerStatistics


def fold_of(checkpoint: Mapping[str, Any]) -> Fold:
    """The fold that a checkpoint was trained in: who was never seen there."""
    return Fold(**checkpoint["division"])


def load_model(path: Path) -> tuple[FusionModel, dict[str, Any]]:
    """A trained head and its checkpoint."""
    try:
        checkpoint: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        model = FusionModel(ModelSettings(**checkpoint["settings"]))
        model.load_state_dict(checkpoint["state"])
    except (OSError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"{path} is no checkpoint of a fusion head ({type(error).__name__}); train one again"
        ) from error
    if "encoders" in checkpoint:
        raise ValueError(
            f"{path} was fine-tuned with encoders of its own, which cached features do not come from; "
            "name the run of stage two"
        )
    return model.eval(), checkpoint


def enrolled_statistics(checkpoint: Mapping[str, Any]) -> dict[str, SpeakerStatistics]:
    """The speakers that an adapted run knows, for `fuse.runs.adaptation.adapted`."""
    kept = checkpoint.get("speakers", {})
    return {
        speaker: SpeakerStatistics(
            *({name: values.numpy() for name, values in one[part].items()} for part in ("mean", "scale"))
        )
        for speaker, one in kept.items()
    }
