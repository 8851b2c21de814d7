"""`make corpus`: what is listed, what is left out, and every folder that cannot be a corpus."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cache.corpus.clips import read_corpus
from cache.corpus.ravdess import LABELS
from configs.loader import load_config
from configs.schema.corpora import CorpusConfig
from extract.corpora.ravdess import list_clips
from tests.tiny.folders import CONFIG, make_corpus, touch
from tests.tiny.places import SHARED as INPUTS

SHARED = INPUTS / "ravdess"


@pytest.mark.skipif(not (SHARED / "audio").is_dir(), reason="the real RAVDESS audio is not here")
def test_the_real_audio_corpus(tmp_path: Path) -> None:
    assert make_corpus(f"root={SHARED / 'audio'}", f"out={tmp_path / 'metadata.csv'}") == 0
    clips = read_corpus(tmp_path / "metadata.csv", SHARED / "audio").clips
    assert len(clips) == 1440
    assert [clip.clip_id for clip in clips] == sorted(clip.clip_id for clip in clips)
    assert {clip.speaker for clip in clips} == {str(actor) for actor in range(1, 25)}
    counts = [sum(clip.label == label for clip in clips) for label in LABELS]
    assert counts == [96, 192, 192, 192, 192, 192, 192, 192]
    assert sum(clip.sex == "female" for clip in clips) == 720
    assert sum(clip.split == "train" for clip in clips) == 1200
    assert sum(clip.split == "validation" for clip in clips) == 120
    assert clips[-1].path == "Actor_24/03-01-08-02-02-02-24.flac"


@pytest.mark.skipif(not (SHARED / "video").is_dir(), reason="the real-voice videos are not here")
def test_the_real_voice_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_corpus(f"root={SHARED / 'video'}", f"out={tmp_path / 'metadata.csv'}") == 0
    loaded = read_corpus(tmp_path / "metadata.csv", SHARED / "video")
    assert len(loaded.clips) == 240
    assert all(loaded.source(clip).is_file() for clip in loaded.clips)
    out = capsys.readouterr().out
    assert "240 clips of 8 speakers: neutral 16, calm 32, happy 32" in out
    assert f"corpus_root={SHARED / 'video'}" in out


@pytest.mark.skipif(not (SHARED / "video").is_dir(), reason="the real RAVDESS clips are not here")
def test_both_real_kinds_together_need_a_choice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = f"out={tmp_path / 'metadata.csv'}"
    assert make_corpus(f"root={SHARED}", out) == 2
    assert "holds both kinds of 240 utterances" in capsys.readouterr().err
    assert make_corpus(f"root={SHARED}", out, "kind=audio") == 0
    assert len(read_corpus(tmp_path / "metadata.csv", SHARED).clips) == 1440


def test_the_layouts_of_the_zips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(
        tmp_path,
        "Actor_02/01-01-02-01-01-01-02.mp4",
        "01-01-01-01-01-01-01.mp4",
        "Video_Speech_Actor_03/Actor_03/01-01-03-02-01-01-03.MP4",
        "sound/03-01-04-02-01-01-04.flac",
        "sound/03-01-04-02-01-01-05.wav",
        "Actor_02/02-01-02-01-01-01-02.mp4",
        "Actor_02/01-02-02-01-01-01-02.mp4",
        ".DS_Store",
        "Actor_02/._01-01-02-01-01-01-02.mp4",
        "__MACOSX/Actor_02/01-01-02-01-01-01-02.mp4",
        ".hidden/01-01-02-01-01-01-02.mp4",
        "README.txt",
        "Video_Speech_Actor_03.zip",
    )
    assert make_corpus(f"root={tmp_path}") == 0
    clips = read_corpus(tmp_path / "metadata.csv").clips
    assert [clip.path for clip in clips] == [
        "01-01-01-01-01-01-01.mp4",
        "Actor_02/01-01-02-01-01-01-02.mp4",
        "Video_Speech_Actor_03/Actor_03/01-01-03-02-01-01-03.MP4",
        "sound/03-01-04-02-01-01-04.flac",
        "sound/03-01-04-02-01-01-05.wav",
    ]
    out = capsys.readouterr().out
    assert "5 clips of 5 speakers: neutral 1, calm 1, happy 1, sad 2; skipped 1 song, 1 video-only" in out
    assert "corpus_root" not in out


def test_a_second_run_writes_the_same_bytes(tmp_path: Path) -> None:
    touch(tmp_path, *(f"Actor_{a:02d}/01-01-0{e}-01-01-01-{a:02d}.mp4" for a in (9, 1, 24) for e in (8, 1)))
    assert make_corpus(f"root={tmp_path}") == 0
    first = (tmp_path / "metadata.csv").read_bytes()
    assert make_corpus(f"root={tmp_path}") == 0
    assert (tmp_path / "metadata.csv").read_bytes() == first


def test_song_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, "03-02-02-01-01-01-02.wav", "03-02-02-01-01-01-03.wav")
    assert make_corpus(f"root={tmp_path}") == 2
    assert "skipped 2 song; to list them: channels=[song]" in capsys.readouterr().err
    assert make_corpus(f"root={tmp_path}", "channels=[song]") == 0
    assert len(read_corpus(tmp_path / "metadata.csv").clips) == 2


@pytest.mark.parametrize("second", ["b/03-01-02-01-01-01-02.wav", "a/01-01-02-01-01-01-02.flac"])
def test_both_kinds_of_one_utterance_need_a_choice(
    second: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path, "a/01-01-02-01-01-01-02.mp4", second)
    assert make_corpus(f"root={tmp_path}") == 2
    error = capsys.readouterr().err
    assert f"both kinds of 1 utterance (the same sound), e.g. a/01-01-02-01-01-01-02.mp4 and {second}" in error
    assert "kind=video" in error
    for kind, path in (("video", "a/01-01-02-01-01-01-02.mp4"), ("audio", second)):
        assert make_corpus(f"root={tmp_path}", f"kind={kind}") == 0
        assert [clip.path for clip in read_corpus(tmp_path / "metadata.csv").clips] == [path]


@pytest.mark.parametrize(
    ("files", "overrides", "message"),
    [
        ((), (), "holds no clips: no .mp4 or .wav or .flac file in it or below"),
        (("a.txt", "b/c.csv"), (), "holds no clips"),
        (("03-01-02-01-01-01-02.wav",), ("kind=video",), "holds no clips: no .mp4 file"),
        (("02-01-02-01-01-01-02.mp4",), (), "holds none of the chosen clips; skipped 1 video-only"),
        (("a.mp4",), ("layout=ravdess",), "a.mp4 is not a RAVDESS name"),
        (("a.mp4", "b.mp4", "01-01-02-01-01-01-02.mp4"), (), "(the first of 2 such files); rename or move it"),
        (("x/01-01-09-01-01-01-02.mp4",), (), "x/01-01-09-01-01-01-02.mp4: unknown emotion code 09; allowed"),
        (
            ("a/01-01-02-01-01-01-02.mp4", "b/01-01-02-01-01-01-02.mp4"),
            (),
            "clip 01-01-02-01-01-01-02 twice: a/01-01-02-01-01-01-02.mp4 and b/01-01-02-01-01-01-02.mp4",
        ),
        (("03-01-02-01-01-01-02.wav", "03-01-02-01-01-01-02.flac"), (), "clip 03-01-02-01-01-01-02 twice"),
        (("01-01-02-01-01-01-02.wav", "03-01-02-01-01-01-02.wav"), (), "one utterance twice"),
        (("03-01-02-01-01-01-02.wav",), ("channels=[]",), "channels: "),
        (("03-01-02-01-01-01-02.wav",), ("channels=[shout]",), "channels.0: "),
        (("03-01-02-01-01-01-02.wav",), ("kinds=audio",), "unknown key kinds; did you mean kind?"),
    ],
)
def test_what_cannot_be_a_corpus_ends_in_one_line(
    files: tuple[str, ...],
    overrides: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    touch(tmp_path, *files)
    assert make_corpus(f"root={tmp_path}", *overrides) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "metadata.csv").exists()


def test_a_folder_must_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_corpus(f"root={tmp_path / 'nowhere'}") == 2
    assert f"error: no folder {tmp_path / 'nowhere'}" in capsys.readouterr().err
    touch(tmp_path, "file")
    assert make_corpus(f"root={tmp_path / 'file'}") == 2
    assert "is not a folder" in capsys.readouterr().err


def test_out_must_be_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, "01-01-02-01-01-01-02.mp4")
    assert make_corpus(f"root={tmp_path}", f"out={tmp_path}") == 2
    assert "name the CSV file" in capsys.readouterr().err


def test_an_old_metadata_file_stays_when_the_folder_is_wrong(tmp_path: Path) -> None:
    touch(tmp_path, "bad.mp4")
    (tmp_path / "metadata.csv").write_text("precious")
    assert make_corpus(f"root={tmp_path}") == 2
    assert (tmp_path / "metadata.csv").read_text() == "precious"


def test_the_hint_for_clips_that_are_elsewhere_is_enough_to_read_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "clips", tmp_path / "lists" / "metadata.csv"
    touch(root, "01-01-02-01-01-01-02.mp4")
    assert make_corpus(f"root={root}", f"out={out}") == 0
    assert f"corpus={out} corpus_root={root}" in capsys.readouterr().out
    loaded = read_corpus(out, root)
    assert loaded.source(loaded.clips[0]).is_file()


@pytest.mark.parametrize("link", ["folder", "file"])
def test_links_out_of_the_root_are_refused(link: str, tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    touch(outside, "01-01-02-01-01-01-02.mp4")
    touch(root, "Actor_01/01-01-02-01-01-01-01.mp4")
    if link == "folder":
        (root / "Actor_02").symlink_to(outside, target_is_directory=True)
    else:
        (root / "01-01-02-01-01-01-02.mp4").symlink_to(outside / "01-01-02-01-01-01-02.mp4")
    with pytest.raises(ValueError, match="is a link out of the corpus root"):
        list_clips(root, root)


def test_the_root_may_be_a_link_itself(tmp_path: Path) -> None:
    touch(tmp_path / "real", "01-01-02-01-01-01-02.mp4")
    (tmp_path / "root").symlink_to(tmp_path / "real", target_is_directory=True)
    assert len(list_clips(tmp_path / "root", tmp_path / "root").clips) == 1


def test_a_folder_that_cannot_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path, "01-01-02-01-01-01-02.mp4", "Actor_03/01-01-02-01-01-01-03.mp4")
    scandir = os.scandir

    def closed(path: str) -> object:
        if Path(path).name == "Actor_03":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    # Not with chmod: root may read every folder.
    monkeypatch.setattr(os, "scandir", closed)
    assert make_corpus(f"root={tmp_path}") == 2
    assert "Permission denied" in capsys.readouterr().err


def test_the_shipped_file_spells_out_the_defaults() -> None:
    assert load_config(CorpusConfig, CONFIG) == CorpusConfig()
