"""What late fusion fits after training: each modality's temperature, and what its training rows look like.

Training rows and validation rows only, under `condition` and under every variant that training draws from.

Shape letters: B clips, D width, q directions, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fuse.model.fusion import ModelSettings, prepared, standardise
from fuse.model.heads.base import NEVER, Head, Rows
from fuse.model.heads.catalogue import HEADS, find_head
from fuse.model.heads.layer import Weights
from fuse.model.heads.reliable import FITTED, MOST_DIRECTIONS, distance_share, known_classes, own_logits
from fuse.stack.job import Job
from fuse.stack.rows import CachedRows

WITHIN = 0.9
LARGEST_LOG_TEMPERATURE = 5.0
SMALLEST_VARIANCE = 1e-6


@dataclass(frozen=True)
class _Part:
    """Some clips under one condition, as the head sees them; `given`: those that have a modality, by its name."""

    rows: Rows
    labels_B: Tensor
    share: float
    given: dict[str, Tensor]


@dataclass(frozen=True)
class Finisher:
    """Fits what `late-calibrated` and `late-reliable` take from validation clips, for one head of a stack.

    Attributes:
        weights: of this head, (1, ...) each, trained or solved.
        mean_D, scale_D, zero_D: how its rows are standardised, and a raw row of zeros, standardised.
    """

    settings: ModelSettings
    cached: CachedRows
    job: Job
    weights: Weights
    mean_D: Tensor
    scale_D: Tensor
    zero_D: Tensor

    @torch.no_grad()
    def fitted(self) -> Weights:
        """The values of all weights that are fitted here, without the leading 1."""
        head = find_head(self.settings.head, self.settings.hidden, self.settings.unimodal)
        found: Weights = {}
        for name in self.settings.widths:
            train, validation = (self._parts(rows, name) for rows in (self.job.train, self.job.validation))
            if head.solve is None:
                found |= self._forgotten(name, train)
            knowing = replace(self, weights=self.weights | {key: value[None] for key, value in found.items()})
            found[f"{name}{FITTED}log_temperature"] = knowing._log_temperature(name, validation)
            if head.reliable:
                found |= self._described(name, train, validation)
        return found

    def _parts(self, index: Sequence[int], modality: str) -> list[_Part]:
        """Clips as they are, and under every variant of the modality that training draws from."""
        drawn = [
            (signal, number)
            for signal, variants in self.cached.variants.items()
            if modality in variants and self.job.augment
            for number in range(self.cached.variant_count(signal))
        ]
        share = self.job.augment if drawn else 0.0
        chosen = [(None, 0, 1 - share), *((*one, share / len(drawn)) for one in drawn)]
        index_1B = torch.tensor(index, device=self.cached.rows_ND.device, dtype=torch.int64)[None]
        return [self._part(index_1B, *one) for one in chosen]

    def _part(self, index_1B: Tensor, signal: str | None, number: int, share: float) -> _Part:
        raw_1BD, absent_1Bm = self.cached.take(index_1B)
        if signal is not None:
            self.cached.put_variants(signal, raw_1BD, absent_1Bm, index_1B, torch.full_like(index_1B, number))
        given_1Bm = torch.ones(*index_1B.shape, len(self.settings.widths), dtype=torch.bool, device=index_1B.device)
        if absent_1Bm is not None:
            given_1Bm = ~absent_1Bm
        rows = Rows(standardise(raw_1BD, self.mean_D, self.scale_D), absent_1Bm)
        seen = prepared(self.settings, self.weights, rows, self.zero_D[None])
        given = {name: given_1Bm[0, :, place] for place, name in enumerate(self.settings.widths)}
        return _Part(seen, self.cached.labels_N[index_1B[0]], share, given)

    def _forgotten(self, name: str, train: Sequence[_Part]) -> Weights:
        """The last layer of a head that was trained, of classes that it has met no clip of as if it was solved."""
        seen = torch.cat([part.labels_B[part.given[name]] for part in train])
        met_C = torch.bincount(seen, minlength=self.settings.classes) > 0
        weight_CH, bias_C = (self.weights[f"{name}_out_{part}"][0] for part in ("weight", "bias"))
        return {
            f"{name}_out_weight": weight_CH.masked_fill(~met_C[:, None], 0.0),
            f"{name}_out_bias": bias_C.masked_fill(~met_C, NEVER),
        }

    def _log_temperature(self, name: str, validation: Sequence[_Part]) -> Tensor:
        """By log loss; 0 where nothing can be learned. Each clip counts the same, once under each condition."""
        unimodal: Head = HEADS[self.settings.unimodal]
        place = list(self.settings.widths).index(name)
        logits, labels = [], []
        for part in validation:
            outputs = own_logits(unimodal, self.weights, self.settings.shape, part.rows, lambda values: values)
            logits_BC = outputs[place].logits_MBC[0].double().cpu()
            labels_B, given_B = part.labels_B.cpu(), part.given[name].cpu()
            # Of a class that training lacks nothing can be learned about the others.
            known_B = known_classes(self.weights, name)[0].cpu()[labels_B]
            logits.append(logits_BC[given_B & known_B])
            labels.append(labels_B[given_B & known_B])
        logits_BC, labels_B = torch.cat(logits), torch.cat(labels)
        if not len(labels_B):
            return torch.zeros(())

        # Only then: every command would wait for scipy.
        from scipy.optimize import minimize_scalar

        def log_loss(log_temperature: float) -> float:
            return float(cross_entropy(logits_BC * torch.tensor(-log_temperature).double().exp(), labels_B))

        bounds = (-LARGEST_LOG_TEMPERATURE, LARGEST_LOG_TEMPERATURE)
        return torch.tensor(minimize_scalar(log_loss, bounds=bounds, method="bounded").x, dtype=torch.float32)

    def _described(self, name: str, train: Sequence[_Part], validation: Sequence[_Part]) -> Weights:
        """A Gaussian of the training rows, and the distances that most validation rows lie within, in one scale."""
        columns = self.settings.shape.columns[name]
        width = self.settings.shape.widths[name]
        mean_D, covariance_DD = _moments(list(_own_rows(train, name, columns)))
        variances, vectors = torch.linalg.eigh(covariance_DD)
        count = min(MOST_DIRECTIONS, width)
        variances_q, directions_qD = variances[-count:].clamp_min(SMALLEST_VARIANCE), vectors[:, -count:].T
        others = variances[:-count]
        rest = float(others.mean().clamp_min(SMALLEST_VARIANCE)) if len(others) else float(variances_q.min())
        described = {
            f"{name}{FITTED}mean": mean_D.float(),
            f"{name}{FITTED}directions": directions_qD.float().contiguous(),
            f"{name}{FITTED}gain": ((1 / variances_q - 1 / rest) / width).float(),
            f"{name}{FITTED}rest": torch.tensor(1 / rest / width, dtype=torch.float32, device=mean_D.device),
        }
        described[f"{name}{FITTED}plain"] = torch.zeros_like(described[f"{name}{FITTED}rest"])
        stacked = {key: value[None] for key, value in described.items()}
        held_out = torch.cat([rows_BD for rows_BD, _ in _own_rows(validation, name, columns)])
        rows_BD = held_out if len(held_out) else torch.cat([one for one, _ in _own_rows(train, name, columns)])
        limit = _usual(distance_share(stacked, name, rows_BD[None])[0].double())
        plain = 1 / _usual((rows_BD.double() - mean_D).square().sum(1))
        scaled = {
            f"{name}{FITTED}{part}": described[f"{name}{FITTED}{part}"] / limit.float() for part in ("gain", "rest")
        }
        return described | scaled | {f"{name}{FITTED}plain": plain.float()}


def _own_rows(parts: Sequence[_Part], name: str, columns: slice) -> Iterator[tuple[Tensor, float]]:
    """A modality's rows under each condition, and what share of the draws of training is of it."""
    for part in parts:
        yield part.rows.values_MBD[0, :, columns][part.given[name]], part.share


def _usual(squared_B: Tensor) -> Tensor:
    """The squared distance that most of these lie within."""
    return torch.quantile(squared_B, WITHIN).clamp_min(1e-12)


def _moments(rows: Sequence[tuple[Tensor, float]]) -> tuple[Tensor, Tensor]:
    """Mean and covariance of rows that count as often as training draws them."""
    weights_B = torch.cat([torch.full((len(one),), share / max(len(one), 1)) for one, share in rows])
    values_BD = torch.cat([one for one, _ in rows]).double()
    weights_B1 = (weights_B / weights_B.sum().clamp_min(1e-12)).double().to(values_BD.device)[:, None]
    mean_D = (values_BD * weights_B1).sum(0)
    centred_BD = values_BD - mean_D
    return mean_D, centred_BD.T @ (centred_BD * weights_B1)
