"""Stage two as a whole: folders, numbers that can be recomputed, speakers kept apart."""

from __future__ import annotations

import json
import re
import shutil
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from cache.corpus.clips import read_corpus
from cache.features.rows import State
from cache.features.table import load_table
from cache.protocols.folds import Fold
from configs.command.entry import main
from configs.command.progress import Progress
from configs.loader import check, load_config
from configs.schema.fusion import FusionConfig
from configs.schema.protocols import load_protocol
from fuse.runs.checkpoint import read_stage_two
from fuse.runs.tables import Tables, load_tables
from fuse.runs.training import TrainedRun, train_all
from fuse.scores.predictions import read_predictions
from fuse.train import run
from tests.fuse.runs.test_folder import FILES
from tests.tiny.features import tiny_clips, write_tiny_features
from tests.tiny.places import ROOT


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    write_tiny_features(folder, tiny_clips(), {"noise-white-10db": 3.0, "drop-frames-30": 3.0})
    return folder


def config(features: Path, out: Path, **more: object) -> FusionConfig:
    optim = {"lr": 3e-3, "epochs": 5}
    tree = {"corpus": str(features / "metadata.csv"), "features_dir": str(features), "output_dir": str(out)}
    return check(FusionConfig, {**tree, "optim": optim, **more}, "test")


def train_one(settings: FusionConfig, tables: Tables, fold: Fold) -> TrainedRun:
    with Progress("fusion", 1, "runs", shown=False) as progress:
        return train_all(settings, tables, [fold], progress)[0]


def test_one_run_writes_every_file_and_learns(features: Path, tmp_path: Path) -> None:
    assert run(config(features, tmp_path)) == 0
    assert {path.name for path in tmp_path.iterdir()} == FILES
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["test"]["uar"] > 0.6
    assert (metrics["test"]["clips"], metrics["test"]["speakers"]) == (32, 2)
    assert (metrics["validation"]["clips"], metrics["validation"]["speakers"]) == (32, 2)


@pytest.mark.usefixtures("undrawn")
def test_without_a_protocol_the_corpus_gets_one_that_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only RAVDESS's speakers could be trained on by default: holdout found nobody to validate or to test."""
    write_tiny_features(tmp_path, tiny_clips((31, 32, 33, 34), per_class=1))
    assert run(config(tmp_path, tmp_path / "run", optim={"epochs": 1})) == 0
    assert "protocol: speaker-folds-4 (4 speakers)\n" in capsys.readouterr().out
    assert load_config(FusionConfig, tmp_path / "run/config.yaml").protocol == "speaker-folds-4"
    assert set(read_predictions(tmp_path / "run/predictions.csv").protocol) == {"speaker-folds-4"}
    assert read_stage_two(tmp_path / "run/fold-4/seed-0/best_model.pth").protocol == "speaker-folds-4"


@pytest.mark.usefixtures("undrawn")
def test_metrics_follow_from_predictions_alone(features: Path, tmp_path: Path) -> None:
    run(config(features, tmp_path))
    test = read_predictions(tmp_path / "predictions.csv").select(split="test")
    metrics = json.loads((tmp_path / "metrics.json").read_text())["test"]
    assert metrics["uar"] == pytest.approx(balanced_accuracy_score(test.label, test.predicted))
    assert metrics["accuracy"] == pytest.approx(np.mean(test.label == test.predicted))


@pytest.mark.usefixtures("undrawn")
def test_saved_config_reproduces_the_run_to_the_bit(features: Path, tmp_path: Path) -> None:
    run(config(features, tmp_path / "first", dropout=0.5, augment={"audio": ["noise-white-10db"]}))
    again = load_config(FusionConfig, tmp_path / "first" / "config.yaml", [f"output_dir={tmp_path / 'second'}"])
    run(again)
    first, second = ((tmp_path / name / "predictions.csv").read_bytes() for name in ("first", "second"))
    assert first == second


