"""What each window of a clip contributes: the probability that is lost when it is taken away (occlusion sensitivity,
Zeiler & Fergus, Visualizing and understanding convolutional networks, ECCV 2014, section 4).

Of sound a window is silenced, of pictures it is blackened, of the transcript the words that begin in it are left out.
One signal at a time, so that the others stay as they were.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cache.media import SAMPLE_RATE_HZ, Media
from fuse.predict.encode import EncodedClip, Row
from fuse.predict.model import Prediction, TrainedModel


@dataclass(frozen=True)
class Window:
    """A part of a clip.

    Attributes:
        start, end: in shares of the clip, from 0 to 1.
        contributions: by modality, how much the probability of the predicted label falls without it.
    """

    start: float
    end: float
    contributions: Mapping[str, float]


def windows(
    model: TrainedModel,
    media: Media,
    encoded: EncodedClip,
    whole: Prediction,
    count: int,
    speaker: str | None = None,
) -> Iterator[Window]:
    """Divide a clip into `count` equal windows; each costs a run of every encoder whose signal it has a part in.

    Args:
        model: that predicted it.
        media: the clip as it was heard and seen.
        encoded: what the encoders made of it.
        whole: the prediction of the whole clip.
        count: how many.
        speaker: as for the prediction.
    """
    for number in range(count):
        start, end = number / count, (number + 1) / count
        signals = _without(media, encoded, start, end)
        contributions = {}
        for name, signal in signals.items():
            if name in encoded.rows:
                row_D = model.encoder.row(name, signal) if len(signal) else None
                left = _worth(model, encoded, name, row_D, whole.label, speaker)
                contributions[name] = whole.probabilities[whole.label] - left
        yield Window(start, end, contributions)


def _worth(
    model: TrainedModel, encoded: EncodedClip, name: str, row_D: Row | None, label: str, speaker: str | None
) -> float:
    """Probability of the label with another row, or none, for one modality. Of nothing at all, nothing is known."""
    rows = {one: row for one, row in encoded.rows.items() if one != name}
    rows = rows if row_D is None else {**rows, name: row_D}
    judged = model.judge("", replace(encoded, rows=rows), speaker)
    return judged.probabilities.get(label, 1 / len(model.label_names))


def _without(media: Media, encoded: EncodedClip, start: float, end: float) -> dict[str, Any]:
    """Each signal that has something in this window, without it."""
    signals: dict[str, Any] = {}
    if media.waveform_T is not None and len(media.waveform_T):
        signals["audio"] = media.waveform_T.copy()
        signals["audio"][_part(len(media.waveform_T), start, end)] = 0
    if media.frames_THWC is not None and len(media.frames_THWC):
        signals["video"] = media.frames_THWC.copy()
        signals["video"][_part(len(media.frames_THWC), start, end)] = 0
    words = json.loads(encoded.heard.words) if encoded.heard else []
    if words and media.waveform_T is not None:
        seconds = len(media.waveform_T) / SAMPLE_RATE_HZ
        kept = [word["text"] for word in words if not start <= word["start_seconds"] / seconds < end]
        if len(kept) < len(words):
            signals["text"] = " ".join(kept)
    return signals


def _part(count: int, start: float, end: float) -> slice:
    edges = np.round(np.array([start, end]) * count).astype(int)
    return slice(int(edges[0]), int(edges[1]))
