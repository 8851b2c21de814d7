"""What a run keeps of its model, so that it can be used again: one record, written and read here alone.

Runs of stage two and fine-tuned ones have the same keys; a fine-tuned one carries its encoders' weights (`networks`).
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cache.corpus.labels import label_difference
from cache.features.provenance import Origin, refuse_others
from cache.features.table import FeatureTable, Layers
from cache.files.atomic import revealed
from cache.protocols.folds import Fold
from fuse.model.fusion import FusionModel, ModelSettings, plain_settings
from fuse.model.heads.reliable import FITTED
from fuse.runs.adaptation import SpeakerStatistics
from fuse.runs.familiarity import Familiarity


@dataclass(frozen=True)
class Checkpoint:
    """Everything that is needed to use a run again.

    Attributes:
        settings: what the head is shaped by; `settings.widths` names its modalities, in their order.
        state: weights of the head, and of the standardiser before it.
        label_names: the classes' names; a prediction is the number of one of them.
        layers: which layers its rows are made of, as in the configuration.
        standardise: as in the configuration; `speaker` means that rows are adapted before the model sees them.
        condition: what it was trained under.
        protocol, fold, seed: who was trained on, who chose the epoch, and who was never seen.
        encoders: by modality, the encoder, as a feature store names it.
        features: by modality, how the rows that it was trained on were made (`cache.features.provenance.Origin.made`).
        speakers: what an adapted run knows of each speaker; empty for others.
        familiarity: by modality, what its training rows look like; empty for a fine-tuned run.
        networks: by modality, weights of the fine-tuned encoder; empty for a run of stage two.
        audio_seconds: what a fine-tuned run cuts or repeats sound to; None for a run of stage two.
    """

    settings: ModelSettings
    state: Mapping[str, Tensor]
    label_names: tuple[str, ...]
    layers: Layers | Mapping[str, Layers]
    standardise: str
    condition: str
    protocol: str
    fold: Fold
    seed: int
    encoders: Mapping[str, str]
    features: Mapping[str, Mapping[str, Any]]
    speakers: Mapping[str, SpeakerStatistics] = field(default_factory=dict)
    familiarity: Mapping[str, Familiarity] = field(default_factory=dict)
    networks: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    audio_seconds: float | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the model takes, in its order."""
        return tuple(self.settings.widths)

    @property
    def fine_tuned(self) -> bool:
        """Whether its encoders are its own: cached features do not come from them."""
        return bool(self.networks)

    def head(self) -> FusionModel:
        """The trained head, ready to predict.

        Raises:
            ValueError: the weights do not fit the settings.
        """
        model = FusionModel(self.settings)
        # Runs of before the plain distance was kept knew the other alone; 0 is no distance at all.
        earlier = {key: one for key, one in model.state_dict().items() if key.endswith(f"{FITTED}plain")}
        try:
            model.load_state_dict(earlier | dict(self.state))
        except RuntimeError as error:
            raise ValueError(f"weights that do not fit its settings ({' '.join(str(error).split())})") from error
        return model.eval()

    def refuse_other_ground(self, table: FeatureTable, run: Path) -> None:
        """Refuse clips with other labels, or features that were made otherwise, than those it was trained on.

        Raises:
            ValueError: one line with the difference and what to do.
        """
        self.refuse_other_labels(table.label_names, run)
        self.refuse_other_features(table.origins, run)

    def refuse_other_labels(self, label_names: tuple[str, ...], run: Path) -> None:
        """Refuse a corpus with another label set, or another order of it: a prediction is the number of a label.

        Raises:
            ValueError: one line with what is missing or new.
        """
        if differs := label_difference(self.label_names, label_names):
            raise ValueError(
                f"the labels of this corpus are not those of the run {run} ({differs}); name a corpus with the same "
                "ones, or list the run's in labels.txt beside metadata.csv: " + ", ".join(self.label_names)
            )

    def refuse_other_features(self, origins: Mapping[str, Origin], run: Path) -> None:
        """Refuse features that were made otherwise than those it was trained on.

        Args:
            origins: of the features that it is to be used on; only the model's modalities are looked at.
            run: its folder, to be named.

        Raises:
            ValueError: one line with the array, the first key that differs, both values and what to do.
        """
        remedy = "set features_dir to the folder that it was trained on, or train it on these"
        refuse_others(self.features, origins, f"the run {run}", remedy)


