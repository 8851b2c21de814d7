"""`make corpus` for folders of people's own: which layout is taken, what is written, and every refusal in one line."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cache.conditions import UNCHANGED
from cache.corpus.clips import Clip, read_corpus
from configs.schema.features import Asr, Encoders, FeaturesConfig
from configs.schema.protocols import load_protocol
from extract.run.plan import make_plan
from tests.tiny.corpus import write_tiny_encoders
from tests.tiny.folders import make_corpus, touch
from tests.tiny.places import ROOT, SHARED, needs_audio


def clips_of(root: Path) -> tuple[Clip, ...]:
    return read_corpus(root / "metadata.csv").clips


def test_folders_of_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, "freudig/1.wav", "freudig/2.WAV", "wütend/1.mp3", "wütend/.DS_Store", "__MACOSX/freudig/._1.wav")
    assert make_corpus(f"root={tmp_path}") == 0
    assert clips_of(tmp_path) == (
        Clip("freudig-1", "freudig/1.wav", "freudig", "unknown"),
        Clip("freudig-2", "freudig/2.WAV", "freudig", "unknown"),
        Clip("wütend-1", "wütend/1.mp3", "wütend", "unknown"),
    )
    out = capsys.readouterr().out
    assert "the folders are read as <label>/<clip>" in out
    assert "no speaker is known" in out
    assert "protocol=random-clips" in out
    assert not (tmp_path / "labels.txt").exists()


def test_folders_of_speakers_and_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, *(f"{who}/{label}/{n}.mp4" for who in ("an", "bo", "cy", "di") for label in "ab" for n in (1, 2)))
    touch(tmp_path, "di/a/3.mp4")
    assert make_corpus(f"root={tmp_path}") == 0
    assert clips_of(tmp_path)[0] == Clip("an-a-1", "an/a/1.mp4", "a", "an")
    out = capsys.readouterr().out
    assert "read as <speaker>/<label>/<clip> (the other way round: PATTERN=" in out
    assert "17 clips of 4 speakers: a 9, b 8\nspeaker  a  b\nan       2  2\nbo       2  2\n" in out
    assert f'make features SET="corpus={tmp_path}/metadata.csv features_dir=features/{tmp_path.name}"' in out
    assert "output_dir=outputs/" in out
    assert "protocol=speaker-folds-4" in out


def test_folders_of_splits_and_labels_as_hugging_face_has_them(tmp_path: Path) -> None:
    """Else train and test would be two speakers."""
    touch(tmp_path, "train/a/1.wav", "dev/b/1.wav", "test/a/1.wav")
    assert make_corpus(f"root={tmp_path}") == 0
    assert {(clip.split, clip.label, clip.speaker) for clip in clips_of(tmp_path)} == {
        ("train", "a", "unknown"),
        ("validation", "b", "unknown"),
        ("test", "a", "unknown"),
    }


def test_a_label_in_two_spellings_of_unicode_is_one_label(tmp_path: Path) -> None:
    """macOS unpacks an umlaut as two characters."""
    touch(tmp_path, "an/wu\u0308tend/1.wav", "bo/w\u00fctend/1.wav", "bo/froh/1.wav")
    assert make_corpus(f"root={tmp_path}") == 0
    corpus = read_corpus(tmp_path / "metadata.csv")
    assert corpus.labels == ("froh", "w\u00fctend")
    assert all(corpus.source(clip).is_file() for clip in corpus.clips)


def test_many_speakers_are_counted_and_not_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, *(f"s{n}/{label}/1.wav" for n in range(20) for label in ("a", "b")))
    assert make_corpus(f"root={tmp_path}") == 0
    assert "clips of each speaker: 2" in capsys.readouterr().out
    touch(tmp_path, "s7/b/2.wav")
    assert make_corpus(f"root={tmp_path}") == 0
    out = capsys.readouterr().out
    assert "label  clips  speakers\na         20        20\nb         21        20\n" in out
    assert "clips of a speaker: 2 (s0) to 3 (s7)" in out


def test_a_pattern_with_labels_and_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, *(f"x/{who}_{code}_{level}.wav" for who in ("01", "02") for code in (1, 2, 9) for level in "HL"))
    touch(tmp_path, "x/notes.wav", "x/more_notes.wav")
    config = tmp_path / "own.yaml"
    config.write_text(
        'pattern: "{speaker}_{label}_{intensity}"\nlabels: {02: sad, 01: happy, 09: null}\n'
        "values: {intensity: {H: high, L: low}}\nby: {speaker: {sex: {01: female, 02: male}}}\n"
        'fill: {statement: "{intensity} by {speaker}"}\n'
    )
    assert make_corpus(f"root={tmp_path}", config=config) == 0
    clips = clips_of(tmp_path)
    assert len(clips) == 8
    assert clips[0] == Clip("01_1_H", "x/01_1_H.wav", "happy", "1", "high by 01", "high", sex="female")
    assert (tmp_path / "labels.txt").read_text() == "sad\nhappy\n"
    out = capsys.readouterr().out
    assert (
        "2 files do not fit the pattern {speaker}_{label}_{intensity} and are left out, first: x/more_notes.wav" in out
    )
    assert "8 clips of 2 speakers: sad 4, happy 4; skipped 4 whose label is null" in out


def test_further_parts_of_a_pattern_are_kept_as_columns(tmp_path: Path) -> None:
    touch(tmp_path, "a_x1.wav", "b_x2.wav")
    assert make_corpus(f"root={tmp_path}", "pattern='{label}_x{take}'") == 0
    header, first, _ = (tmp_path / "metadata.csv").read_text().splitlines()
    assert header.endswith(",sha256,take")
    assert first.endswith(",1")
    assert len(clips_of(tmp_path)) == 2


@pytest.mark.parametrize("file", ["Actor_01/a.wav", "1002/a.wav"])
def test_numbered_folders_are_not_taken_for_labels(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path, file, "Actor_02/b.wav")
    assert make_corpus(f"root={tmp_path}") == 2
    error = capsys.readouterr().err
    assert f"the names do not say how {file} and 1 other files are labelled" in error
    assert f'make corpus ROOT={tmp_path} PATTERN="{{speaker}}_{{label}}_*"' in error
    assert make_corpus(f"root={tmp_path}", "layout=folders") == 0


@pytest.mark.parametrize(
    ("files", "overrides", "message"),
    [
        (("a.wav", "b.wav"), (), "say where the label stands, e.g. make corpus ROOT="),
        (("all/a.wav", "all/b.wav"), (), "say where the label stands"),
        (("a.wav", "x.csv"), (), "or, if it lists the clips, LAYOUT=csv CSV="),
        (("all/a.wav", "all/b.wav"), ("layout=folders",), "all 2 clips have the label 'all'"),
        (("a/1.wav", "b/c/d/2.wav"), ("layout=folders",), "a/1.wav lies 1 folders deep and b/c/d/2.wav lies 3 folders"),
        (("a/1.wav", "a/1.mp4", "b/1.wav"), (), "would both be clip 'a-1' (1 such ids); keep one of them, or choose"),
        (("a/b-1.wav", "a-b/1.wav"), (), "would both be clip 'a-b-1' (1 such ids); rename one of them"),
        (("x/s_a.wav", "y/s_a.wav", "s_b.wav"), ("pattern='{speaker}_{label}'",), "SET=ids=path calls clips by their"),
        (
            ("a.wav",),
            ("pattern='{speaker}_{label}'",),
            "none of 1 files fits the pattern {speaker}_{label}, e.g. a.wav",
        ),
        (
            ("s_a.wav",),
            ("pattern='{speaker}_{lable}'",),
            "has no {label}; name so the part that says the label (is it {l",
        ),
        (("s_a.wav", "s_b.wav"), ("pattern='{label}_*'",), "all 2 clips have the label 's'"),
        (
            ("s_a.wav", "s_c.wav"),
            ("pattern='{speaker}_{label}'", "labels={a: happy, b: sad}"),
            "s_c.wav: labels has no 'c'; it has a, b; add it, or leave its clips out with c: null",
        ),
        (
            ("s_NO.wav", "s_AN.wav"),
            ("pattern='{speaker}_{label}'", "labels={NO: neutral, AN: angry}"),
            'codes like "NO" or "010" need quotes',
        ),
        (
            ("s_8.wav",),
            ("pattern='{speaker}_{label}'", "labels={010: happy, '08': angry}"),
            "labels: two codes are the same number; put codes in quotes",
        ),
        (
            ("s_a.wav", "s_b.wav"),
            ("pattern='{speaker}_{label}'", "values={intensty: {}}"),
            "s_a.wav: values needs the column intensty",
        ),
        (
            ("s_a.wav",),
            ("pattern='{speaker}_{label}'", "fill={statement: '{speakr} says'}"),
            "fill needs the column speakr (did you mean speaker?)",
        ),
        (("s_a.wav",), ("pattern='{speaker}_{label}'", "labels={a: null}"), "the label of every clip is null"),
        (("a/1.wav",), ("layout=pattern",), "layout pattern needs a pattern"),
        (("a/1.wav",), ("layout=folders", "pattern=x"), "pattern: layout=folders does not look at it"),
        (("a/1.wav",), ("csv=x.csv", "pattern='{label}'"), "set pattern or csv"),
        (("a/1.wav",), ("layout=folder",), "no layout 'folder' (did you mean folders?); there are ravdess, folders"),
        (("a/1.txt",), ("layout=folders", "kind=audio"), "holds no clips: no .wav or .flac file in it or below"),
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
    assert not (tmp_path / "labels.txt").exists()


def test_clips_of_one_name_are_told_apart_by_their_path(tmp_path: Path) -> None:
    touch(tmp_path, "x/s_a.wav", "y/s_a.wav", "s_b.wav")
    assert make_corpus(f"root={tmp_path}", "pattern='{speaker}_{label}'", "ids=path") == 0
    assert [clip.clip_id for clip in clips_of(tmp_path)] == ["s_b", "x-s_a", "y-s_a"]


def test_links_out_of_the_root_are_followed_when_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    touch(tmp_path / "outside", "1.wav")
    touch(root, "b/2.wav")
    (root / "a").symlink_to(tmp_path / "outside", target_is_directory=True)
    (root / "b" / "again").symlink_to(root, target_is_directory=True)
    assert make_corpus(f"root={root}") == 2
    assert "is a link out of the corpus root" in capsys.readouterr().err
    assert make_corpus(f"root={root}", "follow_links=true") == 0
    assert "follow_links=true" in capsys.readouterr().out
    metadata = root / "metadata.csv"
    assert [clip.path for clip in read_corpus(metadata, follow_links=True).clips] == ["a/1.wav", "b/2.wav"]
    with pytest.raises(ValueError, match=r"leads out of the corpus root .* set follow_links=true"):
        read_corpus(metadata)
    encoders = Encoders(audio=str(write_tiny_encoders(tmp_path / "encoders")["audio"]), video=None, text=None)
    plain = FeaturesConfig(str(metadata), encoders=encoders, asr=Asr(None), conditions=(UNCHANGED,))
    with pytest.raises(ValueError, match="leads out of the corpus root"):
        make_plan(plain)
    assert len(make_plan(replace(plain, follow_links=True)).corpus.clips) == 2


# What is there already


def test_a_metadata_file_of_somebody_else_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It may be the only place where somebody's labels stand."""
    touch(tmp_path, "a/1.wav", "b/1.wav")
    (tmp_path / "metadata.csv").write_text("file_name,emotion\na/1.wav,joy\n")
    assert make_corpus(f"root={tmp_path}") == 2
    assert f"was written by somebody else; give another name: OUT={tmp_path}/clips.csv" in capsys.readouterr().err
    assert (tmp_path / "metadata.csv").read_text() == "file_name,emotion\na/1.wav,joy\n"
    assert make_corpus(f"root={tmp_path}", "overwrite=true") == 0
    touch(tmp_path, "a/2.wav")
    assert make_corpus(f"root={tmp_path}") == 0
    assert len(clips_of(tmp_path)) == 3


