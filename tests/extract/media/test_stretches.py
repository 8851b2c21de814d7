"""Stretches of one recording: each is its own sound and its own frames, and the file is read once for all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cache.corpus.clips import read_corpus
from cache.corpus.stretch import Stretch
from cache.media import Failure, Media
from extract.media import stretches
from extract.media.cut import PLAIN
from extract.media.decode import decode, decode_all
from extract.media.picture import Picture
from extract.media.sound import Sound
from extract.media.stretches import decode_stretches
from extract.media.strict import strict_pass
from extract.media.tracks import Tracks
from tests.tiny.media import FPS, PictureTrack, SoundTrack, grey, pitch_of, write_media
from tests.tiny.places import SHARED

COUNT = 75  # frames: 3 s at 25 a second
TABLES = SHARED / "cases/tables"


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of film, of which frame i is a grey that says i, and of sound."""
    path = tmp_path_factory.mktemp("stretches") / "talk.mkv"
    return write_media(path, PictureTrack(count=COUNT, bframes=0), [SoundTrack(300.0, "flac", seconds=3.0)])


def decoded(path: Path, *wanted: Stretch, frames: int = 8) -> list[Media]:
    found = decode_stretches(path, wanted, frames, 32, PLAIN)
    return [one for one in found if isinstance(one, Media)]


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (0.5, 1.5), (2.0, 3.0), (1.0, float("inf"))])
def test_frames_and_samples_are_those_of_the_stretch(start: float, end: float, talk: Path) -> None:
    (media,) = decoded(talk, Stretch(start, end))
    assert media.frames_THWC is not None
    assert media.waveform_T is not None
    first, last = round(start * FPS), min(COUNT, round(min(end, 3.0) * FPS)) - 1
    expected = [grey(first + round(i * (last - first) / 7), COUNT) for i in range(8)]
    assert np.abs(media.frames_THWC.mean(axis=(1, 2, 3)) - expected).max() <= 3
    assert len(media.waveform_T) == round((min(end, 3.0) - start) * 16_000)


def test_neighbours_are_the_whole_without_a_gap(talk: Path) -> None:
    whole = decode(talk, 8, 32)
    parts = decoded(talk, Stretch(0, 1), Stretch(1, 1.7), Stretch(1.7, float("inf")))
    np.testing.assert_array_equal(np.concatenate([one.waveform_T for one in parts]), whole.waveform_T)
    assert whole.frames_THWC is not None
    for part, index in ((parts[0], 0), (parts[-1], -1)):
        assert part.frames_THWC is not None
        np.testing.assert_array_equal(part.frames_THWC[index], whole.frames_THWC[index])


def test_a_stretch_beyond_the_end_fails_by_itself(talk: Path) -> None:
    found = decode_stretches(talk, [Stretch(0, 1), Stretch(2.5, 3.5), Stretch(4, float("inf"))], 8, 32, PLAIN)
    assert isinstance(found[0], Media)
    assert [one.reason for one in found[1:] if isinstance(one, Failure)] == [
        "the stretch 2.5-3.5 s reaches beyond the recording, which is 3.00 s long",
        "the stretch 4- s reaches beyond the recording, which is 3.00 s long",
    ]


def test_a_stretch_between_two_frames_shows_the_one_before(tmp_path: Path) -> None:
    slides = write_media(tmp_path / "slides.mkv", PictureTrack(count=4, times=(0, 1000, 2000, 3000), bframes=0))
    (media,) = decoded(slides, Stretch(1.2, 1.8))
    assert media.frames_THWC is not None
    assert np.abs(media.frames_THWC.mean(axis=(1, 2, 3)) - grey(1, 4)).max() <= 3


def test_a_file_is_read_twice_however_many_stretches_it_has(talk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []

    def counted(path: Path, tracks: Tracks, picture: Picture | None) -> Sound | None:
        passes.append(path)
        return strict_pass(path, tracks, picture)

    monkeypatch.setattr(stretches, "strict_pass", counted)
    decoded(talk, *(Stretch(second / 10, second / 10 + 0.5) for second in range(20)))
    assert len(passes) == 2


def test_whole_files_and_stretches_of_several_files_come_back_in_order(talk: Path, tmp_path: Path) -> None:
    other = write_media(tmp_path / "other.wav", None, [SoundTrack(700.0, "pcm_s16le", seconds=1.0)])
    paths = [talk, talk, other, talk, other, tmp_path / "none.wav"]
    wanted = [Stretch(0, 1), Stretch(1, 3), Stretch(0, 0.5), None, None, Stretch(0, 1)]
    found = list(
        decode_all(paths, frames=8, size=32, workers=2, timeout_seconds=60, check=lambda: None, stretches=wanted)
    )
    lengths = [len(one.waveform_T) for one, _ in found[:5] if isinstance(one, Media) and one.waveform_T is not None]
    assert lengths == [16_000, 32_000, 8_000, 48_000, 16_000]
    assert found[5][0] == Failure("no such file")
    assert [source.sha256[64:] for _, source in found] == ["@0-1", "@1-3", "@0-0.5", "", "", ""]
    assert pitch_of(found[2][0].waveform_T) == pytest.approx(700, rel=0.02)  # type: ignore[union-attr, arg-type]


@pytest.mark.skipif(not TABLES.is_dir(), reason="no awkward tables in $SHARED")
@pytest.mark.parametrize("name", ["stretches_one_each", "stretches_two_each"])
def test_tables_of_stretches(name: str) -> None:
    """Once each row was its whole recording."""
    corpus = read_corpus(TABLES / f"{name}.csv")
    for clip in corpus.clips:
        whole, stretch = decode(corpus.source(clip), 0, 32).waveform_T, clip.stretch
        assert stretch is not None
        assert whole is not None
        (media,) = decoded(corpus.source(clip), stretch)
        first, last = (round(seconds * 16_000) for seconds in (stretch.start_seconds, stretch.end_seconds))
        assert len(whole) > last - first
        np.testing.assert_array_equal(media.waveform_T, whole[first:last])
