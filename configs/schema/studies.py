"""What the robustness table, the enrolment curve and `make report` may be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from cache.conditions import UNCHANGED, JointCondition
from configs.loader import STRICT
from configs.schema.fields import BareName, BareSubset, LabelMapping, NamedCondition


@dataclass(frozen=True, config=STRICT)
class RobustnessConfig:
    """Configuration of `python -m fuse.robustness`.

    Attributes:
        runs: run folders of stage two.
        conditions: what they are tested under; `clean` is always included, joint ones (`a+b`) are allowed; null: those
            that are cached for all runs and change what they look at.
        modalities: subsets that are given to the model, the others are withheld (`audio` alone is `[audio]`); empty:
            every subset of each run's own modalities.
        corpus, labels, features_dir: as in the runs when null.
        output_dir: gets robustness_table.{md,csv,png} and predictions.csv.
    """

    runs: Annotated[tuple[str, ...], Field(min_length=1), BareName] = ("outputs/fusion",)
    conditions: Annotated[tuple[NamedCondition, ...] | None, BareName] = None
    modalities: Annotated[tuple[Annotated[tuple[str, ...], Field(min_length=1)], ...], BareSubset] = ()
    corpus: str | None = None
    labels: LabelMapping | None = None
    features_dir: str | None = None
    output_dir: str = "outputs/robustness"

    def __post_init__(self) -> None:
        """Refuse runs named twice."""
        if len(set(self.runs)) < len(self.runs):
            raise ValueError("runs names a folder twice")

    @property
    def all_conditions(self) -> tuple[JointCondition, ...]:
        """Clean first: every other row is compared with it."""
        return tuple(dict.fromkeys((UNCHANGED, *(self.conditions or ()))))


@dataclass(frozen=True, config=STRICT)
class EnrolmentConfig:
    """Configuration of `python -m fuse.studies.enrolment`.

    Attributes:
        run: folder of a run of stage two with `standardise: speaker`.
        conditions: what clips are heard under, those that enrol and those that are recognised; `clean` is always
            included.
        clips: how many unlabelled clips of a test speaker are known; beside them, all of them and the neutral ones.
        draws: how often so many clips are drawn.
        strengths: candidates for how many clips the training speakers' statistics weigh; validation speakers choose.
        prior: the clips that the training speakers' statistics are of, which stand for a speaker who was never heard:
            `clean` ones, or those under the `condition` that is tested, as if it were known before the first clip.
        corpus, labels, features_dir: as in the run when null.
    """

    run: str = "outputs/fusion"
    conditions: Annotated[tuple[NamedCondition, ...], BareName] = ()
    clips: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0, 2, 5, 10, 20)
    draws: Annotated[int, Field(ge=1)] = 20
    strengths: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (1.0, 3.0, 10.0)
    prior: Literal["clean", "condition"] = "clean"
    corpus: str | None = None
    labels: LabelMapping | None = None
    features_dir: str | None = None
    output_dir: str = "outputs/enrolment"

    @property
    def all_conditions(self) -> tuple[JointCondition, ...]:
        """Clean first."""
        return tuple(dict.fromkeys((UNCHANGED, *self.conditions)))


@dataclass(frozen=True, config=STRICT)
class ReportConfig:
    """Configuration of `python -m fuse.studies.report`.

    Attributes:
        run: folders of runs, side by side on one page; a run of stage two gets features.png, layers.png and layers.csv.
        robustness: folders that `make robustness-table` wrote; null: those beside a run that are of it.
        out: the page; null: report.html in the folder of the first run.
        clips: how many clips of the first run one can look at and listen to; 0: none.
        media: whether pictures and sound of these clips go into the page. Not where a corpus's licence forbids it.
        media_megabytes: what they may add to it; what does not fit is left out, and the page says so.
        corpus, labels, features_dir: as in the run when null.
        threads: of everything that is computed; with one, equal runs give equal pictures.
    """

    run: Annotated[tuple[str, ...], Field(min_length=1), BareName] = ("outputs/fusion",)
    robustness: Annotated[tuple[str, ...] | None, BareName] = None
    out: str | None = None
    clips: Annotated[int, Field(ge=0)] = 12
    media: bool = True
    media_megabytes: Annotated[float, Field(gt=0)] = 5.0
    corpus: str | None = None
    labels: LabelMapping | None = None
    features_dir: str | None = None
    threads: Annotated[int, Field(ge=1)] = 1

    def __post_init__(self) -> None:
        """Refuse runs named twice."""
        if len(set(self.run)) < len(self.run):
            raise ValueError("run names a folder twice")