def test_a_list_of_labels_of_somebody_else_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, "03a01Fa.wav", "03a01Wa.wav")
    (tmp_path / "labels.txt").write_text("happy\nangry\n")
    assert make_corpus(f"root={tmp_path}") == 2
    assert "labels.txt lists happy, angry, and the layout neutral, happy, sad" in capsys.readouterr().err
    assert not (tmp_path / "metadata.csv").exists()
    assert make_corpus(f"root={tmp_path}", "overwrite=true") == 0
    assert make_corpus(f"root={tmp_path}") == 0


def test_a_list_of_labels_does_not_reach_another_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """labels.txt holds for all tables of its folder: EmoDB's made RAVDESS's clips unreadable."""
    ravdess, emodb, data = (tmp_path / name for name in ("ravdess", "emodb", "data"))
    touch(ravdess, "03-01-02-01-01-01-02.wav")
    touch(emodb, "03a01Fa.wav", "03a01Wa.wav")
    assert make_corpus(f"root={ravdess}", f"out={data}/ravdess.csv") == 0
    assert make_corpus(f"root={emodb}", f"out={data}/emodb.csv") == 2
    assert f"would hold for {data}/ravdess.csv as well" in capsys.readouterr().err
    assert len(read_corpus(data / "ravdess.csv", ravdess).clips) == 1
    assert make_corpus(f"root={emodb}", f"out={data}/emodb/metadata.csv") == 0


