"""Sound conditions do what their name says, keep length and full scale, and are the same each time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate, welch

from cache.conditions import KINDS, parse_condition
from cache.media import Media
from extract.corrupt.apply import corrupt
from extract.corrupt.noise.sources import NoiseSources
from extract.corrupt.sound.codec import CODECS
from extract.corrupt.sound.effects import SOUND, add_noise
from extract.corrupt.sound.level import Waveform, active_speech_power
from extract.corrupt.sound.room import room_response
from extract.corrupt.sound.telephone import mu_law
from tests.tiny.corpus import tone
from tests.tiny.places import SHARED, needs_audio

FLAC = SHARED / "ravdess/audio"
# The quietest and the loudest clip of RAVDESS, and a usual one.
EXTREMES = [
    "Actor_20/03-01-02-02-02-02-20.flac",
    "Actor_07/03-01-05-02-01-02-07.flac",
    "Actor_01/03-01-01-01-01-01-01.flac",
]
NOISES = ["noise-white", "noise-pink", "noise-babble", "noise-file"]
OTHERS = [
    *("reverb-room-600ms", "clip-peak-25", "band-telephone", "codec-mp3-16kbps", "codec-aac-16kbps"),
    *("gain-track-minus1db", "cut-start-20ms"),
]
EVERY = [*(f"{kind}-0db" for kind in NOISES), *OTHERS, "silence-track"]

gains = st.sampled_from([1e-4, 0.006, 0.1, 1.0, 2.0])


@dataclass(frozen=True)
class Hiss:
    """Recordings that are white noise."""

    names = ("hiss",)

    def draw(self, length: int, rng: np.random.Generator, _clip_id: str) -> Waveform:
        return (0.01 * rng.standard_normal(length)).astype(np.float32)

    def provenance(self) -> dict[str, Any]:
        return {}


SOURCES = NoiseSources({"noise-babble": Hiss(), "noise-file": Hiss()})


def heard(waveform_T: Waveform, name: str, clip_id: str = "clip") -> Waveform:
    """The sound under a condition; what holds for all of them is checked on the way."""
    before_T = waveform_T.copy()
    media = corrupt(Media(waveform_T, None), parse_condition(name), clip_id, SOURCES)
    assert media.waveform_T is not None
    assert media.waveform_T.dtype == np.float32
    assert len(media.waveform_T) == len(waveform_T)
    assert np.abs(media.waveform_T).max(initial=0) <= 1
    assert np.isfinite(media.waveform_T).all()
    np.testing.assert_array_equal(waveform_T, before_T)
    return media.waveform_T


def real(clip: str) -> Waveform:
    waveform_T: Waveform = soundfile.read(FLAC / clip, dtype="float32")[0]
    return waveform_T


# Noise


def parts(mix_T: Waveform, clean_T: Waveform, noise_T: Waveform) -> float:
    """The SNR of a mix in dB, after taking it apart into the two signals that it must consist of."""
    both = np.stack([clean_T, noise_T], axis=1).astype(np.float64)
    (speech_gain, noise_gain), *_ = np.linalg.lstsq(both, mix_T.astype(np.float64), rcond=None)
    rest_T = mix_T - both @ [speech_gain, noise_gain]
    assert np.abs(rest_T).max() < 1e-6 * max(1, np.abs(mix_T).max())
    speech = active_speech_power((speech_gain * clean_T).astype(np.float32))
    return float(10 * np.log10(speech / np.mean((noise_gain * noise_T.astype(np.float64)) ** 2)))


def noise_of(kind: str, count: int, clip_id: str) -> Waveform:
    """The noise that a condition adds, up to its level: a faint clip under a hundred times as much of it."""
    click_T = np.zeros(count, np.float32)
    click_T[0] = 1e-4
    return heard(click_T, f"{kind}-minus40db", clip_id) - click_T


def assert_noisy(clean_T: Waveform, name: str, clip_id: str = "clip") -> None:
    condition = parse_condition(name)
    noisy_T = heard(clean_T, name, clip_id)
    assert abs(parts(noisy_T, clean_T, noise_of(condition.kind, len(clean_T), clip_id)) - condition.level) < 0.1


@pytest.mark.parametrize("kind", NOISES)
@given(st.integers(-20, 40), gains, st.floats(0.05, 1.5), st.integers(0, 20))
@settings(max_examples=25, deadline=None)
def test_noise_has_its_ratio_and_never_clips(kind: str, snr_db: int, gain: float, seconds: float, seed: int) -> None:
    clean_T = (gain * tone(seconds, seed=seed)).astype(np.float32)
    assert_noisy(clean_T, kind + KINDS[kind].level_name(snr_db), f"clip {seed}")


@needs_audio
@pytest.mark.parametrize("level", ["30db", "0db", "minus15db"])
@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("clip", EXTREMES)
def test_noise_on_real_voices_of_any_level(clip: str, kind: str, level: str) -> None:
    assert_noisy(real(clip), f"{kind}-{level}")


@needs_audio
def test_the_real_clips_are_extremes() -> None:
    peaks = [np.abs(real(clip)).max() for clip in EXTREMES]
    assert min(peaks) < 0.005
    assert max(peaks) > 0.99


def test_a_quiet_mix_keeps_the_level_of_the_speech() -> None:
    """Only a mix that would pass full scale is scaled."""
    clean_T = 0.1 * tone(0.5)
    noise_T = np.random.default_rng(0).standard_normal(len(clean_T)).astype(np.float32)
    added_T = add_noise(clean_T, noise_T, 20).astype(np.float64) - clean_T
    assert np.corrcoef(added_T, noise_T)[0, 1] > 0.999


@pytest.mark.parametrize("kind", NOISES)
def test_a_loud_mix_reaches_full_scale_exactly(kind: str) -> None:
    assert np.abs(heard(3 * tone(0.5), f"{kind}-minus5db")).max() == 1


def test_pauses_do_not_count_as_speech() -> None:
    spoken_T = tone(1.0)
    padded_T = np.concatenate([np.zeros(16_000, np.float32), spoken_T, np.zeros(32_000, np.float32)])
    assert active_speech_power(padded_T) == pytest.approx(active_speech_power(spoken_T), rel=1e-6)


def test_active_speech_by_hand() -> None:
    """Frames of 320 samples: power 1, 0.01 (20 dB down) and 0.0001 (40 dB down, a pause)."""
    frames = [np.full(320, level, np.float32) for level in (1.0, 0.1, 0.01)]
    assert active_speech_power(np.concatenate(frames)) == pytest.approx((1 + 0.01) / 2, rel=1e-6)


@pytest.mark.parametrize("count", [0, 500])
@pytest.mark.parametrize("kind", NOISES)
def test_silence_has_no_ratio(kind: str, count: int) -> None:
    with pytest.raises(ValueError, match=r"silent: no signal-to-noise ratio can be set"):
        heard(np.zeros(count, np.float32), f"{kind}-0db")


@pytest.mark.parametrize("kind", NOISES)
def test_levels_of_one_clip_share_their_noise_and_clips_do_not(kind: str) -> None:
    clean_T = 0.01 * tone(1.0)
    first, second, other = (
        heard(clean_T, f"{kind}-{level}", clip_id) - clean_T
        for level, clip_id in (("0db", "a"), ("10db", "a"), ("0db", "b"))
    )
    assert np.corrcoef(first, second)[0, 1] > 0.9999
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.2


def spectrum_db(noise_T: Waveform) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    hertz, power = welch(noise_T, 16_000, nperseg=4096)
    return hertz, 10 * np.log10(power)


@pytest.mark.parametrize(("kind", "slope"), [("noise-white", 0.0), ("noise-pink", -3.0103)])
def test_pink_noise_loses_three_decibels_an_octave_and_white_none(kind: str, slope: float) -> None:
    hertz, level_db = spectrum_db(noise_of(kind, 16_000 * 20, "clip"))
    heard_ = (hertz > 50) & (hertz < 7500)
    # Octaves weigh the same, whatever the number of bins in them.
    fitted = np.polyfit(np.log2(hertz[heard_]), level_db[heard_], 1, w=1 / np.sqrt(hertz[heard_]))[0]
    assert fitted == pytest.approx(slope, abs=0.15)


def test_pink_noise_of_any_length_is_as_loud_below_twenty_hertz() -> None:
    """Or else the longer the clip, the more of its noise would be infrasound."""
    hertz, level_db = spectrum_db(noise_of("noise-pink", 16_000 * 60, "clip"))
    assert level_db[hertz < 12][1:].mean() < level_db[(hertz > 18) & (hertz < 30)].mean() + 1.5


# Rooms


def measured_rt60(response_T: npt.NDArray[np.float64]) -> float:
    """Schroeder's backward integration, T30 by two-point regression: independent of the code under test."""
    decay_db = 10 * np.log10(np.cumsum(response_T[::-1] ** 2)[::-1] / np.sum(response_T**2))
    chosen = [index for index, value in enumerate(decay_db) if -35 <= value <= -5]
    times = np.array(chosen) / 16_000
    matrix = np.stack([times, np.ones_like(times)], axis=1)
    slope = np.linalg.lstsq(matrix, decay_db[chosen], rcond=None)[0][0]
    return float(-60 / slope)


