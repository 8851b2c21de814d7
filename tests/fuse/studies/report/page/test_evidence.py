"""Rows of charts, recomputed by hand or by scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from fuse.studies.report.page.evidence import (
    confusion_rows,
    family_rows,
    joint_rows,
    reliability_rows,
    scores_of,
    speaker_rows,
    summary_row,
)
from fuse.studies.report.page.subjects import Subject, read_subjects
from tests.fuse.studies.report.page.conftest import CONDITIONS, LABELS, SPEAKERS, Written


@pytest.fixture(scope="module")
def subject(written: Written) -> Subject:
    return read_subjects([written.run], None)[0]


def test_a_family_stands_by_severity_behind_clean(subject: Subject) -> None:
    families = family_rows(scores_of(subject))
    assert list(families) == ["noise-white", "occlude-block"]
    noise = sorted(
        (row for row in families["noise-white"] if row["modalities"] == "audio+video"), key=lambda row: row["order"]
    )
    assert [row["level"] for row in noise] == ["clean", "10 dB", "0 dB"]
    part = subject.test.select(condition="noise-white-0db", modalities="audio+video")
    by_seed = [
        balanced_accuracy_score(*(getattr(part.select(seed=s), n) for n in ("label", "predicted"))) for s in (0, 1)
    ]
    assert noise[-1]["uar"] == pytest.approx(np.mean(by_seed), abs=1e-4)
    # Nothing is said of sound alone where only the picture was changed.
    assert {row["modalities"] for row in families["occlude-block"]} == {"audio+video", "video"}


def test_the_grid_has_the_joint_condition_and_its_edges(subject: Subject) -> None:
    rows = [row for row in joint_rows(scores_of(subject)) if row["modalities"] == "audio+video"]
    assert {(row["sound"], row["picture"]) for row in rows} == {
        ("clean", "clean"),
        ("noise-white-0db", "clean"),
        ("clean", "occlude-block-50"),
        ("noise-white-0db", "occlude-block-50"),
    }


def test_the_confusion_matrix_is_scikit_learns(subject: Subject) -> None:
    rows = [row for row in confusion_rows(subject) if row["condition"] == "noise-white-0db"]
    part = subject.test.select(condition="noise-white-0db", modalities="audio+video")
    expected = confusion_matrix(part.label, part.predicted, labels=range(len(LABELS)))
    assert [row["true"] for row in rows] == list(LABELS)
    np.testing.assert_array_equal([row["counts"] for row in rows], expected)
    assert [row["clips"] for row in rows] == expected.sum(axis=1).tolist()


def test_every_answer_is_in_one_bin(subject: Subject) -> None:
    rows = [row for row in reliability_rows(subject) if row["condition"] == "clean"]
    part = subject.test.select(condition="clean", modalities="audio+video")
    assert sum(row["answers"] for row in rows) == len(part)
    right = sum(row["answers"] * row["accuracy"] for row in rows)
    assert right == pytest.approx((part.label == part.predicted).sum(), abs=0.1)


def test_speakers_stand_by_number_under_every_condition(subject: Subject) -> None:
    rows = list(speaker_rows(subject))
    assert [row["speaker"] for row in rows[:3]] == list(SPEAKERS)
    assert {row["condition"] for row in rows} == set(CONDITIONS)
    assert [row["sex"] for row in rows[:2]] == ["female", "male"]


def test_a_line_of_the_first_table(subject: Subject) -> None:
    score = next(one for one in scores_of(subject) if (one.condition, one.modalities) == ("clean", "audio+video"))
    row = summary_row(subject, score)
    assert row["UAR %"] == pytest.approx(100 * score.summary["uar"])
    # Three speakers are too few for an interval: no empty column says so.
    assert "95 %" not in row
    assert (row["clips"], row["speakers"], row["seeds"]) == (18, 3, 2)
