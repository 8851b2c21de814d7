"""Stretches of a recording as metadata.csv names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache.corpus.clips import Clip, read_corpus, write_metadata
from cache.corpus.stretch import Stretch, parse_stretch, part_hash
from cache.media import Source


def test_seconds_an_open_end_and_none_at_all() -> None:
    assert parse_stretch("", "") is None
    assert parse_stretch("1.5", "3") == Stretch(1.5, 3.0)
    assert parse_stretch("", "3") == Stretch(0.0, 3.0)
    assert str(parse_stretch("1.5", "")) == "@1.5-"


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("3", "1", "end=1 does not lie behind start=3"),
        ("3", "3", "does not lie behind"),
        ("", "0", "end=0 does not lie behind start=0"),
        ("-1", "2", "start=-1 must be a number of seconds"),
        ("0:03", "", "start=0:03 must be a number of seconds"),
        ("0", "nan", "end=nan must be a number"),
        ("0", "inf", "end=inf must be a number"),
    ],
)
def test_what_is_no_stretch_is_refused(start: str, end: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_stretch(start, end)


def test_stretches_of_a_long_recording_are_told_apart_to_the_millisecond() -> None:
    """Of its seconds six digits counted: one that was moved by four milliseconds was taken for what it had been."""
    assert str(Stretch(1234.561, 3600.001)) == "@1234.561-3600.001"
    assert part_hash("0" * 64, Stretch(1234.561, 1240)) != part_hash("0" * 64, Stretch(1234.564, 1240))
    assert str(Stretch(0.1 + 0.2, 100)) == "@0.3-100"


def test_one_file_may_be_listed_for_several_stretches_and_once_for_each(tmp_path: Path) -> None:
    clips = [Clip("a", "t.wav", "happy", "1", start="0", end="3"), Clip("b", "t.wav", "sad", "1", start="3", end="6")]
    write_metadata(clips, tmp_path / "metadata.csv")
    assert read_corpus(tmp_path / "metadata.csv").clips == tuple(clips)
    write_metadata([*clips, Clip("c", "t.wav", "sad", "1", start="3.0", end="6.0")], tmp_path / "metadata.csv")
    with pytest.raises(ValueError, match=r"path 't\.wav@3-6' appears twice"):
        read_corpus(tmp_path / "metadata.csv")


def test_whole_files_need_no_further_columns(tmp_path: Path) -> None:
    write_metadata([Clip("a", "a.wav", "happy", "1")], tmp_path / "metadata.csv")
    assert (tmp_path / "metadata.csv").read_text().splitlines()[0].endswith(",split,sha256")


def test_two_stretches_of_a_file_are_two_sources(tmp_path: Path) -> None:
    (tmp_path / "t.wav").write_bytes(b"sound")
    whole, first, second = (Source.of(tmp_path / "t.wav", stretch=one) for one in (None, Stretch(0, 3), Stretch(3, 6)))
    assert len({whole.sha256, first.sha256, second.sha256}) == 3
    assert whole.sha256 == first.file_sha256 == second.file_sha256
