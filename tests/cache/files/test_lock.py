"""One writer per folder; a lock whose owner is gone is free, however it ended."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cache.files.lock import locked
from tests.tiny.places import ROOT

HOLDER = """
import subprocess, sys, time
from pathlib import Path
from cache.files.lock import locked
with locked(Path(sys.argv[1])) as descriptor:
    if sys.argv[2] == "child":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[descriptor])
        print(child.pid, flush=True)
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(folder: Path, how: str = "alone") -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Another process that holds the lock, and the children it passed the lock on to."""
    command = [sys.executable, "-c", HOLDER, str(folder), how]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        children = []
        while (line := process.stdout.readline().strip()) != "held":
            children.append(int(line))
        try:
            yield process, children
        finally:
            process.kill()
            for child in children:
                _kill(child)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def test_a_second_run_is_refused_and_the_owner_named(tmp_path: Path) -> None:
    with holder(tmp_path) as (owner, _), pytest.raises(ValueError, match=r"another run") as error, locked(tmp_path, 0):
        pass
    assert f"(process {owner.pid}) is writing to {tmp_path}" in str(error.value)
    assert "set another features_dir" in str(error.value)


def test_a_killed_owner_leaves_the_lock_free(tmp_path: Path) -> None:
    with holder(tmp_path) as (owner, _):
        owner.kill()
        owner.wait()
        with locked(tmp_path, 0):
            assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_a_child_keeps_the_lock_of_a_killed_owner(tmp_path: Path) -> None:
    """The ranks of a launcher that was killed may still be writing."""
    with holder(tmp_path, "child") as (owner, (child,)):
        owner.kill()
        owner.wait()
        with pytest.raises(ValueError, match=r"another run"), locked(tmp_path, 0):
            pass
        _kill(child)
        with locked(tmp_path, 5):
            pass


def test_a_run_waits_for_its_predecessor(tmp_path: Path) -> None:
    with holder(tmp_path) as (owner, _):
        threading.Timer(0.5, owner.kill).start()
        start = time.monotonic()
        with locked(tmp_path, 10):
            assert 0.3 < time.monotonic() - start < 5


def test_the_lock_ends_with_its_block_and_makes_its_folder(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path / "a" / "b", 0):
            assert (tmp_path / "a" / "b" / ".lock").exists()


def test_an_error_inside_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), locked(tmp_path, 0):
        raise RuntimeError
    with locked(tmp_path, 0):
        pass


def test_a_shorter_owner_replaces_a_longer_one(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("123456789012345")
    with locked(tmp_path, 0):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


@pytest.fixture(params=["ENOLCK", "ENOTSUP", "ENOSYS"])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks, as NFS and Lustre may be mounted. Once a run ended there with "[Errno 37]"."""

    def refuse(*_: object) -> None:
        raise OSError(getattr(errno, request.param), "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_file_stands_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(tmp_path, 0):
        assert (tmp_path / ".lock.owner").read_text() == f"{socket.gethostname()} {os.getpid()}"
        with (
            pytest.raises(ValueError, match=r"another run \(process \d+ on .*if it is gone, remove"),
            locked(tmp_path, 0),
        ):
            pass
    assert not (tmp_path / ".lock.owner").exists()
    assert f"the file system of {tmp_path} has no locks (E" in capsys.readouterr().err
    with locked(tmp_path, 0):
        pass


@pytest.mark.usefixtures("no_locks")
def test_without_locks_only_a_dead_owner_of_this_host_is_followed(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    (tmp_path / ".lock.owner").write_text(f"{socket.gethostname()} {gone.pid}")
    with locked(tmp_path, 1):
        pass
    (tmp_path / ".lock.owner").write_text(f"elsewhere {gone.pid}")
    with pytest.raises(ValueError, match=f"process {gone.pid} on elsewhere"), locked(tmp_path, 0):
        pass
    assert (tmp_path / ".lock.owner").exists()


def test_another_error_of_the_file_system_is_not_taken_for_a_lack_of_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="broken disk"), locked(tmp_path, 0):
        pass
