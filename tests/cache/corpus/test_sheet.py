"""metadata.csv as spreadsheets and Windows write it: read where the meaning is plain, else refused in one line."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.corpus.clips import REQUIRED, read_corpus
from cache.corpus.sheet import Row, read_rows
from tests.tiny.places import SHARED

HEADER = "clip_id,path,label,speaker,statement"
TABLES = SHARED / "cases/tables"


def sheet(folder: Path, content: str | bytes) -> Path:
    file = folder / "metadata.csv"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def test_an_unquoted_comma_is_refused_with_its_line(tmp_path: Path) -> None:
    """Once the statement was "Well", and the split "female": every cell behind the comma moved on."""
    file = sheet(tmp_path, f"{HEADER}\na,a.wav,happy,1,Oh no\nb,b.wav,happy,1,Well, I am glad\n")
    with pytest.raises(ValueError, match=r'metadata\.csv line 3 has 6 cells and the header 5; .* "," must stand in'):
        read_corpus(file)


def test_a_quoted_comma_and_empty_cells_behind_the_last_are_fine(tmp_path: Path) -> None:
    file = sheet(tmp_path, f'{HEADER}\na,a.wav,happy,1,"Well, I am glad",,\n,,,,\n')
    (clip,) = read_corpus(file).clips
    assert clip.statement == "Well, I am glad"


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_semicolons_and_tabs_are_read_where_commas_make_no_header(delimiter: str, tmp_path: Path) -> None:
    lines = [HEADER.replace(",", delimiter), delimiter.join(["a", "a.wav", "happy", "1", "Well, I am glad"])]
    (clip,) = read_corpus(sheet(tmp_path, "\ufeff" + "\r\n".join(lines))).clips
    assert (clip.speaker, clip.statement) == ("1", "Well, I am glad")


def test_columns_in_capitals_or_with_spaces_are_those_columns(tmp_path: Path) -> None:
    (clip,) = read_corpus(sheet(tmp_path, 'Clip ID, Path,"Label",SPEAKER , Sex\na,a.wav,happy,1,female\n')).clips
    assert (clip.clip_id, clip.label, clip.speaker, clip.sex) == ("a", "happy", "1", "female")


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the column label twice"):
        read_corpus(sheet(tmp_path, "clip_id,path,label,speaker,Label\na,a.wav,happy,1,sad\n"))


def test_what_was_found_is_said_beside_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no column label; it needs .*; found: clip_id, path, emotion, speaker"):
        read_corpus(sheet(tmp_path, "clip_id,path,emotion,speaker\na,a.wav,happy,1\n"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            f"{HEADER}\na,a.wav,happy,1,It\u2019s me\n".encode("cp1252"),
            "line 2 holds byte 0x92 .*cp1252 .*\u2019",
        ),
        (f"{HEADER}\na,a.wav,happy,1,me\n".encode("utf-16"), "it is UTF-16; save it again as CSV in UTF-8"),
    ],
)
def test_another_encoding_is_refused_and_named(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_corpus(sheet(tmp_path, content))


def test_without_pyarrow_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"metadata\.parquet needs pyarrow, which is not installed; run: pip install "):
        read_corpus(tmp_path / "metadata.parquet")


cells = st.text(st.characters(codec="utf-8"), max_size=8)


@given(st.lists(st.lists(cells, min_size=1, max_size=6), max_size=5), st.sampled_from([",", ";", "\t"]))
def test_any_text_is_rows_or_one_line(rows: list[list[str]], delimiter: str) -> None:
    """A cell stands under its column or the file is refused; nothing else comes out."""
    with tempfile.TemporaryDirectory() as folder:
        text = "\n".join([delimiter.join(REQUIRED), *(delimiter.join(row) for row in rows)])
        outcome = rows_or_error(sheet(Path(folder), text))
    if isinstance(outcome, str):
        assert "metadata.csv" in outcome
        assert "\n" not in outcome
    else:
        assert outcome
        assert all(set(row) <= set(REQUIRED) for _, row in outcome)


def rows_or_error(file: Path) -> str | list[Row]:
    try:
        return list(read_rows(file, REQUIRED))
    except ValueError as error:
        return str(error)


@pytest.mark.skipif(not TABLES.is_dir(), reason="no awkward tables in $SHARED")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("comma", r"line 2 has 10 cells and the header 9"),
        ("cp1252", "line 2 holds byte 0x92"),
        ("semicolon", None),
        ("header_case", None),
        ("backslash", None),
        ("nfd", None),
    ],
)
def test_the_tables_of_bug_reports(name: str, message: str | None) -> None:
    file = TABLES / f"{name}.csv"
    if message:
        with pytest.raises(ValueError, match=message):
            read_corpus(file)
        return
    corpus = read_corpus(file)
    assert all(corpus.source(clip).is_file() for clip in corpus.clips)
