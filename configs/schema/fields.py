"""Types that several configurations share.

A condition is text that is parsed once, here, refused under its own key, and saved as typed. A label mapping gives
labels of a corpus other names, and leaves the clips of those out whose name is null (`cache.corpus.labels`).
"""

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
LabelMapping = dict[str, str | None]
