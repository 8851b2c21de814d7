from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from cache.corpus.ravdess import LABELS
from fuse.scores.metrics import (
    accuracy,
    classification_text,
    confusion_counts,
    macro_f1,
    speaker_scores,
    summarise,
    uar,
)
from fuse.scores.predictions import Predictions, concatenate


def evaluation(
    labels: Sequence[int],
    predicted: Sequence[int],
    speakers: Sequence[str] | None = None,
    *,
    ids: Sequence[str] | None = None,
    fold: int = 0,
    seed: int = 0,
    split: str = "test",
    condition: str = "clean",
) -> Predictions:
    clips = ids or [f"clip-{fold}-{index}" for index in range(len(labels))]
    return Predictions.of(
        clips,
        speakers or ["1"] * len(labels),
        ["female"] * len(labels),
        labels,
        np.eye(8)[list(predicted)],
        protocol="luna5",
        fold=fold,
        seed=seed,
        split=split,
        condition=condition,
        modalities="audio",
        label_names=LABELS,
    )


pairs = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_every_metric_equals_scikit_learn(rows: list[tuple[int, int]]) -> None:
    label, predicted = np.array(rows).T
    present = np.unique(label)
    mean = reference.recall_score(label, predicted, labels=present, average="macro")
    assert uar(label, predicted) == pytest.approx(mean, abs=1e-12)
    f1 = reference.f1_score(label, predicted, labels=present, average="macro", zero_division=0)
    assert macro_f1(label, predicted) == pytest.approx(f1, abs=1e-12)
    assert accuracy(label, predicted) == pytest.approx(reference.accuracy_score(label, predicted), abs=1e-12)
    counts = reference.confusion_matrix(label, predicted, labels=range(8))
    np.testing.assert_array_equal(confusion_counts(label, predicted, 8), counts)


def test_uar_leaves_out_absent_classes_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # neutral: 1 of 2, calm: 1 of 1; happy is predicted but no clip has it.
        assert uar(np.array([0, 0, 1]), np.array([0, 2, 1])) == 0.75


def test_macro_f1_is_the_mean_of_the_classes_f1() -> None:
    # neutral: 2 x 1 / (2 + 1 + 1), calm: 2 x 1 / (1 + 2); happy is predicted but no clip has it.
    assert macro_f1(np.array([0, 0, 1]), np.array([0, 1, 1])) == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert macro_f1(np.array([0, 0, 1]), np.array([0, 2, 1])) == pytest.approx((2 / 3 + 1) / 2)


def test_no_clips_is_an_error() -> None:
    with pytest.raises(ValueError, match="no clips to score"):
        accuracy(np.array([], dtype=int), np.array([], dtype=int))
    with pytest.raises(ValueError, match="no clips to score"):
        summarise(evaluation([0], [0]).select(split="validation"))


def test_arrays_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 labels but 1 predictions"):
        uar(np.array([0, 1]), np.array([0]))


def test_folds_are_pooled_before_scoring() -> None:
    # Recall of neutral over both folds: 1 of 4; a mean over folds would be (1 + 0) / 2.
    folds = concatenate([evaluation([0], [0], fold=0), evaluation([0, 0, 0], [1, 1, 1], fold=1)])
    summary = summarise(folds)
    assert (summary["uar"], summary["clips"], summary["seeds"]) == (0.25, 4, 1)
    assert summary["uar_sd_over_seeds"] is None


def test_seeds_are_averaged_and_each_clip_counts_once() -> None:
    seeds = concatenate([evaluation([0, 1], [0, 1], ["1", "2"]), evaluation([0, 1], [0, 0], ["1", "2"], seed=7)])
    summary = summarise(seeds)
    assert (summary["uar"], summary["accuracy"]) == (0.75, 0.75)
    assert (summary["clips"], summary["speakers"], summary["seeds"]) == (2, 2, 2)
    assert summary["uar_sd_over_seeds"] == pytest.approx(np.std([1.0, 0.5], ddof=1))


