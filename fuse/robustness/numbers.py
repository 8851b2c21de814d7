"""The numbers of the robustness table, from predictions alone: a row per run, subset and condition, and group means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cache.conditions import CLEAN
from cache.corpus.labels import label_difference
from fuse.robustness.missing import MISSING
from fuse.robustness.rows import (
    CORRUPTED,
    CORRUPTIONS,
    PICTURE,
    SECTIONS,
    SOUND,
    BySpeaker,
    Group,
    RobustnessTable,
    Row,
    place_of,
)
from fuse.scores.intervals import uar_interval
from fuse.scores.jackknife import tallies
from fuse.scores.metrics import speaker_scores, summarise, uar
from fuse.scores.paired_test import compare, difference
from fuse.scores.predictions import Predictions
from fuse.scores.robustness import (
    changed_share,
    corruption_error,
    effective_robustness,
    mean_of_known,
    relative_corruption_error,
    relative_drop,
    relative_robustness,
)
from fuse.scores.speakers import speaker_sexes, spread_of

Key = tuple[str, str, str]
# Those whose levels make a curve from clean clips on.
CURVES = (SOUND, PICTURE, MISSING)


@dataclass(frozen=True)
class Evaluated:
    """A run's predictions for its test speakers under every condition and subset.

    `caveats`: what must be said of them; `caption`: what run it is; `wer`: word error rate by condition; `same_words`:
    every statement of the corpus is said with every label, so that words cannot tell the label.
    """

    name: str
    predictions: Predictions
    caveats: str = ""
    caption: str = ""
    wer: Mapping[str, float] = field(default_factory=dict)
    same_words: bool = False


def table_of(evaluated: Sequence[Evaluated], reference: str = "", baseline: str = "") -> RobustnessTable:
    """The table of these runs; the arguments are those of `rows_of`.

    Raises:
        ValueError: the runs know different labels.
    """
    rows = rows_of(evaluated, reference, baseline)
    return RobustnessTable(tuple(rows), tuple(groups_of(rows, baseline)), reference, baseline, _classes(evaluated))


def rows_of(evaluated: Sequence[Evaluated], reference: str = "", baseline: str = "") -> list[Row]:
    """Every row of the table, run by run, subset by subset, in the order of the predictions.

    Args:
        evaluated: the runs, of different names.
        reference: the run that others are compared with by `difference` and `p`; "": none.
        baseline: the run that errors are divided by; "": none.
    """
    parts = {(one.name, *key): part for one in evaluated for key, part in evaluations(one.predictions).items()}
    scored = {key: _row(key, part, parts[(*key[:2], CLEAN)]) for key, part in parts.items()}
    errors = {key[1:]: 1 - row.uar for key, row in scored.items() if key[0] == baseline}
    wer = {one.name: one.wer for one in evaluated}
    rows = {}
    for key, row in scored.items():
        clean = scored[(*key[:2], CLEAN)].uar
        rows[key] = replace(
            row,
            wer=wer[row.run].get(row.condition),
            relative_drop=relative_drop(clean, clean - row.drop) if row.drop is not None else None,
            corruption_error=corruption_error([1 - row.uar], [errors[key[1:]]]) if key[1:] in errors else None,
        )
    for key, found in compare(_pairs(parts, reference)).items():
        rows[key] = replace(rows[key], difference=found.estimate, p=found.p, p_holm=found.p_holm)
    return list(rows.values())


def evaluations(predictions: Predictions) -> dict[tuple[str, str], Predictions]:
    """The predictions of each subset of modalities under each condition, in the order in which they first appear."""
    subset_U, subset_N = np.unique(predictions.modalities, return_inverse=True)
    condition_U, condition_N = np.unique(predictions.condition, return_inverse=True)
    subsets, conditions = (list(dict.fromkeys(column.tolist())) for column in (subset_N, condition_N))
    found = {}
    for subset in subsets:
        for condition in conditions:
            rows_N = (subset_N == subset) & (condition_N == condition)
            if rows_N.any():
                found[str(subset_U[subset]), str(condition_U[condition])] = predictions.take(rows_N)
    return found


def groups_of(rows: Sequence[Row], baseline: str = "") -> list[Group]:
    """Each family of each run and subset, the mean over each section's families, and over those of all corruptions."""
    found = []
    for run, subset in dict.fromkeys((row.run, row.modalities) for row in rows):
        own = _under(rows, run, subset)
        families = list(_families(own, _under(rows, baseline, subset), baseline != ""))
        for section in SECTIONS:
            inside = [group for group in families if group.section == section]
            found += [*inside, *_mean_over(inside, section)]
        found += _mean_over([group for group in families if group.section in CORRUPTED], CORRUPTIONS)
    return found