def test_several_folds_and_seeds_each_have_a_folder_and_a_sum(features: Path, tmp_path: Path) -> None:
    run(config(features, tmp_path, protocol="luna5", seeds=[0, 3], optim={"epochs": 1}))
    leaves = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("fold-*/seed-*")}
    assert leaves == {f"fold-{fold}/seed-{seed}" for fold in range(1, 6) for seed in (0, 3)}
    assert {path.name for path in (tmp_path / "fold-5/seed-3").iterdir()} == FILES
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == FILES - {"best_model.pth"}
    test = read_predictions(tmp_path / "predictions.csv").select(split="test", seed=3)
    assert len(set(test.clip_id)) == len(test) == 24 * 16
    assert json.loads((tmp_path / "metrics.json").read_text())["test"]["seeds"] == 2


@pytest.mark.usefixtures("undrawn")
def test_a_run_records_how_many_heads_were_trained_at_once(features: Path, tmp_path: Path) -> None:
    """The last bits of its scores depend on it, and where it was timed nothing said what had come out."""
    run(config(features, tmp_path, protocol="luna5", seeds=(0, 1), stack_width=4))
    for folder in (tmp_path, tmp_path / "fold-2" / "seed-1"):
        assert json.loads((folder / "metrics.json").read_text())["stack_width"] == 4


@pytest.mark.usefixtures("undrawn")
def test_an_earlier_run_leaves_nothing_behind(features: Path, tmp_path: Path) -> None:
    run(config(features, tmp_path, protocol="luna5", optim={"epochs": 1}))
    run(config(features, tmp_path, optim={"epochs": 1}, overwrite=True))
    assert not list(tmp_path.glob("fold-*"))
    assert {path.name for path in tmp_path.iterdir()} == FILES


@pytest.mark.usefixtures("undrawn")
def test_a_run_of_another_configuration_is_not_replaced_unasked(features: Path, tmp_path: Path) -> None:
    """`seeds=[7]` once deleted the runs of three other seeds without a word."""
    run(config(features, tmp_path, seeds=[0, 1, 2], optim={"epochs": 1}))
    there = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"\(seeds: \[0, 1, 2\] there, \[7\] now\).*overwrite=true"):
        run(config(features, tmp_path, seeds=[7], optim={"epochs": 1}))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == there
    # The same configuration again is the same run again.
    assert run(config(features, tmp_path, seeds=[0, 1, 2], optim={"epochs": 1})) == 0


