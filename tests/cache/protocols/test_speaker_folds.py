"""Folds over the speakers of any corpus: balanced in labels, seeded, and the same whatever the order of the clips."""

from __future__ import annotations

import random
from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.corpus.clips import Clip
from cache.protocols.folds import Fold, Protocol
from cache.protocols.speaker_folds import SpeakerFolds
from configs.schema.protocols import load_protocol

LABELS = ("χαρά", "λύπη", "θυμός")


def corpus(counts: dict[str, tuple[int, ...]]) -> list[Clip]:
    """So many clips of each label by speaker."""
    return [
        Clip(f"{speaker}/{label}/{take}", "x", LABELS[label], speaker)
        for speaker, row in counts.items()
        for label, count in enumerate(row)
        for take in range(count)
    ]


def even(speakers: int, clips: int = 2) -> list[Clip]:
    return corpus({f"s{number}": (clips,) * len(LABELS) for number in range(speakers)})


def lopsided(speakers: int, seed: int) -> list[Clip]:
    """From none to dozens of each label, and many speakers who lack some."""
    counts = np.random.default_rng(seed).geometric(0.1, (speakers, len(LABELS))) - 1
    return corpus({f"s{number}": tuple(row) for number, row in enumerate(counts.tolist()) if sum(row)})


def groups_of(folds: tuple[Fold, ...]) -> list[tuple[str, ...]]:
    return [fold.test for fold in folds]


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 6), st.integers(6, 20), st.integers(0, 10), st.randoms(use_true_random=False))
def test_each_speaker_is_tested_once_and_the_order_of_clips_does_not_matter(
    folds: int, speakers: int, seed: int, rng: random.Random
) -> None:
    clips = lopsided(speakers, seed)
    present = {clip.speaker for clip in clips}
    protocol = Protocol("mine", SpeakerFolds(folds, seed))
    made = protocol.folds(clips)
    assert len(made) == folds
    assert sorted(chain.from_iterable(groups_of(made))) == sorted(present)
    for fold, following in zip(made, (*made[1:], made[0]), strict=True):
        assert fold.validation == following.test
        assert {*fold.train, *fold.validation, *fold.test} == present
    assert protocol.folds(rng.sample(clips, len(clips))) == made


def test_speakers_who_say_the_same_are_dealt_out_evenly() -> None:
    sizes = Counter(map(len, groups_of(SpeakerFolds(5).divide(even(24)))))
    assert sizes == {5: 4, 4: 1}


@pytest.mark.parametrize("seed", range(5))
def test_labels_are_far_more_even_than_by_chance(seed: int) -> None:
    clips = lopsided(30, seed)
    speakers = sorted({clip.speaker for clip in clips})

    def widest(groups: list[tuple[str, ...]]) -> float:
        """The largest distance of a group's share of a label from a fifth."""
        counts = Counter((clip.speaker, clip.label) for clip in clips)
        totals = Counter(clip.label for clip in clips)
        shares = [sum(counts[name, label] for name in group) / totals[label] for group in groups for label in LABELS]
        return max(abs(share - 1 / 5) for share in shares)

    rng = random.Random(seed)
    chance = [widest([tuple(rng.sample(speakers, len(speakers))[place::5]) for place in range(5)]) for _ in range(40)]
    assert widest(groups_of(SpeakerFolds(5, seed).divide(clips))) < 0.6 * float(np.median(chance))


def test_a_seed_gives_other_groups_and_the_same_again() -> None:
    clips = lopsided(30, 0)
    first, again, other = (groups_of(SpeakerFolds(5, seed).divide(clips)) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_speaker_who_says_what_nobody_else_says_leaves_no_group_empty() -> None:
    alone = corpus({"a": (90, 0, 0), "b": (0, 4, 0), "c": (0, 0, 1), "d": (1, 0, 0)})
    assert all(groups_of(SpeakerFolds(4).divide(alone)))


@pytest.mark.parametrize(
    ("folds", "speakers", "message"),
    [
        (5, 4, "speaker-folds-5: 5 folds need at least 5 speakers, this corpus has 4; take 4 folds"),
        (3, 2, "3 folds need at least 3 speakers, this corpus has 2; 3 speakers are the fewest"),
    ],
)
def test_too_few_speakers_are_refused_with_the_number_that_would_do(folds: int, speakers: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_protocol(f"speaker-folds-{folds}").folds(even(speakers))


def test_the_name_says_folds_and_seed() -> None:
    assert load_protocol("speaker-folds-7-seed-12").rule == SpeakerFolds(7, 12)
    assert load_protocol("speaker-folds-3").rule == SpeakerFolds(3, 0)
