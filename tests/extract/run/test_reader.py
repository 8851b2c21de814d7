"""What is heard in a unit: its rows are recognised in batches that follow from their numbers alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from extract.asr.recogniser import Recogniser
from extract.asr.transcript import NoRoom, Transcript, Waveform
from extract.run.batches import Absent
from extract.run.blame import is_the_machines
from extract.run.reader import Hearing

SILENT, BAD, ROWS = 2, 5, 7


class Listening:
    """Hears which row it is; fails with everything that is in a batch with a bad one."""

    batch_size = 3

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.failure: Exception = RuntimeError("cannot hear this")

    def hear(self, waveforms: Sequence[Waveform]) -> list[Transcript]:
        rows = [int(waveform_T[0]) for waveform_T in waveforms]
        self.asked.append(rows)
        if BAD in rows:
            raise self.failure
        return [Transcript(f"row {row}") for row in rows]


def waveform(row: int) -> Waveform:
    if row == SILENT:
        raise Absent("no samples")
    return np.full(200, row, np.float32)


@pytest.fixture
def listening() -> Listening:
    return Listening()


@pytest.fixture
def hearing(listening: Listening) -> Hearing:
    return Hearing(Recogniser(listening), waveform, ROWS)


def test_neighbours_are_heard_together(listening: Listening, hearing: Hearing) -> None:
    assert [hearing(row).transcript for row in (0, 1)] == ["row 0", "row 1"]
    with pytest.raises(Absent, match="no samples"):
        hearing(SILENT)
    assert hearing(6).transcript == "row 6"
    assert listening.asked == [[0, 1], [6]]


def test_batches_are_the_same_where_work_is_taken_up(listening: Listening, hearing: Hearing) -> None:
    """Row 0 is kept from before; row 1 is heard with the same others as it would have been."""
    assert hearing(1).transcript == "row 1"
    assert listening.asked == [[0, 1]]


def test_a_clip_that_cannot_be_heard_fails_alone(listening: Listening, hearing: Hearing) -> None:
    assert [hearing(row).transcript for row in (3, 4)] == ["row 3", "row 4"]
    with pytest.raises(RuntimeError, match="cannot hear this"):
        hearing(BAD)
    assert listening.asked == [[3, 4, 5], [3], [4], [5]]


@pytest.mark.parametrize("failure", [NoRoom("halve it"), torch.OutOfMemoryError("CUDA out of memory"), OSError("gone")])
def test_what_the_machine_does_is_no_clips_failure(listening: Listening, hearing: Hearing, failure: Exception) -> None:
    listening.failure = failure
    assert is_the_machines(failure)
    with pytest.raises(type(failure)):
        hearing(3)
    assert listening.asked == [[3, 4, 5]]
