"""What an engine is told and what it tells, without datatrove."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from configs.command.engines import slurm
from configs.command.engines.job import Job, read_job, require_engine, run_task
from configs.loader import check
from configs.schema.features import Engine, FeaturesConfig, Slurm
from extract.run.plan import make_plan
from tests.tiny.corpus import write_tiny_corpus, write_tiny_encoders


def job(folder: Path, program: tuple[str, ...], engine: Engine | None = None) -> Job:
    return Job(program, 3, 2, 1, engine or Engine("local"), folder, folder, "trifuse-x")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Writes who it is, and where, and dies if it is rank 2."""
    (tmp_path / "a_rank.py").write_text(
        "import os, sys\n"
        "names = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'CUDA_VISIBLE_DEVICES')\n"
        "said = [os.environ.get(name, '-') for name in names]\n"
        "open(f'{sys.argv[1]}-' + said[0], 'w').write(' '.join(said))\n"
        "sys.exit(said[0] == '2')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    # It is the test's own process that would be told to die with its parent.
    monkeypatch.setattr("configs.command.engines.job.die_with_parent", lambda _: None)
    return ("a_rank", "said")


def test_a_task_is_a_rank_where_its_launcher_was_started(tmp_path: Path, program: tuple[str, ...]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    run_task(None, 1, 3, job(tmp_path, program))
    assert (tmp_path / "said-1").read_text() == "1 3 0 -"
    with pytest.raises(RuntimeError, match="rank 2 of 3 ended with 1"):
        run_task(None, 2, 3, job(tmp_path, program))
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_task_that_asked_for_no_gpu_sees_none(tmp_path: Path, program: tuple[str, ...]) -> None:
    """The launcher has planned for the CPU: a node that has a GPU would refuse the plan."""
    run_task(None, 0, 3, job(tmp_path, program, Engine("ray")))
    assert (tmp_path / "said-0").read_text() == "0 3 0 "
    run_task(None, 0, 3, job(tmp_path, program, Engine("ray", gpus_per_task=1)))
    assert (tmp_path / "said-0").read_text() == "0 3 0 -"


def test_a_job_is_read_as_it_was_written(tmp_path: Path) -> None:
    from pydantic import TypeAdapter

    engine = Engine("slurm", slurm=Slurm("gpu", sbatch_args={"account": "me"}))
    written = job(tmp_path, ("a", "b"), engine)
    (tmp_path / "job.json").write_bytes(TypeAdapter(Job).dump_json(written))
    assert read_job(tmp_path / "job.json") == written


def test_what_is_missing_is_one_line_with_how_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    install = f"{sys.executable} -m pip install --no-deps -r requirements-cluster.txt"
    with pytest.raises(ValueError, match="needs datatrove and ray: ") as refused:
        require_engine(Engine("ray"))
    assert str(refused.value) == f"engine.name=ray needs datatrove and ray: {install}"
    require_engine(Engine())


def test_slurm_is_started_where_there_is_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="start it where jobs are submitted"):
        require_engine(Engine("slurm", slurm=Slurm("gpu")))


def test_a_partition_is_asked_for_before_anything_is_planned() -> None:
    with pytest.raises(ValueError, match=r"slurm\.partition: name one"):
        check(FeaturesConfig, {"corpus": "x.csv", "engine": {"name": "slurm"}}, "x")


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (1, "cuda")])
def test_a_plan_is_for_the_device_that_tasks_are_given_and_not_for_the_launchers(
    tmp_path: Path, gpus: int, device: str
) -> None:
    corpus = write_tiny_corpus(tmp_path / "corpus", ("1",), ("happy",))
    encoder = write_tiny_encoders(tmp_path / "encoders")["audio"]
    tree = {
        "corpus": str(corpus),
        "encoders": {"audio": str(encoder), "video": None, "text": None},
        "engine": {"name": "slurm", "gpus_per_task": gpus, "slurm": {"partition": "any"}},
    }
    plan = make_plan(check(FeaturesConfig, tree, "x"))
    assert plan.device == device


def squeue(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "squeue").write_text(f"#!/bin/sh\n{answer}\n")
    (folder / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_a_job_that_is_still_there_is_not_joined_by_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm's jobs outlive the launcher, whose lock on the folder is gone with it."""
    squeue(tmp_path / "bin", monkeypatch, "echo 17 test trifuse-x")
    with slurm.recorded(tmp_path, "trifuse-x"):
        pass
    with pytest.raises(ValueError, match=r"the Slurm job trifuse-x still writes to .*; wait for it, or: scancel"):
        slurm.refuse_running(tmp_path, patience_seconds=0)
    squeue(tmp_path / "bin", monkeypatch, "exit 1")
    with pytest.raises(ValueError, match="still writes"):
        slurm.refuse_running(tmp_path, patience_seconds=0)
    squeue(tmp_path / "bin", monkeypatch, "")
    slurm.refuse_running(tmp_path)
    assert not (tmp_path / slurm.NAME_FILE).exists()
    with slurm.recorded(tmp_path, "trifuse-x"):
        assert (tmp_path / slurm.NAME_FILE).exists()
    assert not (tmp_path / slurm.NAME_FILE).exists()


def test_without_squeue_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / slurm.NAME_FILE).write_text("trifuse-x")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match=f"or remove {tmp_path}/{slurm.NAME_FILE} if the job is gone"):
        slurm.refuse_running(tmp_path)
