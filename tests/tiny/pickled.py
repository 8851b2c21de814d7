"""What goes to another process, and proof that no network goes with it."""

from __future__ import annotations

import io
import pickle
from typing import Any

from torch import nn


class _NoNetworks(pickle.Pickler):
    def reducer_override(self, reached: Any) -> Any:
        assert not isinstance(reached, (nn.Module, nn.Parameter)), f"{type(reached).__name__} would go along"
        return NotImplemented


def sent(what: Any) -> bytes:
    """The bytes of what a loader process is given; fails where a network or a weight can be reached from it."""
    stream = io.BytesIO()
    _NoNetworks(stream).dump(what)
    return stream.getvalue()
