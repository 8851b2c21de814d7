"""A row is what the plain transformers call gives for that one clip, whoever shares its batch."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.media import SAMPLE_RATE_HZ
from extract.encoders.base import NetworkEncoder, compute_dtype
from extract.encoders.catalogue import ENCODERS, check_options, encoder_class
from extract.encoders.deviation import deviation
from extract.encoders.loading import rank_device
from extract.encoders.models import Model, find_model
from extract.encoders.options import EncoderOptions
from tests.tiny.corpus import pictures, tone
from tests.tiny.encoders import WRITERS, write_encoders
from tests.tiny.pickled import sent
from tests.tiny.places import SHARED, needs_audio, needs_whisper

Array = npt.NDArray[Any]
States = Sequence[torch.Tensor]
CPU = torch.device("cpu")
TEXTS = ["Kids are talking by the door", "Dogs", "Dogs are sitting by the door", "a", "the door!"]
SOUNDS = [tone(seconds, seed=n) for n, seconds in enumerate((0.7, 0.5, 0.7, 0.4, 0.5, 0.026, 1.3))]
MODALITY = {name: modality for name, (modality, _) in WRITERS.items()}
MODALITY |= {f"random {modality}": modality for modality in ("audio", "video", "text")}
NAMES = list(MODALITY)
TEXT_NAMES = [name for name in NAMES if MODALITY[name] == "text"]
WAVEFORM_NAMES = ["wav2vec2", "wav2vec2 with layer norm", "hubert", "wavlm", "data2vec-audio"]
IMAGE_TYPES = ("clip", "clip_vision_model", "dinov2", "vit")


@dataclass(frozen=True)
class Case:
    """An encoder and the clips it is tried on; `plain` gives one clip's own tokens, (N, D) or (T, N, D) a layer."""

    modality: str
    model: Model
    signals: Sequence[Any]
    plain: Callable[[Any], States]

    @cached_property
    def encoder(self) -> NetworkEncoder:
        return self.run_with(EncoderOptions())

    @cached_property
    def every(self) -> list[Array]:
        """What is expected of each clip."""
        return [self.expected(signal) for signal in self.signals]

    def run_with(self, options: EncoderOptions) -> NetworkEncoder:
        return encoder_class(self.modality, self.model)(self.model, CPU, options)

    def expected(self, signal: Any, pooling: str = "mean") -> Array:
        """(layers, width) or (layers, 2 width)."""
        with torch.inference_mode():
            return np.stack([pooled(state.double().numpy(), pooling) for state in self.plain(signal)])

    def rows(self, numbers: Sequence[int]) -> Array:
        """Encode these clips in one batch."""
        with torch.inference_mode():
            return self.encoder.encode([self.signals[number] for number in numbers])


def pooled(state: Array, pooling: str) -> Array:
    tokens_ND = state.reshape(-1, state.shape[-1])
    mean_D = tokens_ND.mean(0)
    rows: dict[str, Array] = {
        "mean": mean_D,
        "mean_std": np.concatenate([mean_D, np.sqrt(((tokens_ND - mean_D) ** 2).mean(0))]),
        "last": tokens_ND[-1],
        "cls": state.reshape(-1, *state.shape[-2:])[:, 0].mean(0),
    }
    return rows[pooling]


def assert_close(actual: Array, expected: Array) -> None:
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    assert (np.abs(actual - expected) <= 1e-5 * np.maximum(1, np.abs(expected))).all()


# The plain calls: transformers alone, with the model's own processor


