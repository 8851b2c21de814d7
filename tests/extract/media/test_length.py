"""What a container's own structure says of a file that was cut, and what it cannot say."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from extract.media.decode import decode
from extract.media.length import refuse_incomplete
from tests.tiny.corpus import tone
from tests.tiny.matrix import Film, Recording

CUT_IS_NOTICED: dict[str, Film | Recording] = {
    "mp4": Film("mp4", "h264 open"),
    "fragmented.mp4": Film("fragmented.mp4", "h264 closed"),
    "mov": Film("mov", "mjpeg"),
    "3gp": Film("3gp", "h264 closed"),
    "mkv": Film("mkv", "h264 open"),
    "webm": Film("webm", "vp8"),
    "avi": Film("avi", "mpeg4"),
    "wmv": Film("wmv", "wmv"),
    "flv": Film("flv", "h264 closed"),
    **{
        kind: Recording(kind, 16_000, 2 if kind == "vorbis" else 1, 2.0)
        for kind in ("wav 16 bit", "wav a-law", "rf64", "w64", "aiff", "caf", "flac", "flac in ogg", "vorbis")
    },
    **{
        kind: Recording(kind, 16_000, 1, 2.0)
        for kind in ("opus", "opus in webm", "mp3", "m4a", "alac", "wavpack", "wma")
    },
}
# They say nothing of their length: what is left of them is a shorter clip.
CUT_IS_A_SHORTER_CLIP: dict[str, Film | Recording] = {
    "ts": Film("ts", "h264 closed"),
    "mpg": Film("mpg", "mpeg2"),
    "mp3 without xing": Recording("mp3 without xing", 16_000, 1, 2.0),
    "adts": Recording("adts", 16_000, 1, 2.0),
    "ac3": Recording("ac3", 48_000, 1, 2.0),
}


def decoded(path: Path) -> tuple[int, int]:
    media = decode(path, 16, 32)
    return (
        0 if media.waveform_T is None else len(media.waveform_T),
        0 if media.frames_THWC is None else len(media.frames_THWC),
    )


@pytest.mark.parametrize("name", list(CUT_IS_NOTICED))
def test_a_whole_file_passes_and_a_cut_one_is_refused(tmp_path: Path, name: str) -> None:
    path = CUT_IS_NOTICED[name].write(tmp_path)
    refuse_incomplete(path)
    assert any(decoded(path))
    content = path.read_bytes()
    for share in (0.97, 0.8, 0.5, 0.2):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ValueError, match=r"\w+"):
            decode(path, 16, 32)


@pytest.mark.parametrize("name", list(CUT_IS_A_SHORTER_CLIP))
def test_a_format_without_a_length_is_cut_or_refused_but_never_longer(tmp_path: Path, name: str) -> None:
    path = CUT_IS_A_SHORTER_CLIP[name].write(tmp_path)
    refuse_incomplete(path)
    whole = decoded(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with contextlib.suppress(ValueError):
        left = decoded(path)
        assert left[0] < whole[0]
        assert left[1] <= whole[1]


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_every_flipped_byte_of_an_ogg_file_is_noticed(tmp_path: Path, subtype: str) -> None:
    """FFmpeg leaves out a page with a wrong checksum: half of the sound was gone without a word."""
    path = tmp_path / "x.ogg"
    soundfile.write(path, tone(1.0), 16_000, format="OGG", subtype=subtype)
    assert decoded(path)[0] == pytest.approx(16_000, abs=200)
    content = path.read_bytes()
    for place in np.linspace(0, len(content) - 1, 40).astype(int):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        path.write_bytes(bytes(damaged))
        with pytest.raises(ValueError, match=r"damaged inside|bytes are there|not a readable"):
            decode(path, 0, 32)


def test_an_ogg_file_with_tags_behind_its_end_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.ogg"
    soundfile.write(path, tone(1.0), 16_000, format="OGG", subtype="VORBIS")
    path.write_bytes(path.read_bytes() + b"TAG" + bytes(125))
    assert decoded(path)[0] == pytest.approx(16_000, abs=200)


@pytest.mark.parametrize("behind", [b"TAG" + bytes(125), b"APETAGEX" + bytes(24)], ids=["ID3v1", "APE"])
def test_an_mp3_with_tags_is_whole(tmp_path: Path, behind: bytes) -> None:
    path = Recording("mp3", 16_000, 1, 2.0).write(tmp_path)
    whole = decoded(path)
    path.write_bytes(path.read_bytes() + behind)
    assert decoded(path) == whole


@pytest.mark.parametrize(
    "content", [b"RIFF", b"OggS", b"\x1aE\xdf\xa3", b"FLV\1\5", b"ID3\4", b"\xff\xfb", b"FORM\0\0"]
)
def test_a_file_that_ends_in_its_header_is_one_line(tmp_path: Path, content: bytes) -> None:
    for extra in (b"", b"\0", bytes(40), b"\xff" * 40):
        (tmp_path / "x.bin").write_bytes(content + extra)
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            decode(tmp_path / "x.bin", 16, 32)
