"""Trained on one corpus, tested on another: names kept apart, statistics over the target's speakers."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cache.corpus.clips import Clip, write_metadata
from cache.corpus.ravdess import LABELS
from configs.loader import check, load_config
from configs.schema.fusion import FusionConfig
from configs.schema.studies import RobustnessConfig
from configs.schema.sweep import SweepConfig
from fuse.finetune.start import find_start
from fuse.robustness.__main__ import run as robustness
from fuse.robustness.conditions import settled
from fuse.robustness.evaluation import read_runs
from fuse.runs.checkpoint import read_checkpoint
from fuse.runs.tables import corpus_of
from fuse.scores.predictions import read_predictions
from fuse.sweep.__main__ import run as sweep
from fuse.sweep.rank import work
from fuse.train import run as train
from tests.tiny.features import tiny_clips, write_tiny_features

pytestmark = pytest.mark.usefixtures("all_undrawn")
# B has speakers and clips of the same names as A, and other words for labels.
SPEAKERS = tuple(range(1, 11))
IN_B = {"angry": "Wut", "happy": "Freude"}
MAPPING = {"Wut": "angry", "Freude": "happy"}
NOISE = "noise-white-0db"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Corpora A and B with their features, of B under noise as well, and a run from A to B."""
    folder = tmp_path_factory.mktemp("cross")
    clips = tiny_clips(SPEAKERS)
    write_corpus(folder / "A", clips)
    write_corpus(folder / "B", clips, IN_B, {NOISE: 6.0})
    assert train(config_of(folder)) == 0
    return folder


def write_corpus(
    folder: Path, clips: list[Clip], words: dict[str, str] | None = None, noise: dict[str, float] | None = None
) -> None:
    write_tiny_features(folder, clips, noise)
    write_metadata([replace(clip, label=(words or {}).get(clip.label, clip.label)) for clip in clips], metadata(folder))


def metadata(folder: Path) -> Path:
    return folder / "metadata.csv"


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    target = {"corpus": str(metadata(folder / "B")), "features_dir": str(folder / "B"), "labels": MAPPING}
    own = {"corpus": str(metadata(folder / "A")), "features_dir": str(folder / "A")}
    return {
        **own,
        "protocol": "cross-corpus",
        "target": target,
        "modalities": ["audio"],
        "head": "lda",
        "output_dir": str(folder / "run"),
    } | more


def config_of(folder: Path, **more: Any) -> FusionConfig:
    return check(FusionConfig, settings(folder, **more), "test")


def test_the_source_trains_and_validates_and_the_whole_target_is_tested(folder: Path) -> None:
    """There was no way to do it: one metadata.csv held both, in which speaker 1 of A was speaker 1 of B."""
    predictions = read_predictions(folder / "run/predictions.csv")
    test, validation = (predictions.select(split=name) for name in ("test", "validation"))
    assert set(test.speaker) == {f"B:{number}" for number in SPEAKERS}
    assert len(test) == len(SPEAKERS) * len(LABELS) * 2
    fold = read_checkpoint(folder / "run/best_model.pth").fold
    assert set(validation.speaker) == set(fold.validation)
    assert {*fold.train, *fold.validation} == {f"A:{number}" for number in SPEAKERS}
    assert (len(fold.train), len(fold.validation)) == (8, 2)
    assert set(predictions.protocol) == {"cross-corpus"}
    metrics = json.loads((folder / "run/metrics.json").read_text())
    assert metrics["labels"] == list(LABELS)
    assert metrics["test"]["uar"] > 0.9
    assert metrics["test"]["speakers"] == len(SPEAKERS)


def test_rows_are_those_of_each_corpus(folder: Path, tmp_path: Path) -> None:
    """A clip's id is the same in both; B's rows stand under B's names alone."""
    write_tiny_features(tmp_path / "B", tiny_clips(SPEAKERS), offset=50.0)
    write_metadata(tiny_clips(SPEAKERS), metadata(tmp_path / "B"))
    target = {"corpus": str(metadata(tmp_path / "B")), "features_dir": str(tmp_path / "B")}
    assert train(config_of(folder, target=target, output_dir=str(tmp_path / "run"))) == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["validation"]["uar"] > 0.9
    assert metrics["test"]["uar"] < 0.5


def test_robustness_pairs_the_speakers_of_the_target(folder: Path, tmp_path: Path) -> None:
    """The source has no noise at all, and needs none."""
    told = {"runs": [str(folder / "run")], "conditions": [NOISE], "modalities": [["audio"]]}
    assert robustness(check(RobustnessConfig, {**told, "output_dir": str(tmp_path)}, "test")) == 0
    with (tmp_path / "robustness_table.csv").open(newline="") as file:
        clean, noisy = csv.DictReader(file)
    assert (clean["speakers"], noisy["speakers"]) == ("10", "10")
    assert float(noisy["drop_low"]) < float(noisy["drop"]) < float(noisy["drop_high"])
    assert set(read_predictions(tmp_path / "predictions.csv").speaker) == {f"B:{number}" for number in SPEAKERS}
    with pytest.raises(ValueError, match=r"is of two corpora; leave corpus, features_dir and labels out"):
        robustness(check(RobustnessConfig, {**told, "corpus": str(metadata(folder / "A"))}, "test"))


