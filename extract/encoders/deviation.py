"""How far approximate features are from exact ones: measured on the corpus's own clips, kept in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import torch

from extract.encoders.catalogue import EncoderOptions, NetworkEncoder, deviation, encoder_class
from extract.encoders.models import Model

CLIPS_MEASURED = 8
# Beside the arrays it speaks of. It is no part of their provenance: it follows from it.
DEVIATION_FILE = "deviation.json"


def is_approximate(model: Model, options: EncoderOptions) -> bool:
    """Whether rows under these options differ from the exact ones. Only Whisper has a window."""
    return options.compute != "float32" or (model.model_type == "whisper" and options.window != "30s")


def measure(encoder: NetworkEncoder, modality: str, signals: Iterable[Any]) -> dict[str, float]:
    """Largest and mean |a - b| / max(1, |b|) against the exact encoder, over the first few clips.

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
    with torch.inference_mode():
        return deviation(encoder, exact, chosen)


def readable(read: Callable[[int], Any], encoder: NetworkEncoder, rows: int) -> Iterable[Any]:
    """The signals of those rows that the encoder can take."""
    for row in range(rows):
        try:
            signal = read(row)
            encoder.batch_key(signal)
        # Such clips fail, or are absent, when their unit is computed.
        except Exception:
            continue
        yield signal
