"""What the robustness table, paired tests, the enrolment curve and `make report` may be told."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from cache.conditions import KINDS, UNCHANGED, JointCondition
from configs.loader import STRICT
from configs.schema.features import NoiseSettings
from configs.schema.fields import BareName, BareSubset, LabelMapping, NamedCondition

PerCent = Annotated[int, Field(ge=1, le=99)]
RobustnessColumn = Literal[
    "uar",
    "interval",
    "accuracy",
    "drop",
    "relative_drop",
    "corruption_error",
    "relative_corruption_error",
    "relative_robustness",
    "effective_robustness",
    "worst_speaker",
    "female_minus_male",
    "ece",
    "brier",
    "changed",
    "wer",
    "difference",
    "p",
    "clips",
]
MISSING_RATES = (10, 30, 50, 70, 90)


@dataclass(frozen=True, config=STRICT)
class RobustnessConfig:
    """Configuration of `python -m fuse.robustness`.

    Attributes:
        runs: run folders, of stage two or fine-tuned.
        conditions: what they are tested under; `clean` is always included, joint ones (`a+b`) are allowed; null: those
            that are cached for all runs and change what they look at.
        modalities: subsets that are given to the model, the others are withheld (`audio` alone is `[audio]`); empty:
            every subset of each run's own modalities.
        joint: also under every pair of a condition of the sound and one of the picture; null: where `conditions` is
            null.
        missing: clips that lack modalities at random, in per cent: a number stands for all modalities at that rate and
            for each of them alone, a mapping (`{audio: 20, video: 60}`) for rates of their own; null: 10, 30, 50, 70
            and 90 where `conditions` is null, else none.
        available: leave conditions out whose features are not cached, and say so, where an error would name them.
        reference: run that the others are compared with (`difference` and `p`), as in `runs` or by its last part;
            null: the first of several.
        baseline: run that corruption errors are divided by; null: the reference.
        columns: of the table in Markdown and LaTeX, from docs/robustness.md; empty: those that fit a page. The CSV has
            all of them.
        corpus, labels, features_dir: as in the runs when null.
        noise: `folder`: for `noise-file` and a fine-tuned run, the files that stage one mixed in; null: the folder that
            the last `make features` was given.
        output_dir: gets robustness_table.{md,csv,tex,png,svg}, the figures of levels and of pairs, and predictions.csv.
    """

    runs: Annotated[tuple[str, ...], Field(min_length=1), BareName] = ("outputs/fusion",)
    conditions: Annotated[tuple[NamedCondition, ...] | None, BareName] = None
    modalities: Annotated[tuple[Annotated[tuple[str, ...], Field(min_length=1)], ...], BareSubset] = ()
    joint: bool | None = None
    missing: tuple[PerCent | dict[str, PerCent], ...] | None = None
    available: bool = False
    reference: str | None = None
    baseline: str | None = None
    columns: Annotated[tuple[RobustnessColumn, ...], BareName] = ()
    corpus: str | None = None
    labels: LabelMapping | None = None
    features_dir: str | None = None
    noise: NoiseSettings = field(default_factory=NoiseSettings)
    output_dir: str = "outputs/robustness"

    def __post_init__(self) -> None:
        """Refuse runs named twice, and what is stage one's alone."""
        if len(set(self.runs)) < len(self.runs):
            raise ValueError("runs names a folder twice")
        if self.noise.babble_speakers is not None:
            raise ValueError("noise.babble_speakers: who is heard in noise-babble stands in the features; leave it out")

    @property
    def all_conditions(self) -> tuple[JointCondition, ...]:
        """Clean first: every other row is compared with it; the grid last."""
        return tuple(dict.fromkeys((UNCHANGED, *(self.conditions or ()), *self.grid)))

    @property
    def grid(self) -> tuple[JointCondition, ...]:
        """The pairs of a sound and a picture condition, those aside that are listed themselves."""
        if not self.joint:
            return ()
        alone = [joint.parts[0] for joint in self.conditions or () if len(joint.parts) == 1]
        corrupting = [part for part in alone if part.modality and not KINDS[part.kind].harmless]
        sound, picture = ([part for part in corrupting if part.modality == signal] for signal in ("audio", "video"))
        pairs = (JointCondition((one, other)) for one in sound for other in picture)
        return tuple(pair for pair in pairs if pair not in (self.conditions or ()))

    @property
    def missing_rates(self) -> tuple[int | dict[str, int], ...]:
        """What is asked of clips that lack modalities."""
        return self.missing or ()


@dataclass(frozen=True, config=STRICT)
class TunedRowsConfig:
    """Configuration of `python -m fuse.robustness.rank`, which nobody types: the rows of one fine-tuned run.

    Attributes:
        leaf: its folder.
        conditions: under which its clips are encoded.
        parts: whose clips: `validation`, `test` or both.
        corpus, features_dir: where clips and features are.
        noise_folder: of the files of `noise-file`; null: the one that the last `make features` was given.
    """

    leaf: str
    conditions: tuple[NamedCondition, ...]
    parts: tuple[Literal["validation", "test"], ...]
    corpus: str
    features_dir: str
    noise_folder: str | None = None


@dataclass(frozen=True, config=STRICT)
class CompareConfig:
    """Configuration of `python -m fuse.studies.compare`.

    Attributes:
        pairs: of folders: a run, and the run that it is compared with. Each holds predictions.csv, or a `fold-K` or
            `fold-K/seed-S` for each fold that does. p values are corrected over all pairs.
        output_dir: gets compare.md and compare.csv.
    """

    pairs: Annotated[tuple[tuple[str, str], ...], Field(min_length=1)]
    output_dir: str = "outputs/compare"

    def __post_init__(self) -> None:
        """Refuse a pair that stands there twice, and a run against itself."""
        for one, other in self.pairs:
            if one == other:
                raise ValueError(f"pairs: {one} is compared with itself")
        if len(set(self.pairs)) < len(self.pairs):
            raise ValueError("pairs: one of them stands there twice; each is one comparison")


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
