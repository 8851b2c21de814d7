"""Late fusion: each modality decides by itself, and their decisions are joined.

Shape letters: M heads of the stack, B clips, H hidden, K logits that are taught side by side, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import gelu

from fuse.model.heads.base import Drop, Outputs, Rows, Shape
from fuse.model.heads.layer import Weights, draw_linear, linear


def draw_late(shape: Shape, generator: torch.Generator) -> Weights:
    """The default recipe's head for each modality by itself."""
    weights: Weights = {}
    for name, width in shape.widths.items():
        weights |= draw_linear(f"{name}_hidden", width, shape.hidden, generator)
        weights |= draw_linear(f"{name}_out", shape.hidden, shape.classes, generator)
    return weights


def late_average(weights: Weights, shape: Shape, rows: Rows, drop: Drop) -> Outputs:
    """Late fusion: each modality learns alone; the logits of those that a clip has are averaged."""
    own_MBKC, hidden = _unimodal(weights, shape, rows, drop)
    return Outputs(average_given(own_MBKC, rows.absent_MBm), own_MBKC, hidden)


def draw_late_learned(shape: Shape, generator: torch.Generator) -> Weights:
    """As late fusion by averages, and one layer over all logits (stacking: Wolpert, Neural Networks 5(2), 1992).

    That layer starts as the average: from random weights it needed more steps than twenty epochs have.
    """
    average = torch.eye(shape.classes).repeat(1, len(shape.widths)) / len(shape.widths)
    return draw_late(shape, generator) | {"joined_weight": average, "joined_bias": torch.zeros(shape.classes)}


def late_learned(weights: Weights, shape: Shape, rows: Rows, drop: Drop) -> Outputs:
    """Late fusion by a layer on the modalities' logits; no gradient flows from it into the modalities' heads."""
    own_MBKC, hidden = _unimodal(weights, shape, rows, drop)
    joined_MBC = linear(weights, "joined", own_MBKC.detach().flatten(2))
    return Outputs(joined_MBC, torch.cat([own_MBKC, joined_MBC[:, :, None]], dim=2), hidden)


def _unimodal(weights: Weights, shape: Shape, rows: Rows, drop: Drop) -> tuple[Tensor, Tensor]:
    """Logits (M, B, modality, C) and hidden units, side by side, of each modality's own head."""
    hidden = [
        gelu(linear(weights, f"{name}_hidden", rows.values_MBD[:, :, columns]))
        for name, columns in shape.columns.items()
    ]
    own = [linear(weights, f"{name}_out", drop(one)) for name, one in zip(shape.widths, hidden, strict=True)]
    return torch.stack(own, dim=2), torch.cat(hidden, dim=2)


def average_given(own_MBKC: Tensor, absent_MBm: Tensor | None) -> Tensor:
    """The mean over the modalities that a clip has."""
    if absent_MBm is None:
        return own_MBKC.mean(2)
    # A clip without any modality still gets a decision: the mean of all heads on their stand-in rows.
    given = (~absent_MBm | absent_MBm.all(2, keepdim=True)).to(own_MBKC.dtype)[..., None]
    return (own_MBKC * given).sum(2) / given.sum(2)
