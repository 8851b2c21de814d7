"""The word error rate that a table states: wrong words over words spoken, under the condition that is heard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cache.conditions import parse_joint
from cache.corpus.clips import Clip, write_metadata
from cache.features.rows import ArraySpec, UnitRows
from cache.features.store import FeatureStore
from configs.loader import check
from configs.schema.fusion import FusionConfig
from fuse.runs.tables import word_error_rate

CLIPS = [
    Clip("a", "a.wav", "x", "1", statement="Kids are talking by the door"),
    Clip("b", "b.wav", "y", "1", statement="No!"),
    Clip("c", "c.wav", "y", "2"),
]


def write_store(folder: Path, condition: str, modality: str, rates: list[float], model: str | None = "tiny.en") -> None:
    store = FeatureStore.create(folder / f"{condition}.zarr", [clip.clip_id for clip in CLIPS])
    spec = ArraySpec(modality, "tiny", 1, 2, {"asr": {"model": model}})
    store.require(spec)
    unit = UnitRows.empty(len(CLIPS), spec)
    for row in range(len(CLIPS)):
        unit.done(row, np.zeros((1, 2), np.float32))
    if modality == "text":
        unit.columns["wer"] = rates
    store.write_unit(spec, 0, unit)


@pytest.fixture
def config(tmp_path: Path) -> FusionConfig:
    write_metadata(CLIPS, tmp_path / "metadata.csv")
    tree = {"corpus": str(tmp_path / "metadata.csv"), "features_dir": str(tmp_path), "modalities": "audio"}
    return check(FusionConfig, tree, "test")


def test_long_statements_count_for_more(config: FusionConfig, tmp_path: Path) -> None:
    """One word of six and both of one ("Oh, no no") are three of seven: the clips' mean would be 1.08."""
    write_store(tmp_path, "clean", "text", [0.0, 0.0, float("nan")])
    write_store(tmp_path, "noise-white-0db", "text", [1 / 6, 2.0, float("nan")])
    noisy, pair = parse_joint("noise-white-0db"), parse_joint("noise-white-0db+drop-frames-30")
    assert word_error_rate(config, CLIPS, noisy) == pytest.approx(3 / 7)
    # The picture is not heard.
    assert word_error_rate(config, CLIPS, pair) == pytest.approx(3 / 7)
    assert word_error_rate(config, CLIPS, parse_joint("drop-frames-30")) == 0.0
    assert word_error_rate(config, CLIPS[2:], noisy) is None


def test_what_nobody_transcribed_has_no_rate(config: FusionConfig, tmp_path: Path) -> None:
    write_store(tmp_path, "clean", "text", [0.0] * 3)
    write_store(tmp_path, "noise-white-0db", "audio", [])
    assert word_error_rate(config, CLIPS, parse_joint("noise-white-0db")) is None
    assert word_error_rate(config, CLIPS, parse_joint("noise-pink-0db")) is None


def test_a_statement_that_was_given_is_no_transcript(config: FusionConfig, tmp_path: Path) -> None:
    write_store(tmp_path, "clean", "text", [0.0] * 3, model=None)
    assert word_error_rate(config, CLIPS, parse_joint("clean")) is None
