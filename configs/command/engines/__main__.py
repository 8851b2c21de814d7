"""Runs a job by the executor of datatrove that it names, until all its tasks came to their end.

Exit codes: 0 all did; 1 some did not, however often; 143 stopped.
"""

from __future__ import annotations

import signal
import sys
import traceback
from functools import partial
from pathlib import Path

from configs.command.engines.executors import run_tasks
from configs.command.engines.job import read_job, run_task


def main() -> int:
    """Run the job whose file is the argument."""
    job = read_job(Path(sys.argv[1]))
    signal.signal(signal.SIGTERM, _leave)
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


def _leave(number: int, _: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