def plain_sound(folder: Path, model_type: str) -> Callable[[Array], States]:
    network = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)

    def plain(waveform_T: Array) -> States:
        inputs = extractor(waveform_T, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        if model_type == "whisper":
            own = -(-len(waveform_T) // 320)
            states = network.get_encoder()(inputs.input_features, output_hidden_states=True).hidden_states
            return [state[0, :own] for state in states]
        return [state[0] for state in network(**inputs, output_hidden_states=True).hidden_states]

    return plain


def plain_picture(folder: Path, model_type: str) -> Callable[[Array], States]:
    network = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    network = network.vision_model if model_type == "clip" else network
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    # These two would first enlarge pictures that are of the right size already.
    off = {"do_resize": False, "do_center_crop": False} if model_type in ("dinov2", "vivit") else {}

    def plain(frames_THWC: Array) -> States:
        if model_type not in IMAGE_TYPES:
            pixels = processor(list(frames_THWC), return_tensors="pt", **off).pixel_values
            pixels = pixels if pixels.ndim == 5 else pixels[None]
            return [state[0] for state in network(pixels, output_hidden_states=True).hidden_states]
        frames = [processor(frame_HWC, return_tensors="pt", **off).pixel_values for frame_HWC in frames_THWC]
        states = [network(frame, output_hidden_states=True).hidden_states for frame in frames]
        return [torch.cat(layer) for layer in zip(*states, strict=True)]

    return plain


def plain_text(folder: Path, _: str) -> Callable[[str], States]:
    network = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def plain(text: str) -> States:
        inputs = tokenizer(text, return_tensors="pt")
        return [state[0] for state in network(**inputs, output_hidden_states=True).hidden_states]

    return plain


PLAIN: dict[str, Callable[[Path, str], Callable[[Any], States]]] = {
    "audio": plain_sound,
    "video": plain_picture,
    "text": plain_text,
}


def case_of(modality: str, folder: Path, signals: Sequence[Any] | None = None) -> Case:
    model = find_model(str(folder))
    movies = [pictures(model.frames or 3, 32, 32, seed=seed) for seed in range(4)]
    own: dict[str, Sequence[Any]] = {"audio": SOUNDS, "text": TEXTS, "video": movies}
    return Case(modality, model, signals or own[modality], PLAIN[modality](folder, model.model_type))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    folders = write_encoders(tmp_path_factory.mktemp("encoders"))
    return {name: case_of(MODALITY[name], folder) for name, folder in folders.items()}


# The contract of every encoder


def test_every_model_type_is_tested_here(cases: dict[str, Case]) -> None:
    tried = {(case.modality, case.model.model_type) for case in cases.values()}
    assert tried == {(modality, kind) for modality, kinds in ENCODERS.items() for kind in kinds}


def batches(case: Case, order: Sequence[int], size: int) -> list[list[int]]:
    """Clips of equal key, `size` at a time, in the order in which they come."""
    waiting: dict[Any, list[list[int]]] = {}
    for number in order:
        groups = waiting.setdefault(case.encoder.preparer.batch_key(case.signals[number]), [[]])
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
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
    assert len(row_LD) == len(case.every[0]) == case.model.layers == len(case.encoder.blocks) + 1
    for layer, expected_D in enumerate(case.every[0]):
        distances = np.abs(row_LD - expected_D).max(axis=1)
        assert distances.argmin() == layer
        assert sorted(distances)[1] > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_the_blocks_are_what_computes_the_layers(cases: dict[str, Case], name: str) -> None:
    """Fine-tuning trains the last of them: each must leave the layers before it alone, and change those after."""
    case = cases[name]
    encoder = case.run_with(EncoderOptions())
    with torch.no_grad():
        for weight in encoder.blocks[-1].parameters():
            weight.mul_(1.5)
    with torch.inference_mode():
        row_LD = encoder.encode(case.signals[:1])[0]
    # ALBERT's blocks are one and the same.
    shared = len(encoder.blocks) > 1 and encoder.blocks[0] is encoder.blocks[-1]
    assert np.array_equal(row_LD[:-1], case.rows([0])[0][:-1]) is not shared
    assert not np.allclose(row_LD[-1], case.rows([0])[0][-1], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_networks_are_frozen_float32_and_in_evaluation_mode(cases: dict[str, Case], name: str) -> None:
    network = cases[name].encoder.network
    assert not network.training
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in network.parameters())


# The half that is no network


@pytest.mark.parametrize("name", NAMES)
def test_a_preparer_travels_without_the_network_and_prepares_the_same_elsewhere(
    cases: dict[str, Case], name: str
) -> None:
    """Feature extractors and tokenizers were parts of the encoder: whoever prepared clips held its weights too."""
    case = cases[name]
    preparer = case.encoder.preparer
    parcel = sent(preparer)
    assert len(parcel) < 100_000
    elsewhere = pickle.loads(parcel)
    for batch in batches(case, range(3), 3):
        signals = [case.signals[number] for number in batch]
        assert [elsewhere.batch_key(one) for one in signals] == [preparer.batch_key(one) for one in signals]
        ours, theirs = preparer.inputs(signals), elsewhere.inputs(signals)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_network_in_a_parcel_is_found(cases: dict[str, Case]) -> None:
    with pytest.raises(AssertionError, match=r"would go along"):
        sent({"anything": [cases["bert"].encoder]})


@pytest.mark.parametrize("name", ["wav2vec2", "whisper", "vit", "bert"])
def test_beside_a_gpu_prepared_tensors_are_pinned_and_are_the_same(
    cases: dict[str, Case], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of GPUs; pinning itself needs one."""
    case = cases[name]
    pinned: list[torch.Tensor] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor)
        return tensor

    preparer = type(case.encoder.preparer)(case.model)
    expected = preparer.prepare(case.signals[:1])
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    preparer.pinned = True
    prepared = preparer.prepare(case.signals[:1])
    assert isinstance(expected, dict)
    assert isinstance(prepared, dict)
    assert len(pinned) == len(prepared)
    assert all(torch.equal(prepared[key], expected[key]) for key in expected)


# Pooling and layers


@pytest.mark.parametrize("name", NAMES)
def test_every_pooling_is_that_of_the_plain_hidden_states(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    for pooling in case.encoder.poolings:
        encoder = case.run_with(EncoderOptions(pooling=pooling, layers=(0, 2) if case.model.layers > 2 else (1,)))
        for batch in batches(case, range(3), 3):
            with torch.inference_mode():
                rows_BLD = encoder.encode([case.signals[number] for number in batch])
            for number, row_LD in zip(batch, rows_BLD, strict=True):
                assert_close(row_LD, case.expected(case.signals[number], pooling)[list(encoder.layers)])


POOLINGS = {
    "wav2vec2": "mean, mean_std, last",
    "whisper": "mean, mean_std, last",
    "audio-spectrogram-transformer": "mean, mean_std, cls",
    "videomae": "mean, mean_std",
    "vivit": "mean, mean_std, cls",
    "dinov2": "mean, mean_std, cls",
    "albert": "mean, mean_std, last, cls",
}


@pytest.mark.parametrize(("name", "there"), POOLINGS.items())
def test_a_pooling_that_does_not_exist_is_refused_before_loading(
    cases: dict[str, Case], name: str, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cases[name]
    monkeypatch.setattr("extract.encoders.base.load_network", lambda *_: pytest.fail("loaded"))
    for pooling in ({"mean", "mean_std", "last", "cls"} - set(there.split(", "))) | {"max"}:
        options = EncoderOptions(pooling=pooling)
        message = rf"pooling={pooling} does not exist for {name} \(.*\); set pooling to one of {there}$"
        with pytest.raises(ValueError, match=message):
            check_options(case.modality, case.model, options)
        with pytest.raises(ValueError, match=message):
            case.run_with(options)
    for pooling in there.split(", "):
        check_options(case.modality, case.model, EncoderOptions(pooling=pooling))


@pytest.mark.parametrize("layers", [(3,), (0, 3), (-1,), ()])
def test_layers_that_do_not_exist_are_refused(cases: dict[str, Case], layers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"layers=\[.*\]: bert has layers 0 to 2$"):
        check_options("text", cases["bert"].model, EncoderOptions(layers=layers))


@pytest.mark.parametrize("name", ["wav2vec2", "whisper", "vit", "bert"])
def test_fine_tuning_gets_means_of_a_slice_of_layers_with_gradients(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    encoder = case.run_with(EncoderOptions(pooling="mean_std", layers=(1,)))
    encoder.network.requires_grad_(True)
    hidden_BLD = encoder.hidden(encoder.preparer.inputs(case.signals[:1]), slice(1, 3))
    assert_close(hidden_BLD[0].detach().numpy(), case.every[0][1:3])
    hidden_BLD[:, 0].sum().backward()  # type: ignore[no-untyped-call]
    assert any(weight.grad is not None for weight in encoder.blocks[0].parameters())
    assert all(weight.grad is None or not weight.grad.any() for weight in encoder.blocks[1].parameters())


# Half precision and other approximations


@pytest.mark.parametrize(
    ("name", "compute"), [*((name, "bfloat16") for name in NAMES), ("wav2vec2", "float16"), ("videomae", "float16")]
)
def test_half_precision_is_near_and_float32_in_the_end(cases: dict[str, Case], name: str, compute: str) -> None:
    case = cases[name]
    encoder = case.run_with(EncoderOptions(compute=compute))
    assert {weight.dtype for weight in encoder.network.parameters()} == {compute_dtype(compute, CPU)}
    measured = deviation(encoder, case.encoder, case.signals[:2])
    assert 1e-5 < measured["max"] < 0.2
    assert 0 < measured["mean"] < measured["max"]
    with torch.inference_mode():
        assert encoder.encode(case.signals[:1]).dtype == np.float32


def test_convolutions_of_gpus_do_not_round_to_tf32(cases: dict[str, Case], monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's default since Ampere: rows called exact were off by 1e-3. A setting of the process; no GPU is needed."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    cases["videomae"].run_with(EncoderOptions())
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_pooling_of_half_precision_is_in_float32(cases: dict[str, Case]) -> None:
    """A mean in bfloat16 would be rounded to three digits."""
    encoder = cases["videomae"].run_with(EncoderOptions(compute="bfloat16"))
    with torch.inference_mode():
        hidden_LD = torch.from_numpy(encoder.encode(cases["videomae"].signals[:1])[0])
    assert not torch.equal(hidden_LD, hidden_LD.bfloat16().float())


def test_a_gpu_without_bfloat16_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    with pytest.raises(ValueError, match=r"compute=bfloat16: this GPU does not have it; set compute=float16 or"):
        compute_dtype("bfloat16", torch.device("cuda"))
    assert compute_dtype("float16", torch.device("cuda")) == torch.float16


def test_a_deviation_is_relative_where_values_are_large() -> None:
    class Fixed:
        def __init__(self, *rows: list[float]) -> None:
            self.left = iter(rows)

        def encode(self, signals: Sequence[Any]) -> Array:
            return np.array([[next(self.left)]] * len(signals), np.float32)

    measured = deviation(Fixed([0.5, 110.0], [0.0, 0.0]), Fixed([0.25, 100.0], [0.0, 0.0]), ["a", "b"])  # type: ignore[arg-type]
    assert measured == {"max": 0.25, "mean": pytest.approx((0.25 + 0.1) / 4), "clips": 2}


def test_whispers_window_may_end_with_the_clip(cases: dict[str, Case]) -> None:
    case = cases["whisper"]
    cut = case.run_with(EncoderOptions(window="clip"))
    with torch.inference_mode():
        # A clip as long as the window leaves nothing to cut.
        full = tone(3.0)
        assert_close(cut.encode([full])[0], case.expected(full))
        alone = [cut.encode([sound])[0] for sound in SOUNDS]
        together = cut.encode([SOUNDS[0], SOUNDS[2]])
    assert all(row.shape == (3, 16) for row in alone)
    assert_close(together[1], alone[2])
    assert (
        cut.preparer.batch_key(SOUNDS[0])
        == cut.preparer.batch_key(SOUNDS[2])
        == 35
        != cut.preparer.batch_key(SOUNDS[1])
    )
    measured = deviation(cut, case.encoder, SOUNDS)
    assert 1e-4 < measured["max"] < 1
    assert cut.options.exact == EncoderOptions()
    assert replace(cut.options, compute="float16").exact == EncoderOptions()


def test_windows_that_end_with_their_clips_may_be_padded_in_training(cases: dict[str, Case]) -> None:
    """Encoded one after the other, a step on a GPU took as many passes as it has clips."""
    cut = cases["whisper"].run_with(EncoderOptions(window="clip"))
    assert len({cut.preparer.padded_key(sound) for sound in SOUNDS}) == 1
    inputs = cut.preparer.inputs(SOUNDS)
    assert len(set(inputs["own_B"].tolist())) > 2
    together = cut.hidden(inputs)
    for row, sound in zip(together, SOUNDS, strict=True):
        assert_close(row.detach().numpy(), cut.encode([sound])[0])
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(cut.hidden(inputs).float(), together, rtol=0.1, atol=0.1)
    waveforms = cases[WAVEFORM_NAMES[0]].encoder.preparer
    assert waveforms.padded_key(SOUNDS[0]) == waveforms.batch_key(SOUNDS[0]) != waveforms.padded_key(SOUNDS[1])


@pytest.mark.parametrize("samples", [1, 319, 320, 321, 479, 481])
def test_a_cut_window_has_exactly_the_clips_own_tokens(cases: dict[str, Case], samples: int) -> None:
    cut = cases["whisper"].run_with(EncoderOptions(window="clip"))
    inputs = cut.preparer.inputs([tone(1.0)[:samples]])
    assert cut.states(inputs)[0].shape[1] == int(inputs["own_B"][0]) == -(-samples // 320)


# Sound that cannot share a batch, or be encoded at all


@pytest.mark.parametrize("name", WAVEFORM_NAMES)
def test_sounds_of_other_lengths_share_no_batch(cases: dict[str, Case], name: str) -> None:
    encoder = cases[name].encoder
    assert encoder.preparer.batch_key(tone(1.0)) == encoder.preparer.batch_key(tone(1.0, seed=3)) == 16_000
    assert encoder.preparer.batch_key(tone(1.0)[:-1]) == 15_999


@pytest.mark.parametrize("name", WAVEFORM_NAMES)
def test_padding_changes_sound_though_config_and_mask_may_promise_otherwise(cases: dict[str, Case], name: str) -> None:
    """Why no waveform is ever padded: of the two that take a mask, one is changed by padding all the same."""
    case = cases[name]
    network, extractor = case.encoder.network, case.encoder.preparer.extractor  # type: ignore[attr-defined]
    takes_a_mask = case.model.model_type == "data2vec-audio" or network.config.feat_extract_norm == "layer"
    short, long = SOUNDS[0], SOUNDS[6]
    inputs = extractor([short, long], sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt", padding=True)
    assert ("attention_mask" in inputs) is takes_a_mask
    with torch.inference_mode():
        states = network(**inputs, output_hidden_states=True).hidden_states
    own = len(case.plain(short)[0])
    padded_LD = np.stack([state[0, :own].mean(0).numpy() for state in states])
    change = np.abs(padded_LD - case.every[0]) / np.maximum(1, np.abs(case.every[0]))
    if name == "wav2vec2 with layer norm":
        assert change.max() < 1e-5
    else:
        assert change.max() > 1e-2


def test_sounds_that_cannot_be_encoded_say_so(cases: dict[str, Case]) -> None:
    wav2vec2, whisper = cases["wav2vec2"].encoder, cases["whisper"].encoder
    spectrogram = cases["audio-spectrogram-transformer"].encoder
    for encoder in (wav2vec2, spectrogram):
        encoder.preparer.batch_key(tone(1.0)[:400])
        with pytest.raises(ValueError, match=r"399 samples of sound; the encoder needs 400"):
            encoder.preparer.batch_key(tone(1.0)[:399])
    with pytest.raises(ValueError, match=r"0 samples of sound; the encoder needs 1"):
        whisper.preparer.batch_key(np.zeros(0, np.float32))


@pytest.mark.parametrize(
    ("name", "count"),
    [("wav2vec2", 400), ("whisper", 1), ("whisper", 321), ("audio-spectrogram-transformer", 22_799)],
)
def test_the_shortest_and_longest_sounds_are_the_plain_call(cases: dict[str, Case], name: str, count: int) -> None:
    signal = tone(2.0)[:count]
    with torch.inference_mode():
        assert_close(cases[name].encoder.encode([signal])[0], cases[name].expected(signal))


@pytest.mark.parametrize("name", ["wav2vec2", "whisper", "audio-spectrogram-transformer"])
def test_another_sample_rate_is_refused(tmp_path: Path, cases: dict[str, Case], name: str) -> None:
    shutil.copytree(cases[name].model.folder, tmp_path / name)
    settings_file = tmp_path / name / "preprocessor_config.json"
    stated = json.loads(settings_file.read_text()) | {"sampling_rate": 8000}
    settings_file.write_text(json.dumps(stated))
    model = find_model(str(tmp_path / name))
    with pytest.raises(ValueError, match=rf"{name} wants 8000 Hz; the media store keeps 16000 Hz"):
        encoder_class("audio", model)(model, CPU)


# Pictures


def test_image_encoders_take_any_number_of_frames(cases: dict[str, Case]) -> None:
    for name in IMAGE_TYPES:
        case = cases[name]
        assert (case.model.frames, case.model.size) == (0, 32)
        for count in (1, 5):
            frames_THWC = pictures(count, 32, 32)
            with torch.inference_mode():
                assert_close(case.encoder.encode([frames_THWC])[0], case.expected(frames_THWC))


def test_a_folder_without_an_image_processor_says_so(tmp_path: Path, cases: dict[str, Case]) -> None:
    shutil.copytree(cases["vit"].model.folder, tmp_path / "vit")
    (tmp_path / "vit/preprocessor_config.json").unlink()
    model = find_model(str(tmp_path / "vit"))
    with pytest.raises(ValueError, match=r"vit: no image processor; add its preprocessor_config\.json"):
        encoder_class("video", model)(model, CPU)


# Text


@pytest.mark.parametrize(
    ("name", "side"), [*((name, "right") for name in TEXT_NAMES), ("roberta", "left"), ("deberta-v2", "left")]
)
def test_padded_texts_are_the_plain_call_too(cases: dict[str, Case], name: str, side: str) -> None:
    """Fine-tuning pads; stage one never does. These two place tokens wherever the padding is."""
    case = cases[name]
    for pooling in case.encoder.poolings:
        encoder = case.run_with(EncoderOptions(pooling=pooling))
        encoder.preparer.tokenizer.padding_side = side  # type: ignore[attr-defined]
        with torch.inference_mode():
            rows_BLD = encoder.encode(TEXTS)
        for row_LD, text in zip(rows_BLD, TEXTS, strict=True):
            assert_close(row_LD, case.expected(text, pooling))


# What is not supported, and where it runs


def test_an_unknown_model_type_names_the_known_ones(cases: dict[str, Case]) -> None:
    model = cases["wav2vec2"].model
    for refuse in (encoder_class, check_options):
        with pytest.raises(ValueError, match=r"encoders\.video: model type 'wav2vec2' is not supported; supported: vi"):
            refuse("video", model)


def test_the_device_is_the_cpu_or_this_ranks_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert rank_device() == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert rank_device() == torch.device("cuda", 1)


# The real one, and true sizes


@needs_audio
@needs_whisper
def test_the_real_whisper_encoder_is_the_plain_call() -> None:
    clips = ["Actor_01/03-01-01-01-01-01-01.flac", "Actor_20/03-01-02-02-02-02-20.flac"]
    sounds = [soundfile.read(SHARED / "ravdess/audio" / clip, dtype="float32")[0] for clip in clips]
    case = case_of("audio", SHARED / "models/whisper-tiny.en-encoder", sounds)
    assert (case.model.layers, case.model.width, case.model.random_weights) == (5, 384, False)
    for batch in ([1, 0], [1]):
        for number, row_LD in zip(batch, case.rows(batch), strict=True):
            assert_close(row_LD, case.every[number])
    measured = deviation(case.run_with(EncoderOptions(window="clip")), case.encoder, sounds[:1])
    assert 1e-3 < measured["mean"] < 0.2


TRUE_SIZES = {
    "wav2vec2-base-960h": ("audio", "Wav2Vec2ForCTC", tone(3.5)),
    "videomae-base": ("video", "VideoMAEForPreTraining", pictures(16, 224, 224)),
    "distilroberta-base": ("text", "RobertaForMaskedLM", "Kids are talking by the door"),
}


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "models/videomae-base").is_dir(), reason="no configurations in $SHARED")
@pytest.mark.parametrize("name", TRUE_SIZES)
def test_encoders_of_true_size_are_the_plain_call(tmp_path: Path, name: str) -> None:
    modality, kind, signal = TRUE_SIZES[name]
    folder = tmp_path / name
    shutil.copytree(SHARED / "models" / name, folder)
    torch.manual_seed(0)
    getattr(transformers, kind)(transformers.AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    case = case_of(modality, folder, [signal])
    assert (case.model.layers, case.model.width) == (7 if modality == "text" else 13, 768)
    assert_close(case.rows([0])[0], case.every[0])
