"""A program whose ranks are tasks of an executor of datatrove, and how one of them is run.

A task runs the very program that torchrun starts, as a process of its own: one that is killed is a task that failed,
not an executor that waits for ever. No datatrove here: whoever starts a job need not have it.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from multiprocessing import current_process
from pathlib import Path

from pydantic import TypeAdapter

from cache.files.atomic import write_atomic
from configs.command.engines.slurm import recorded, refuse_without_slurm
from configs.command.launch import Interruption, die_with_parent, environment, module_name
from configs.command.progress import Progress
from configs.schema.features import Engine

# In the job's folder.
JOB_FILE = "job.json"
LOG_FILE = "log.txt"
LOGS = "datatrove"
# For what is complete of a unit to be kept; a rank gives up by itself before that.
SECONDS_TO_STOP = 6.0
NEEDED = {"local": ("datatrove",), "slurm": ("datatrove",), "ray": ("datatrove", "ray")}


@dataclass(frozen=True)
class Job:
    """A program that so many tasks run, each with its own RANK and the same WORLD_SIZE.

    Attributes:
        program: a module of this checkout and its arguments.
        tasks: how many.
        workers: how many of them at a time.
        max_restarts: how often those that failed are run again.
        engine: by what.
        folder: for this job alone; all nodes see it.
        here: the folder that relative paths start from.
        name: by which a cluster lists it.
        seconds_to_stop: what a task may take to end by itself.
    """

    program: tuple[str, ...]
    tasks: int
    workers: int
    max_restarts: int
    engine: Engine
    folder: Path
    here: Path
    name: str
    seconds_to_stop: float = SECONDS_TO_STOP

    def done(self) -> int:
        """How many tasks have come to their end: datatrove makes a file for each."""
        return sum(1 for _ in (self.folder / LOGS / "completions").glob("*"))


def require_engine(engine: Engine) -> None:
    """Look for what an engine is made of.

    Raises:
        ValueError: it is not installed; how it is.
    """
    missing = [name for name in NEEDED.get(engine.name, ()) if not importlib.util.find_spec(name)]
    if missing:
        raise ValueError(
            f"engine.name={engine.name} needs {' and '.join(missing)}: "
            f"{sys.executable} -m pip install --no-deps -r requirements-cluster.txt"
        )
    if engine.name == "slurm":
        refuse_without_slurm()


def run_job(job: Job, interruption: Interruption, keep_open: Sequence[int], records: Path) -> None:
    """Run all tasks and wait. What they say is in the job's log; `records`: a folder that tells of jobs of Slurm."""
    write_atomic(job.folder / JOB_FILE, TypeAdapter(Job).dump_json(job))
    command = [sys.executable, "-m", module_name("configs.command.engines"), str(job.folder / JOB_FILE)]
    with (
        recorded(records, job.name) if job.engine.name == "slurm" else nullcontext(),
        (job.folder / LOG_FILE).open("ab") as log,
        Progress(f"{job.engine.name}, {job.workers} at a time", job.tasks, "tasks") as progress,
    ):

        def look() -> None:
            progress.add(job.done() - progress.count)

        interruption.start(command, environment(), keep_open, log.fileno(), look)
        look()


def read_job(path: Path) -> Job:
    """The job that was written there."""
    return TypeAdapter(Job).validate_json(path.read_bytes())


def run_task(_: object, rank: int, world_size: int, job: Job) -> None:
    """One rank of the program, as a step of a pipeline of datatrove.

    Raises:
        RuntimeError: it did not come to its end.
        SystemExit: this process was told to stop; the rank was told too, and has stopped.
    """
    # Whoever started this process may start another for the same rank as soon as it is gone.
    die_with_parent(signal.SIGKILL)
    before = signal.signal(signal.SIGTERM, _leave)
    module, *arguments = job.program
    command = [sys.executable, "-m", module_name(module), *arguments]
    rank_process = subprocess.Popen(
        command, cwd=job.here, env=_task_environment(job, rank, world_size), preexec_fn=_die_at_once
    )
    try:
        code = rank_process.wait()
    except BaseException:
        rank_process.terminate()
        with suppress(subprocess.TimeoutExpired):
            rank_process.wait(job.seconds_to_stop)
        rank_process.kill()
        raise
    finally:
        # Between two tasks a pool ends its processes by SIGTERM: there is nothing to wait for.
        signal.signal(signal.SIGTERM, before)
    if code:
        raise RuntimeError(f"rank {rank} of {world_size} ended with {code}")


def stop_ranks(job: Job) -> None:
    """Tell the ranks of a job on this machine to stop, and wait until they have (Linux only)."""
    # Once: a second signal would find the interpreter of a rank that is already ending.
    for number in _ranks(job):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGTERM)
    deadline = time.monotonic() + job.seconds_to_stop
    while _ranks(job) and time.monotonic() < deadline:
        time.sleep(0.1)


def _ranks(job: Job) -> list[int]:
    wanted = "\0".join([module_name(job.program[0]), *job.program[1:]]).encode()
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if wanted in file.read_bytes():
                found.append(int(file.parent.name))
    return found


def _die_at_once() -> None:
    die_with_parent(signal.SIGKILL)


def _leave(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def _task_environment(job: Job, rank: int, world_size: int) -> dict[str, str]:
    # A task has what it was allotted; of the GPUs of this machine it takes that of its worker.
    worker = 0 if job.engine.allots else (current_process()._identity or (0,))[-1]
    shown = {"CUDA_VISIBLE_DEVICES": ""} if job.engine.allots and not job.engine.gpus_per_task else {}
    return {**environment(), **shown, "RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_RANK": str(worker)}


def python_path() -> str:
    """PYTHONPATH with which other machines find this checkout; "" where TriFuse is installed."""
    return "" if module_name("") else str(Path(__file__).parents[3])
