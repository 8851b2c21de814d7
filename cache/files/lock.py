"""One writer per folder: a lock that the system releases when its owner is gone, however it ended.

Some network file systems have no locks (NFS without its lock daemon, Lustre mounted without `flock`). There a file
`.lock.owner`, made by exclusive creation, stands in, which is a weaker guarantee: it outlives an owner that was
killed, and does not wait for that owner's ranks. It is taken over where the owner ran on this host and is gone; of
an owner on another host only a person can say that it is gone, and is told which file to remove.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cache.files.place import refuse_address

# Ranks of a launcher that was killed stop by themselves within seconds.
PATIENCE_SECONDS = 15.0
POLL_SECONDS = 0.2
NO_LOCKS_HERE = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


@contextmanager
def locked(
    folder: Path, patience_seconds: float = PATIENCE_SECONDS, key: str = "features_dir", shared: bool = False
) -> Iterator[int]:
    """Hold the folder's lock; yields its file descriptor, for child processes that should hold it too.

    Args:
        folder: it is made where it is missing.
        patience_seconds: how long to wait for somebody else.
        key: the setting that names the folder, for who is refused.
        shared: hold it beside a job's first node, which has called `share`; without locks there is nothing to hold.

    Raises:
        ValueError: somebody else still holds it after `patience_seconds`; names the owner.
    """
    refuse_address(folder)
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    owner_file = folder / ".lock.owner"
    stands_in = False
    try:
        try:
            _wait(lambda: _lock(descriptor, folder, key, shared), patience_seconds)
        except OSError as error:
            if error.errno not in NO_LOCKS_HERE:
                raise
            if shared:
                yield descriptor
                return
            print(
                f"note: the file system of {folder} has no locks ({errno.errorcode[error.errno]}); "
                f"{owner_file.name} stands in: remove it if a killed run leaves it behind",
                file=sys.stderr,
            )
            _wait(lambda: _create(owner_file, folder, key), patience_seconds)
            stands_in = True
        if not shared:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)
        if stands_in:
            owner_file.unlink(missing_ok=True)


def share(descriptor: int) -> None:
    """Let other nodes of the same job hold a lock as well; whoever wants it alone waits for all of them.

    Raises:
        ValueError: somebody else took it in between.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError("another run took the lock while this one was to share it; start this again") from error
    except OSError as error:
        if error.errno not in NO_LOCKS_HERE:
            raise


def _wait(attempt: Callable[[], str], patience_seconds: float) -> None:
    """Repeat until `attempt` has nothing to say against it; what it last said is the error."""
    deadline = time.monotonic() + patience_seconds
    while complaint := attempt():
        if time.monotonic() > deadline:
            raise ValueError(complaint)
        time.sleep(POLL_SECONDS)


def _lock(descriptor: int, folder: Path, key: str, shared: bool = False) -> str:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return _taken(f"process {os.pread(descriptor, 32, 0).decode() or 'unknown'}", folder, key)
    return ""


def _create(owner_file: Path, folder: Path, key: str) -> str:
    """Make the file that stands in for a lock; a dead owner's is removed first."""
    me = f"{socket.gethostname()} {os.getpid()}"
    try:
        descriptor = os.open(owner_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        owner = _read(owner_file)
        host, _, process = owner.partition(" ")
        if host == socket.gethostname() and process.isdecimal() and not _is_alive(int(process)):
            _remove(owner_file, owner)
        whose = f"process {process} on {host}" if process else "owner unknown"
        return f"{_taken(whose, folder, key)}; if it is gone, remove {owner_file}"
    os.write(descriptor, me.encode())
    os.close(descriptor)
    return ""


def _remove(owner_file: Path, owner: str) -> None:
    """Remove a dead owner's file, and never that of a process that was quicker to follow it."""
    aside = owner_file.with_name(f"{owner_file.name}.{os.getpid()}")
    try:
        owner_file.rename(aside)
    except FileNotFoundError:
        return
    if aside.read_text() == owner:
        aside.unlink()
    else:
        aside.rename(owner_file)


def _taken(whose: str, folder: Path, key: str) -> str:
    return f"another run ({whose}) is writing to {folder}; wait for it, or set another {key}"


def _read(owner_file: Path) -> str:
    """The owner; "" where the file has just gone."""
    try:
        return owner_file.read_text()
    except FileNotFoundError:
        return ""


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
