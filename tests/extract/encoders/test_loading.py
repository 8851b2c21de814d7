"""What the checkpoint holds is in the model, or loading ends with the names of what is not."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from extract.encoders.loading import is_unused, load_network, lost_weights
from extract.encoders.models import find_model
from tests.tiny.encoders import WRITERS, write_encoders
from tests.tiny.places import SHARED, needs_whisper

Weights = dict[str, torch.Tensor]
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_encoders(tmp_path_factory.mktemp("encoders"))


def copy_of(folder: Path, to: Path, change: Callable[[Weights], Weights] = dict) -> Path:
    """The same model with other weights in its file."""
    shutil.copytree(folder, to)
    weights = change(load_file(to / WEIGHTS))
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, to / WEIGHTS)
    return to


def load(folder: Path) -> Any:
    return load_network(find_model(str(folder)))


def break_loading(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Any], None]) -> None:
    """A transformers that loads, says nothing, and returns something else."""
    right = transformers.AutoModel.from_pretrained

    def wrong(*arguments: Any, **settings: Any) -> Any:
        network, info = right(*arguments, **settings)
        spoil(network)
        return network, info

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", wrong)


# What must pass


@pytest.mark.parametrize("name", WRITERS)
def test_every_type_loads_and_each_of_its_weights_is_watched(folders: dict[str, Path], name: str) -> None:
    network = load(folders[name])
    assert lost_weights(folders[name], network) == []
    blocks = [key for key, _ in network.named_parameters() if "layer" in key and not is_unused(key)]
    for key in (blocks[0], blocks[len(blocks) // 2], blocks[-1]):
        with torch.no_grad():
            weight = network.get_parameter(key)
            kept = weight.clone()
            weight.view(-1)[-1] += 1e-3
        lost = lost_weights(folders[name], network)
        assert len(lost) == 1, key
        # Masks and text halves are nobody's business; names differ by renames, but the tensor is this one.
        assert load_file(folders[name] / WEIGHTS)[lost[0]].shape == weight.shape
        with torch.no_grad():
            weight.copy_(kept)


def test_the_names_of_published_files_are_understood(tmp_path: Path, folders: dict[str, Path]) -> None:
    """Prefixes, heads, counters, weight_g, gamma: what older files call things."""
    renames = [("parametrizations.weight.original0", "weight_g"), ("parametrizations.weight.original1", "weight_v")]

    def old_wav2vec2(weights: Weights) -> Weights:
        for new, old in renames:
            weights = {name.replace(new, old): tensor for name, tensor in weights.items()}
        heads = {"lm_head.weight": torch.ones(12, 16), "dropout_counter": torch.ones(1)}
        return {f"wav2vec2.{name}": tensor for name, tensor in weights.items()} | heads

    def old_bert(weights: Weights) -> Weights:
        for new, old in (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")):
            weights = {name.replace(new, old): tensor for name, tensor in weights.items()}
        others = {"bert.embeddings.position_ids": torch.arange(40)[None], "cls.predictions.bias": torch.ones(14)}
        return {f"bert.{name}": tensor for name, tensor in weights.items()} | others

    def old_clip(weights: Weights) -> Weights:
        bare = {name.removeprefix("vision_model."): tensor for name, tensor in weights.items()}
        return {f"vision_model.{name}": tensor for name, tensor in bare.items()}

    for name, old in (("wav2vec2", old_wav2vec2), ("bert", old_bert), ("clip_vision_model", old_clip)):
        folder = copy_of(folders[name], tmp_path / name, old)
        new, was = load(folder).state_dict(), load(folders[name]).state_dict()
        assert new.keys() == was.keys()
        for key, tensor in was.items():
            assert "pooler" in key or torch.equal(new[key], tensor), key


def test_files_in_several_parts_and_old_formats_load(tmp_path: Path, folders: dict[str, Path]) -> None:
    weights = load_file(folders["bert"] / WEIGHTS)
    names = sorted(weights)
    for kind, write in (("bin", torch.save), ("safetensors", save_file)):
        whole, parts = tmp_path / f"whole.{kind}", tmp_path / f"parts.{kind}"
        for folder in (whole, parts):
            shutil.copytree(folders["bert"], folder)
            (folder / WEIGHTS).unlink()
        stem = "pytorch_model" if kind == "bin" else "model"
        write(weights, whole / f"{stem}.{kind}")
        files = [f"{stem}-0000{part}-of-00002.{kind}" for part in (1, 2)]
        weight_map = {name: files[number % 2] for number, name in enumerate(names)}
        for file in files:
            write({name: weights[name] for name in names if weight_map[name] == file}, parts / file)
        index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
        (parts / f"{stem}.{kind}.index.json").write_text(json.dumps(index))
        for folder in (whole, parts):
            network = load(folder)
            with torch.no_grad():
                network.encoder.layer[1].output.dense.bias.zero_()
            assert lost_weights(folder, network) == ["encoder.layer.1.output.dense.bias"]


def test_half_precision_checkpoints_are_computed_in_float32(tmp_path: Path, folders: dict[str, Path]) -> None:
    folder = copy_of(folders["videomae"], tmp_path / "half", lambda old: {name: old[name].half() for name in old})
    network = load(folder)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


# What must not pass


def test_attention_biases_of_the_checkpoint_are_in_the_model(folders: dict[str, Path]) -> None:
    """Files keep VideoMAE's under the names q_bias and v_bias."""
    published = {name: value for name, value in load_file(folders["videomae"] / WEIGHTS).items() if "q_bias" in name}
    assert len(published) == 2
    loaded = load(folders["videomae"]).state_dict()
    for name, value in published.items():
        assert value.any()
        torch.testing.assert_close(loaded[name.replace("q_bias", "query.bias")], value, rtol=0, atol=0)


