"""Every container with every codec, rate and turn, and every sound format with every rate and number of channels.

Frame i is a grey that says i, the sound is a tone of 220 Hz at half of full scale. Each film and recording must give
the right frames and samples, or one clear failure; what the installed build of PyAV cannot write is listed.
`make test` takes pairs of parts, `make test-slow` all combinations.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from cache.media import Media
from extract.media.decode import decode
from tests.tiny.matrix import (
    CODECS,
    CONTAINERS,
    COUNT,
    RATES_HZ,
    SIDE,
    SOUND_KINDS,
    TURNS,
    Film,
    Recording,
    films,
    recordings,
)
from tests.tiny.media import greys, pitch_of

H264, OTHERS = {"h264 closed", "h264 open", "h264 refresh"}, {"wmv", "h263", "sorenson", "gif"}
VP9 = {"vp9", "vp9 hidden"}
# What the muxers of the installed build refuse.
NOT_WRITTEN = {
    "mp4": OTHERS | {"vp8", "prores"},
    "fragmented.mp4": OTHERS | {"vp8", "prores"},
    "mov": OTHERS - {"gif"} | VP9 | {"vp8", "av1"},
    "mkv": OTHERS,
    "webm": set(CODECS) - VP9 - {"vp8", "av1"},
    "avi": {"hevc", "prores", "gif"},
    "mpg": set(),
    "ts": set(),
    "wmv": {"gif", "hevc", "prores"},
    "flv": {"mpeg4", "mpeg2", "vp8", "mjpeg", "prores", "wmv", "h263", "gif"},
    "3gp": set(CODECS) - H264 - {"mpeg4"},
    "gif": set(CODECS) - {"gif"},
}
# What they write although the container knows no such codec: nothing can tell what it is. It is refused, or absent.
NO_SUCH_CODEC = {
    "mpg": OTHERS | VP9 | {"vp8", "av1", "mjpeg", "prores"},
    "ts": OTHERS | VP9 | {"vp8", "av1", "mjpeg", "prores"},
}
FEW, OPUS_RATES = {3, 4, 6, 8}, {8000, 16_000, 48_000}
# Rates and numbers of channels that the encoders of the installed build refuse.
NOT_RECORDED: dict[str, tuple[set[int], set[int]]] = {
    "wav adpcm": (set(), FEW),
    "alac": (set(), {4, 8}),
    "mp3": ({96_000, 192_000}, FEW),
    "mp3 without xing": ({96_000, 192_000}, FEW),
    "mp2": ({8000, 11_025, 96_000, 192_000}, FEW),
    "adts": ({192_000}, set()),
    "m4a": ({192_000}, set()),
    "opus": (set(RATES_HZ) - OPUS_RATES, set()),
    "opus in webm": (set(RATES_HZ) - OPUS_RATES, set()),
    "vorbis": (set(), FEW | {1}),
    "wma": ({96_000, 192_000}, FEW),
    "ac3": ({8000, 11_025, 16_000, 22_050, 96_000, 192_000}, {8}),
    "amr": (set(RATES_HZ) - {8000}, FEW | {2}),
}


@contextlib.contextmanager
def written(expected: bool) -> Iterator[None]:
    """What cannot be written by this build is skipped, and must be on the list."""
    try:
        yield
    except (av.error.FFmpegError, ValueError):
        if expected:
            raise
        pytest.skip("not written by the installed build, as listed")
    assert expected, "is written by the installed build: take it off the list"


def is_written(film: Film) -> bool:
    # MPEG-2 has a list of rates.
    listed = film.codec in NOT_WRITTEN[film.container] or (film.codec, film.frame_rate) == ("mpeg2", "variable")
    return not listed


def check_film(film: Film, folder: Path) -> None:
    with written(is_written(film)):
        path = film.write(folder)
    if film.codec in NO_SUCH_CODEC.get(film.container, ()):
        check_unknown(path)
        return
    media = decode(path, COUNT, SIDE)
    check_frames(media, film)
    sound = CONTAINERS[film.container][1]
    if sound is None:
        assert media.waveform_T is None
    else:
        assert media.waveform_T is not None
        assert pitch_of(media.waveform_T) == pytest.approx(sound.pitch_hz, abs=2)
        assert len(media.waveform_T) / 16_000 == pytest.approx(1.0, abs=0.1)


def check_unknown(path: Path) -> None:
    with contextlib.suppress(ValueError):
        assert decode(path, COUNT, SIDE).frames_THWC is None


def check_frames(media: Media, film: Film) -> None:
    assert media.frames_THWC is not None
    middle = media.frames_THWC[:, 28:36, 28:36].mean(axis=(1, 2, 3))
    assert np.abs(middle - greys(COUNT, COUNT)).max() <= 4
    half = media.frames_THWC[COUNT // 2].mean(axis=-1)
    corners = [half[:8, :8].mean(), half[:8, -8:].mean(), half[-8:, :8].mean(), half[-8:, -8:].mean()]
    black, white = {"upright": (0, 1), "quarter": (1, 3), "half": (3, 2), "mirror": (1, 0)}[film.turn]
    assert (corners.index(min(corners)), corners.index(max(corners))) == (black, white)


EVERY_FILM, EVERY_RECORDING = list(films()), list(recordings())
PAIRED_FILMS = [
    film
    for film in EVERY_FILM
    if (film.frame_rate, film.turn) == ("25", "upright")
    or (film.container == "mkv" and film.turn == "upright")
    or (film.container == "mp4" and film.frame_rate == "25")
    or (film.codec == "h264 open" and (film.turn == "upright" or film.frame_rate == "variable"))
]
PAIRED_RECORDINGS = [
    recording
    for recording in EVERY_RECORDING
    if (recording.rate_hz, recording.channels) in ((8000, 1), (44_100, 2), (48_000, 6))
    or (recording.kind in ("wav 16 bit", "m4a") and recording.channels in (1, 8))
    or (recording.kind in ("wav float", "flac", "aiff") and recording.rate_hz in (16_000, 22_050))
]


def films_named(chosen: list[Film]) -> pytest.MarkDecorator:
    names = [f"{film.codec} in {film.container} at {film.frame_rate}, {film.turn}" for film in chosen]
    return pytest.mark.parametrize("film", chosen, ids=names)


def recordings_named(chosen: list[Recording]) -> pytest.MarkDecorator:
    names = [f"{item.kind}, {item.rate_hz} Hz, {item.channels} channels" for item in chosen]
    return pytest.mark.parametrize("recording", chosen, ids=names)


@films_named(PAIRED_FILMS)
def test_a_film_gives_its_frames_and_its_sound(film: Film, tmp_path: Path) -> None:
    check_film(film, tmp_path)


@pytest.mark.slow
@films_named([film for film in EVERY_FILM if film not in PAIRED_FILMS])
def test_every_film_gives_its_frames_and_its_sound(film: Film, tmp_path: Path) -> None:
    check_film(film, tmp_path)


def test_the_pairs_hold_every_pair_with_the_container() -> None:
    for names, part in ((CODECS, "codec"), (TURNS, "turn")):
        seen = {(film.container, getattr(film, part)) for film in PAIRED_FILMS}
        wanted = {(film.container, getattr(film, part)) for film in EVERY_FILM}
        assert seen == wanted
        assert {value for _, value in seen} == set(names)


def check_recording(recording: Recording, folder: Path) -> None:
    with written(is_recorded(recording)):
        path = recording.write(folder)
    media = decode(path, 16, 32)
    assert media.frames_THWC is None
    assert media.waveform_T is not None
    count, lossless = round(recording.seconds * recording.rate_hz), SOUND_KINDS[recording.kind].lossless
    expected = math.ceil(count * 16_000 / recording.rate_hz)
    # Encoders that lose something work in frames of up to 1152 samples, and begin before the beginning.
    tolerance = 0 if lossless else 2304 * 16_000 / recording.rate_hz + 800
    assert abs(len(media.waveform_T) - expected) <= tolerance
    assert pitch_of(media.waveform_T) == pytest.approx(220, abs=3)
    quarter = len(media.waveform_T) // 4
    amplitude = np.sqrt(2 * np.mean(media.waveform_T[quarter:-quarter] ** 2))
    # The same tone in all channels: where there is a centre, the others are added to it.
    assert amplitude >= 0.35
    if recording.channels <= 2:
        assert amplitude == pytest.approx(0.5, abs=0.01 if lossless else 0.15)


def is_recorded(recording: Recording) -> bool:
    rates, channels = NOT_RECORDED.get(recording.kind, (set(), set()))
    return recording.rate_hz not in rates and recording.channels not in channels


@recordings_named(PAIRED_RECORDINGS)
def test_a_recording_gives_its_samples(recording: Recording, tmp_path: Path) -> None:
    check_recording(recording, tmp_path)


@pytest.mark.slow
@recordings_named([recording for recording in EVERY_RECORDING if recording not in PAIRED_RECORDINGS])
def test_every_recording_gives_its_samples(recording: Recording, tmp_path: Path) -> None:
    check_recording(recording, tmp_path)


def test_the_recordings_hold_every_kind_rate_and_number_of_channels() -> None:
    assert {item.kind for item in PAIRED_RECORDINGS} == set(SOUND_KINDS)
    assert {item.rate_hz for item in PAIRED_RECORDINGS} == set(RATES_HZ)
