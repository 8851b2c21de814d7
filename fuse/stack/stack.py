"""Training M heads at once: seeds, folds, learning rates and all that may differ within one shape.

Contract: a head trained in a stack equals the same head trained alone, up to rounding (vector units round the ends of
an array otherwise than its middle; at the widths of the default recipe not a bit differs on a CPU). Batches have a
fixed size (the last one of an epoch is filled up with rows of weight 0), the random numbers of a head follow from its
seed, and nothing mixes the heads. A head whose loss is no longer finite stops there; the others do not notice.

Shape letters: M heads, B clips of a batch, D width, K logits that are taught, C classes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from configs.schema.fusion import FusionConfig
from fuse.model.fusion import FusionModel, ModelSettings, draw_weights, forward, prepared, standardise
from fuse.model.heads.base import Penalty, Rows
from fuse.model.heads.catalogue import find_head
from fuse.model.heads.layer import StackWeights, Weights
from fuse.model.heads.reliable import solve_each
from fuse.stack.adamw import Pace, StackedAdamW
from fuse.stack.batches import StackBatch, StackLoader, column, rows_of
from fuse.stack.job import Fitted, History, Job
from fuse.stack.precision import Precision, products_in, refuse_slow_products
from fuse.stack.reliability import Finisher
from fuse.stack.rows import CachedRows, torch_device
from fuse.stack.streams import Streams
from fuse.stack.validation import HeldOut


@dataclass(frozen=True)
class Schedule:
    """What all heads of a stack share beside their shape; `keep`: weights of the `best` epoch, or of the `last`."""

    epochs: int = 20
    batch_size: int = 32
    keep: str = "best"
    precision: Precision = "float32"

    @classmethod
    def of(cls, config: FusionConfig) -> Schedule:
        """What the heads of a configuration share.

        Raises:
            ValueError: its precision is none of this machine.
        """
        refuse_slow_products(config.precision, torch_device(config.device))
        optim = config.optim
        return cls(optim.epochs, optim.batch_size, optim.keep, config.precision)


def fit_stack(settings: ModelSettings, cached: CachedRows, jobs: Sequence[Job], schedule: Schedule) -> list[Fitted]:
    """Train one head per job; each ends with the weights of its last epoch, or its best by validation UAR, then loss.

    Args:
        settings: shared by all heads; `dropout` is each job's own.

    Raises:
        ValueError: a fold's training clips all lack a modality.
    """
    # Heads with more batches first: those still at work are then always the first so many.
    order = sorted(range(len(jobs)), key=lambda number: company(jobs[number]))
    stack = Stack(settings, cached, [jobs[number] for number in order], schedule)
    if find_head(settings.head, settings.hidden, settings.unimodal).solve:
        stack.solve()
    else:
        for epoch in range(schedule.epochs):
            stack.train(epoch)
            stack.validate(epoch)
        stack.finish(stack.best)
    fitted = dict(zip(order, stack.fitted(), strict=True))
    return [fitted[number] for number in range(len(jobs))]


def company(job: Job) -> tuple[object, ...]:
    """Order of heads in a stack: side by side those of one fold, those that see the same rows, those of one pace."""
    return (-len(job.train), job.train, job.validation, job.standardise, rows_of(job), job.lr, job.weight_decay)


class Stack:
    """The state of M heads in training; `jobs` are in the order of `company`."""

    def __init__(
        self,
        settings: ModelSettings,
        cached: CachedRows,
        jobs: Sequence[Job],
        schedule: Schedule,
        weights: Weights | None = None,
    ) -> None:
        """At the starting weights of each job's seed, or all at these."""
        self.settings, self.cached, self.jobs, self.schedule = settings, cached, jobs, schedule
        self.kind = find_head(settings.head, settings.hidden, settings.unimodal)
        self.device = cached.rows_ND.device
        drawn = {seed: weights or draw_weights(settings, seed) for seed in {job.seed for job in jobs}}
        self.weights = StackWeights.of([drawn[job.seed] for job in jobs], self.device)
        self.best = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.standardisers = [cached.standardiser(job.train if job.standardise else ()) for job in jobs]
        statistics = zip(*(one.side_by_side() for one in self.standardisers), strict=True)
        self.mean_MD, self.scale_MD = (torch.stack(parts).to(self.device) for parts in statistics)
        self.zero_MD = standardise(torch.zeros_like(self.mean_MD), self.mean_MD, self.scale_MD)
        self.held_out = HeldOut(cached, jobs, self.mean_MD, self.scale_MD)
        self.batches = StackLoader(cached, jobs, self.mean_MD, self.scale_MD, schedule.batch_size)
        updates_M = [schedule.epochs * steps for steps in self.batches.steps_M]
        paces = [Pace(job.lr, job.weight_decay, updates) for job, updates in zip(jobs, updates_M, strict=True)]
        self.adamw = StackedAdamW(self.weights, paces)
        self.streams = Streams([job.seed for job in jobs], self.device)
        self.drops = any(job.dropout for job in jobs)
        self.dropout_M = column(jobs, lambda job: job.dropout, self.device)
        self.kept_M = 1 / (1 - self.dropout_M)
        self.targets_MCC = targets(column(jobs, lambda job: job.label_smoothing, self.device), settings.classes)
        self.clips_M = column(jobs, lambda job: len(job.train), self.device)
        self.histories = [History() for _ in jobs]
        self.best_M = [(-1.0, 0.0)] * len(jobs)

    def train(self, epoch: int, batches: int | None = None) -> None:
        """One epoch of every head, or the first few batches of it."""
        with products_in(self.schedule.precision):
            self._train(epoch, batches)

    def validate(self, epoch: int) -> None:
        """Score every head on its validation clips; keep the weights of those that were never better."""
        for head, (score, loss) in enumerate(self.held_out.scores(self.settings, self.weights, self.zero_MD)):
            history = self.histories[head]
            if history.diverged is not None:
                continue
            history.validation_uar.append(score)
            history.validation_loss.append(loss)
            # Equal UAR is common with few speakers; the smaller loss then decides.
            if self.schedule.keep == "last" or (score, -loss) > self.best_M[head]:
                self.best_M[head], history.best_epoch = (score, -loss), epoch
                for name, best in self.best.items():
                    best[head] = self.weights[name].detach()[head]

    def solve(self) -> None:
        """Heads in closed form: one "epoch"; where variants may be drawn, each clip is drawn `epochs` times."""
        for head, job in enumerate(self.jobs):
            draws = self.schedule.epochs if job.augment and self.cached.variants else 1
            one = [replace(job, mixup=0.0)]
            batches = StackLoader(self.cached, one, self.mean_MD[[head]], self.scale_MD[[head]], len(job.train))
            drawn = [batch for epoch in range(draws) for batch in batches.epoch(epoch)]
            own = {name: weight[[head]].detach() for name, weight in self.weights.items()}
            rows = [prepared(self.settings, own, batch.rows, self.zero_MD[[head]]) for batch in drawn]
            labels_B = torch.cat([batch.labels_MB[0] for batch in drawn])
            solved = self._solved(joined(rows), labels_B, job.penalty, draws)
            for name, value in solved.items():
                self.weights[name].data[head] = value
            # As they lie on the device; a solver may have worked on the CPU.
            own = {name: weight[[head]].detach() for name, weight in self.weights.items()}
            self.histories[head].train_loss.append(self._training_loss(own, drawn, head))
        self.finish(self.weights)
        self.validate(0)

    def finish(self, weights: Weights) -> None:
        """Fit, in place, what late fusion takes from validation clips once its heads are trained or solved."""
        if self.kind.reliable is None:
            return
        for head, job in enumerate(self.jobs):
            own = {name: weight[[head]].detach() for name, weight in weights.items()}
            how = (self.mean_MD[head], self.scale_MD[head], self.zero_MD[head])
            for name, value in Finisher(self.settings, self.cached, job, own, *how).fitted().items():
                weights[name].data[head] = value

    def fitted(self) -> list[Fitted]:
        """The heads as they were at their best."""
        return [self._fitted(head) for head in range(len(self.jobs))]

    def _train(self, epoch: int, batches: int | None) -> None:
        self.streams.begin(epoch)
        total_M = torch.zeros(len(self.jobs), device=self.device)
        for batch in itertools.islice(self.batches.epoch(epoch), batches):
            heads = len(batch.labels_MB)
            weights = self.weights if heads == len(self.jobs) else self.weights.first(heads)
            outputs = forward(self.settings, weights, batch.rows, self.zero_MD[:heads], self._drop)
            sum_M, slope_MBKC = loss_and_slope(outputs.taught_MBKC.detach(), batch, self.targets_MCC[:heads])
            gradients = torch.autograd.grad(
                outputs.taught_MBKC, list(weights.values()), slope_MBKC, materialize_grads=True
            )
            self.adamw.step(gradients, heads)
            total_M[:heads] += sum_M
        self._record_losses(epoch, total_M / self.clips_M)

    def _fitted(self, head: int) -> Fitted:
        weights = {name: weight[head].cpu().clone() for name, weight in self.best.items()}
        settings = replace(self.settings, dropout=self.jobs[head].dropout)
        return Fitted(FusionModel(settings, weights, self.standardisers[head]).eval(), self.histories[head])

    def _solved(self, rows: Rows, labels_B: Tensor, penalty: Penalty, draws: int) -> Weights:
        """One head in closed form, or one for each modality."""
        if self.kind.reliable is not None:
            return solve_each(self.kind, self.settings.shape, rows, labels_B, penalty, draws)
        assert self.kind.solve is not None
        return self.kind.solve(rows.values_MBD[0], labels_B, self.settings.classes, penalty, draws)

    def _drop(self, values_MBx: Tensor) -> Tensor:
        """Dropout, each head with its own probability."""
        if not self.drops:
            return values_MBx
        heads, *shape = values_MBx.shape
        chance, scale = (one_M[:heads].view(heads, *[1] * len(shape)) for one_M in (self.dropout_M, self.kept_M))
        return values_MBx * ((self.streams.uniform("dropout", heads, *shape) >= chance) * scale)

    def _record_losses(self, epoch: int, loss_M: Tensor) -> None:
        for history, loss in zip(self.histories, loss_M.tolist(), strict=True):
            if history.diverged is None and math.isfinite(loss):
                history.train_loss.append(loss)
            elif history.diverged is None:
                history.diverged = epoch

    def _training_loss(self, weights: Weights, drawn: Sequence[StackBatch], head: int) -> float:
        total, clips = 0.0, 0
        unsmoothed_1CC = targets(torch.zeros(1, device=self.device), self.settings.classes)
        for batch in drawn:
            outputs = forward(self.settings, weights, batch.rows, self.zero_MD[[head]], lambda values: values)
            total += losses(outputs.taught_MBKC, batch, unsmoothed_1CC).sum().item()
            clips += batch.labels_MB.numel()
        return total / clips


