"""Sweeps: multiplied out, resumed after a kill with the same rows, chosen on validation alone."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from cache.conditions import parse_joint
from cache.corpus.clips import read_corpus
from cache.corpus.ravdess import LABELS
from configs.loader import check, dump_config, load_config
from configs.schema.fusion import FusionConfig
from configs.schema.protocols import load_protocol
from configs.schema.sweep import SweepConfig
from fuse.scores.predictions import Predictions, read_predictions
from fuse.sweep.__main__ import run
from fuse.sweep.choice import choose
from fuse.sweep.grid import configurations, runs_of
from fuse.sweep.ground import Outcome
from fuse.sweep.ledger import append, header, read, rewrite, row_of
from fuse.sweep.rank import work
from fuse.train import run as train
from tests.tiny.features import tiny_clips, write_tiny_features
from tests.tiny.places import ROOT
from tests.tiny.stage_one import after_ctrl_c

pytestmark = pytest.mark.usefixtures("all_undrawn")
SHIPPED = ROOT / "configs/sweeps"
GRID: dict[str, Any] = {"modalities": [["audio"], ["audio", "video"]], "optim.lr": [1e-3, 1e-2]}


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    write_tiny_features(folder, tiny_clips(), {"noise-white-10db": 3.0})
    return folder


def config(features: Path, out: Path, **more: Any) -> SweepConfig:
    shared = {
        "corpus": str(features / "metadata.csv"),
        "features_dir": str(features),
        "protocol": "luna5",
        "seeds": [0, 1],
        "hidden": 16,
        "optim": {"epochs": 3},
    }
    return check(SweepConfig, {"run": shared, "grid": GRID, "output_dir": str(out), **more}, "test")


def test_the_grid_is_multiplied_out_and_checked_as_stage_two_would(features: Path, tmp_path: Path) -> None:
    cells = configurations(config(features, tmp_path))
    assert [cell.name for cell in cells] == ["audio, 0.001", "audio, 0.01", "audio+video, 0.001", "audio+video, 0.01"]
    assert [cell.config.optim.lr for cell in cells] == [1e-3, 1e-2, 1e-3, 1e-2]
    assert cells[3].config.optim.epochs == 3
    assert cells[0].shape == cells[1].shape != cells[2].shape


def test_a_sweep_without_a_protocol_names_the_one_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It went by RAVDESS's holdout, whatever the corpus."""
    write_tiny_features(tmp_path, tiny_clips((31, 32, 33), per_class=1))
    told = config(tmp_path, tmp_path / "sweep", grid={"optim.lr": [1e-3, 1e-2]})
    del told.run["protocol"]
    assert run_here(told, monkeypatch) == 0
    assert load_config(SweepConfig, tmp_path / "sweep/config.yaml").run["protocol"] == "speaker-folds-3"
    assert load_config(FusionConfig, tmp_path / "sweep/best.yaml").protocol == "speaker-folds-3"
    assert run_here(told, monkeypatch) == 0


def test_a_named_value_sets_several_keys(features: Path, tmp_path: Path) -> None:
    robust = [{"name": "none"}, {"name": "noise", "augment.audio": ["noise-white-10db"], "modality_dropout": 0.2}]
    cells = configurations(config(features, tmp_path, grid={"training": robust}))
    assert [cell.name for cell in cells] == ["none", "noise"]
    assert cells[1].config.augment.audio == (parse_joint("noise-white-10db"),)
    assert cells[1].config.modality_dropout == 0.2


