"""Encoders of sound.

Shape letters: B clips, T samples, L layers, N tokens, D width.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import torch

from cache.media import SAMPLE_RATE_HZ
from extract.encoders.base import NetworkEncoder
from extract.encoders.models import Model, check_preprocessing
from extract.encoders.options import DEFAULT, EncoderOptions
from extract.encoders.preparer import OWN, Alone, Array, Inputs, Preparer, Window, Windows, spans


class SoundPreparer(Preparer):
    """A feature extractor for 16 kHz waveforms.

    Attributes:
        shortest_T: samples that the network needs.
        longest_T: samples that it is given at a time; None: any number.
        window_T: samples of each window of a longer clip.
    """

    shortest_T = 1
    longest_T: int | None = None
    window_T: int | None = None

    def __init__(self, model: Model, options: EncoderOptions = DEFAULT) -> None:
        """Read the feature extractor's settings.

        Raises:
            ValueError: there are none, or the model was trained at another sample rate.
        """
        from transformers import AutoFeatureExtractor

        super().__init__(model, options)
        check_preprocessing("audio", model)
        self.extractor = AutoFeatureExtractor.from_pretrained(model.folder)
        rate_hz = self.extractor.sampling_rate
        if rate_hz != SAMPLE_RATE_HZ:
            raise ValueError(f"{model.name} wants {rate_hz} Hz; the media store keeps {SAMPLE_RATE_HZ} Hz")
        if options.window_seconds is not None:
            self.longest_T = self.window_T = round(options.window_seconds * SAMPLE_RATE_HZ)

    def batch_key(self, signal: Array) -> Hashable:
        """`Alone` where a clip is cut into windows; else what `whole_key` says."""
        if len(signal) < self.shortest_T:
            raise ValueError(f"{len(signal)} samples of sound; the encoder needs {self.shortest_T}")
        windows = self.windows(signal)
        return Alone(len(windows.parts)) if windows else self.whole_key(signal)

    def whole_key(self, _: Array) -> Hashable:
        """Of clips that are encoded whole: all that fill the same window may share a batch."""
        return ()

    def windows(self, signal: Array) -> Windows | None:
        """Of a clip that is longer than `longest_T`: windows of full length, views of its samples."""
        if self.longest_T is None or self.window_T is None or len(signal) <= self.longest_T:
            return None
        seconds = self.options.hop_seconds
        hop_T = self.window_T if seconds is None else round(seconds * SAMPLE_RATE_HZ)
        cut = spans(len(signal), self.window_T, hop_T)
        return Windows(tuple(Window(signal[span.start : span.end], span.new) for span in cut))

    def limit(self, longest_T: int, window_T: int) -> None:
        """The encoder takes up to `longest_T` samples, all of which count up to `window_T`.

        Raises:
            ValueError: longer windows are asked for.
        """
        if self.window_T is None:
            self.longest_T, self.window_T = longest_T, window_T
        elif self.window_T > window_T:
            most = math.floor(100 * window_T / SAMPLE_RATE_HZ) / 100
            raise ValueError(
                f"window_seconds={self.options.window_seconds:g}: {self.model.name} takes {most:g} s of sound at a "
                f"time; set window_seconds={most:g} or less, or leave it out"
            )

    def extracted(self, signals: Sequence[Array], name: str, **settings: object) -> torch.Tensor:
        """What the extractor makes of each waveform (T,) alone, in one batch."""
        settings |= {"sampling_rate": SAMPLE_RATE_HZ, "return_tensors": "pt"}
        return torch.cat([self.extractor(signal, **settings)[name] for signal in signals])


class WaveformPreparer(SoundPreparer):
    """Of models that take the waveform itself.

    Only clips of exactly equal length share a batch, whatever the checkpoint. Those with group norm
    normalise their first layer over time and take no mask, so that padding changes them; data2vec's five
    positional convolutions carry padding into the clip although it has layer norm and takes a mask. The
    configuration does not tell this last case from wav2vec 2.0 with layer norm, which padding leaves alone.
    """

    def __init__(self, model: Model, options: EncoderOptions = DEFAULT) -> None:
        """Read the feature extractor's settings, and how short a sound the network's convolutions can take."""
        from transformers import AutoConfig

        super().__init__(model, options)
        config = AutoConfig.from_pretrained(model.folder)
        self.shortest_T = _receptive_field(config.conv_kernel, config.conv_stride)

    def whole_key(self, signal: Array) -> Hashable:
        """Number of samples."""
        return len(signal)

    def inputs(self, signals: Sequence[Array]) -> Inputs:
        """Waveforms (T,) of one length."""
        return {"input_values": self.extracted(signals, "input_values")}


class WaveformEncoder(NetworkEncoder):
    """wav2vec 2.0 (Baevski et al. 2020, arXiv 2006.11477) and its kin: HuBERT (arXiv 2106.07447), WavLM
    (arXiv 2110.13900), data2vec-audio (arXiv 2202.03555)."""

    poolings = ("mean", "mean_std", "last")
    preparer_class = WaveformPreparer


class WhisperPreparer(SoundPreparer):
    """Log-mel windows of Whisper, 30 s each, or with `window="clip"` rounded up from the clip's length to a token."""

    def __init__(self, model: Model, options: EncoderOptions = DEFAULT) -> None:
        """Read the feature extractor's settings."""
        super().__init__(model, options)
        self.samples_per_token: int = self.extractor.hop_length * 2
        self.limit(self.extractor.n_samples, self.extractor.n_samples)

    def whole_key(self, signal: Array) -> Hashable:
        """Every clip fills the same window; windows that end with the clip must be equal."""
        return self._tokens(signal) if self.options.window == "clip" else ()

    def padded_key(self, signal: Array) -> Hashable:
        """All clips: of a window that ends with its clip, `own_B` says where that is."""
        key = self.batch_key(signal)
        return key if isinstance(key, Alone) else ()

    def inputs(self, signals: Sequence[Array]) -> Inputs:
        """Waveforms (T,), up to 30 s; `own_B` counts the tokens that each clip fills. Windows of other lengths, which
        end with their clips, are padded with zeros to the longest."""
        settings = {}
        if self.options.window == "clip":
            settings = {"padding": "longest", "pad_to_multiple_of": self.samples_per_token}
        parts = [self.extracted([signal], "input_features", **settings) for signal in signals]
        longest = max(part.shape[2] for part in parts)
        features = torch.cat([torch.nn.functional.pad(part, (0, longest - part.shape[2])) for part in parts])
        return {"input_features": features, OWN: torch.tensor([self._tokens(signal) for signal in signals])}

    def _tokens(self, signal: Array) -> int:
        return -(-len(signal) // self.samples_per_token)


class WhisperEncoder(NetworkEncoder):
    """Encoder half of Whisper (Radford et al. 2022, arXiv 2212.04356): its own 30 s log-mel window,
    pooled over the tokens that the clip itself fills (one per 320 samples).

    With `window="clip"` the window ends with the clip and the positional embedding is cut there: cheaper by the
    ratio of the lengths, and only nearly the same, because no padded silence is attended to.
    """

    poolings = ("mean", "mean_std", "last")
    preparer_class = WhisperPreparer

    @staticmethod
    def tower(network: torch.nn.Module) -> torch.nn.Module:
        """Without the decoder."""
        encoder: torch.nn.Module = network.get_encoder()  # type: ignore[operator]
        return encoder

    def states(self, inputs: Inputs) -> Sequence[torch.Tensor]:
        """As transformers computes them; it refuses any window but its own, so that a cut one is computed here."""
        if self.options.window == "clip":
            return self._states_of_cut_window(inputs["input_features"], inputs[OWN])
        return super().states({"input_features": inputs["input_features"]})

    def _states_of_cut_window(self, features: torch.Tensor, own_B: torch.Tensor) -> Sequence[torch.Tensor]:
        network, gelu, tokens = self.network, torch.nn.functional.gelu, features.shape[2] // 2
        padded, mask_B11N = bool((own_B < tokens).any()), None
        state_BDn = gelu(network.conv1(features))
        if padded:
            own_BN = (torch.arange(tokens) < own_B.cpu()[:, None]).to(features.device)
            # Beyond a clip there is nothing: neither for the second convolution, nor for attention.
            state_BDn = state_BDn * own_BN.repeat_interleave(2, dim=1)[:, None]
            mask_B11N = own_BN[:, None, None]
        state_BND = gelu(network.conv2(state_BDn)).permute(0, 2, 1)
        states = [state_BND + network.embed_positions.weight[:tokens]]
        for block in self.blocks:
            states.append(block(states[-1], mask_B11N))
        states[-1] = network.layer_norm(states[-1])
        return states


class SpectrogramPreparer(SoundPreparer):
    """Log-mel windows of fixed length, about 10 s: every clip is padded to that."""

    # Its log-mel frames are 25 ms long, 10 ms apart.
    FRAME_T, HOP_T = 400, 160
    shortest_T = FRAME_T

    def __init__(self, model: Model, options: EncoderOptions = DEFAULT) -> None:
        """Read the feature extractor's settings."""
        super().__init__(model, options)
        window_T = self.FRAME_T + (self.extractor.max_length - 1) * self.HOP_T
        # What is less than a hop beyond the last frame makes no frame.
        self.limit(window_T + self.HOP_T - 1, window_T)

    def inputs(self, signals: Sequence[Array]) -> Inputs:
        """Waveforms (T,), up to the window's length."""
        return {"input_values": self.extracted(signals, "input_values")}


class SpectrogramEncoder(NetworkEncoder):
    """Audio spectrogram transformer (Gong et al. 2021, arXiv 2104.01778).

    It was trained on clips padded to its window: the mean is over all tokens, class and distillation tokens
    included. `cls` is the class token.
    """

    poolings = ("mean", "mean_std", "cls")
    preparer_class = SpectrogramPreparer


def _receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that give one token. transformers has the inverse, as a private method of the loaded network."""
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples
