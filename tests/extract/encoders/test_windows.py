"""A clip that is longer than its encoder takes is encoded in windows: once it failed, and a text lost its end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from cache.media import SAMPLE_RATE_HZ
from extract.encoders.base import NetworkEncoder
from extract.encoders.catalogue import check_options, encoder_class
from extract.encoders.models import find_model
from extract.encoders.options import EncoderOptions
from extract.encoders.preparer import Alone, spans
from tests.extract.encoders.test_catalogue import CPU, Case, assert_close, case_of
from tests.tiny.corpus import tone
from tests.tiny.encoders import POSITIONS, WRITERS
from tests.tiny.places import SHARED, needs_audio, needs_whisper

Array = npt.NDArray[Any]
# Samples of the small encoders' own windows.
WINDOW_T = {"whisper": 48_000, "audio-spectrogram-transformer": 22_640}
TEXTS = ("bert", "roberta", "mpnet", "deberta-v2", "modernbert")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    root = tmp_path_factory.mktemp("windows")
    names = ("wav2vec2", *WINDOW_T, *TEXTS)
    return {name: case_of(WRITERS[name][0], WRITERS[name][1](root / name)) for name in names}


def by_hand(case: Case, windows: Sequence[tuple[Any, int]], pooling: str) -> Array:
    """(layers, width): each window by the plain call, pooled as docs/encoders.md says."""
    weights = np.array([weight for _, weight in windows], np.float64)
    if pooling == "last":
        return case.expected(windows[-1][0], "last")
    rows = np.stack([case.expected(signal, pooling) for signal, _ in windows])
    if pooling != "mean_std":
        mean_LD: Array = np.average(rows, axis=0, weights=weights)
        return mean_LD
    means, deviations = np.split(rows, 2, axis=-1)
    mean = np.average(means, axis=0, weights=weights)
    second = np.average(deviations**2 + means**2, axis=0, weights=weights)
    return np.concatenate([mean, np.sqrt(second - mean**2)], axis=-1)


def encoded(encoder: NetworkEncoder, signal: Any) -> Array:
    with torch.inference_mode():
        row_LD: Array = encoder.encode([signal])[0]
    return row_LD


# The cutter


@given(data=st.data(), window=st.integers(1, 400), beyond=st.integers(1, 2000))
def test_windows_cover_every_sample_once_and_end_with_the_clip(data: st.DataObject, window: int, beyond: int) -> None:
    hop, length = data.draw(st.integers(1, window)), window + beyond
    cut = spans(length, window, hop)
    assert [span.end - span.start for span in cut] == [window] * len(cut)
    assert (cut[0].start, cut[-1].end) == (0, length)
    assert sum(span.new for span in cut) == length
    assert all(span.new > 0 for span in cut)
    counted = np.zeros(length, int)
    for span in cut:
        counted[span.end - span.new : span.end] += 1
    assert (counted == 1).all()
    assert [span.start for span in cut[:-1]] == [hop * number for number in range(len(cut) - 1)]


# Sound


@pytest.mark.parametrize("name", WINDOW_T)
@pytest.mark.parametrize("windows", [1.5, 3])
def test_long_sounds_are_the_pool_of_plain_calls(cases: dict[str, Case], name: str, windows: float) -> None:
    case, size = cases[name], WINDOW_T[name]
    signal = tone(windows * size / SAMPLE_RATE_HZ)
    starts, new = ([0, size // 2], [size, size // 2]) if windows == 1.5 else ([0, size, 2 * size], [size] * 3)
    parts = [(signal[start : start + size], weight) for start, weight in zip(starts, new, strict=True)]
    for pooling in case.encoder.poolings:
        for together in (1, 2):
            encoder = case.run_with(EncoderOptions(pooling, windows_together=together))
            assert_close(encoded(encoder, signal), by_hand(case, parts, pooling).astype(np.float32))


@pytest.mark.parametrize("name", ["wav2vec2", "whisper", "audio-spectrogram-transformer"])
def test_windows_may_be_asked_for(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    options = EncoderOptions("mean_std" if name == "wav2vec2" else "mean", window_seconds=1, hop_seconds=0.5)
    encoder = case.run_with(options)
    signal = tone(2.2)
    cut = [(0, 16_000), (8_000, 8_000), (16_000, 8_000), (19_200, 3_200)]
    parts = [(signal[start : start + 16_000], new) for start, new in cut]
    assert_close(encoded(encoder, signal), by_hand(case, parts, options.pooling).astype(np.float32))
    key = encoder.preparer.batch_key(signal)
    assert isinstance(key, Alone)
    assert key.windows == 4


def test_mean_and_deviation_of_windows_that_do_not_overlap_are_those_of_all_tokens(cases: dict[str, Case]) -> None:
    case, signal = cases["whisper"], tone(9)
    with torch.inference_mode():
        layers = [case.plain(signal[start : start + 48_000]) for start in (0, 48_000, 96_000)]
    tokens_LND = np.stack([torch.cat(parts).double().numpy() for parts in zip(*layers, strict=True)])
    expected = np.concatenate([tokens_LND.mean(1), tokens_LND.std(1)], axis=1)
    assert_close(encoded(case.run_with(EncoderOptions("mean_std")), signal), expected.astype(np.float32))


@pytest.mark.parametrize(
    ("name", "samples"), [("whisper", 48_000), ("audio-spectrogram-transformer", 22_799), ("wav2vec2", 80_000)]
)
def test_a_clip_that_fits_one_window_is_what_it_was(cases: dict[str, Case], name: str, samples: int) -> None:
    """Of AST's 22 799 samples the last 159 make no frame: it is one window."""
    case, signal = cases[name], tone(5)[:samples]
    windowed = case.run_with(EncoderOptions(window_seconds=samples / SAMPLE_RATE_HZ)) if name == "wav2vec2" else None
    for encoder in filter(None, (case.encoder, windowed)):
        assert not isinstance(encoder.preparer.batch_key(signal), Alone)
        np.testing.assert_array_equal(encoded(encoder, signal), encoded(case.encoder, signal))
        assert_close(encoded(encoder, signal), case.expected(signal).astype(np.float32))
        if name != "wav2vec2" or encoder is windowed:
            assert isinstance(encoder.preparer.batch_key(np.append(signal, signal[:1])), Alone)


