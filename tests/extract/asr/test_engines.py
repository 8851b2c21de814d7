"""What both engines promise, on a tiny Whisper that says three words; and what transformers' alone does."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.schema.features import TIMESTAMPED, TRANSFORMERS, Asr
from extract.asr import convert, openai
from extract.asr.batched import Batched
from extract.asr.deviation import deviation, is_approximate, measure
from extract.asr.loading import Whisper, load_whisper
from extract.asr.recogniser import Recogniser, load_recogniser
from extract.asr.transcript import NoRoom, Transcript, Waveform
from extract.asr.window.decoded import Guard
from tests.tiny.corpus import tone
from tests.tiny.encoders import recogniser as write_recogniser

CPU = torch.device("cpu")
SAID = "dogs were sitting"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recogniser(tmp_path_factory.mktemp("whisper") / "tiny.pt")


@pytest.fixture(scope="module")
def whisper(file: Path) -> Whisper:
    return load_whisper(file)


@pytest.fixture(scope="module")
def sounds() -> list[Waveform]:
    noise_T = 0.3 * np.random.default_rng(0).standard_normal(24_000)
    return [tone(2.0, seed=1), tone(1.0, seed=2), noise_T.astype(np.float32), np.zeros(16_000, np.float32), tone(0.5)]


# Both


@pytest.fixture(scope="module", params=[TIMESTAMPED, TRANSFORMERS])
def either(request: pytest.FixtureRequest, file: Path) -> Recogniser:
    return load_recogniser(Asr(str(file), engine=request.param), CPU)


def words_of(transcript: Transcript) -> list[dict[str, Any]]:
    words: list[dict[str, Any]] = json.loads(transcript.words)
    return words


def test_words_have_times_within_the_clip_and_confidences(either: Recogniser, sounds: list[Waveform]) -> None:
    for sound_T in sounds[:4]:
        heard = either.transcribe(sound_T, "Dogs were gone")
        words = words_of(heard)
        assert heard.transcript == SAID
        assert heard.wer == pytest.approx(1 / 3)
        assert [word["text"] for word in words] == SAID.split()
        times = [time for word in words for time in (word["start_seconds"], word["end_seconds"])]
        assert times == sorted(times)
        assert 0 <= times[0] < times[-1] <= len(sound_T) / 16_000 + 0.02
        assert all(set(word) == {"text", "start_seconds", "end_seconds", "confidence"} for word in words)
        assert heard.confidence == pytest.approx(np.mean([word["confidence"] for word in words]))
        assert 0 < heard.confidence < 1
        assert 0 < heard.no_speech < 1e-3


def test_the_same_again_is_the_same(either: Recogniser, sounds: list[Waveform]) -> None:
    heard = either.engine.hear(sounds[:2])
    assert heard == either.engine.hear(sounds[:2])


def test_less_than_a_hop_is_no_words(either: Recogniser) -> None:
    heard = either.transcribe(np.zeros(159, np.float32), "Dogs")
    assert (heard.transcript, heard.words, heard.wer, math.isnan(heard.no_speech)) == ("", "[]", 1, True)
    assert either.transcribe(np.zeros(160, np.float32)).no_speech < 1e-3


def test_samples_that_are_no_numbers_are_refused(either: Recogniser) -> None:
    with pytest.raises(ValueError, match=r"finite|No warping path"):
        either.transcribe(np.full(16_000, np.nan, np.float32))


def test_both_hear_the_same(file: Path, sounds: list[Waveform]) -> None:
    timestamped, batched = (load_recogniser(Asr(str(file), engine=one), CPU) for one in (TIMESTAMPED, TRANSFORMERS))
    for sound_T in sounds:
        one, other = timestamped.transcribe(sound_T), batched.transcribe(sound_T)
        assert one.transcript == other.transcript
        assert one.no_speech == pytest.approx(other.no_speech, rel=1e-3)
        for ours, theirs in zip(words_of(one), words_of(other), strict=True):
            assert ours["confidence"] == pytest.approx(theirs["confidence"], abs=2e-3)


class Counting:
    """Hears how long a sound is, and how often it was asked."""

    batch_size = 4

    def __init__(self) -> None:
        self.asked: list[int] = []

    def hear(self, waveforms: list[Waveform]) -> list[Transcript]:
        self.asked += [len(waveform_T) for waveform_T in waveforms]
        return [Transcript(str(len(waveform_T))) for waveform_T in waveforms]


def test_equal_sounds_are_recognised_once_and_scored_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence, and what a condition leaves alone, was recognised again under every condition."""
    counting = Counting()
    recogniser = Recogniser(counting)  # type: ignore[arg-type]
    silence_T, sound_T = np.zeros(300, np.float32), np.ones(400, np.float32)
    heard = recogniser.transcribe_all([silence_T, sound_T, silence_T.copy()])
    assert [one.transcript for one in heard] == ["300", "400", "300"]
    assert recogniser.transcribe(sound_T.copy(), "400").wer == 0
    assert recogniser.transcribe(sound_T.copy(), "399").wer == 1
    assert counting.asked == [300, 400]
    monkeypatch.setattr("extract.asr.recogniser.SOUNDS_REMEMBERED", 1)
    assert [one.transcript for one in recogniser.transcribe_all([silence_T, sound_T])] == ["300", "400"]
    recogniser.transcribe_all([silence_T, sound_T])
    assert counting.asked == [300, 400, 300]


