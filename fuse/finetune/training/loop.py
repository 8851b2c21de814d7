"""The training of one rank: epochs, evaluation, the best epoch by validation, and what is kept on the way.

Shape letters: N clips, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from torch.utils.data import Subset

from configs.command.progress import Progress
from configs.command.stop import Stopped, StopRequest
from configs.schema.finetune import FinetuneOptim
from fuse.finetune.inputs.batches import Batch, Loaders
from fuse.finetune.inputs.clips import MediaClips
from fuse.finetune.network import Answers, EndToEndModel
from fuse.finetune.training.order import Order
from fuse.finetune.training.state import Keeper, TrainingState, Weights
from fuse.finetune.training.stepper import Stepper, World, put_back, weights_that_learn
from fuse.scores.metrics import uar
from fuse.stack.job import History

Logits = npt.NDArray[np.float32]
START = -1


class Diverged(ValueError):
    """The loss is not finite; every rank finds out in the same epoch."""

    def __init__(self, message: str, epoch: int) -> None:
        """`epoch`: from 0."""
        super().__init__(message)
        self.epoch = epoch


@dataclass(frozen=True)
class Watch:
    """What is looked at between two batches: is it time to stop, and how far are we."""

    stop: StopRequest
    progress: Progress


class Training:
    """Trains a model in place, with the other ranks; it ends with the weights of its best epoch, or of its start."""

    def __init__(
        self,
        model: EndToEndModel,
        train: MediaClips,
        validation: MediaClips,
        loaders: Loaders,
        optim: FinetuneOptim,
        world: World,
        watch: Watch,
        keeper: Keeper | None = None,
    ) -> None:
        """`keeper`: of an unfinished training's state, which rank 0 writes; None: nothing is kept."""
        self.model, self.validation, self.loaders, self.optim = model, validation, loaders, optim
        self.world, self.watch, self.keeper, self.train = world, watch, keeper, train
        self.order = Order(len(train), optim.batch_size, optim.accumulate, train.seed, world.rank, world.size)
        self.stepper = Stepper(model, optim, optim.epochs * self.order.steps, world)
        self.history, self.waited, self.loss_sum = History(best_epoch=START), 0, 0.0
        self.best: Weights = {}

    def run(self, before: Sequence[Logits], state: TrainingState | None = None) -> tuple[History, Logits]:
        """Train.

        Args:
            before: logits of validation and test before training; those of validation are the score to beat.
            state: of the interrupted training that is continued.

        Returns:
            what happened (the best epoch is `START` where none did better), and its validation logits.

        Raises:
            Diverged: on every rank alike.
            Stopped: on every rank alike, after the same step.
            ValueError: the state does not fit.
        """
        self.before, self.best_NC = tuple(before), before[0]
        self.start = weights_that_learn(self.model)
        epoch, step = (0, 0) if state is None else self._continue(state)
        passes = iter(self.loaders.drawn(self.train, self.order.from_there(epoch, step, self.optim.epochs)))
        while epoch < self.optim.epochs and not self._waited_enough:
            self._epoch(epoch, step, passes)
            self._validate(epoch)
            epoch, step = epoch + 1, 0
            self._keep(epoch, step)
        put_back(self.model, self.best or self.start)
        return self.history, self.best_NC

    @property
    def _waited_enough(self) -> bool:
        return self.optim.patience is not None and self.waited >= self.optim.patience

    def _epoch(self, epoch: int, first: int, passes: Iterator[Batch]) -> None:
        self.stepper.parallel.train()  # type: ignore[no-untyped-call]
        for step in range(first, self.order.steps):
            own = [next(passes) for _ in self.order.passes(epoch, step)] or [self.loaders.collator.stand_in()]
            seeds = [self.order.torch_seed(epoch, step, number) for number in range(len(own))]
            loss = self.stepper.step(own, self.order.clips_of(step), seeds)
            # One talk more in a step: ranks that are told to stop at different times stop after the same one.
            loss_sum, stops = _summed(self.world, loss, float(self.watch.stop.due))
            self.loss_sum += loss_sum
            self.watch.progress.add(sum(batch.clips for batch in own))
            if stops:
                self._keep(epoch, step + 1)
                raise Stopped
            if self.keeper is not None and self.keeper.due:
                self._keep(epoch, step + 1)

    def _validate(self, epoch: int) -> None:
        loss = self.loss_sum / len(self.train)
        if not math.isfinite(loss):
            raise Diverged(
                f"training diverged in epoch {epoch + 1} (loss {loss}); lower optim.lr={self.optim.lr:g} "
                "or optim.encoder_lr_scale, or set precision=float32",
                epoch,
            )
        try:
            with self.stepper.averaged():
                logits_NC = evaluate(self.model, self.validation, self.loaders, self.world, self.watch)
                weights = weights_that_learn(self.model)
        except Stopped:
            self._keep(epoch, self.order.steps)
            raise
        self.loss_sum = 0.0
        now = score(self.validation, logits_NC)
        self.history.train_loss.append(loss)
        self.history.validation_loss.append(now[1])
        self.history.validation_uar.append(now[0])
        self.waited += 1
        if _better(now, score(self.validation, self.best_NC)):
            self.best_NC, self.best, self.waited = logits_NC, weights, 0
            self.history.best_epoch = epoch

    def _keep(self, epoch: int, step: int) -> None:
        """All ranks hold the same: the first writes it, and none has to be asked."""
        if self.keeper is None or self.world.rank:
            return
        self.keeper.save(
            TrainingState(
                epoch=epoch,
                step=step,
                loss_sum=self.loss_sum,
                weights=weights_that_learn(self.model),
                **self.stepper.state(),
                history=self.history,
                best_NC=torch.from_numpy(self.best_NC),
                best=self.best,
                before=tuple(map(torch.from_numpy, self.before)),
                waited=self.waited,
            )
        )

    def _continue(self, state: TrainingState) -> tuple[int, int]:
        """Take up a state, every part of it; returns the epoch and the step that come next."""
        put_back(self.model, state.weights)
        self.stepper.restore(state.average, state.adamw, state.schedule, state.scaler)
        self.history, self.waited, self.loss_sum = state.history, state.waited, state.loss_sum
        self.best_NC, self.best = state.best_NC.numpy(), state.best
        return state.epoch, state.step


