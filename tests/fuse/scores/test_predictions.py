from __future__ import annotations

import csv
import tracemalloc
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.corpus.ravdess import LABELS
from fuse.scores.predictions import ROWS_AT_ONCE, Predictions, concatenate, read_predictions, write_predictions

SHARED: dict[str, Any] = {
    "protocol": "luna5",
    "fold": 1,
    "seed": 0,
    "split": "test",
    "condition": "clean",
    "modalities": "audio+text",
}


def evaluation(clips: int = 4, **shared: Any) -> Predictions:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(8), size=clips).astype(np.float32)
    values = {**SHARED, "label_names": LABELS, **shared}
    ids = [f"clip-{index}" for index in range(clips)]
    return Predictions.of(ids, ["7"] * clips, ["male"] * clips, np.arange(clips) % 8, probabilities, **values)


def assert_same(left: Predictions, right: Predictions) -> None:
    for field in fields(Predictions):
        np.testing.assert_array_equal(getattr(left, field.name), getattr(right, field.name), field.name)


def rewritten(path: Path, change: Callable[[list[dict[str, str]]], None]) -> None:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    change(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def test_rows_are_written_as_they_come(tmp_path: Path) -> None:
    """Once all were held as Python's texts and numbers and as one text: 2.3 GB for a million clips."""
    many = evaluation(3 * ROWS_AT_ONCE)
    tracemalloc.start()
    try:
        write_predictions(many, tmp_path / "predictions.csv")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert_same(read_predictions(tmp_path / "predictions.csv"), many)
    assert peak_bytes < 750 * len(many)


text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=0, max_size=8)
# Labels of any language, with commas and quotes.
label_sets = st.lists(text.filter(bool), min_size=2, max_size=9, unique=True)


def weights(classes: int) -> st.SearchStrategy[list[float]]:
    """A row of non-negative weights with a positive sum."""
    row = st.lists(st.floats(0, 1, width=32), min_size=classes, max_size=classes)
    return row.filter(lambda values: sum(values) > 1e-3)


@st.composite
def predictions_of_any_kind(draw: st.DrawFn) -> Predictions:
    rows, label_names = draw(st.integers(0, 5)), tuple(draw(label_sets))
    classes = len(label_names)
    weights_NC = np.array([draw(weights(classes)) for _ in range(rows)], dtype=np.float64).reshape(rows, classes)
    column = st.lists(text, min_size=rows, max_size=rows)
    integer = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=rows, max_size=rows)
    label = st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows)
    split = st.lists(st.sampled_from(["validation", "test"]), min_size=rows, max_size=rows)
    return Predictions(
        clip_id=draw(st.lists(text, min_size=rows, max_size=rows, unique=True)),  # type: ignore[arg-type]
        speaker=draw(column),  # type: ignore[arg-type]
        sex=draw(column),  # type: ignore[arg-type]
        label=draw(label),  # type: ignore[arg-type]
        predicted=draw(label),  # type: ignore[arg-type]
        probabilities_NC=weights_NC / weights_NC.sum(axis=1, keepdims=True),
        protocol=draw(column),  # type: ignore[arg-type]
        fold=draw(integer),  # type: ignore[arg-type]
        seed=draw(integer),  # type: ignore[arg-type]
        split=draw(split),  # type: ignore[arg-type]
        condition=draw(column),  # type: ignore[arg-type]
        modalities=draw(column),  # type: ignore[arg-type]
        label_names=label_names,
    )


@settings(max_examples=60, deadline=None)
@given(predictions_of_any_kind())
def test_what_is_written_reads_back_to_the_last_bit(predictions: Predictions) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.csv"
        write_predictions(predictions, path)
        assert_same(read_predictions(path), predictions)


def test_the_file_has_exactly_the_columns_of_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions(evaluation(3), path)
    lines = path.read_text().splitlines()
    assert lines[0] == (
        "clip_id,speaker,sex,label,predicted,p_neutral,p_calm,p_happy,p_sad,p_angry,p_fearful,p_disgust,"
        "p_surprised,protocol,fold,seed,split,condition,modalities"
    )
    row = dict(zip(*(line.split(",") for line in (lines[0], lines[2])), strict=True))
    assert (row["clip_id"], row["label"], row["modalities"], row["fold"]) == ("clip-1", "calm", "audio+text", "1")
    assert row["predicted"] in LABELS


def test_the_most_probable_class_is_predicted_and_scalars_are_shared() -> None:
    made = evaluation(5, fold=3)
    np.testing.assert_array_equal(made.predicted, made.probabilities_NC.argmax(axis=1))
    assert made.fold.tolist() == [3] * 5
    assert made.split.tolist() == ["test"] * 5
    assert made.probabilities_NC.dtype == np.float64


def test_select_keeps_rows_that_equal_every_value() -> None:
    both = concatenate([evaluation(2), evaluation(3, seed=1), evaluation(4, seed=1, split="validation")])
    assert len(both) == 9
    assert len(both.select(seed=1)) == 7
    assert both.select(seed=1, split="test").clip_id.tolist() == ["clip-0", "clip-1", "clip-2"]
    assert len(both.select(condition="noise-white-10db")) == 0


def test_a_long_name_survives_being_put_behind_short_ones() -> None:
    joined = concatenate([evaluation(1, condition="clean"), evaluation(1, condition="noise-white-minus5db")])
    assert joined.condition.tolist() == ["clean", "noise-white-minus5db"]


