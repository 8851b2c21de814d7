"""Sound at 16 kHz: the same in pieces as in one, at odd rates, and of many channels."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
import torch
import torchaudio.functional
from hypothesis import given, settings
from hypothesis import strategies as st

import extract.media.sound
from extract.media.decode import decode
from extract.media.sound import LARGEST_FILTERS, Sound, _Filters, resampler
from tests.tiny.corpus import tone
from tests.tiny.matrix import Recording
from tests.tiny.media import PictureTrack, SoundTrack, pitch_of, sine, write_media
from tests.tiny.places import ROOT

RATES = [8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000]


def frames_of(samples_T: npt.NDArray[np.float32], rate_hz: int, size: int) -> list[av.AudioFrame]:
    frames = []
    for start in range(0, len(samples_T), size):
        frame = av.AudioFrame.from_ndarray(samples_T[None, start : start + size], format="flt", layout="mono")
        frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
        frames.append(frame)
    return frames


def streamed(samples_T: npt.NDArray[np.float32], rate_hz: int, size: int = 1000) -> npt.NDArray[np.float32]:
    sound = Sound()
    for frame in frames_of(samples_T, rate_hz, size):
        sound.add(frame)
    return sound.waveform()


@pytest.mark.parametrize("rate_hz", RATES)
def test_a_clip_of_usual_length_is_torchaudios_bit_for_bit(rate_hz: int) -> None:
    samples_T = tone(4.3, rate_hz)
    expected = torchaudio.functional.resample(torch.from_numpy(samples_T), rate_hz, 16_000).numpy()
    np.testing.assert_array_equal(streamed(samples_T, rate_hz), expected)


@given(rate_hz=st.sampled_from(RATES), samples=st.integers(1, 30_000), size=st.integers(50, 5000))
@settings(max_examples=40, deadline=None)
def test_pieces_join_without_a_seam(rate_hz: int, samples: int, size: int) -> None:
    samples_T = tone(samples / rate_hz, rate_hz)
    expected = torchaudio.functional.resample(torch.from_numpy(samples_T), rate_hz, 16_000).numpy()
    with pytest.MonkeyPatch.context() as patch:
        # A piece of a few milliseconds, and of a whole number of steps.
        patch.setattr(extract.media.sound, "PIECE_SECONDS", Fraction(1, 50))
        waveform_T = streamed(samples_T, rate_hz, size)
    assert waveform_T.shape == expected.shape
    np.testing.assert_allclose(waveform_T, expected, atol=1e-6)


def test_what_is_held_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract.media.sound, "PIECE_SECONDS", 1)
    filters = _Filters(48_000)
    for second in range(20):
        filters.add(tone(1.0, 48_000, seed=second))
        assert filters._waiting <= 3 * 48_000


@pytest.mark.parametrize("rate_hz", [47_999, 44_101, 15_999, 8001])
def test_rates_that_share_nothing_with_16_khz(rate_hz: int) -> None:
    """torchaudio would make a filter for each of 16 000 phases: gigabytes."""
    assert not isinstance(resampler(rate_hz), _Filters)
    waveform_T = streamed(sine(440, 2.0, rate_hz)[0], rate_hz)
    assert len(waveform_T) == pytest.approx(32_000, abs=2)
    assert pitch_of(waveform_T) == pytest.approx(440, abs=1)
    assert np.abs(waveform_T[4000:-4000]).max() == pytest.approx(0.5, abs=0.01)
    assert LARGEST_FILTERS * 8 < 100e6


def test_a_rate_that_changes_is_refused() -> None:
    sound = Sound()
    for rate_hz in (16_000, 48_000):
        frame = frames_of(tone(0.1, rate_hz), rate_hz, 10_000)[0]
        if rate_hz == 48_000:
            with pytest.raises(ValueError, match=r"changes from 16000 to 48000 Hz"):
                sound.add(frame)
        else:
            sound.add(frame)


@pytest.mark.parametrize("kind", ["flac", "m4a", "opus", "wav 24 bit"])
def test_eight_channels_are_read(tmp_path: Path, kind: str) -> None:
    """PyAV 18 counts the planes of a frame of eight beyond its end."""
    waveform_T = decode(Recording(kind, 48_000, 8).write(tmp_path), 0, 32).waveform_T
    assert waveform_T is not None
    assert pitch_of(waveform_T) == pytest.approx(220, abs=3)


def test_channels_in_an_order_of_their_own_do_not_end_the_process(tmp_path: Path) -> None:
    """PyAV 18 frees their list twice; glibc ends the process a few clips later."""
    path = Recording("aiff", 48_000, 8).write(tmp_path)
    code = f"""
