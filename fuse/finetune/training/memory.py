"""How much memory a step takes, reckoned from the sizes of all that lives at once, without a GPU and without computing.

On tensors of the device `meta`, which have shapes and no values, a step of full-size encoders takes seconds.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):
    """Within it, counts the bytes of tensors that are made, until nothing holds them any more.

    Attributes:
        peak: the most that lived at once.
    """

    def __init__(self) -> None:
        """Nothing lives yet: what was there before does not count."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak: int = 0
        self._now: int = 0
        self._storages: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation, and count the storages that it makes; views and what is done in place make none."""
        given = {one.untyped_storage()._cdata for one in tree_iter((args, kwargs)) if isinstance(one, Tensor)}
        result = func(*args, **(kwargs or {}))
        for one in tree_iter(result):
            if isinstance(one, Tensor) and (key := one.untyped_storage()._cdata) not in given | self._storages:
                self._count(one.untyped_storage(), key)
        return result

    def _count(self, storage: torch.UntypedStorage, key: int) -> None:
        size = storage.nbytes()
        self._storages.add(key)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._storages.discard(key)
        self._now -= size


def step_bytes(model: nn.Module, loss: Callable[[], Tensor]) -> int:
    """Peak of a first step with AdamW: weights, gradients, the optimiser's two moments, and activations.

    Args:
        model: its weights count whether they learn or not.
        loss: a forward pass of the model; 0-dimensional.
    """
    weights: int = sum(one.nbytes for one in (*model.parameters(), *model.buffers()))
    adamw = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad])
    with LiveBytes() as live:
        loss().backward()  # type: ignore[no-untyped-call]
        adamw.step()
    peak: int = live.peak
    return weights + peak
