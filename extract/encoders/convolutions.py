"""Convolutions in bfloat16 on CPUs: computed in float32, because oneDNN computes many of them wrongly.

oneDNN 3.10, which torch 2.11 uses, has AMX kernels (`brg_conv_fwd:avx10_1_512_amx`) that return values of the right
size which have nothing to do with the input, for many shapes: a kernel of 16 with 4 to 12 channels in a group, an
output of width 1 with a stride above 1, and others that follow no rule. Some read memory that nobody wrote, and on
the way back some write past their buffers. Kernels without AMX were wrong as well: pytorch issues 163347, 169688.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def convolve_in_float32(network: nn.Module) -> None:
    """From now on every convolution of this network takes and returns bfloat16, and sums in float32.

    That is what a bfloat16 convolution is meant to do, so that rows are the same on every CPU but for the order of
    sums. Under autocast too.
    """
    for module in network.modules():
        if isinstance(module, CONVOLUTIONS):
            # torch's own seam: `forward` of every convolution, those with weight norm included, ends in it.
            setattr(module, "_conv_forward", partial(_convolved, module._conv_forward))  # noqa: B010


def _convolved(convolve: Callable[..., Tensor], *tensors: Tensor | None) -> Tensor:
    """`tensors`: input, weight, bias."""
    rounded = [None if one is None else one.bfloat16().float() for one in tensors]
    with torch.autocast("cpu", enabled=False):
        return convolve(*rounded).bfloat16()
