"""bfloat16 on a CPU: convolutions sum in float32, whatever the library would choose on this machine."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from extract.encoders.convolutions import convolve_in_float32

CONVOLVE = {torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default}
# Shapes that oneDNN 3.10 got wrong on a CPU with AMX: by as much as the largest value of the result.
SHAPES: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Conv1d(16, 16, 16, groups=4, padding=8), (2, 16, 60)),
    (nn.Conv2d(40, 52, 16, stride=(2, 16), padding=(8, 0)), (2, 40, 27, 22)),
    (nn.Conv3d(24, 20, (1, 16, 3), stride=(1, 1, 5)), (2, 24, 7, 19, 3)),
    (nn.utils.parametrizations.weight_norm(nn.Conv1d(16, 16, 16, groups=4, padding=8), dim=2), (1, 16, 60)),
]


class Formats(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Number formats in which convolutions run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[torch.dtype] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in CONVOLVE:
            self.seen += [one.dtype for one in args[:3] if isinstance(one, Tensor)]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(("module", "shape"), SHAPES)
def test_a_bfloat16_convolution_is_the_exact_one_rounded(
    module: nn.Module, shape: tuple[int, ...], autocast: bool
) -> None:
    """They were wrong by 70 % and more, on the way back too; and so were features under compute=bfloat16."""
    torch.manual_seed(0)
    exact = deepcopy(module).to(torch.bfloat16).double()
    ours = nn.Sequential(deepcopy(module).to(torch.bfloat16)).to(torch.float32 if autocast else torch.bfloat16)
    convolve_in_float32(ours)
    x = torch.randn(shape).bfloat16()
    ours_x, exact_x = x.clone().requires_grad_(), x.double().requires_grad_()
    with Formats() as formats, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = ours(ours_x)
        out.float().sum().backward()
    expected = exact(exact_x)
    expected.sum().backward()
    assert set(formats.seen) == {torch.float32}
    assert out.dtype == torch.bfloat16
    assert ours_x.grad is not None
    assert exact_x.grad is not None
    for one, other in ((out, expected), (ours_x.grad, exact_x.grad)):
        assert (one.double() - other).abs().max() <= 2**-7 * other.abs().max()
