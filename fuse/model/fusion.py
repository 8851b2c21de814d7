"""What a run saves and everything later loads: standardiser, what stands for absent modalities, layer mix and head.

The same functions serve one head (`FusionModel`) and a stack of M in training (`fuse.stack.stack`).
Shape letters: M heads of the stack, B clips, L layers, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from cache.features.table import FeatureTable
from configs.schema.fusion import FusionConfig
from fuse.model.heads.base import Drop, Outputs, Rows, Shape
from fuse.model.heads.catalogue import DEFAULT_UNIMODAL, WEIGHTED, find_head
from fuse.model.heads.layer import Weights

SMALLEST_SCALE = 1e-6
COLUMNS_AT_ONCE = 64


@dataclass(frozen=True)
class ModelSettings:
    """Everything that a model's weights are shaped by; plain values only.

    Attributes:
        head: a key of `fuse.model.heads.catalogue.HEADS`.
        widths: modality to the width of its raw rows, in the order of concatenation.
        classes: how many labels there are; a prediction is one of them by its number.
        hidden: width of the hidden layer.
        dropout: probability with which a hidden unit is dropped in training.
        mixed: modality to the number of layers that stand side by side in its rows and are mixed by learned weights.
        missing: what stands for an absent modality: the training `mean`, a row of raw `zero`s, or a `learned` row.
        unimodal: of `late-calibrated` and `late-reliable`, the kind of each modality's own head.
    """

    head: str
    widths: Mapping[str, int]
    classes: int
    hidden: int = 256
    dropout: float = 0.1
    mixed: Mapping[str, int] = field(default_factory=dict)
    missing: str = "mean"
    unimodal: str = DEFAULT_UNIMODAL

    @classmethod
    def of(cls, config: FusionConfig, table: FeatureTable) -> ModelSettings:
        """What the heads of a configuration are shaped by, on the features of a table.

        Raises:
            ValueError: the head is solved, and something is to be learned beside it.
        """
        _refuse_to_learn_beside(config, table)
        return cls(
            head=config.head,
            widths={name: values.shape[1] for name, values in table.features.items()},
            classes=len(table.label_names),
            hidden=config.hidden,
            dropout=config.dropout,
            mixed=dict(table.mixed),
            missing=config.missing,
            unimodal=config.unimodal,
        )

    def __post_init__(self) -> None:
        """Refuse a head that there is not, a width that it cannot have, and a choice among less than two labels."""
        if self.classes < 2:
            raise ValueError(f"a head needs at least two labels to choose among, not {self.classes}; see the corpus")
        find_head(self.head, self.hidden, self.unimodal)

    @property
    def shape(self) -> Shape:
        """What the head sees: after the layers are mixed."""
        return Shape(
            {name: width // self.mixed.get(name, 1) for name, width in self.widths.items()}, self.hidden, self.classes
        )

    @property
    def raw(self) -> Shape:
        """What the standardiser sees."""
        return Shape(self.widths, self.hidden, self.classes)


def _refuse_to_learn_beside(config: FusionConfig, table: FeatureTable) -> None:
    """Without gradients all layers keep equal shares, and the row that stands for what is missing stays the mean."""
    if find_head(config.head, config.hidden, config.unimodal).solve is None:
        return
    solved = f"{config.head} (unimodal={config.unimodal})" if config.head in WEIGHTED else config.head
    trained = "unimodal=mlp" if config.head in WEIGHTED else "head=mlp"
    why = f"is learned by gradient descent, and {solved} is solved without any"
    if table.mixed:
        raise ValueError(
            f"layers=mix {why}; choose mean, layers side by side such as 2+3+4, or a head that is trained: {trained}"
        )
    if config.missing == "learned":
        raise ValueError(f"missing=learned {why}; choose mean or zero, or a head that is trained: {trained}")


def draw_weights(settings: ModelSettings, seed: int) -> Weights:
    """The starting weights of one model; they depend on the seed alone, not on torch's global generator."""
    generator = torch.Generator().manual_seed(seed)
    weights = find_head(settings.head, settings.hidden, settings.unimodal).draw(settings.shape, generator)
    # As in SUPERB (Yang et al. 2021, arXiv 2105.01051, section 2.3): a softmax over layers, equal at the start.
    weights |= {f"{name}_layers": torch.zeros(layers) for name, layers in settings.mixed.items()}
    if settings.missing == "learned":
        weights["missing"] = torch.zeros(settings.raw.width)
    return weights


def standardise(raw_BD: Tensor, mean_D: Tensor, scale_D: Tensor, out: Tensor | None = None) -> Tensor:
    """One expression for training and use, so that both give the same bits; `out` may be the rows themselves."""
    return torch.sub(raw_BD, mean_D, out=out).div_(scale_D)


def forward(settings: ModelSettings, weights: Weights, rows: Rows, zero_MD: Tensor, drop: Drop) -> Outputs:
    """M heads on M batches.

    Args:
        rows: standardised rows; anything finite where a modality is absent.
        zero_MD: a raw row of zeros, standardised.
        drop: dropout, or the identity.
    """
    head = find_head(settings.head, settings.hidden, settings.unimodal)
    return head.forward(weights, settings.shape, prepared(settings, weights, rows, zero_MD), drop)


