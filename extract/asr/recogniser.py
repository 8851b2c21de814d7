"""A recogniser: an engine, and what it need not be asked."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from typing import Protocol

import torch

from configs.schema.features import TRANSFORMERS, Asr
from extract.asr.models import asr_precision, place_of
from extract.asr.transcript import Transcript, Waveform

# Whisper's own front end needs one hop; below it there is nothing to recognise.
SHORTEST_SAMPLES = 160
# Conditions that leave a sound alone meet it again within a unit, silence at any time.
SOUNDS_REMEMBERED = 4096
WINDOWS = {"cuda": 16, "cpu": 1}


class Engine(Protocol):
    """What hears words in sounds. `batch_size`: how many it likes to be given at a time."""

    batch_size: int

    def hear(self, waveforms: Sequence[Waveform]) -> list[Transcript]:
        """What is said in each, whatever the others are; without a word error rate. Raises what it likes."""


class Recogniser:
    """Waveforms to transcripts; equal ones are recognised once."""

    def __init__(self, engine: Engine) -> None:
        """Put an engine to use."""
        self.engine = engine
        self._known: OrderedDict[bytes, Transcript] = OrderedDict()

    @property
    def batch_size(self) -> int:
        """How many clips are best recognised together."""
        return self.engine.batch_size

    def transcribe(self, waveform_T: Waveform, statement: str = "") -> Transcript:
        """Recognise one clip; `statement` is the reference for the word error rate, "" when there is none."""
        return self.transcribe_all([waveform_T])[0].against(statement)

    def transcribe_all(self, waveforms: Sequence[Waveform]) -> list[Transcript]:
        """Recognise clips, without word error rates."""
        keys = [sha256(waveform_T.tobytes()).digest() for waveform_T in waveforms]
        sounds = dict(zip(keys, waveforms, strict=True))
        found = {key: self._known[key] for key in sounds if key in self._known}
        found |= {key: Transcript("") for key, waveform_T in sounds.items() if len(waveform_T) < SHORTEST_SAMPLES}
        new = [key for key in sounds if key not in found]
        if new:
            found |= zip(new, self.engine.hear([sounds[key] for key in new]), strict=True)
        self._remember(found)
        return [found[key] for key in keys]

    def _remember(self, found: dict[bytes, Transcript]) -> None:
        for key, transcript in found.items():
            self._known[key] = transcript
            self._known.move_to_end(key)
        while len(self._known) > SOUNDS_REMEMBERED:
            self._known.popitem(last=False)


def load_recogniser(
    asr: Asr, device: torch.device, precision: str | None = None, one_by_one: bool = False
) -> Recogniser:
    """Load the engine and the weights that are asked for.

    Args:
        asr: which; its model is given.
        device: where it runs.
        precision: number format of transformers, float32 or float16; None: that of the device.
        one_by_one: clips come singly, as in a prediction: the rest of a batch would be silence.

    Raises:
        ValueError: they cannot be had, or do not know the language.
    """
    assert asr.model is not None, "asked for without a recogniser"
    if asr.engine != TRANSFORMERS:
        from extract.asr.timestamped import Timestamped

        return Recogniser(Timestamped(asr.model, asr.language, device))
    from extract.asr.batched import Batched
    from extract.asr.loading import load_whisper

    size = 1 if one_by_one else asr.batch_size or WINDOWS[device.type]
    whisper = load_whisper(place_of(asr))
    return Recogniser(Batched(whisper, asr.language, device, size, precision or asr_precision(device.type)))
