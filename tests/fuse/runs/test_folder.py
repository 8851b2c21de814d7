from __future__ import annotations

import json
import pickle
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache.corpus.ravdess import LABELS
from cache.files.atomic import write_atomic
from fuse.runs import folder as run_folder
from fuse.runs.folder import (
    EVENTS,
    METRICS,
    PREDICTIONS,
    is_complete,
    refuse_no_tensorboard,
    replacing,
    run_folders,
    write_run,
)
from fuse.runs.training_figure import RunHistory
from fuse.scores.metrics import summarise
from fuse.scores.predictions import Predictions, concatenate, read_predictions
from fuse.stack.job import History
from tests.tiny.checkpoint import tiny_checkpoint

FILES = {
    "config.yaml",
    "metrics.json",
    "predictions.csv",
    "best_model.pth",
    "confusion_matrix.png",
    "training_curves.png",
    "classification_report.txt",
}
HISTORY = [RunHistory(0, 0, History([2.0, 1.0], [2.0, 1.5], [0.2, 0.4], best_epoch=1))]


def evaluation(split: str, speakers: int, seed: int = 0) -> Predictions:
    labels = np.tile(np.arange(8), speakers)
    return Predictions.of(
        [f"{split}-{index}" for index in range(len(labels))],
        [f"{split}{index // 8}" for index in range(len(labels))],
        ["male"] * len(labels),
        labels,
        np.random.default_rng(seed).dirichlet(np.ones(8), size=len(labels)),
        protocol="holdout",
        fold=0,
        seed=seed,
        split=split,
        condition="clean",
        modalities="audio+video+text",
        label_names=LABELS,
    )


def write(folder: Path, predictions: Predictions | None = None, **changed: Any) -> dict[str, Any]:
    made = predictions or concatenate([evaluation("validation", 2), evaluation("test", 8)])
    arguments: dict[str, Any] = {"config_yaml": "head: mlp\n", "predictions": made, "history": HISTORY}
    arguments["checkpoint"] = tiny_checkpoint()
    return write_run(folder, **{**arguments, **changed})


def blank(_: object, path: Path, note: str = "", *, classes: int = 0) -> None:
    """In place of a figure: drawing two of them is most of the time that a run takes to write."""
    del classes
    write_atomic(path, note)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "confusion_matrix_figure", blank)
    monkeypatch.setattr(run_folder, "training_curves_figure", blank)


def test_tensorboard_gets_curves_scores_and_figures_and_only_where_it_is_asked_for(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard")
    metrics = write(tmp_path / "asked", tensorboard=True)
    assert {path.name for path in (tmp_path / "asked").iterdir()} == {*FILES, EVENTS}
    (file,) = (tmp_path / "asked" / EVENTS).iterdir()
    events = reader.EventAccumulator(str(file)).Reload()
    for tag, values in {"train/loss": [2.0, 1.0], "validation/loss": [2.0, 1.5], "validation/uar": [0.2, 0.4]}.items():
        assert [one.value for one in events.Scalars(tag)] == pytest.approx(values)
        assert [one.step for one in events.Scalars(tag)] == [1, 2]
    assert events.Scalars("test/uar")[0].value == pytest.approx(metrics["test"]["uar"])
    assert set(events.Tags()["images"]) == {"confusion_matrix", "training_curves"}


def test_a_run_that_replaces_another_brings_its_own_events(tmp_path: Path, undrawn: None) -> None:
    """The folder of the older run was in the way of the new one."""
    del undrawn
    for name in ("older", "newer"):
        with replacing(tmp_path) as staging:
            write(staging)
            (staging / EVENTS).mkdir()
            (staging / EVENTS / name).touch()
    assert [path.name for path in (tmp_path / EVENTS).iterdir()] == ["newer"]
    with replacing(tmp_path) as staging:
        write(staging)
    assert not (tmp_path / EVENTS).exists()


def test_without_the_package_nothing_is_trained_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "find_spec", lambda _: None)
    refuse_no_tensorboard(False)
    with pytest.raises(ValueError, match="-m pip install tensorboard"):
        refuse_no_tensorboard(True)


def test_a_run_is_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "fusion"
    metrics = write(folder)
    assert {path.name for path in folder.iterdir()} == FILES
    for figure in folder.glob("*.png"):
        assert figure.read_bytes().startswith(b"\x89PNG")
    assert is_complete(folder)
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert (folder / "config.yaml").read_text() == "head: mlp\n"
    assert (folder / "classification_report.txt").read_text().startswith("64 clips, 8 speakers, 1 seed: UAR")


@pytest.mark.usefixtures("undrawn")
def test_metrics_can_be_recomputed_from_the_predictions(tmp_path: Path) -> None:
    metrics = write(tmp_path)
    saved = read_predictions(tmp_path / "predictions.csv")
    for split, clips, speakers in (("test", 64, 8), ("validation", 16, 2)):
        expected = summarise(saved.select(split=split))
        assert {name: metrics[split][name] for name in expected} == expected
        assert (metrics[split]["clips"], metrics[split]["speakers"]) == (clips, speakers)
        assert len(metrics[split]["speakers_uar"]) == speakers
        spread = metrics[split]["spread"]
        worst = min(metrics[split]["speakers_uar"].items(), key=lambda item: item[1])
        assert (spread["worst_speaker"], spread["worst_score"]) == worst
        # All speakers of this corpus are male.
        assert (spread["males"], spread["female_minus_male"], spread["gap_interval"]) == (speakers, None, None)
    # Eight speakers are enough for an interval, two are not.
    assert metrics["validation"]["interval"] is None
    assert metrics["test"]["interval"]["low"] < metrics["test"]["uar"] < metrics["test"]["interval"]["high"]


