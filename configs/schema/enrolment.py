"""What the enrolment curve may be told."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from cache.conditions import CLEAN
from configs.loader import STRICT
from configs.schema.fields import ConditionName


@dataclass(frozen=True, config=STRICT)
class EnrolmentConfig:
    """Configuration of `python -m fuse.enrolment`.

    Attributes:
        run: folder of a run of stage two with `standardise: speaker`.
        conditions: what clips are heard under, those that enrol and those that are recognised; `clean` is always
            included.
        clips: how many unlabelled clips of a test speaker are known; beside them, all of them and the neutral ones.
        draws: how often so many clips are drawn.
        strengths: candidates for how many clips the training speakers' statistics weigh; validation speakers choose.
        corpus, features_dir: as in the run when null.
    """

    run: str = "outputs/fusion"
    conditions: tuple[ConditionName, ...] = ()
    clips: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0, 2, 5, 10, 20)
    draws: Annotated[int, Field(ge=1)] = 20
    strengths: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (1.0, 3.0, 10.0)
    corpus: str | None = None
    features_dir: str | None = None
    output_dir: str = "outputs/enrolment"

    @property
    def all_conditions(self) -> tuple[str, ...]:
        """Clean first."""
        return tuple(dict.fromkeys((CLEAN, *self.conditions)))
