"""Both engines of speech recognition on the same weights: clips per second on one thread, and on a GPU where one is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch

from configs.schema.features import TIMESTAMPED, TRANSFORMERS, Asr
from extract.asr.recogniser import Engine, load_recogniser
from extract.asr.transcript import Waveform
from tests.benchmarks.stopwatch import Times, interleaved
from tests.tiny.places import SHARED

CHECKPOINT = SHARED / "models/whisper-tiny.en-ravdess/model.pt"
BATCHES, CLIPS, SECONDS = (1, 8, 32), {"cpu": 32, "cuda": 256}, 3.7


def run(folder: Path) -> list[str]:
    """Time whisper-timestamped against transformers in batches; ASR=<Whisper name or .pt> for other weights."""
    del folder
    model = os.environ.get("ASR", str(CHECKPOINT))
    if model == str(CHECKPOINT) and not CHECKPOINT.is_file():
        return [f"no Whisper at {CHECKPOINT}; name one: ASR=base.en make bench BENCH=asr"]
    torch.set_num_threads(1)
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    lines = [line for device in devices for line in _on(torch.device(device), model)]
    return lines if "cuda" in devices else [*lines, "no GPU here: not measured on one"]


def _on(device: torch.device, model: str) -> Iterator[str]:
    engines = {TIMESTAMPED: load_recogniser(Asr(model), device).engine}
    for size in BATCHES:
        asr = Asr(model, engine=TRANSFORMERS, batch_size=size)
        engines[f"{TRANSFORMERS}, batch {size}"] = load_recogniser(asr, device).engine
    clips = _clips(CLIPS[device.type])
    times = interleaved({name: partial(_hear, engine, clips) for name, engine in engines.items()}, rounds=1)
    yield f"{len(clips)} clips, {Path(model).name}, {device.type}, one thread:"
    yield from (f"  {name}: {_told(taken, len(clips), times[TIMESTAMPED])}" for name, taken in times.items())


def _told(taken: Times, clips: int, usual: Times) -> str:
    return f"{clips / taken.wall_seconds:.2f} clips/s; whisper-timestamped takes {usual.over(taken)}"


def _hear(engine: Engine, clips: Sequence[Waveform]) -> None:
    for first in range(0, len(clips), engine.batch_size):
        engine.hear(clips[first : first + engine.batch_size])


def _clips(number: int) -> list[Waveform]:
    """Real voices of speakers that no Whisper here was trained on, as often as needed; noise where there are none."""
    files = sorted((SHARED / "ravdess/audio").glob("Actor_2[1-4]/*.flac"))
    if not files:
        draws = np.random.default_rng(0).standard_normal((number, round(SECONDS * 16_000)))
        return list(0.1 * draws.astype(np.float32))
    return [soundfile.read(files[7 * place % len(files)], dtype="float32")[0] for place in range(number)]
