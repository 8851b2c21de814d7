"""Processes for tasks: whatever dies, at whatever moment, it is the right task that is told, and no other is lost."""

from __future__ import annotations

import errno
import gc
import os
import signal
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import configs.command.workers
from configs.command.workers import DEATHS_OF_IDLE, TookTooLongError, WorkerDiedError, Workers

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def workers() -> Iterator[Workers]:
    with Workers(2) as two:
        yield two


def own_id() -> int:
    return os.getpid()


def die(code: int) -> None:
    os._exit(code)


def die_once(marker: Path, number: int) -> str:
    """Somebody else's mistake: of an operator, or of the kernel that is short of memory."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), number)
    return "done"


def die_beside_another(folder: Path, name: str) -> str:
    """Takes most of the memory: two at once do not fit."""
    (folder / name).touch()
    time.sleep(0.5)
    if len(list(folder.iterdir())) > 1:
        (folder / name).unlink()
        os._exit(9)
    (folder / name).unlink()
    return name


def answer_by_half() -> None:
    """Killed while it sends: the other end has read of how many bytes will come, and some."""
    (pipe,) = [one for one in gc.get_objects() if isinstance(one, Connection)]
    pipe._send(struct.pack("!i", 1 << 20) + b"half")  # type: ignore[attr-defined]
    os._exit(3)


class UnreadableError(Exception):
    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} {other}")


def fail(error: str) -> None:
    raise UnreadableError(1, 2) if error == "unreadable" else TimeoutError(errno.ETIMEDOUT, "the server is gone")


def do(workers: Workers, function: Any, *arguments: Any, seconds: float = 50) -> Future[Any]:
    return workers.schedule(function, arguments, seconds)


def test_tasks_that_kill_their_process_at_once_are_told_and_take_no_other_along(workers: Workers) -> None:
    """They died before it was known that they had begun, and Pebble gave up: "All workers expired"."""
    tasks = [(do(workers, die, 11), do(workers, divmod, number, 7)) for number in range(8)]
    for number, (killer, well) in enumerate(tasks):
        assert well.result() == divmod(number, 7)
        with pytest.raises(WorkerDiedError) as told:
            killer.result()
        assert told.value.exit_code == 11


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_task_whose_process_somebody_kills_is_done_again(workers: Workers, tmp_path: Path, number: int) -> None:
    assert do(workers, die_once, tmp_path / "died", number).result() == "done"


def test_it_is_done_again_alone(workers: Workers, tmp_path: Path) -> None:
    both = [do(workers, die_beside_another, tmp_path, name) for name in ("a", "b")]
    assert [one.result() for one in both] == ["a", "b"]


def test_nothing_is_begun_after_the_close_and_what_runs_goes_on() -> None:
    with Workers(1) as one:
        running, waiting = do(one, time.sleep, 0.5), do(one, own_id)
        time.sleep(0.2)
        one.close()
        assert running.result() is None
        time.sleep(0.2)
        assert not waiting.done()


def test_a_task_may_have_one_try(tmp_path: Path) -> None:
    with Workers(1, tries=1) as one, pytest.raises(WorkerDiedError, match="its process ended with exit code -9"):
        do(one, die_once, tmp_path / "died", signal.SIGKILL).result()


def test_a_process_that_has_nothing_to_do_is_replaced(workers: Workers) -> None:
    """The pool was broken by it, and every later task was refused."""
    before = do(workers, own_id).result()
    os.kill(before, signal.SIGKILL)
    assert do(workers, own_id).result() not in (before, os.getpid())


def test_half_an_answer_is_none(workers: Workers) -> None:
    """It held the lock of the pipe that all shared, and what all read from it was rubbish."""
    half = do(workers, answer_by_half)
    assert do(workers, divmod, 9, 7).result() == (1, 2)
    with pytest.raises(WorkerDiedError, match="its process ended with exit code 3"):
        half.result()


def test_a_task_has_its_time(workers: Workers) -> None:
    slow, quick = do(workers, time.sleep, 60, seconds=0.5), do(workers, divmod, 9, 7)
    with pytest.raises(TookTooLongError, match=r"longer than 0\.5 s"):
        slow.result()
    assert quick.result() == (1, 2)


def test_what_a_task_raises_is_raised(workers: Workers) -> None:
    with pytest.raises(TimeoutError, match="the server is gone") as told:
        do(workers, fail, "timeout").result()
    assert "in fail" in told.value.__notes__[0]
    with pytest.raises(RuntimeError, match="UnreadableError: 1 2"):
        do(workers, fail, "unreadable").result()


def test_a_task_that_nobody_waits_for_ends() -> None:
    with Workers(1) as one:
        process = do(one, own_id).result()
        slow, waiting = do(one, time.sleep, 60), do(one, time.sleep, 60)
        time.sleep(0.2)
        assert waiting.cancel()
        assert slow.cancel()
        assert do(one, own_id).result() != process


def test_processes_that_do_not_start_are_no_tasks_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configs.command.workers, "_work", die_instead)
    with Workers(1) as one, pytest.raises(OSError, match=r"end as soon as they start \(exit code 5\)"):
        do(one, own_id).result()
    assert DEATHS_OF_IDLE > 1


def die_instead(_: Connection) -> None:
    os._exit(5)


def test_the_end_waits_for_nobody() -> None:
    threads = threading.active_count()
    with Workers(2) as two:
        first = do(two, own_id).result()
        tasks = [do(two, time.sleep, 60) for _ in range(4)]
        start = time.monotonic()
    assert time.monotonic() - start < 5
    for task in tasks:
        with pytest.raises(CancelledError):
            task.result()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert not two.active
    assert threading.active_count() == threads
