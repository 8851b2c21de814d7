"""Processes that do tasks for this one, in threads' stead: what hangs or dies takes no other task along.

Each has a pipe of its own and one task at a time: what a process had in hand is known however early it died. Where
processes share a pipe, one that dies before it has said what it took breaks the pool, or holds its locks for ever.
"""

from __future__ import annotations

import pickle
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from types import ModuleType, TracebackType
from typing import Any, Self

# A task whose process dies is done again, alone: memory may have been short, or somebody killed a wrong process.
TRIES = 2
# Processes that die in a row with no task in hand: more of them would not live either.
DEATHS_OF_IDLE = 5
SECONDS_TO_END = 5.0
# A process of multiprocessing asks after all others when it starts: an exit code can be read once only.
_PROCESSES = threading.Lock()


class WorkerDiedError(Exception):
    """The process that did a task ended before the task did, as often as it was tried."""

    def __init__(self, exit_code: int) -> None:
        """`exit_code`: of the last one; a signal's number is negative."""
        super().__init__(f"its process ended with exit code {exit_code}")
        self.exit_code = exit_code


class TookTooLongError(Exception):
    """A task's time was up, and its process was killed. Not a `TimeoutError`: file servers raise that."""


@dataclass
class _Task:
    payload: bytes
    timeout_seconds: float
    future: Future[Any] = field(default_factory=Future)
    deaths: int = 0


@dataclass
class _Worker:
    process: ForkServerProcess
    connection: Connection
    ready: bool = False
    task: _Task | None = None
    deadline: float = float("inf")


