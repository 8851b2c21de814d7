"""Batches decide on every clip: done, failed or absent; one clip's trouble never costs another."""

from __future__ import annotations

import errno
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.features.rows import ArraySpec, State, UnitRows
from configs.command.progress import Progress
from extract.corrupt.noise.excerpt import RecordingError
from extract.encoders.preparer import Alone
from extract.run.batches import Absent, Batches, Remembering

SPEC = ArraySpec("audio", "fake", layers=2, width=3, provenance={})


class Fake:
    """Encodes a number as itself; refuses what it is told to."""

    device = torch.device("cpu")

    def __init__(self, refuse: Callable[[float], Exception | None] = lambda _: None) -> None:
        self.refuse, self.preparer = refuse, self
        self.batches: list[tuple[float, ...]] = []

    def batch_key(self, signal: float) -> Hashable:
        return int(signal) % 3

    def prepare(self, signals: Sequence[float]) -> Sequence[float]:
        return signals

    def encode_prepared(self, prepared: Sequence[float]) -> npt.NDArray[np.float32]:
        self.batches.append(tuple(prepared))
        for signal in prepared:
            if error := self.refuse(signal):
                raise error
        return np.array([[[signal] * 3] * 2 for signal in prepared], np.float32)

    def encode(self, signals: Sequence[float]) -> npt.NDArray[np.float32]:
        return self.encode_prepared(signals)


def nothing() -> None:
    """A check that never stops."""


def fill(encoder: Any, signals: Sequence[Any], size: int = 4) -> tuple[UnitRows, int]:
    """Fill a unit with these signals; exceptions among them are raised when they are read."""

    def read(row: int) -> Any:
        if isinstance(signals[row], Exception):
            raise signals[row]
        return signals[row]

    rows = UnitRows.empty(len(signals), SPEC)
    with Progress("test", len(signals), "clips", shown=False) as progress:
        Batches(encoder, size, nothing, progress.add).fill(rows, read)
    return rows, progress.count


kinds = st.sampled_from([1.0, ValueError("broken"), Absent("no sound"), RuntimeError("two\n lines")])


