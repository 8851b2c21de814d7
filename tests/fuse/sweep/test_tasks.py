"""A sweep's fine-tunes as tasks of an engine: the rows of the sweep that one machine works off."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest

from configs.command.engines.job import Job
from configs.loader import dump_config, load_config
from configs.schema.sweep import SweepConfig
from fuse.finetune.launch import Ended
from fuse.finetune.plan import FinetunePlan
from fuse.finetune.training.loop import Diverged
from fuse.finetune.training.state import RESUME, last_position
from fuse.runs.folder import STAGING
from fuse.sweep import tasks
from fuse.sweep.__main__ import run
from fuse.sweep.rank import run_folder
from tests.configs.command.engines.one_node import one_node_slurm
from tests.fuse.finetune.site import await_ranks, fork_ranks
from tests.fuse.sweep.test_tuning import rows_of, same_scores, sweep_of, sweeping
from tests.tiny.places import ROOT
from tests.tiny.stage_one import all_gone, finish, wait_for

pytestmark = pytest.mark.usefixtures("all_undrawn")


def tasks_in_turn(job: Job, *_: Any) -> None:
    """An engine of one process, this one."""
    for rank in range(job.tasks):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", list(job.program))
            patch.setattr("fuse.sweep.tasks.Interruption.listen", lambda _: None)
            patch.setattr("fuse.sweep.tasks.signal.signal", lambda *_: None)
            patch.setenv("RANK", str(rank))
            patch.setenv("LOCAL_RANK", "0")
            tasks.main()


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Learning rates of what was fine-tuned: 0.9 diverges, 0.7 has no room, 0.5 is killed at first."""
    rates: list[float] = []

    def tune(plan: FinetunePlan, _: object, ranks: int) -> Ended:
        rate = plan.config.optim.lr
        rates.append(rate)
        assert ranks == 1
        if rate == 0.9:
            raise Diverged("training diverged in epoch 2", 1)
        if rate == 0.7:
            raise ValueError("optim.batch_size=1 has no room")
        if rate == 0.5 and rates.count(rate) == 1:
            return Ended(False, "killed")
        shutil.copytree(plan.start.folder, Path(plan.config.output_dir), dirs_exist_ok=True)
        return Ended(True, "")

    monkeypatch.setattr("fuse.sweep.tasks.fine_tune", tune)
    monkeypatch.setattr("fuse.sweep.tuning.fine_tune", tune)
    monkeypatch.setattr("fuse.sweep.tasks.run_job", tasks_in_turn)
    monkeypatch.setattr("fuse.sweep.__main__.require_engine", lambda _: None)
    return rates


