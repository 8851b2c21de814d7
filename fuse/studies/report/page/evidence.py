"""What a page shows of runs, as rows for charts: every number follows from predictions alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cache.conditions import CLEAN, KINDS
from cache.names import by_number
from fuse.robustness.missing import MISSING
from fuse.robustness.rows import PICTURE, SECTIONS, SOUND, Place, place_of
from fuse.scores.calibration import BINS, reliability_bins
from fuse.scores.intervals import uar_interval
from fuse.scores.jackknife import tallies
from fuse.scores.metrics import confusion_counts, speaker_scores, summarise, uar
from fuse.scores.predictions import Predictions
from fuse.scores.speakers import speaker_sexes, spread_of
from fuse.studies.report.page.subjects import Subject, parts_of

Row = dict[str, Any]
UNITS = {"db": "dB", "": "%"}
DIGITS = 4
# Before every severity.
MILDEST = -10_000
CURVES = (SOUND, PICTURE, MISSING)
OTHER_KINDS = "without levels"


@dataclass(frozen=True)
class Score:
    """One run under one condition with one subset of its modalities; shares, as in `fuse.scores.metrics.summarise`."""

    run: str
    modalities: str
    condition: str
    summary: dict[str, Any]
    low: float | None
    high: float | None

    @property
    def row(self) -> Row:
        """For charts."""
        named = {"run": self.run, "modalities": self.modalities, "condition": self.condition}
        values = {"uar": self.summary["uar"], "ece": self.summary["ece"]}
        return {**named, **rounded({**values, "low": self.low, "high": self.high}), "clips": self.summary["clips"]}


def scores_of(subject: Subject) -> list[Score]:
    """Every condition and subset that was tried, in the order of the predictions."""
    pairs = dict.fromkeys(zip(subject.test.condition.tolist(), subject.test.modalities.tolist(), strict=True))
    return [_score(subject, condition, subset) for condition, subset in pairs]


def _score(subject: Subject, condition: str, subset: str) -> Score:
    part = subject.test.select(condition=condition, modalities=subset)
    interval = uar_interval(tallies(part))
    ends = (interval.low, interval.high) if interval else (None, None)
    return Score(subject.name, subset, condition, summarise(part), *ends)


def family_rows(scores: Sequence[Score]) -> dict[str, list[Row]]:
    """By family, UAR by level, the mildest first and clean before it; kinds without levels together.

    Conditions of sound, of the picture, and modalities that clips lack at random; not what changes nothing but answers.
    """
    families: dict[str, list[tuple[Place, Score]]] = {}
    for score in scores:
        place = placed(score.condition)
        if place is not None and place.section in CURVES:
            families.setdefault(OTHER_KINDS if place.level is None else place.family, []).append((place, score))
    clean = {(one.run, one.modalities): one for one in scores if one.condition == CLEAN}
    return {family: list(_levels(found, clean)) for family, found in sorted(families.items(), key=_order)}


def placed(condition: str) -> Place | None:
    """Where a condition stands in the robustness table; None for a name that it does not know."""
    try:
        return place_of(condition)
    except ValueError:
        return None


def _order(item: tuple[str, Sequence[tuple[Place, Score]]]) -> tuple[bool, int, str]:
    family, ((first, _), *_) = item
    return family == OTHER_KINDS, SECTIONS.index(first.section), family


def _levels(found: Sequence[tuple[Place, Score]], clean: dict[tuple[str, str], Score]) -> Iterator[Row]:
    for one in dict.fromkeys((score.run, score.modalities) for _, score in found):
        if one in clean:
            yield {**clean[one].row, "level": CLEAN, "order": MILDEST}
    # Kinds without levels are equally severe: they stand as they come.
    for place, score in found:
        yield {**score.row, "level": level_in_words(place), "order": place.severity}


def level_in_words(place: Place) -> str:
    """ "-5 dB", "600 ms", "50 %"; the kind where it has no levels."""
    if place.level is None:
        return place.family
    unit = KINDS[place.family].unit if place.family in KINDS else ""
    return f"{place.level} {UNITS.get(unit, unit)}"


def joint_rows(scores: Sequence[Score]) -> list[Row]:
    """Sound by picture: joint conditions, and the single ones along the edges; empty where nothing is joint."""
    named = [(score, {part.modality: part.name for part in parts_of(score.condition)}) for score in scores]
    joint = [parts for _, parts in named if len(parts) > 1]
    sounds, pictures = ({parts[name] for parts in joint} | {CLEAN} for name in ("audio", "video"))
    rows = []
    for score, parts in named:
        sound, picture = parts.get("audio", CLEAN), parts.get("video", CLEAN)
        if parts and joint and sound in sounds and picture in pictures:
            rows.append({**score.row, "sound": sound, "picture": picture})
    return rows


def confusion_rows(subject: Subject) -> Iterator[Row]:
    """Clips of every true label by predicted one, under every condition, all modalities given.

    Folds and seeds are summed; a label that no clip has stands in no row.
    """
    names = subject.test.label_names
    for condition in subject.conditions:
        part = subject.under(condition)
        counts_CC = confusion_counts(part.label, part.predicted, len(names))
        for true, counts_C in zip(names, counts_CC.tolist(), strict=True):
            if clips := sum(counts_C):
                yield {"run": subject.name, "condition": condition, "true": true, "clips": clips, "counts": counts_C}


def reliability_rows(subject: Subject) -> Iterator[Row]:
    """How often answers of about equal confidence are right, by condition; seeds are pooled."""
    for condition in subject.conditions:
        part = subject.under(condition)
        found = reliability_bins(part.probabilities_NC, part.label)
        for place in np.flatnonzero(found.clips_B).tolist():
            values = {"confidence": found.confidence_B[place], "accuracy": found.accuracy_B[place]}
            yield {
                "run": subject.name,
                "condition": condition,
                "answers": int(found.clips_B[place]),
                "bin": f"{100 * place / BINS:.0f} to {100 * (place + 1) / BINS:.0f} %",
                **rounded(values),
            }


def speaker_rows(subject: Subject) -> Iterator[Row]:
    """Each speaker's UAR, by condition."""
    sexes = speaker_sexes(subject.test)
    for condition in subject.conditions:
        part = subject.under(condition)
        for place, (speaker, score) in enumerate(speaker_scores(part, uar).items()):
            known = {"speaker": speaker, "sex": sexes[speaker] or "not known", "order": place}
            yield {"run": subject.name, "condition": condition, **known, **rounded({"uar": score})}


