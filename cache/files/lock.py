"""One writer per features folder: a lock that the system releases when its owner is gone, however it ended."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Ranks of a launcher that was killed stop by themselves within seconds.
PATIENCE_SECONDS = 15.0


@contextmanager
def locked(folder: Path, patience_seconds: float = PATIENCE_SECONDS) -> Iterator[int]:
    """Hold the folder's lock; yields its file descriptor, for child processes that should hold it too.

    Raises:
        ValueError: somebody else still holds it after `patience_seconds`; names the owner.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _acquire(descriptor, folder, patience_seconds)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, folder: Path, patience_seconds: float) -> None:
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                owner = os.pread(descriptor, 32, 0).decode() or "unknown"
                message = (
                    f"another run (process {owner}) is writing to {folder}; wait for it, or set another features_dir"
                )
                raise ValueError(message) from None
        time.sleep(0.2)