@pytest.mark.usefixtures("undrawn")
def test_the_checkpoint_loads_with_weights_only(tmp_path: Path) -> None:
    write(tmp_path)
    assert torch.load(tmp_path / "best_model.pth", weights_only=True)["seed"] == tiny_checkpoint().seed


@pytest.mark.usefixtures("undrawn")
def test_a_checkpoint_that_would_not_load_is_never_revealed(tmp_path: Path) -> None:
    with pytest.raises(pickle.UnpicklingError):
        write(tmp_path, checkpoint=replace(tiny_checkpoint(), features={"audio": {"path": Path("x")}}))
    assert not (tmp_path / "best_model.pth").exists()
    assert not is_complete(tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_extra_and_note_stand_in_the_files(tmp_path: Path) -> None:
    metrics = write(tmp_path, extra={"before": {"uar": 0.5}}, note="encoders: small, untrained")
    assert metrics["before"] == {"uar": 0.5}
    assert metrics["note"] == "encoders: small, untrained"
    for name in ("classification_report.txt", "confusion_matrix.png", "training_curves.png"):
        assert "small, untrained" in (tmp_path / name).read_text()
    with pytest.raises(AssertionError, match="must not replace the scores"):
        write(tmp_path, extra={"test": {}})


@pytest.mark.usefixtures("undrawn")
def test_without_validation_speakers_its_scores_are_null(tmp_path: Path) -> None:
    assert write(tmp_path, evaluation("test", 2))["validation"] is None


@pytest.mark.usefixtures("undrawn")
def test_several_seeds_are_summed_up(tmp_path: Path) -> None:
    both = concatenate([evaluation("test", 8, seed) for seed in (0, 1)])
    metrics = write(tmp_path, both, checkpoint=None)
    assert (metrics["test"]["clips"], metrics["test"]["seeds"]) == (64, 2)
    assert metrics["test"]["uar_sd_over_seeds"] > 0


def test_a_run_without_test_predictions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs predictions of its test speakers"):
        write(tmp_path / "run", evaluation("validation", 2))
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("undrawn")
def test_writing_again_is_incomplete_until_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(run_folder, "training_curves_figure", fail)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path)
    assert not is_complete(tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_an_earlier_checkpoint_does_not_stay_beside_other_numbers(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, checkpoint=None)
    assert {path.name for path in tmp_path.iterdir()} == FILES - {"best_model.pth"}


def test_run_folders_are_the_leaves_in_numerical_order(tmp_path: Path) -> None:
    wanted = [tmp_path / f"fold-{fold}" / f"seed-{seed}" for fold in (0, 2, 10) for seed in (0, 9, 10)]
    for folder in [*reversed(wanted), tmp_path]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text("{}")
    (tmp_path / "fold-old" / "seed-0").mkdir(parents=True)
    assert run_folders(tmp_path) == wanted


def test_a_single_run_is_its_own_leaf(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    assert run_folders(tmp_path) == [tmp_path]


def test_a_folder_that_is_no_run_says_how_to_train_one(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match=r'no run in .*make train-fusion SET="output_dir=') as caught:
            run_folders(folder)
        assert str(caught.value) == (
            f'no run in {folder} (no metrics.json); train one with: make train-fusion SET="output_dir={folder}"'
        )


def test_one_fold_and_seed_comes_of_training_the_run(tmp_path: Path) -> None:
    """`make finetune-e2e` told to train a run into `fold-1/seed-0` of the folder that it had been given."""
    with pytest.raises(ValueError, match=f'make train-fusion SET="output_dir={tmp_path}"$'):
        run_folders(tmp_path / "fold-1/seed-0")


def test_an_unfinished_run_among_several_is_named(tmp_path: Path) -> None:
    for seed in (0, 1):
        (tmp_path / "fold-0" / f"seed-{seed}").mkdir(parents=True)
    (tmp_path / "fold-0" / "seed-0" / "metrics.json").write_text("{}")
    with pytest.raises(ValueError, match=r'fold-0/seed-1 is not complete .*make train-fusion SET="output_dir='):
        run_folders(tmp_path)


@pytest.mark.parametrize("whole", [True, False])
def test_only_a_whole_run_takes_the_place_of_the_one_before(tmp_path: Path, whole: bool) -> None:
    """Ranks that were killed while they wrote raise nothing where they were started; their half once replaced a run."""
    names = (PREDICTIONS, METRICS)
    for name in names:
        write_atomic(tmp_path / name, "old")
    with replacing(tmp_path) as staging:
        for name in names if whole else names[:1]:
            write_atomic(staging / name, "new")
    assert [(tmp_path / name).read_text() for name in names] == ["new" if whole else "old"] * 2
    assert {path.name for path in tmp_path.iterdir()} == set(names)


def test_what_is_needed_to_go_on_outlives_an_interruption_and_goes_when_the_run_is_whole(tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), replacing(tmp_path, "resume") as staging:
        write_atomic(staging / "resume/state", "half way")
        write_atomic(staging / PREDICTIONS, "new")
        raise KeyboardInterrupt
    assert [path.name for path in staging.iterdir()] == ["resume"]
    with replacing(tmp_path, "resume") as staging:
        assert (staging / "resume/state").read_text() == "half way"
        write_atomic(staging / METRICS, "new")
    assert {path.name for path in tmp_path.iterdir()} == {METRICS}
    with replacing(tmp_path, "resume") as staging:
        (staging / "resume").mkdir()
    assert {path.name for path in tmp_path.iterdir()} == {METRICS}
