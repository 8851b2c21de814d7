"""A corpus of any size without media, and an encoder that returns seeded numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from cache.corpus.clips import Clip, write_metadata
from cache.corpus.ravdess import LABELS
from cache.features.rows import ArraySpec, UnitRows
from configs.loader import check
from configs.schema.features import FeaturesConfig
from extract.run.plan import Plan

# Sound in two stores, picture and text in one: four arrays.
CONDITIONS = ("clean", "noise-white-0db")
CLIPS_PER_SPEAKER = 400
CLIPS_PER_FOLDER = 1000


def stub_clips(count: int) -> Iterable[Clip]:
    """Clips of eight labels, each of which every speaker has."""
    for number in range(count):
        yield Clip(
            f"clip-{number:07d}",
            f"clips/{number // CLIPS_PER_FOLDER:04d}/clip-{number:07d}.mp4",
            LABELS[number * 5 % len(LABELS)],
            str(1 + number // CLIPS_PER_SPEAKER),
            statement="Kids are talking by the door",
        )


def write_stub_corpus(folder: Path, clips: int, name: str = "metadata.csv") -> None:
    """A metadata.csv, or .parquet, of so many clips."""
    write_metadata(stub_clips(clips), folder / name)


def stub_config(folder: Path, encoders: Path, name: str = "metadata.csv") -> FeaturesConfig:
    """Stage one of the corpus in `folder`."""
    names = {"audio": "wav2vec2", "video": "videomae", "text": "roberta"}
    tree = {
        "corpus": str(folder / name),
        "features_dir": str(folder / "features"),
        "encoders": {modality: str(encoders / model) for modality, model in names.items()},
        "asr": {"model": None},
        "conditions": list(CONDITIONS),
        "media": {"size": 32},
    }
    return check(FeaturesConfig, tree, "the stub's")


def fill(plan: Plan, units: Sequence[int]) -> int:
    """Write what these units lack, as `process_unit` does; returns how many units of arrays were written."""
    written = 0
    for unit in units:
        for array in plan.pending(unit):
            rows = stub_rows(array.spec, unit, [clip.clip_id for clip in plan.clips(unit)])
            plan.stores[array.condition.name].write_unit(array.spec, unit, rows)
            written += 1
    return written


def stub_rows(spec: ArraySpec, unit: int, clip_ids: Sequence[str]) -> UnitRows:
    """The rows of a unit: normal numbers, seeded by the unit."""
    rows = UnitRows.empty(len(clip_ids), spec)
    hidden_BLD = np.random.default_rng(unit).standard_normal(rows.hidden_BLD.shape, np.float32)
    for row, hidden_LD in enumerate(hidden_BLD):
        rows.done(row, hidden_LD)
    rows.source = [hashlib.sha256(clip_id.encode()).hexdigest() for clip_id in clip_ids]
    return rows
