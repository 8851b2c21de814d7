"""One writer per folder; a lock whose owner is gone is free, however it ended."""

from __future__ import annotations

import os
import signal
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
