"""What predictions are worth: pure functions of arrays, and of one evaluation's `Predictions`.

Recalls come from the confusion counts: scikit-learn takes 2 ms for what a count takes microseconds, and a
table asks for every speaker of every seed. The tests hold each number equal to scikit-learn's.
Shapes: N clips, C classes (the labels of the corpus).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.names import by_number
from fuse.scores.calibration import BINS, area_under_risk_coverage, brier_score, expected_calibration_error
from fuse.scores.predictions import Predictions

Metric = Callable[[NDArray[np.int64], NDArray[np.int64]], float]


def confusion_counts(
    label_N: NDArray[np.int64], predicted_N: NDArray[np.int64], classes: int | None = None
) -> NDArray[np.int64]:
    """Clips by true class (row) and predicted class (column), of shape (C, C), in the order of the labels.

    Args:
        label_N: number of each clip's class; `predicted_N` alike.
        classes: C; None: up to the highest number that occurs.

    Raises:
        ValueError: there are no clips, or the two arrays differ in length.
    """
    if len(label_N) != len(predicted_N):
        raise ValueError(f"{len(label_N)} labels but {len(predicted_N)} predictions")
    if not len(label_N):
        raise ValueError("no clips to score: the selection of predictions is empty")
    if classes is None:
        classes = int(max(np.max(label_N), np.max(predicted_N))) + 1
    counts: NDArray[np.int64] = np.bincount(
        np.asarray(label_N) * classes + np.asarray(predicted_N), minlength=classes * classes
    ).reshape(classes, classes)
    return counts


def accuracy(label_N: NDArray[np.int64], predicted_N: NDArray[np.int64]) -> float:
    """Share of clips whose class is right, 0 to 1."""
    counts_CC = confusion_counts(label_N, predicted_N)
    return float(np.trace(counts_CC) / counts_CC.sum())


def uar(label_N: NDArray[np.int64], predicted_N: NDArray[np.int64]) -> float:
    """Unweighted average recall, 0 to 1: the mean recall over the classes that the clips have.

    Chance is 1 over the number of those classes, however unbalanced they are (Schuller et al., "The
    INTERSPEECH 2009 Emotion Challenge", 2009).
    """
    counts_CC = confusion_counts(label_N, predicted_N)
    clips_C = counts_CC.sum(axis=1)
    present = clips_C > 0
    return float(np.mean(np.diagonal(counts_CC)[present] / clips_C[present]))


def macro_f1(label_N: NDArray[np.int64], predicted_N: NDArray[np.int64]) -> float:
    """Mean F1 over the classes that the clips have, 0 to 1.

    Of the two definitions that go by this name it is the mean of F1 scores, not the F1 of mean precision and mean
    recall (Opitz & Burst, "Macro F1 and Macro F1", 2019, arXiv 1911.03347).
    """
    counts_CC = confusion_counts(label_N, predicted_N)
    clips_C, predicted_C = counts_CC.sum(axis=1), counts_CC.sum(axis=0)
    present = clips_C > 0
    # F1 = 2 TP / (2 TP + FP + FN), and that sum is the clips of the class plus those called it.
    return float(np.mean(2 * np.diagonal(counts_CC)[present] / (clips_C + predicted_C)[present]))


def speaker_scores(predictions: Predictions, metric: Metric) -> dict[str, float]:
    """Each speaker's score in one evaluation, by speaker, numbers in numerical order.

    Where there are several seeds, a speaker's score is the mean of that speaker's scores over the seeds.
    The UAR of one speaker is the mean recall over the classes which that speaker has.
    """
    by_seed = seeds_of(predictions)
    scores: dict[str, float] = {}
    for speaker in by_number(set(predictions.speaker.tolist())):
        # Two columns, not all twelve: a table asks for every speaker of every seed.
        each = [(part, part.speaker == speaker) for part in by_seed]
        scores[speaker] = float(np.mean([metric(part.label[rows], part.predicted[rows]) for part, rows in each]))
    return scores


def summarise(predictions: Predictions) -> dict[str, Any]:
    """UAR and the other scores of one evaluation, and the clips, speakers and seeds that they rest on.

    Folds are pooled: each clip counts once per seed. Several seeds are reported as the mean of their scores, never
    the best of them, with the standard deviation (n - 1) under `<score>_sd_over_seeds`: None for a single seed.
    Scores: uar, accuracy, macro_f1, and those of `fuse.scores.calibration`: ece, brier (0 to 2), aurc.
    """
    by_seed = seeds_of(predictions)
    scores = {name: [score(part) for part in by_seed] for name, score in _SCORES.items()}
    return {
        **{name: float(np.mean(values)) for name, values in scores.items()},
        "clips": len(np.unique(predictions.clip_id)),
        "speakers": len(np.unique(predictions.speaker)),
        "seeds": len(by_seed),
        **{f"{name}_sd_over_seeds": _sd(values) for name, values in scores.items()},
    }


def classification_text(predictions: Predictions) -> str:
    """scikit-learn's report by label, below the numbers of clips, speakers and seeds; seeds are pooled.

    Labels that no clip has are left out, so that "macro avg" of recall is the UAR. A last line says how far the
    probabilities can be trusted.
    """
    # Here and not above: scikit-learn takes a second, and every command that knows a score would wait for it.
    from sklearn.metrics import classification_report

    summary = summarise(predictions)
    present = np.unique(predictions.label)
    table: str = classification_report(
        predictions.label,
        predictions.predicted,
        labels=present,
        target_names=[predictions.label_names[index] for index in present],
        digits=3,
        zero_division=0,
    )
    scores = f"UAR {summary['uar']:.3f}, accuracy {summary['accuracy']:.3f}"
    calibration = (
        f"Calibration: ECE {summary['ece']:.3f} ({BINS} bins), Brier score {summary['brier']:.3f} (0 to 2), "
        f"area under the risk-coverage curve {summary['aurc']:.3f}; lower is better.\n"
    )
    return f"{described(summary)}: {scores}\n\n{table}\n{calibration}"


def uar_in_words(classes: int) -> str:
    """What stands below every table of UAR: what it is, and what a guess among so many labels would score."""
    return f"UAR: mean recall over the emotions; chance is {100 / classes:.3g} %."


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


def _sd(values: list[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


_SCORES: dict[str, Callable[[Predictions], float]] = {
    "uar": lambda part: uar(part.label, part.predicted),
    "accuracy": lambda part: accuracy(part.label, part.predicted),
    "macro_f1": lambda part: macro_f1(part.label, part.predicted),
    "ece": lambda part: expected_calibration_error(part.probabilities_NC, part.label),
    "brier": lambda part: brier_score(part.probabilities_NC, part.label),
    "aurc": lambda part: area_under_risk_coverage(part.probabilities_NC, part.label),
}