@pytest.mark.parametrize("path", sorted((ROOT / "configs/sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_sweeps_are_right(path: Path) -> None:
    settings = load_config(SweepConfig, path)
    cells = configurations(settings)
    assert len(cells) > 2
    assert f"make sweep CONFIG=configs/sweeps/{path.name}" in path.read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"grid": {"optim.lrr": [1]}}, r"sweep, optim.lrr=1: unknown key optim.lrr; did you mean lr"),
        ({"grid": {"protocol": ["luna5"]}}, "protocol must be the same for all runs; set run.protocol"),
        ({"grid": {"head": ["mlp", "mlp"]}}, "mlp and mlp are the same configuration"),
        ({"grid": {"head": ["mpl"]}}, "unknown head"),
        ({"grid": {"training": [{"name": "a"}, {"optim.lr": 1}]}}, "give each value a name"),
        ({"grid": {"x": [{"name": "a", "against": "b", "optim.lr": 1}]}}, "against=b is no value of it"),
        ({"compare": "layers"}, "compare=layers is no factor of the grid"),
        ({"conditions": ["noise-white-0db"]}, "no cached audio features for noise-white-0db"),
    ],
)
def test_bad_sweeps_end_in_one_line(features: Path, tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        run(replace(config(features, tmp_path, **more), dry_run=True))
    assert "\n" not in str(caught.value)


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(config(features, tmp_path / "out", dry_run=True)) == 0
    assert "4 configurations x 5 folds x 2 seeds = 40 runs" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def command(settings: SweepConfig, folder: Path, ranks: int) -> subprocess.Popen[bytes]:
    file = folder / "sweep.yaml"
    file.write_text(dump_config(settings))
    environment = {**os.environ, "RANKS": str(ranks), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "fuse.sweep", "--config", str(file)], env=environment, stdout=subprocess.PIPE
    )


