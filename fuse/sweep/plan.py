"""What a sweep trains: its runs dealt into stacks, once; a sweep that is resumed goes on with the same stacks.

The last bits of a head depend on the company that it trains in, and how wide a stack should be is timed. So the plan is
kept, and a stack that was cut off is trained again as a whole: its scores are those of a sweep that nothing disturbed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cache.corpus.clips import Corpus
from cache.corpus.labels import label_difference
from cache.files.atomic import write_atomic
from configs.schema.sweep import SweepConfig
from fuse.model.fusion import ModelSettings
from fuse.runs.caveats import caveats
from fuse.stack.stack import Schedule
from fuse.stack.width import cut, measure
from fuse.sweep.grid import Run, by_shape
from fuse.sweep.ground import ground_of, jobs_of

PLAN = "plan.json"


@dataclass(frozen=True)
class PlannedStack:
    """Runs that train together.

    Attributes:
        runs: their numbers.
        shape: number of the shape that they share.
        width: how many runs of this shape a stack may hold: `stack_width`, or what was timed.
        seconds: what one rank would take for them.
    """

    runs: tuple[int, ...]
    shape: int
    width: int
    seconds: float

    def is_done(self, done: Collection[int]) -> bool:
        """Whether all of its runs are among those that are done."""
        return all(number in done for number in self.runs)


@dataclass(frozen=True)
class SweepPlan:
    """All stacks of a sweep, those of one shape side by side, and what must stand beside its numbers.

    Attributes:
        features: by number of the shape, then by modality, how the features were made that its runs are trained on
            (`cache.features.provenance.Origin.made`).
        label_names: the label set of the corpus, in its order.
        note: caveats.
    """

    stacks: tuple[PlannedStack, ...]
    features: tuple[Mapping[str, Mapping[str, Any]], ...]
    label_names: tuple[str, ...]
    note: str

    def refuse_other_labels(self, label_names: Sequence[str], out: Path) -> None:
        """Refuse to go on with a corpus that has other labels than the one that the sweep began with.

        Raises:
            ValueError: one line with what is missing or new.
        """
        if differs := label_difference(self.label_names, label_names):
            raise ValueError(
                f"{out} holds a sweep that began with other labels ({differs}); choose another output_dir, or list its "
                f"labels in labels.txt beside metadata.csv: {', '.join(self.label_names)}"
            )

    def left(self, done: Collection[int]) -> list[PlannedStack]:
        """The stacks that lack a run."""
        return [stack for stack in self.stacks if not stack.is_done(done)]


def plan_sweep(config: SweepConfig, runs: Sequence[Run], corpus: Corpus, ranks: int) -> SweepPlan:
    """Check every shape of run against the stores, and measure how wide its stacks should be.

    Unless `stack_width` is given, they are no wider than that every rank has one of each shape.

    Raises:
        ValueError: features are missing; with the command that makes them.
    """
    torch.set_num_threads(runs[0].configuration.fusion.threads)
    stacks: list[PlannedStack] = []
    notes: dict[str, bool] = {}
    features: list[Mapping[str, Mapping[str, Any]]] = []
    for shape, same in enumerate(by_shape(runs)):
        ground = ground_of(same[0].configuration.fusion, corpus, config)
        jobs, schedule = jobs_of(ground, same), Schedule.of(ground.config)
        settings, wanted = ModelSettings.of(ground.config, ground.main), ground.config.stack_width
        measured = measure(settings, ground.cached, jobs, schedule, wanted)
        width = measured.width if wanted != "auto" else min(measured.width, -(-len(jobs) // ranks))
        for places in cut(jobs, width):
            seconds = measured.seconds([jobs[place] for place in places], schedule)
            stacks.append(PlannedStack(tuple(same[place].number for place in places), shape, width, seconds))
        features.append({name: origin.made for name, origin in ground.main.origins.items()})
        notes[caveats(ground.config, ground.main)] = True
    return SweepPlan(tuple(stacks), tuple(features), corpus.labels, "; ".join(note for note in notes if note))


def write_plan(plan: SweepPlan, path: Path) -> None:
    """Keep a plan for the ranks, and for the sweep that is resumed."""
    write_atomic(path, json.dumps(asdict(plan), indent=1))


def read_plan(path: Path) -> SweepPlan:
    """The plan that was kept.

    Raises:
        ValueError: the file holds none.
    """
    try:
        tree = json.loads(path.read_text())
        stacks = tuple(PlannedStack(**{**one, "runs": tuple(one["runs"])}) for one in tree["stacks"])
        return SweepPlan(stacks, tuple(tree["features"]), tuple(tree["label_names"]), tree["note"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no plan of a sweep; delete it: what is left is then planned anew") from error