def test_an_interrupted_run_leaves_the_one_before_it(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its scores were removed before training began."""
    run(config(features, tmp_path, optim={"epochs": 1}))
    there = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for place in ("fuse.train.train_all", "fuse.runs.folder.training_curves_figure"):
        with monkeypatch.context() as patch:
            patch.setattr(place, _interrupt)
            with pytest.raises(KeyboardInterrupt):
                run(config(features, tmp_path, optim={"epochs": 1}))
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == there


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_test_speakers_change_nothing_that_is_learned(features: Path, tmp_path: Path) -> None:
    """Swapping the test speakers' features for noise leaves standardiser, head and best epoch bitwise as they were."""
    settings = config(features, tmp_path)
    corpus = read_corpus(Path(settings.corpus))
    fold = load_protocol("holdout").folds(corpus.clips)[0]
    tables = load_tables(settings, corpus)
    first = train_one(settings, tables, fold)
    for values in tables.main.features.values():
        rows = np.isin(tables.main.speakers, fold.test)
        values[rows] = np.random.default_rng(0).normal(size=values[rows].shape) * 100
    second = train_one(settings, tables, fold)
    assert first.history == second.history
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name


def test_best_epoch_is_chosen_on_validation(features: Path, tmp_path: Path) -> None:
    settings = config(features, tmp_path, optim={"lr": 3e-3, "epochs": 8})
    corpus = read_corpus(Path(settings.corpus))
    fold = load_protocol("holdout").folds(corpus.clips)[0]
    one = train_one(settings, load_tables(settings, corpus), fold)
    history = one.history
    assert history.validation_uar[history.best_epoch] == max(history.validation_uar)
    validation = one.predictions.select(split="validation")
    assert balanced_accuracy_score(validation.label, validation.predicted) == pytest.approx(max(history.validation_uar))


@pytest.mark.usefixtures("undrawn")
def test_checkpoint_loads_with_weights_only_and_predicts_the_same(features: Path, tmp_path: Path) -> None:
    run(config(features, tmp_path))
    checkpoint = read_stage_two(tmp_path / "best_model.pth")
    assert checkpoint.fold.test == ("23", "24")
    model = checkpoint.head()
    table = load_table(features, read_corpus(features / "metadata.csv").clips, ("audio", "video", "text"))
    saved = read_predictions(tmp_path / "predictions.csv").select(split="test")
    test = table.take(saved.clip_id.tolist())
    with torch.no_grad():
        logits = model({name: torch.from_numpy(values) for name, values in test.features.items()})
    np.testing.assert_allclose(logits.double().softmax(1).numpy(), saved.probabilities_NC, atol=1e-6)


def test_failed_clips_are_left_out_and_counted(tmp_path: Path) -> None:
    clips = tiny_clips()
    failed = next(clip.clip_id for clip in clips if clip.speaker == "23")
    absent = next(clip.clip_id for clip in clips if clip.speaker == "24")
    states = {("clean", "audio", failed): State.FAILED, ("clean", "audio", absent): State.ABSENT}
    write_tiny_features(tmp_path, clips, states=states)
    run(config(tmp_path, tmp_path / "out"))
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["left_out"] == [failed]
    assert metrics["test"]["clips"] == 31
    assert absent in read_predictions(tmp_path / "out" / "predictions.csv").clip_id


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"condition": "noise-white-0db"}, r"no cached audio features for noise-white-0db .* make features SET="),
        (
            {"augment": {"audio": "noise-white-5db"}},
            "no cached features in .* for noise-white-5db, which augment draws",
        ),
        ({"protocol": "lunna5"}, "did you mean luna5"),
        ({"modalities": ["audio", "face"]}, "no cached face features"),
        ({"layers": 3}, "has layers 0 to 2"),
        ({"head": "mpl"}, "unknown head"),
        ({"encoders": {"audio": "hubert"}}, "set encoders.audio to one of tiny"),
        ({"optim": {"lr": 1e30}}, "diverged"),
        ({"stack_width": 0}, "stack_width: 0 is neither auto nor a whole number from 1"),
        ({"stack_width": "wide"}, "stack_width: 'wide' is neither auto nor a whole number from 1"),
    ],
)
def test_bad_input_ends_in_one_line(features: Path, tmp_path: Path, more: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        run(config(features, tmp_path, **more))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "metrics.json").exists()


def test_variants_that_were_made_otherwise_are_not_drawn_from(tmp_path: Path) -> None:
    """Where clean clips have no such features, nothing compared the two conditions that one head was trained on."""
    clips = tiny_clips((1, 2, 21, 23), per_class=1)
    noises = {"noise-white-10db": 3.0, "noise-white-0db": 6.0}
    write_tiny_features(tmp_path, clips, noises)
    shutil.rmtree(tmp_path / "clean.zarr" / "audio")
    shutil.rmtree(tmp_path / "noise-white-0db.zarr")
    write_tiny_features(tmp_path / "other", clips, noises, made={"dtype": "bfloat16"})
    shutil.move(tmp_path / "other" / "noise-white-0db.zarr", tmp_path)
    settings = config(
        tmp_path,
        tmp_path / "out",
        modalities=["audio"],
        condition="noise-white-10db",
        augment={"audio": ["noise-white-0db"]},
    )
    told = r"noise-white-0db\.zarr: its audio features .*noise-white-10db\.zarr \(dtype bfloat16, not unset\)"
    with pytest.raises(ValueError, match=told):
        run(settings)


