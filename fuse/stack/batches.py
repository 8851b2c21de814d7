"""The batches of M heads: each head's own clips, variants, absences and mixtures, drawn from its own streams.

Shape letters: M heads, B clips of a batch, D width, m modalities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from fuse.model.fusion import standardise
from fuse.model.heads.base import Rows
from fuse.stack.job import Job
from fuse.stack.rows import CachedRows
from fuse.stack.streams import Streams


@dataclass(frozen=True)
class StackBatch:
    """A batch for each of the first so many heads.

    Attributes:
        rows: standardised.
        weight_MB: 1, or 0 for the rows that fill up the last batch of an epoch.
        partner_labels_MB, share_M: of mixtures: a row is `share` of its clip and the rest of its partner.
    """

    rows: Rows
    labels_MB: Tensor
    weight_MB: Tensor
    partner_labels_MB: Tensor | None = None
    share_M: Tensor | None = None

    def spread(self, place: Sequence[int]) -> StackBatch:
        """A batch for as many heads as there are places: each head's is the one of that number."""
        heads = len(self.labels_MB)
        if list(place) == list(range(heads)):
            return self

        def each(values: Tensor) -> Tensor:
            return values.expand(len(place), *values.shape[1:]) if heads == 1 else values[list(place)]

        absent_MBm, partners_MB, share_M = self.rows.absent_MBm, self.partner_labels_MB, self.share_M
        return StackBatch(
            Rows(each(self.rows.values_MBD), None if absent_MBm is None else each(absent_MBm)),
            each(self.labels_MB),
            each(self.weight_MB),
            None if partners_MB is None else each(partners_MB),
            None if share_M is None else each(share_M),
        )


def rows_of(job: Job) -> tuple[object, ...]:
    """What a head's batches follow from: heads that have it in common see the same rows."""
    return (job.train, job.seed, job.standardise, job.augment, job.modality_dropout, job.mixup)


def column(jobs: Sequence[Job], setting: Callable[[Job], float], device: torch.device) -> Tensor:
    """One setting of every job, (M,)."""
    return torch.tensor([setting(job) for job in jobs], dtype=torch.float32, device=device)


