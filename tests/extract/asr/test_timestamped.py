"""Recognition: words with times and confidences, silence is no words, errors are counted in words."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import whisper_timestamped

from configs.schema.features import TIMESTAMPED, TRANSFORMERS, Asr
from extract.asr import timestamped as transcribe
from extract.asr.recogniser import Recogniser, load_recogniser
from extract.asr.timestamped import Timestamped
from extract.asr.transcript import Transcript, scored_words, word_error_rate
from tests.tiny.places import SHARED, needs_audio

CHECKPOINT = SHARED / "models/whisper-tiny.en-ravdess/model.pt"
CPU = torch.device("cpu")
needs_recogniser = pytest.mark.skipif(not CHECKPOINT.is_file(), reason="no Whisper checkpoint in $SHARED")


# Word errors


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("Kids are talking by the door", "Kids are talking by the door", 0),
        ("Kids are talking by the door", " kids are TALKING by the door.", 0),
        ("Kids are talking by the door", "Dogs are talking by the door", 1 / 6),  # one substitution
        ("Kids are talking by the door", "Kids talking by the door", 1 / 6),  # one deletion
        ("Kids are talking by the door", "Kids are are talking by the door", 1 / 6),  # one insertion
        ("Kids are talking by the door", "Dogs are sitting by door now", 4 / 6),
        ("Kids are talking by the door", "", 1),
        ("Kids are talking by the door", "...", 1),
        ("Dogs", "dogs are sitting", 2),
        ("don't", "don't", 0),
        ("don't", "dont", 1),
    ],
)
def test_word_error_rate_by_hand(reference: str, hypothesis: str, expected: float) -> None:
    assert word_error_rate(reference, hypothesis) == pytest.approx(expected)


@pytest.mark.parametrize("reference", ["", " ", "...", "\n"])
def test_without_a_statement_there_is_no_error_rate(reference: str) -> None:
    assert math.isnan(word_error_rate(reference, "anything"))


def test_spoken_words() -> None:
    assert scored_words("  Dogs, are\nSITTING - by the door!") == "dogs are sitting by the door"


# Loading


def test_a_file_that_is_no_checkpoint_is_one_line_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "broken.pt").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"broken\.pt could not be loaded .* or asr\.model=null to take") as error:
        Timestamped(str(tmp_path / "broken.pt"), "en", CPU)
    assert "\n" not in str(error.value)


def test_names_are_loaded_by_one_rank_at_a_time_and_with_a_time_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whisper downloads straight to the final place: two ranks would overwrite each other."""
    seen = []

    def load(name: str, device: str) -> str:
        locks = [path.name for path in (tmp_path / "whisper").iterdir()]
        seen.append((name, device, locks, socket.getdefaulttimeout()))
        raise RuntimeError("no network")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(whisper_timestamped, "load_model", load)
    with pytest.raises(ValueError, match=r"asr\.model base\.en could not be loaded \(RuntimeError: no network\)"):
        Timestamped("base.en", "en", CPU)
    assert seen == [("base.en", "cpu", [".lock"], transcribe.SECONDS_WITHOUT_AN_ANSWER)]
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize(("language", "knows"), [("de", False), ("de", True), ("en", False), ("english", False)])
def test_a_checkpoint_of_english_alone_is_not_asked_for_another_language(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, language: str, knows: bool
) -> None:
    """The name of a file does not say what it knows; the network does."""
    (tmp_path / "model.pt").touch()
    encoder = SimpleNamespace(blocks=[])
    network = SimpleNamespace(device=CPU, decode=None, encoder=encoder, is_multilingual=knows)
    monkeypatch.setattr(whisper_timestamped, "load_model", lambda *_, **__: network)
    if language == "de" and not knows:
        with pytest.raises(
            ValueError, match=r"^asr\.language=de: asr\.model=.*model\.pt knows English alone; set asr\.m"
        ):
            Timestamped(str(tmp_path / "model.pt"), language, CPU)
    else:
        Timestamped(str(tmp_path / "model.pt"), language, CPU)


# What the recogniser returns


def recogniser(
    monkeypatch: pytest.MonkeyPatch, result: dict[str, Any], windows: Sequence[float] = ()
) -> tuple[Recogniser, list[dict[str, Any]]]:
    """One whose network returns `result`, and the calls that it gets; `windows`: no-speech probability of each."""
    calls: list[dict[str, Any]] = []

    def heard(network: Any, samples_T: Any, **options: Any) -> dict[str, Any]:
        calls.append({"samples": samples_T, **options})
        for probability in windows:
            network.decode(SimpleNamespace(no_speech_prob=probability))
        return result

    # Decodes to whatever it is given; as the real one, it has a device and an encoder of blocks.
    network = SimpleNamespace(device=CPU, decode=lambda window: window, encoder=SimpleNamespace(blocks=[]))
    monkeypatch.setattr(whisper_timestamped, "load_model", lambda *_, **__: network)
    monkeypatch.setattr(whisper_timestamped, "transcribe", heard)
    return Recogniser(Timestamped("base.en", "en", CPU)), calls


WORD = {"text": "Dogs", "start": 0.12345, "end": 0.5, "confidence": 0.75}


