"""A transformer over one token per modality: attention weighs the modalities.

After the encoder of Vaswani et al. 2017 (arXiv 1706.03762), layer norm first (Xiong et al. 2020, arXiv 2002.04745);
a learned token collects, as in BERT. One block is enough for at most a handful of tokens.

Shape letters: M heads of the stack, B clips, T tokens, H hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

from fuse.model.heads.base import Drop, Outputs, Rows, Shape, decided
from fuse.model.heads.layer import Weights, draw_linear, linear

ATTENTION_HEADS = 4
NORMS = ("before_attention", "before_hidden", "last")


def draw_transformer(shape: Shape, generator: torch.Generator) -> Weights:
    """A projection per modality, the collecting token, one block, the classes."""
    width = shape.hidden
    weights: Weights = {"collector": 0.02 * torch.randn(width, generator=generator)}
    for name, inputs in shape.widths.items():
        weights |= draw_linear(f"{name}_token", inputs, width, generator)
    for norm in NORMS:
        weights |= {f"{norm}_gain": torch.ones(width), f"{norm}_shift": torch.zeros(width)}
    for name, inputs, outputs in (
        ("attention", width, 3 * width),
        ("mixed", width, width),
        ("hidden", width, 2 * width),
        ("back", 2 * width, width),
        ("out", width, shape.classes),
    ):
        weights |= draw_linear(name, inputs, outputs, generator)
    # A bias of the keys changes nothing (a softmax ignores what is added to all), so that its gradient is rounding
    # noise, which AdamW would scale to full steps; without those of queries and values nothing is lost either.
    del weights["attention_bias"]
    return weights


def transformer(weights: Weights, shape: Shape, rows: Rows, drop: Drop) -> Outputs:
    """The collecting token after one block of attention over the modalities."""
    tokens = [
        linear(weights, f"{name}_token", rows.values_MBD[:, :, columns]) for name, columns in shape.columns.items()
    ]
    collector_MBH = weights["collector"][:, None].expand_as(tokens[0])
    tokens_MBTH = torch.stack([collector_MBH, *tokens], dim=2)
    tokens_MBTH = tokens_MBTH + drop(_attend(weights, _norm(weights, "before_attention", tokens_MBTH)))
    # Only the collecting token is read from here on.
    collected_MBH = tokens_MBTH[:, :, 0]
    hidden = gelu(linear(weights, "hidden", _norm(weights, "before_hidden", collected_MBH)))
    collected_MBH = collected_MBH + drop(linear(weights, "back", hidden))
    fused_MBH = _norm(weights, "last", collected_MBH)
    return decided(linear(weights, "out", fused_MBH), fused_MBH)


def _attend(weights: Weights, tokens_MBTH: Tensor) -> Tensor:
    heads, clips, count, width = tokens_MBTH.shape
    joined = linear(weights, "attention", tokens_MBTH.flatten(1, 2))
    # To (3, M x B, attention heads, T, width of one).
    parts = joined.reshape(heads * clips, count, 3, ATTENTION_HEADS, width // ATTENTION_HEADS).permute(2, 0, 3, 1, 4)
    mixed = scaled_dot_product_attention(parts[0], parts[1], parts[2]).transpose(1, 2)
    return linear(weights, "mixed", mixed.reshape(heads, clips * count, width)).reshape(tokens_MBTH.shape)


def _norm(weights: Weights, name: str, values: Tensor) -> Tensor:
    """Layer norm over H with each head's own gain and shift."""
    spread = (len(values), *[1] * (values.dim() - 2), values.shape[-1])
    gain, shift = (weights[f"{name}_{part}"].reshape(spread) for part in ("gain", "shift"))
    return layer_norm(values, values.shape[-1:]) * gain + shift