def test_attention_biases_that_are_dropped_are_missed(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers 5.0 to 5.17 loaded VideoMAE's q_bias and v_bias as zeros, without an error."""

    def drop(network: Any) -> None:
        for layer in network.encoder.layer:
            layer.attention.attention.query.bias.data.zero_()

    break_loading(monkeypatch, drop)
    names = ", ".join(f"encoder.layer.{layer}.attention.attention.q_bias" for layer in (0, 1))
    with pytest.raises(ValueError, match=rf"2 weights of the checkpoint are not in the loaded model: {names}; this"):
        load(folders["videomae"])


def test_one_wrong_value_is_enough_and_many_names_are_counted(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nudge(network: Any) -> None:
        network.layers[1].mlp.fc1.weight.data[3, 5] *= 1.001

    with monkeypatch.context() as patched:
        break_loading(patched, nudge)
        with pytest.raises(ValueError, match=r"vit: 1 weights of the checkpoint are not in the loaded model: \S*layer"):
            load(folders["vit"])

    def double(network: Any) -> None:
        for weight in network.parameters():
            weight.data.mul_(2)

    break_loading(monkeypatch, double)
    with pytest.raises(ValueError, match=r": (\S+, ){5}\S+ and \d+ more; this version of transformers drops them"):
        load(folders["vit"])


def test_tensors_that_trade_places_are_missed(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are in the model, but not where they belong: a name that fits must hold its own values."""

    def swap(network: Any) -> None:
        first, second = (layer.output.dense.weight.data for layer in network.encoder.layer)
        kept = first.clone()
        first.copy_(second)
        second.copy_(kept)

    break_loading(monkeypatch, swap)
    with pytest.raises(ValueError, match=r"2 weights of the checkpoint are not in the loaded model"):
        load(folders["bert"])


def test_a_zero_cannot_stand_in_for_another(tmp_path: Path, folders: dict[str, Path]) -> None:
    """Twenty vectors of zeros in the file need twenty in the model."""
    folder = copy_of(
        folders["bert"],
        tmp_path / "bert",
        lambda old: {name: 0 * value if value.ndim == 1 else value for name, value in old.items()},
    )
    network = load(folder)
    with torch.no_grad():
        network.encoder.layer[0].output.dense.bias.fill_(1)
    assert lost_weights(folder, network) == ["encoder.layer.0.output.dense.bias"]


def test_a_tensor_that_nothing_takes_is_refused_within_the_network_and_taken_for_a_head_outside(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    extra = {"encoder.layer.0.gate": torch.ones(16)}
    bare = copy_of(folders["bert"], tmp_path / "bare", lambda old: old | extra)
    with pytest.raises(
        ValueError, match=r"1 weights of the checkpoint are not in the loaded model: encoder\.layer\.0\.g"
    ):
        load(bare)

    def below(old: Weights, name: str) -> Weights:
        return {f"bert.{key}": value for key, value in old.items()} | {name: torch.ones(16)}

    load(copy_of(folders["bert"], tmp_path / "head", lambda old: below(old, "emotions.out.weight")))
    with pytest.raises(ValueError, match=r"are not in the loaded model: bert\.encoder\.gate; this version"):
        load(copy_of(folders["bert"], tmp_path / "within", lambda old: below(old, "bert.encoder.gate")))


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path: Path, folders: dict[str, Path]) -> None:
    """transformers would fill the hole with random numbers and a warning."""
    lost = "encoder.layer.0.output.dense.weight"
    folder = copy_of(
        folders["videomae"], tmp_path / "videomae", lambda old: {key: old[key] for key in old if key != lost}
    )
    with pytest.raises(ValueError, match=rf"the checkpoint lacks 1 weights of the model, first {lost}$"):
        load(folder)


def test_damaged_and_mismatched_files_are_one_line(tmp_path: Path, folders: dict[str, Path]) -> None:
    def refusal(folder: Path) -> str:
        with pytest.raises(ValueError, match=r"transformers cannot load this model \(") as error:
            load(folder)
        assert "\n" not in str(error.value)
        return str(error.value)

    other = copy_of(folders["bert"], tmp_path / "other")
    stated = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(stated | {"intermediate_size": 64}))
    assert str(other) in refusal(other)
    cut = copy_of(folders["bert"], tmp_path / "cut")
    (cut / WEIGHTS).write_bytes((cut / WEIGHTS).read_bytes()[:1000])
    assert "Safetensor" in refusal(cut)


# The real ones


@needs_whisper
def test_the_real_whisper_encoder_is_whole() -> None:
    network = load(SHARED / "models/whisper-tiny.en-encoder")
    assert sum(weight.numel() for weight in network.parameters()) > 8_000_000


TRUE = {
    "wav2vec2-base-960h": "Wav2Vec2ForCTC",
    "videomae-base": "VideoMAEForPreTraining",
    "distilroberta-base": "RobertaForMaskedLM",
}


def write_true(folder: Path, name: str, **changes: Any) -> Path:
    """The published architecture, head and all, with random weights."""
    shutil.copytree(SHARED / "models" / name, folder)
    torch.manual_seed(0)
    model = getattr(transformers, TRUE[name])(transformers.AutoConfig.from_pretrained(folder, **changes))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01)
    model.save_pretrained(folder)
    return folder


needs_configurations = pytest.mark.skipif(
    not (SHARED / "models/videomae-base").is_dir(), reason="no configurations in $SHARED"
)


@needs_configurations
@pytest.mark.parametrize("name", TRUE)
def test_published_architectures_with_their_heads_load(tmp_path: Path, name: str) -> None:
    # One block, few frames and words: their number is nothing that loading depends on.
    small = {
        "videomae-base": {"decoder_num_hidden_layers": 1, "num_frames": 2},
        "distilroberta-base": {"vocab_size": 99},
    }
    folder = write_true(tmp_path / name, name, num_hidden_layers=1, **small.get(name, {}))
    assert load(folder).config.hidden_size == 768


@pytest.mark.slow
@needs_configurations
def test_looking_at_every_weight_of_95_million_takes_a_moment(tmp_path: Path) -> None:
    folder = write_true(tmp_path / "wav2vec2", "wav2vec2-base-960h")
    network = load(folder)
    assert sum(weight.numel() for weight in network.parameters()) > 94_000_000
    start = time.perf_counter()
    assert lost_weights(folder, network) == []
    assert time.perf_counter() - start < 2