class _Process(ForkServerProcess):
    """Does not run the module again that Python was started with: a script that predicts would start itself."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802
        main = sys.modules["__main__"]
        # What has no file cannot be run again.
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            return ForkServerProcess._Popen(process_obj)
        finally:
            sys.modules["__main__"] = main


class Workers:
    """At most so many processes. They start as they are needed and live until `stop`, or the end of a `with`."""

    def __init__(self, count: int, preload: Sequence[str] = (), tries: int = TRIES) -> None:
        """`preload`: modules that a process has imported when it starts, once for all; `tries`: of tasks that die."""
        self._count, self._tries, self._context = count, tries, ForkServerContext()
        # Processes are forked from a server that has imported these; nothing else runs there.
        self._context.set_forkserver_preload(list(preload))
        self._tasks: deque[_Task] = deque()
        self._workers: list[_Worker] = []
        self._deaths_of_idle, self._closed, self._stopping, self._awake = 0, False, False, False
        # Never closed here: whoever writes to it may be about to.
        self._woken, self._waker = self._context.Pipe(duplex=False)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """These."""
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Stop them."""
        self.stop()

    @property
    def active(self) -> bool:
        """Whether tasks are done."""
        return self._thread.is_alive() and not self._stopping

    def schedule(self, function: Callable[..., Any], arguments: Iterable[Any], timeout_seconds: float) -> Future[Any]:
        """Have a function of a module called in a process.

        Returns:
            what gives its result or raises what it raised, else `TookTooLongError`, `WorkerDiedError`, or `OSError`
            where processes do not start. Cancelled, it is not done, or its process is killed.
        """
        task = _Task(pickle.dumps((function, tuple(arguments))), timeout_seconds)
        task.future.add_done_callback(self._wake)
        self._tasks.append(task)
        self._wake()
        return task.future

    def close(self) -> None:
        """Begin no further task."""
        self._closed = True

    def stop(self) -> None:
        """Kill the processes, whatever they do. Takes no lock: garbage collection may call this at any time."""
        self._stopping = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _wake(self, _: object = None) -> None:
        # The thread says that it sleeps before it looks for work, so that nothing is missed and the pipe never fills.
        if not self._awake:
            self._awake = True
            self._waker.send_bytes(b"")

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            while not self._stopping:
                self._staff()
                self._hand_out()
                self._await_news()
                for worker in list(self._workers):
                    self._look_at(worker)
        # Nobody else hears of what happens in a thread.
        except BaseException as caught:
            error = caught
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self._stopping = True
        left = [*self._tasks, *(worker.task for worker in self._workers if worker.task)]
        for worker in list(self._workers):
            self._dismiss(worker)
        for task in left:
            _settle(task, error) if error else task.future.cancel()

    def _staff(self) -> None:
        if self._closed:
            return
        busy = sum(worker.task is not None for worker in self._workers)
        while len(self._workers) < min(self._count, busy + len(self._tasks)):
            ours, theirs = self._context.Pipe()
            process = _Process(target=_work, args=(theirs,), daemon=True)
            with _PROCESSES:
                process.start()
            theirs.close()
            self._workers.append(_Worker(process, ours))

    def _hand_out(self) -> None:
        while self._tasks and not self._closed:
            busy = [worker.task for worker in self._workers if worker.task]
            free = [worker for worker in self._workers if worker.ready and not worker.task]
            if not free or any(task.deaths for task in busy) or (busy and self._tasks[0].deaths):
                return
            task, worker = self._tasks.popleft(), free[0]
            if task.future.cancelled():
                continue
            try:
                worker.connection.send_bytes(task.payload)
            except OSError:
                # It is dead, which is seen next.
                self._tasks.appendleft(task)
                return
            worker.task, worker.deadline = task, time.monotonic() + task.timeout_seconds

    def _await_news(self) -> None:
        deadline = min((worker.deadline for worker in self._workers), default=float("inf"))
        watched: list[Any] = [self._woken]
        for worker in self._workers:
            watched += [worker.connection, worker.process.sentinel]
        seconds = None if deadline == float("inf") else max(deadline - time.monotonic(), 0)
        wait(watched, seconds)
        while self._woken.poll():
            self._woken.recv_bytes()
        self._awake = False

    def _look_at(self, worker: _Worker) -> None:
        """Take a worker's answer, or its death, or end it where its time is up or nobody waits for it."""
        task = worker.task
        if worker.connection.poll():
            try:
                answer = worker.connection.recv()
            except (EOFError, OSError):
                self._bury(worker)
                return
            worker.ready, worker.task, worker.deadline = True, None, float("inf")
            if task is not None:
                self._deaths_of_idle = 0
                _settle(task, *answer)
        elif wait([worker.process.sentinel], 0):
            self._bury(worker)
        elif task is not None and task.future.cancelled():
            self._dismiss(worker)
        elif task is not None and time.monotonic() >= worker.deadline:
            self._dismiss(worker)
            _settle(task, TookTooLongError(f"longer than {task.timeout_seconds:g} s"))

    def _bury(self, worker: _Worker) -> None:
        exit_code, task = self._dismiss(worker, SECONDS_TO_END), worker.task
        if task is None:
            self._deaths_of_idle += bool(self._tasks)
            if self._deaths_of_idle >= DEATHS_OF_IDLE:
                raise OSError(f"processes end as soon as they start (exit code {exit_code})")
            return
        task.deaths += 1
        if task.deaths < self._tries:
            self._tasks.appendleft(task)
        else:
            _settle(task, WorkerDiedError(exit_code))

    def _dismiss(self, worker: _Worker, patience_seconds: float = 0) -> int:
        """A worker that is gone, and its exit code."""
        self._workers.remove(worker)
        if not wait([worker.process.sentinel], patience_seconds):
            worker.process.kill()
        with _PROCESSES:
            worker.process.join()
        worker.connection.close()
        return worker.process.exitcode or 0


def _settle(task: _Task, error: BaseException | None, result: object = None) -> None:
    # It may have been cancelled by now.
    with suppress(InvalidStateError):
        if error is None:
            task.future.set_result(result)
        else:
            task.future.set_exception(error)


def _work(connection: Connection) -> None:
    """What a process does: tasks, until the other end is closed."""
    # Ctrl-C reaches every process of a terminal; whoever started this one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, ConnectionError):
        connection.send(None)
        while True:
            function, arguments = connection.recv()
            connection.send(_outcome(function, arguments))


def _outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Exception | None, Any]:
    try:
        return None, function(*arguments)
    except Exception as error:
        error.add_note(traceback.format_exc())
        try:
            pickle.loads(pickle.dumps(error))
        # Not every exception can be sent, and those that can may not be read.
        except Exception:
            return RuntimeError(traceback.format_exc()), None
        return error, None
