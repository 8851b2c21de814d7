"""Reading and writing features: one chunk per unit against one per clip, a memory-mapped array, and the encoder."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import torch
import zarr

from cache.corpus.clips import Clip
from cache.corpus.ravdess import LABELS
from cache.features.rows import ArraySpec, UnitRows
from cache.features.store import FeatureStore
from cache.features.table import load_table
from cache.features.units import unit_count, unit_rows
from extract.encoders.catalogue import encoder_class
from extract.encoders.models import find_model
from tests.benchmarks.baselines.true_encoders import write_true_encoders
from tests.benchmarks.stopwatch import interleaved
from tests.tiny.corpus import tone

CLIPS, LAYERS, WIDTH, LAYER = 1440, 13, 768, 7


def run(folder: Path) -> list[str]:
    """Load one layer of 1440 x 13 x 768 in three ways; write it, and compare with encoding it."""
    clips = [Clip(f"c{n}", f"c{n}.wav", LABELS[n % 8], str(n // 60)) for n in range(CLIPS)]
    rng = np.random.default_rng(0)
    hidden_BLD = rng.standard_normal((CLIPS, LAYERS, WIDTH), np.float32)
    ours, per_clip, mapped = folder / "ours", folder / "per_clip.zarr", folder / "mapped.npy"
    writing = _write(ours, clips, hidden_BLD)
    _write_per_clip(per_clip, hidden_BLD)
    np.save(mapped, hidden_BLD)
    tables = []
    times = interleaved(
        {
            "ours": lambda: tables.append(load_table(ours, clips, ["audio"], layers=LAYER).features["audio"]),
            "per clip": lambda: zarr.open_array(per_clip, mode="r")[:, LAYER],
            "mapped": lambda: np.array(np.load(mapped, mmap_mode="r")[:, LAYER]),
        },
        rounds=5,
    )
    assert np.array_equal(tables[0], hidden_BLD[:, LAYER])
    seconds = _encoding_seconds(folder)
    return [
        f"one layer of {CLIPS} x {LAYERS} x {WIDTH} into a table:",
        f"  one chunk per clip takes {times['per clip'].over(times['ours'])}",
        f"  a memory-mapped npy is faster: the store takes {times['ours'].over(times['mapped'])}",
        f"  writing them durably: {1000 * writing / CLIPS:.2f} ms per clip, "
        f"{100 * writing / CLIPS / seconds:.2f} % of encoding a clip of 3.7 s with wav2vec2-base, one thread",
    ]


def _write(folder: Path, clips: list[Clip], hidden_BLD: np.ndarray) -> float:
    shutil.rmtree(folder, ignore_errors=True)
    spec = ArraySpec("audio", "bench", LAYERS, WIDTH, {"random_weights": True})
    store = FeatureStore.create(folder / "clean.zarr", [clip.clip_id for clip in clips])
    store.require(spec)
    start = time.perf_counter()
    for unit in range(unit_count(len(clips))):
        rows = unit_rows(len(clips), unit)
        filled = UnitRows.empty(len(rows), spec)
        for place, row in enumerate(rows):
            filled.done(place, hidden_BLD[row])
        store.write_unit(spec, unit, filled)
    return time.perf_counter() - start


def _write_per_clip(path: Path, hidden_BLD: np.ndarray) -> None:
    array = zarr.create_array(path, shape=hidden_BLD.shape, chunks=(1, LAYERS, WIDTH), dtype="f4", overwrite=True)
    array[:] = hidden_BLD


def _encoding_seconds(folder: Path) -> float:
    torch.set_num_threads(1)
    model = find_model(write_true_encoders(folder / "encoders")["audio"])
    encoder = encoder_class("audio", model)(model, torch.device("cpu"))
    sound = tone(3.7)
    with torch.inference_mode():
        encoder.encode([sound])
        start = time.perf_counter()
        for _ in range(3):
            encoder.encode([sound])
    return (time.perf_counter() - start) / 3
