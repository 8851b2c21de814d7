"""What is kept of clips by one encoder: an array's description, the state of a clip, and the rows of one unit."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

TRANSCRIPT_COLUMNS = {
    "transcript": str,
    "words": str,
    "confidence": np.float32,
    "wer": np.float32,
    "no_speech": np.float32,
}


class State(enum.IntEnum):
    """What is known of one clip in one array."""

    PENDING = 0
    DONE = 1
    FAILED = 2
    ABSENT = 3


def parts_of(modality: str) -> tuple[str, ...]:
    """The columns that are kept of a clip beside its features, in the order of their checksums."""
    return ("state", "source", "reason", *(TRANSCRIPT_COLUMNS if modality == "text" else ()))


@dataclass(frozen=True)
class ArraySpec:
    """One modality's array: who wrote it, how large a row is, everything that changes its numbers."""

    modality: str
    encoder: str
    layers: int
    width: int
    provenance: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Group of the array inside a store."""
        return f"{self.modality}/{self.encoder}"


@dataclass
class UnitRows:
    """The rows of one unit, filled by whoever computes them. Rows start pending, with NaN features."""

    hidden_BLD: npt.NDArray[np.float32]
    state: npt.NDArray[np.uint8]
    source: list[str]
    reason: list[str]
    columns: dict[str, list[Any]] = field(default_factory=dict)

    @classmethod
    def empty(cls, rows: int, spec: ArraySpec) -> UnitRows:
        """Room for `rows` clips of `spec`."""
        hidden_BLD = np.full((rows, spec.layers, spec.width), np.nan, np.float32)
        columns: dict[str, list[Any]] = {}
        if spec.modality == "text":
            columns = {n: ["" if kind is str else math.nan] * rows for n, kind in TRANSCRIPT_COLUMNS.items()}
        return cls(hidden_BLD, np.zeros(rows, np.uint8), [""] * rows, [""] * rows, columns)

    @property
    def decided(self) -> npt.NDArray[np.bool_]:
        """Which rows are not pending, (clips,)."""
        marks: npt.NDArray[np.bool_] = self.state != State.PENDING
        return marks

    def take(self, row: int, other: UnitRows, place: int) -> None:
        """Make a row that of another unit; one that is pending stays so."""
        if other.state[place] == State.PENDING:
            return
        self.hidden_BLD[row] = other.hidden_BLD[place]
        self.source[row], self.reason[row] = other.source[place], other.reason[place]
        for name, values in other.columns.items():
            self.columns[name][row] = values[place]
        self.state[row] = other.state[place]

    def fail(self, row: int, reason: str) -> None:
        """Record that a clip could not be encoded."""
        # The state last, here and below: another thread may be keeping what has been decided.
        self.reason[row], self.state[row] = reason, State.FAILED

    def absent(self, row: int, reason: str) -> None:
        """Record that the clip has no such modality."""
        self.reason[row], self.state[row] = reason, State.ABSENT

    def done(self, row: int, hidden_LD: npt.NDArray[np.float32], note: str = "") -> None:
        """Store one clip's features; values that are not finite are a failure, not data.

        `note`: how they were made, where that is not as usual; it is kept as the reason.
        """
        bad = np.flatnonzero(~np.isfinite(hidden_LD).all(axis=1))
        if bad.size:
            self.fail(row, f"encoder returned values that are not finite in layer {bad[0]}")
            return
        self.hidden_BLD[row], self.reason[row] = hidden_LD, note
        self.state[row] = State.DONE
