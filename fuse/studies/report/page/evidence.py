"""What a page shows of runs, as rows for charts: every number follows from predictions alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cache.conditions import CLEAN, KINDS, Condition
from cache.names import by_number
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
    """By kind of condition, UAR by level, the mildest first and clean before it; kinds without levels together."""
    families: dict[str, list[tuple[Condition, Score]]] = {}
    for score in scores:
        parts = parts_of(score.condition)
        if len(parts) == 1 and score.condition != CLEAN:
            has_levels = KINDS[parts[0].kind].levels is not None
            families.setdefault(parts[0].kind if has_levels else OTHER_KINDS, []).append((parts[0], score))
    clean = {(one.run, one.modalities): one for one in scores if one.condition == CLEAN}
    return {kind: list(_levels(found, clean)) for kind, found in sorted(families.items(), key=_last)}


OTHER_KINDS = "without levels"


def _last(item: tuple[str, Any]) -> tuple[bool, str]:
    return item[0] == OTHER_KINDS, item[0]


def _levels(found: Sequence[tuple[Condition, Score]], clean: dict[tuple[str, str], Score]) -> Iterator[Row]:
    for one in dict.fromkeys((score.run, score.modalities) for _, score in found):
        if one in clean:
            yield {**clean[one].row, "level": CLEAN, "order": MILDEST}
    # Kinds without levels have the same number each: they stand as they come.
    for condition, score in found:
        order = KINDS[condition.kind].severity(condition.level)
        yield {**score.row, "level": level_in_words(condition), "order": order}


def level_in_words(condition: Condition) -> str:
    """ "-5 dB", "600 ms", "50 %"; the kind where it has no levels."""
    kind = KINDS[condition.kind]
    return f"{condition.level} {UNITS.get(kind.unit, kind.unit)}" if kind.levels else condition.kind


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
    """Clips by true and predicted label under every condition, all modalities given; folds and seeds are summed."""
    names = subject.test.label_names
    for condition in subject.conditions:
        part = subject.under(condition)
        counts_CC = confusion_counts(part.label, part.predicted, len(names))
        for true, predicted in zip(*np.nonzero(counts_CC), strict=True):
            count, clips = int(counts_CC[true, predicted]), int(counts_CC[true].sum())
            shown = {"true": names[true], "predicted": names[predicted], "count": count, "share": count / clips}
            yield {"run": subject.name, "condition": condition, **rounded(shown)}


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
        "condition": score.condition,
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
