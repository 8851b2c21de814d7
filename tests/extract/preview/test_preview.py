"""`make preview`: what is written for a clip, what is left out and said, and every input that cannot be shown."""

from __future__ import annotations

import csv
import wave
from pathlib import Path

import matplotlib.image
import numpy as np
import numpy.typing as npt
import pytest

from cache.conditions import KINDS, parse_condition
from cache.corpus.clips import Clip, read_corpus, write_metadata
from configs.command.entry import main
from configs.schema.preview import PREVIEW_CONDITIONS, PreviewConfig
from extract.asr.transcript import Transcript, word_error_rate
from extract.corrupt.noise.sources import RECORDED
from extract.preview import __main__ as preview
from extract.preview import listening
from extract.preview.__main__ import run
from extract.preview.clip import find_clip
from extract.preview.listening import write_wav
from extract.preview.sheets import Panel, contact_sheet, is_replaced, spectrogram_db, spectrogram_sheet
from tests.tiny.corpus import pictures, tone, write_mp4
from tests.tiny.places import ROOT, SHARED

CONFIG = ROOT / "configs" / "demo" / "preview.yaml"
WHISPER = SHARED / "models/whisper-tiny.en-ravdess/model.pt"
REAL = SHARED / "media/01-01-08-02-01-01-19.mp4"
NAME = "01-01-03-01-02-01-07"


def show(tmp_path: Path, clip: Path | str, *overrides: str) -> int:
    small = ("asr.model=null", "media.size=32", f"out={tmp_path / 'out'}")
    return main(PreviewConfig, run, "test", ["--config", str(CONFIG), f"clip={clip}", *small, *overrides])


def make_clip(tmp_path: Path, name: str = NAME, sound: bool = True, picture: bool = True) -> Path:
    return write_mp4(tmp_path / f"{name}.mp4", tone(0.8) if sound else None, pictures(20) if picture else None)


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "preview.csv").open()))


def samples(path: Path) -> npt.NDArray[np.int16]:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


class Tiring:
    """Stands in for Whisper: understands the first sound, a word of the second, and fails on the third."""

    def __init__(self, *_: object, **__: object) -> None:
        self.texts = iter(("Dogs are sitting by the door", "Dogs"))

    def transcribe(self, _: npt.NDArray[np.float32], statement: str) -> Transcript:
        text = next(self.texts, None)
        if text is None:
            raise RuntimeError("too tired\nfor this")
        return Transcript(text, "[]", 0.5, word_error_rate(statement, text), 0.25)


def test_every_kind_is_shown_by_default() -> None:
    assert {part.kind for joint in PREVIEW_CONDITIONS for part in joint.parts} == {"clean", *KINDS}
    assert len(set(PREVIEW_CONDITIONS)) == len(PREVIEW_CONDITIONS)


def test_sheets_sounds_and_table(tmp_path: Path) -> None:
    conditions = "conditions=[noise-white-10db,noise-white-minus10db,occlude-block-50,drop-frames-75]"
    assert show(tmp_path, make_clip(tmp_path), conditions) == 0
    folder = tmp_path / "out" / NAME
    acoustic = ["clean", "noise-white-10db", "noise-white-minus10db"]
    assert {path.name for path in folder.iterdir()} == {
        *("frames.png", "spectrograms.png", "preview.csv"),
        *(f"{name}.wav" for name in acoustic),
    }
    assert [row["condition"] for row in table(folder)] == acoustic
    assert list(table(folder)[0]) == ["condition", "transcript", "wer", "no_speech", "confidence"]
    clean, light, heavy = (samples(folder / f"{name}.wav").astype(float) for name in acoustic)
    assert abs(len(clean) - 0.8 * 16_000) <= 2048  # AAC works in blocks
    assert np.corrcoef(clean, light)[0, 1] > 0.9
    assert np.corrcoef(clean, heavy)[0, 1] < 0.5
    assert matplotlib.image.imread(folder / "spectrograms.png").shape[1] == 1050
    assert matplotlib.image.imread(folder / "frames.png").shape[0] > 3 * 224  # clean and two conditions


