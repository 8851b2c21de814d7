"""Tables that list clips, in the conventions people have: ours, Hugging Face's and audformat's."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from cache.corpus.clips import Clip, read_corpus
from cache.corpus.stretch import Stretch
from tests.tiny.folders import make_corpus, touch


@pytest.fixture
def root(tmp_path: Path) -> Path:
    touch(tmp_path, *(f"data/{n}.wav" for n in (1, 2, 3)))
    return tmp_path


def listed(root: Path, *overrides: str) -> tuple[Clip, ...]:
    assert make_corpus(f"root={root}", f"out={root}/out.csv", *overrides) == 0
    return read_corpus(root / "out.csv").clips


def test_ours_with_columns_of_other_names(root: Path) -> None:
    (root / "list.csv").write_text("Clip ID;Path;Emotion;Actor;Age\nx;data\\1.wav;joy;07;31\ny;data/2.wav;rage;8;40\n")
    clips = listed(root, "csv=list.csv", "columns={label: Emotion, speaker: actor}")
    assert clips == (Clip("x", "data/1.wav", "joy", "7"), Clip("y", "data/2.wav", "rage", "8"))


def test_hugging_face(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`file_name` starts from the folder of the table."""
    (root / "data" / "metadata.csv").write_text("file_name,label,spk\n1.wav,0,a\n2.wav,1,b\nsub/9.wav,1,b\n")
    clips = listed(root, f"csv={root}/data/metadata.csv", "labels={0: happy, 1: sad}", "columns.speaker=spk")
    assert clips == (Clip("data-1", "data/1.wav", "happy", "a"), Clip("data-2", "data/2.wav", "sad", "b"))
    out = capsys.readouterr().out
    assert "1 files are not there and are left out, first: sub/9.wav" in out
    assert "1 media files stand in no line and are left out, first: data/3.wav" in out


