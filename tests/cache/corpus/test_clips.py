"""metadata.csv: what is written can be read, and what cannot be read is named."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cache.corpus.clips import Clip, normal_speaker, read_corpus, write_metadata
from cache.corpus.ravdess import LABELS

HEADER = "clip_id,path,label,speaker"

# What a field may hold: any text that is not blank at its ends, for the reader strips blanks.
words = st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n\t,\"'"), min_size=1).map(
    str.strip
)
filled = words.filter(bool)
clips = st.builds(
    Clip,
    clip_id=filled,
    path=st.text("abc-_. ,\"'é", min_size=1, max_size=20).map(str.strip).filter(lambda text: text.strip(".")),
    label=st.sampled_from(LABELS),
    speaker=filled.map(normal_speaker),
    statement=words,
    intensity=words,
    repetition=words,
    sex=words,
    split=words,
)


@given(st.lists(clips, min_size=1, max_size=8, unique_by=(lambda clip: clip.clip_id, lambda clip: clip.path)))
def test_what_is_written_is_what_is_read(written: list[Clip]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_metadata(written, Path(folder) / "metadata.csv")
        corpus = read_corpus(Path(folder) / "metadata.csv")
    assert list(corpus.clips) == written
    assert corpus.root == Path(folder)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_corpus_or_one_clear_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "metadata.csv"
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"metadata\.csv"):
            read_corpus(file)


@given(st.text("0123456789", min_size=1, max_size=6))
def test_numbered_speakers_lose_their_zeros(digits: str) -> None:
    assert normal_speaker(digits) == str(int(digits))
    assert normal_speaker(normal_speaker(digits)) == normal_speaker(digits)


@given(st.text())
def test_other_speakers_keep_their_spelling(text: str) -> None:
    assume(not (text.isascii() and text.isdigit()))
    assert normal_speaker(text) == text


def write(folder: Path, *lines: str) -> Path:
    file = folder / "metadata.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_optional_and_further_columns_in_any_order(tmp_path: Path) -> None:
    file = write(tmp_path, "speaker,age,label,path,clip_id,sex", "007,31,angry,a/b.mp4,b, female ")
    (clip,) = read_corpus(file).clips
    assert clip == Clip("b", "a/b.mp4", "angry", "7", sex="female")


def test_a_byte_order_mark_and_windows_lines_do_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "metadata.csv"
    file.write_bytes(b"\xef\xbb\xbf" + f"{HEADER}\r\na,a.mp4,sad,1\r\n".encode())
    assert read_corpus(file).clips == (Clip("a", "a.mp4", "sad", "1"),)


def test_a_hash_in_capitals_is_the_same_hash(tmp_path: Path) -> None:
    """Once it differed from that of every file, and all clips failed as damaged."""
    metadata = write(tmp_path, HEADER + ",sha256", "a,a.wav,happy,1," + "AB" * 32)
    assert read_corpus(metadata).clips[0].sha256 == "ab" * 32


def test_the_root_is_the_folder_of_the_file_or_what_is_said(tmp_path: Path) -> None:
    file = write(tmp_path, HEADER, "a,a.mp4,sad,1")
    (tmp_path / "clips").mkdir()
    corpus = read_corpus(file, tmp_path / "clips")
    assert corpus.source(corpus.clips[0]) == tmp_path / "clips" / "a.mp4"
    with pytest.raises(ValueError, match=r"corpus_root .*nowhere is not a folder"):
        read_corpus(file, tmp_path / "nowhere")


def test_a_missing_file_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="make corpus ROOT="):
        read_corpus(tmp_path / "metadata.csv")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "has no column clip_id, path, label, speaker"),
        (("clip_id,path,label",), "has no column speaker"),
        ((HEADER,), "lists no clips"),
        ((HEADER, "a,a.mp4,sad,"), "line 2: speaker is empty"),
        ((HEADER, "a,a.mp4"), "line 2: label, speaker is empty"),
        (
            (HEADER, "01-01-04-01-01-01-01,a.mp4,saad,1"),
            r"line 2: unknown label 'saad' \(did you mean sad\?\); known",
        ),
        ((HEADER, "a,a.mp4,sad,1", "a,b.mp4,sad,1"), "clip_id 'a' appears twice"),
        ((HEADER, "a,a.mp4,sad,1", "b,a.mp4,sad,1"), "path 'a.mp4' appears twice"),
        ((HEADER, "a,/etc/passwd,sad,1"), "must be relative to the corpus root"),
        ((HEADER, "a,../a.mp4,sad,1"), "must be relative to the corpus root"),
        ((HEADER, "a,b/../../a.mp4,sad,1"), "must be relative to the corpus root"),
        ((HEADER, 'a,"a.mp4,sad,1'), "is not a CSV file in UTF-8"),
        ((HEADER, "a,a\0.mp4,sad,1"), "NUL byte"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(lines: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_corpus(write(tmp_path, *lines))
    assert "metadata.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "metadata.csv"
    file.write_bytes(f"{HEADER}\na,é.mp4,sad,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match="is not a CSV file in UTF-8"):
        read_corpus(file)


def test_links_that_leave_the_root_are_refused_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "outside.mp4").touch()
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (root / "inner" / "a.mp4").touch()
    (root / "b.mp4").symlink_to(root / "inner" / "a.mp4")
    assert len(read_corpus(write(root, HEADER, "b,b.mp4,sad,1")).clips) == 1
    (root / "c.mp4").symlink_to(tmp_path / "outside.mp4")
    with pytest.raises(ValueError, match="leads out of the corpus root"):
        read_corpus(write(root, HEADER, "c,c.mp4,sad,1"))
    (root / "up").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(ValueError, match="leads out of the corpus root"):
        read_corpus(write(root, HEADER, "d,up/outside.mp4,sad,1"))


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "metadata.csv"
    write_metadata([Clip("a", "a.mp4", "sad", "1")], file)
    before = file.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        write_metadata([Clip("b", "b\udcff.mp4", "sad", "1")], file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["metadata.csv"]