from pathlib import Path
from extract.media.strict import strict_pass
from extract.media.tracks import survey
path = Path({str(path)!r})
for _ in range(10):
    print(strict_pass(path, survey(path), None).samples)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["24000"] * 10


@pytest.mark.parametrize("start", [0, 8000])
def test_sound_that_starts_late_is_whole(tmp_path: Path, start: int) -> None:
    """An edit list that begins with nothing: not damage, and no silence is put in its place."""
    path = tmp_path / "x.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=16_000, layout="mono")
        for number, frame in enumerate(frames_of(sine(440, 2.0, 16_000)[0], 16_000, 1024)):
            planar = av.AudioFrame.from_ndarray(frame.to_ndarray(), format="fltp", layout="mono")
            planar.sample_rate, planar.time_base = 16_000, Fraction(1, 16_000)
            planar.pts = start + 1024 * number
            file.mux(stream.encode(planar))
        file.mux(stream.encode())
    waveform_T = decode(path, 0, 32).waveform_T
    assert waveform_T is not None
    assert len(waveform_T) / 16_000 == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize("fps", [5, 10, 25])
def test_fragments_have_no_length_to_hold_them_to(tmp_path: Path, fps: int) -> None:
    """FFmpeg counts the delay of B-frames as sound: whole files were 0.1 s short."""
    picture = PictureTrack(options={"x264-params": "keyint=10:bframes=3"}, fps=fps, count=20)
    path = write_media(
        tmp_path / "x.mp4", picture, [SoundTrack(seconds=1.0)], options={"movflags": "frag_keyframe+empty_moov"}
    )
    waveform_T = decode(path, 4, 32).waveform_T
    assert waveform_T is not None
    assert len(waveform_T) / 16_000 == pytest.approx(1.0, abs=0.1)


def layout_of(layout: str, **levels: float) -> Sound:
    """A second in which each named channel holds a steady level."""
    names = [channel.name for channel in av.AudioLayout(layout).channels]
    interleaved = np.tile(np.array([levels.get(name, 0.0) for name in names], np.float32), 16_000)
    frame = av.AudioFrame.from_ndarray(interleaved[None], format="flt", layout=layout)
    frame.sample_rate = 16_000
    sound = Sound()
    sound.add(frame)
    return sound


@pytest.mark.parametrize(
    ("layout", "levels", "expected"),
    [
        ("5.1", {"FC": 0.4}, 0.4),
        ("5.1", {"FL": 0.2, "FR": 0.4}, 0.6 * 0.5**0.5),
        ("5.1(side)", {"SL": 0.4}, 0.2),
        ("5.1", {"LFE": 0.9}, 0.0),
        ("7.1", {"FC": 0.2, "BL": 0.2, "SR": 0.2}, 0.4),
        ("5.1", {"FC": 0.9, "FL": 0.9, "FR": 0.9}, 1.0),
        ("stereo", {"FL": 0.2, "FR": 0.4}, 0.3),
        ("quad", {"FL": 0.4, "BR": 0.4}, 0.2),
        ("2.1", {"FL": 0.4, "FR": 0.4, "LFE": 0.9}, 0.4),
        ("mono", {"FC": 0.4}, 0.4),
    ],
)
def test_several_channels_become_one_by_the_rule_of_bs_775(
    layout: str, levels: dict[str, float], expected: float
) -> None:
    """The mean of six channels left a sixth of a voice that is in the centre."""
    np.testing.assert_allclose(layout_of(layout, **levels).waveform(), expected, atol=1e-6)


@pytest.mark.parametrize("other", [0.0, 1e-5])
def test_sound_on_one_side_of_a_stereo_track_is_not_halved(other: float) -> None:
    np.testing.assert_allclose(layout_of("stereo", FL=0.4, FR=other).waveform(), 0.4, atol=2e-5)
    np.testing.assert_allclose(layout_of("stereo", FL=0.4, FR=0.01).waveform(), 0.205, atol=1e-6)