def test_all_variants_that_are_missing_are_named_with_the_whole_way_out(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of them was named, without the corpus, the folder or the encoders it has to be made with."""
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", ModuleSpec("fuse.train", None), raising=False)
    settings = [f"corpus={features / 'metadata.csv'}", f"features_dir={features}", f"output_dir={tmp_path / 'out'}"]
    file = str(ROOT / "configs/ravdess/fusion.yaml")
    assert main(FusionConfig, run, "test", ["--config", file, *settings]) == 2
    said = capsys.readouterr().err
    missing = "noise-white-20db,noise-white-5db,noise-white-0db"
    assert f"for {missing.replace(',', ', ')}, which augment draws from" in said
    assert f'make features SET="features_dir={features} conditions=[{missing}]"' in said
    assert f'make train-fusion CONFIG={file} SET="{" ".join(settings)} augment=null"' in said
    assert main(FusionConfig, run, "test", ["--config", file, *settings, "augment=null", "optim.epochs=1"]) == 0


def test_a_modality_that_no_clip_has_is_named_with_the_ways_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stage one without a recogniser, of a corpus without statements: "no training clip has text" named no command."""
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", ModuleSpec("fuse.train", None), raising=False)
    clips = tiny_clips((1, 2, 3))
    states = {("clean", "text", clip.clip_id): State.ABSENT for clip in clips}
    metadata = write_tiny_features(tmp_path, clips, states=states)
    file = str(ROOT / "configs/fusion.yaml")
    settings = [f"corpus={metadata}", f"features_dir={tmp_path}", f"output_dir={tmp_path / 'out'}", "augment=null"]
    assert main(FusionConfig, run, "test", ["--config", file, *settings]) == 2
    said = capsys.readouterr().err
    assert f"no clip has text in {tmp_path}" in said
    assert f'make train-fusion CONFIG={file} SET="{" ".join(settings)} modalities=[audio,video]"' in said
    assert "asr.model=base.en 'features_dir=<a new folder>'" in said
    assert main(FusionConfig, run, "test", ["--config", file, *settings, "modalities=[audio,video]"]) == 0


def test_without_any_features_the_command_names_the_corpus(features: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "none"
    told = re.escape(f'run: make features SET="corpus={features / "metadata.csv"} features_dir={nowhere}"')
    with pytest.raises(ValueError, match=told):
        run(config(features, tmp_path / "out", features_dir=str(nowhere)))


def test_closed_form_head_needs_no_epochs_and_learns(features: Path, tmp_path: Path) -> None:
    run(config(features, tmp_path, head="lda", layers="0+2", augment={"audio": ["noise-white-10db"]}))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["test"]["uar"] > 0.6
    assert metrics["best_epoch"] == 1


def test_layers_side_by_side_are_as_wide_as_their_sum(features: Path) -> None:
    clips = read_corpus(features / "metadata.csv").clips
    joined = load_table(features, clips, ("audio",), layers="0+2").features["audio"]
    single = [load_table(features, clips, ("audio",), layers=layer).features["audio"] for layer in (0, 2)]
    assert np.array_equal(joined, np.concatenate(single, axis=1))


def test_a_modality_that_stage_one_did_without_may_be_left_out(tmp_path: Path) -> None:
    """After `encoders.text=null` only the features that nobody wanted were named."""
    write_tiny_features(tmp_path, tiny_clips((1, 2, 21, 23), per_class=1), widths={"audio": 4, "video": 3})
    told = r"no cached text features in .*; run: make features .*encoders.text=.*, or .*: modalities=\[audio,video\]$"
    with pytest.raises(ValueError, match=told):
        run(config(tmp_path, tmp_path / "out"))


@pytest.mark.usefixtures("undrawn")
def test_mixup_and_label_smoothing_train_too(features: Path, tmp_path: Path) -> None:
    run(config(features, tmp_path, optim={"lr": 3e-3, "epochs": 5, "mixup": 0.4, "label_smoothing": 0.1}))
    assert json.loads((tmp_path / "metrics.json").read_text())["test"]["uar"] > 0.6
