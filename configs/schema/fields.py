"""Types that several configurations share: conditions, label mappings, and lists of which one may be named bare.

A condition is text that is parsed once, here, refused under its own key, and saved as typed. A label mapping gives
labels of a corpus other names, and leaves the clips of those out whose name is null (`cache.corpus.labels`).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, PlainValidator

from cache.conditions import JointCondition, parse_joint
from cache.files.place import bucket_address


def _parsed(value: object) -> JointCondition:
    if isinstance(value, JointCondition):
        return value
    if not isinstance(value, str):
        raise ValueError(f"give the name of a condition, got {value!r}")
    return parse_joint(value)


NamedCondition = Annotated[JointCondition, PlainValidator(_parsed), PlainSerializer(str, return_type=str)]
# Of an object store.
Address = Annotated[str, AfterValidator(bucket_address)]
LabelMapping = dict[str, str | None]


def _listed(value: Any) -> Any:
    # A tuple, for what a validator hands on is no longer JSON, where a list would do.
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


# Before the type of a list of names: `modalities: audio` is `[audio]`.
BareName = BeforeValidator(_listed)


def _subsets(value: Any) -> Any:
    return tuple(map(_listed, _listed(value))) if isinstance(value, (str, list)) else value


# Before the type of a list of lists of names: `audio` is `[[audio]]`, and `[audio, [audio, video]]` is two subsets.
BareSubset = BeforeValidator(_subsets)
