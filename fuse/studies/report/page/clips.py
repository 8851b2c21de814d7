"""Which clips one looks at, and what runs say of them under every condition.

Shape letters: C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fuse.predict.contributions import Subset, shapley_values, subsets
from fuse.runs.checkpoint import read_checkpoint
from fuse.runs.folder import CHECKPOINT
from fuse.runs.predict import predict
from fuse.scores.predictions import Predictions
from fuse.studies.report.page.evidence import DIGITS, Row, mean_probabilities, rounded
from fuse.studies.report.page.subjects import Subject

Probabilities = npt.NDArray[np.float64]
# Of the most wrong and of the most certain, before every label has its clip.
OF_EACH = 2


@dataclass(frozen=True)
class Chosen:
    """A clip of a test speaker; `why` it was chosen, in words."""

    clip_id: str
    speaker: str
    label: str
    why: str


def choose(subject: Subject, count: int) -> list[Chosen]:
    """The clips whose answers are the most wrong and the most certain, and a middling one of every label.

    Wrong is an answer that gives the true label little; certain one that gives its label much, right or not; middling a
    clip whose true label has the median probability of that label's clips. All modalities given, clean, mean of seeds.
    """
    part = subject.under(subject.conditions[0])
    mean = mean_probabilities(part)
    place = {clip_id: row for row, clip_id in enumerate(part.clip_id.tolist())}
    labels = {clip_id: int(part.label[place[clip_id]]) for clip_id in mean}
    truth = {clip_id: float(mean[clip_id][labels[clip_id]]) for clip_id in mean}
    wrong = sorted((one for one in mean if int(mean[one].argmax()) != labels[one]), key=lambda one: truth[one])
    certain = sorted(mean, key=lambda one: -float(mean[one].max()))
    middling = [_middling(part.label_names[label], truth, labels, label) for label in sorted(set(labels.values()))]
    ranked = [(one, "among the most wrong") for one in wrong[:OF_EACH]]
    ranked += [(one, "among the most certain") for one in certain[:OF_EACH]]
    ranked += middling
    ranked += [(one, "among the most wrong") for one in wrong[OF_EACH:]]
    ranked += [(one, "among the most certain") for one in certain[OF_EACH:]]
    reasons: dict[str, str] = {}
    for clip_id, why in ranked:
        reasons.setdefault(clip_id, why)
    return [
        Chosen(clip_id, str(part.speaker[place[clip_id]]), part.label_names[labels[clip_id]], why)
        for clip_id, why in list(reasons.items())[:count]
    ]


def _middling(name: str, truth: Mapping[str, float], labels: Mapping[str, int], label: int) -> tuple[str, str]:
    ranked = sorted((one for one in truth if labels[one] == label), key=lambda one: truth[one])
    return ranked[(len(ranked) - 1) // 2], f"a middling clip of {name}"


def probability_rows(subject: Subject, chosen: Sequence[Chosen]) -> Iterator[Row]:
    """What a run says of each clip under every condition, all modalities given; mean over seeds."""
    ids = {one.clip_id for one in chosen}
    for condition in subject.conditions:
        mean = mean_probabilities(_of(subject.under(condition), ids))
        for clip_id, probabilities_C in mean.items():
            named = {"run": subject.name, "clip": clip_id, "condition": condition}
            yield {**named, "probabilities": np.round(probabilities_C, DIGITS).tolist()}


def contribution_rows(subject: Subject, chosen: Sequence[Chosen], nothing: Callable[[str], Probabilities]) -> list[Row]:
    """What each modality added to the probability of the answer, under every condition; no rows without all subsets.

    Args:
        subject: the run; subsets that a condition does not touch answer as for clean clips.
        chosen: the clips.
        nothing: by clip id, what the run says of a clip of which it has nothing, (C,).
    """
    names = subject.modalities.split("+")
    tried = set(subject.test.modalities.tolist())
    needed = {"+".join(name for name in names if name in subset) for subset in subsets(names) if subset}
    if len(names) < 2 or not needed <= tried:
        return []
    ids = {one.clip_id for one in chosen}
    rows: list[Row] = []
    clean = _by_subset(subject.test.select(condition=subject.conditions[0]), ids)
    for condition in subject.conditions:
        under = {**clean, **_by_subset(subject.test.select(condition=condition), ids)}
        for clip_id in sorted(ids & under[frozenset(names)].keys()):
            worth_C = {subset: of_clip[clip_id] for subset, of_clip in under.items()}
            worth_C[frozenset()] = nothing(clip_id)
            rows += _shares(subject, clip_id, condition, worth_C, names)
    return rows


def _shares(
    subject: Subject, clip_id: str, condition: str, worth_C: Mapping[Subset, Probabilities], names: Sequence[str]
) -> Iterator[Row]:
    best = int(worth_C[frozenset(names)].argmax())
    values = shapley_values({subset: float(one_C[best]) for subset, one_C in worth_C.items()}, names)
    answer = subject.test.label_names[best]
    for modality, value in values.items():
        named = {"run": subject.name, "clip": clip_id, "condition": condition, "answer": answer, "modality": modality}
        yield {**named, **rounded({"value": value})}


def nothing_given(subject: Subject) -> Callable[[str], Probabilities]:
    """What a run says of a clip of which every modality is withheld, by the folds and seeds that are tested on it."""
    of_run: dict[tuple[int, int], Probabilities] = {}
    for leaf in subject.leaves:
        kept = read_checkpoint(leaf / CHECKPOINT)
        head = kept.head()
        withheld = {name: torch.full((1, width), torch.nan) for name, width in head.widths.items()}
        of_run[kept.fold.number, kept.seed] = predict(head, withheld)[0]
    tested: dict[str, set[tuple[int, int]]] = {}
    for clip_id, fold, seed in zip(subject.test.clip_id, subject.test.fold, subject.test.seed, strict=True):
        tested.setdefault(str(clip_id), set()).add((int(fold), int(seed)))

    def of_clip(clip_id: str) -> Probabilities:
        mean_C: Probabilities = np.mean([of_run[key] for key in sorted(tested[clip_id])], axis=0)
        return mean_C

    return of_clip


def _by_subset(part: Predictions, ids: set[str]) -> dict[Subset, dict[str, Any]]:
    chosen = _of(part, ids)
    return {
        frozenset(str(subset).split("+")): mean_probabilities(chosen.select(modalities=str(subset)))
        for subset in np.unique(chosen.modalities)
    }


def _of(part: Predictions, ids: set[str]) -> Predictions:
    return part.take(np.isin(part.clip_id, sorted(ids)))
