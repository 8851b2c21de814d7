"""The numbers that products of heads are multiplied in while they train; weights, sums and AdamW are float32 always.

Off by default: in bfloat16 a head does not equal itself in another stack, it only comes near. Scores and predictions
are computed in float32 whatever a head was trained in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]


@contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Multiply in this precision within; on a GPU, torch has TensorFloat-32 in place of bfloat16."""
    before = torch.get_float32_matmul_precision()
    if precision == "bfloat16":
        torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def refuse_slow_products(precision: Precision, device: torch.device) -> None:
    """Refuse bfloat16 where the processor does not multiply it: torch would take float32 without a word, or crawl.

    Raises:
        ValueError: with the way out.
    """
    if precision == "bfloat16" and device.type == "cpu" and not _multiplies_bfloat16():
        raise ValueError(
            "precision=bfloat16: this processor does not multiply bfloat16 (no AMX, no AVX-512 BF16), so nothing "
            "would be gained; set precision=float32"
        )


def _multiplies_bfloat16() -> bool:
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
