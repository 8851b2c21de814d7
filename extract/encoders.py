"""Encoders: frozen pretrained models that turn one modality into pooled hidden states of every layer.

A row depends on its clip and the encoder alone: clips share a batch only when nothing has to be
padded, so the batch equals the plain transformers call on each clip.

Shape letters: B clips, T samples or frames, L layers (embedding output first), N tokens, D width.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import numpy.typing as npt
import torch

from cache.media_store import SAMPLE_RATE_HZ
from extract.models import Model

Array = npt.NDArray[Any]
Inputs = dict[str, torch.Tensor]
ALL_LAYERS = slice(None)
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


class NetworkEncoder(ABC):
    """An encoder in three steps, so that fine-tuning can take gradients through the middle one.

    Attributes:
        network: the transformers model, loaded frozen and in evaluation mode.
        blocks: its transformer blocks, first to last.
    """

    device: torch.device
    network: Any
    blocks: torch.nn.ModuleList

    @abstractmethod
    def batch_key(self, signal: Any) -> Hashable:
        """As in `Encoder`."""

    @abstractmethod
    def inputs(self, signals: Sequence[Any]) -> Inputs:
        """What the network takes, by the model's own preprocessing; on the CPU."""

    @abstractmethod
    def hidden(self, inputs: Inputs, layers: slice = ALL_LAYERS) -> torch.Tensor:
        """Pooled hidden states hidden_BLD of these layers, from inputs on the network's device; differentiable."""

    def encode(self, signals: Sequence[Any]) -> Array:
        """As in `Encoder`."""
        inputs = {name: values.to(self.device) for name, values in self.inputs(signals).items()}
        hidden_BLD: Array = self.hidden(inputs).float().cpu().numpy()
        return hidden_BLD


