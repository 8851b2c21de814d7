"""A corpus as Parquet is the corpus that the same table is as CSV: its clips, its errors, its plan and its stores."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.corpus.clips import COLUMNS, REQUIRED, Clip, Corpus, read_corpus, write_metadata
from cache.corpus.parquet import ROWS_AT_ONCE, parquet_bytes
from extract.run.plan import make_plan, prepare_stores
from tests.benchmarks.scale.encoders import write_stub_encoders
from tests.benchmarks.scale.stub import fill, stub_clips, stub_config, write_stub_corpus

pa = pytest.importorskip("pyarrow", reason="no pyarrow: pip install --no-deps -r requirements-parquet.txt")
pq = pytest.importorskip("pyarrow.parquet")

FOUR = {name: ["1", "2", "3"] for name in REQUIRED} | {"label": ["happy", "sad", "sad"]}


def parquet(folder: Path, columns: dict[str, Any], **options: Any) -> Path:
    file = folder / "metadata.parquet"
    pq.write_table(pa.table(columns), file, **options)
    return file


def outcome(file: Path) -> Corpus | str:
    try:
        return read_corpus(file)
    except ValueError as error:
        return str(error)


def comparable(result: Corpus | str) -> Corpus | str:
    """Without what must differ: the name of the file, and what its rows are called (cells may be of several lines)."""
    return result if isinstance(result, Corpus) else re.sub(r"metadata\.\w+( (line|row) \d+)?", "metadata", result)


labels = st.sampled_from(["happy", "Happy", "sad", "hapy", " sad ", "größe", ""])
cells = st.one_of(st.sampled_from(["", " ", "a", "007", "1.5", "a/b.wav", "../a"]), st.text(max_size=6))
texts = cells.map(lambda cell: cell.replace("\0", "").encode("utf-8", "ignore").decode())


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, ...]]]:
    """Columns in any order, with some that nobody knows, and rows of which some are right."""
    header = draw(st.permutations([*COLUMNS, "age", "Note Book"]))
    header = header[: draw(st.integers(8, len(header)))]
    right = {
        "clip_id": st.text("ab", min_size=1, max_size=4),
        "path": st.text("ab", min_size=1, max_size=4),
        "label": labels,
        "speaker": st.sampled_from("12"),
        "start": st.sampled_from(["", "1", "x"]),
        "end": st.sampled_from(["", "2"]),
    }
    row = st.tuples(*(right.get(name, texts) for name in header))
    return header, draw(st.lists(st.one_of(row, row, st.tuples(*[texts] * len(header))), max_size=5))


@given(tables())
def test_any_table_is_the_same_corpus_or_the_same_error(table: tuple[list[str], list[tuple[str, ...]]]) -> None:
    header, rows = table
    with tempfile.TemporaryDirectory() as name:
        folder, text = Path(name), io.StringIO()
        # Ends of lines of both kinds, so that cells with either are quoted.
        csv.writer(text, lineterminator="\r\n").writerows([header, *rows])
        (folder / "metadata.csv").write_bytes(text.getvalue().encode())
        (folder / "metadata.parquet").write_bytes(parquet_bytes(header, rows))
        as_csv, as_parquet = (outcome(folder / f"metadata.{suffix}") for suffix in ("csv", "parquet"))
    assert comparable(as_parquet) == comparable(as_csv)


def test_numbers_nulls_and_categories_are_what_pandas_writes_as_csv(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame(
        {
            "clip_id": np.arange(4),
            "path": [f"{number}.wav" for number in range(4)],
            "label": pd.Categorical(["sad", "happy", "sad", "happy"]),
            "speaker": pd.Categorical([7, 8, 7, 8]),
            "statement": ["Well, I am glad", None, "", "7"],
            "intensity": np.array([0.1, np.nan, 1, 1e10], np.float32),
            "repetition": pd.array([1, None, 2, 1], dtype="Int64"),
            "sex": [True, False, True, False],
            "start": [0.25, 1e-7, np.nan, 3],
            "age": pd.to_datetime(["2026-01-01"] * 4),
        }
    )
    frame.to_csv(tmp_path / "metadata.csv", index=False)
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "metadata.parquet")
    read = read_corpus(tmp_path / "metadata.parquet")
    assert read == read_corpus(tmp_path / "metadata.csv")
    assert [clip.speaker for clip in read.clips] == ["7", "8", "7", "8"]
    assert [clip.intensity for clip in read.clips] == ["0.1", "", "1.0", "1e+10"]


def test_other_kinds_of_text_and_numbers(tmp_path: Path) -> None:
    columns = {
        "clip_id": pa.array(["a", "b", "c"], pa.large_string()),
        "path": pa.array(["a", "b", "a"], pa.string_view()),
        "label": pa.array(["sad", "happy", "sad"]).dictionary_encode(),
        "speaker": pa.array([Decimal("1.50"), Decimal("2.00"), None], pa.decimal128(5, 2)),
        "start": pa.array([1_500_000_000, None, 0], pa.duration("ns")),
        "statement": pa.nulls(3),
    }
    with pytest.raises(ValueError, match=r"metadata\.parquet row 3: speaker is empty"):
        read_corpus(parquet(tmp_path, columns))
    columns["speaker"] = pa.array([Decimal("1.50"), Decimal("2.00"), Decimal(3)], pa.decimal128(5, 2))
    clips = read_corpus(parquet(tmp_path, columns)).clips
    assert clips[0] == Clip("a", "a", "sad", "1.50", start="1.5")
    assert [clip.start for clip in clips] == ["1.5", "", "0.0"]


def test_what_is_written_is_what_is_read_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    clips = [Clip("a", "a.wav", "sad", "1", "Oh, no"), Clip("b", "a.wav", "happy", "2", sex="female", start="1.5")]
    for name in ("one.parquet", "two.Parquet"):
        write_metadata(clips, tmp_path / name, [{"age": "31"}, {"age": ""}])
    assert list(read_corpus(tmp_path / "two.Parquet").clips) == clips
    table = pq.read_table(tmp_path / "one.parquet")
    assert table.column("age").to_pylist() == ["31", None]
    assert {str(field.type) for field in table.schema} == {"string"}
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.Parquet").read_bytes()


def test_rows_are_counted_on_from_one_piece_to_the_next(tmp_path: Path) -> None:
    """A table is read in pieces, so that it need not be in memory twice."""
    clips = list(stub_clips(ROWS_AT_ONCE + 5))
    write_metadata(clips, tmp_path / "metadata.parquet")
    assert list(read_corpus(tmp_path / "metadata.parquet").clips) == clips
    clips[-2] = Clip("x", "../x", "sad", "1")
    write_metadata(clips, tmp_path / "metadata.parquet")
    with pytest.raises(ValueError, match=rf"row {ROWS_AT_ONCE + 4}: path"):
        read_corpus(tmp_path / "metadata.parquet")


def test_columns_of_sound_and_lists_are_passed_over_or_refused_where_they_are_asked_for(tmp_path: Path) -> None:
    sound = pa.array([{"bytes": b"\xff", "path": "x"}] * 3)
    odd = {"path.x": ["u", "v", "w"], "audio": sound, "audio.path": ["u", "v", "w"], "tokens": [[1], [2, 3], None]}
    read = read_corpus(parquet(tmp_path, {**odd, **FOUR, "raw": [b"\xff", None, b""]}))
    assert read.clips[0] == Clip("1", "1", "happy", "1")
    with pytest.raises(ValueError, match=r"metadata\.parquet: column Statement holds list<.*; write it as text"):
        read_corpus(parquet(tmp_path, {**FOUR, "Statement": [["a"], ["b"], None]}))
    with pytest.raises(ValueError, match="column label holds binary; write it as text"):
        read_corpus(parquet(tmp_path, {**FOUR, "label": [b"sad", b"happy", b"sad"]}))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"path": ["a"], "label": ["sad"], "emotion": ["x"]},
            r"has no column clip_id, speaker; .*; found: path, label",
        ),
        ({**FOUR, "Label": ["a", "b", "c"]}, "has the column label twice"),
        (dict.fromkeys(REQUIRED, pa.array([], pa.string())), "lists no clips"),
        (dict.fromkeys(REQUIRED, pa.nulls(3)), "lists no clips"),
        ({**FOUR, "statement": ["", "a\0b", ""]}, r"metadata\.parquet row 2 contains a NUL byte"),
        ({**FOUR, "label": ["sad", "sa\u2028d", "sad"]}, r"row 2: label .* holds the character U\+2028"),
        ({**FOUR, "clip_id": ["1", "2", "1"]}, "clip_id '1' appears twice"),
    ],
)
def test_what_a_csv_is_refused_for(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_corpus(parquet(tmp_path, columns))


def test_text_in_another_encoding_is_refused_with_its_row(tmp_path: Path) -> None:
    content = b"I am gladIt\x92s me"
    offsets = np.array([0, 4, 9, len(content)], np.int32)
    statements = pa.Array.from_buffers(pa.string(), 3, [None, pa.py_buffer(offsets), pa.py_buffer(content)])
    with pytest.raises(ValueError, match=r"metadata\.parquet row 3 holds text that is not UTF-8"):
        read_corpus(parquet(tmp_path, {**FOUR, "statement": statements}))


def test_a_file_under_the_name_of_the_other_form_is_told_so(tmp_path: Path) -> None:
    parquet(tmp_path, FOUR).rename(tmp_path / "metadata.csv")
    with pytest.raises(ValueError, match=r"is not a CSV file in UTF-8: it is Parquet; .* ends in \.parquet"):
        read_corpus(tmp_path / "metadata.csv")
    (tmp_path / "metadata.parquet").write_text("clip_id,path,label,speaker\na,a,sad,1\n")
    with pytest.raises(ValueError, match=r"metadata\.parquet is not a Parquet file that can be read: "):
        read_corpus(tmp_path / "metadata.parquet")


def test_a_flipped_bit_anywhere_is_the_corpus_or_one_line(tmp_path: Path) -> None:
    """Pages that we write have checksums: no bit of a cell changes unseen."""
    clips = list(stub_clips(200))
    file = tmp_path / "metadata.parquet"
    write_metadata(clips, file)
    content = file.read_bytes()
    refused = 0
    for place in range(4, len(content), len(content) // 60):
        file.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        found = outcome(file)
        refused += isinstance(found, str)
        if isinstance(found, str):
            assert "metadata.parquet" in found
            assert "\n" not in found
        else:
            assert list(found.clips) == clips
    assert refused > 30


def test_the_plan_and_the_stores_are_those_of_the_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)
    write_stub_encoders(tmp_path / "encoders")
    hashes = []
    for name in ("metadata.csv", "metadata.parquet"):
        folder = tmp_path / name.partition(".")[2]
        folder.mkdir()
        write_stub_corpus(folder, 40, name)
        plan = make_plan(stub_config(folder, tmp_path / "encoders", name))
        prepare_stores(plan)
        fill(plan, plan.units)
        files = sorted(file for file in (folder / "features").rglob("*") if file.is_file())
        digest = hashlib.sha256()
        for file in files:
            digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
        hashes.append((len(files), digest.hexdigest(), plan.corpus.clips, plan.corpus.labels, plan.units))
    assert hashes[0] == hashes[1]
    assert hashes[0][0] > 20