def test_the_picture_sheet_shows_the_frames_that_are_encoded(tmp_path: Path) -> None:
    frames_THWC = np.stack([np.full((32, 32, 3), 10 * index, np.uint8) for index in range(16)])
    lost_THWC = frames_THWC.copy()
    lost_THWC[15] = lost_THWC[14]
    contact_sheet([("clean", frames_THWC), ("drop-frames-30", lost_THWC)], tmp_path / "sheet.png", "clip")
    sheet_HWC = (255 * matplotlib.image.imread(tmp_path / "sheet.png")[:, :, :3]).round().astype(int)
    greys, dots = np.unique(sheet_HWC[:, :, 0], return_counts=True)
    # Eight of 16 frames, the first and the last among them, and the one that stands in for the lost last one.
    assert {0, 20, 40, 60, 90, 110, 130, 140, 150} <= set(greys[dots > 40_000].tolist())
    vermilion = (np.abs(sheet_HWC - (213, 94, 0)) < 3).all(axis=2)
    assert 500 < vermilion.sum() < 20_000  # one edge


def test_a_replaced_frame_is_told_from_a_changed_one() -> None:
    clean_THWC = pictures(4)
    assert is_replaced(clean_THWC[2], clean_THWC, 3)
    assert not is_replaced(clean_THWC[3], clean_THWC, 3)
    assert not is_replaced(np.zeros_like(clean_THWC[3]), clean_THWC, 3)


def test_spectrogram_levels_are_those_of_a_tone() -> None:
    time = np.arange(16_000) / 16_000
    level_FS = spectrogram_db((0.1 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32))
    assert level_FS.shape[0] == 257
    assert level_FS.argmax(axis=0).tolist() == [32] * level_FS.shape[1]  # 1000 Hz of 8000 in 256 steps
    np.testing.assert_allclose(level_FS.max(axis=0), -20, atol=0.05)
    assert spectrogram_db(np.zeros(10, np.float32)).shape == (257, 1)


def test_silence_and_endless_transcripts_can_be_drawn(tmp_path: Path) -> None:
    silence = Panel("silence-track", np.zeros(4000, np.float32), ("door " * 400, "WER 9.00"), True)
    spectrogram_sheet([silence], tmp_path / "one.png", "clip", "")
    spectrogram_sheet([Panel("clean", tone(0.5)), silence], tmp_path / "two.png", "clip", "")
    one, two = (matplotlib.image.imread(tmp_path / name).shape for name in ("one.png", "two.png"))
    assert one == two
    assert one[0] < 800


def test_transcripts_stand_in_sheet_and_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Panel] = []
    monkeypatch.setattr(listening, "load_recogniser", Tiring)
    monkeypatch.setattr(preview, "spectrogram_sheet", lambda panels, *_: drawn.extend(panels))
    conditions = "conditions=[noise-white-0db,noise-white-minus20db]"
    assert show(tmp_path, make_clip(tmp_path), "asr.model=tiny.en", conditions) == 0
    clean, light, heavy = table(tmp_path / "out" / NAME)
    assert clean == {
        "condition": "clean", "transcript": "Dogs are sitting by the door",
        "wer": "0.000", "no_speech": "0.250", "confidence": "0.500",
    }  # fmt: skip
    assert (light["transcript"], light["wer"]) == ("Dogs", "0.833")
    assert heavy == {**dict.fromkeys(clean, ""), "condition": "noise-white-minus20db"}
    assert [panel.lines for panel in drawn] == [
        ("“Dogs are sitting by the door”", "WER 0.00"),
        ("“Dogs”", "WER 0.83"),
        ("no transcript: RuntimeError too tired for this",),
    ]
    assert [panel.is_wrong for panel in drawn] == [False, True, True]