def test_audformat(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["file,start,end,emotion", "data/1.wav,0 days,,joy", f"{root}/data/2.wav,0 days 00:00:00,NaT,rage"]
    (root / "db.emotion.csv").write_text("\n".join(lines) + "\n")
    clips = listed(root, "csv=db.emotion.csv", "columns.label=emotion")
    assert [(clip.clip_id, clip.label) for clip in clips] == [("data-1", "joy"), ("data-2", "rage")]
    assert "has no column speaker; say which one it is: SPEAKER=<column>" in capsys.readouterr().out


def test_stretches_are_clips_of_their_own(root: Path) -> None:
    rows = ["data/1.wav,0 days 00:00:01.500000,0 days 00:00:02,joy,a", "data/1.wav,62,,rage,a", "data/2.wav,,,joy,b"]
    (root / "list.csv").write_text("\n".join(["file,start,end,label,speaker", *rows]) + "\n")
    assert make_corpus(f"root={root}", "csv=list.csv") == 0
    assert (root / "metadata.csv").read_text().splitlines() == [
        "clip_id,path,label,speaker,statement,intensity,repetition,sex,split,sha256,start,end",
        "data-1-1.5-2.0,data/1.wav,joy,a,,,,,,,1.5,2.0",
        "data-1-62.0,data/1.wav,rage,a,,,,,,,62.0,",
        "data-2,data/2.wav,joy,b,,,,,,,,",
    ]
    stretches = [clip.stretch for clip in read_corpus(root / "metadata.csv").clips]
    assert stretches == [Stretch(1.5, 2.0), Stretch(62.0, math.inf), None]


def test_a_table_for_each_split(root: Path) -> None:
    for part, n in (("train", 1), ("test", 2)):
        (root / f"{part}.csv").write_text(f"id,label,speaker\n{n},{part},a\n")
    config = root / "own.yaml"
    config.write_text('csv: {train: train.csv, test: test.csv}\nfill: {path: "data/{id}.wav"}\n')
    assert make_corpus(f"root={root}", config=config) == 0
    clips = read_corpus(root / "metadata.csv").clips
    assert [(clip.path, clip.split) for clip in clips] == [("data/1.wav", "train"), ("data/2.wav", "test")]


def test_the_one_table_of_a_folder_is_found(root: Path) -> None:
    (root / "list.csv").write_text("file,label,speaker\ndata/1.wav,joy,a\ndata/2.wav,rage,a\n")
    assert make_corpus(f"root={root}", "layout=csv") == 0
    assert len(read_corpus(root / "metadata.csv").clips) == 2


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (
            "file,emotion\ndata/1.wav,joy\n",
            (),
            "has no column label; say which one it is: LABEL=emotion; it has file, em",
        ),
        ("name,label\ndata/1.wav,joy\n", (), "has no column path, file_name, file; say which one holds the files"),
        ("file,label\ndata/1.wav,joy\n", ("columns.speaker=spkr",), "list.csv has no column spkr for speaker; it has"),
        ("file,label\ndata/7.wav,joy\n", (), "data/7.wav, nor any other of 1; is ROOT right?"),
        ("file,label\n/etc/passwd,joy\n", (), "line 2: path '/etc/passwd' must be relative to the corpus root"),
        ("file,label\n../1.wav,joy\n", (), "line 2: path '../1.wav' must be relative to the corpus root"),
        ("file,label\n,joy\n", (), "line 2: path is empty"),
        ("file,label\ndata/1.wav,\ndata/2.wav,joy\n", (), "data/1.wav: label is empty"),
        ("file,label\ndata/1.wav,joy\ndata/1.wav,sad\n", (), "would both be clip 'data-1' (1 such ids); each clip may"),
        ("file,start,end,label\ndata/1.wav,2,1,joy\n", (), "line 2: end 1 is not after start 2"),
        ("file,start,end,label\ndata/1.wav,soon,,joy\n", (), "line 2: 'soon' is no time; write seconds, e.g. 1.5"),
        ("file,start,end,label\ndata/1.wav,-1,,joy\n", (), "line 2: '-1' is no time in a file"),
        ("file,label\n", (), "list.csv lists no clips"),
        ("file,label\ndata/1.wav,a,b\n", (), "line 2 has 3 cells and the header 2"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(
    text: str, overrides: tuple[str, ...], message: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "list.csv").write_text(text)
    assert make_corpus(f"root={root}", "csv=list.csv", *overrides) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (root / "metadata.csv").exists()


def test_a_table_that_is_not_there_or_not_the_only_one(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_corpus(f"root={root}", "layout=csv") == 2
    assert "holds no .csv file; say which one lists the clips: CSV=<file>" in capsys.readouterr().err
    assert make_corpus(f"root={root}", "csv=x.csv") == 2
    assert f"no table x.csv, nor {root}/x.csv" in capsys.readouterr().err
    for name in ("a.csv", "b.csv"):
        (root / name).write_text("file,label\n")
    assert make_corpus(f"root={root}", "layout=csv") == 2
    assert "holds 2 tables (a.csv, b.csv); say which one" in capsys.readouterr().err


def test_the_table_that_is_read_is_not_written_over(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has columns that metadata.csv would lose."""
    text = "clip_id,path,label,speaker,age\nx,data/1.wav,joy,a,31\ny,data/2.wav,rage,a,31\n"
    (root / "metadata.csv").write_text(text)
    assert make_corpus(f"root={root}", "layout=csv") == 2
    assert "metadata.csv is the table that is read; give another name: OUT=" in capsys.readouterr().err
    assert (root / "metadata.csv").read_text() == text


def test_columns_alone_say_that_there_is_a_table(root: Path) -> None:
    (root / "list.csv").write_text("file,emotion,speaker\ndata/1.wav,joy,a\ndata/2.wav,rage,a\n")
    assert make_corpus(f"root={root}", "columns.label=emotion") == 0
    assert len(read_corpus(root / "metadata.csv").clips) == 2


def test_a_table_with_sound_and_pictures_of_the_same_clips_needs_a_choice(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(root, "data/1.mp4", "data/2.mp4")
    rows = [f"data/{n}.{suffix},{label}" for n, label in ((1, "joy"), (2, "rage")) for suffix in ("wav", "mp4")]
    (root / "list.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    assert make_corpus(f"root={root}", "csv=list.csv") == 2
    assert "keep one of them, or choose with kind=video or kind=audio" in capsys.readouterr().err
    assert make_corpus(f"root={root}", "csv=list.csv", "kind=video") == 0
    assert [clip.path for clip in read_corpus(root / "metadata.csv").clips] == ["data/1.mp4", "data/2.mp4"]
