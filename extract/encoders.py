"""Encoders: frozen pretrained models that turn one modality into pooled hidden states of every layer.

A row depends on its clip and the encoder alone: clips share a batch only when nothing has to be
padded, so the batch equals the plain transformers call on each clip.

Shape letters: B clips, T samples or frames, L layers (embedding output first), N tokens, D width.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import numpy.typing as npt
import torch

from cache.media_store import SAMPLE_RATE_HZ
from extract.models import Model

Array = npt.NDArray[Any]
# Heads and masks that the hidden states do not pass through; checkpoints may lack them.
UNUSED_PARAMETERS = ("masked_spec_embed", "pooler.", "decoder.", "lm_head.", "classifier.", "mask_token")


class Encoder(Protocol):
    """One frozen model. `encode` takes clips that agree in `batch_key`."""

    def batch_key(self, signal: Any) -> Hashable:
        """Clips with equal keys may share a batch.

        Raises:
            ValueError: the signal cannot be encoded; that clip fails.
        """

    def encode(self, signals: Sequence[Any]) -> Array:
        """Pooled hidden states hidden_BLD, float32: mean over the clip's own tokens, every layer."""


class Wav2Vec2Encoder:
    """wav2vec 2.0 (Baevski et al. 2020, arXiv 2006.11477). Equal lengths only: its first layer
    normalises over time and it was trained without an attention mask, so that padding changes it."""

    def __init__(self, model: Model, device: torch.device) -> None:
        """Load the model and its feature extractor."""
        from transformers import AutoFeatureExtractor

        self.device = device
        self.network = load_network(model, device)
        self.extractor = AutoFeatureExtractor.from_pretrained(model.folder)
        _require_sample_rate(model, self.extractor)
        kernels, strides = self.network.config.conv_kernel, self.network.config.conv_stride
        self.shortest_T = _receptive_field(kernels, strides)

    def batch_key(self, signal: Array) -> Hashable:
        """Number of samples."""
        if len(signal) < self.shortest_T:
            raise ValueError(f"{len(signal)} samples of sound; the encoder needs {self.shortest_T}")
        return len(signal)

    def encode(self, signals: Sequence[Array]) -> Array:
        """Waveforms (T,) of one length, 16 kHz."""
        prepared = [self.extractor(signal, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt") for signal in signals]
        values_BT = torch.cat([one.input_values for one in prepared]).to(self.device)
        return mean_over_tokens(self.network(values_BT, output_hidden_states=True).hidden_states)


class WhisperEncoder:
    """Encoder half of Whisper (Radford et al. 2022, arXiv 2212.04356): its own 30 s log-mel window,
    the mean over the frames that the clip itself fills (one per 320 samples)."""

    def __init__(self, model: Model, device: torch.device) -> None:
        """Load the encoder and its feature extractor."""
        from transformers import AutoFeatureExtractor

        self.device = device
        self.network = load_network(model, device).get_encoder()
        self.extractor = AutoFeatureExtractor.from_pretrained(model.folder)
        _require_sample_rate(model, self.extractor)
        self.samples_per_token = self.extractor.hop_length * 2
        self.longest_T = self.extractor.n_samples

    def batch_key(self, signal: Array) -> Hashable:
        """Every clip fills the same window."""
        if not 0 < len(signal) <= self.longest_T:
            raise ValueError(
                f"{len(signal) / SAMPLE_RATE_HZ:.2f} s of sound; "
                f"the window takes up to {self.longest_T / SAMPLE_RATE_HZ:g} s"
            )
        return ()

    def encode(self, signals: Sequence[Array]) -> Array:
        """Waveforms (T,), 16 kHz, up to 30 s."""
        prepared = [self.extractor(signal, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt") for signal in signals]
        features = torch.cat([one.input_features for one in prepared]).to(self.device)
        states = self.network(features, output_hidden_states=True).hidden_states
        own_B = [-(-len(signal) // self.samples_per_token) for signal in signals]
        pooled = [torch.stack([state[row, :own].mean(0) for state in states]) for row, own in enumerate(own_B)]
        return torch.stack(pooled).float().cpu().numpy()


class VideoMaeEncoder:
    """VideoMAE (Tong et al. 2022, arXiv 2203.12602): 16 frames, no CLS token, mean over tokens."""

    def __init__(self, model: Model, device: torch.device) -> None:
        """Load the model and its image processor."""
        self.device = device
        self.network = load_network(model, device)
        self.processor = image_processor(model)

    def batch_key(self, signal: Array) -> Hashable:
        """All clips of a media store have the same shape."""
        return signal.shape

    def encode(self, signals: Sequence[Array]) -> Array:
        """Frames (T, H, W, C) uint8, already resized and cropped."""
        pixels = [self.prepare(frames_THWC) for frames_THWC in signals]
        return mean_over_tokens(
            self.network(torch.cat(pixels).to(self.device), output_hidden_states=True).hidden_states
        )

    def prepare(self, frames_THWC: Array) -> torch.Tensor:
        """Rescale and normalise as the model's own processor does; resizing and cropping are done."""
        kwargs = {"do_resize": False, "do_center_crop": False, "return_tensors": "pt"}
        pixels: torch.Tensor = self.processor(list(frames_THWC), **kwargs).pixel_values
        return pixels if pixels.ndim == 5 else pixels[None]


class TextEncoder:
    """BERT-like text encoders; distilroberta by default (Sanh et al. 2019, arXiv 1910.01108)."""

    def __init__(self, model: Model, device: torch.device) -> None:
        """Load the model and its tokenizer."""
        from transformers import AutoTokenizer

        self.device = device
        self.network = load_network(model, device)
        self.tokenizer = AutoTokenizer.from_pretrained(model.folder)
        self.longest = int(self.network.config.max_position_embeddings) - 2

    def batch_key(self, signal: str) -> Hashable:
        """Number of tokens: nothing is padded."""
        return len(self.tokenizer(signal, truncation=True, max_length=self.longest).input_ids)

    def encode(self, signals: Sequence[str]) -> Array:
        """Texts of one length in tokens; the mean includes the start and end tokens."""
        tokens = self.tokenizer(list(signals), truncation=True, max_length=self.longest, return_tensors="pt")
        return mean_over_tokens(self.network(**tokens.to(self.device), output_hidden_states=True).hidden_states)


ENCODERS: dict[str, dict[str, Callable[[Model, torch.device], Encoder]]] = {
    "audio": {"wav2vec2": Wav2Vec2Encoder, "whisper": WhisperEncoder},
    "video": {"videomae": VideoMaeEncoder},
    "text": dict.fromkeys(("roberta", "bert", "distilbert"), TextEncoder),
}


def encoder_class(modality: str, model: Model) -> Callable[[Model, torch.device], Encoder]:
    """The class that runs a model type.

    Raises:
        ValueError: no class for this model type; names those there are.
    """
    kinds = ENCODERS[modality]
    if model.model_type not in kinds:
        raise ValueError(
            f"encoders.{modality}: model type {model.model_type!r} is not supported; supported: {', '.join(kinds)}"
        )
    return kinds[model.model_type]


def load_network(model: Model, device: torch.device) -> Any:
    """Load frozen float32 weights; refuse a checkpoint that leaves parts of the model untrained."""
    from transformers import AutoModel

    network, info = AutoModel.from_pretrained(model.folder, dtype=torch.float32, output_loading_info=True)
    missing = [key for key in info["missing_keys"] if not any(name in key for name in UNUSED_PARAMETERS)]
    if missing:
        raise ValueError(
            f"{model.folder}: the checkpoint lacks {len(missing)} weights of the model, first {sorted(missing)[0]}"
        )
    return network.eval().requires_grad_(False).to(device)


def image_processor(model: Model) -> Any:
    """The model's own image processor on its PIL backend, which needs no torchvision."""
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(model.folder, backend="pil")


def mean_over_tokens(states: Sequence[torch.Tensor]) -> Array:
    """Mean over tokens of each hidden state: L tensors (B, N, D) to hidden_BLD."""
    return torch.stack([state.mean(1) for state in states], 1).float().cpu().numpy()


def rank_device() -> torch.device:
    """This rank's GPU (`LOCAL_RANK` mod the number of GPUs), or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def _receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def _require_sample_rate(model: Model, extractor: Any) -> None:
    if extractor.sampling_rate != SAMPLE_RATE_HZ:
        raise ValueError(f"{model.name} wants {extractor.sampling_rate} Hz; the media store keeps {SAMPLE_RATE_HZ} Hz")