def test_the_statement_can_be_given_or_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "load_recogniser", Tiring)
    clip = make_clip(tmp_path, "holiday", picture=False)
    for override, expected in (("statement=Dogs are sitting", "1.000"), ("statement=null", "")):
        assert show(tmp_path, clip, "asr.model=tiny.en", "conditions=[clean]", override) == 0
        assert table(tmp_path / "out" / "holiday")[0]["wer"] == expected


def test_a_whisper_that_cannot_be_downloaded_costs_only_the_transcripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("asr.model could not be loaded")

    monkeypatch.setattr(listening, "load_recogniser", refuse)
    clip = make_clip(tmp_path, picture=False)
    assert show(tmp_path, clip, "asr.model=base.en", "conditions=[clean]") == 0
    assert "no transcripts: asr.model could not be loaded" in capsys.readouterr().out
    assert show(tmp_path, clip, "asr.model=bass.en", "conditions=[clean]") == 2


def test_a_new_preview_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    clip, folder = make_clip(tmp_path), tmp_path / "out" / NAME
    assert show(tmp_path, clip, "conditions=[noise-white-10db,drop-frames-30]") == 0
    (folder / "mine.wav").touch()
    assert show(tmp_path, clip, "conditions=[noise-white-0db]") == 0
    assert {path.name for path in folder.iterdir()} == {
        *("spectrograms.png", "preview.csv", "clean.wav", "noise-white-0db.wav", "mine.wav")
    }


def test_a_clip_without_sound_or_without_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = "conditions=[noise-white-10db,occlude-block-50]"
    assert show(tmp_path, make_clip(tmp_path, "mute", sound=False), both) == 0
    assert "left out: mute.mp4 has no sound" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out/mute").iterdir()] == ["frames.png"]
    assert show(tmp_path, make_clip(tmp_path, "dark", picture=False), both) == 0
    assert "left out: dark.mp4 has no picture" in capsys.readouterr().out
    assert not (tmp_path / "out/dark/frames.png").exists()
    assert (tmp_path / "out/dark/spectrograms.png").exists()
    assert show(tmp_path, tmp_path / "mute.mp4", "conditions=[noise-white-10db]") == 2
    assert "none of the conditions changes what is in it" in capsys.readouterr().err


def test_a_condition_that_this_clip_cannot_have_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_wav(np.zeros(8000, np.float32), tmp_path / "silent.wav")
    assert show(tmp_path, tmp_path / "silent.wav", "conditions=[noise-white-10db]") == 0
    assert "left out: noise-white-10db: the waveform is silent" in capsys.readouterr().out
    assert [row["condition"] for row in table(tmp_path / "out/silent")] == ["clean"]


def test_a_clip_by_its_id_and_a_file_that_the_corpus_lists(tmp_path: Path) -> None:
    make_clip(tmp_path, "a/first", picture=False)
    clip = Clip("../one", "a/first.mp4", "happy", "5", "Good morning")
    write_metadata([clip], tmp_path / "metadata.csv")
    corpus = read_corpus(tmp_path / "metadata.csv")
    by_id, by_file = find_clip("../one", corpus), find_clip(str(tmp_path / "a/first.mp4"), corpus)
    assert by_id == by_file
    assert (by_id.clip_id, by_id.statement) == ("../one", "Good morning")
    assert show(tmp_path, "../one", f"corpus={tmp_path / 'metadata.csv'}", "conditions=[clean]") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["_one"]


