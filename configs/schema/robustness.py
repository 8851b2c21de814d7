"""What the robustness table may be told."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from cache.conditions import CLEAN
from configs.loader import STRICT
from configs.schema.features import CARD_CONDITIONS
from configs.schema.fields import ConditionName


@dataclass(frozen=True, config=STRICT)
class RobustnessConfig:
    """Configuration of `python -m fuse.robustness`.

    Attributes:
        runs: run folders of stage two.
        conditions: what they are tested under; `clean` is always included, joint ones (`a+b`) are allowed.
        modalities: subsets that are given to the model, the others are withheld; empty: every subset of
            each run's own modalities.
        corpus, features_dir: as in the runs when null.
        output_dir: gets robustness_table.{md,csv,png} and predictions.csv.
    """

    runs: Annotated[tuple[str, ...], Field(min_length=1)] = ("outputs/fusion",)
    conditions: tuple[ConditionName, ...] = CARD_CONDITIONS
    modalities: tuple[Annotated[tuple[str, ...], Field(min_length=1)], ...] = ()
    corpus: str | None = None
    features_dir: str | None = None
    output_dir: str = "outputs/robustness"

    def __post_init__(self) -> None:
        """Refuse runs named twice."""
        if len(set(self.runs)) < len(self.runs):
            raise ValueError("runs names a folder twice")

    @property
    def all_conditions(self) -> tuple[str, ...]:
        """Clean first: every other row is compared with it."""
        return tuple(dict.fromkeys((CLEAN, *self.conditions)))
