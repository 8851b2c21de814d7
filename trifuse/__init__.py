"""TriFuse as an installed package: `trifuse.load("outputs/x")`, `trifuse.features("features")`, the command `trifuse`.

In a wheel the folders cache, configs, extract and fuse lie inside this package (setup.py); in the checkout they lie
beside it. Neither function imports torch before it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuse.predict.features import features as features
    from fuse.predict.model import load as load

OFFERED = ("load", "features")


def __getattr__(name: str) -> Any:
    if name in OFFERED:
        import fuse as fusion

        return getattr(fusion, name)
    raise AttributeError(f"module 'trifuse' has no attribute {name!r}")