def test_a_ravdess_name_says_the_statement(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.mp4").touch()
    clip = find_clip(str(tmp_path / f"{NAME}.mp4"), None)
    assert (clip.clip_id, clip.statement) == (NAME, "Dogs are sitting by the door")


@pytest.mark.parametrize(
    ("clip", "overrides", "expected"),
    [
        ("nowhere.mp4", (), "clip=nowhere.mp4: no such file; to name a clip by its id, give corpus=metadata.csv"),
        ("onee", ("corpus=CORPUS",), "no clip of that id in the corpus (did you mean one?)"),
        ("one", ("corpus=CORPUS", "labels={hapy: null}"), "has no label 'hapy' (did you mean happy?)"),
        ("null", (), "clip is missing; name a media file (make preview CLIP=x.mp4)"),
        ("FOLDER", (), "is a folder; name one media file"),
        ("FOLDER/page.mp4", (), "page.mp4: not a readable media file"),
        ("FOLDER/empty.mp4", (), "empty.mp4: the file is empty (0 bytes)"),
        ("FOLDER/clean.wav", ("out=FOLDER/..",), "where its own preview would be written; give another out=FOLDER"),
        ("FOLDER/clean.wav", ("conditions=[noise-wite-10db]",), "did you mean noise-white-10db?"),
        ("FOLDER/clean.wav", ("conditions=[noise-file-10db]",), "noise-file needs sound files to draw from"),
        ("FOLDER/clean.wav", ("conditions=[noise-babble-10db]",), "noise-babble needs other people's voices: give"),
        ("FOLDER/clean.wav", ("noise.folder=/nowhere",), "noise.folder /nowhere is not a folder"),
        ("FOLDER/clean.wav", ("asr.model=no/model.pt",), "asr.model: no checkpoint file no/model.pt"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], clip: str, overrides: tuple[str, ...], expected: str
) -> None:
    folder = tmp_path / "clean"
    write_wav(tone(0.3), folder / "clean.wav")
    (folder / "page.mp4").write_text("<html>not found</html>")
    (folder / "empty.mp4").touch()
    write_metadata([Clip("one", "clean/clean.wav", "happy", "5")], tmp_path / "metadata.csv")

    def filled(text: str) -> str:
        return text.replace("FOLDER", str(folder)).replace("CORPUS", str(tmp_path / "metadata.csv"))

    assert show(tmp_path, filled(clip), *map(filled, overrides)) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not (REAL.exists() and WHISPER.exists()), reason="no real clip and Whisper in $SHARED")
def test_the_real_clip_is_understood_until_the_noise_is_loud(tmp_path: Path) -> None:
    conditions = "conditions=[noise-white-minus20db]"
    assert show(tmp_path, REAL, f"asr.model={WHISPER}", conditions) == 0
    clean, loud = table(tmp_path / "out" / REAL.stem)
    assert (clean["transcript"], clean["wer"]) == ("Kids are talking by the door.", "0.000")
    assert float(loud["wer"]) > 0.5


def test_recordings_come_from_the_corpus_and_the_folder(tmp_path: Path) -> None:
    clips = [Clip(f"clip-{number}", f"clips/{number}.wav", "happy", str(number)) for number in range(1, 4)]
    for number, clip in enumerate(clips):
        write_wav(tone(0.6, seed=number), tmp_path / clip.path)
    write_metadata(clips, tmp_path / "metadata.csv")
    corpus = f"corpus={tmp_path / 'metadata.csv'}"
    conditions = "conditions=[noise-babble-10db,noise-file-10db]"
    assert show(tmp_path, "clip-1", corpus, conditions, f"noise.folder={tmp_path / 'clips'}") == 0
    names = [row["condition"] for row in table(tmp_path / "out/clip-1")]
    assert names == ["clean", "noise-babble-10db", "noise-file-10db"]
    assert len({samples(tmp_path / f"out/clip-1/{name}.wav").tobytes() for name in names}) == 3


def test_by_default_what_lacks_its_recordings_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_wav(tone(0.3), tmp_path / "voice.wav")
    assert show(tmp_path, tmp_path / "voice.wav") == 0
    said = capsys.readouterr().out
    assert "left out: noise-babble needs other people's voices: give corpus=metadata.csv" in said
    assert "left out: noise-file needs sound files to draw from" in said
    shown = [parse_condition(row["condition"]).kind for row in table(tmp_path / "out/voice")]
    audible = [kind for kind in KINDS if KINDS[kind].modality == "audio"]
    assert list(dict.fromkeys(shown)) == ["clean", *(kind for kind in audible if kind not in RECORDED)]
