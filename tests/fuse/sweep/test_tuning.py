"""Sweeps of fine-tunes: one after the other, resumable, compared as sweeps of stage two are."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.command.stop import StopRequest
from configs.loader import dump_config, load_config
from configs.schema.finetune import FinetuneConfig
from configs.schema.sweep import SweepConfig
from fuse.finetune.launch import Ended
from fuse.finetune.load import load
from fuse.finetune.plan import FinetunePlan, plan_finetune
from fuse.finetune.rank import finetune
from fuse.finetune.training.loop import Diverged
from fuse.finetune.training.state import RESUME, last_position
from fuse.finetune.training.stepper import World
from fuse.runs.checkpoint import read_stage_two, write_checkpoint
from fuse.runs.folder import STAGING
from fuse.scores.predictions import read_predictions, write_predictions
from fuse.sweep.__main__ import run
from fuse.sweep.rank import run_folder
from tests.fuse.finetune.site import CPU, await_ranks, encoders_of, fork_ranks, is_past, kill_all
from tests.tiny.places import ROOT
from tests.tiny.stage_one import wait_for

pytestmark = pytest.mark.usefixtures("all_undrawn")
SHIPPED = ROOT / "configs/sweeps/finetune-demo.yaml"


def sweep_of(corpus: Path, out: Path, *more: str) -> SweepConfig:
    """The shipped one, on the tiny corpus."""
    encoders = encoders_of(corpus)
    settings = [f"run.encoders.{name}={getattr(encoders, name)}" for name in ("audio", "video", "text")]
    settings += [f"run.corpus={corpus / 'metadata.csv'}", f"run.features_dir={corpus / 'features'}"]
    settings += [f"run.init={corpus / 'fusion'}", "run.audio_seconds=0.4", "run.optim.batch_size=1"]
    settings += ["run.checkpoint_minutes=1e-9", "run.optim.epochs=4", f"output_dir={out}"]
    return load_config(SweepConfig, SHIPPED, [*settings, *more])


def sweeping(config: SweepConfig) -> Callable[[World], None]:
    """The command on one rank, in a process of its own that has everything imported."""

    def work(world: World) -> None:
        def launch(plan: FinetunePlan, *_: Any) -> str:
            finetune(plan, *load(plan, CPU), world, StopRequest())
            return ""

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fuse.finetune.launch._launch", launch)
            assert run(config) == 0

    return work


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def same_scores(one: Path, other: Path, runs: int) -> bool:
    predictions = [
        [(run_folder(out, number) / "predictions.csv").read_bytes() for number in range(runs)] for out in (one, other)
    ]
    return predictions[0] == predictions[1] and rows_of(one) == rows_of(other)


def test_the_shipped_sweep_killed_in_a_run_goes_on_in_it_and_ends_as_if_undisturbed(
    corpus: Path, tmp_path: Path
) -> None:
    """`make sweep` knew stage two alone; a night of fine-tunes had to be kept in a shell script."""
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    await_ranks(fork_ranks(sweeping(sweep_of(corpus, calm)), 1, tmp_path / "calm-store"))
    (pid,) = fork_ranks(sweeping(sweep_of(corpus, wild)), 1, tmp_path / "wild-store")
    resume, deadline = run_folder(wild, 1) / STAGING / RESUME, time.monotonic() + 200
    while last_position(resume) is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert [row["run"] for row in rows_of(wild)] == ["0"]
    assert last_position(resume) is not None
    kept = (run_folder(wild, 0) / "metrics.json").stat().st_mtime_ns
    await_ranks(fork_ranks(sweeping(sweep_of(corpus, wild)), 1, tmp_path / "again-store"))
    assert (run_folder(wild, 0) / "metrics.json").stat().st_mtime_ns == kept
    assert same_scores(calm, wild, 4)
    assert len(rows_of(calm)) == 4
    # Chosen on validation: the test speakers were not looked at.
    assert set(read_predictions(run_folder(calm, 3) / "predictions.csv").split) == {"validation"}
    table = (calm / "sweep.md").read_text()
    assert "| unfreeze | optim.lr | validation UAR % | 95 % over speakers |" in table
    assert "The test speakers were not scored (test: false)." in table
    best = load_config(FinetuneConfig, calm / "best.yaml")
    assert (best.init, best.export, best.test, best.head) == (str(corpus / "fusion"), True, True, "mlp")
    assert plan_finetune(best).config.optim.lr in (0.0003, 0.001)


def test_folds_and_seeds_are_those_of_the_starts_and_a_run_that_diverges_is_a_row(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (0, 1):
        leaf = shutil.copytree(corpus / "fusion", tmp_path / f"fusion/fold-1/seed-{seed}")
        set_seed(leaf, seed)
    rates: list[float] = []

    def tuned(plan: FinetunePlan, *_: Any) -> Ended:
        rates.append(plan.config.optim.lr)
        assert plan.config.seeds == (plan.start.checkpoint.seed,)
        out = Path(plan.config.output_dir)
        if plan.config.optim.lr > 0.5:
            raise Diverged("training diverged in epoch 2", 1)
        shutil.copytree(plan.start.folder, out, dirs_exist_ok=True)
        return Ended(True, "")

    monkeypatch.setattr("fuse.sweep.tuning.fine_tune", tuned)
    config = sweep_of(corpus, tmp_path / "out", f"run.init={tmp_path / 'fusion'}")
    config = replace(config, grid={"optim.lr": [0.1, 0.9]}, compare="optim.lr", test=True)
    assert run(config) == 0
    assert rates == [0.1, 0.1, 0.9, 0.9]
    rows = rows_of(tmp_path / "out")
    assert [(row["optim.lr"], row["fold"], row["seed"], row["diverged_epoch"]) for row in rows] == [
        ("0.1", "1", "0", ""),
        ("0.1", "1", "1", ""),
        ("0.9", "1", "0", "2"),
        ("0.9", "1", "1", "2"),
    ]
    table = (tmp_path / "out/sweep.md").read_text()
    assert "| 0.9 | 2 runs diverged |" in table
    assert "| 0.1 | clean |" in table
    # A second start of the same finds everything done; a start that was trained anew is refused.
    assert run(config) == 0
    assert len(rates) == 4
    set_seed(tmp_path / "fusion/fold-1/seed-0", 0, temperature=2.0)
    with pytest.raises(ValueError, match=r"seed-0 was trained anew since the sweep .* began with it"):
        run(config)


def set_seed(leaf: Path, seed: int, temperature: float = 1.0) -> None:
    """Say that a run of stage two is of a seed, its weights as they are or scaled."""
    kept = read_stage_two(leaf / "best_model.pth")
    state = {name: value.clone() * temperature for name, value in kept.state.items()}
    write_checkpoint(replace(kept, seed=seed, state=state), leaf / "best_model.pth")
    predictions = read_predictions(leaf / "predictions.csv")
    write_predictions(replace(predictions, seed=np.full_like(predictions.seed, seed)), leaf / "predictions.csv")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("conditions=[noise-pink-0db]",), "no cached .*noise-pink-0db|no feature store .*noise-pink-0db"),
        (("run.seeds=[3]",), r"run\.seeds: those of the runs in run\.init are taken"),
        (("run.test=false",), r"run\.test: set test"),
        (("run.optim.lrr=1",), "unknown key optim.lrr"),
        (("run.head=linear",), "head=linear contradicts the run it starts from"),
        (("run.init=nowhere",), "no run in nowhere"),
    ],
)
def test_bad_sweeps_of_fine_tunes_end_in_one_line(
    corpus: Path, tmp_path: Path, more: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        run(sweep_of(corpus, tmp_path / "out", *more, "dry_run=true"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_starts_of_other_folds_are_not_compared(corpus: Path, tmp_path: Path) -> None:
    other = shutil.copytree(corpus / "fusion", tmp_path / "other")
    set_seed(other, 5)
    config = sweep_of(corpus, tmp_path / "out", "dry_run=true")
    both = replace(config, grid={"init": [str(corpus / "fusion"), str(other)]}, compare="init")
    with pytest.raises(ValueError, match="has other folds or seeds than the init before it"):
        run(both)


@pytest.mark.slow
def test_a_sweep_command_that_is_killed_or_told_to_stop_ends_as_undisturbed(corpus: Path, tmp_path: Path) -> None:
    """Two ranks; SIGKILL to everything in the second run, then SIGTERM, after which it ends with 143."""
    outs = [tmp_path / "calm", tmp_path / "wild"]
    for out in outs:
        config = sweep_of(corpus, out, "run.optim.epochs=8")
        (tmp_path / f"{out.name}.yaml").write_text(dump_config(config))

    def start(name: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "fuse.sweep", "--config", str(tmp_path / f"{name}.yaml")],
            cwd=ROOT,
            env={**os.environ, "RANKS": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    calm = start("calm")
    output, _ = calm.communicate(timeout=500)
    assert calm.returncode == 0, output
    resume = run_folder(outs[1], 1) / STAGING / RESUME
    process = start("wild")
    wait_for(partial(is_past, resume, None), process)
    kill_all(process)
    before = last_position(resume)
    process = start("wild")
    wait_for(partial(is_past, resume, before), process)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert "interrupted with 3 of 4 runs to go; the same command continues" in output
    process = start("wild")
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output
    assert "continues the interrupted fine-tune at epoch" in output
    assert same_scores(outs[0], outs[1], 4)