class StackLoader:
    """Draws batches. Heads with more training clips come first: those still at work are always the first so many.

    Heads that are to see the same rows, for they differ in learning rate, weight decay and the like alone, are given
    the same: rows are fetched and drawn once for them. Where all heads of a stack are alike, their rows lie in memory
    once (stride 0), which `fuse.model.heads.layer` makes use of.
    """

    def __init__(
        self, cached: CachedRows, jobs: Sequence[Job], mean_MD: Tensor, scale_MD: Tensor, batch_size: int
    ) -> None:
        """`mean_MD`, `scale_MD`: how each head's rows are standardised."""
        self.cached, self.batch_size = cached, batch_size
        self.device = cached.rows_ND.device
        self.steps_M = [-(-len(job.train) // batch_size) for job in jobs]
        assert self.steps_M == sorted(self.steps_M, reverse=True)
        # From here on "heads" are those that see rows of their own: the first of those that are alike.
        first = {rows_of(job): head for head, job in reversed(list(enumerate(jobs)))}
        chosen = sorted(first.values())
        number = {rows_of(jobs[head]): place for place, head in enumerate(chosen)}
        self._place = [number[rows_of(job)] for job in jobs]
        self.jobs = [jobs[head] for head in chosen]
        self.mean_M1D, self.scale_M1D = mean_MD[chosen][:, None], scale_MD[chosen][:, None]
        self.streams = Streams([job.seed for job in self.jobs], self.device)
        self._train = [torch.tensor(job.train) for job in self.jobs]

    def epoch(self, number: int) -> Iterator[StackBatch]:
        """The batches of an epoch; later ones may be of fewer heads."""
        self.streams.begin(number)
        index_MN, weight_MN = self._order()
        for step in range(self.steps_M[0]):
            place = self._place[: sum(steps > step for steps in self.steps_M)]
            part = slice(step * self.batch_size, (step + 1) * self.batch_size)
            different = max(place) + 1
            yield self._batch(index_MN[:different, part], weight_MN[:different, part]).spread(place)

    def _column(self, setting: Callable[[Job], float], *trailing: int) -> Tensor:
        return column(self.jobs, setting, self.device).reshape(-1, *trailing)

    def _order(self) -> tuple[Tensor, Tensor]:
        """Row numbers of all batches one after the other, and their weights; of fixed length."""
        index_MN = torch.zeros(len(self.jobs), self.steps_M[0] * self.batch_size, dtype=torch.int64)
        weight_MN = torch.zeros(index_MN.shape)
        orders: dict[tuple[int, int], Tensor] = {}
        for head, (job, train) in enumerate(zip(self.jobs, self._train, strict=True)):
            key = (job.seed, len(train))
            if key not in orders:
                orders[key] = self.streams.order(*key)
            index_MN[head, : len(train)] = train[orders[key]]
            weight_MN[head, : len(train)] = 1
        return index_MN.to(self.device), weight_MN.to(self.device)

    def _batch(self, index_MB: Tensor, weight_MB: Tensor) -> StackBatch:
        heads = len(index_MB)
        raw_MBD, absent_MBm = self.cached.take(index_MB)
        for signal in self.cached.variants:
            which_MB = self._which(signal, heads, index_MB.shape[1])
            self.cached.put_variants(signal, raw_MBD, absent_MBm, index_MB, which_MB)
        absent_MBm = self._withhold(absent_MBm, heads, index_MB.shape[1])
        values_MBD = standardise(raw_MBD, self.mean_M1D[:heads], self.scale_M1D[:heads], out=raw_MBD)
        batch = StackBatch(Rows(values_MBD, absent_MBm), self.cached.labels_N[index_MB], weight_MB)
        return self._mixed(batch) if any(job.mixup for job in self.jobs) else batch

    def _which(self, signal: str, heads: int, clips: int) -> Tensor:
        """Which variant of a signal each clip is drawn from; -1: none."""
        taken_MB = self.streams.uniform("variants", heads, clips) < self._column(lambda job: job.augment, 1)[:heads]
        share_MB = self.streams.uniform("variants", heads, clips)
        which_MB = (share_MB * self.cached.variant_count(signal)).long()
        return torch.where(taken_MB, which_MB, -1)

    def _withhold(self, absent_MBm: Tensor | None, heads: int, clips: int) -> Tensor | None:
        if not any(job.modality_dropout for job in self.jobs):
            return absent_MBm
        drawn_MBm = self.streams.uniform("absences", heads, clips, len(self.cached.widths))
        given_MBm = torch.ones_like(drawn_MBm, dtype=torch.bool) if absent_MBm is None else ~absent_MBm
        kept_MBm = given_MBm & (drawn_MBm >= self._column(lambda job: job.modality_dropout, 1, 1)[:heads])
        last_MBm = one_hot(drawn_MBm.masked_fill(~given_MBm, -1).argmax(2), len(self.cached.widths)).bool()
        return ~(kept_MBm | (~kept_MBm.any(2, keepdim=True) & last_MBm & given_MBm))

    def _mixed(self, batch: StackBatch) -> StackBatch:
        values_MBD = batch.rows.values_MBD
        heads, clips, width = values_MBD.shape
        share_M = self.streams.beta([job.mixup for job in self.jobs], heads)
        # Rows that fill up a batch come last and stay among themselves.
        drawn_MB = self.streams.uniform("mixup", heads, clips).masked_fill(batch.weight_MB == 0, 2.0)
        own_MB = torch.arange(clips, device=self.device).expand(heads, clips)
        partner_MB = torch.where(
            self._column(lambda job: job.mixup, 1)[:heads] > 0, drawn_MB.argsort(dim=1, stable=True), own_MB
        )
        other_MBD = values_MBD.gather(1, partner_MB[..., None].expand(heads, clips, width))
        share_M11 = share_M[:, None, None]
        absent_MBm = batch.rows.absent_MBm
        if absent_MBm is not None:
            absent_MBm = absent_MBm | absent_MBm.gather(1, partner_MB[..., None].expand(absent_MBm.shape))
        return StackBatch(
            Rows(share_M11 * values_MBD + (1 - share_M11) * other_MBD, absent_MBm),
            batch.labels_MB,
            batch.weight_MB,
            batch.labels_MB.gather(1, partner_MB),
            share_M,
        )
