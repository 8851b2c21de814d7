"""What holds for every condition: one signal is changed, the same each time, and the input is left alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from cache.conditions import KINDS, parse_condition
from cache.media import Media
from extract.corrupt.apply import corrupt
from extract.corrupt.noise.sources import RECORDED, NoiseSources
from extract.corrupt.picture.effects import PICTURE
from extract.corrupt.sound.effects import SOUND
from extract.corrupt.sound.level import Waveform
from tests.tiny.corpus import pictures, tone

EVERY = [kind + rule.level_name(rule.example) for kind, rule in KINDS.items()]


@dataclass(frozen=True)
class Hiss:
    """Recordings that are white noise."""

    names = ("hiss",)

    def draw(self, length: int, rng: np.random.Generator, _clip_id: str) -> Waveform:
        return rng.standard_normal(length).astype(np.float32)

    def provenance(self) -> dict[str, Any]:
        return {}


SOURCES = NoiseSources(dict.fromkeys(RECORDED, Hiss()))


def clip_media() -> Media:
    return Media(tone(0.3), pictures(8, 64, 64))


def test_every_kind_has_its_function() -> None:
    assert set(KINDS) == {*SOUND, *RECORDED, *PICTURE}
    assert len(KINDS) == len(SOUND) + len(RECORDED) + len(PICTURE)
    for kind, rule in KINDS.items():
        assert (rule.modality == "video") == (kind in PICTURE)


@pytest.mark.parametrize("name", EVERY)
def test_one_signal_is_changed_and_the_other_passed_on(name: str) -> None:
    media = clip_media()
    changed = corrupt(media, parse_condition(name), "clip", SOURCES)
    assert changed.waveform_T is not None
    assert changed.frames_THWC is not None
    if parse_condition(name).modality == "audio":
        assert changed.frames_THWC is media.frames_THWC
        assert not np.array_equal(changed.waveform_T, tone(0.3))
    else:
        assert changed.waveform_T is media.waveform_T
        assert not np.array_equal(changed.frames_THWC, pictures(8, 64, 64))
    for after, before in ((changed.waveform_T, tone(0.3)), (changed.frames_THWC, pictures(8, 64, 64))):
        assert (after.dtype, after.shape) == (before.dtype, before.shape)


@pytest.mark.parametrize("name", EVERY)
def test_conditions_are_deterministic_and_leave_their_input_alone(name: str) -> None:
    media = clip_media()
    first, second = (corrupt(media, parse_condition(name), "clip", SOURCES) for _ in range(2))
    np.testing.assert_array_equal(media.waveform_T, tone(0.3))
    np.testing.assert_array_equal(media.frames_THWC, pictures(8, 64, 64))
    np.testing.assert_array_equal(first.waveform_T, second.waveform_T)
    np.testing.assert_array_equal(first.frames_THWC, second.frames_THWC)


@pytest.mark.parametrize("name", ["noise-white-10db", "noise-babble-10db", "occlude-block-50", "drop-frames-30"])
def test_what_is_drawn_follows_the_seed(name: str) -> None:
    first, other = (corrupt(clip_media(), parse_condition(name, seed), "clip", SOURCES) for seed in (0, 1))
    same = [
        np.array_equal(a, b)
        for a, b in ((first.waveform_T, other.waveform_T), (first.frames_THWC, other.frames_THWC))
        if a is not None and b is not None
    ]
    assert same == ([False, True] if parse_condition(name).modality == "audio" else [True, False])


@pytest.mark.parametrize("name", EVERY)
def test_a_signal_that_is_not_there_stays_away(name: str) -> None:
    assert corrupt(Media(None, None), parse_condition(name), "clip") == Media(None, None)


def test_clean_passes_everything_on() -> None:
    media = clip_media()
    assert corrupt(media, parse_condition("clean"), "clip") is media
