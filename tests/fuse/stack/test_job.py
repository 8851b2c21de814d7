"""What heads of one stack may differ in: the fields of a job, and the keys of a configuration that set them."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import reduce
from typing import Any

import numpy as np
import pytest

from cache.corpus.clips import Clip
from cache.features.table import FeatureTable
from cache.protocols.folds import Fold
from configs.loader import check
from configs.schema.fusion import FusionConfig
from fuse.model.fusion import ModelSettings
from fuse.stack.job import FREE, Job
from fuse.stack.stack import Schedule

CLIPS = tuple(Clip(f"c{number}", f"{number}.wav", "happy", str(number)) for number in range(3))
TABLE = FeatureTable(
    CLIPS,
    {"audio": np.zeros((3, 2), np.float32)},
    {"audio": np.ones(3, bool)},
    (),
    False,
    "clean",
    label_names=("happy", "sad"),
)
FOLD = Fold(1, ("0",), ("1",), ("2",))
# Of the row numbers, the seed and whether rows are standardised, the fold, the run and the shape decide.
NOT_SET_BY_A_FREE_KEY = {"train", "validation", "seed", "standardise"}


def config(tree: dict[str, Any]) -> FusionConfig:
    return check(FusionConfig, {"corpus": "metadata.csv", **tree}, "test")


def changed(key: str) -> FusionConfig:
    *parents, last = key.split(".")
    tree: dict[str, Any] = {last: 0.321}
    for parent in reversed(parents):
        tree = {parent: tree}
    return config(tree)


def different(one: Job, other: Job) -> set[str]:
    return {field.name for field in fields(Job) if getattr(one, field.name) != getattr(other, field.name)}


@pytest.mark.parametrize("key", FREE)
def test_a_free_key_changes_its_field_of_the_job_and_nothing_that_a_stack_shares(key: str) -> None:
    """The keys stood in the sweep a second time: one that was forgotten there tore stacks apart without a word."""
    before, after = config({}), changed(key)
    jobs = [Job.of(one, TABLE, FOLD, 0) for one in (before, after)]
    (field,) = different(*jobs)
    value = getattr(jobs[1], field)
    assert 0.321 in (value, getattr(value, key.rpartition(".")[2], None))
    assert Schedule.of(after) == Schedule.of(before)
    assert replace(ModelSettings.of(after, TABLE), dropout=before.dropout) == ModelSettings.of(before, TABLE)


def test_every_field_of_a_job_is_set_by_a_free_key_or_follows_from_the_run() -> None:
    set_by_keys = [different(Job.of(config({}), TABLE, FOLD, 0), Job.of(changed(key), TABLE, FOLD, 0)) for key in FREE]
    assert reduce(set.union, set_by_keys) | NOT_SET_BY_A_FREE_KEY == {field.name for field in fields(Job)}