def test_every_score_is_a_mean_and_an_sd_over_seeds() -> None:
    seeds = [evaluation([0, 1, 1], predicted, seed=seed) for seed, predicted in enumerate(([0, 1, 1], [0, 1, 0]))]
    pooled, alone = summarise(concatenate(seeds)), [summarise(part) for part in seeds]
    for name in ("uar", "accuracy", "macro_f1", "ece", "brier", "aurc"):
        values = [one[name] for one in alone]
        assert values[0] != values[1]
        assert pooled[name] == pytest.approx(np.mean(values))
        assert pooled[f"{name}_sd_over_seeds"] == pytest.approx(np.std(values, ddof=1))
        assert alone[0][f"{name}_sd_over_seeds"] is None
    # One of three clips wrong and sure of it.
    assert (alone[1]["ece"], alone[1]["brier"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_seeds_that_rest_on_different_clips_are_not_averaged() -> None:
    with pytest.raises(ValueError, match="seed 0 has 2 predictions, seed 1 has 1"):
        summarise(concatenate([evaluation([0, 1], [0, 1]), evaluation([0], [0], seed=1)]))


def test_a_test_clip_of_two_folds_is_refused_but_a_validation_clip_is_not() -> None:
    # Leave-one-speaker-out validates on the next two speakers, so on each speaker twice.
    def parts(split: str) -> Predictions:
        return concatenate([evaluation([0], [0], ids=["a"], fold=fold, split=split) for fold in (0, 1)])

    with pytest.raises(ValueError, match="clip a is tested in several folds"):
        summarise(parts("test"))
    assert summarise(parts("validation"))["clips"] == 1


@pytest.mark.parametrize("other", [{"condition": "noise-white-10db"}, {"split": "validation"}])
def test_two_evaluations_are_not_scored_as_one(other: dict[str, str]) -> None:
    mixed = concatenate([evaluation([0], [0], ids=["a"]), evaluation([0], [0], ids=["b"], **other)])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="predictions mix"):
        summarise(mixed)


def test_speakers_are_scored_on_the_classes_they_have_in_numerical_order() -> None:
    labels, speakers = [0, 0, 1, 2], ["10", "10", "10", "9"]
    seeds = concatenate(
        [evaluation(labels, [0, 5, 1, 2], speakers), evaluation(labels, [0, 0, 1, 3], speakers, seed=1)]
    )
    scores = speaker_scores(seeds, uar)
    assert list(scores) == ["9", "10"]
    assert scores == {"9": 0.5, "10": pytest.approx((0.75 + 1.0) / 2)}
    assert speaker_scores(seeds, accuracy)["10"] == pytest.approx((2 / 3 + 1) / 2)


def test_with_the_same_clips_per_speaker_the_mean_over_speakers_is_the_pooled_uar() -> None:
    rng = np.random.default_rng(3)
    labels = np.tile(np.repeat(np.arange(8), 4), 6)
    speakers = [str(index) for index in range(6) for _ in range(32)]
    made = evaluation(labels.tolist(), rng.integers(0, 8, len(labels)).tolist(), speakers)
    assert np.mean(list(speaker_scores(made, uar).values())) == pytest.approx(summarise(made)["uar"])


def test_the_report_opens_with_what_it_rests_on_and_its_mean_recall_is_the_uar() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = classification_text(evaluation([0, 0, 1, 2], [0, 3, 1, 1], ["1", "1", "2", "2"]))
    first, *rows = text.splitlines()
    assert first == "4 clips, 2 speakers, 1 seed: UAR 0.500, accuracy 0.500"
    macro = next(row.split() for row in rows if row.strip().startswith("macro avg"))
    assert macro[3] == "0.500"
    assert rows[-1].startswith("Calibration: ECE 0.500 (15 bins), Brier score 1.000 (0 to 2), area")
    named = {row.split()[0] for row in rows if row.split()} & set(LABELS)
    assert named == {"neutral", "calm", "happy"}
