"""What changes the numbers of a row, written down: the provenance of arrays and of decoded media. No torch."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cache.conditions import Condition
from cache.corpus.clips import Corpus
from cache.features.rows import ArraySpec
from cache.files.hashes import fingerprint
from cache.media import SAMPLE_RATE_HZ
from configs.schema.features import TIMESTAMPED, TRANSFORMERS, FeaturesConfig
from extract.asr.models import asr_precision, find_whisper
from extract.encoders.models import Model
from extract.media.cut import Cut

# Libraries whose version can change a number in a row.
LIBRARIES = {
    "audio": ("torch", "torchaudio", "transformers", "numpy", "scipy", "decord", "av"),
    "video": ("torch", "transformers", "numpy", "av", "decord"),
    "text": ("torch", "transformers", "tokenizers"),
}
# OpenAI's program beside transformers: its vocabulary goes with its files.
ENGINES = {TIMESTAMPED: ("whisper-timestamped", "openai-whisper"), TRANSFORMERS: ("tokenizers", "openai-whisper")}
# Of NVIDIA's GPUs; torch calls AMD's "cuda" as well, and brings their libraries itself.
DRIVERS = ("libcuda.so.1", "nvcuda.dll")
ROCM = "/dev/kfd"


def device_kind() -> str:
    """What torch will find here, `cuda` or `cpu`. It is imported only where a GPU's driver is: that takes seconds."""
    if not any(map(_can_be_loaded, DRIVERS)) and not Path(ROCM).exists():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _can_be_loaded(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def array_spec(
    config: FeaturesConfig,
    modality: str,
    model: Model,
    condition: Condition,
    drawn: Mapping[str, Mapping[str, Any]],
    text: Mapping[str, Any],
    device: str,
) -> ArraySpec:
    """The array of a modality under a condition.

    Args:
        config, modality, model, condition: what is encoded, by what.
        drawn: by kind of condition, what recordings it draws from.
        text: `text_provenance`, for the text.
        device: kind of device that encodes.
    """
    stored = kept_layers(config.layers, model)
    provenance: dict[str, Any] = {
        "encoder": model.name,
        "model_type": model.model_type,
        "random_weights": model.random_weights,
        "weights_sha256": model.weights_sha256,
        "settings_sha256": model.settings_sha256,
        "pooling": config.pooling,
        "layers": list(stored),
        "dtype": config.compute,
        "condition": asdict(condition),
        "libraries": {name: version(name) for name in _libraries(config, modality, condition)},
    }
    if model.tuned_on:
        provenance["tuned_on"] = list(model.tuned_on)
    if device != "cpu":
        provenance["device"] = device
    if condition.kind in drawn:
        provenance["noise"] = dict(drawn[condition.kind])
    if model.model_type == "whisper":
        provenance["window"] = config.whisper.window
    if modality == "audio" and config.window_seconds is not None:
        hop_seconds = config.hop_seconds or config.window_seconds
        provenance["windows"] = {"seconds": config.window_seconds, "hop_seconds": hop_seconds}
    if modality == "video":
        kept = {"frames": config.media.frames, "size": config.media.size}
        provenance["media"] = {**kept, **Cut.of(config.media).provenance, **_reader(config)}
    if modality == "text":
        provenance["asr"] = dict(text)
    width = model.width * (2 if config.pooling == "mean_std" else 1)
    return ArraySpec(modality, model.name, len(stored), width, provenance)


def _libraries(config: FeaturesConfig, modality: str, condition: Condition) -> tuple[str, ...]:
    """Faces are found and pictures spoilt by OpenCV and PyAV; clean frames need neither."""
    pictures = modality == "video" and (condition.modality == "video" or config.media.face_crop)
    return LIBRARIES[modality] + (("opencv-python-headless",) if pictures else ())


def kept_layers(layers: str | tuple[int, ...], model: Model) -> tuple[int, ...]:
    """Numbers of the hidden states of `model` that are kept.

    Raises:
        ValueError: it has no such layer.
    """
    every = tuple(range(model.layers))
    if isinstance(layers, str):
        return every if layers == "all" else every[-1:]
    if max(layers) >= model.layers or sorted(set(layers)) != list(layers):
        raise ValueError(
            f"layers={list(layers)}: name layers of {model.name}, 0 to {model.layers - 1}, each once, rising"
        )
    return layers


def text_provenance(config: FeaturesConfig, corpus: Corpus, device: str) -> dict[str, Any]:
    """Where the text comes from: the corpus's statements, or a recogniser on that kind of device."""
    # Statements are the text itself or, with a recogniser, what its word error rate is counted against.
    statements = fingerprint([clip.statement for clip in corpus.clips])
    if config.asr.model is None:
        return {"model": None, "statements_sha256": statements}
    found, precision = find_whisper(config.asr), asr_precision(device)
    return {
        "model": found.name,
        # whisper-timestamped was there first: its stores do not name it.
        **({"engine": config.asr.engine} if config.asr.engine != TIMESTAMPED else {}),
        **({"precision": precision} if precision != "float32" else {}),
        "statements_sha256": statements,
        "weights_sha256": found.weights_sha256,
        **({"settings_sha256": found.settings_sha256} if found.settings_sha256 else {}),
        "language": config.asr.language,
        "libraries": {name: version(name) for name in (*LIBRARIES["audio"], *ENGINES[config.asr.engine])},
    }


def media_provenance(config: FeaturesConfig) -> dict[str, Any]:
    """What changes the samples and pixels of decoded media."""
    cut = Cut.of(config.media)
    return {
        "frames": config.media.frames if config.encoders.video else 0,
        "size": config.media.size,
        **cut.provenance,
        **_reader(config),
        **({"opencv": version("opencv-python-headless")} if cut.face else {}),
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "libraries": {name: version(name) for name in ("av", *_reader(config).values(), "torch", "torchaudio")},
    }


def _reader(config: FeaturesConfig) -> dict[str, str]:
    """What the pixels were read by, where that may change them."""
    return {"reader": "decord"} if config.media.reader == "decord" else {}
