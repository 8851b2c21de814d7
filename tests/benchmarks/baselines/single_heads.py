"""The default recipe's head as people train it: four loops over one head each. All slice absent modalities away."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from sklearn.neural_network import MLPClassifier
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

BATCH, LR, WEIGHT_DECAY, DROPOUT = 32, 1e-3, 0.01, 0.1


@dataclass(frozen=True)
class Task:
    """One head's data, standardised, and how long it is trained."""

    train_ND: Tensor
    train_labels_N: Tensor
    held_out_ND: Tensor
    held_out_labels_N: Tensor
    hidden: int
    epochs: int


def loader_loop(task: Task, seed: int) -> None:
    """A usual loop: DataLoader, AdamW, cosine schedule, a validation pass per epoch."""
    model = _model(task, seed)
    loader = DataLoader(TensorDataset(task.train_ND, task.train_labels_N), BATCH, shuffle=True)
    adamw = torch.optim.AdamW(model.parameters(), LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adamw, task.epochs * len(loader))
    for _ in range(task.epochs):
        model.train()
        for rows_BD, labels_B in loader:
            loss = nn.functional.cross_entropy(model(rows_BD), labels_B)
            adamw.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adamw.step()
            schedule.step()
        _validate(model, task)


def tuned_loop(task: Task, seed: int) -> None:
    """The best loop over a single head: no loader, fused AdamW, the rate set by hand."""
    model = _model(task, seed)
    adamw = torch.optim.AdamW(model.parameters(), LR, weight_decay=WEIGHT_DECAY, fused=True)
    updates = task.epochs * -(-len(task.train_ND) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adamw, updates)
    for _ in range(task.epochs):
        model.train()
        for index_B in torch.split(torch.randperm(len(task.train_ND)), BATCH):
            loss = nn.functional.cross_entropy(model(task.train_ND[index_B]), task.train_labels_N[index_B])
            adamw.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            adamw.step()
            schedule.step()
        _validate(model, task)


def scikit_learn(task: Task, seed: int) -> None:
    """MLPClassifier, which has neither dropout nor decoupled decay; the joblib part is the caller's."""
    network = MLPClassifier((task.hidden,), batch_size=BATCH, learning_rate_init=LR, random_state=seed)
    rows, labels = task.train_ND.numpy(), task.train_labels_N.numpy()
    held_out = task.held_out_ND.numpy()
    for _ in range(task.epochs):
        network.partial_fit(rows, labels, classes=range(8))
        network.predict(held_out)


def lightning(task: Task, seed: int) -> None:
    """A Lightning Trainer without loggers, checkpoints or progress bar.

    Raises:
        ImportError: lightning is not installed; it is no part of this project.
    """
    import lightning as pl

    logging.disable(logging.WARNING)  # it announces itself for every head

    class Module(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = _model(task, seed)

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
            self.model(batch[0]).argmax(1).eq(batch[1]).float().mean().item()

        def configure_optimizers(self) -> dict[str, object]:
            adamw = torch.optim.AdamW(self.parameters(), LR, weight_decay=WEIGHT_DECAY)
            updates = task.epochs * -(-len(task.train_ND) // BATCH)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adamw, updates)
            return {"optimizer": adamw, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=task.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    train = DataLoader(TensorDataset(task.train_ND, task.train_labels_N), BATCH, shuffle=True)
    held_out = DataLoader(TensorDataset(task.held_out_ND, task.held_out_labels_N), len(task.held_out_ND))
    trainer.fit(Module(), train, held_out)


LOOPS: dict[str, Callable[[Task, int], None]] = {
    "DataLoader loop": loader_loop,
    "Lightning": lightning,
    "scikit-learn": scikit_learn,
    "tuned loop": tuned_loop,
}


def _model(task: Task, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    first, second = nn.Linear(task.train_ND.shape[1], task.hidden), nn.Linear(task.hidden, 8)
    return nn.Sequential(first, nn.GELU(), nn.Dropout(DROPOUT), second)


def _validate(model: nn.Module, task: Task) -> None:
    model.eval()
    with torch.inference_mode():
        model(task.held_out_ND).argmax(1).eq(task.held_out_labels_N).float().mean().item()
