"""What an encoder is: a frozen network, its options, and how tokens become one row.

A row depends on its clip and the encoder alone: clips share a batch only when nothing has to be
padded, so the batch equals the plain transformers call on each clip.

Shape letters: B clips, L layers (embedding output first), N tokens, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch

from extract.encoders.convolutions import convolve_in_float32
from extract.encoders.loading import load_network, multiply_exactly
from extract.encoders.models import Model

Array = npt.NDArray[Any]
Inputs = dict[str, torch.Tensor]
ALL_LAYERS = slice(None)
# The input that counts each clip's own tokens. It stays on the CPU in stage one: reading it would wait for the GPU.
OWN = "own_B"


@dataclass(frozen=True)
class EncoderOptions:
    """How an encoder is run and what is kept of it.

    Attributes:
        pooling: over a clip's own tokens: `mean`; `mean_std`, mean and population standard deviation side by
            side; `last`, the last token; `cls`, the class token.
        layers: `all`, or the numbers of the hidden states that are kept.
        compute: number format of weights and activations; pooling is in float32 always.
        window: `30s`, as Whisper was trained, or `clip`: its window ends with the clip. Others have no window.
    """

    pooling: str = "mean"
    layers: str | tuple[int, ...] = "all"
    compute: str = "float32"
    window: str = "30s"

    @property
    def exact(self) -> EncoderOptions:
        """The same rows without approximation: what a deviation is measured against."""
        return replace(self, compute="float32", window="30s")

    def stored(self, model: Model) -> tuple[int, ...]:
        """Numbers of the hidden states of `model` that are kept.

        Raises:
            ValueError: it has no such layer.
        """
        if isinstance(self.layers, str):
            return tuple(range(model.layers))
        if not self.layers or min(self.layers) < 0 or max(self.layers) >= model.layers:
            raise ValueError(f"layers={list(self.layers)}: {model.name} has layers 0 to {model.layers - 1}")
        return self.layers


DEFAULT = EncoderOptions()


class Encoder(Protocol):
    """One frozen model. `prepare`, `encode_prepared` and `encode` take clips that agree in `batch_key`."""

    device: torch.device

    def batch_key(self, signal: Any) -> Hashable:
        """Clips with equal keys may share a batch.

        Raises:
            ValueError: the signal cannot be encoded; that clip fails.
        """

    def prepare(self, signals: Sequence[Any]) -> Any:
        """The half of `encode` that needs no network: may run in another thread."""

    def encode_prepared(self, prepared: Any) -> Array:
        """Pooled hidden states hidden_BLD, float32, from what `prepare` returned."""

    def encode(self, signals: Sequence[Any]) -> Array:
        """Pooled hidden states hidden_BLD, float32: the layers and the pooling that were asked for."""


class NetworkEncoder(ABC):
    """An encoder in steps, so that fine-tuning can take gradients through the middle one.

    Attributes:
        poolings: those that make sense for this kind of encoder.
        network: the transformers model, loaded frozen and in evaluation mode.
        blocks: its transformer blocks, first to last.
    """

    poolings: ClassVar[tuple[str, ...]] = ("mean", "mean_std")

    def __init__(self, model: Model, device: torch.device, options: EncoderOptions = DEFAULT) -> None:
        """Load the model.

        Raises:
            ValueError: options that do not fit it, or weights that cannot be trusted.
        """
        self.check(model, options)
        self.model, self.device, self.options = model, device, options
        self.layers = options.stored(model)
        self.dtype = compute_dtype(options.compute, device)
        multiply_exactly()
        self.network: Any = self.tower(load_network(model)).to(device=device, dtype=self.dtype)
        if self.dtype == torch.bfloat16 and device.type == "cpu":
            convolve_in_float32(self.network)
        self.blocks = self.find_blocks()

    @classmethod
    def check(cls, model: Model, options: EncoderOptions) -> None:
        """Refuse options that do not exist for this model, before anything is loaded.

        Raises:
            ValueError: one line that names those that exist.
        """
        if options.pooling not in cls.poolings:
            raise ValueError(
                f"pooling={options.pooling} does not exist for {model.name} ({model.model_type}); "
                f"set pooling to one of {', '.join(cls.poolings)}"
            )
        options.stored(model)

    @staticmethod
    def tower(network: Any) -> Any:
        """The part of the loaded model that encodes this modality."""
        return network

    def find_blocks(self) -> torch.nn.ModuleList:
        """The stack of transformer blocks; `layer` or `layers`, as transformers calls it."""
        stacks = [
            (name.count("."), module)
            for name, module in self.network.named_modules()
            if isinstance(module, torch.nn.ModuleList) and name.rpartition(".")[2] in ("layer", "layers")
        ]
        blocks = min(stacks, key=lambda stack: stack[0])[1]
        assert len(blocks) == self.model.layers - 1, "this architecture needs a find_blocks of its own"
        return blocks

    @abstractmethod
    def batch_key(self, signal: Any) -> Hashable:
        """As in `Encoder`."""

    @abstractmethod
    def inputs(self, signals: Sequence[Any]) -> Inputs:
        """What the network takes, by the model's own preprocessing; on the CPU."""

    def states(self, inputs: Inputs) -> Sequence[torch.Tensor]:
        """Every hidden state, (B, N, D) each, the embedding output first."""
        states: Sequence[torch.Tensor] = self.network(**inputs, output_hidden_states=True).hidden_states
        return states

    def own_tokens(self, inputs: Inputs) -> list[slice] | None:
        """Where each clip's own tokens stand among N: first, if `own_B` counts them. None: all are its own."""
        return [slice(0, own) for own in inputs[OWN].tolist()] if OWN in inputs else None

    def pool(self, state: torch.Tensor, own: list[slice] | None, pooling: str) -> torch.Tensor:
        """One hidden state (B, N, D) to one row per clip, (B, D), or (B, 2 D) for `mean_std`."""
        pooled = POOLINGS[pooling]
        if own is None:
            return pooled(state)
        return torch.cat([pooled(state[row : row + 1, tokens]) for row, tokens in enumerate(own)])

    def hidden(self, inputs: Inputs, layers: slice = ALL_LAYERS) -> torch.Tensor:
        """Mean hidden states hidden_BLD of these layers, from inputs on the network's device; differentiable."""
        return self._pooled(inputs, range(self.model.layers)[layers], "mean")

    def prepare(self, signals: Sequence[Any]) -> Inputs:
        """As in `Encoder`; in pinned memory where there is a GPU to copy it to."""
        inputs = self.inputs(signals)
        if self.device.type == "cuda":
            return {name: values.pin_memory() for name, values in inputs.items()}
        return inputs

    def encode_prepared(self, prepared: Inputs) -> Array:
        """As in `Encoder`."""
        inputs = {name: self._placed(name, values) for name, values in prepared.items()}
        hidden_BLD: Array = self._pooled(inputs, self.layers, self.options.pooling).cpu().numpy()
        return hidden_BLD

    def encode(self, signals: Sequence[Any]) -> Array:
        """As in `Encoder`."""
        return self.encode_prepared(self.prepare(signals))

    def _placed(self, name: str, values: torch.Tensor) -> torch.Tensor:
        if name == OWN:
            return values
        values = values.to(self.device, non_blocking=True)
        return values.to(self.dtype) if values.is_floating_point() else values

    def _pooled(self, inputs: Inputs, layers: Sequence[int], pooling: str) -> torch.Tensor:
        states, own = self.states(inputs), self.own_tokens(inputs)
        return torch.stack([self.pool(states[layer].float(), own, pooling) for layer in layers], dim=1)