def test_words_of_all_segments_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    segments = [{"words": [WORD]}, {"text": "no words here"}, {"words": [{**WORD, "text": "bark", "confidence": 0.25}]}]
    heard, _ = recogniser(monkeypatch, {"text": " Dogs bark ", "segments": segments})
    transcript = heard.transcribe(np.zeros(16_000, np.float32), "Dogs are")
    assert (transcript.transcript, transcript.confidence, transcript.wer) == ("Dogs bark", 0.5, 0.5)
    first, second = json.loads(transcript.words)
    assert first == {"text": "Dogs", "start_seconds": 0.123, "end_seconds": 0.5, "confidence": 0.75}
    assert second["text"] == "bark"


def test_silence_is_as_likely_as_in_its_most_silent_window(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whisper itself drops the probability with the windows that it takes for silence."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    heard, _ = recogniser(monkeypatch, {"text": "", "segments": []}, windows=[0.25, 0.75])
    for _ in range(2):
        assert heard.transcribe(np.zeros(16_000, np.float32), "").no_speech == 0.75
    quiet, _ = recogniser(monkeypatch, {"text": "", "segments": []})
    assert math.isnan(quiet.transcribe(np.zeros(16_000, np.float32), "").no_speech)


def test_the_network_gets_mono_float32_and_no_chance(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    heard, calls = recogniser(monkeypatch, {"text": "", "segments": []})
    assert heard.transcribe(np.zeros(32_000, np.float32)[::2], "").transcript == ""
    assert calls[0]["samples"].dtype == np.float32
    assert calls[0]["samples"].flags["C_CONTIGUOUS"]
    assert (calls[0]["language"], calls[0]["temperature"], calls[0]["fp16"]) == ("en", 0.0, False)


def test_less_than_a_hop_is_not_sent_to_the_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    heard, calls = recogniser(monkeypatch, {"text": "x", "segments": []})
    assert heard.transcribe(np.zeros(159, np.float32), "Dogs").wer == 1
    assert not calls


def test_a_statement_stands_in_for_a_recogniser() -> None:
    transcript = Transcript("Dogs")
    assert (transcript.words, math.isnan(transcript.confidence), math.isnan(transcript.wer)) == ("[]", True, True)


# The real one


@pytest.fixture(scope="module", params=[TIMESTAMPED, TRANSFORMERS])
def real(request: pytest.FixtureRequest) -> Recogniser:
    """By either engine."""
    return load_recogniser(Asr(str(CHECKPOINT), engine=request.param), CPU)


@needs_recogniser
@needs_audio
@pytest.mark.parametrize(
    ("clip", "statement"),
    [
        ("Actor_21/03-01-03-01-01-01-21.flac", "Kids are talking by the door"),
        ("Actor_24/03-01-05-01-02-01-24.flac", "Dogs are sitting by the door"),
    ],
)
def test_real_sentences_are_recognised(real: Recogniser, clip: str, statement: str) -> None:
    samples_T = soundfile.read(SHARED / "ravdess/audio" / clip, dtype="float32")[0]
    transcript = real.transcribe(samples_T, statement)
    assert transcript.wer == 0
    words = json.loads(transcript.words)
    assert [scored_words(word["text"]) for word in words] == scored_words(statement).split()
    assert 0.5 < transcript.confidence <= 1
    times = [time for word in words for time in (word["start_seconds"], word["end_seconds"])]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= len(samples_T) / 16_000


@needs_recogniser
@needs_audio
def test_a_clip_of_more_than_whispers_window_is_heard_to_its_end(real: Recogniser) -> None:
    """Its windows are Whisper's own affair: 30 s each, in time of the clip. Nothing tried it."""
    names = ("Actor_21/03-01-03-01-01-01-21.flac", "Actor_24/03-01-05-01-02-01-24.flac")
    kids, dogs = (soundfile.read(SHARED / "ravdess/audio" / name, dtype="float32")[0] for name in names)
    samples_T = np.concatenate([kids, np.zeros(31 * 16_000, np.float32), dogs])
    transcript = real.transcribe(samples_T, "Kids are talking by the door. Dogs are sitting by the door.")
    assert transcript.wer == 0
    words = json.loads(transcript.words)
    assert len(words) == 12
    assert words[5]["end_seconds"] < 5
    assert 29 < words[6]["start_seconds"] < 34
    assert words[6]["start_seconds"] < words[11]["end_seconds"] <= len(samples_T) / 16_000
    if isinstance(real.engine, Timestamped):
        # This checkpoint gives no times after the first 6 s of a window; transformers' engine looks where it says.
        assert words[11]["end_seconds"] > 34


@needs_recogniser
def test_real_silence_is_no_words(real: Recogniser) -> None:
    transcript = real.transcribe(np.zeros(16_000, np.float32), "Kids are talking by the door")
    assert (transcript.transcript, transcript.words, transcript.wer) == ("", "[]", 1)
    assert math.isnan(transcript.confidence)
    assert transcript.no_speech > 0.9


@needs_recogniser
@needs_audio
def test_fused_attention_in_the_encoder_changes_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = Recogniser(Timestamped(str(CHECKPOINT), "en", CPU))
    monkeypatch.setattr(transcribe, "_fuse_encoder_attention", lambda _: None)
    plain = Recogniser(Timestamped(str(CHECKPOINT), "en", CPU))
    samples_T = soundfile.read(SHARED / "ravdess/audio/Actor_22/03-01-06-01-01-01-22.flac", dtype="float32")[0]
    ours, theirs = (one.transcribe(samples_T, "Kids are talking by the door") for one in (fused, plain))
    assert (ours.transcript, ours.words) == (theirs.transcript, theirs.words)
    assert ours.no_speech == pytest.approx(theirs.no_speech, rel=1e-3)