def run_here(settings: SweepConfig, patch: pytest.MonkeyPatch) -> int:
    """The same with one rank, all in this process: three others would each take seconds to import torch."""
    with patch.context() as launched:
        launched.setattr("fuse.sweep.__main__._launch", lambda out, *_: work(out, 0, 1))
        return run(settings)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_killed_half_way_it_continues_with_the_same_rows(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Launcher and two ranks are killed outright once some rows are there; one rank goes on."""
    # Long enough to be killed between the first and the last row.
    grid = {**GRID, "optim.lr": [1e-3, 3e-3, 1e-2], "hidden": [16, 32, 48, 64]}
    calm, wild = (replace(config(features, tmp_path / name, grid=grid, compare="modalities")) for name in ("a", "b"))
    assert run_here(calm, monkeypatch) == 0
    killed = command(wild, tmp_path, 2)
    partial = tmp_path / "b" / "sweep.csv"
    while not partial.exists() or len(rows_of(partial)) < 7:
        assert killed.poll() is None, "ended before it could be killed"
        time.sleep(0.02)
    family = [psutil.Process(killed.pid), *psutil.Process(killed.pid).children(recursive=True)]
    for process in family:
        process.send_signal(signal.SIGKILL)
    killed.wait()
    done = partial.read_bytes()
    rows = len(rows_of(partial))
    assert rows < 240
    with partial.open("ab") as file:
        file.write(b"239,audio")  # a row that was cut off
    capsys.readouterr()
    assert run_here(wild, monkeypatch) == 0
    assert f"{rows} are done, {240 - rows} to go" in capsys.readouterr().out
    assert partial.read_bytes() == (tmp_path / "a" / "sweep.csv").read_bytes()
    assert set(done.splitlines()) <= set(partial.read_bytes().splitlines())
    for name in ("sweep.md", "chosen/audio/predictions.csv", "chosen/audio+video/predictions.csv"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes(), name
    assert (tmp_path / "b" / "sweep.png").stat().st_size > 10_000


def test_ctrl_c_says_one_line_and_nothing_of_torchrun(features: Path, tmp_path: Path) -> None:
    """Once torchrun said two pages of where it was when the signal came."""
    file = tmp_path / "sweep.yaml"
    file.write_text(dump_config(config(features, tmp_path / "out", grid={"hidden": list(range(16, 400, 8))})))
    rows = tmp_path / "out/sweep.csv"
    command = [sys.executable, "-m", "fuse.sweep", "--config", str(file)]
    done = after_ctrl_c(command, lambda _: rows.exists() and len(rows_of(rows)) > 2, {"RANKS": "1"})
    assert done.code == 130, done.output
    assert "Traceback" not in done.output
    assert "torch/distributed" not in done.output
    assert sum(line.startswith("interrupted with ") for line in done.output.splitlines()) == 1


def test_a_run_of_a_sweep_is_the_run_that_stage_two_would_make(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(features, tmp_path / "sweep", conditions=["clean", "noise-white-10db"])
    assert run_here(settings, monkeypatch) == 0
    best = load_config(FusionConfig, tmp_path / "sweep" / "best.yaml")
    train(best)
    alone = read_predictions(Path(best.output_dir) / "predictions.csv")
    cells = configurations(settings)
    number = next(cell.number for cell in cells if replace(cell.config) == best)
    clips = read_corpus(features / "metadata.csv").clips
    runs = runs_of(cells, load_protocol("luna5").folds(clips))
    for one in runs:
        if one.configuration.number == number:
            kept = read_predictions(tmp_path / "sweep" / "runs" / str(one.number) / "predictions.csv")
            assert set(kept.condition) == {"clean", "noise-white-10db"}
            clean = kept.select(condition="clean")
            same = alone.select(fold=one.fold.number, seed=one.seed)
            assert clean.clip_id.tolist() == same.clip_id.tolist()
            np.testing.assert_allclose(clean.probabilities_NC, same.probabilities_NC, atol=1e-6)


def test_another_sweep_in_the_same_folder_is_refused(features: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(config(features, tmp_path, grid={"head": ["mlp"]})))
    with pytest.raises(ValueError, match="holds another sweep"):
        run(config(features, tmp_path))


def outcome(features: Path, cell: int, fold: int, uar: float | None, test_right: bool) -> Outcome:
    """A run whose validation score is given, and whose test clips are all right or all wrong."""
    cells = configurations(config(features, features))
    clips = read_corpus(features / "metadata.csv").clips
    one = next(
        one
        for one in runs_of(cells, load_protocol("luna5").folds(clips))
        if (one.configuration.number, one.fold.number, one.seed) == (cell, fold, 0)
    )
    if uar is None:
        return Outcome(one, None, None, 0, 1)
    labels = np.arange(len(LABELS))
    shown = np.eye(len(LABELS))[labels if test_right else (labels + 1) % len(LABELS)]
    names = [f"{fold}-{label}" for label in labels]
    shared: dict[str, Any] = {"protocol": "luna5", "fold": fold, "seed": 0, "condition": "clean", "modalities": "audio"}
    predictions = Predictions.of(
        names, [str(fold)] * 8, ["male"] * 8, labels, shown, split="test", label_names=LABELS, **shared
    )
    return Outcome(one, predictions, uar, 0, None)


def test_each_fold_is_tested_with_what_its_own_validation_chose(features: Path) -> None:
    outcomes = [
        outcome(features, 0, 1, 0.9, test_right=False),
        outcome(features, 1, 1, 0.8, test_right=True),
        outcome(features, 0, 2, 0.3, test_right=False),
        outcome(features, 1, 2, 0.7, test_right=True),
    ]
    chosen = choose(outcomes)
    assert chosen is not None
    assert {fold: cell.number for fold, cell in chosen.by_fold.items()} == {1: 0, 2: 1}
    right = chosen.test.label == chosen.test.predicted
    assert not right[chosen.test.fold == 1].any()
    assert right[chosen.test.fold == 2].all()


def test_a_configuration_that_diverged_is_not_chosen(features: Path) -> None:
    outcomes = [outcome(features, 0, 1, None, test_right=True), outcome(features, 1, 1, 0.1, test_right=True)]
    chosen = choose(outcomes)
    assert chosen is not None
    assert chosen.by_fold[1].number == 1
    assert choose(outcomes[:1]) is None


def test_rows_survive_a_cut_and_come_out_in_order(features: Path, tmp_path: Path) -> None:
    settings = config(features, tmp_path)
    clips = read_corpus(features / "metadata.csv").clips
    runs = runs_of(configurations(settings), load_protocol("luna5").folds(clips))
    path, factors = tmp_path / "sweep.csv", list(settings.grid)
    rewrite(path, factors, {})
    for one in (runs[5], runs[2]):
        append(path, row_of(one, 0.5, 3, None))
    append(path, row_of(runs[9], None, 0, 4))
    path.write_bytes(path.read_bytes()[:-3])
    found = read(path, factors)
    assert sorted(found) == [2, 5]
    rewrite(path, factors, found)
    assert [int(row["run"]) for row in rows_of(path)] == [2, 5]
    assert rows_of(path)[0]["best_epoch"] == "4"
    path.write_text("other,columns\n")
    with pytest.raises(ValueError, match="columns of another sweep"):
        read(path, factors)
    assert header(factors)[:3] == ["run", "modalities", "optim.lr"]
