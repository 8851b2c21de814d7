"""The type of a configured condition: text that is parsed once, here, refused under its own key, and saved as typed."""

from __future__ import annotations

from typing import Annotated

from pydantic import PlainSerializer, PlainValidator

from cache.conditions import JointCondition, parse_joint


def _parsed(value: object) -> JointCondition:
    if isinstance(value, JointCondition):
        return value
    if not isinstance(value, str):
        raise ValueError(f"give the name of a condition, got {value!r}")
    return parse_joint(value)


NamedCondition = Annotated[JointCondition, PlainValidator(_parsed), PlainSerializer(str, return_type=str)]