class Wav2Vec2Encoder(NetworkEncoder):
    """wav2vec 2.0 (Baevski et al. 2020, arXiv 2006.11477). Equal lengths only: its first layer
    normalises over time and it was trained without an attention mask, so that padding changes it."""

    def __init__(self, model: Model, device: torch.device) -> None:
        """Load the model and its feature extractor."""
        from transformers import AutoFeatureExtractor

        self.device = device
        self.network = load_network(model, device)
        self.blocks = self.network.encoder.layers
        self.extractor = AutoFeatureExtractor.from_pretrained(model.folder)
        _require_sample_rate(model, self.extractor)
        kernels, strides = self.network.config.conv_kernel, self.network.config.conv_stride
        self.shortest_T = _receptive_field(kernels, strides)

    def batch_key(self, signal: Array) -> Hashable:
        """Number of samples."""
        if len(signal) < self.shortest_T:
            raise ValueError(f"{len(signal)} samples of sound; the encoder needs {self.shortest_T}")
        return len(signal)

    def inputs(self, signals: Sequence[Array]) -> Inputs:
        """Waveforms (T,) of one length, 16 kHz."""
        prepared = [self.extractor(signal, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt") for signal in signals]
        return {"input_values": torch.cat([one.input_values for one in prepared])}

    def hidden(self, inputs: Inputs, layers: slice = ALL_LAYERS) -> torch.Tensor:
        """Mean over all tokens."""
        return mean_over_tokens(self.network(**inputs, output_hidden_states=True).hidden_states[layers])


class WhisperEncoder(NetworkEncoder):
    """Encoder half of Whisper (Radford et al. 2022, arXiv 2212.04356): its own 30 s log-mel window,
    the mean over the frames that the clip itself fills (one per 320 samples)."""

    def __init__(self, model: Model, device: torch.device) -> None:
        """Load the encoder and its feature extractor."""
        from transformers import AutoFeatureExtractor

        self.device = device
        self.network = load_network(model, device).get_encoder()
        self.blocks = self.network.layers
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

    def inputs(self, signals: Sequence[Array]) -> Inputs:
        """Waveforms (T,), 16 kHz, up to 30 s; `own_B` counts the tokens that each clip fills."""
        prepared = [self.extractor(signal, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt") for signal in signals]
        own_B = torch.tensor([-(-len(signal) // self.samples_per_token) for signal in signals])
        return {"input_features": torch.cat([one.input_features for one in prepared]), "own_B": own_B}

    def hidden(self, inputs: Inputs, layers: slice = ALL_LAYERS) -> torch.Tensor:
        """Mean over the clip's own tokens."""
        states = self.network(inputs["input_features"], output_hidden_states=True).hidden_states[layers]
        own_B = inputs["own_B"].tolist()
        pooled = [torch.stack([state[row, :own].mean(0) for state in states]) for row, own in enumerate(own_B)]
        return torch.stack(pooled)


class VideoMaeEncoder(NetworkEncoder):
    """VideoMAE (Tong et al. 2022, arXiv 2203.12602): 16 frames, no CLS token, mean over tokens."""

    def __init__(self, model: Model, device: torch.device) -> None:
        """Load the model and its image processor."""
        self.device = device
        self.network = load_network(model, device)
        self.blocks = self.network.encoder.layer
        self.processor = image_processor(model)

    def batch_key(self, signal: Array) -> Hashable:
        """All clips of a media store have the same shape."""
        return signal.shape

    def inputs(self, signals: Sequence[Array]) -> Inputs:
        """Frames (T, H, W, C) uint8, already resized and cropped."""
        return {"pixel_values": torch.cat([self.prepare(frames_THWC) for frames_THWC in signals])}

    def hidden(self, inputs: Inputs, layers: slice = ALL_LAYERS) -> torch.Tensor:
        """Mean over all tokens."""
        return mean_over_tokens(self.network(**inputs, output_hidden_states=True).hidden_states[layers])

    def prepare(self, frames_THWC: Array) -> torch.Tensor:
        """Rescale and normalise as the model's own processor does; resizing and cropping are done."""
        kwargs = {"do_resize": False, "do_center_crop": False, "return_tensors": "pt"}
        pixels: torch.Tensor = self.processor(list(frames_THWC), **kwargs).pixel_values
        return pixels if pixels.ndim == 5 else pixels[None]


class TextEncoder(NetworkEncoder):
    """BERT-like text encoders; distilroberta by default (Sanh et al. 2019, arXiv 1910.01108)."""

    def __init__(self, model: Model, device: torch.device) -> None:
        """Load the model and its tokenizer."""
        from transformers import AutoTokenizer

        self.device = device
        self.network = load_network(model, device)
        # DistilBERT calls its stack `transformer`, the others `encoder`.
        stack = self.network.transformer if hasattr(self.network, "transformer") else self.network.encoder
        self.blocks = stack.layer
        self.tokenizer = AutoTokenizer.from_pretrained(model.folder)
        self.longest = int(self.network.config.max_position_embeddings) - 2

    def batch_key(self, signal: str) -> Hashable:
        """Number of tokens: nothing is padded."""
        return len(self.tokenizer(signal, truncation=True, max_length=self.longest).input_ids)

    def inputs(self, signals: Sequence[str]) -> Inputs:
        """Texts; shorter ones are padded and masked."""
        options = {"padding": True, "truncation": True, "max_length": self.longest, "return_tensors": "pt"}
        return dict(self.tokenizer(list(signals), **options))

    def hidden(self, inputs: Inputs, layers: slice = ALL_LAYERS) -> torch.Tensor:
        """Mean over the text's own tokens, start and end tokens included."""
        states = self.network(**inputs, output_hidden_states=True).hidden_states[layers]
        mask_BN = inputs["attention_mask"]
        # Without padding the plain mean: stage one never pads, and its bits must not depend on this.
        return mean_over_tokens(states, None if bool(mask_BN.all()) else mask_BN)


ENCODERS: dict[str, dict[str, Callable[[Model, torch.device], NetworkEncoder]]] = {
    "audio": {"wav2vec2": Wav2Vec2Encoder, "whisper": WhisperEncoder},
    "video": {"videomae": VideoMaeEncoder},
    "text": dict.fromkeys(("roberta", "bert", "distilbert"), TextEncoder),
}


def encoder_class(modality: str, model: Model) -> Callable[[Model, torch.device], NetworkEncoder]:
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


def mean_over_tokens(states: Sequence[torch.Tensor], mask_BN: torch.Tensor | None = None) -> torch.Tensor:
    """Mean over tokens of each hidden state, or over those the mask names: L tensors (B, N, D) to hidden_BLD."""
    if mask_BN is None:
        return torch.stack([state.mean(1) for state in states], 1)
    weights_BN1 = (mask_BN / mask_BN.sum(1, keepdim=True))[:, :, None]
    return torch.stack([(state * weights_BN1).sum(1) for state in states], 1)


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