# transformers


def engine(whisper: Whisper, batch_size: int = 1, **options: Any) -> Batched:
    return Batched(whisper, "en", CPU, batch_size, **options)


def test_a_clip_sounds_the_same_alone_and_in_any_batch(whisper: Whisper, sounds: list[Waveform]) -> None:
    """In float32 on a CPU, to the digits that are kept: texts, times and confidences."""
    alone = [engine(whisper).hear([sound_T])[0] for sound_T in sounds]
    for size in (2, 3, 5):
        for order in (slice(None), slice(None, None, -1)):
            heard = [
                one
                for first in range(0, len(sounds), size)
                for one in engine(whisper, size).hear(sounds[order][first : first + size])
            ]
            for one, other in zip(alone[order], heard, strict=True):
                assert replace(one, no_speech=0) == replace(other, no_speech=0)
                assert one.no_speech == pytest.approx(other.no_speech, rel=1e-4)


def test_all_batches_have_one_shape(whisper: Whisper, sounds: list[Waveform], monkeypatch: pytest.MonkeyPatch) -> None:
    batched, shapes = engine(whisper, 3), []
    encode = batched.network.get_encoder().forward

    def seen(features_BMN: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        shapes.append(tuple(features_BMN.shape))
        return encode(features_BMN, *args, **kwargs)

    monkeypatch.setattr(batched.network.get_encoder(), "forward", seen)
    batched.hear(sounds[:1])
    batched.hear(sounds)
    assert set(shapes) == {(3, 80, 3000)}


def test_a_clip_that_comes_alone_has_a_batch_of_its_own(file: Path) -> None:
    """A prediction would hear fifteen windows of silence beside it."""
    asr = Asr(str(file), engine=TRANSFORMERS, batch_size=16)
    assert load_recogniser(asr, CPU).batch_size == 16
    assert load_recogniser(asr, CPU, one_by_one=True).batch_size == 1


def test_a_long_clip_is_heard_window_after_window(whisper: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is told what was heard before, as in OpenAI's program."""
    batched, prompts = engine(whisper, 2), []
    written = batched._written

    def seen(features_BMN: torch.Tensor, prompt_BL: torch.Tensor) -> Any:
        prompts.append(prompt_BL.tolist())
        return written(features_BMN, prompt_BL)

    monkeypatch.setattr(batched, "_written", seen)
    heard = batched.hear([tone(65.0, seed=3)])[0]
    first, second = prompts[0][0], prompts[1][0]
    assert first == [whisper.settings.decoder_start_token_id]
    assert (second[0], second[-1]) == (whisper.settings.prev_sot_token_id, first[0])
    assert whisper.decode([token for token in second[1:-1] if token < whisper.settings.eos_token_id]).strip() == SAID
    assert all(len(rows) == 2 and rows[0] == rows[1] for rows in prompts)
    assert len(prompts) >= 3
    starts = [word["start_seconds"] for word in words_of(heard)]
    assert starts == sorted(starts)


def test_another_language_is_told_to_a_network_that_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whisper = load_whisper(write_recogniser(tmp_path / "many.pt", multilingual=True))
    for language in ("de", "German"):
        assert Batched(whisper, language, CPU, 1).language == "de"
    told, decode = [], whisper.network.model.forward

    def seen(*args: Any, **inputs: Any) -> Any:
        told.append(whisper.tokenizer.decode(inputs["decoder_input_ids"][0, :3].tolist()))
        return decode(*args, **inputs)

    monkeypatch.setattr(whisper.network.model, "forward", seen)
    assert Batched(whisper, "de", CPU, 1).hear([tone(0.1)])[0].no_speech > 0
    assert told[0] == "<|startoftranscript|><|de|><|transcribe|>"
    with pytest.raises(ValueError, match=r"asr\.language=klingon: .*many\.pt does not know it; give a code such as en"):
        Batched(whisper, "klingon", CPU, 1)


def test_a_network_of_english_alone_is_not_asked_for_another_language(whisper: Whisper) -> None:
    with pytest.raises(ValueError, match=r"^asr\.language=de: asr\.model=.*tiny\.pt knows English alone; set asr\.m"):
        Batched(whisper, "de", CPU, 1)


def test_a_window_that_is_not_believed_is_no_words(whisper: Whisper, sounds: list[Waveform]) -> None:
    heard = engine(whisper, guard=Guard(no_speech=0.0, log_probability=0.0)).hear(sounds[:1])[0]
    assert (heard.transcript, heard.words) == ("", "[]")
    assert heard.no_speech > 0


def test_a_batch_that_does_not_fit_names_the_setting(whisper: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    batched = engine(whisper, 64)
    monkeypatch.setattr(batched, "_heard", full)
    with pytest.raises(NoRoom, match=r"cpu has no room for asr\.batch_size=64; halve it"):
        batched.hear([tone(1.0)])


def test_float16_is_measured_against_float32(file: Path, sounds: list[Waveform]) -> None:
    asr = Asr(str(file), engine=TRANSFORMERS)
    half = load_recogniser(asr, CPU, "float16")
    found = measure(asr, half, CPU, iter([*sounds, *sounds]))
    assert (found["clips"], found["other_texts"]) == (8, 0)
    assert 0 < found["confidence"] < 0.05
    assert not measure(asr, half, CPU, iter([]))


def test_deviations_by_hand() -> None:
    def said(text: str, start: float, confidence: float) -> Transcript:
        word = {"text": text, "start_seconds": start, "end_seconds": start + 1, "confidence": confidence}
        return Transcript(text, json.dumps([word]), confidence)

    pairs = [
        (said("a", 0.5, 0.9), said("a", 0.7, 0.8)),
        (said("a", 0.5, 0.9), said("b", 5, 0.1)),
        (Transcript(""), Transcript("")),
    ]
    found = deviation(pairs)
    assert (found["clips"], found["other_texts"], found["seconds"]) == (3, 1, 0.2)
    assert found["confidence"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("engine", "device", "expected"),
    [(TRANSFORMERS, "cuda", True), (TRANSFORMERS, "cpu", False), (TIMESTAMPED, "cuda", False)],
)
def test_what_is_approximate(engine: Any, device: str, expected: bool) -> None:
    assert is_approximate(Asr(engine=engine), torch.device(device)) is expected
    assert not is_approximate(Asr(None, engine=engine), torch.device(device))


# Folders and files


def test_a_converted_folder_hears_what_the_file_does(
    file: Path, whisper: Whisper, sounds: list[Waveform], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert.main([str(file), str(tmp_path / "folder")]) == 0
    assert f"asr.model={tmp_path}/folder" in capsys.readouterr().out
    folder = load_whisper(tmp_path / "folder")
    assert engine(folder).hear(sounds) == engine(whisper).hear(sounds)
    assert folder.suppressed == {name: list(tokens) for name, tokens in whisper.suppressed.items()}
    assert len(folder.suppressed["suppress_tokens"]) > 80
    assert convert.main([str(file), str(tmp_path / "folder")]) == 2
    assert "is not empty; give another folder" in capsys.readouterr().err


def _broken(file: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    held = torch.load(file, weights_only=True)
    change(held["model_state_dict"])
    torch.save(held, file)
    return file


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda weights: weights.pop("decoder.blocks.0.attn.key.weight"), "model.decoder.layers.0.self_attn.k_proj"),
        (lambda weights: weights.update({"decoder.extra": torch.zeros(1)}), "decoder.extra"),
    ],
)
def test_weights_that_do_not_arrive_are_named(tmp_path: Path, change: Callable[[Any], None], named: str) -> None:
    broken = _broken(write_recogniser(tmp_path / "broken.pt"), change)
    with pytest.raises(ValueError, match=rf"broken\.pt lacks weights of a whole Whisper: {named}"):
        load_whisper(broken)


def test_a_folder_whose_decoder_is_not_there_is_refused(file: Path, tmp_path: Path) -> None:
    """transformers makes up what a checkpoint lacks: a decoder of random weights hears words in everything."""
    from safetensors.torch import load_file, save_file

    convert.write_folder(file, tmp_path / "folder")
    weights = load_file(tmp_path / "folder/model.safetensors")
    encoder = {name: tensor for name, tensor in weights.items() if "encoder." in name}
    save_file(encoder, tmp_path / "folder/model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"folder lacks weights of a whole Whisper: model\.decoder\."):
        load_whisper(tmp_path / "folder")


def test_what_is_no_whisper_is_one_line_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "broken.pt").write_bytes(b"nothing of the kind")
    for place in (tmp_path / "broken.pt", tmp_path):
        with pytest.raises(ValueError, match=r"could not be loaded .* or asr\.model=null to take") as error:
            load_whisper(place)
        assert "\n" not in str(error.value)


def test_every_weight_of_openais_has_a_name() -> None:
    assert openai.renamed("encoder.blocks.3.mlp.2.bias") == "model.encoder.layers.3.fc2.bias"
    assert (
        openai.renamed("decoder.blocks.0.cross_attn.out.weight")
        == "model.decoder.layers.0.encoder_attn.out_proj.weight"
    )
    assert openai.renamed("decoder.positional_embedding") == "model.decoder.embed_positions.weight"
