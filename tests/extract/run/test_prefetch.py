"""Work ahead of the consumer: same items, same order, bounded, and nothing gets lost in the thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.run.prefetch import Ahead


def nothing() -> None:
    """A check that never stops."""


def numbers(count: int, made: list[int]) -> Generator[int, None, None]:
    for number in range(count):
        made.append(number)
        yield number


@given(st.integers(0, 30), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_items_come_in_order(count: int, depth: int) -> None:
    assert list(Ahead(numbers(count, []), depth, nothing)) == list(range(count))


def test_no_more_than_depth_items_are_computed_in_advance() -> None:
    made: list[int] = []
    for item in Ahead(numbers(20, made), 2, nothing):
        time.sleep(0.01)
        # One that is being consumed, two that wait, one that is ready to be queued.
        assert len(made) <= item + 4


def test_items_are_computed_while_others_are_consumed() -> None:
    second_made = threading.Event()

    def items() -> Generator[int, None, None]:
        yield 0
        second_made.set()
        yield 1

    assert [second_made.wait(5) for _ in Ahead(items(), 1, nothing)] == [True, True]


def test_an_error_comes_at_its_place() -> None:
    def broken() -> Generator[int, None, None]:
        yield 1
        raise ValueError("no more")

    ahead = iter(Ahead(broken(), 2, nothing))
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="no more"):
        next(ahead)


def test_a_consumer_that_is_stopped_ends_the_thread_and_closes_the_producer() -> None:
    closed = threading.Event()

    def endless() -> Generator[int, None, None]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    before = threading.active_count()
    for number, _ in enumerate(Ahead(endless(), 2, nothing)):
        if number == 3:
            break
    assert closed.wait(5)
    assert threading.active_count() == before


def test_waiting_ends_when_the_check_raises() -> None:
    stopped = threading.Event()

    def check() -> None:
        if stopped.is_set():
            raise KeyboardInterrupt

    def slow() -> Generator[int, None, None]:
        stopped.wait(0.2)
        stopped.set()
        time.sleep(0.7)
        yield 1

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(Ahead(slow(), 1, check))
    assert time.monotonic() - start < 5
