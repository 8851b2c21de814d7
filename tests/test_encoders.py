"""A row is what the plain transformers call gives for that one clip, whoever shares its batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.media_store import SAMPLE_RATE_HZ
from extract.encoders import ENCODERS, NetworkEncoder, encoder_class, load_network, mean_over_tokens, rank_device
from extract.models import Model, find_model
from tests.shared_inputs import SHARED, needs_audio, needs_whisper
from tests.tiny_corpus import pictures, tone, write_tiny_encoders

Array = npt.NDArray[Any]
CPU = torch.device("cpu")
TEXTS = ["Kids are talking by the door", "Dogs", "Dogs are sitting by the door", "a", "Kids are talking by the door!"]
SOUNDS = [tone(seconds, seed=n) for n, seconds in enumerate((0.7, 0.5, 0.7, 0.4, 0.5, 0.026, 1.3))]
MOVIES = [pictures(16, 32, 32, seed=seed) for seed in range(5)]


@dataclass(frozen=True)
class Case:
    """An encoder, the clips it is tried on, and the plain call on one of them: hidden states, (1, N, D) each."""

    encoder: NetworkEncoder
    model: Model
    signals: Sequence[Any]
    plain: Callable[[Any], Sequence[torch.Tensor]]

    def expected(self, signal: Any) -> Array:
        """(layers, width)."""
        with torch.inference_mode():
            return np.stack([state[0].mean(0).numpy() for state in self.plain(signal)])

    @cached_property
    def every(self) -> list[Array]:
        """What is expected of each clip."""
        return [self.expected(signal) for signal in self.signals]

    def rows(self, numbers: Sequence[int]) -> Array:
        """Encode these clips in one batch."""
        with torch.inference_mode():
            return self.encoder.encode([self.signals[number] for number in numbers])


def assert_close(actual: Array, expected: Array) -> None:
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    assert (np.abs(actual - expected) <= 1e-5 * np.maximum(1, np.abs(expected))).all()


def wav2vec2_case(folder: Path) -> Case:
    from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Model

    model, network = find_model(str(folder)), Wav2Vec2Model.from_pretrained(folder, dtype=torch.float32).eval()
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder)

    def plain(waveform_T: Array) -> Sequence[torch.Tensor]:
        inputs = extractor(waveform_T, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        states: Sequence[torch.Tensor] = network(**inputs, output_hidden_states=True).hidden_states
        return states

    return Case(encoder_class("audio", model)(model, CPU), model, SOUNDS, plain)


def whisper_case(folder: Path, sounds: Sequence[Array] = SOUNDS) -> Case:
    from transformers import WhisperFeatureExtractor, WhisperModel

    model = find_model(str(folder))
    network = WhisperModel.from_pretrained(folder, dtype=torch.float32).get_encoder().eval()
    extractor = WhisperFeatureExtractor.from_pretrained(folder)

    def plain(waveform_T: Array) -> Sequence[torch.Tensor]:
        inputs = extractor(waveform_T, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        own = -(-len(waveform_T) // 320)
        return [state[:, :own] for state in network(inputs.input_features, output_hidden_states=True).hidden_states]

    return Case(encoder_class("audio", model)(model, CPU), model, sounds, plain)


def videomae_case(folder: Path) -> Case:
    from transformers import AutoImageProcessor, VideoMAEModel

    model, network = find_model(str(folder)), VideoMAEModel.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")

    def plain(frames_THWC: Array) -> Sequence[torch.Tensor]:
        pixels = processor(list(frames_THWC), return_tensors="pt").pixel_values
        pixels = pixels if pixels.ndim == 5 else pixels[None]
        states: Sequence[torch.Tensor] = network(pixels, output_hidden_states=True).hidden_states
        return states

    return Case(encoder_class("video", model)(model, CPU), model, MOVIES, plain)


def text_case(folder: Path) -> Case:
    from transformers import AutoModel, AutoTokenizer

    model, network = find_model(str(folder)), AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def plain(text: str) -> Sequence[torch.Tensor]:
        inputs = tokenizer(text, return_tensors="pt")
        states: Sequence[torch.Tensor] = network(**inputs, output_hidden_states=True).hidden_states
        return states

    return Case(encoder_class("text", model)(model, CPU), model, TEXTS, plain)


def write_whisper(folder: Path) -> Path:
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    """Random and small, with a window of 3 s."""
    sizes = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "num_mel_bins": 8, "vocab_size": 20}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    tokens = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1)
    torch.manual_seed(0)
    WhisperModel(WhisperConfig(max_source_positions=150, **sizes, **heads, **tokens)).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=8, chunk_length=3).save_pretrained(folder)
    return folder


def write_bert(folder: Path, kind: str) -> Path:
    """BERT or DistilBERT with a vocabulary of letters."""
    from transformers import BertConfig, BertModel, BertTokenizerFast, DistilBertConfig, DistilBertModel

    folder.mkdir()
    letters = [f"{prefix}{letter}" for prefix in ("", "##") for letter in "abcdefghijklmnopqrstuvwxyz!"]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "kids", "dogs", "door", *letters]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    if kind == "bert":
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
    else:
        small = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
        DistilBertModel(DistilBertConfig(vocab_size=len(words), **small)).save_pretrained(folder)
    return folder


NAMES = ["wav2vec2", "whisper", "videomae", "roberta", "bert", "distilbert"]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    folder = tmp_path_factory.mktemp("encoders")
    tiny = write_tiny_encoders(folder)
    return {
        "wav2vec2": wav2vec2_case(tiny["audio"]),
        "whisper": whisper_case(write_whisper(folder / "whisper")),
        "videomae": videomae_case(tiny["video"]),
        "roberta": text_case(tiny["text"]),
        "bert": text_case(write_bert(folder / "bert", "bert")),
        "distilbert": text_case(write_bert(folder / "distilbert", "distilbert")),
    }


def test_every_model_type_is_tested_here() -> None:
    assert {name for kinds in ENCODERS.values() for name in kinds} == set(NAMES)


def batches(case: Case, order: Sequence[int], size: int) -> list[list[int]]:
    """Clips of equal key, `size` at a time, in the order in which they come."""
    waiting: dict[Any, list[list[int]]] = {}
    for number in order:
        groups = waiting.setdefault(case.encoder.batch_key(case.signals[number]), [[]])
        if len(groups[-1]) == size:
            groups.append([])
        groups[-1].append(number)
    return [group for groups in waiting.values() for group in groups]


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_alone_is_the_plain_call(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    for number, expected in enumerate(case.every):
        assert expected.shape == (case.model.layers, case.model.width)
        assert_close(case.rows([number])[0], expected)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_clip_in_any_batch_is_the_plain_call(cases: dict[str, Case], name: str, data: st.DataObject) -> None:
    """Longer and shorter clips beside it, in any order, in batches of any size."""
    case = cases[name]
    order = data.draw(st.permutations(range(len(case.signals))))
    order += data.draw(st.lists(st.integers(0, len(case.signals) - 1), max_size=3))
    for batch in batches(case, order, data.draw(st.integers(1, 5))):
        for number, row_LD in zip(batch, case.rows(batch), strict=True):
            assert_close(row_LD, case.every[number])


@pytest.mark.parametrize("name", NAMES)
def test_layers_are_those_of_transformers_in_order(cases: dict[str, Case], name: str) -> None:
    """Layer 0 is the embedding output; no two layers are alike, so that a shift would show."""
    case = cases[name]
    row_LD = case.rows([0])[0]
    states = case.plain(case.signals[0])
    assert len(row_LD) == len(states) == case.model.layers == len(case.encoder.blocks) + 1
    for layer, state in enumerate(states):
        distances = np.abs(row_LD - state[0].mean(0).detach().numpy()).max(axis=1)
        assert distances.argmin() == layer
        assert sorted(distances)[1] > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_networks_are_frozen_float32_and_in_evaluation_mode(cases: dict[str, Case], name: str) -> None:
    network = cases[name].encoder.network
    assert not network.training
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_sounds_that_cannot_be_encoded_say_so(cases: dict[str, Case]) -> None:
    wav2vec2, whisper = cases["wav2vec2"].encoder, cases["whisper"].encoder
    assert wav2vec2.batch_key(tone(1.0)[:400]) == 400
    with pytest.raises(ValueError, match=r"399 samples of sound; the encoder needs 400"):
        wav2vec2.batch_key(tone(1.0)[:399])
    whisper.batch_key(np.zeros(48_000, np.float32))
    for count in (0, 48_001):
        with pytest.raises(ValueError, match=r"s of sound; the window takes up to 3 s"):
            whisper.batch_key(np.zeros(count, np.float32))


def test_the_shortest_sounds_are_the_plain_call(cases: dict[str, Case]) -> None:
    for name, count in (("wav2vec2", 400), ("whisper", 1), ("whisper", 321)):
        signal = tone(1.0)[:count]
        assert_close(cases[name].encoder.encode([signal])[0], cases[name].expected(signal))


@pytest.mark.parametrize("name", ["roberta", "bert", "distilbert"])
def test_long_texts_are_cut_where_the_model_ends(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    longest = case.encoder.batch_key("dogs " * 5000)
    assert longest == case.encoder.longest  # type: ignore[attr-defined]
    assert case.encoder.encode(["dogs " * 5000]).shape == (1, case.model.layers, case.model.width)


@pytest.mark.parametrize("name", ["roberta", "bert", "distilbert"])
def test_padded_texts_are_the_plain_call_too(cases: dict[str, Case], name: str) -> None:
    """Fine-tuning pads; stage one never does."""
    case = cases[name]
    for row_LD, text in zip(case.rows(range(len(TEXTS))), TEXTS, strict=True):
        assert_close(row_LD, case.expected(text))


def test_masked_mean_is_the_mean_of_what_is_not_masked() -> None:
    state_BND = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    mean_BLD = mean_over_tokens([state_BND, 2 * state_BND], torch.tensor([[1, 1, 0], [1, 1, 1]]))
    torch.testing.assert_close(mean_BLD[0, 0], state_BND[0, :2].mean(0))
    torch.testing.assert_close(mean_BLD[1, 1], 2 * state_BND[1].mean(0))


# Loading


def test_an_unknown_model_type_names_the_known_ones(cases: dict[str, Case]) -> None:
    with pytest.raises(ValueError, match=r"encoders\.video: model type 'wav2vec2' is not supported; supported: video"):
        encoder_class("video", cases["wav2vec2"].model)


def test_half_precision_checkpoints_are_computed_in_float32(tmp_path: Path, cases: dict[str, Case]) -> None:
    from transformers import VideoMAEModel

    VideoMAEModel.from_pretrained(cases["videomae"].model.folder).half().save_pretrained(tmp_path / "half")
    network = load_network(find_model(str(tmp_path / "half")), CPU)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path: Path, cases: dict[str, Case]) -> None:
    """transformers would fill the hole with random numbers and a warning."""
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "videomae"
    shutil.copytree(cases["videomae"].model.folder, folder)
    weights = load_file(folder / "model.safetensors")
    lost = "encoder.layer.0.output.dense.weight"
    save_file({name: value for name, value in weights.items() if name != lost}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=rf"the checkpoint lacks 1 weights of the model, first {lost}"):
        load_network(find_model(str(folder)), CPU)


def test_another_sample_rate_is_refused(tmp_path: Path, cases: dict[str, Case]) -> None:
    import shutil

    folder = tmp_path / "wav2vec2"
    shutil.copytree(cases["wav2vec2"].model.folder, folder)
    settings_file = folder / "preprocessor_config.json"
    settings_file.write_text(settings_file.read_text().replace("16000", "8000"))
    model = find_model(str(folder))
    with pytest.raises(ValueError, match=r"wav2vec2 wants 8000 Hz; the media store keeps 16000 Hz"):
        encoder_class("audio", model)(model, CPU)


def test_attention_biases_of_the_checkpoint_are_in_the_model(tmp_path: Path, cases: dict[str, Case]) -> None:
    """transformers 5.0 to 5.17 loaded VideoMAE's q_bias and v_bias as zeros, without an error."""
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "videomae"
    shutil.copytree(cases["videomae"].model.folder, folder)
    weights = load_file(folder / "model.safetensors")
    published = {name: torch.randn(value.shape) for name, value in weights.items() if name.endswith("q_bias")}
    assert published
    save_file({**weights, **published}, folder / "model.safetensors")
    loaded = load_network(find_model(str(folder)), CPU).state_dict()
    for name, value in published.items():
        torch.testing.assert_close(loaded[name.replace("q_bias", "query.bias")], value, rtol=0, atol=0)


def test_the_device_is_the_cpu_or_this_ranks_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert rank_device() == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert rank_device() == torch.device("cuda", 1)


# The real one


@needs_audio
@needs_whisper
def test_the_real_whisper_encoder_is_the_plain_call() -> None:
    clips = ["Actor_01/03-01-01-01-01-01-01.flac", "Actor_20/03-01-02-02-02-02-20.flac"]
    sounds = [soundfile.read(SHARED / "ravdess/audio" / clip, dtype="float32")[0] for clip in clips]
    case = whisper_case(SHARED / "models/whisper-tiny.en-encoder", sounds)
    assert (case.model.layers, case.model.width, case.model.random_weights) == (5, 384, False)
    expected = [case.expected(sound) for sound in sounds]
    for order in ([0, 1], [1, 0]):
        for number, row_LD in zip(order, case.rows(order), strict=True):
            assert_close(row_LD, expected[number])
    assert_close(case.rows([1])[0], expected[1])
