"""What was heard in a clip, and how far it is from what was said."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

# Mono, 16 kHz, float32.
Waveform = npt.NDArray[np.float32]


class NoRoom(ValueError):
    """A batch of clips does not fit into the device's memory: the configuration's fault, and no clip's."""


@dataclass(frozen=True)
class Transcript:
    """What was heard. `words` is JSON: text, start_seconds, end_seconds, confidence.

    `confidence` is the mean over words, `wer` the word error rate against the statement, `no_speech` Whisper's
    probability that nobody speaks (the highest over its windows); NaN when there are no words, no statement,
    or no recogniser.
    """

    transcript: str
    words: str = "[]"
    confidence: float = math.nan
    wer: float = math.nan
    no_speech: float = math.nan

    def against(self, statement: str) -> Transcript:
        """The same with its word error rate; `statement` is the reference, "" when there is none."""
        return replace(self, wer=word_error_rate(statement, self.transcript))


def word_error_rate(reference: str, hypothesis: str) -> float:
    """Edits per reference word, case and punctuation aside; NaN without a reference."""
    import jiwer

    if not scored_words(reference):
        return math.nan
    return float(jiwer.wer(scored_words(reference), scored_words(hypothesis)))


def scored_words(text: str) -> str:
    """Lower case, no punctuation, single spaces."""
    return " ".join(re.findall(r"[\w']+", text.lower()))