def summary_row(subject: Subject, score: Score) -> Row:
    """A run's line in the first table, in per cents."""
    part = subject.test.select(condition=score.condition, modalities=score.modalities)
    spread = spread_of(speaker_scores(part, uar), speaker_sexes(part))
    names = {"accuracy": "accuracy %", "macro_f1": "macro F1 %", "ece": "ECE %"}
    scores = {shown: 100 * score.summary[name] for name, shown in names.items()}
    interval = "" if score.low is None or score.high is None else f"{100 * score.low:.1f} to {100 * score.high:.1f}"
    gap = None if spread.female_minus_male is None else 100 * spread.female_minus_male
    row = {
        "run": subject.name,
        "UAR %": 100 * score.summary["uar"],
        "95 %": interval,
        **scores,
        "Brier": f"{score.summary['brier']:.3f}",
        "worst speaker %": 100 * spread.worst_score,
        "gap, points": gap,
        **{name: score.summary[name] for name in ("clips", "speakers", "seeds")},
        "modalities": subject.modalities,
        # All are clean, as a rule: a column that says so would stand where numbers could.
        "condition": "" if score.condition == CLEAN else score.condition,
    }
    return {name: value for name, value in row.items() if value not in ("", None)}


def all_conditions(subjects: Sequence[Subject]) -> list[str]:
    """Of all runs together, clean first."""
    return list(dict.fromkeys(name for one in subjects for name in one.conditions))


def all_subsets(subjects: Sequence[Subject]) -> list[str]:
    """Subsets of modalities, the largest first."""
    found = dict.fromkeys(str(name) for one in subjects for name in one.test.modalities)
    return sorted(found, key=lambda name: -name.count("+"))


def mean_probabilities(part: Predictions) -> dict[str, Any]:
    """By clip, the mean over folds and seeds of its probabilities, (C,): how a run of several seeds answers."""
    sums: dict[str, list[Any]] = {}
    for clip_id, probabilities_C in zip(part.clip_id.tolist(), part.probabilities_NC, strict=True):
        sums.setdefault(clip_id, []).append(probabilities_C)
    return {clip_id: np.mean(sums[clip_id], axis=0) for clip_id in by_number(sums)}


def rounded(values: dict[str, Any]) -> Row:
    """Floats with as many digits as can be seen."""
    return {name: round(float(one), DIGITS) if isinstance(one, float) else one for name, one in values.items()}
