"""Scoring a stack of heads on their validation clips.

Shape letters: M heads, n validation clips of a fold, D width, m modalities, C classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from fuse.model.fusion import ModelSettings, forward, standardise
from fuse.model.heads.base import Rows
from fuse.model.heads.layer import Weights
from fuse.stack.job import Job
from fuse.stack.rows import CachedRows

# Heads of one fold share its rows; more of them at once would only fall out of cache.
HEADS_AT_ONCE = 16


@dataclass(frozen=True)
class _Share:
    """Neighbours in the stack that have one fold, and its validation clips, standardised."""

    heads: slice
    values_nD: Tensor
    absent_nm: Tensor | None
    labels_n: Tensor


class HeldOut:
    """The validation clips of M heads; heads of one fold stand side by side."""

    def __init__(self, cached: CachedRows, jobs: Sequence[Job], mean_MD: Tensor, scale_MD: Tensor) -> None:
        """`mean_MD`, `scale_MD`: how each head's rows are standardised."""
        self._shares: list[_Share] = []
        start = 0
        for _, same in itertools.groupby(jobs, key=lambda job: (job.train, job.validation, job.standardise)):
            several = list(same)
            index_n = torch.tensor(several[0].validation, device=cached.rows_ND.device)
            raw_nD, absent_nm = cached.take(index_n)
            values_nD = standardise(raw_nD, mean_MD[start], scale_MD[start])
            for first in range(start, start + len(several), HEADS_AT_ONCE):
                heads = slice(first, min(first + HEADS_AT_ONCE, start + len(several)))
                self._shares.append(_Share(heads, values_nD, absent_nm, cached.labels_N[index_n]))
            start += len(several)

    @torch.no_grad()
    def scores(self, settings: ModelSettings, weights: Weights, zero_MD: Tensor) -> Iterator[tuple[float, float]]:
        """UAR and cross-entropy of each head, in order."""
        for share in self._shares:
            own = {name: weight[share.heads] for name, weight in weights.items()}
            count = share.heads.stop - share.heads.start
            absent = share.absent_nm
            rows = Rows(
                share.values_nD.expand(count, *share.values_nD.shape),
                None if absent is None else absent.expand(count, *absent.shape),
            )
            logits_MnC = forward(settings, own, rows, zero_MD[share.heads], _keep).logits_MBC
            uar_M, loss_M = _uar(logits_MnC, share.labels_n), _loss(logits_MnC, share.labels_n)
            yield from zip(uar_M.tolist(), loss_M.tolist(), strict=True)


def _keep(values: Tensor) -> Tensor:
    return values


def _loss(logits_MnC: Tensor, labels_n: Tensor) -> Tensor:
    labels_Mn = labels_n.expand(len(logits_MnC), -1)
    return cross_entropy(logits_MnC.transpose(1, 2), labels_Mn, reduction="none").mean(1)


def _uar(logits_MnC: Tensor, labels_n: Tensor) -> Tensor:
    """As `fuse.scores.metrics.uar`, of every head at once."""
    clips_nC = one_hot(labels_n, logits_MnC.shape[2]).double()
    right_Mn = (logits_MnC.argmax(2) == labels_n).double()
    clips_C = clips_nC.sum(0)
    recall_MC = (right_Mn @ clips_nC)[:, clips_C > 0] / clips_C[clips_C > 0]
    return recall_MC.mean(1)
