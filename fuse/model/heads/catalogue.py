"""Fusion heads: from the rows of all modalities to eight logits, M heads at once.

Shape letters: M heads of the stack, B clips, H hidden, K logits that are taught side by side, C classes.
"""

from __future__ import annotations

import difflib

import torch
from torch import Tensor
from torch.nn.functional import gelu

from fuse.model.heads.base import (
    CLASSES,
    Drop,
    Head,
    Outputs,
    Rows,
    Shape,
    decided,
    draw_probe,
    probe,
    undropped_probe,
)
from fuse.model.heads.discriminant import solve_discriminant
from fuse.model.heads.layer import Weights, draw_linear, linear
from fuse.model.heads.logistic import solve_logistic
from fuse.model.heads.transformer import ATTENTION_HEADS, draw_transformer, transformer


def draw_mlp(shape: Shape, generator: torch.Generator) -> Weights:
    """The head of the default recipe: concatenation, one hidden layer, the classes."""
    first = draw_linear("hidden", shape.width, shape.hidden, generator)
    return first | draw_linear("out", shape.hidden, CLASSES, generator)


def mlp(weights: Weights, shape: Shape, rows: Rows, drop: Drop) -> Outputs:
    """GELU between the layers, dropout before the last."""
    del shape
    hidden_MBH = gelu(linear(weights, "hidden", rows.values_MBD))
    return decided(linear(weights, "out", drop(hidden_MBH)), hidden_MBH)


def draw_gated(shape: Shape, generator: torch.Generator) -> Weights:
    """Gated multimodal unit (Arevalo et al. 2017, arXiv 1702.01992, section 3.1, more than two modalities)."""
    weights: Weights = {}
    for name, width in shape.widths.items():
        weights |= draw_linear(f"{name}_hidden", width, shape.hidden, generator)
        weights |= draw_linear(f"{name}_gate", shape.width, shape.hidden, generator)
    return weights | draw_linear("out", shape.hidden, CLASSES, generator)


def gated(weights: Weights, shape: Shape, rows: Rows, drop: Drop) -> Outputs:
    """Each modality's hidden units, each let through by a gate that sees all modalities, are added up."""
    units = []
    for name, columns in shape.columns.items():
        gate_MBH = torch.sigmoid(linear(weights, f"{name}_gate", rows.values_MBD))
        units.append(gate_MBH * torch.tanh(linear(weights, f"{name}_hidden", rows.values_MBD[:, :, columns])))
    fused_MBH = torch.stack(units).sum(0)
    return decided(linear(weights, "out", drop(fused_MBH)), fused_MBH)


RANK = 4


def draw_low_rank(shape: Shape, generator: torch.Generator) -> Weights:
    """Low-rank tensor fusion (Liu et al. 2018, arXiv 1806.00064, eq. 7), rank 4, on a hidden layer per modality.

    The factors' biases are the paper's appended 1s. They start at 1 and not at random, so that a modality which
    has not learned yet does not silence the product.
    """
    weights: Weights = {}
    for name, width in shape.widths.items():
        weights |= draw_linear(f"{name}_hidden", width, shape.hidden, generator)
        weights |= draw_linear(f"{name}_factor", shape.hidden, RANK * shape.hidden, generator)
        weights[f"{name}_factor_bias"] = torch.ones(RANK * shape.hidden)
    return weights | draw_linear("out", shape.hidden, CLASSES, generator)


def low_rank(weights: Weights, shape: Shape, rows: Rows, drop: Drop) -> Outputs:
    """The factors of the modalities are multiplied and the ranks averaged."""
    product = torch.ones((), device=rows.values_MBD.device)
    for name, columns in shape.columns.items():
        hidden_MBH = drop(gelu(linear(weights, f"{name}_hidden", rows.values_MBD[:, :, columns])))
        product = product * linear(weights, f"{name}_factor", hidden_MBH)
    fused_MBH = product.reshape(*product.shape[:2], RANK, shape.hidden).mean(2)
    return decided(linear(weights, "out", fused_MBH), fused_MBH)


def draw_late(shape: Shape, generator: torch.Generator) -> Weights:
    """The default recipe's head for each modality by itself."""
    weights: Weights = {}
    for name, width in shape.widths.items():
        weights |= draw_linear(f"{name}_hidden", width, shape.hidden, generator)
        weights |= draw_linear(f"{name}_out", shape.hidden, CLASSES, generator)
    return weights


def late_average(weights: Weights, shape: Shape, rows: Rows, drop: Drop) -> Outputs:
    """Late fusion: each modality learns alone; the logits of those that a clip has are averaged."""
    own_MBKC, hidden = _unimodal(weights, shape, rows, drop)
    return Outputs(_average(own_MBKC, rows.absent_MBm), own_MBKC, hidden)


def draw_late_learned(shape: Shape, generator: torch.Generator) -> Weights:
    """As late fusion by averages, and one layer over all logits (stacking: Wolpert, Neural Networks 5(2), 1992).

    That layer starts as the average: from random weights it needed more steps than twenty epochs have.
    """
    average = torch.eye(CLASSES).repeat(1, len(shape.widths)) / len(shape.widths)
    return draw_late(shape, generator) | {"joined_weight": average, "joined_bias": torch.zeros(CLASSES)}


def late_learned(weights: Weights, shape: Shape, rows: Rows, drop: Drop) -> Outputs:
    """Late fusion by a layer that learns from the modalities' logits, and teaches them nothing."""
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


def _average(own_MBKC: Tensor, absent_MBm: Tensor | None) -> Tensor:
    if absent_MBm is None:
        return own_MBKC.mean(2)
    # A clip without any modality still gets a decision: what each head says of nothing.
    given = (~absent_MBm | absent_MBm.all(2, keepdim=True)).to(own_MBKC.dtype)[..., None]
    return (own_MBKC * given).sum(2) / given.sum(2)


HEADS: dict[str, Head] = {
    "mlp": Head(draw_mlp, mlp),
    "linear": Head(draw_probe, probe),
    "lda": Head(draw_probe, undropped_probe, solve_discriminant),
    "logistic": Head(draw_probe, undropped_probe, solve_logistic),
    "gated": Head(draw_gated, gated),
    "low-rank": Head(draw_low_rank, low_rank),
    "transformer": Head(draw_transformer, transformer, divides=ATTENTION_HEADS),
    "late-average": Head(draw_late, late_average),
    "late-learned": Head(draw_late_learned, late_learned),
}


def find_head(name: str, hidden: int) -> Head:
    """The head of that name.

    Raises:
        ValueError: no such head, with those there are; or a hidden width that it cannot have.
    """
    if name not in HEADS:
        close = difflib.get_close_matches(name, HEADS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(f"head: unknown head {name!r}{hint}; known: {', '.join(HEADS)}")
    head = HEADS[name]
    if hidden % head.divides:
        raise ValueError(f"hidden={hidden}: the head {name} needs a multiple of {head.divides}")
    return head