def test_conditions_that_are_cached_are_those_of_the_target(folder: Path) -> None:
    """They were looked for in the source's features, which has none, so that the table was of clean clips alone."""
    told = RobustnessConfig(runs=(str(folder / "run"),))
    (run,) = read_runs(told)
    assert [str(one) for one in settled(told, [run.config])[0].conditions or ()] == [NOISE]


def test_what_the_source_has_and_the_target_lacks_is_told(folder: Path, tmp_path: Path) -> None:
    """A condition that is not in the default recipe was left out of the table without a word."""
    write_tiny_features(tmp_path / "A", tiny_clips(SPEAKERS), {"noise-pink-0db": 6.0})
    write_corpus(tmp_path / "B", tiny_clips(SPEAKERS), IN_B)
    settings_ = {
        "corpus": str(metadata(tmp_path / "A")),
        "features_dir": str(tmp_path / "A"),
        "target": {"corpus": str(metadata(tmp_path / "B")), "features_dir": str(tmp_path / "B"), "labels": MAPPING},
        "output_dir": str(tmp_path / "run"),
        "head": "mlp",
        "optim": {"epochs": 1},
        "augment": {"audio": ["noise-pink-0db"]},
    }
    assert train(config_of(folder, **settings_)) == 0
    trained = load_config(FusionConfig, tmp_path / "run/config.yaml")
    found, (left_out, *_) = settled(RobustnessConfig(runs=(str(tmp_path / "run"),)), [trained])
    assert not found.conditions
    assert "noise-pink-0db; to have them: make features" in left_out
    assert f"features_dir={tmp_path / 'B'}" in left_out


def test_a_target_is_enough_and_a_sweep_takes_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = {key: value for key, value in settings(folder).items() if key not in ("protocol", "output_dir")}
    told = {"run": run, "grid": {"optim.shrinkage": [0.2, 0.5]}, "output_dir": str(tmp_path)}
    monkeypatch.setattr("fuse.sweep.__main__._launch", lambda out, *_: work(out, 0, 1))
    assert sweep(check(SweepConfig, told, "test")) == 0
    assert load_config(FusionConfig, tmp_path / "best.yaml").protocol == "cross-corpus"
    assert read_predictions(tmp_path / "runs/1/predictions.csv").select(split="test").speaker[0].startswith("B:")


def test_a_fine_tune_does_not_start_from_two_corpora(folder: Path) -> None:
    with pytest.raises(
        ValueError, match=r"is of two corpora; .*make train-fusion CONFIG=\S+/run/config.yaml SET=.*target=null"
    ):
        find_start(folder / "run")


def test_corpora_of_one_name_are_told_apart(folder: Path, tmp_path: Path) -> None:
    for side in ("a", "b"):
        write_corpus(tmp_path / side / "data", tiny_clips((1, 2), per_class=1))
    own, other = (str(metadata(tmp_path / side / "data")) for side in ("a", "b"))
    found = corpus_of(config_of(folder, corpus=own, target={"corpus": other, "features_dir": str(tmp_path)}))
    assert {clip.speaker for clip in found.clips} == {
        f"{side}-data:{number}" for side in ("source", "target") for number in (1, 2)
    }
    assert len({clip.clip_id for clip in found.clips}) == len(found.clips)


def test_other_labels_are_refused(folder: Path) -> None:
    plain = settings(folder)["target"] | {"labels": {}}
    with pytest.raises(ValueError, match=r"cross-corpus: B has other labels than A \(missing: angry, happy; new: "):
        train(config_of(folder, target=plain))


def test_features_that_were_made_otherwise_are_refused(folder: Path, tmp_path: Path) -> None:
    write_tiny_features(tmp_path, tiny_clips(SPEAKERS), made={"dtype": "bfloat16"})
    target = {"corpus": str(metadata(tmp_path)), "features_dir": str(tmp_path)}
    with pytest.raises(ValueError, match=r"made otherwise .*\(dtype bfloat16, not unset\).*the same settings"):
        train(config_of(folder, target=target, output_dir=str(tmp_path / "run")))


def test_a_single_speaker_cannot_train_and_validate(folder: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path, tiny_clips((1,)))
    with pytest.raises(ValueError, match=r"has 1 speaker; at least 2 are needed"):
        train(config_of(folder, corpus=str(metadata(tmp_path)), features_dir=str(tmp_path)))


def test_a_protocol_without_its_corpus_and_a_corpus_without_its_protocol_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"set target=\{corpus: \.\.\., features_dir: \.\.\.\}"):
        config_of(folder, target=None)
    with pytest.raises(ValueError, match=r"target is what protocol=cross-corpus tests on, not holdout"):
        config_of(folder, protocol="holdout")