@given(st.sampled_from([50, 120, 300, 600, 1200, 2500]), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_room_has_its_reverberation_time(milliseconds: int, seed: int) -> None:
    response_T = room_response(milliseconds, np.random.default_rng(seed))
    assert measured_rt60(response_T) == pytest.approx(milliseconds / 1000, rel=0.05)
    # Direct sound first and strongest, as much energy behind it.
    assert response_T[0] == 1 == np.abs(response_T).max()
    assert np.sum(response_T[1:] ** 2) == pytest.approx(1)


@given(gains, st.sampled_from([50, 600, 5000]), st.floats(0.05, 1.0))
@settings(max_examples=20, deadline=None)
def test_a_room_keeps_the_level_of_the_speech(gain: float, milliseconds: int, seconds: float) -> None:
    clean_T = (gain * tone(seconds)).astype(np.float32)
    wet_T = heard(clean_T, f"reverb-room-{milliseconds}ms")
    if np.abs(wet_T).max() < 1:
        assert active_speech_power(wet_T) == pytest.approx(active_speech_power(clean_T), rel=1e-4)


def test_a_room_answers_after_the_sound_and_never_before() -> None:
    burst_T = np.zeros(16_000, np.float32)
    burst_T[4000:5000] = tone(1.0)[4000:5000]
    wet_T = heard(burst_T, "reverb-room-600ms")
    assert np.abs(wet_T[:4000]).max() < 1e-6
    early, late = (np.mean(wet_T[start : start + 1000].astype(np.float64) ** 2) for start in (5500, 10_300))
    # 0.3 s later, half the reverberation time: 30 dB.
    assert 10 * np.log10(early / late) == pytest.approx(30, abs=3)


# Clipping, telephone, silence


@given(st.integers(1, 99), gains)
@settings(max_examples=30, deadline=None)
def test_clipping_cuts_at_its_share_of_the_peak_and_nothing_else(percent: int, gain: float) -> None:
    clean_T = (min(gain, 1) * tone(0.3)).astype(np.float32)
    limit = percent / 100 * np.abs(clean_T).max()
    clipped_T = heard(clean_T, f"clip-peak-{percent}")
    assert np.abs(clipped_T).max() == pytest.approx(limit, rel=1e-6)
    inside_T = np.abs(clean_T) < limit * (1 - 1e-6)
    np.testing.assert_array_equal(clipped_T[inside_T], clean_T[inside_T])


def test_the_telephone_passes_its_band_in_time_and_stops_the_rest() -> None:
    seconds = np.arange(16_000) / 16_000
    for hertz in (60, 180, 320, 1000, 3350, 3550, 5000):
        sine_T = (0.5 * np.sin(2 * np.pi * hertz * seconds)).astype(np.float32)
        line_T = heard(sine_T, "band-telephone")
        inner = slice(2000, -2000)
        gain_db = 10 * np.log10(np.mean(line_T[inner].astype(np.float64) ** 2) / 0.125 + 1e-12)
        assert (abs(gain_db) < 0.3) if 300 <= hertz <= 3400 else (gain_db < -40), (hertz, gain_db)
        if 300 <= hertz <= 3400:
            assert np.corrcoef(line_T[inner], sine_T[inner])[0, 1] > 0.999


def test_mu_law_is_that_of_g711() -> None:
    """Against FFmpeg's, whose table rounds to the nearest value and not by G.711's decision values: at the edges."""
    ramp = np.arange(-32768, 32768, dtype=np.int16)
    encoder, decoder = (av.codec.CodecContext.create("pcm_mulaw", mode) for mode in "wr")
    for context in (encoder, decoder):
        context.sample_rate, context.layout = 8000, "mono"
    encoder.format = "s16"
    frame = av.AudioFrame.from_ndarray(ramp[None], format="s16", layout="mono")
    frame.sample_rate = 8000
    packets = [packet for item in (frame, None) for packet in encoder.encode(item)]
    reference_T = np.concatenate([out.to_ndarray()[0] for packet in packets for out in decoder.decode(packet)])
    ours_T = np.round(mu_law(ramp / 4 / 8159) * 8159 * 4).astype(np.int64)
    assert set(ours_T) == set(reference_T.astype(np.int64))
    assert (ours_T != reference_T).mean() < 0.02


def test_a_silent_track_is_zeros() -> None:
    assert not heard(tone(0.2), "silence-track").any()


# Changes that nobody minds


@pytest.mark.parametrize(("name", "factor"), [("gain-track-minus1db", 0.8912509), ("gain-track-6db", 1.9952623)])
def test_a_gain_multiplies_every_sample(name: str, factor: float) -> None:
    quiet_T = (0.1 * tone(0.2)).astype(np.float32)
    np.testing.assert_allclose(heard(quiet_T, name), factor * quiet_T, rtol=1e-6)


def test_a_gain_that_full_scale_has_no_room_for_is_smaller() -> None:
    loud_T = (0.9 * tone(0.2) / np.abs(tone(0.2)).max()).astype(np.float32)
    np.testing.assert_allclose(heard(loud_T, "gain-track-6db"), loud_T / 0.9, rtol=1e-5)


def test_a_cut_start_is_gone_and_the_rest_comes_earlier() -> None:
    clean_T = tone(0.2)
    cut_T = heard(clean_T, "cut-start-20ms")
    np.testing.assert_array_equal(cut_T[:-320], clean_T[320:])
    assert not cut_T[-320:].any()
    assert not heard(clean_T, "cut-start-500ms").any()


# Codecs


@needs_audio
@pytest.mark.parametrize("clip", EXTREMES)
@pytest.mark.parametrize("name", ["codec-mp3-8kbps", "codec-mp3-64kbps", "codec-aac-8kbps", "codec-aac-64kbps"])
def test_codecs_stay_in_time_on_real_voices(name: str, clip: str) -> None:
    clean_T = real(clip)[:40_000]
    coded_T = heard(clean_T, name)
    lags = correlate(coded_T.astype(np.float64), clean_T.astype(np.float64), method="fft")
    assert int(np.argmax(lags)) == len(clean_T) - 1


@pytest.mark.parametrize("name", ["codec-mp3-24kbps", "codec-aac-24kbps", "band-telephone"])
def test_sound_stays_in_time(name: str) -> None:
    clean_T = tone(0.7)
    clean_T[:3000] = 0
    lags = correlate(heard(clean_T, name).astype(np.float64), clean_T.astype(np.float64), method="fft")
    assert int(np.argmax(lags)) == len(clean_T) - 1


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_more_bits_leave_more_of_the_sound(codec: str) -> None:
    clean_T = tone(1.0)
    errors = [np.mean((heard(clean_T, f"codec-{codec}-{kbps}kbps") - clean_T) ** 2) for kbps in (8, 16, 64)]
    assert errors[0] > errors[1] > errors[2] > 0


# All of them


@pytest.mark.parametrize("count", [1, 2, 100, 319, 320, 321, 577, 1025])
@pytest.mark.parametrize("name", EVERY)
def test_the_shortest_sounds(name: str, count: int) -> None:
    heard(tone(1.0)[500 : 500 + count], name)


@pytest.mark.parametrize("count", [0, 500])
@pytest.mark.parametrize("name", [*OTHERS, "silence-track"])
def test_digital_silence_stays_silent(name: str, count: int) -> None:
    assert not heard(np.zeros(count, np.float32), name).any()


@pytest.mark.parametrize("name", OTHERS)
@given(gains, st.floats(0.02, 0.5), st.integers(0, 5))
@settings(max_examples=8, deadline=None)
def test_sound_of_any_level_is_changed_within_full_scale(name: str, gain: float, seconds: float, seed: int) -> None:
    clean_T = (gain * tone(seconds, seed=seed)).astype(np.float32)
    first, second = (heard(clean_T, name) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, clean_T)


@pytest.mark.parametrize("name", [name for name in EVERY if "noise" in name or "reverb" in name])
def test_what_is_drawn_differs_between_clips(name: str) -> None:
    assert not np.array_equal(heard(tone(0.2), name, "a"), heard(tone(0.2), name, "b"))


def test_every_kind_is_tested_here() -> None:
    tested = {parse_condition(name).kind for name in EVERY}
    assert tested == {kind for kind, rule in KINDS.items() if rule.modality == "audio"}
    assert tested == {*SOUND, *SOURCES.by_kind}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("noise-white-0db", [0.5415819, 0.2941642, 0.1893709, 0.4268848]),
        ("noise-pink-0db", [0.4873218, 0.4594297, 0.4506564, 0.3388610]),
        ("reverb-room-100ms", [0.2431409, 0.2486560, 0.2411174, 0.1357023]),
        ("band-telephone", [0.1461910, 0.2061098, 0.1747777, 0.0760445]),
        ("clip-peak-25", [0.0625, 0.0625, 0.0625, 0.0625]),
    ],
)
def test_sound_is_what_it_was(name: str, expected: list[float]) -> None:
    """Another generator or another order of draws would make stored features stale unnoticed."""
    np.testing.assert_allclose(heard(np.array([0.25, 0.25, 0.25, 0.1], np.float32), name), expected, atol=1e-6)


def test_noise_is_what_it_was() -> None:
    """Another generator or another order of draws would make stored noisy features stale unnoticed."""
    noisy_T = heard(np.full(4, 0.25, np.float32), "noise-white-0db")
    np.testing.assert_allclose(noisy_T, [0.5780553, 0.2996886, 0.1817869, 0.617774], atol=1e-6)
