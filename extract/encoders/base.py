"""What an encoder is: a preparer, a frozen network, and how the network's tokens become one row.

A row depends on its clip and the encoder alone: clips share a batch only when nothing has to be
padded, so the batch equals the plain transformers call on each clip. A clip that is longer than what the encoder takes
is encoded in windows, each of them as if it were a clip, and their rows are pooled as they come.

Shape letters: B clips, L layers (embedding output first), N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from extract.encoders.convolutions import convolve_in_float32
from extract.encoders.loading import load_network, multiply_exactly
from extract.encoders.models import Model
from extract.encoders.options import DEFAULT, EncoderOptions
from extract.encoders.preparer import OWN, Array, Inputs, Preparer, Windows

ALL_LAYERS = slice(None)


class Preparing(Protocol):
    """What stage one asks of a preparer."""

    def batch_key(self, signal: Any) -> Hashable:
        """As in `Preparer`."""

    def prepare(self, signals: Sequence[Any]) -> Any:
        """What `encode_prepared` takes; may run in another thread."""


class Encoder(Protocol):
    """One frozen model. `encode_prepared` and `encode` take clips that agree in the preparer's `batch_key`."""

    device: torch.device

    @property
    def preparer(self) -> Preparing:
        """The half that is no network."""

    def encode_prepared(self, prepared: Any) -> Array:
        """Pooled hidden states hidden_BLD, float32, from what the preparer returned."""

    def encode(self, signals: Sequence[Any]) -> Array:
        """Pooled hidden states hidden_BLD, float32: the layers and the pooling that were asked for."""


class NetworkEncoder:
    """An encoder in steps, so that fine-tuning can take gradients through the middle one.

    Attributes:
        poolings: those that make sense for this kind of encoder.
        preparer_class: of what prepares the network's input.
        network: the transformers model, loaded frozen and in evaluation mode.
        blocks: its transformer blocks, first to last.
    """

    poolings: ClassVar[tuple[str, ...]] = ("mean", "mean_std")
    preparer_class: ClassVar[type[Preparer]]

    def __init__(self, model: Model, device: torch.device, options: EncoderOptions = DEFAULT) -> None:
        """Load the model.

        Raises:
            ValueError: options or settings that do not fit it, or weights that cannot be trusted.
        """
        self.check(model, options)
        self.model, self.device, self.options = model, device, options
        self.preparer = self.preparer_class(model, options)
        self.preparer.pinned = device.type == "cuda"
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

    def encode_prepared(self, prepared: Inputs | Windows) -> Array:
        """As in `Encoder`."""
        if isinstance(prepared, Windows):
            return POOLED_WINDOWS[self.options.pooling](self._rows_of(prepared))[None]
        inputs = {name: self._placed(name, values) for name, values in prepared.items()}
        hidden_BLD: Array = self._pooled(inputs, self.layers, self.options.pooling).cpu().numpy()
        return hidden_BLD

    def encode(self, signals: Sequence[Any]) -> Array:
        """As in `Encoder`."""
        return self.encode_prepared(self.preparer.prepare(signals))

    def _rows_of(self, windows: Windows) -> Iterator[tuple[Array, int]]:
        """The row (L, D) of each window, and its weight; hidden states of a few windows are in memory at a time."""
        together = self.options.windows_together
        for first in range(0, len(windows.parts), together):
            windows.between()
            parts = windows.parts[first : first + together]
            hidden_BLD = self.encode_prepared(self.preparer.prepare_windows(parts))
            yield from zip(hidden_BLD, [part.weight for part in parts], strict=True)

    def _placed(self, name: str, values: torch.Tensor) -> torch.Tensor:
        if name == OWN:
            return values
        values = values.to(self.device, non_blocking=True)
        return values.to(self.dtype) if values.is_floating_point() else values

    def _pooled(self, inputs: Inputs, layers: Sequence[int], pooling: str) -> torch.Tensor:
        states, own = self.states(inputs), self.own_tokens(inputs)
        return torch.stack([self.pool(at_least_float32(states[layer]), own, pooling) for layer in layers], dim=1)


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Half precision as float32, and anything finer as it is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _mean_and_deviation(state_BND: torch.Tensor) -> torch.Tensor:
    return torch.cat([state_BND.mean(1), state_BND.std(1, correction=0)], dim=1)


POOLINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda state_BND: state_BND.mean(1),
    "mean_std": _mean_and_deviation,
    "last": lambda state_BND: state_BND[:, -1],
    "cls": lambda state_BND: state_BND[:, 0],
}


def _weighted_mean(rows: Iterable[tuple[Array, int]]) -> Array:
    total, mean_LD = 0, np.zeros(())
    for row_LD, weight in rows:
        total += weight
        mean_LD = mean_LD + (row_LD.astype(np.float64) - mean_LD) * (weight / total)
    return mean_LD.astype(np.float32)


def _joined_moments(rows: Iterable[tuple[Array, int]]) -> Array:
    """Mean and deviation of all tokens together, from those of each window (Chan, Golub & LeVeque 1979)."""
    total, mean_LD, scatter_LD = 0, np.zeros(()), np.zeros(())
    for row_LD, weight in rows:
        total += weight
        own_LD, deviation_LD = np.split(row_LD.astype(np.float64), 2, axis=1)
        away_LD = own_LD - mean_LD
        mean_LD = mean_LD + away_LD * (weight / total)
        scatter_LD = scatter_LD + weight * (deviation_LD**2 + away_LD * (own_LD - mean_LD))
    return np.concatenate([mean_LD, np.sqrt(scatter_LD / total)], axis=1).astype(np.float32)


def _last_one(rows: Iterable[tuple[Array, int]]) -> Array:
    *_, (row_LD, _) = rows
    return row_LD


# A clip's row from those of its windows (L, D) and their weights, in float64: the same windows give the same bits.
POOLED_WINDOWS: dict[str, Callable[[Iterable[tuple[Array, int]]], Array]] = {
    "mean": _weighted_mean,
    "mean_std": _joined_moments,
    "last": _last_one,
    "cls": _weighted_mean,
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
