"""What a fusion head is: functions of a stack of weights, M heads of one kind in one pass, a single head being M = 1.

A head is two functions: one draws the weights of one head, the other maps the weights of M heads and M batches to
logits. Nothing in a head mixes the M, so a head computes the same whatever heads it is stacked with.

Shape letters: M heads of the stack, B clips, D width of the concatenation, H hidden, K logits that are taught side
by side, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fuse.model.heads.layer import Weights

# The bias of a class that training lacks: no clip's logit comes near it, and exp of it is 0.
NEVER = -1e9
Drop = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Shape:
    """What a head is built for.

    Attributes:
        widths: modality to width, in the order of concatenation.
        hidden: width of the hidden layer.
        classes: C, how many labels there are.
    """

    widths: Mapping[str, int]
    hidden: int
    classes: int

    @property
    def width(self) -> int:
        """D, of all modalities together."""
        return sum(self.widths.values())

    @property
    def columns(self) -> dict[str, slice]:
        """Each modality's columns of the concatenation."""
        return columns_of(self.widths)


@dataclass(frozen=True)
class Rows:
    """A batch for each head: standardised rows_MBD without NaN, and which modalities (M, B, modality) are absent."""

    values_MBD: Tensor
    absent_MBm: Tensor | None = None


@dataclass(frozen=True)
class Outputs:
    """The output of a head.

    Attributes:
        logits_MBC: the decision.
        taught_MBKC: the logits that learn, each by its own cross-entropy: the decision itself, except in late fusion.
        fused_MBH: what the last layer sees of all modalities together.
    """

    logits_MBC: Tensor
    taught_MBKC: Tensor
    fused_MBH: Tensor


@dataclass(frozen=True)
class Penalty:
    """Penalties of heads that are solved, not trained: `shrinkage` of `lda`, `regularisation` of `logistic`."""

    shrinkage: float = 0.5
    regularisation: float = 100.0


@dataclass(frozen=True)
class Head:
    """A kind of head.

    Attributes:
        draw: the starting weights of one head.
        forward: M heads on M batches.
        solve: of heads in closed form, without epochs: weights from rows_BD, labels_B, the number of classes, a
            penalty, and how many times each clip stands in the rows.
        divides: what `hidden` must divide by.
        reliable: of late fusion whose votes are weighted by distance; None: nothing of it is fitted after training.
    """

    draw: Callable[[Shape, torch.Generator], Weights]
    forward: Callable[[Weights, Shape, Rows, Drop], Outputs]
    solve: Callable[[Tensor, Tensor, int, Penalty, int], Weights] | None = None
    divides: int = 1
    reliable: bool | None = None


def columns_of(widths: Mapping[str, int]) -> dict[str, slice]:
    """The columns of each modality where they stand side by side."""
    columns, start = {}, 0
    for name, width in widths.items():
        columns[name] = slice(start, start + width)
        start += width
    return columns


def decided(logits_MBC: Tensor, fused_MBH: Tensor) -> Outputs:
    """A head that learns by its decision."""
    return Outputs(logits_MBC, logits_MBC[:, :, None], fused_MBH)
