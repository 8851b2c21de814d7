"""Where two trees of plain values differ, for a message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def difference(there: Mapping[str, Any], now: Mapping[str, Any], whose: tuple[str, str] = ("there", "now")) -> str:
    """The first key whose value differs, with both values: "optim.lr: 0.001 there, 0.5 now"; "" where none does."""
    for key in dict.fromkeys((*now, *there)):
        one, other = there.get(key), now.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            if found := difference(one, other, whose):
                return f"{key}.{found}"
        elif one != other:
            return f"{key}: {one} {whose[0]}, {other} {whose[1]}"
    return ""
