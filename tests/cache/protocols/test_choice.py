"""Which protocol a corpus gets for which none is named; until there was a rule, each got RAVDESS's own `holdout`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from cache.corpus.clips import UNKNOWN_SPEAKER, Clip
from cache.corpus.ravdess import ACTORS
from cache.protocols.choice import fitting_protocol
from configs.schema.protocols import load_protocol


def clips_of(*speakers: str, split: Callable[[int], str] = lambda _: "") -> list[Clip]:
    return [
        Clip(f"{speaker}-{label}-{take}", f"{speaker}{label}{take}.wav", label, speaker, split=split(place))
        for place, speaker in enumerate(speakers)
        for label in ("ja", "nein")
        for take in "12"
    ]


def ravdess(actors: tuple[int, ...]) -> list[Clip]:
    stems = [f"03-01-0{emotion}-01-01-01-{actor:02d}" for actor in actors for emotion in (3, 4)]
    return [Clip(stem, f"{stem}.wav", "sad", str(int(stem[-2:])), split="train") for stem in stems]


PARTS = ("train", "validation", "test")


@pytest.mark.parametrize(
    ("clips", "name"),
    [
        (ravdess(ACTORS), "holdout"),
        (ravdess((1, 2, 21, 22, 23)), "holdout"),
        (ravdess((1, 2, 3, 4)), "speaker-folds-4"),
        (clips_of(*map(str, ACTORS)), "holdout"),
        (clips_of(*map(str, ACTORS), split=lambda place: PARTS[place % 3]), "split-column"),
        (clips_of(*"abcdefgh"), "speaker-folds-5"),
        (clips_of(*"abc"), "speaker-folds-3"),
        (clips_of(*"abc", UNKNOWN_SPEAKER), "speaker-folds-3"),
        (clips_of(*"abc", split=PARTS.__getitem__), "split-column"),
    ],
)
def test_the_first_one_that_the_clips_allow_is_taken(clips: list[Clip], name: str) -> None:
    assert fitting_protocol(clips).name == name
    assert load_protocol(name).folds(clips)


@pytest.mark.parametrize(
    ("clips", "why"),
    [
        (
            clips_of(*"abcd", split=lambda place: ("train", "dev", "test", "")[place]),
            "4 speakers; the column split is not used: the column split of metadata.csv says 'dev', nothing",
        ),
        (
            [replace(clip, split=PARTS[place % 3]) for place, clip in enumerate(clips_of(*"abcd"))],
            "4 speakers; the column split is not used: fold 1: speaker a stands in train and validation and test",
        ),
        (
            clips_of(*"abcd", split=lambda _: "train"),
            "4 speakers; the column split is not used: no clip is of validation or of test",
        ),
    ],
)
def test_a_split_that_is_not_used_is_said(clips: list[Clip], why: str) -> None:
    fitting = fitting_protocol(clips)
    assert fitting.name == "speaker-folds-4"
    assert fitting.why.startswith(why)


@pytest.mark.parametrize("speakers", [("a",), ("a", "b"), ("a", "b", UNKNOWN_SPEAKER), (UNKNOWN_SPEAKER,)])
def test_too_few_speakers_are_told_what_would_do(speakers: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"at least 3 are needed.*fill in the column speaker.*protocol=random-clips"):
        fitting_protocol(clips_of(*speakers))