def evaluate(model: EndToEndModel, clips: MediaClips, loaders: Loaders, world: World, watch: Watch) -> Logits:
    """Logits_NC of all clips, in their order, on every rank. Ranks share the clips out; none is repeated.

    Raises:
        Stopped: on every rank alike, if one of them was told to stop.
    """
    own = range(world.rank, len(clips), world.size)
    parts: list[Logits] = []
    most = -(-len(range(0, len(clips), world.size)) // loaders.batch_size)
    batches = iter(loaders.over(Subset(clips, own)))
    model.eval()
    with torch.inference_mode():
        for _ in range(most):
            # Ranks talk before each batch: one that hangs is found at once, one that is only slower is waited for.
            if any(_summed(world, float(watch.stop.due))):
                raise Stopped
            if (batch := next(batches, None)) is None:
                continue
            on_device = batch.to(world.device)
            answers: Answers = model(on_device.inputs, on_device.present)
            parts.append(answers.logits_BC.float().cpu().numpy())
            watch.progress.add(batch.clips)
    gathered: list[list[Logits]] = [[] for _ in range(world.size)]
    dist.all_gather_object(gathered, parts, group=world.group)
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


def _summed(world: World, *values: float) -> list[float]:
    """Sums over ranks."""
    sums = torch.tensor(values, dtype=torch.float64, device=world.device)
    dist.all_reduce(sums, group=world.group)
    summed: list[float] = sums.tolist()
    return summed


def _better(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Higher UAR; with few speakers equal ones are common, and the smaller loss then decides."""
    return (one[0], -one[1]) > (other[0], -other[1])
