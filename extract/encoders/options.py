"""How an encoder is run and what is kept of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from extract.encoders.models import Model


@dataclass(frozen=True)
class EncoderOptions:
    """How an encoder is run and what is kept of it.

    Attributes:
        pooling: over a clip's own tokens: `mean`; `mean_std`, mean and population standard deviation side by
            side; `last`, the last token; `cls`, the class token.
        layers: `all`, or the numbers of the hidden states that are kept.
        compute: number format of weights and activations; pooling is in float32 always.
        window: `30s`, as Whisper was trained, or `clip`: its window ends with the clip. Others have no window.
        window_seconds: longer sound is encoded in windows of this length; None: in the longest that the encoder takes.
        hop_seconds: from the beginning of one to that of the next; None: each begins where the last one ended.
        windows_together: how many windows of a long clip go through the network at a time.
    """

    pooling: str = "mean"
    layers: str | tuple[int, ...] = "all"
    compute: str = "float32"
    window: str = "30s"
    window_seconds: float | None = None
    hop_seconds: float | None = None
    windows_together: int = 1

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
