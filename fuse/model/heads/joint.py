"""Heads that join the modalities before they decide: concatenation, gates, and a low-rank product.

Shape letters: M heads of the stack, B clips, H hidden.
"""

from __future__ import annotations

import torch
from torch.nn.functional import gelu

from fuse.model.heads.base import Drop, Outputs, Rows, Shape, decided
from fuse.model.heads.layer import Weights, draw_linear, linear

RANK = 4


def draw_mlp(shape: Shape, generator: torch.Generator) -> Weights:
    """The head of the default recipe: concatenation, one hidden layer, the classes."""
    first = draw_linear("hidden", shape.width, shape.hidden, generator)
    return first | draw_linear("out", shape.hidden, shape.classes, generator)


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
    return weights | draw_linear("out", shape.hidden, shape.classes, generator)


def gated(weights: Weights, shape: Shape, rows: Rows, drop: Drop) -> Outputs:
    """Each modality's hidden units, each let through by a gate that sees all modalities, are added up."""
    units = []
    for name, columns in shape.columns.items():
        gate_MBH = torch.sigmoid(linear(weights, f"{name}_gate", rows.values_MBD))
        units.append(gate_MBH * torch.tanh(linear(weights, f"{name}_hidden", rows.values_MBD[:, :, columns])))
    fused_MBH = torch.stack(units).sum(0)
    return decided(linear(weights, "out", drop(fused_MBH)), fused_MBH)


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
    return weights | draw_linear("out", shape.hidden, shape.classes, generator)


def low_rank(weights: Weights, shape: Shape, rows: Rows, drop: Drop) -> Outputs:
    """The factors of the modalities are multiplied and the ranks averaged."""
    product = torch.ones((), device=rows.values_MBD.device)
    for name, columns in shape.columns.items():
        hidden_MBH = drop(gelu(linear(weights, f"{name}_hidden", rows.values_MBD[:, :, columns])))
        product = product * linear(weights, f"{name}_factor", hidden_MBH)
    fused_MBH = product.reshape(*product.shape[:2], RANK, shape.hidden).mean(2)
    return decided(linear(weights, "out", fused_MBH), fused_MBH)
