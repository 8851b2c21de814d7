"""The type of a configured condition: text that `cache.conditions` can parse, refused under its own key."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from cache.conditions import parse_joint


def _checked(name: str) -> str:
    parse_joint(name)
    return name


ConditionName = Annotated[str, AfterValidator(_checked)]