def test_nothing_to_put_together_is_an_error() -> None:
    with pytest.raises(ValueError, match="list of runs is empty"):
        concatenate([])


def test_a_clip_that_would_count_twice_is_refused(tmp_path: Path) -> None:
    twice = concatenate([evaluation(2), evaluation(1, split="validation")])
    with pytest.raises(ValueError, match=r"clip_id clip-0, fold 1, seed 0, .* appears 2 times"):
        write_predictions(twice, tmp_path / "predictions.csv")
    assert not list(tmp_path.iterdir())
    apart = concatenate([evaluation(2, **{name: value}) for name, value in APART])
    write_predictions(apart, tmp_path / "predictions.csv")
    assert len(read_predictions(tmp_path / "predictions.csv")) == 2 * len(APART)


APART: list[tuple[str, Any]] = [
    ("fold", 1),
    ("fold", 2),
    ("seed", 1),
    ("condition", "occlude-block-50"),
    ("modalities", "audio"),
]


@pytest.mark.parametrize(
    "rows",
    [[2.0, -1.0, 0, 0, 0, 0, 0, 0], [np.nan] * 8, [0.1] * 8, [1.0, 1.0, 0, 0, 0, 0, 0, 0], [np.inf] * 8],
)
def test_logits_and_nan_are_not_probabilities(rows: list[float]) -> None:
    good = evaluation(1)
    with pytest.raises(ValueError, match="row 1 does not hold probabilities that sum to 1"):
        Predictions(**{**vars(good), "probabilities_NC": np.array([rows])})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label": [8, 0]}, "label must be an index from 0 to 7"),
        ({"predicted": [0, -1]}, "predicted must be an index from 0 to 7"),
        ({"speaker": ["7"]}, "speaker has 1 values for 2 clips"),
        ({"split": ["test", "train"]}, "unknown split 'train'"),
        ({"probabilities_NC": np.full((2, 7), 1 / 7)}, r"shape \(2, 7\)"),
    ],
)
def test_columns_are_checked(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Predictions(**{**vars(evaluation(2)), **changed})


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("label", "bored", r"line 3: label is 'bored'; known: neutral, calm"),
        ("predicted", "", r"line 3: predicted is ''"),
        ("p_sad", "much", r"line 3: p_sad is 'much'; it must be a number"),
        ("p_sad", "nan", r"row 2 does not hold probabilities"),
        ("fold", "1.5", r"line 3: fold is '1.5'; it must be a number"),
        ("seed", "9" * 40, r"line 3: seed is '9+'"),
        ("split", "train", r"unknown split 'train'"),
        ("clip_id", "clip-0", r"clip_id clip-0.* appears 2 times"),
    ],
)
def test_a_bad_value_is_named_with_its_file(tmp_path: Path, column: str, value: str, message: str) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions(evaluation(3), path)
    rewritten(path, lambda rows: rows[1].update({column: value}))
    with pytest.raises(ValueError, match=message) as caught:
        read_predictions(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions(evaluation(2), path)

    def drop(rows: list[dict[str, str]]) -> None:
        for row in rows:
            del row["speaker"], row["modalities"]

    rewritten(path, drop)
    with pytest.raises(ValueError, match="has no column speaker, modalities; it needs clip_id"):
        read_predictions(path)


def test_the_columns_give_the_label_set(tmp_path: Path) -> None:
    """Once a run of any other labels than RAVDESS's eight could not be written."""
    path = tmp_path / "predictions.csv"
    names = ("χαρά", "λύπη, βαθιά", "θυμός")
    made = Predictions.of(["a", "b"], ["x", "y"], ["", ""], [2, 0], np.eye(3)[[2, 1]], label_names=names, **SHARED)
    write_predictions(made, path)
    header = next(csv.reader(path.open(encoding="utf-8", newline="")))
    assert header[5:8] == ["p_χαρά", "p_λύπη, βαθιά", "p_θυμός"]
    read = read_predictions(path)
    assert read.label_names == names
    assert read.predicted.tolist() == [2, 1]


def test_predictions_of_different_labels_are_not_put_together() -> None:
    one, other = (evaluation(2, label_names=names) for names in (LABELS, (*LABELS[:7], "bored")))
    with pytest.raises(ValueError, match="missing: surprised; new: bored"):
        concatenate([one, other])
    with pytest.raises(ValueError, match="the order: label 1 is neutral in one and surprised in the other"):
        concatenate([one, evaluation(2, label_names=LABELS[::-1])])


def test_a_file_without_probabilities_is_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions(evaluation(2), path)

    def drop(rows: list[dict[str, str]]) -> None:
        for row in rows:
            for label in LABELS:
                del row[f"p_{label}"]

    rewritten(path, drop)
    with pytest.raises(ValueError, match="has no column p_<label>; it needs clip_id"):
        read_predictions(path)


def test_a_further_column_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions(evaluation(2), path)
    rewritten(path, lambda rows: rows.__setitem__(slice(None), [{**row, "remark": "x"} for row in rows]))
    assert_same(read_predictions(path), evaluation(2))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01", b'clip_id,"'])
def test_a_file_that_is_no_table_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "predictions.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"predictions\.csv"):
        read_predictions(path)


def test_a_file_that_was_cut_off_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions(evaluation(3), path)
    path.write_text(path.read_text()[:-40])
    with pytest.raises(ValueError, match="line 4 has too few or too many values"):
        read_predictions(path)


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no run that is complete; train it again"):
        read_predictions(tmp_path / "predictions.csv")
