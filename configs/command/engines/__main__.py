"""Runs a job by the executor of datatrove that it names, until all its tasks came to their end.

Exit codes: 0 all did; 1 some did not, however often; 143 stopped.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path

from configs.command.engines.executors import run_tasks
from configs.command.engines.job import SECONDS_TO_STOP, Job, read_job, run_task
from configs.command.launch import module_name


def main() -> int:
    """Run the job whose file is the argument."""
    job = read_job(Path(sys.argv[1]))
    signal.signal(signal.SIGTERM, partial(_leave, job))
    for attempt in range(job.max_restarts + 1):
        # The store says what is done, and a unit that was repaired is to run again: files of completed tasks count
        # within one start alone, where those that failed are run again.
        try:
            run_tasks(job, partial(run_task, job=job), skip_completed=attempt > 0)
        # It is in the log; what is left is run again.
        except Exception:
            traceback.print_exc()
        if job.done() == job.tasks:
            return 0
    return 1


def _leave(job: Job, number: int, _: object) -> None:
    """Take the ranks along. A pool of processes may hang where it is taken apart in order, and is not."""
    if job.engine.allots:
        raise SystemExit(128 + number)
    signal.signal(number, signal.SIG_IGN)
    os.killpg(0, number)
    deadline = time.monotonic() + SECONDS_TO_STOP
    while _ranks(job) and time.monotonic() < deadline:
        time.sleep(0.1)
    os._exit(128 + number)


def _ranks(job: Job) -> int:
    """How many ranks of a job are alive on this machine (Linux only)."""
    wanted = "\0".join([module_name(job.program[0]), *job.program[1:]]).encode()
    count = 0
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            count += wanted in file.read_bytes()
    return count


if __name__ == "__main__":
    sys.exit(main())
