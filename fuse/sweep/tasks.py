"""A sweep's fine-tunes as tasks of an engine, each on one rank, wherever it is put. As a program: one of them.

Tasks leave run folders, and word of what diverged; the rows are the launcher's, who is alone with its file.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import uuid
from collections.abc import Collection
from pathlib import Path

import torch

from cache.files.atomic import write_atomic
from configs.command.engines.job import LOG_FILE, Job, run_job
from configs.command.launch import ERROR_FILE, Interruption
from configs.loader import load_config
from configs.schema.sweep import SweepConfig
from fuse.finetune.launch import SECONDS_OF_GRACE, fine_tune
from fuse.finetune.plan import plan_finetune
from fuse.finetune.training.loop import Diverged
from fuse.runs.folder import CONFIG, is_complete
from fuse.sweep.rank import run_folder
from fuse.sweep.tuning import FineTunes

# In the engine's folder: numbers of the runs, a task each.
WAITING = "waiting.json"
# Tasks that were killed are started once more; the same command goes on with what is left.
RESTARTS = 1


def tune_by_engine(
    tunes: FineTunes, config: SweepConfig, done: Collection[int], interruption: Interruption, at_once: int, lock: int
) -> str:
    """Fine-tune what is missing, so many runs at a time; returns where it is told why some are left.

    Raises:
        ValueError: what the first task that met one met, once the rows of all others are there.
    """
    out = Path(config.output_dir).resolve()
    waiting = [run.number for run in tunes.runs if run.number not in done and not tunes.is_done(run.number)]
    folder = Path(config.engine.folder or out, ".engine").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_atomic(folder / WAITING, json.dumps(waiting))
    if waiting:
        program, name = ("fuse.sweep.tasks", str(out), str(folder)), f"trifuse-{uuid.uuid4().hex[:8]}"
        count = len(waiting)
        job = Job(
            program, count, min(at_once, count), RESTARTS, config.engine, folder, Path.cwd(), name, SECONDS_OF_GRACE
        )
        run_job(job, interruption, [lock], out)
    diverged = {number: folder / f"diverged-{number}" for number in waiting}
    tunes.collect(out, done, {number: int(path.read_text()) for number, path in diverged.items() if path.exists()})
    if (folder / ERROR_FILE).exists():
        raise ValueError((folder / ERROR_FILE).read_text())
    return f"what the tasks said is in {folder / LOG_FILE}"


def main() -> int:
    """One run, that of this RANK; arguments: the sweep's folder, and the engine's. Returns 0 unless it is to go on."""
    out, folder = map(Path, sys.argv[1:])
    config = load_config(SweepConfig, out / CONFIG)
    number = json.loads((folder / WAITING).read_text())[int(os.environ["RANK"])]
    tunes = FineTunes.of(config)
    if tunes.is_done(number):
        return 0
    interruption = Interruption(SECONDS_OF_GRACE)
    interruption.listen()
    # As batch systems say it; what started this has asked for another task by now.
    signal.signal(signal.SIGUSR1, lambda *_: signal.raise_signal(signal.SIGTERM))
    if not config.engine.allots:
        _take_one_gpu()
    try:
        lost = ""
        if not is_complete(run_folder(out, number)):
            lost = fine_tune(plan_finetune(tunes.configs[number]), interruption, ranks=1).lost
        ended = is_complete(run_folder(out, number)) and tunes.predict(number, interruption, ranks=1)
    except Diverged as diverged:
        write_atomic(folder / f"diverged-{number}", str(diverged.epoch))
        return 0
    except ValueError as error:
        write_atomic(folder / ERROR_FILE, str(error))
        return 0
    if not ended:
        print(f"run {number}: {lost}", file=sys.stderr)
    return interruption.exit_code or int(not ended)


def _take_one_gpu() -> None:
    """Tasks of one machine share out its GPUs by the number of their worker."""
    if (count := torch.cuda.device_count()) > 1:
        named = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        os.environ["CUDA_VISIBLE_DEVICES"] = named.split(",")[int(os.environ["LOCAL_RANK"]) % count]


if __name__ == "__main__":
    sys.exit(main())