def test_labels_that_a_list_beside_the_metadata_lacks_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path, "a/1.wav", "b/1.wav")
    (tmp_path / "labels.txt").write_text("a\nc\n")
    assert make_corpus(f"root={tmp_path}") == 2
    assert "metadata.csv line 3: unknown label 'b'; known: a, c" in capsys.readouterr().err


# What to type next


def test_commands_of_a_corpus_of_sound_that_lies_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "my clips #2"
    touch(root, "a/1.wav", "b/1.wav")
    assert make_corpus(f"root='{root}'", f"out={tmp_path}/own.csv") == 0
    features, fusion = capsys.readouterr().out.splitlines()[-2:]
    assert features == (
        f'  make features SET="corpus={tmp_path}/own.csv features_dir=features/own '
        f'\'corpus_root=\\"{root}\\"\' encoders.video=null"'
    )
    assert "modalities=[audio,text]" in fusion
    assert "make train-fusion CONFIG=configs/fusion.yaml SET=" in fusion
    printed = subprocess.run(
        ["bash", "-c", features.replace("make features", "make -n features")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    command = next(line for line in printed.splitlines() if "-m extract " in line)
    assert f'corpus_root="{root}"' in shlex.split(command)
    assert "features_dir=features/own" in shlex.split(command)


def test_make_hands_patterns_and_paths_over_as_text() -> None:
    """`{label}` is a mapping to YAML, and everything behind ` #` a comment."""
    command = ["make", "-n", "corpus", "ROOT=it's #2", "PATTERN={speaker}_{label}_*", "LAYOUT=pattern"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    line = next(line for line in printed.splitlines() if "-m extract.corpus " in line)
    assert shlex.split(line)[-3:] == ["root='it''s #2'", "layout=pattern", "pattern='{speaker}_{label}_*'"]


@needs_audio
def test_ravdess_needs_no_layout_and_is_written_as_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first lines of what `make corpus` wrote before there were layouts, and no labels.txt."""
    out = tmp_path / "metadata.csv"
    assert make_corpus(f"root={SHARED / 'ravdess/audio'}", f"out={out}") == 0
    lines = out.read_text().splitlines()
    assert lines[0] == "clip_id,path,label,speaker,statement,intensity,repetition,sex,split,sha256"
    assert lines[1] == (
        "03-01-01-01-01-01-01,Actor_01/03-01-01-01-01-01-01.flac,neutral,1,"
        "Kids are talking by the door,normal,1,male,train,"
    )
    assert len(lines) == 1441
    assert [path.name for path in tmp_path.iterdir()] == ["metadata.csv"]
    said = capsys.readouterr().out
    assert "layout ravdess, by the names of the files" in said
    assert "protocol=" not in said


@pytest.mark.parametrize(
    ("files", "protocol"),
    [
        (tuple(f"{who}/{label}/{n}.wav" for who in "ab" for label in "xy" for n in range(5)), "random-clips"),
        (("a/x/1.wav", "b/y/1.wav", "c/y/1.wav"), "speaker-folds-3"),
        (tuple(f"s{n}/{label}/1.wav" for n in range(9) for label in "xy"), "speaker-folds-5"),
        (("train/x/s1_1.wav", "dev/y/s2_1.wav", "test/x/s3_1.wav"), "split-column"),
        (
            tuple(f"{part}/{label}/s1_{n}.wav" for part in ("train", "dev", "test") for label in "xy" for n in "12"),
            "random-clips",
        ),
    ],
)
def test_the_protocol_that_is_proposed_is_one_that_the_corpus_allows(
    files: tuple[str, ...], protocol: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path, *files)
    splits = ["pattern='{split}/{label}/{speaker}_*'", "values={split: {train: train, dev: validation, test: test}}"]
    assert make_corpus(f"root={tmp_path}", *(splits if "_" in files[0] else [])) == 0
    assert f"protocol={protocol}" in capsys.readouterr().out
    load_protocol(protocol).folds(read_corpus(tmp_path / "metadata.csv").clips)