def joined(rows: Sequence[Rows]) -> Rows:
    """Batches one after the other."""
    absent = [one.absent_MBm for one in rows if one.absent_MBm is not None]
    return Rows(torch.cat([one.values_MBD for one in rows], dim=1), torch.cat(absent, dim=1) if absent else None)


def targets(smoothing_M: Tensor, classes: int) -> Tensor:
    """What the probabilities of a clip of each class should be, (M, C, C), under each head's label smoothing."""
    smoothing_M11 = smoothing_M[:, None, None]
    return (1 - smoothing_M11) * torch.eye(classes, device=smoothing_M.device) + smoothing_M11 / classes


def losses(taught_MBKC: Tensor, batch: StackBatch, targets_MCC: Tensor) -> Tensor:
    """Cross-entropy of each clip, (M, B), averaged over the logits that are taught; of mixtures, mixed as they are."""
    return _cross_entropy(taught_MBKC.log_softmax(-1), _of_clips(targets_MCC, batch))


def loss_and_slope(taught_MBKC: Tensor, batch: StackBatch, targets_MCC: Tensor) -> tuple[Tensor, Tensor]:
    """Each head's sum of `losses` over its batch, (M,), and the derivative of its mean by `taught_MBKC`.

    Softmax minus target (Bishop 2006, eq. 4.109): the chain of small operations that autograd would go back through
    takes longer than the products of a small head.
    """
    target_MBC = _of_clips(targets_MCC, batch)
    log_MBKC = taught_MBKC.log_softmax(-1)
    share_MB = batch.weight_MB / (batch.weight_MB.sum(1, keepdim=True) * taught_MBKC.shape[2])
    slope_MBKC = log_MBKC.exp().sub_(target_MBC[:, :, None]).mul_(share_MB[:, :, None, None])
    return (_cross_entropy(log_MBKC, target_MBC) * batch.weight_MB).sum(1), slope_MBKC


def _cross_entropy(log_MBKC: Tensor, target_MBC: Tensor) -> Tensor:
    return (log_MBKC * target_MBC[:, :, None]).sum((2, 3)) / -log_MBKC.shape[2]


def _of_clips(targets_MCC: Tensor, batch: StackBatch) -> Tensor:
    """The target of each clip, (M, B, C); they sum to 1."""
    each_M1 = torch.arange(len(targets_MCC), device=targets_MCC.device)[:, None]
    target_MBC = targets_MCC[each_M1, batch.labels_MB]
    if batch.partner_labels_MB is None or batch.share_M is None:
        return target_MBC
    share_M11 = batch.share_M[:, None, None]
    return share_M11 * target_MBC + (1 - share_M11) * targets_MCC[each_M1, batch.partner_labels_MB]
