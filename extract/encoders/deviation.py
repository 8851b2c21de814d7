"""How far approximate features are from exact ones: measured on the corpus's own clips, kept in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from extract.encoders.base import Encoder, NetworkEncoder, Preparing
from extract.encoders.catalogue import encoder_class
from extract.encoders.models import Model
from extract.encoders.options import EncoderOptions

CLIPS_MEASURED = 8


def is_approximate(model: Model, options: EncoderOptions) -> bool:
    """Whether rows under these options differ from the exact ones. Only Whisper has a window."""
    return options.compute != "float32" or (model.model_type == "whisper" and options.window != "30s")


def measure(encoder: NetworkEncoder, modality: str, signals: Iterable[Any]) -> dict[str, float]:
    """Largest and mean `|a - b| / max(1, |b|)` against the exact encoder, over the first few clips.

    Args:
        encoder: the approximate one.
        modality: which modality it encodes.
        signals: clips, in the order of the corpus.

    Returns:
        `max`, `mean` and `clips`; empty when there is no clip to measure on.
    """
    chosen = list(islice(signals, CLIPS_MEASURED))
    if not chosen:
        return {}
    exact = encoder_class(modality, encoder.model)(encoder.model, encoder.device, encoder.options.exact)
    return deviation(encoder, exact, chosen)


def deviation(encoder: Encoder, reference: Encoder, signals: Sequence[Any]) -> dict[str, float]:
    """How far an approximate encoder is from the exact one: `|a - b| / max(1, |b|)`, each clip encoded alone.

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


def readable(read: Callable[[int], Any], preparer: Preparing, rows: int) -> Iterable[Any]:
    """The signals of those rows that the encoder can take."""
    for row in range(rows):
        try:
            signal = read(row)
            preparer.batch_key(signal)
        # Such clips fail, or are absent, when their unit is computed.
        except Exception:
            continue
        yield signal