def test_each_run_is_a_task_and_what_is_left_is_gone_on_with(
    corpus: Path, tmp_path: Path, tuned: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ("grid={optim.lr: [0.1, 0.5, 0.9]}", "compare=null")
    config = sweep_of(corpus, tmp_path / "out", *grid, "engine.name=local")
    assert run(config) == 1
    assert tuned == [0.1, 0.5, 0.9]
    assert [row["optim.lr"] for row in rows_of(tmp_path / "out")] == ["0.1", "0.9"]
    assert f"what the tasks said is in {tmp_path}/out/.engine/log.txt" in capsys.readouterr().err
    # By another engine: who starts a run is no part of it.
    assert run(sweep_of(corpus, tmp_path / "out", *grid, "engine.name=ray")) == 0
    assert tuned == [0.1, 0.5, 0.9, 0.5]
    assert [(row["optim.lr"], row["diverged_epoch"]) for row in rows_of(tmp_path / "out")] == [
        ("0.1", ""),
        ("0.5", ""),
        ("0.9", "2"),
    ]


def test_what_a_task_refuses_is_told_once_the_others_have_their_rows(
    corpus: Path, tmp_path: Path, tuned: list[float]
) -> None:
    config = sweep_of(corpus, tmp_path / "out", "grid={optim.lr: [0.7, 0.1]}", "compare=null", "engine.name=local")
    with pytest.raises(ValueError, match="batch_size=1 has no room"):
        run(config)
    assert [row["optim.lr"] for row in rows_of(tmp_path / "out")] == ["0.1"]
    assert tuned == [0.7, 0.1]


def test_heads_on_cached_features_have_no_use_for_an_engine() -> None:
    with pytest.raises(ValueError, match=r"engine\.name=slurm is for stage=finetune: heads .* train many at a time"):
        load_config(
            SweepConfig, ROOT / "configs/sweeps/heads.yaml", ["engine.name=slurm", "engine.slurm.partition=cpu"]
        )


def test_tasks_of_a_machine_share_out_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun counts anew in each of them: all would have taken the first."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for worker, visible, taken in (("1", "", "1"), ("2", "", "0"), ("3", "5,7", "7")):
        monkeypatch.setenv("LOCAL_RANK", worker)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        tasks._take_one_gpu()
        assert os.environ["CUDA_VISIBLE_DEVICES"] == taken


# Slow


def start(config: SweepConfig, *more: str) -> subprocess.Popen[str]:
    file = Path(config.output_dir).with_suffix(".yaml")
    file.write_text(dump_config(config))
    command = [sys.executable, "-m", "fuse.sweep", "--config", str(file), *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RANKS": "2", "OMP_NUM_THREADS": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **streams)  # type: ignore[call-overload,no-any-return]


def ranks_of(out: Path) -> list[psutil.Process]:
    """Processes that train for a sweep."""
    found = []
    for process in psutil.process_iter():
        try:
            if "fuse.finetune.rank" in process.cmdline() and str(out) in " ".join(
                " ".join(parent.cmdline()) for parent in process.parents()
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


@contextmanager
def engine(name: str, folder: Path) -> Iterator[list[str]]:
    with one_node_slurm(folder, "gpu") if name == "slurm" else nullcontext():
        yield [f"engine.name={name}", *(["engine.slurm.partition=gpu"] if name == "slurm" else [])]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["local", "slurm"])
def test_a_sweep_by_an_engine_whose_rank_is_killed_has_the_scores_of_one_rank(
    corpus: Path, tmp_path: Path, name: str
) -> None:
    pytest.importorskip("datatrove", reason="pip install --no-deps -r requirements-cluster.txt")
    two = ("grid={optim.lr: [0.0003, 0.001]}", "compare=null")
    calm, wild = (sweep_of(corpus, tmp_path / one, *two) for one in ("calm", "wild"))
    with engine(name, tmp_path / "node") as settings:
        process = start(wild, *settings, "engine.mem_per_cpu_gb=1")
        wait_for(lambda: ranks_of(tmp_path / "wild"), process)
        ranks_of(tmp_path / "wild")[0].kill()
        done = finish(process, tmp_path / "wild")
    assert done.code == 0, done.output + (tmp_path / "wild/.engine/log.txt").read_text()
    await_ranks(fork_ranks(sweeping(calm), 1, tmp_path / "calm-store"))
    assert same_scores(tmp_path / "calm", tmp_path / "wild", 2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stopped_sweep_by_an_engine_goes_on_in_the_middle_of_its_runs(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("datatrove", reason="pip install --no-deps -r requirements-cluster.txt")
    one = ("grid={optim.lr: [0.0003]}", "compare=null", "run.optim.epochs=12")
    calm, wild = (sweep_of(corpus, tmp_path / name, *one) for name in ("calm", "wild"))
    resume = run_folder(tmp_path / "wild", 0) / STAGING / RESUME
    process = start(wild, "engine.name=local")
    wait_for(lambda: ranks_of(tmp_path / "wild"), process)
    wait_for(lambda: last_position(resume), process)
    ranks = ranks_of(tmp_path / "wild")
    process.send_signal(signal.SIGTERM)
    stopped = finish(process, tmp_path / "wild")
    assert stopped.code == 143, stopped.output
    assert "interrupted with 1 of 1 runs to go; the same command continues" in stopped.output
    assert all_gone(ranks)
    again = finish(start(wild, "engine.name=local"), tmp_path / "wild")
    assert again.code == 0, again.output
    assert "continues the interrupted fine-tune at" in (tmp_path / "wild/.engine/log.txt").read_text()
    await_ranks(fork_ranks(sweeping(calm), 1, tmp_path / "calm-store"))
    assert same_scores(tmp_path / "calm", tmp_path / "wild", 1)
