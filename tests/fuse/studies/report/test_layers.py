from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cache.conditions import UNCHANGED, parse_joint
from cache.corpus.clips import read_corpus
from cache.features.rows import ArraySpec, State, UnitRows
from cache.features.store import FeatureStore
from cache.features.table import FeatureTable, load_table
from cache.features.units import unit_count, unit_rows
from cache.protocols.folds import Fold
from configs.schema.protocols import load_protocol
from fuse.studies.report.layers import INVERSE_PENALTY, StoredLayer, probe_layer, stored_layers, validated_once
from tests.tiny.features import LAYERS, tiny_clips, write_tiny_features


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    clips = tiny_clips()
    write_tiny_features(folder, clips, {"noise-white-10db": 2.0})
    spec = ArraySpec("face", "units", 1, 2, {"random_weights": False})
    store = FeatureStore.create(folder / "clean.zarr", [clip.clip_id for clip in clips])
    store.require(spec)
    for unit in range(unit_count(len(clips))):
        rows = UnitRows.empty(len(unit_rows(len(clips), unit)), spec)
        for row in range(len(rows.state)):
            rows.done(row, np.ones((1, 2), np.float32))
        store.write_unit(spec, unit, rows)
    return folder


def table_of(features: Path, layer: int, modality: str = "audio") -> FeatureTable:
    corpus = read_corpus(features / "metadata.csv")
    return load_table(features, corpus.clips, [modality], layers=layer, label_names=corpus.labels)


def test_every_stored_layer_is_named_and_imported_features_have_one(features: Path) -> None:
    found = stored_layers(features, ["audio", "face"], parse_joint("noise-white-10db"), {})
    assert found == [*(StoredLayer("audio", "tiny", layer) for layer in range(LAYERS)), StoredLayer("face", "units", 0)]
    with pytest.raises(ValueError, match=r"no feature store .*clean\.zarr"):
        stored_layers(features / "nowhere", ["audio"], UNCHANGED, {})


def test_the_score_is_that_of_a_plain_pipeline(features: Path) -> None:
    table, folds = table_of(features, 1), load_protocol("luna5").folds(tiny_clips())
    labels, predicted = [], []
    for fold in folds:
        train, validation = (table.rows_of(fold.clip_ids(part, table.clips)) for part in ("train", "validation"))
        plain = make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_PENALTY, max_iter=500))
        plain.fit(table.features["audio"][list(train)].astype(np.float64), table.labels[list(train)])
        labels.append(table.labels[list(validation)])
        predicted.append(plain.predict(table.features["audio"][list(validation)].astype(np.float64)))
    expected = recall_score(np.concatenate(labels), np.concatenate(predicted), average="macro")
    score = probe_layer(table, folds, StoredLayer("audio", "tiny", 1))
    assert score.uar == pytest.approx(expected)
    assert (score.clips, score.speakers) == (24 * 16, 24)
    assert score.low is not None
    assert score.high is not None
    assert score.low < score.uar < score.high


def test_test_speakers_are_never_looked_at(features: Path) -> None:
    """Whatever stands in their rows, the score is the same."""
    table, folds = table_of(features, 1), load_protocol("holdout").folds(tiny_clips())
    plain = probe_layer(table, folds, StoredLayer("audio", "tiny", 1))
    table.features["audio"][list(table.rows_of(folds[0].clip_ids("test", table.clips)))] = 1e6
    assert probe_layer(table, folds, StoredLayer("audio", "tiny", 1)) == plain
    assert (plain.low, plain.high, plain.speakers) == (None, None, 2)
    table.features["audio"][list(table.rows_of(folds[0].clip_ids("validation", table.clips)))] = 0
    assert probe_layer(table, folds, StoredLayer("audio", "tiny", 1)) != plain


def test_features_that_say_nothing_score_at_chance(features: Path) -> None:
    score = probe_layer(
        table_of(features, 0, "face"), load_protocol("luna5").folds(tiny_clips()), StoredLayer("face", "units", 0)
    )
    assert score.uar == pytest.approx(1 / 8)


def test_clips_without_the_modality_stay_out(tmp_path: Path) -> None:
    clips = tiny_clips()
    absent = {("clean", "audio", clip.clip_id): State.ABSENT for clip in clips[::3]}
    write_tiny_features(tmp_path, clips, states=absent)
    table, folds = table_of(tmp_path, 0), load_protocol("luna5").folds(clips)
    assert probe_layer(table, folds, StoredLayer("audio", "tiny", 0)).clips == 24 * 16 - len(clips[::3])
    nobody = replace(table, present={"audio": np.zeros(len(clips), np.bool_)})
    with pytest.raises(ValueError, match="fold 1: no training or no validation clip has audio"):
        probe_layer(nobody, folds, StoredLayer("audio", "tiny", 0))


def test_each_clip_counts_once() -> None:
    clips = tiny_clips()
    kept = validated_once(load_protocol("leave-one-speaker-out").folds(clips), clips)
    speakers = [speaker for fold in kept for speaker in fold.validation]
    assert sorted(speakers, key=int) == [str(number + 1) for number in range(24)]
    luna = load_protocol("luna5").folds(clips)
    assert validated_once(luna, clips) == list(luna)
    twice = [Fold(1, ("1",), ("2", "3"), ("4",)), Fold(2, ("1",), ("3", "5"), ("4",)), Fold(3, ("1",), ("5",), ("4",))]
    assert [fold.number for fold in validated_once(twice, clips)] == [1, 3]
