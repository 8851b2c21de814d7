"""Both engines on the real Whisper and all clips of four speakers that it was not trained on, clean and in heavy noise.

Minutes: every clip is heard twice.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from cache.conditions import parse_joint
from cache.media import Media
from configs.schema.features import TIMESTAMPED, TRANSFORMERS, Asr
from extract.asr.recogniser import Recogniser, load_recogniser
from extract.asr.transcript import Waveform
from extract.corrupt.apply import corrupt
from extract.corrupt.noise.sources import NoiseSources
from tests.tiny.places import SHARED, needs_audio

CHECKPOINT = SHARED / "models/whisper-tiny.en-ravdess/model.pt"
BATCH = 8


def recogniser(engine: str, batch_size: int | None = None) -> Recogniser:
    return load_recogniser(Asr(str(CHECKPOINT), engine=engine, batch_size=batch_size), torch.device("cpu"))  # type: ignore[arg-type]


def sounds(condition: str) -> list[Waveform]:
    files = sorted((SHARED / "ravdess/audio").glob("Actor_2[1-4]/*.flac"))
    assert len(files) == 240
    return [_under(condition, file) for file in files]


def _under(condition: str, file: Path) -> Waveform:
    clean = Media(soundfile.read(file, dtype="float32")[0], None)
    waveform_T = corrupt(clean, parse_joint(condition).parts[0], file.stem, NoiseSources({})).waveform_T
    assert waveform_T is not None
    return waveform_T


@needs_audio
@pytest.mark.skipif(not CHECKPOINT.is_file(), reason="no Whisper checkpoint in $SHARED")
@pytest.mark.slow
@pytest.mark.parametrize("condition", ["clean", "noise-white-minus10db"])
def test_both_engines_hear_the_same_in_240_clips(condition: str) -> None:
    heard_in = sounds(condition)
    timestamped, batched = recogniser(TIMESTAMPED), recogniser(TRANSFORMERS, BATCH)
    theirs = [one for sound_T in heard_in for one in timestamped.transcribe_all([sound_T])]
    ours = [one for first in range(0, 240, BATCH) for one in batched.transcribe_all(heard_in[first : first + BATCH])]
    assert [one.transcript for one in ours] == [one.transcript for one in theirs]
    pairs = [
        (our, their)
        for one, other in zip(ours, theirs, strict=True)
        for our, their in zip(json.loads(one.words), json.loads(other.words), strict=True)
    ]
    for end in ("start_seconds", "end_seconds"):
        assert np.median([abs(our[end] - their[end]) for our, their in pairs]) <= 0.1
    # One number by two programs, to the three digits that both keep.
    assert max(abs(our["confidence"] - their["confidence"]) for our, their in pairs) <= 0.002
    alone = recogniser(TRANSFORMERS)
    for place in range(0, 240, 30):
        assert alone.transcribe(heard_in[place]).transcript == ours[place].transcript
