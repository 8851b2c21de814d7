"""Feature to number: fusion heads, training, fine-tuning, scores, tables.

For notebooks: `fuse.load("outputs/x")` is a run that takes media files, `fuse.features("features")` what stage one
made. Both import torch when they are first asked for, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuse.predict.features import features as features
    from fuse.predict.model import load as load


def __getattr__(name: str) -> Any:
    if name == "load":
        from fuse.predict.model import load

        return load
    if name == "features":
        from fuse.predict.features import features

        return features
    raise AttributeError(f"module 'fuse' has no attribute {name!r}")
