"""How far transcripts of another number format are from those in float32, measured on the corpus's own clips."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from itertools import islice

import torch

from configs.schema.features import TRANSFORMERS, Asr
from extract.asr.models import asr_precision
from extract.asr.recogniser import Recogniser, load_recogniser
from extract.asr.transcript import Transcript, Waveform

CLIPS_MEASURED = 8


def is_approximate(asr: Asr, device: torch.device) -> bool:
    """Whether texts may differ from those in float32, and it is measured. whisper-timestamped's stores stay as they
    were: they name the format alone."""
    return asr.model is not None and asr.engine == TRANSFORMERS and asr_precision(device.type) != "float32"


def measure(
    asr: Asr, recogniser: Recogniser, device: torch.device, waveforms: Iterable[Waveform]
) -> Mapping[str, float]:
    """What the first clips sound like to this recogniser and to the same one in float32.

    Returns:
        `clips`; `other_texts`, how many of them have another text; and among the others the largest differences of
        the mean `confidence` and of word times in `seconds`. Empty when there is no clip to measure on.
    """
    chosen = list(islice(waveforms, CLIPS_MEASURED))
    if not chosen:
        return {}
    exact = load_recogniser(asr, device, "float32", one_by_one=True)
    pairs = [(recogniser.transcribe(waveform_T), exact.transcribe(waveform_T)) for waveform_T in chosen]
    return deviation(pairs)


def deviation(pairs: Iterable[tuple[Transcript, Transcript]]) -> Mapping[str, float]:
    """As `measure`, of transcripts of the same clips."""
    pairs = list(pairs)
    same = [(one, other) for one, other in pairs if one.transcript == other.transcript]
    confidences = [abs(one.confidence - other.confidence) for one, other in same if not math.isnan(one.confidence)]
    seconds = [
        abs(ours[end] - theirs[end])
        for one, other in same
        for ours, theirs in zip(json.loads(one.words), json.loads(other.words), strict=True)
        for end in ("start_seconds", "end_seconds")
    ]
    return {
        "clips": len(pairs),
        "other_texts": len(pairs) - len(same),
        "confidence": max(confidences, default=0.0),
        "seconds": round(max(seconds, default=0.0), 3),
    }
