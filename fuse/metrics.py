"""What predictions are worth: pure functions of arrays, and of one evaluation's `Predictions`.

Recalls come from the confusion counts: scikit-learn takes 2 ms for what a count takes microseconds, and a
table asks for every speaker of every seed. The tests hold each number equal to scikit-learn's.
Shapes: N clips, C classes (the emotions of `LABELS`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import classification_report

from cache.clips import LABELS
from fuse.predictions import Predictions

Metric = Callable[[NDArray[np.int64], NDArray[np.int64]], float]


def confusion_counts(label_N: NDArray[np.int64], predicted_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Clips by true class (row) and predicted class (column), of shape (8, 8), in the order of `LABELS`.

    Raises:
        ValueError: there are no clips, or the two arrays differ in length.
    """
    if len(label_N) != len(predicted_N):
        raise ValueError(f"{len(label_N)} labels but {len(predicted_N)} predictions")
    if not len(label_N):
        raise ValueError("no clips to score: the selection of predictions is empty")
    classes = len(LABELS)
    counts: NDArray[np.int64] = np.bincount(
        np.asarray(label_N) * classes + np.asarray(predicted_N), minlength=classes * classes
    ).reshape(classes, classes)
    return counts


def accuracy(label_N: NDArray[np.int64], predicted_N: NDArray[np.int64]) -> float:
    """Share of clips whose class is right, 0 to 1."""
    counts_CC = confusion_counts(label_N, predicted_N)
    return float(np.trace(counts_CC) / counts_CC.sum())


def per_class_recall(label_N: NDArray[np.int64], predicted_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Recall of each class, of shape (8,); NaN for a class that no clip has."""
    counts_CC = confusion_counts(label_N, predicted_N)
    clips_C = counts_CC.sum(axis=1)
    recall_C = np.full(len(LABELS), np.nan)
    np.divide(np.diagonal(counts_CC), clips_C, out=recall_C, where=clips_C > 0)
    return recall_C


def uar(label_N: NDArray[np.int64], predicted_N: NDArray[np.int64]) -> float:
    """Unweighted average recall, 0 to 1: the mean recall over the classes that the clips have.

    Chance is 1 over the number of those classes, however unbalanced they are (Schuller et al., "The
    INTERSPEECH 2009 Emotion Challenge", 2009).
    """
    return float(np.nanmean(per_class_recall(label_N, predicted_N)))


def speaker_scores(predictions: Predictions, metric: Metric) -> dict[str, float]:
    """Each speaker's score in one evaluation, by speaker, numbers in numerical order.

    Where there are several seeds, a speaker's score is the mean of that speaker's scores over the seeds.
    The UAR of one speaker is the mean recall over the classes which that speaker has.
    """
    by_seed = seeds_of(predictions)
    scores: dict[str, float] = {}
    for speaker in _speakers(predictions):
        each = [part.select(speaker=speaker) for part in by_seed]
        scores[speaker] = float(np.mean([metric(part.label, part.predicted) for part in each]))
    return scores


def summarise(predictions: Predictions) -> dict[str, Any]:
    """UAR, accuracy and the clips, speakers and seeds that they rest on, for one evaluation.

    Folds are pooled: each clip counts once per seed. Several seeds are reported as the mean of their scores
    with the standard deviation (n - 1) of their UARs, which is None for a single seed.
    """
    by_seed = seeds_of(predictions)
    uars = [uar(part.label, part.predicted) for part in by_seed]
    accuracies = [accuracy(part.label, part.predicted) for part in by_seed]
    return {
        "uar": float(np.mean(uars)),
        "accuracy": float(np.mean(accuracies)),
        "clips": len(np.unique(predictions.clip_id)),
        "speakers": len(np.unique(predictions.speaker)),
        "seeds": len(by_seed),
        "uar_sd_over_seeds": float(np.std(uars, ddof=1)) if len(uars) > 1 else None,
    }


def classification_text(predictions: Predictions) -> str:
    """scikit-learn's report by emotion, opened by what it rests on; seeds are pooled.

    Emotions that no clip has are left out, so that "macro avg" of recall is the UAR.
    """
    summary = summarise(predictions)
    present = np.unique(predictions.label)
    table: str = classification_report(
        predictions.label,
        predictions.predicted,
        labels=present,
        target_names=[LABELS[index] for index in present],
        digits=3,
        zero_division=0,
    )
    scores = f"UAR {summary['uar']:.3f}, accuracy {summary['accuracy']:.3f}"
    return f"{described(summary)}: {scores}\n\n{table}"


def described(summary: dict[str, Any]) -> str:
    """What a summary rests on, in words: "240 clips, 4 speakers, 5 seeds"."""
    words = [
        f"{summary[name]} {name if summary[name] != 1 else name.removesuffix('s')}"
        for name in ("clips", "speakers", "seeds")
    ]
    return ", ".join(words)


def seeds_of(predictions: Predictions) -> list[Predictions]:
    """One evaluation's predictions, seed by seed, each with its folds pooled.

    Raises:
        ValueError: there are no predictions; they mix splits, conditions or modality subsets; a test clip
            counts twice for one seed; or seeds rest on different clips.
    """
    if not len(predictions):
        raise ValueError("no clips to score: the selection of predictions is empty")
    for name in ("split", "condition", "modalities", "protocol"):
        found = np.unique(getattr(predictions, name)).tolist()
        if len(found) > 1:
            raise ValueError(f"predictions mix {name} {' and '.join(map(str, found))}; select one, score one")
    parts = [predictions.select(seed=int(seed)) for seed in np.unique(predictions.seed)]
    clips = [Counter(part.clip_id.tolist()) for part in parts]
    # Leave-one-speaker-out validates on each speaker in two folds; a test clip has one fold only.
    twice = [clip for clip, times in clips[0].items() if times > 1 and predictions.split[0] == "test"]
    if twice:
        raise ValueError(f"clip {twice[0]} is tested in several folds of one seed; each clip counts once")
    for part, found in zip(parts, clips, strict=True):
        if found != clips[0]:
            first, other = int(parts[0].seed[0]), int(part.seed[0])
            sizes = f"seed {first} has {len(parts[0])} predictions, seed {other} has {len(part)}"
            raise ValueError(f"seeds rest on different clips ({sizes}); finish the missing runs first")
    return parts


def _speakers(predictions: Predictions) -> list[str]:
    names: list[str] = np.unique(predictions.speaker).tolist()
    return sorted(names, key=lambda name: (0, int(name), "") if name.isdecimal() else (1, 0, name))
