"""Fine-tuning as accelerate's documentation writes it: prepare everything, and step through the loader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from configs.schema.finetune import FinetuneOptim
from fuse.finetune.inputs.batches import Collator
from fuse.finetune.inputs.clips import Signals
from fuse.finetune.network import EndToEndModel, loss_of
from fuse.finetune.training.stepper import groups_of


class AccelerateLoop:
    """The same model, clips, loss and optimiser; steps, gradients and the dealing of clips are accelerate's."""

    def __init__(
        self,
        accelerator: Any,
        model: EndToEndModel,
        clips: Dataset[Signals],
        collator: Collator,
        optim: FinetuneOptim,
        workers: int,
    ) -> None:
        """`accelerator`: an `accelerate.Accelerator` that leaves batches where they are."""
        loader: DataLoader[Any] = DataLoader(
            clips, optim.batch_size, shuffle=True, collate_fn=collator, num_workers=workers
        )
        adamw = torch.optim.AdamW(groups_of(model, optim), weight_decay=optim.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adamw, 1000)
        self.accelerator = accelerator
        self.model, self.adamw, self.loader, self.schedule = accelerator.prepare(model, adamw, loader, schedule)

    def epoch(self) -> Sequence[float]:
        """Through all clips once; the loss of each step."""
        self.model.train()
        losses = []
        for batch in self.loader:
            self.adamw.zero_grad()
            loss = loss_of(self.model(batch.inputs, batch.present).taught_BKC, batch.labels_B)
            self.accelerator.backward(loss)
            self.adamw.step()
            self.schedule.step()
            losses.append(loss.item())
        return losses
