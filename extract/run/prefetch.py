"""Work that runs ahead of its consumer, in a thread of its own and by a bounded number of items."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from typing import Generic, TypeVar

T = TypeVar("T")
SECONDS_BETWEEN_CHECKS = 0.5
SECONDS_TO_CLOSE = 1.0


class _End(Exception):
    """The producer has nothing more to give."""


class _Closed(Exception):
    """The consumer wants no more."""


class Ahead(Generic[T]):
    """Iterates over `items` while a thread computes the next ones.

    Whatever the producer raises is raised in the consumer, at the place of the item it could not give.
    """

    def __init__(self, items: Generator[T, None, None], depth: int, check: Callable[[], None]) -> None:
        """`depth`: items computed in advance; `check` is called while waiting and ends the work by raising."""
        self._items, self._check = items, check
        self._queue: queue.Queue[T | Exception] = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._produce, daemon=True)

    def __iter__(self) -> Generator[T, None, None]:
        """Start the thread and give its items in order; it is gone when this ends."""
        self._thread.start()
        try:
            while True:
                item = self._next()
                if isinstance(item, _End):
                    return
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self._closed.set()
            # After an error the process is about to end: a producer that is stuck does not hold it up.
            self._thread.join(SECONDS_TO_CLOSE)

    def _next(self) -> T | Exception:
        while True:
            self._check()
            try:
                return self._queue.get(timeout=SECONDS_BETWEEN_CHECKS)
            except queue.Empty:
                continue

    def _produce(self) -> None:
        with suppress(_Closed), closing(self._items):
            try:
                for item in self._items:
                    self._put(item)
                self._put(_End())
            except _Closed:
                raise
            # Nothing may get lost in a thread: the consumer raises it.
            except Exception as error:
                self._put(error)

    def _put(self, item: T | Exception) -> None:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=SECONDS_BETWEEN_CHECKS)
            except queue.Full:
                continue
            return
        raise _Closed
