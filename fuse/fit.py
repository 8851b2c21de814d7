"""Training one head on cached features: the card's optimiser and schedule, best epoch by validation UAR.

Shape letters: N clips of the table, B clips of a batch, D width, C classes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from configs.fusion import Optim
from fuse.heads import Discriminant, FusionModel
from fuse.metrics import uar

Rows = dict[str, Tensor]
Index = npt.NDArray[np.intp]


@dataclass
class History:
    """What happened, epoch by epoch; `best_epoch` counts from 0."""

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_uar: list[float] = field(default_factory=list)
    best_epoch: int = 0


@dataclass(frozen=True)
class TrainingRows:
    """Standardised rows of every clip: as they are, and under the variants that training may draw.

    Attributes:
        clean: modality to (N, D).
        variants: per signal (`audio`, `video`) the variants it may take, each modality to (N, D) for the
            modalities that the variant changes.
        probability: chance that a clip's signal is drawn from a variant.
    """

    clean: Rows
    variants: Mapping[str, Sequence[Rows]]
    probability: float

    def draw(self, index_B: Tensor, generator: torch.Generator) -> Rows:
        """One batch: each signal of each clip as it is, or from one of its variants."""
        rows = {name: values[index_B] for name, values in self.clean.items()}
        for variants in self.variants.values():
            if not variants:
                continue
            taken_B = torch.rand(len(index_B), generator=generator) < self.probability
            which_B = torch.randint(len(variants), (len(index_B),), generator=generator)
            for number, variant in enumerate(variants):
                chosen_B = taken_B & (which_B == number)
                for name, values in variant.items():
                    rows[name][chosen_B] = values[index_B[chosen_B]]
        return rows


def fit(
    model: FusionModel, rows: TrainingRows, labels_N: Tensor, train: Index, validation: Index, optim: Optim, seed: int
) -> History:
    """Train `model.head` in place; it ends with the weights of its best epoch.

    Args:
        rows: standardised features of all clips.
        labels_N: class of each clip.
        train, validation: row numbers; of different speakers.
        seed: of batch order, augmentation and dropout.

    Raises:
        ValueError: the loss is not finite; names the epoch and what to lower.
    """
    generator = torch.Generator().manual_seed(seed)
    if isinstance(model.head, Discriminant):
        return _solve(model.head, rows, labels_N, train, validation, optim, generator)
    steps = -(-len(train) // optim.batch_size)
    adamw = torch.optim.AdamW(model.head.parameters(), lr=optim.lr, weight_decay=optim.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adamw, optim.epochs * steps)
    history, best = History(), (-1.0, 0.0)
    best_state = copy.deepcopy(model.head.state_dict())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for epoch in range(optim.epochs):
            loss = _epoch(model.head, rows, labels_N, torch.from_numpy(train), optim, adamw, schedule, generator)
            if not np.isfinite(loss):
                raise ValueError(f"training diverged in epoch {epoch + 1} (loss {loss}); lower optim.lr={optim.lr:g}")
            score, validation_loss = _validate(model.head, rows.clean, labels_N, validation)
            history.train_loss.append(loss)
            history.validation_loss.append(validation_loss)
            history.validation_uar.append(score)
            # Equal UAR is common with few speakers; the smaller loss then decides.
            if (score, -validation_loss) > best:
                best, history.best_epoch = (score, -validation_loss), epoch
                best_state = copy.deepcopy(model.head.state_dict())
    model.head.load_state_dict(best_state)
    return history


def predict(model: FusionModel, rows: Mapping[str, Tensor]) -> npt.NDArray[np.float64]:
    """Class probabilities (N, C) from raw features, NaN where a clip lacks a modality."""
    model.eval()
    with torch.inference_mode():
        probabilities_NC: npt.NDArray[np.float64] = model(rows).double().softmax(1).numpy()
    return probabilities_NC


def _solve(
    head: Discriminant,
    rows: TrainingRows,
    labels_N: Tensor,
    train: Index,
    validation: Index,
    optim: Optim,
    generator: torch.Generator,
) -> History:
    """A head in closed form: one "epoch"; every variant is seen in proportion when rows are drawn."""
    index = torch.from_numpy(train)
    if any(rows.variants.values()):
        index = index.repeat(optim.epochs)
    drawn = rows.draw(index, generator)
    head.solve(drawn, labels_N[index], optim.shrinkage)
    with torch.inference_mode():
        loss = cross_entropy(head(drawn), labels_N[index]).item()
    score, validation_loss = _validate(head, rows.clean, labels_N, validation)
    return History([loss], [validation_loss], [score], 0)


def _epoch(
    head: nn.Module,
    rows: TrainingRows,
    labels_N: Tensor,
    train: Tensor,
    optim: Optim,
    adamw: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    generator: torch.Generator,
) -> float:
    head.train()
    total = 0.0
    for index_B in torch.split(train[torch.randperm(len(train), generator=generator)], optim.batch_size):
        loss = _batch_loss(head, rows.draw(index_B, generator), labels_N[index_B], optim, generator)
        adamw.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adamw.step()
        schedule.step()
        total += loss.item() * len(index_B)
    return total / len(train)


def _batch_loss(head: nn.Module, batch: Rows, labels_B: Tensor, optim: Optim, generator: torch.Generator) -> Tensor:
    if not optim.mixup:
        return cross_entropy(head(batch), labels_B, label_smoothing=optim.label_smoothing)
    # Mixup (Zhang et al. 2018, arXiv 1710.09412, eq. 1): convex mixtures of pairs and of their losses.
    share = _beta(optim.mixup, generator)
    partner_B = torch.randperm(len(labels_B), generator=generator)
    logits_BC = head({name: share * values + (1 - share) * values[partner_B] for name, values in batch.items()})
    own = cross_entropy(logits_BC, labels_B, label_smoothing=optim.label_smoothing)
    other = cross_entropy(logits_BC, labels_B[partner_B], label_smoothing=optim.label_smoothing)
    return share * own + (1 - share) * other


def _beta(alpha: float, generator: torch.Generator) -> float:
    """A draw from Beta(alpha, alpha) that follows the generator."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))


def _validate(head: nn.Module, clean: Rows, labels_N: Tensor, validation: Index) -> tuple[float, float]:
    head.eval()
    index = torch.from_numpy(validation)
    with torch.inference_mode():
        logits_BC = head({name: values[index] for name, values in clean.items()})
        loss = cross_entropy(logits_BC, labels_N[index]).item()
    return uar(labels_N[index].numpy(), logits_BC.argmax(1).numpy()), loss