def test_a_long_clip_shares_no_batch(cases: dict[str, Case]) -> None:
    encoder, signal = cases["whisper"].encoder, tone(4)
    assert encoder.preparer.batch_key(signal) != encoder.preparer.batch_key(signal)
    with pytest.raises(AssertionError, match=r"shares no batch"):
        encoder.encode([signal, signal])


def test_windows_go_through_the_network_a_few_at_a_time(
    cases: dict[str, Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them at once would take as much memory as the clip is long."""
    encoder = cases["whisper"].run_with(EncoderOptions(windows_together=2))
    seen, states = list[int](), encoder.states
    prepared = encoder.preparer.prepare([tone(15)])

    def watched(inputs: Any) -> Any:
        seen.append(len(inputs["input_features"]))
        return states(inputs)

    monkeypatch.setattr(encoder, "states", watched)
    with torch.inference_mode():
        encoder.encode_prepared(prepared)
    assert seen == [2, 2, 1]


def test_cut_windows_of_a_long_clip_are_full_ones(cases: dict[str, Case]) -> None:
    case, signal = cases["whisper"], tone(7)
    assert_close(encoded(case.run_with(EncoderOptions(window="clip")), signal), encoded(case.encoder, signal))


def test_windows_that_an_encoder_cannot_take_are_refused(cases: dict[str, Case]) -> None:
    for name, most in (("whisper", r"3"), ("audio-spectrogram-transformer", r"1\.41")):
        message = rf"window_seconds=3\.5: {name} takes {most} s of sound at a time; set window_seconds={most} or less"
        with pytest.raises(ValueError, match=message):
            check_options("audio", cases[name].model, EncoderOptions(window_seconds=3.5))
    check_options("audio", cases["whisper"].model, EncoderOptions(window_seconds=3))
    check_options("audio", cases["audio-spectrogram-transformer"].model, EncoderOptions(window_seconds=1.41))
    check_options("audio", cases["wav2vec2"].model, EncoderOptions(window_seconds=100))


# Text


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("count", [POSITIONS - 1, 57, 3 * (POSITIONS - 2)])
def test_long_texts_are_the_pool_of_plain_calls(cases: dict[str, Case], name: str, count: int) -> None:
    """They were cut without a word where the model ends."""
    case, size = cases[name], POSITIONS - 2
    words = [("kids", "dogs", "are", "talking", "by", "the", "door")[number**2 % 7] for number in range(count)]
    cut = [(span.start, span.new) for span in spans(count, size, size)]
    assert len(cut) == -(-count // size)
    parts = [(" ".join(words[start : start + size]), new) for start, new in cut]
    for pooling in case.encoder.poolings:
        row_LD = encoded(case.run_with(EncoderOptions(pooling, windows_together=2)), " ".join(words))
        assert_close(row_LD, by_hand(case, parts, pooling).astype(np.float32))


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_fits_is_whole(cases: dict[str, Case], name: str) -> None:
    case, text = cases[name], "dogs " * (POSITIONS - 2)
    assert case.encoder.preparer.batch_key(text) == POSITIONS
    assert_close(encoded(case.encoder, text), case.expected(text).astype(np.float32))


def test_a_tokenizer_may_end_before_the_model(tmp_path: Path, cases: dict[str, Case]) -> None:
    shutil.copytree(cases["bert"].model.folder, tmp_path / "bert")
    file = tmp_path / "bert/tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": 12}))
    model = find_model(str(tmp_path / "bert"))
    encoder = encoder_class("text", model)(model, CPU)
    assert encoder.preparer.batch_key("dogs " * 10) == 12
    assert isinstance(encoder.preparer.batch_key("dogs " * 11), Alone)
    assert encoder.preparer.inputs(["dogs " * 50])["input_ids"].shape == (1, 12)


# The real one


@needs_audio
@needs_whisper
def test_seventy_seconds_of_speech_by_the_real_whisper_encoder() -> None:
    clips = sorted((SHARED / "ravdess/audio/Actor_01").glob("*.flac"))[:20]
    signal = np.concatenate([soundfile.read(clip, dtype="float32")[0] for clip in clips])[: 70 * SAMPLE_RATE_HZ]
    assert len(signal) == 70 * SAMPLE_RATE_HZ
    case = case_of("audio", SHARED / "models/whisper-tiny.en-encoder", [signal])
    seconds = [(0, 30), (30, 30), (40, 10)]
    parts = [(signal[start * 16_000 : (start + 30) * 16_000], new) for start, new in seconds]
    assert_close(encoded(case.encoder, signal), by_hand(case, parts, "mean").astype(np.float32))
