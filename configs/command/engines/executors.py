"""Which executor of datatrove an engine is, and what it is handed on."""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.command.engines.job import LOGS, Job, python_path, stop_ranks
from configs.command.engines.slurm import cancel, wait_for
from configs.command.workers import Workers


def run_tasks(job: Job, step: Callable[..., None], skip_completed: bool) -> None:
    """Run the tasks of a job, each one call of `step`, and wait for their end.

    Raises:
        Exception: what datatrove raises; some executors do where a task failed.
    """
    settings: dict[str, Any] = {
        "pipeline": [step],
        "tasks": job.tasks,
        "workers": min(job.workers, job.tasks),
        "logging_dir": str(job.folder / LOGS),
        "skip_completed": skip_completed,
    }
    # datatrove is imported where it is used: whoever has no use for it need not have it.
    if not job.engine.allots:
        _by_processes(job, settings)
        return
    settings["cpus_per_task"] = job.engine.cpus_per_task
    settings["mem_per_cpu_gb"] = job.engine.mem_per_cpu_gb
    settings["gpus_per_task"] = job.engine.gpus_per_task
    (_by_slurm if job.engine.name == "slurm" else _by_ray)(job, settings)


def _by_processes(job: Job, settings: dict[str, Any]) -> None:
    """What datatrove's executor does, in processes of our own: its pool waits for ever where one of it is killed."""
    from datatrove.executor import LocalPipelineExecutor

    ranks = LocalPipelineExecutor(**settings).get_incomplete_ranks()
    with Workers(settings["workers"], tries=1) as pool:
        try:
            for rank, task in [(rank, pool.schedule(_run_rank, (settings, rank), math.inf)) for rank in ranks]:
                if error := task.exception():
                    print(f"task {rank}: {error}", flush=True)
        except BaseException:
            pool.close()
            stop_ranks(job)
            raise


def _run_rank(settings: dict[str, Any], rank: int) -> None:
    from datatrove.executor import LocalPipelineExecutor

    # All but rank 0 of this machine keep their log to themselves.
    LocalPipelineExecutor(**settings)._run_for_rank(rank, local_rank=1)


def _by_slurm(job: Job, settings: dict[str, Any]) -> None:
    """datatrove submits and leaves; this waits, and takes the job along where it is stopped itself."""
    from datatrove.executor import SlurmPipelineExecutor

    slurm = job.engine.slurm
    executor = SlurmPipelineExecutor(
        **settings,
        job_name=job.name,
        partition=slurm.partition,
        time=slurm.time,
        qos=slurm.qos,
        sbatch_args=slurm.sbatch_args,
        max_array_size=slurm.max_array_size,
        # srun no longer takes this over from sbatch.
        srun_args={"cpus-per-task": job.engine.cpus_per_task},
        env_command=_activate(),
    )
    executor.launch_merge_stats = _no_statistics
    try:
        executor.run()
        wait_for(job.name)
    except BaseException:
        cancel(job.name)
        raise


def _by_ray(job: Job, settings: dict[str, Any]) -> None:
    """datatrove leaves it to its caller to join a cluster, or to start one."""
    import ray
    from datatrove.executor import RayPipelineExecutor

    with ray.init(address=job.engine.ray_address, runtime_env={"env_vars": {"PYTHONPATH": python_path()}}):
        RayPipelineExecutor(**settings).run()


def _no_statistics() -> None:
    """Tasks count nothing, and the job that adds up would wait for ever where one of them failed."""


def _activate() -> str:
    """The shell command after which a node runs this Python and finds this code."""
    path = shlex.quote(str(Path(sys.executable).parent))
    return f'export PATH={path}{os.pathsep}"$PATH" PYTHONPATH={shlex.quote(python_path())}'