@given(st.lists(st.tuples(kinds, st.integers(1, 50)), max_size=20), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_every_row_is_decided_on_and_counted(items: list[tuple[Any, int]], size: int) -> None:
    signals = [float(number) if kind == 1.0 else kind for kind, number in items]
    encoder = Fake()
    rows, counted = fill(encoder, signals, size)
    assert counted == len(signals)
    for row, signal in enumerate(signals):
        if isinstance(signal, float):
            assert rows.state[row] == State.DONE
            assert (rows.hidden_BLD[row] == signal).all()
        else:
            assert rows.state[row] == (State.ABSENT if isinstance(signal, Absent) else State.FAILED)
            assert rows.reason[row] in ("broken", "no sound", "RuntimeError: two lines")
            assert np.isnan(rows.hidden_BLD[row]).all()
    assert all(len(batch) <= size and len({int(signal) % 3 for signal in batch}) == 1 for batch in encoder.batches)


@given(st.lists(st.integers(1, 30), max_size=20), st.integers(1, 4), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_who_continues_after_some_batches_meets_the_same_ones(numbers: list[int], size: int, stop: int) -> None:
    """A row's last bits may depend on the clips that it shares a batch with."""
    signals = [float(number) for number in numbers]
    whole, rows, parts = Fake(), UnitRows.empty(len(signals), SPEC), Fake()
    expected, _ = fill(whole, signals, size)

    def stop_now() -> None:
        if len(parts.batches) == stop:
            raise InterruptedError

    with suppress(InterruptedError):
        Batches(parts, size, nothing, lambda _: None).fill(rows, signals.__getitem__, stop_now)
    Batches(parts, size, nothing, lambda _: None).fill(rows, signals.__getitem__)
    assert sorted(parts.batches) == sorted(whole.batches)
    assert (rows.hidden_BLD == expected.hidden_BLD).all()


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.sets(st.integers(1, 30)))
@settings(max_examples=40, deadline=None)
def test_a_clip_that_the_encoder_cannot_take_costs_no_other_clip(numbers: list[int], bad: set[int]) -> None:
    encoder = Fake(lambda signal: RuntimeError("shape mismatch") if signal in bad else None)
    rows, _ = fill(encoder, [float(number) for number in numbers])
    for row, number in enumerate(numbers):
        assert rows.state[row] == (State.FAILED if number in bad else State.DONE)
        assert rows.reason[row] == ("RuntimeError: shape mismatch" if number in bad else "")


def test_values_that_are_not_finite_are_refused_with_their_layer() -> None:
    class Overflowing(Fake):
        def encode_prepared(self, prepared: Sequence[float]) -> npt.NDArray[np.float32]:
            hidden_BLD = super().encode_prepared(prepared)
            hidden_BLD[0, 1, 2] = np.inf
            return hidden_BLD

    rows, _ = fill(Overflowing(), [3.0, 6.0])
    assert list(rows.state) == [State.FAILED, State.DONE]
    assert rows.reason[0] == "encoder returned values that are not finite in layer 1"


def test_a_batch_that_does_not_fit_ends_the_run_and_names_the_setting() -> None:
    encoder = Fake(lambda _: torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(ValueError, match=r"cpu has no room for batch_size=4; halve it"):
        fill(encoder, [1.0, 2.0])


def test_a_clip_that_does_not_fit_by_itself_fails() -> None:
    encoder = Fake(lambda signal: torch.OutOfMemoryError("CUDA out of memory") if signal == 2.0 else None)
    rows, _ = fill(encoder, [1.0, 2.0], size=1)
    assert list(rows.state) == [State.DONE, State.FAILED]
    assert rows.reason[1].startswith("the clip does not fit into the memory of cpu")


MACHINES = [
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ESTALE, "Stale file handle"),
    MemoryError("Unable to allocate 1.2 GiB"),
    torch.OutOfMemoryError("CUDA out of memory, in the recogniser"),
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RecordingError("noise.folder: hum.wav cannot be decoded (cut off); take it out"),
]


@pytest.mark.parametrize("error", MACHINES, ids=lambda error: str(error)[:20])
def test_trouble_of_the_machine_fails_no_clip_that_is_read(error: Exception) -> None:
    """Each of these marked clips failed for good, and after a lost GPU every clip that followed."""
    with pytest.raises(type(error)) as raised:
        fill(Fake(), [1.0, error, 3.0])
    assert raised.value is error


@pytest.mark.parametrize("error", [one for one in MACHINES if not isinstance(one, torch.OutOfMemoryError)], ids=str)
@pytest.mark.parametrize("size", [1, 4])
def test_trouble_of_the_machine_fails_no_clip_that_is_encoded(error: Exception, size: int) -> None:
    with pytest.raises(type(error)):
        fill(Fake(lambda _: error), [1.0, 2.0], size)


def test_clips_that_cannot_be_prepared_together_are_encoded_one_by_one() -> None:
    class Picky(Fake):
        def prepare(self, signals: Sequence[float]) -> Sequence[float]:
            if len(signals) > 1:
                raise ValueError("not together")
            return signals

    encoder = Picky()
    rows, _ = fill(encoder, [3.0, 6.0, 9.0])
    assert (rows.state == State.DONE).all()
    assert encoder.batches == [(3.0,), (6.0,), (9.0,)]


def test_identical_texts_are_encoded_once_and_alone() -> None:
    class Reader(Fake):
        def batch_key(self, _: Any) -> Hashable:
            return ()

        def encode(self, signals: Sequence[Any]) -> npt.NDArray[np.float32]:
            return self.encode_prepared([float(len(text)) for text in signals])

    encoder = Reader()
    remembering = Remembering(encoder)
    texts = ["kids", "dogs are", "kids", "kids", "dogs are"]
    for _ in range(2):
        rows, _ = fill(remembering, texts, size=2)
        assert rows.hidden_BLD[:, 0, 0].tolist() == [4, 8, 4, 4, 8]
    assert encoder.batches == [(4.0,), (8.0,)]


@pytest.mark.parametrize("remembers", [False, True])
def test_a_clip_in_windows_goes_at_once_and_alone_and_its_row_says_so(remembers: bool) -> None:
    """While it waited for others of its kind, which never came, all of its sound stayed in memory."""

    class Windowed(Fake):
        def batch_key(self, signal: float) -> Hashable:
            return Alone(int(signal) // 100) if signal >= 100 else ()

    encoder = Windowed()
    rows, counted = fill(Remembering(encoder) if remembers else encoder, [1.0, 300.0, 2.0, 500.0], size=4)
    assert rows.reason == ["", "3 windows", "", "5 windows"]
    assert (rows.state == State.DONE).all()
    assert rows.hidden_BLD[:, 0, 0].tolist() == [1, 300, 2, 500]
    assert encoder.batches[:2] == [(300.0,), (500.0,)]
    assert counted == 4
