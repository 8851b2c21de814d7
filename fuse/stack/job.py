"""One head to train, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from cache.features.table import FeatureTable
from cache.protocols.folds import Fold
from configs.schema.fusion import FusionConfig
from fuse.model.fusion import FusionModel
from fuse.model.heads.base import Penalty


def _set_by(key: str, default: float) -> Any:
    """A field that a configuration sets by this key (`Job.of`)."""
    return field(default=default, metadata={"key": key})


@dataclass(frozen=True)
class Job:
    """Everything that may differ between the heads of a stack.

    Attributes:
        train, validation: row numbers of the table; of different speakers.
        dropout: chance that a hidden unit is dropped.
        label_smoothing: share of the target that is spread over all classes.
        mixup: alpha of the Beta distribution (Zhang et al. 2018, arXiv 1710.09412, eq. 1); 0 is off.
        augment: chance that a clip's signal is drawn from one of its cached variants.
        modality_dropout: chance that a clip's modality is withheld; one that the clip has always stays.
        penalty: of the heads in closed form.
        standardise: by mean and SD of the training clips; else rows stay as they are.
    """

    train: tuple[int, ...] = field(repr=False)
    validation: tuple[int, ...] = field(repr=False)
    seed: int = 0
    lr: float = _set_by("optim.lr", 1e-4)
    weight_decay: float = _set_by("optim.weight_decay", 0.01)
    dropout: float = _set_by("dropout", 0.1)
    label_smoothing: float = _set_by("optim.label_smoothing", 0.0)
    mixup: float = _set_by("optim.mixup", 0.0)
    augment: float = _set_by("augment.probability", 0.0)
    modality_dropout: float = _set_by("modality_dropout", 0.0)
    penalty: Penalty = field(default_factory=Penalty)
    standardise: bool = True

    @classmethod
    def of(cls, config: FusionConfig, table: FeatureTable, fold: Fold, seed: int) -> Job:
        """One fold and seed of a configuration."""
        optim = config.optim
        train, validation = (table.rows_of(fold.clip_ids(part, table.clips)) for part in ("train", "validation"))
        return cls(
            train=train,
            validation=validation,
            seed=seed,
            lr=optim.lr,
            weight_decay=optim.weight_decay,
            dropout=config.dropout,
            label_smoothing=optim.label_smoothing,
            mixup=optim.mixup,
            augment=config.augment.probability,
            modality_dropout=config.modality_dropout,
            penalty=Penalty(optim.shrinkage, optim.regularisation),
            standardise=config.standardise != "none",
        )


# The keys of a configuration that heads of one stack may differ in.
FREE = (
    *(one.metadata["key"] for one in fields(Job) if "key" in one.metadata),
    *(f"optim.{one.name}" for one in fields(Penalty)),
)


@dataclass
class History:
    """What happened, epoch by epoch.

    Attributes:
        best_epoch: counts from 0; the weights are of its end.
        diverged: the epoch whose loss was not finite, from 0; the head was stopped there.
    """

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_uar: list[float] = field(default_factory=list)
    best_epoch: int = 0
    diverged: int | None = None


@dataclass(frozen=True)
class Fitted:
    """A head with the weights of its best epoch, on the CPU."""

    model: FusionModel
    history: History
