"""A sweep, multiplied out: configurations, and the runs (a configuration, a fold and a seed) that they are made of."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from cache.protocols.folds import Fold
from configs.loader import check, plain_values
from configs.schema.finetune import FinetuneConfig
from configs.schema.fusion import FusionConfig
from configs.schema.sweep import SweepConfig
from fuse.stack.job import FREE


@dataclass(frozen=True)
class Configuration:
    """One cell of the grid; `factors` are texts for people."""

    number: int
    factors: Mapping[str, str]
    config: FusionConfig | FinetuneConfig

    @property
    def name(self) -> str:
        """Its factors in words."""
        return ", ".join(self.factors.values())

    @property
    def fusion(self) -> FusionConfig:
        """In a sweep of stage two, what its heads are trained by."""
        assert isinstance(self.config, FusionConfig)
        return self.config

    @property
    def shape(self) -> str:
        """Equal for configurations whose heads may train in one stack."""
        tree = plain_values(self.fusion)
        for key in (*FREE, "output_dir"):
            *parents, last = key.split(".")
            node = tree
            for parent in parents:
                node = node[parent]
            del node[last]
        return json.dumps(tree, sort_keys=True)


@dataclass(frozen=True)
class Run:
    """One head, or one fine-tune: numbered by configuration, then fold, then seed."""

    number: int
    configuration: Configuration
    fold: Fold
    seed: int


def configurations(config: SweepConfig) -> list[Configuration]:
    """Every cell of the grid, checked as its stage would.

    Raises:
        ValueError: one line: a key that there is not, a value out of range, two cells that are one.
    """
    cells = itertools.product(*([(factor, value) for value in values] for factor, values in config.grid.items()))
    found = [_configuration(number, cell, config) for number, cell in enumerate(cells)]
    for one, other in itertools.combinations(found, 2):
        if one.config == other.config:
            raise ValueError(f"grid: {one.name} and {other.name} are the same configuration; name it once")
    return found


def runs_of(cells: Sequence[Configuration], folds: Sequence[Fold]) -> list[Run]:
    """Every run of a sweep of stage two."""
    every = [(cell, fold, seed) for cell in cells for fold in folds for seed in cell.fusion.seeds]
    return [Run(number, *one) for number, one in enumerate(every)]


def by_shape(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """Runs that may train in one stack."""
    groups: dict[str, list[Run]] = {}
    shapes = {run.configuration.number: run.configuration.shape for run in runs}
    for run in runs:
        groups.setdefault(shapes[run.configuration.number], []).append(run)
    yield from groups.values()


def _configuration(number: int, cell: Sequence[tuple[str, Any]], config: SweepConfig) -> Configuration:
    tree = deepcopy(config.run) | {"output_dir": f"{config.output_dir}/best"}
    kind: type[FusionConfig] | type[FinetuneConfig] = FusionConfig
    if config.stage == "finetune":
        # One run is exported, once it is chosen; the encoders of all of them would fill the disk.
        kind, tree = FinetuneConfig, {"export": False, **tree, "test": config.test}
    for factor, value in cell:
        settings = (
            {key: one for key, one in value.items() if key not in ("name", "against")}
            if isinstance(value, dict)
            else None
        )
        for key, one in ({factor: value} if settings is None else settings).items():
            _set(tree, key, one)
    factors = {factor: _text(value) for factor, value in cell}
    where = ", ".join(f"{factor}={text}" for factor, text in factors.items())
    return Configuration(number, factors, check(kind, tree, f"sweep, {where}"))


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        child = tree.get(parent)
        tree[parent] = child if isinstance(child, dict) else {}
        tree = tree[parent]
    tree[last] = deepcopy(value)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return str(value["name"])
    if isinstance(value, list):
        # [2, 3] is a mean of layers; modalities are joined as everywhere else.
        numbers = all(isinstance(one, int) for one in value)
        return f"{value[0]} to {value[-1]}" if numbers and value else "+".join(map(str, value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
