"""The rows of the robustness table, and where each belongs: what is computed, written, printed and drawn.

A condition belongs to a family (one kind of corruption at several levels), a family to a section (what it strikes):

    clean      nothing was done
    sound      noise-white, reverb-room, ...           conditions of the sound
    picture    occlude-block, drop-frames, ...         conditions of the picture
    both       noise-white+occlude-block, ...          a condition of each
    missing    missing, missing-audio, ...             modalities that clips lack at random
    stability  gain-track, shift-picture, cut-start    changes that nobody minds
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cache.conditions import CLEAN, KINDS, parse_joint
from fuse.robustness.missing import MISSING

SOUND, PICTURE, BOTH, STABILITY = "sound", "picture", "both", "stability"
SECTIONS = (CLEAN, SOUND, PICTURE, BOTH, MISSING, STABILITY)
# Those whose families are corruptions as ImageNet-C has them: mCE is a mean over these.
CORRUPTIONS = "corruptions"
CORRUPTED = (SOUND, PICTURE)


class BySpeaker(dict[str, float]):
    """Each test speaker's UAR as a share; as text, and so in the tables, in per cents: "23: 41.2, 24: 50.0"."""

    def __str__(self) -> str:
        """In per cents."""
        return ", ".join(f"{speaker}: {100 * score:.1f}" for speaker, score in self.items())


@dataclass(frozen=True)
class Place:
    """Where a condition belongs. `level`: that of its kind, None where it has none; `severity` orders a family."""

    section: str
    family: str
    level: int | None = None
    severity: float = 0.0


@dataclass(frozen=True)
class Row:
    """One line of the table: a run, given some of its modalities, under a condition.

    Scores are shares, and None where they cannot be had. docs/robustness.md defines each of them.

    Attributes:
        run: name of the run.
        modalities: what it was given, as in predictions.csv: "audio+video".
        condition: what was done to the clips; a name of the grammar, or of `fuse.robustness.missing`.
        uar, accuracy: the scores; `low` and `high` bound UAR over speakers, None with too few.
        drop: from the same subset on clean clips, paired by speaker, with its interval; None for clean clips.
        clips, speakers, seeds: what the row rests on.
        sd_over_seeds: standard deviation of UAR over the run's seeds, None for one seed.
        speakers_uar: UAR by speaker.
        section, family, level: where the condition belongs.
        relative_drop: the drop as a share of the clean UAR.
        corruption_error: of this level alone, against the baseline run; that of a family stands in its `Group`.
        worst_speaker, worst_speaker_uar: who is recognised worst.
        female_minus_male: difference of the mean UAR of women and of men.
        ece, brier: calibration.
        changed: share of clips that are answered otherwise than clean.
        wer: word error rate of the transcripts under the condition, where there are any.
        difference: UAR minus that of the reference run, with `p` (sign flips over speakers) and `p_holm`.
    """

    run: str
    modalities: str
    condition: str
    uar: float
    accuracy: float
    low: float | None
    high: float | None
    drop: float | None
    drop_low: float | None
    drop_high: float | None
    clips: int
    speakers: int
    seeds: int
    sd_over_seeds: float | None
    speakers_uar: BySpeaker
    section: str = ""
    family: str = ""
    level: int | None = None
    relative_drop: float | None = None
    corruption_error: float | None = None
    worst_speaker: str = ""
    worst_speaker_uar: float | None = None
    female_minus_male: float | None = None
    ece: float | None = None
    brier: float | None = None
    changed: float | None = None
    wer: float | None = None
    difference: float | None = None
    p: float | None = None
    p_holm: float | None = None


@dataclass(frozen=True)
class Group:
    """A family of conditions of one run and subset, or a mean over families; scores are shares.

    Attributes:
        section: as in the rows, or `CORRUPTIONS`: all families of sound and picture.
        family: its name; "" for the mean over the section's families, each of which counts once.
        conditions: how many conditions it rests on.
        uar, accuracy, drop, relative_drop, ece, changed: means over the conditions.
        corruption_error, relative_corruption_error: CE and relative CE; of a mean over families, mCE and relative mCE.
        relative_robustness: area under UAR by severity, clean at its start; None where a family has no levels.
        effective_robustness: against the baseline run.
    """

    run: str
    modalities: str
    section: str
    family: str
    conditions: int
    uar: float | None
    accuracy: float | None
    drop: float | None
    relative_drop: float | None
    ece: float | None
    changed: float | None
    corruption_error: float | None
    relative_corruption_error: float | None
    relative_robustness: float | None
    effective_robustness: float | None


@dataclass(frozen=True)
class RobustnessTable:
    """Everything that the table says.

    Attributes:
        rows: run by run, subset by subset.
        groups: families and means over them, in the same order.
        reference: name of the run that others are compared with; "" for a single run. `baseline` alike, for errors.
        classes: how many labels the runs know.
    """

    rows: tuple[Row, ...]
    groups: tuple[Group, ...]
    reference: str
    baseline: str
    classes: int

    @property
    def runs(self) -> tuple[str, ...]:
        """Their names, in the order in which they were given."""
        return tuple(dict.fromkeys(row.run for row in self.rows))


def place_of(condition: str) -> Place:
    """Where a condition belongs, by its name alone.

    Raises:
        ValueError: it is no name of a condition.
    """
    if condition == CLEAN:
        return Place(CLEAN, CLEAN)
    if condition.startswith(f"{MISSING}-"):
        family, _, rate = condition.rpartition("-")
        return Place(MISSING, f"{MISSING}-mixed") if "+" in condition else Place(MISSING, family, int(rate), int(rate))
    parts = parse_joint(condition).parts
    if len(parts) > 1:
        return Place(BOTH, "+".join(part.kind for part in parts))
    (part,) = parts
    kind = KINDS[part.kind]
    section = STABILITY if kind.harmless else SOUND if part.modality == "audio" else PICTURE
    level = part.level if kind.levels else None
    return Place(section, part.kind, level, 0 if level is None else kind.severity(level))


def full_subset(rows: Sequence[Row], run: str) -> str:
    """The largest subset of modalities that a run was tested with: all of its own, where nothing else was asked."""
    return max(dict.fromkeys(row.modalities for row in rows if row.run == run), key=lambda name: name.count("+"))
