"""Corruptions do what their name says, to one signal, and the same each time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.conditions import KINDS, Condition, parse_condition
from cache.media_store import Media
from extract.corrupt import PICTURE, SOUND, active_speech_power, add_noise, corrupt, kept_frames
from tests.shared_inputs import SHARED, needs_audio
from tests.tiny_corpus import pictures, tone

FLAC = SHARED / "ravdess/audio"
# The quietest and the loudest clip of RAVDESS, and a usual one.
EXTREMES = [
    "Actor_20/03-01-02-02-02-02-20.flac",
    "Actor_07/03-01-05-02-01-02-07.flac",
    "Actor_01/03-01-01-01-01-01-01.flac",
]

levels_db = st.integers(-20, 40)
gains = st.sampled_from([1e-4, 0.006, 0.1, 1.0, 2.0])


def parts(mix_T: npt.NDArray[np.float32], clean_T: npt.NDArray[np.float32], noise_T: npt.NDArray[np.float32]) -> float:
    """The SNR of a mix in dB, after taking it apart into the two signals that it must consist of."""
    both = np.stack([clean_T, noise_T], axis=1).astype(np.float64)
    (speech_gain, noise_gain), *_ = np.linalg.lstsq(both, mix_T.astype(np.float64), rcond=None)
    rest_T = mix_T - both @ [speech_gain, noise_gain]
    assert np.abs(rest_T).max() < 1e-6 * max(1, np.abs(mix_T).max())
    speech = active_speech_power((speech_gain * clean_T).astype(np.float32))
    return float(10 * np.log10(speech / np.mean((noise_gain * noise_T.astype(np.float64)) ** 2)))


def white(condition: Condition, clip_id: str, count: int) -> npt.NDArray[np.float32]:
    return condition.rng(clip_id).standard_normal(count).astype(np.float32)


def assert_noisy(clean_T: npt.NDArray[np.float32], name: str, clip_id: str = "clip") -> None:
    condition = parse_condition(name)
    noisy_T = corrupt(Media(clean_T, None), condition, clip_id).waveform_T
    assert noisy_T is not None
    assert noisy_T.dtype == np.float32
    assert len(noisy_T) == len(clean_T)
    assert np.abs(noisy_T).max() <= 1
    assert abs(parts(noisy_T, clean_T, white(condition, clip_id, len(clean_T))) - condition.level) < 0.1


# Noise


@given(levels_db, gains, st.floats(0.05, 1.5), st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_noise_has_its_ratio_and_never_clips(snr_db: int, gain: float, seconds: float, seed: int) -> None:
    clean_T = (gain * tone(seconds, seed=seed)).astype(np.float32)
    assert_noisy(clean_T, f"noise-white-{KINDS['noise-white'].level_name(snr_db)}", f"clip {seed}")


@needs_audio
@pytest.mark.parametrize("name", ["noise-white-20db", "noise-white-0db", "noise-white-minus15db"])
@pytest.mark.parametrize("clip", EXTREMES)
def test_noise_on_real_voices_of_any_level(clip: str, name: str) -> None:
    assert_noisy(soundfile.read(FLAC / clip, dtype="float32")[0], name)


@needs_audio
def test_the_real_clips_are_extremes() -> None:
    peaks = [np.abs(soundfile.read(FLAC / clip, dtype="float32")[0]).max() for clip in EXTREMES]
    assert min(peaks) < 0.005
    assert max(peaks) > 0.99


def test_a_quiet_mix_keeps_the_level_of_the_speech() -> None:
    """Only a mix that would pass full scale is scaled."""
    clean_T = 0.1 * tone(0.5)
    noise_T = np.random.default_rng(0).standard_normal(len(clean_T)).astype(np.float32)
    noisy_T = add_noise(clean_T, noise_T, 20)
    added_T = noisy_T.astype(np.float64) - clean_T
    assert np.corrcoef(added_T, noise_T)[0, 1] > 0.999


def test_a_loud_mix_reaches_full_scale_exactly() -> None:
    noisy_T = corrupt(Media(3 * tone(0.5), None), parse_condition("noise-white-minus5db"), "clip").waveform_T
    assert noisy_T is not None
    assert np.abs(noisy_T).max() == 1


def test_pauses_do_not_count_as_speech() -> None:
    spoken_T = tone(1.0)
    padded_T = np.concatenate([np.zeros(16_000, np.float32), spoken_T, np.zeros(32_000, np.float32)])
    assert active_speech_power(padded_T) == pytest.approx(active_speech_power(spoken_T), rel=1e-6)


def test_active_speech_by_hand() -> None:
    """Frames of 320 samples: power 1, 0.01 (20 dB down) and 0.0001 (40 dB down, a pause)."""
    frames = [np.full(320, level, np.float32) for level in (1.0, 0.1, 0.01)]
    assert active_speech_power(np.concatenate(frames)) == pytest.approx((1 + 0.01) / 2, rel=1e-6)


@pytest.mark.parametrize("count", [1, 100, 319, 320, 321])
def test_the_shortest_sounds(count: int) -> None:
    noisy_T = corrupt(Media(tone(1.0)[500 : 500 + count], None), parse_condition("noise-white-0db"), "c").waveform_T
    assert noisy_T is not None
    assert np.isfinite(noisy_T).all()
    assert len(noisy_T) == count


@pytest.mark.parametrize("count", [0, 500])
def test_silence_has_no_ratio(count: int) -> None:
    with pytest.raises(ValueError, match=r"silent: no signal-to-noise ratio can be set"):
        corrupt(Media(np.zeros(count, np.float32), None), parse_condition("noise-white-0db"), "c")


def test_levels_of_one_clip_share_their_noise_and_clips_do_not() -> None:
    conditions = [parse_condition(name) for name in ("noise-white-0db", "noise-white-10db")]
    first, second = (white(condition, "a", 1000) for condition in conditions)
    np.testing.assert_array_equal(first, second)
    assert abs(np.corrcoef(first, white(conditions[0], "b", 1000))[0, 1]) < 0.2


# Picture


def occluded_share(frames_THWC: npt.NDArray[np.uint8], name: str, clip_id: str) -> float:
    """Share of the area that is black in every frame; the rest must be untouched and the black one block."""
    black_THWC = corrupt(Media(None, frames_THWC), parse_condition(name), clip_id).frames_THWC
    assert black_THWC is not None
    assert black_THWC.dtype == np.uint8
    changed_THW = (black_THWC != frames_THWC).any(axis=-1)
    assert (changed_THW == changed_THW[0]).all()
    assert (black_THWC[changed_THW] == 0).all()
    rows, columns = np.flatnonzero(changed_THW[0].any(axis=1)), np.flatnonzero(changed_THW[0].any(axis=0))
    assert changed_THW[0][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    return float(changed_THW[0].mean())


@given(st.integers(1, 100), st.sampled_from([(64, 64), (224, 224), (96, 128), (225, 77)]), st.text(max_size=5))
@settings(max_examples=60, deadline=None)
def test_occlusion_covers_its_share_of_the_area(percent: int, size: tuple[int, int], clip_id: str) -> None:
    white_THWC = np.full((2, *size, 3), 255, np.uint8)
    assert abs(occluded_share(white_THWC, f"occlude-block-{percent}", clip_id) - percent / 100) <= 0.01


def test_the_block_lies_elsewhere_in_other_clips_and_anywhere_in_the_picture() -> None:
    white_THWC = np.full((1, 64, 64, 3), 255, np.uint8)
    seen_HW = np.zeros((64, 64), bool)
    places = set()
    for number in range(200):
        black = corrupt(Media(None, white_THWC), parse_condition("occlude-block-25"), f"clip {number}").frames_THWC
        assert black is not None
        black_HW = black[0, :, :, 0] == 0
        seen_HW |= black_HW
        places.add((int(black_HW.any(axis=1).argmax()), int(black_HW.any(axis=0).argmax())))
    assert len(places) > 100
    assert seen_HW.any(axis=0).all()
    assert seen_HW.any(axis=1).all()


@given(st.integers(1, 64), st.integers(1, 99), st.integers(0, 50))
def test_dropped_frames_are_exactly_as_many_and_replaced_by_the_last_kept(count: int, percent: int, seed: int) -> None:
    shown = kept_frames(count, percent, np.random.default_rng(seed))
    kept = [index for index in range(count) if shown[index] == index]
    assert count - len(kept) == min(count - 1, round(percent / 100 * count))
    for index, source in enumerate(shown):
        assert source == max([k for k in kept if k <= index], default=kept[0])


@pytest.mark.parametrize(("percent", "dropped"), [(30, 5), (50, 8), (75, 12), (1, 0), (99, 15)])
def test_dropped_of_sixteen(percent: int, dropped: int) -> None:
    frames_THWC = pictures(16, 32, 32)
    shown_THWC = corrupt(Media(None, frames_THWC), parse_condition(f"drop-frames-{percent}"), "clip").frames_THWC
    assert shown_THWC is not None
    assert sum(not np.array_equal(a, b) for a, b in zip(shown_THWC, frames_THWC, strict=True)) == dropped


# All of them

EVERY = ["noise-white-10db", "occlude-block-50", "drop-frames-30"]


def test_every_kind_is_tested_here() -> None:
    assert {parse_condition(name).kind for name in EVERY} == set(KINDS) == set(SOUND) | set(PICTURE)
    for kind, rule in KINDS.items():
        assert kind in (SOUND if rule.modality == "audio" else PICTURE)


@pytest.mark.parametrize("name", EVERY)
def test_corruptions_are_deterministic_and_leave_their_input_alone(name: str) -> None:
    media = Media(tone(0.5), pictures(16, 32, 32))
    assert media.waveform_T is not None
    assert media.frames_THWC is not None
    waveform_T, frames_THWC = media.waveform_T.copy(), media.frames_THWC.copy()
    first, second = (corrupt(media, parse_condition(name), "clip") for _ in range(2))
    other = corrupt(media, parse_condition(name, seed=1), "clip")
    np.testing.assert_array_equal(media.waveform_T, waveform_T)
    np.testing.assert_array_equal(media.frames_THWC, frames_THWC)
    audio = parse_condition(name).modality == "audio"
    touched = [m.waveform_T if audio else m.frames_THWC for m in (first, second, other)]
    assert touched[0] is not None
    assert touched[2] is not None
    np.testing.assert_array_equal(touched[0], touched[1])
    assert not np.array_equal(touched[0], touched[2])


@pytest.mark.parametrize("name", EVERY)
def test_the_other_signal_is_untouched(name: str) -> None:
    media = Media(tone(0.5), pictures(16, 32, 32))
    corrupted = corrupt(media, parse_condition(name), "clip")
    if parse_condition(name).modality == "audio":
        assert corrupted.frames_THWC is media.frames_THWC
    else:
        assert corrupted.waveform_T is media.waveform_T


@pytest.mark.parametrize("name", EVERY)
def test_a_signal_that_is_not_there_stays_away(name: str) -> None:
    assert corrupt(Media(None, None), parse_condition(name), "clip") == Media(None, None)


def test_clean_passes_everything_on() -> None:
    media = Media(tone(0.1), pictures(2))
    assert corrupt(media, parse_condition("clean"), "clip") is media


def test_noise_is_what_it_was() -> None:
    """Another generator or another order of draws would make stored noisy features stale unnoticed."""
    level_T = np.full(4, 0.25, np.float32)
    noisy_T = corrupt(Media(level_T, None), parse_condition("noise-white-0db"), "clip").waveform_T
    assert noisy_T is not None
    np.testing.assert_allclose(noisy_T, [0.5780553, 0.2996886, 0.1817869, 0.617774], atol=1e-6)
