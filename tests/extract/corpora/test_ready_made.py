"""The shipped layouts on made-up folders with the published names: labels, speakers and what else the names say."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache.corpus.clips import Clip, read_corpus
from cache.corpus.labels import listed_labels
from configs.loader import load_config
from configs.schema.corpora import FOLDER, CorpusConfig, ready_made
from extract.corpora.layouts import list_corpus
from tests.tiny.folders import make_corpus, touch

EKMAN = ("neutral", "happy", "sad", "angry", "fearful", "disgust", "surprised")
CREMA_D = ["1001_DFA_ANG_XX", "1001_IEO_HAP_LO", "1002_TIE_SAD_HI", "1091_WSI_NEU_XX", "1015_IOM_FEA_MD"]
MELD_HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"


def clips_of(root: Path, *overrides: str) -> dict[str, Clip]:
    assert make_corpus(f"root={root}", *overrides) == 0
    return {clip.clip_id: clip for clip in read_corpus(root / "metadata.csv").clips}


def labels_of(root: Path) -> tuple[str, ...]:
    found = listed_labels(root)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("layout", [None, "crema-d"])
def test_crema_d(layout: str | None, tmp_path: Path) -> None:
    touch(tmp_path, *(f"AudioWAV/{name}.wav" for name in [*CREMA_D, "1040_ITH_SAD_X", "1060_ITS_DIS_XX"]))
    clips = clips_of(tmp_path, *([f"layout={layout}"] if layout else []))
    assert len(clips) == 7
    assert clips["1001_IEO_HAP_LO"] == Clip(
        "1001_IEO_HAP_LO", "AudioWAV/1001_IEO_HAP_LO.wav", "happy", "1001", "It's eleven o'clock", "low", sex="male"
    )
    assert [clips[name].label for name in CREMA_D] == ["angry", "happy", "sad", "neutral", "fearful"]
    assert (clips["1002_TIE_SAD_HI"].sex, clips["1091_WSI_NEU_XX"].sex) == ("female", "female")
    assert clips["1040_ITH_SAD_X"].intensity == ""
    assert labels_of(tmp_path) == ("neutral", "happy", "sad", "angry", "fearful", "disgust")


def test_crema_d_knows_the_sex_of_its_91_actors() -> None:
    by_sex = list(load_config(CorpusConfig, FOLDER / "crema-d.yaml").by["speaker"]["sex"].values())
    assert (len(by_sex), by_sex.count("female"), by_sex.count("male")) == (91, 43, 48)


@pytest.mark.parametrize("layout", [None, "emodb"])
def test_emodb(layout: str | None, tmp_path: Path) -> None:
    codes = {"W": "angry", "L": "bored", "E": "disgust", "A": "fearful", "F": "happy", "T": "sad", "N": "neutral"}
    touch(tmp_path, *(f"wav/{speaker}a01{code}b.wav" for speaker in ("03", "08", "16") for code in codes))
    touch(tmp_path, "wav/14b09Wa.wav", "erkennung.txt", "silb/03a01Fa.silb")
    clips = clips_of(tmp_path, *([f"layout={layout}"] if layout else []))
    assert {code: clips[f"03a01{code}b"].label for code in codes} == codes
    assert clips["14b09Wa"] == Clip(
        "14b09Wa",
        "wav/14b09Wa.wav",
        "angry",
        "14",
        "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
        repetition="a",
        sex="female",
    )
    assert {clip.speaker: clip.sex for clip in clips.values()} == {
        "3": "male",
        "8": "female",
        "14": "female",
        "16": "female",
    }
    assert labels_of(tmp_path) == (*EKMAN[:-1], "bored")


@pytest.mark.parametrize("layout", [None, "savee"])
@pytest.mark.parametrize(("pattern", "clip_id"), [("AudioData/{}/{}.wav", "DC-sa01"), ("ALL/{}_{}.wav", "DC_sa01")])
def test_savee(layout: str | None, pattern: str, clip_id: str, tmp_path: Path) -> None:
    codes = {"a": "angry", "d": "disgust", "f": "fearful", "h": "happy", "n": "neutral", "sa": "sad", "su": "surprised"}
    touch(tmp_path, *(pattern.format(who, f"{code}01") for who in ("DC", "JE", "JK", "KL") for code in codes))
    clips = clips_of(tmp_path, *([f"layout={layout}"] if layout else []))
    assert {clip.speaker for clip in clips.values()} == {"DC", "JE", "JK", "KL"}
    assert (clips[clip_id].label, clips[clip_id].speaker, clips[clip_id].sex) == ("sad", "DC", "male")
    assert [clip.label for clip in clips.values() if clip.speaker == "KL"] == list(codes.values())
    assert labels_of(tmp_path) == EKMAN


@pytest.mark.parametrize("layout", [None, "tess"])
def test_tess(layout: str | None, tmp_path: Path) -> None:
    codes = ("angry", "disgust", "fear", "happy", "neutral", "ps", "sad")
    folders = {"ps": "Pleasant_surprise", "sad": "Sad", "fear": "Fear"}
    touch(tmp_path, *(f"OAF_{folders.get(code, code)}/OAF_back_{code}.wav" for code in codes))
    touch(tmp_path, "YAF_pleasant_surprised/YAF_youth_ps.wav", "OAF_neutral/OA_bite_neutral.wav")
    clips = clips_of(tmp_path, *([f"layout={layout}"] if layout else []))
    assert clips["YAF_youth_ps"] == Clip(
        "YAF_youth_ps",
        "YAF_pleasant_surprised/YAF_youth_ps.wav",
        "surprised",
        "YAF",
        "Say the word youth",
        sex="female",
    )
    assert clips["OA_bite_neutral"].speaker == "OAF"
    assert {clips[f"OAF_back_{code}"].label for code in codes} == set(EKMAN)
    assert labels_of(tmp_path) == EKMAN


def test_meld(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = {
        "train": [
            '1,"Oh, no",Monica,surprise,negative,0,0,4,7,"0:0:1,0","0:0:2,0"',
            "2,Hi,Joey,joy,positive,0,1,4,7,,",
        ],
        "dev": ["1,Well,Ross,neutral,neutral,0,0,4,7,,"],
        "test": ["1,Ugh,Monica,disgust,negative,0,0,4,7,,", "2,Gone,Joey,fear,negative,110,7,4,7,,"],
    }
    for part, rows in lines.items():
        (tmp_path / f"{part}_sent_emo.csv").write_text("\n".join([MELD_HEADER, *rows]) + "\n")
    touch(tmp_path, "train_splits/dia0_utt0.mp4", "train_splits/dia0_utt1.mp4", "dev_splits_complete/dia0_utt0.mp4")
    touch(tmp_path, *(f"output_repeated_splits_test/{name}dia0_utt0.mp4" for name in ("", "._", "final_videos_test")))
    clips = clips_of(tmp_path, "layout=meld")
    assert sorted(clips) == [
        "dev_splits_complete-dia0_utt0",
        "output_repeated_splits_test-dia0_utt0",
        "train_splits-dia0_utt0",
        "train_splits-dia0_utt1",
    ]
    first = clips["train_splits-dia0_utt0"]
    assert (first.label, first.speaker, first.statement, first.split) == ("surprised", "Monica", "Oh, no", "train")
    assert {clip.split for clip in clips.values()} == {"train", "validation", "test"}
    assert labels_of(tmp_path) == EKMAN
    out = capsys.readouterr().out
    assert "1 files are not there and are left out, first: output_repeated_splits_test/dia110_utt7.mp4" in out
    assert "1 media files stand in no line and are left out, first: output_repeated_splits_test/final_videos_t" in out


def test_ravdess_song(tmp_path: Path) -> None:
    touch(tmp_path, *(f"Actor_0{n}/03-02-0{code}-01-01-01-0{n}.wav" for n in (1, 2) for code in range(1, 7)))
    touch(tmp_path, "Actor_01/03-01-08-01-01-01-01.wav")
    clips = clips_of(tmp_path, "layout=ravdess-song")
    assert len(clips) == 12
    assert labels_of(tmp_path) == ("neutral", "calm", "happy", "sad", "angry", "fearful")
    assert read_corpus(tmp_path / "metadata.csv").labels == labels_of(tmp_path)


def test_each_layout_says_where_it_is_from_and_has_a_root() -> None:
    assert set(ready_made()) == {"crema-d", "emodb", "meld", "ravdess-song", "savee", "tess"}
    for name in ready_made():
        assert load_config(CorpusConfig, FOLDER / f"{name}.yaml").root.startswith("data/")
        assert "http" in (FOLDER / f"{name}.yaml").read_text().partition("root:")[0]


def test_a_ready_made_layout_is_not_changed_in_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, "03a01Fa.wav", "03a01Wa.wav")
    assert make_corpus(f"root={tmp_path}", "layout=emodb", "labels={F: joy, W: rage}") == 2
    assert (
        "labels is part of the layout emodb; to change it, copy configs/corpora/emodb.yaml" in capsys.readouterr().err
    )
    copy = tmp_path / "own.yaml"
    copy.write_text((FOLDER / "emodb.yaml").read_text().replace("F: happy", "F: joy"))
    assert make_corpus(f"root={tmp_path}", config=copy) == 0
    assert {clip.label for clip in read_corpus(tmp_path / "metadata.csv").clips} == {"joy", "angry"}


def test_names_that_a_layout_knows_only_in_part_are_not_taken_for_it(tmp_path: Path) -> None:
    """`a01.wav` in a folder is SAVEE's only below DC, JE, JK or KL: other speakers are none of its."""
    touch(tmp_path, "DC/a01.wav", "happy/b01.wav")
    listing = list_corpus(tmp_path, CorpusConfig(root=str(tmp_path)))
    assert listing.notes[0] == "layout folders, by where the clips lie"