def _mean_and_deviation(state_BND: torch.Tensor) -> torch.Tensor:
    return torch.cat([state_BND.mean(1), state_BND.std(1, correction=0)], dim=1)


POOLINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda state_BND: state_BND.mean(1),
    "mean_std": _mean_and_deviation,
    "last": lambda state_BND: state_BND[:, -1],
    "cls": lambda state_BND: state_BND[:, 0],
}


def compute_dtype(compute: str, device: torch.device) -> torch.dtype:
    """The number format that `compute` names.

    Raises:
        ValueError: this GPU does not have it.
    """
    if compute == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError("compute=bfloat16: this GPU does not have it; set compute=float16 or float32")
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return dtypes[compute]


def deviation(encoder: Encoder, reference: Encoder, signals: Sequence[Any]) -> dict[str, float]:
    """How far an approximate encoder is from the exact one: |a - b| / max(1, |b|), each clip encoded alone.

    Args:
        encoder: of another number format or window.
        reference: the same model with `EncoderOptions.exact`.
        signals: clips that both can take.

    Returns:
        `max` and `mean` over all values of all rows, and the number of `clips`.
    """
    assert signals, "a deviation of no clips"
    with torch.inference_mode():
        rows = [(encoder.encode([signal]), reference.encode([signal])) for signal in signals]
    ours, exact = (np.concatenate(part) for part in zip(*rows, strict=True))
    relative = np.abs(ours - exact) / np.maximum(1, np.abs(exact))
    return {"max": float(relative.max()), "mean": float(relative.mean()), "clips": len(signals)}
