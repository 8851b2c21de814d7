"""What this project asks Slurm itself: whether a job is still there, and to end it. Submitting is datatrove's part."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache.files.atomic import write_atomic

# In the features folder: the job that writes to it. Slurm's jobs outlive whoever submitted them.
NAME_FILE = ".slurm-job"
# A job that was cancelled takes a while to end.
PATIENCE_SECONDS = 45.0
SECONDS_BETWEEN_LOOKS = 2.0


def refuse_without_slurm() -> None:
    """Look for Slurm's commands.

    Raises:
        ValueError: they are not here.
    """
    if not all(map(shutil.which, ("sbatch", "squeue", "scancel", "scontrol"))):
        raise ValueError("engine.name=slurm needs sbatch and squeue: start it where jobs are submitted")


def is_there(name: str) -> bool:
    """Whether a job of this name waits, runs or is just ending; so is taken to be one that cannot be asked after."""
    asked = subprocess.run(["squeue", "--noheader", f"--name={name}"], capture_output=True, text=True, check=False)
    return asked.returncode != 0 or bool(asked.stdout.strip())


def wait_for(name: str) -> None:
    """Wait until no job of this name is there."""
    while is_there(name):
        time.sleep(SECONDS_BETWEEN_LOOKS)


def cancel(name: str) -> None:
    """End the jobs of this name: ranks are told to stop, and keep what is complete."""
    subprocess.run(["scancel", f"--name={name}"], check=False)


@contextmanager
def recorded(folder: Path, name: str) -> Iterator[None]:
    """Keep a job's name in a folder for as long as it is there."""
    write_atomic(folder / NAME_FILE, name)
    yield
    # Whoever was stopped has cancelled it, but not waited for its end.
    if not is_there(name):
        (folder / NAME_FILE).unlink()


def refuse_running(folder: Path, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Make sure that no job of an earlier start writes to a features folder.

    Raises:
        ValueError: one does; how it is ended.
    """
    file = folder / NAME_FILE
    if not file.exists():
        return
    name, deadline = file.read_text(), time.monotonic() + patience_seconds
    if not shutil.which("squeue"):
        raise ValueError(
            f"the Slurm job {name} may still write to {folder}, and there is no squeue here to ask; start this where "
            f"there is one, or remove {file} if the job is gone"
        )
    while is_there(name):
        if time.monotonic() > deadline:
            raise ValueError(f"the Slurm job {name} still writes to {folder}; wait for it, or: scancel --name={name}")
        time.sleep(SECONDS_BETWEEN_LOOKS)
    file.unlink()
