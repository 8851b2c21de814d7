"""The extraction loop that people write: per clip and condition decode, processor, model, one .npy per row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cache.conditions import parse_condition
from cache.corpus.clips import Clip, Corpus
from extract.corrupt.apply import corrupt
from extract.encoders.base import NetworkEncoder
from extract.media.decode import decode

Rows = Callable[[Any], np.ndarray]


def plain_calls(encoders: Mapping[str, NetworkEncoder]) -> dict[str, Rows]:
    """Processor and model of each modality, one clip at a time; the networks are the pipeline's own."""

    def call(encoder: NetworkEncoder) -> Rows:
        def rows(signal: Any) -> np.ndarray:
            with torch.inference_mode():
                states = encoder.states(encoder.preparer.inputs([signal]))
            return np.stack([state[0].mean(0).float().numpy() for state in states])

        return rows

    return {name: call(encoder) for name, encoder in encoders.items()}


def usual_loop(
    corpus: Corpus,
    encoders: Mapping[str, NetworkEncoder],
    conditions: Sequence[str],
    out: Path,
    frames: int,
    size: int,
    only_changed: bool,
) -> None:
    """Extract everything; `only_changed`: re-encode only what a condition changes."""
    calls = plain_calls(encoders)
    for name in conditions:
        condition = parse_condition(name)
        wanted = [m for m in calls if not only_changed or m in condition.changes]
        # Statements stand for transcripts: noise cannot reach them, so a careful loop leaves them out.
        if only_changed and condition.modality:
            wanted = [modality for modality in wanted if modality != "text"]
        for clip in corpus.clips:
            media = corrupt(decode(corpus.source(clip), frames, size), condition, clip.clip_id)
            for modality in wanted:
                signal = {"audio": media.waveform_T, "video": media.frames_THWC, "text": clip.statement}[modality]
                _save(out, name, clip, modality, calls[modality](signal))


def _save(out: Path, condition: str, clip: Clip, modality: str, row_LD: np.ndarray) -> None:
    folder = out / condition / modality
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{clip.clip_id}.npy", row_LD)
