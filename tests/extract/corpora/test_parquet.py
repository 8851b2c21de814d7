"""`make corpus` writes Parquet and reads it, and the later stages take it, as they do CSV files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from cache.corpus.clips import read_corpus
from cache.protocols.cross_corpus import corpus_names
from fuse.predict.clips import Wanted, find_clips
from tests.tiny.folders import make_corpus, touch


def test_without_pyarrow_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even the labels, which are written first."""
    touch(tmp_path / "clips", "03a01Fa.wav", "03a01Wa.wav")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert make_corpus(f"root={tmp_path}/clips", f"out={tmp_path}/out/metadata.parquet") == 2
    install = "needs pyarrow, which is not installed; run: pip install --no-deps -r requirements-parquet.txt\n"
    assert capsys.readouterr().err == f"error: {tmp_path}/out/metadata.parquet {install}"
    assert not (tmp_path / "out").exists()


def test_names_that_tables_usually_have_say_nothing_of_a_corpus() -> None:
    assert corpus_names(Path("/a/emodb/metadata.parquet"), Path("/a/other.parquet")) == ("emodb", "other")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    pytest.importorskip("pyarrow", reason="no pyarrow: pip install --no-deps -r requirements-parquet.txt")
    touch(tmp_path, *(f"data/{n}.wav" for n in (1, 2, 3)))
    return tmp_path


def write(table: Path, **columns: Any) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), table)
    return table


def test_a_folder_becomes_the_table_that_it_becomes_as_csv(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pattern = ("pattern=data/{take}", "fill={label: 'take {take}', speaker: '{take}'}")
    said = []
    for out in ("one/metadata.csv", "two/metadata.parquet"):
        assert make_corpus(f"root={root}", f"out={root / out}", *pattern) == 0
        said.append(capsys.readouterr().out.replace(str(root / out), "OUT").replace(f"/{out[:3]}", "/FOLDER"))
    assert said[0] == said[1]
    assert "features_dir=features/FOLDER" in said[0]
    corpora = [read_corpus(root / out, root) for out in ("one/metadata.csv", "two/metadata.parquet")]
    assert corpora[0] == corpora[1]
    # Its own table may be written again; that it is ours does not hang on the form.
    assert make_corpus(f"root={root}", f"out={root}/two/metadata.parquet", *pattern) == 0


def test_a_table_of_somebody_else_is_kept(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = write(root / "metadata.parquet", file_name=["data/1.wav", "data/2.wav"], label=["a", "b"])
    before = theirs.read_bytes()
    assert make_corpus(f"root={root}", "layout=csv", f"out={theirs}") == 2
    assert f"{theirs} is the table that is read; give another name: OUT={root}/clips.parquet" in capsys.readouterr().err
    assert make_corpus(f"root={root}", "pattern=data/{label}", f"out={theirs}") == 2
    assert f"{theirs} was written by somebody else" in capsys.readouterr().err
    assert theirs.read_bytes() == before


def test_the_labels_of_a_neighbour_are_not_changed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pattern = ("pattern=data/{label}", "fill.speaker=x")
    assert make_corpus(f"root={root}", f"out={root}/metadata.parquet", *pattern) == 0
    capsys.readouterr()
    assert make_corpus(f"root={root}", f"out={root}/other.csv", *pattern, "labels=['1', '2', '3']") == 2
    assert f"labels.txt would hold for {root}/metadata.parquet as well" in capsys.readouterr().err


def test_a_table_that_lists_the_clips_may_be_parquet(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """audformat's times are durations there, and seconds in ours."""
    import numpy as np

    times = {
        "start": np.array([1_500_000_000, 0, 62_000_000_000], "timedelta64[ns]"),
        "end": np.array([2_000_000_000, "NaT", "NaT"], "timedelta64[ns]"),
    }
    files = ["data/1.wav", "data/2.wav", "data/1.wav"]
    write(root / "list.parquet", file=files, **times, emotion=["joy", "rage", "joy"], spk=[3, 4, 3])
    # The only table there is, and found by itself.
    names = ("columns={label: emotion, speaker: spk}",)
    assert make_corpus(f"root={root}", *names) == 0
    assert f"read {root}/list.parquet: label is emotion, speaker is spk, path is file" in capsys.readouterr().out
    assert (root / "metadata.csv").read_text().splitlines()[1:] == [
        "data-1-1.5-2.0,data/1.wav,joy,3,,,,,,,1.5,2.0",
        "data-1-62.0,data/1.wav,joy,3,,,,,,,62.0,",
        "data-2,data/2.wav,rage,4,,,,,,,,",
    ]
    times["end"][0] = 1
    write(root / "list.parquet", file=files, **times, emotion=["joy", "rage", "joy"], spk=[3, 4, 3])
    assert make_corpus(f"root={root}", "csv=list.parquet", *names, "overwrite=true") == 2
    assert "list.parquet row 1: end 1e-09 is not after start 1.5" in capsys.readouterr().err


def test_predictions_are_of_the_clips_of_a_table(root: Path) -> None:
    file = write(
        root / "clips.parquet", clip_id=[1, 2], path=["data/1.wav", "data/2.wav"], label=["a", "b"], speaker=[1, 2]
    )
    assert find_clips(str(file)) == [Wanted(root / f"data/{n}.wav", label=label) for n, label in ((1, "a"), (2, "b"))]
