"""The training loop of one rank: steps, evaluation, and the best epoch by validation.

Shape letters: B clips of a batch, N clips, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, Subset

from configs.command.progress import Progress
from configs.command.stop import StopRequest
from configs.schema.finetune import FinetuneOptim
from fuse.finetune.batches import Batch, Loaders
from fuse.finetune.clips import MediaClips, Signals
from fuse.finetune.network import Answers, EndToEndModel, loss_of, restore, trained_state
from fuse.scores.metrics import uar
from fuse.stack.job import History

Logits = npt.NDArray[np.float32]
START = -1


class Diverged(ValueError):
    """The loss is not finite; every rank finds out in the same epoch."""


@dataclass(frozen=True)
class World:
    """This rank among the others, and what it computes on."""

    rank: int
    size: int
    device: torch.device


@dataclass(frozen=True)
class Watch:
    """What is looked at between two batches: is it time to stop, and how far are we."""

    stop: StopRequest
    progress: Progress

    def tick(self, clips: int) -> None:
        """Count clips; raises `configs.command.stop.Stopped` when the launcher is gone."""
        self.stop.check()
        self.progress.add(clips)


def fit(
    model: EndToEndModel,
    train: MediaClips,
    validation: MediaClips,
    loaders: Loaders,
    optim: FinetuneOptim,
    world: World,
    watch: Watch,
    start: Logits,
) -> tuple[History, Logits]:
    """Train in place; the model ends with the weights of its best epoch, which may be the start.

    Gradients are means over the ranks' batches, which are of equal size: `DistributedSampler` repeats up to
    `world.size - 1` clips of an epoch to make them so.

    Args:
        start: validation logits before training: the score to beat. Best epoch is then `START`.

    Returns:
        what happened, and the validation logits of the best epoch.

    Raises:
        Diverged: on every rank alike.
    """
    sampler: DistributedSampler[Signals] = DistributedSampler(train, world.size, world.rank, seed=train.seed)
    batches = loaders.over(train, sampler)
    stepper = Stepper(model, optim, optim.epochs * len(batches), world)
    torch.manual_seed(int(np.random.SeedSequence([train.seed, world.rank]).generate_state(1)[0]))
    history, best, best_state = History(best_epoch=START), start, trained_state(model)
    for epoch in range(optim.epochs):
        sampler.set_epoch(epoch)
        train.set_epoch(epoch)
        loss = _epoch(stepper, batches, world, watch)
        if not math.isfinite(loss):
            raise Diverged(
                f"training diverged in epoch {epoch + 1} (loss {loss}); lower optim.lr={optim.lr:g} "
                "or optim.encoder_lr_scale, or set precision=float32"
            )
        logits_NC = evaluate(model, validation, loaders, world, watch)
        history.train_loss.append(loss)
        history.validation_loss.append(score(validation, logits_NC)[1])
        history.validation_uar.append(score(validation, logits_NC)[0])
        if _better(score(validation, logits_NC), score(validation, best)):
            best, best_state, history.best_epoch = logits_NC, trained_state(model), epoch
    restore(model, best_state)
    return history, best


def evaluate(model: EndToEndModel, clips: MediaClips, loaders: Loaders, world: World, watch: Watch) -> Logits:
    """Logits_NC of all clips, in their order, on every rank. Ranks share the clips out; none is repeated."""
    own = range(world.rank, len(clips), world.size)
    parts = []
    model.eval()
    with torch.inference_mode():
        for batch in loaders.over(Subset(clips, own)):
            assert isinstance(batch, Batch)
            on_device = batch.to(world.device)
            answers: Answers = model(on_device.inputs, on_device.present)
            parts.append(answers.logits_BC.float().cpu().numpy())
            watch.tick(len(batch.labels_B))
    gathered: list[list[Logits] | None] = [None] * world.size
    dist.all_gather_object(gathered, parts)
    logits_NC = np.full((len(clips), model.fusion.settings.classes), np.nan, np.float32)
    for rank, several in enumerate(gathered):
        if several:
            logits_NC[rank :: world.size] = np.concatenate(several)
    return logits_NC


def score(clips: MediaClips, logits_NC: Logits) -> tuple[float, float]:
    """UAR and mean cross-entropy of logits for these clips."""
    labels_N = clips.labels
    loss = cross_entropy(torch.from_numpy(logits_NC).double(), torch.from_numpy(labels_N)).item()
    return uar(labels_N, logits_NC.argmax(1)), loss


class Stepper:
    """Model, gradients and optimiser of one rank. All ranks start alike and take the same steps."""

    def __init__(self, model: EndToEndModel, optim: FinetuneOptim, steps: int, world: World) -> None:
        """`steps`: of the whole training, for the cosine schedule."""
        self.parallel = DistributedDataParallel(model, [world.device] if world.device.type == "cuda" else None)
        self.smoothing, self.device = optim.label_smoothing, world.device
        groups = [
            {"params": list(model.fusion.weights.values()), "lr": optim.lr},
            {"params": _learning(model.networks), "lr": optim.lr * optim.encoder_lr_scale},
        ]
        self.adamw = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=optim.weight_decay)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.adamw, steps)
        # Small gradients vanish in float16 unless the loss is scaled up.
        self.scaler = torch.amp.grad_scaler.GradScaler(world.device.type, enabled=model.dtype == torch.float16)

    def step(self, batch: Batch) -> float:
        """One step; returns the loss of this rank's batch."""
        on_device = batch.to(self.device)
        answers: Answers = self.parallel(on_device.inputs, on_device.present)
        loss = loss_of(answers.taught_BKC, on_device.labels_B, self.smoothing)
        self.adamw.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scale = self.scaler.get_scale()
        self.scaler.step(self.adamw)
        self.scaler.update()
        # The scaler lowers its scale where a gradient overflowed, and only there: it has left out the step.
        if self.scaler.get_scale() >= scale:
            self.schedule.step()
        return loss.item()


def _epoch(stepper: Stepper, batches: DataLoader[Signals], world: World, watch: Watch) -> float:
    """Mean loss per clip over all ranks."""
    stepper.parallel.train()  # type: ignore[no-untyped-call]
    total, clips = 0.0, 0
    for batch in batches:
        assert isinstance(batch, Batch)
        total += stepper.step(batch) * len(batch.labels_B)
        clips += len(batch.labels_B)
        watch.tick(len(batch.labels_B))
    sums = torch.tensor([total, clips], dtype=torch.float64, device=world.device)
    dist.all_reduce(sums)
    return float(sums[0] / sums[1])


def _better(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Higher UAR; with few speakers equal ones are common, and the smaller loss then decides."""
    return (one[0], -one[1]) > (other[0], -other[1])


def _learning(module: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in module.parameters() if weight.requires_grad]