def curve_of(own: Mapping[str, Row], family: str) -> list[Row]:
    """Clean clips, then the levels of a family from the mildest to the most severe; empty where it has no levels.

    Args:
        own: one run's rows of one subset, by condition.
        family: its name.
    """
    levels = [row for row in own.values() if row.family == family and row.level is not None and row.section in CURVES]
    ordered = sorted(levels, key=lambda row: place_of(row.condition).severity)
    return [own[CLEAN], *ordered] if ordered else []


def _classes(evaluated: Sequence[Evaluated]) -> int:
    """How many labels the runs know; scores of runs that know different ones do not belong in one table."""
    first, *others = evaluated
    for one in others:
        if differs := label_difference(first.predictions.label_names, one.predictions.label_names):
            raise ValueError(f"runs: {one.name} knows other labels than {first.name} ({differs}); give each a table")
    return len(first.predictions.label_names)


def _row(key: Key, rows: Predictions, clean: Predictions) -> Row:
    run, subset, condition = key
    scores = speaker_scores(rows, uar)
    summary, interval, spread = summarise(rows), uar_interval(tallies(rows)), spread_of(scores, speaker_sexes(rows))
    drop = difference(clean, rows) if condition != CLEAN else None
    drop_interval = drop.interval if drop else None
    place = place_of(condition)
    return Row(
        run=run,
        modalities=subset,
        condition=condition,
        uar=summary["uar"],
        accuracy=summary["accuracy"],
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        drop=drop.estimate if drop else None,
        drop_low=drop_interval.low if drop_interval else None,
        drop_high=drop_interval.high if drop_interval else None,
        clips=summary["clips"],
        speakers=summary["speakers"],
        seeds=summary["seeds"],
        sd_over_seeds=summary["uar_sd_over_seeds"],
        speakers_uar=BySpeaker(scores),
        section=place.section,
        family=place.family,
        level=place.level,
        worst_speaker=spread.worst_speaker,
        worst_speaker_uar=spread.worst_score,
        female_minus_male=spread.female_minus_male,
        ece=summary["ece"],
        brier=summary["brier"],
        changed=changed_share(clean, rows) if condition != CLEAN else None,
    )


def _pairs(parts: Mapping[Key, Predictions], reference: str) -> dict[Key, tuple[Predictions, Predictions]]:
    """Each other run's evaluation beside the reference's of the same subset and condition, over the same speakers."""
    pairs = {}
    for key, part in parts.items():
        other = parts.get((reference, *key[1:]))
        if key[0] != reference and other is not None and _same_speakers(part, other):
            pairs[key] = (part, other)
    return pairs


def _same_speakers(first: Predictions, second: Predictions) -> bool:
    shared = np.intersect1d(first.clip_id, second.clip_id)
    speakers = {speaker for part in (first, second) for speaker in part.speaker.tolist()}
    return speakers == set(first.speaker[np.isin(first.clip_id, shared)].tolist())


def _under(rows: Sequence[Row], run: str, subset: str) -> dict[str, Row]:
    return {row.condition: row for row in rows if (row.run, row.modalities) == (run, subset)}


def _families(own: Mapping[str, Row], other: Mapping[str, Row], compared: bool) -> Iterator[Group]:
    """A group for each family of one run and subset; `other`: the baseline's rows, which may lack some conditions."""
    for family in dict.fromkeys(row.family for row in own.values() if row.section != CLEAN):
        rows = [row for row in own.values() if row.family == family]
        beside = [other[row.condition] for row in rows if row.condition in other]
        clean, first = own[CLEAN], rows[0]
        errors = relative = effective = None
        if compared and CLEAN in other and len(beside) == len(rows):
            lost, lost_there = [1 - row.uar for row in rows], [1 - row.uar for row in beside]
            errors = corruption_error(lost, lost_there)
            relative = relative_corruption_error(lost, 1 - clean.uar, lost_there, 1 - other[CLEAN].uar)
            scores, expected = ([row.uar for row in part] for part in ([clean, *rows], [other[CLEAN], *beside]))
            effective = effective_robustness(scores, expected)
        curve = curve_of(own, family)
        yield Group(
            *(first.run, first.modalities, first.section, family, len(rows)),
            **_means(rows),
            corruption_error=errors,
            relative_corruption_error=relative,
            relative_robustness=relative_robustness([row.uar for row in curve]) if curve else None,
            effective_robustness=effective,
        )


def _mean_over(families: Sequence[Group], section: str) -> list[Group]:
    """The mean over families, where there are any."""
    if not families:
        return []
    errors = ("corruption_error", "relative_corruption_error", "relative_robustness", "effective_robustness")
    first, conditions = families[0], sum(group.conditions for group in families)
    means: dict[str, Any] = {name: mean_of_known([getattr(group, name) for group in families]) for name in errors}
    return [Group(first.run, first.modalities, section, "", conditions, **_means(families), **means)]


def _means(parts: Sequence[Row] | Sequence[Group]) -> dict[str, Any]:
    names = ("uar", "accuracy", "drop", "relative_drop", "ece", "changed")
    return {name: mean_of_known([getattr(part, name) for part in parts]) for name in names}
