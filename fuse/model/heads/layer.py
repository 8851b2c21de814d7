"""The layer that heads are made of, for M heads at once, and the memory that its gradients are written to.

Shape letters: M heads of the stack, B clips, I inputs, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Weights = dict[str, Tensor]


class StackWeights(Weights):
    """Weights of M heads in training, (M, ...) each.

    The gradient of a layer is as large as the layer. Allocated anew in each step it costs page faults, a third of the
    step for 8 heads of 2304 x 512, so every layer keeps the memory of its gradient: valid until the next backward pass.
    """

    def __init__(self, weights: Weights, memory: Weights | None = None) -> None:
        """`memory`: for the gradient of each layer; allocated where it is not given."""
        super().__init__(weights)
        layers = {name: weight for name, weight in weights.items() if name.endswith("_weight")}
        self.memory = memory or {name: torch.empty_like(weight) for name, weight in layers.items()}

    @classmethod
    def of(cls, weights: Sequence[Weights], device: torch.device) -> StackWeights:
        """Single heads, one after the other."""
        stacked = {name: torch.stack([one[name] for one in weights]).to(device) for name in weights[0]}
        return cls({name: weight.requires_grad_() for name, weight in stacked.items()})

    def first(self, heads: int) -> StackWeights:
        """Views of the first so many heads."""
        return StackWeights(*({name: weight[:heads] for name, weight in one.items()} for one in (self, self.memory)))


def draw_linear(name: str, inputs: int, outputs: int, generator: torch.Generator) -> Weights:
    """One layer (O, I), drawn as torch.nn.Linear draws: uniform within 1 over the root of its inputs."""
    bound = 1 / math.sqrt(inputs)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator).mul_(2).sub_(1).mul_(bound)

    return {f"{name}_weight": uniform(inputs, outputs).T.contiguous(), f"{name}_bias": uniform(outputs)}


def linear(weights: Weights, name: str, rows_MBI: Tensor) -> Tensor:
    """Every head's layer of that name on its own batch, (M, B, I) to (M, B, O); with a bias if it has one."""
    memory = weights.memory.get(f"{name}_weight") if isinstance(weights, StackWeights) else None
    outputs: Tensor = _Linear.apply(rows_MBI, weights[f"{name}_weight"], weights.get(f"{name}_bias"), memory)  # type: ignore[no-untyped-call]
    return outputs


class _Linear(torch.autograd.Function):
    """As torch.nn.Linear and its derivative, in the orders of multiplying that are quickest for few rows.

    W x^T takes four fifths of the time of x W^T, and dy^T x, which lies as AdamW reads it, two thirds of x^T dy. Rows
    that all heads share are multiplied by all their weights at once.
    """

    @staticmethod
    def forward(
        ctx: Any, rows_MBI: Tensor, weight_MOI: Tensor, bias_MO: Tensor | None, memory: Tensor | None
    ) -> Tensor:
        """`memory`: where the gradient of the weight is written; a new place if None."""
        ctx.save_for_backward(rows_MBI, weight_MOI)
        ctx.memory = memory
        if _shared(rows_MBI):
            outputs_MOB = (weight_MOI.flatten(0, 1) @ rows_MBI[0].T).view(*weight_MOI.shape[:2], -1)
        else:
            outputs_MOB = torch.bmm(weight_MOI, rows_MBI.transpose(1, 2))
        if bias_MO is not None:
            outputs_MOB += bias_MO[:, :, None]
        return outputs_MOB.transpose(1, 2).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_MBO: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of rows, weight and bias, those that are asked for."""
        rows_MBI, weight_MOI = ctx.saved_tensors
        of_rows, of_weight, of_bias, _ = ctx.needs_input_grad
        return (
            torch.bmm(slope_MBO, weight_MOI) if of_rows else None,
            _of_weight(slope_MBO.transpose(1, 2), rows_MBI, ctx.memory) if of_weight else None,
            slope_MBO.sum(1) if of_bias else None,
            None,
        )


def _shared(rows_MBI: Tensor) -> bool:
    """Whether all heads see the same rows, which then lie in memory once."""
    return rows_MBI.shape[0] > 1 and rows_MBI.stride(0) == 0


def _of_weight(slope_MOB: Tensor, rows_MBI: Tensor, memory: Tensor | None) -> Tensor:
    """The gradient of a layer's weight, (M, O, I)."""
    if not _shared(rows_MBI):
        return torch.bmm(slope_MOB, rows_MBI, out=memory)
    place = None if memory is None else memory.flatten(0, 1)
    return torch.mm(slope_MOB.flatten(0, 1), rows_MBI[0], out=place).view(*slope_MOB.shape[:2], -1)
