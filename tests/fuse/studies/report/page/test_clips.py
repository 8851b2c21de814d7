"""Which clips are shown, and what each modality is said to have contributed."""

from __future__ import annotations

import numpy as np
import pytest

from fuse.studies.report.page.clips import Chosen, choose, contribution_rows, probability_rows
from fuse.studies.report.page.evidence import mean_probabilities
from fuse.studies.report.page.subjects import Subject, read_subjects
from tests.fuse.studies.report.page.conftest import CONDITIONS, LABELS, Written


@pytest.fixture(scope="module")
def subject(written: Written) -> Subject:
    return read_subjects([written.run], None)[0]


def test_the_most_wrong_the_most_certain_and_one_of_every_label(subject: Subject) -> None:
    chosen = choose(subject, 7)
    clean = subject.test.select(condition="clean", modalities="audio+video")
    mean, label = mean_probabilities(clean), dict(zip(clean.clip_id.tolist(), clean.label.tolist(), strict=True))
    wrong = [one for one in mean if mean[one].argmax() != label[one]]
    certain = max(mean, key=lambda one: mean[one].max())
    assert chosen[0].clip_id == min(wrong, key=lambda one: mean[one][label[one]])
    assert certain in [one.clip_id for one in chosen]
    assert {one.label for one in chosen if "middling" in one.why} == set(LABELS)
    assert len({one.clip_id for one in chosen}) == 7
    assert choose(subject, 0) == []
    assert len(choose(subject, 1000)) <= len(mean)


def test_probabilities_are_those_of_the_seeds_together(subject: Subject) -> None:
    chosen = choose(subject, 2)
    rows = list(probability_rows(subject, chosen))
    assert len(rows) == 2 * len(CONDITIONS)
    (one,) = [row for row in rows if (row["clip"], row["condition"]) == (chosen[0].clip_id, "occlude-block-50")]
    part = subject.test.select(condition="occlude-block-50", modalities="audio+video", clip_id=chosen[0].clip_id)
    np.testing.assert_allclose(one["probabilities"], part.probabilities_NC.mean(axis=0), atol=1e-4)


def test_contributions_are_shapley_values_by_hand(subject: Subject) -> None:
    """Sound under occlusion is clean sound: it has no row of its own, and was once looked for in vain."""
    chosen = [Chosen("clip-03", "2", "sad", "")]
    nothing = np.array([0.5, 0.3, 0.2])
    rows = contribution_rows(subject, chosen, lambda _: nothing)
    assert {row["condition"] for row in rows} == set(CONDITIONS)

    def worth(subset: str, condition: str) -> np.ndarray:
        part = subject.test.select(condition=condition, modalities=subset, clip_id="clip-03")
        return np.asarray(part.probabilities_NC.mean(axis=0))

    both, video = (worth(subset, "occlude-block-50") for subset in ("audio+video", "video"))
    audio, best = worth("audio", "clean"), both.argmax()
    found = {row["modality"]: row for row in rows if row["condition"] == "occlude-block-50"}
    by_hand = ((audio - nothing) + (both - video))[best] / 2
    assert found["audio"]["value"] == pytest.approx(by_hand, abs=1e-4)
    assert found["audio"]["answer"] == LABELS[best]
    assert found["audio"]["value"] + found["video"]["value"] == pytest.approx((both - nothing)[best], abs=2e-4)


def test_without_every_subset_nothing_is_said_of_contributions(written: Written) -> None:
    (alone,) = read_subjects([written.other], None)
    assert contribution_rows(alone, choose(alone, 2), lambda _: np.full(3, 1 / 3)) == []
