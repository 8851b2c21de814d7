"""Models are found by folder or hub name, described from their files, and a missing one is one quick line."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from configs.schema.features import MediaSettings
from extract.encoders import models
from extract.encoders.models import Model, check_preprocessing, check_video_media, find_model
from tests.tiny.corpus import write_tiny_encoders
from tests.tiny.places import CASES, needs_cases


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_tiny_encoders(tmp_path_factory.mktemp("encoders"))


def described(model: Model) -> tuple[str, str, int, int, int, int, bool]:
    size = (model.layers, model.width, model.frames, model.size)
    return (model.name, model.model_type, *size, model.random_weights)


def test_a_folder_is_described_by_its_files(tiny: dict[str, Path]) -> None:
    assert described(find_model(str(tiny["audio"]))) == ("wav2vec2", "wav2vec2", 2, 16, 0, 0, True)
    assert described(find_model(str(tiny["video"]))) == ("videomae", "videomae", 2, 16, 16, 32, True)
    assert described(find_model(f"{tiny['text']}/")) == ("roberta", "roberta", 2, 16, 0, 0, True)


@pytest.mark.parametrize(
    ("config", "layers", "width"),
    [
        ({"model_type": "whisper", "encoder_layers": 4, "num_hidden_layers": 6, "d_model": 384}, 5, 384),
        ({"model_type": "distilbert", "n_layers": 6, "dim": 768}, 7, 768),
        ({"model_type": "bert", "num_hidden_layers": 12, "hidden_size": 768}, 13, 768),
    ],
)
def test_model_types_name_their_sizes_differently(
    tmp_path: Path, config: dict[str, Any], layers: int, width: int
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    model = find_model(str(tmp_path))
    assert (model.layers, model.width, model.random_weights) == (layers, width, False)


# Pictures: what an encoder takes is what its own processor makes


def write_model(folder: Path, config: dict[str, Any], processor: dict[str, Any] | None = None) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"weights")
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


DINOV2 = {"model_type": "dinov2", "num_hidden_layers": 12, "hidden_size": 768, "image_size": 518}
CROPPED = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}


@pytest.mark.parametrize(
    ("processor", "size"),
    [
        (CROPPED, 224),
        (CROPPED | {"do_center_crop": True}, 224),
        ({"do_center_crop": False, **CROPPED}, 256),
        ({"size": 384, "crop_size": 336}, 336),
        ({"size": {"height": 224, "width": 224}}, 224),
        ({"size": [192, 192]}, 192),
        ({"image_mean": [0.5, 0.5, 0.5]}, 518),
        (None, 518),
    ],
)
def test_the_size_of_pictures_is_what_the_processor_makes(
    tmp_path: Path, processor: dict[str, Any] | None, size: int
) -> None:
    model = find_model(str(write_model(tmp_path, DINOV2, processor)))
    assert (model.layers, model.width, model.frames, model.size) == (13, 768, 0, size)


def test_clips_vision_half_is_described_and_what_its_config_leaves_out_is_the_default(tmp_path: Path) -> None:
    text = {"hidden_size": 512, "num_hidden_layers": 12}
    vision = {"hidden_size": 1024, "num_hidden_layers": 24}
    config = {"model_type": "clip", "text_config": text, "vision_config": vision, "projection_dim": 768}
    model = find_model(str(write_model(tmp_path, config)))
    assert (model.layers, model.width, model.frames, model.size) == (25, 1024, 0, 224)
    model = find_model(str(write_model(tmp_path, config | {"vision_config": {"image_size": 336}})))
    assert (model.layers, model.width, model.size) == (13, 768, 336)


BICUBIC = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "resample": 3}


def test_settings_of_pictures_in_one_file_for_all_are_honoured(tmp_path: Path) -> None:
    """transformers 5 writes processor_config.json: its bicubic was not seen, and pictures were made bilinear."""
    for name in ("own", "whole"):
        (tmp_path / name).mkdir()
    own = find_model(str(write_model(tmp_path / "own", DINOV2, BICUBIC)))
    whole = write_model(tmp_path / "whole", DINOV2)
    (whole / "processor_config.json").write_text(json.dumps({"image_processor": BICUBIC}))
    model = find_model(str(whole))
    assert (model.size, model.short_side, model.resample) == (own.size, own.short_side, own.resample)
    assert (model.size, model.short_side, model.resample) == (224, 256, "bicubic")
    with pytest.raises(ValueError, match=r"encoders\.video is fed bicubic resizes; set media\.resample=bicubic"):
        check_video_media(model, MediaSettings(short_side=256))
    check_video_media(model, MediaSettings(short_side=256, resample="bicubic"))
    # Where both are there, transformers goes by the newer one.
    (whole / "preprocessor_config.json").write_text(json.dumps(BICUBIC | {"resample": 2}))
    assert find_model(str(whole)).resample == "bicubic"


@needs_cases
def test_the_case_with_one_file_for_all_is_refused_for_a_bilinear_store() -> None:
    model = find_model(str(CASES / "clip-processor-config-v5"))
    check_preprocessing("video", model)
    with pytest.raises(ValueError, match=r"fed bicubic resizes; set media\.resample=bicubic"):
        check_video_media(model, MediaSettings(size=64))


@pytest.mark.parametrize(("modality", "part"), [("audio", "feature extractor"), ("video", "image processor")])
def test_a_model_without_settings_of_its_input_is_refused_before_anything_starts(
    tiny: dict[str, Path], tmp_path: Path, modality: str, part: str
) -> None:
    """transformers said so in several sentences, after the ranks had started."""
    folder = shutil.copytree(tiny[modality], tmp_path / modality)
    check_preprocessing(modality, find_model(str(folder)))
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    message = rf"^encoders\.{modality}: {folder} has no {part}; add its preprocessor_config\.json, or copy that of"
    with pytest.raises(ValueError, match=message):
        check_preprocessing(modality, find_model(str(folder)))
    (folder / "processor_config.json").write_text(json.dumps({part.replace(" ", "_"): settings}))
    check_preprocessing(modality, find_model(str(folder)))


@needs_cases
def test_the_case_without_an_extractor_is_refused() -> None:
    with pytest.raises(ValueError, match=r"wav2vec2-without-extractor has no feature extractor; add its preprocessor"):
        check_preprocessing("audio", find_model(str(CASES / "wav2vec2-without-extractor")))


def test_a_processor_that_is_not_json_is_one_line(tmp_path: Path) -> None:
    write_model(tmp_path, DINOV2)
    (tmp_path / "preprocessor_config.json").write_text("{")
    assert "preprocessor_config.json is not JSON (" in refusal(str(tmp_path))


def test_every_type_is_described_as_transformers_sees_it(tmp_path: Path) -> None:
    from tests.tiny.encoders import WRITERS

    for name in ("deberta-v2", "albert", "modernbert", "vivit", "timesformer", "clip", "audio-spectrogram-transformer"):
        modality, write = WRITERS[name]
        model = find_model(str(write(tmp_path / name)))
        frames = 4 if name in ("vivit", "timesformer") else 0
        size = 32 if modality == "video" else 0
        assert described(model) == (name, name, 3, 16, frames, size, False)


# The fingerprint


def test_the_same_model_elsewhere_has_the_same_fingerprint(tiny: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(tiny["audio"], tmp_path / "wav2vec2")
    here, there = find_model(str(tiny["audio"])), find_model(str(tmp_path / "wav2vec2"))
    assert (here.weights_sha256, here.settings_sha256) == (there.weights_sha256, there.settings_sha256)


def test_random_encoders_are_made_the_same_each_time(tiny: dict[str, Path], tmp_path: Path) -> None:
    for modality, folder in write_tiny_encoders(tmp_path).items():
        ours, again = find_model(str(tiny[modality])), find_model(str(folder))
        assert (ours.weights_sha256, ours.settings_sha256) == (again.weights_sha256, again.settings_sha256)


@pytest.mark.parametrize(
    ("name", "weights", "settings"),
    [("model.safetensors", True, False), ("preprocessor_config.json", False, True), ("README.md", False, False)],
)
def test_what_changes_the_numbers_changes_the_fingerprint(
    tiny: dict[str, Path], tmp_path: Path, name: str, weights: bool, settings: bool
) -> None:
    shutil.copytree(tiny["video"], tmp_path / "videomae")
    with (tmp_path / "videomae" / name).open("a") as file:
        file.write(" ")
    old, new = find_model(str(tiny["video"])), find_model(str(tmp_path / "videomae"))
    assert (old.weights_sha256 != new.weights_sha256) is weights
    assert (old.settings_sha256 != new.settings_sha256) is settings


def sharded(folder: Path, last: bytes) -> Model:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert", "num_hidden_layers": 1, "hidden_size": 16}')
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {"a": names[0], "b": names[1], "c": names[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for name, content in zip(names, (b"first", last), strict=True):
        (folder / name).write_bytes(content)
    return find_model(str(folder))


def test_every_shard_counts(tmp_path: Path) -> None:
    one, same, other = (sharded(tmp_path / str(n), last) for n, last in enumerate((b"x", b"x", b"y")))
    assert one.weights_sha256 == same.weights_sha256 != other.weights_sha256


# What is not there


def refusal(name: str) -> str:
    with pytest.raises(ValueError, match=r".") as error:
        find_model(name)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c", "../x", "no such folder", ""])
def test_no_folder_and_no_hub_name(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "_hub_error", lambda _: pytest.fail("asked the hub"))
    if name:
        assert f"no folder {name}; name a local model directory or a hub model such as" in refusal(name)
    else:  # the current folder
        assert "is no transformers model folder" in refusal(name)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"model_type": "bert", "hidden_size": "many"}'])
def test_a_folder_that_is_no_model(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert f"{tmp_path} is no transformers model folder (config.json: " in refusal(str(tmp_path))


def test_a_folder_without_weights(tiny: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(tiny["audio"], tmp_path / "wav2vec2")
    (tmp_path / "wav2vec2/model.safetensors").unlink()
    assert "wav2vec2 has no weights; expected model.safetensors or pytorch_model.bin" in refusal(
        str(tmp_path / "wav2vec2")
    )


@pytest.fixture
def silent_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that accepts connections and never answers, as a firewall may."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        kept: list[Any] = []

        def accept() -> None:
            while True:
                try:
                    kept.append(server.accept())
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        api = huggingface_hub.HfApi(endpoint=f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
        monkeypatch.setattr(models, "SECONDS_FOR_AN_ANSWER", 0.5)
        yield
        for connection, _ in kept:
            connection.close()


@pytest.mark.usefixtures("silent_hub")
@pytest.mark.timeout(60)
def test_an_unreachable_hub_is_one_quick_line_that_names_the_way_out() -> None:
    start = time.monotonic()
    message = refusal("facebook/no-such-model-of-ours")
    assert time.monotonic() - start < 20
    assert message.startswith(
        "model facebook/no-such-model-of-ours is neither a local directory nor reachable on the hub (ReadTimeout); "
    )
    assert "give its directory, e.g. SET=encoders.audio=models/no-such-model-of-ours" in message


def test_a_hub_model_is_described_like_a_folder(tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def download(name: str, *, allow_patterns: list[str], local_files_only: bool) -> str:
        asked.append((name, local_files_only))
        assert "*.json" in allow_patterns
        return str(tiny["audio"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    for error in (None, OSError("offline")):
        monkeypatch.setattr(models, "_hub_error", lambda _, error=error: error)
        model = find_model("facebook/wav2vec2-tiny")
        assert (model.name, model.layers, model.folder) == ("wav2vec2-tiny", 2, tiny["audio"])
    assert asked == [("facebook/wav2vec2-tiny", False), ("facebook/wav2vec2-tiny", True)]


# Settings that do not fit


def test_media_settings_that_do_not_fit_name_those_that_do(tiny: dict[str, Path]) -> None:
    model = find_model(str(tiny["video"]))
    check_video_media(model, MediaSettings(frames=16, size=32))
    with pytest.raises(ValueError, match=r"takes 16 frames, .* would keep 8; set media\.frames=16"):
        check_video_media(model, MediaSettings(frames=8, size=32))
    with pytest.raises(ValueError, match=r"takes 32 pixels, .* would keep 224; set media\.size=32"):
        check_video_media(model, MediaSettings(frames=16, size=224))


def test_image_encoders_take_any_number_of_frames_of_their_size(tmp_path: Path) -> None:
    model = find_model(str(write_model(tmp_path, DINOV2, CROPPED)))
    for frames in (2, 16, 200):
        check_video_media(model, MediaSettings(frames=frames, size=224, short_side=256))
    with pytest.raises(ValueError, match=r"out of pictures of short side 256; set media\.short_side=256"):
        check_video_media(model, MediaSettings(size=224))
    with pytest.raises(ValueError, match=r"takes 224 pixels, the media store would keep 518; set media\.size=224"):
        check_video_media(model, MediaSettings(frames=16, size=518))
