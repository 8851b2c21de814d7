"""What a sweep may be told."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from configs.loader import STRICT
from configs.schema.features import Engine
from configs.schema.fields import BareName, NamedCondition

# All configurations of a sweep are scored on the same clips, by the same folds and seeds.
SHARED = ("corpus", "labels", "target", "protocol", "seeds", "output_dir", "threads", "device")


@dataclass(frozen=True, config=STRICT)
class SweepConfig:
    """Configuration of `python -m fuse.sweep`.

    Attributes:
        run: keys of the stage (`configs/schema/fusion.py`, or `finetune.py` beside it) that all runs share.
        stage: what a run is: a head on cached features (`fusion`), or a fine-tune of encoders and head (`finetune`) of
            each of the runs of stage two that `init` holds.
        grid: by factor, the values it takes; all are multiplied out. A factor is a key of the stage (`optim.lr`), or
            any name whose values are mappings: `name`, the keys of the stage that this value sets and, in a factor
            that is compared, `against`: the name of another value of it to be compared with.
        conditions: what every run is validated and tested under, its score being their mean; empty: what it was
            trained on.
        compare: a factor: the other factors are chosen on validation for each of its values, whose test scores are
            then compared with the first one's.
        test: score the chosen runs on the test speakers; false leaves these untouched while recipes are looked for.
        output_dir: gets sweep.csv, sweep.md, sweep.png, best.yaml and the predictions of every run.
        engine: of fine-tunes: what starts them, a task for each run, which has one rank then.
        dry_run: print the plan and stop.
    """

    run: dict[str, Any]
    grid: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]
    stage: Literal["fusion", "finetune"] = "fusion"
    conditions: Annotated[tuple[NamedCondition, ...], BareName] = ()
    compare: str | None = None
    test: bool = True
    output_dir: str = "outputs/sweep"
    engine: Engine = field(default_factory=Engine)
    dry_run: bool = False

    @property
    def references(self) -> dict[str, str]:
        """Values of the compared factor that say what they are to be compared with."""
        values = self.grid[self.compare] if self.compare else []
        return {one["name"]: one["against"] for one in values if isinstance(one, dict) and "against" in one}

    def __post_init__(self) -> None:
        """Refuse factors that would make runs incomparable, and a comparison of nothing."""
        for factor, values in self.grid.items():
            keys = {key for value in values for key in (value if isinstance(value, dict) else (factor,))}
            for key in sorted(keys & set(SHARED)):
                raise ValueError(f"grid: {key} must be the same for all runs; set run.{key}")
            named = [value.get("name") for value in values if isinstance(value, dict)]
            if named and (len(named) < len(values) or None in named):
                raise ValueError(f"grid.{factor}: give each value a name beside the keys that it sets")
            others = {value["against"] for value in values if isinstance(value, dict) and "against" in value}
            for name in sorted(others - set(named)):
                raise ValueError(f"grid.{factor}: against={name} is no value of it ({', '.join(map(str, named))})")
        if self.stage == "finetune":
            self._refuse_for_fine_tunes()
        elif self.engine.name != "torchrun":
            raise ValueError(
                f"engine.name={self.engine.name} is for stage=finetune: heads on cached features train many at a time "
                "in one process, which is faster than a job for each"
            )
        if self.compare is not None and self.compare not in self.grid:
            raise ValueError(f"compare={self.compare} is no factor of the grid ({', '.join(self.grid)})")

    def _refuse_for_fine_tunes(self) -> None:
        """Their folds and seeds are those of the runs that they start from."""
        for key in ("seeds", "protocol"):
            if self.run.get(key) is not None:
                raise ValueError(f"run.{key}: those of the runs in run.init are taken; leave it out")
        if "test" in self.run:
            raise ValueError("run.test: set test, which is of the whole sweep")