def write_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write it, complete or not at all.

    Raises:
        pickle.UnpicklingError: it holds something else than weights and plain values.
    """
    with revealed(path) as part:
        torch.save(_plain(checkpoint), part)
        # Better no checkpoint than one that cannot be loaded again.
        torch.load(part, weights_only=True, map_location="cpu", mmap=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint of a run, of stage two or fine-tuned. Weights stay in the file until they are used.

    Raises:
        ValueError: there is none, it cannot be read, or it lacks a key or has one that is not known.
    """
    try:
        kept = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is no checkpoint ({type(error).__name__}); train the run again") from error
    if problem := _problem(kept):
        raise ValueError(f"{path} {problem}: it was written by another version; train the run again")
    try:
        checkpoint = _checkpoint(kept)
        checkpoint.head()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is no checkpoint of this version ({error}); train the run again") from error
    return checkpoint


def read_stage_two(path: Path) -> Checkpoint:
    """The checkpoint of a run of stage two, whose head takes cached features.

    Raises:
        ValueError: as `read_checkpoint`; or the run is fine-tuned.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.fine_tuned:
        raise ValueError(
            f"{path} was fine-tuned with encoders of its own, which cached features do not come from; "
            "name the run of stage two"
        )
    return checkpoint


def _plain(checkpoint: Checkpoint) -> dict[str, Any]:
    """Tensors, numbers, text, tuples, lists and dicts."""
    kept = {one.name: getattr(checkpoint, one.name) for one in fields(checkpoint)}
    speakers = {
        name: {
            part: {key: torch.from_numpy(values) for key, values in getattr(known, part).items()}
            for part in ("mean", "scale")
        }
        for name, known in checkpoint.speakers.items()
    }
    converted = {
        "settings": plain_settings(checkpoint.settings),
        "state": dict(checkpoint.state),
        "fold": asdict(checkpoint.fold),
        "features": {name: dict(made) for name, made in checkpoint.features.items()},
        "speakers": speakers,
        "familiarity": {name: _plain_arrays(asdict(one)) for name, one in checkpoint.familiarity.items()},
    }
    return {**kept, **converted}


def _plain_arrays(record: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays as tensors: only these load with `weights_only`."""
    return {key: torch.from_numpy(one) if isinstance(one, np.ndarray) else one for key, one in record.items()}


def _arrays(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: one.numpy() if isinstance(one, Tensor) else one for key, one in record.items()}


def _checkpoint(kept: Mapping[str, Any]) -> Checkpoint:
    speakers = {
        name: SpeakerStatistics(**{part: {key: one.numpy() for key, one in known[part].items()} for part in known})
        for name, known in kept["speakers"].items()
    }
    converted = {
        "settings": ModelSettings(**kept["settings"]),
        "fold": Fold(**kept["fold"]),
        "speakers": speakers,
        "familiarity": {name: Familiarity(**_arrays(one)) for name, one in kept["familiarity"].items()},
    }
    checkpoint = Checkpoint(**{**kept, **converted})
    if len(checkpoint.label_names) != checkpoint.settings.classes:
        raise ValueError(f"{len(checkpoint.label_names)} labels for {checkpoint.settings.classes} classes")
    return checkpoint


def _problem(kept: Any) -> str:
    if not isinstance(kept, dict):
        return "holds no record of a run"
    known = {one.name for one in fields(Checkpoint)}
    missing, unknown = sorted(known - kept.keys()), sorted(map(str, kept.keys() - known))
    said = [f"lacks {', '.join(missing)}"] if missing else []
    return " and ".join([*said, f"has unknown {', '.join(unknown)}"] if unknown else said)