def prepared(settings: ModelSettings, weights: Weights, rows: Rows, zero_MD: Tensor) -> Rows:
    """What the head itself sees: absent modalities filled in, layers mixed."""
    values_MBD = rows.values_MBD
    if rows.absent_MBm is not None:
        values_MBD = _fill(settings, weights, values_MBD, rows.absent_MBm, zero_MD)
    if settings.mixed:
        values_MBD = _mix(settings, weights, values_MBD)
    return replace(rows, values_MBD=values_MBD)


def _fill(settings: ModelSettings, weights: Weights, values_MBD: Tensor, absent_MBm: Tensor, zero_MD: Tensor) -> Tensor:
    widths = torch.tensor(list(settings.widths.values()), device=values_MBD.device)
    absent_MBD = absent_MBm.repeat_interleave(widths, dim=2, output_size=values_MBD.shape[2])
    if settings.missing == "mean":
        return values_MBD.masked_fill(absent_MBD, 0.0)
    stand_in_MD = weights["missing"] if settings.missing == "learned" else zero_MD
    return torch.where(absent_MBD, stand_in_MD[:, None], values_MBD)


def _mix(settings: ModelSettings, weights: Weights, values_MBD: Tensor) -> Tensor:
    parts = []
    for name, columns in settings.raw.columns.items():
        part = values_MBD[:, :, columns]
        if name in settings.mixed:
            share_ML = weights[f"{name}_layers"].softmax(1)
            layers_MBLD = part.reshape(*part.shape[:2], settings.mixed[name], -1)
            part = (layers_MBLD * share_ML[:, None, :, None]).sum(2)
        parts.append(part)
    return torch.cat(parts, dim=2)


class Standardiser(nn.Module):
    """Mean and SD of the training speakers, kept inside the checkpoint."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        """Identity until `fit`."""
        super().__init__()
        # A ParameterDict sorts its names; the columns do not.
        self.names = tuple(widths)
        self.mean_ = nn.ParameterDict({name: nn.Parameter(torch.zeros(w), False) for name, w in widths.items()})
        self.scale_ = nn.ParameterDict({name: nn.Parameter(torch.ones(w), False) for name, w in widths.items()})

    def fit(self, rows: Mapping[str, Tensor]) -> Standardiser:
        """Learn from the training speakers' rows (B, width); NaN rows are absent and do not count."""
        for name, values in rows.items():
            seen = values[torch.isfinite(values).all(dim=1)]
            if not len(seen):
                raise ValueError(f"no training clip has {name}; leave it out of modalities")
            for start in range(0, seen.shape[1], COLUMNS_AT_ONCE):
                # As float64, all columns of a large corpus would take twice their room.
                columns = slice(start, start + COLUMNS_AT_ONCE)
                exact = seen[:, columns].double()
                self.mean_[name].data[columns] = exact.mean(0).float()
                self.scale_[name].data[columns] = exact.std(0, unbiased=False).clamp_min(SMALLEST_SCALE).float()
        return self

    def side_by_side(self) -> tuple[Tensor, Tensor]:
        """Mean and SD, (D,) each, of all modalities."""
        mean_D, scale_D = (torch.cat([one[name] for name in self.names]) for one in (self.mean_, self.scale_))
        return mean_D, scale_D


class FusionModel(nn.Module):
    """One trained model: raw features in, logits out."""

    def __init__(
        self, settings: ModelSettings, weights: Weights | None = None, standardiser: Standardiser | None = None
    ) -> None:
        """Without weights those of seed 0; without a standardiser the identity."""
        super().__init__()
        self.settings = settings
        self.standardiser = standardiser or Standardiser(settings.widths)
        drawn = draw_weights(settings, 0) if weights is None else weights
        self.weights = nn.ParameterDict({name: nn.Parameter(weight) for name, weight in drawn.items()})

    @property
    def widths(self) -> Mapping[str, int]:
        """Modality to the width of its raw rows."""
        return self.settings.widths

    def forward(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Modality to raw features (B, width), NaN where absent; returns logits_BC."""
        return self.outputs(rows).logits_MBC[0]

    def fused(self, rows: Mapping[str, Tensor]) -> Tensor:
        """What the last layer sees of all modalities together, (B, hidden) for most heads."""
        return self.outputs(rows).fused_MBH[0]

    def outputs(self, rows: Mapping[str, Tensor]) -> Outputs:
        """The head's whole output for M = 1: the decision, and the logits that learn."""
        raw_BD = torch.cat([rows[name] for name in self.widths], dim=1)
        mean_D, scale_D = self.standardiser.side_by_side()
        absent_Bm = torch.stack([torch.isnan(rows[name]).any(1) for name in self.widths], dim=1)
        values_BD = torch.nan_to_num(standardise(raw_BD, mean_D, scale_D))
        zero_D = standardise(torch.zeros_like(mean_D), mean_D, scale_D)
        weights = {name: weight[None] for name, weight in self.weights.items()}
        batch = Rows(values_BD[None], absent_Bm[None])
        return forward(self.settings, weights, batch, zero_D[None], self._drop)

    def _drop(self, values: Tensor) -> Tensor:
        return dropout(values, self.settings.dropout, self.training)


def plain_settings(settings: ModelSettings) -> dict[str, Any]:
    """As a checkpoint holds them."""
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in asdict(settings).items()}
