"""Adaptation to a speaker: statistics of few and of many clips, and that no label is read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.corpus.clips import Clip
from cache.corpus.ravdess import LABELS
from cache.features.table import FeatureTable
from fuse.runs.adaptation import SpeakerStatistics, adapted, enrolled, prior_of, speaker_statistics

PRIOR = SpeakerStatistics({"audio": np.full(3, 5.0, np.float32)}, {"audio": np.full(3, 2.0, np.float32)})


def table(speakers: int = 3, clips: int = 8, seed: int = 0) -> FeatureTable:
    rng = np.random.default_rng(seed)
    every = [Clip(f"{s}-{n}", "x.wav", LABELS[n % 8], str(s)) for s in range(speakers) for n in range(clips)]
    centres = rng.normal(size=(speakers, 1, 3)) * 10
    values = (centres + rng.normal(size=(speakers, clips, 3))).reshape(-1, 3).astype(np.float32)
    return FeatureTable(tuple(every), {"audio": values}, {"audio": np.ones(len(every), bool)}, (), False, "clean")


@settings(max_examples=25, deadline=None)
@given(speakers=st.integers(1, 4), clips=st.integers(3, 12), seed=st.integers(0, 99))
def test_every_speakers_rows_get_mean_0_and_sd_1(speakers: int, clips: int, seed: int) -> None:
    one = adapted(table(speakers, clips, seed))
    for speaker in range(speakers):
        rows = one.features["audio"][one.speakers == str(speaker)]
        np.testing.assert_allclose(rows.mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(rows.std(0), 1, atol=1e-3)


def test_no_label_is_read() -> None:
    plain = table()
    turned = replace(plain, clips=tuple(replace(clip, label="happy") for clip in plain.clips))
    assert np.array_equal(adapted(plain).features["audio"], adapted(turned).features["audio"])


def test_no_clip_gives_the_prior_and_very_many_give_their_own() -> None:
    nothing = enrolled({"audio": np.empty((0, 3), np.float32)}, PRIOR, 3.0)
    np.testing.assert_allclose(nothing.mean["audio"], 5.0)
    np.testing.assert_allclose(nothing.scale["audio"], 2.0)
    many = np.random.default_rng(0).normal(1.0, 0.5, (5000, 3)).astype(np.float32)
    known = enrolled({"audio": many}, PRIOR, 3.0)
    np.testing.assert_allclose(known.mean["audio"], many.mean(0), atol=0.01)
    np.testing.assert_allclose(known.scale["audio"], many.std(0), atol=0.01)


def test_as_many_clips_as_the_prior_weighs_meet_it_half_way() -> None:
    clips = np.array([[1.0, 1.0, 1.0], [3.0, 3.0, 3.0]], np.float32)
    known = enrolled({"audio": clips}, PRIOR, 2.0)
    np.testing.assert_allclose(known.mean["audio"], (2.0 + 5.0) / 2)
    np.testing.assert_allclose(known.scale["audio"] ** 2, (1.0 + 4.0) / 2, rtol=1e-6)


def test_clips_that_lack_a_modality_do_not_count() -> None:
    clips = np.array([[1.0, 1.0, 1.0], [np.nan] * 3, [3.0, 3.0, 3.0]], np.float32)
    whole = enrolled({"audio": clips[[0, 2]]}, PRIOR, 2.0)
    assert np.array_equal(enrolled({"audio": clips}, PRIOR, 2.0).mean["audio"], whole.mean["audio"])


def test_the_prior_is_the_spread_within_a_speaker_not_between_them() -> None:
    prior = prior_of(table(20, 50), [str(number) for number in range(20)])
    np.testing.assert_allclose(prior.scale["audio"], 1.0, atol=0.1)


def test_the_prior_comes_from_the_speakers_that_are_named() -> None:
    one = table()
    alone = prior_of(one, ["1"])
    np.testing.assert_allclose(alone.mean["audio"], speaker_statistics(one)["1"].mean["audio"], rtol=1e-6)


def test_too_few_clips_and_unknown_speakers_are_refused() -> None:
    with pytest.raises(ValueError, match="speaker 0 has 1 clips with audio; give each speaker at least 2"):
        adapted(table(1, 1))
    with pytest.raises(ValueError, match="speaker 2 was never enrolled; enrolled: 0"):
        adapted(table(), {"0": PRIOR, "1": PRIOR})
