"""From the clips of a unit to its rows: read ahead, group without padding, encode, decide on every clip.

A thread reads, corrupts, transcribes and preprocesses; the caller's thread runs the encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from cache.features.rows import UnitRows
from extract.encoders.base import Encoder, Preparing
from extract.encoders.preparer import Alone, Array, Windows
from extract.run.blame import is_the_machines
from extract.run.prefetch import Ahead

BATCHES_AHEAD = 2
# Noise leaves a few hundred different transcripts of two sentences; corpora that repeat less gain nothing here.
TEXTS_REMEMBERED = 512


class Absent(Exception):
    """The clip has nothing for this encoder; the message says what is missing."""


@dataclass(frozen=True)
class PreparedBatch:
    """Clips that are encoded together.

    Attributes:
        rows, signals: of each.
        prepared: None: they could not be prepared together.
        note: what is kept beside their rows (`UnitRows.done`).
    """

    rows: tuple[int, ...]
    signals: tuple[Any, ...]
    prepared: Any
    note: str = ""


class Unprepared:
    """Signals as they are: any may share a batch, but for those that take windows."""

    def __init__(self, preparer: Preparing) -> None:
        """`preparer`: what will prepare them in the end."""
        self._preparer = preparer

    def batch_key(self, signal: Any) -> Hashable:
        """The same for all others."""
        key = self._preparer.batch_key(signal)
        return key if isinstance(key, Alone) else ()

    def prepare(self, signals: Sequence[Any]) -> Sequence[Any]:
        """Nothing to prepare."""
        return signals


class Remembering:
    """A text encoder that meets the same few sentences again and again: each is encoded once, alone.

    Alone, so that the bits of a row do not depend on which texts were met before.
    """

    def __init__(self, encoder: Encoder) -> None:
        """Wrap an encoder."""
        self.device, self.preparer = encoder.device, Unprepared(encoder.preparer)

        @lru_cache(maxsize=TEXTS_REMEMBERED)
        def encode(text: str) -> Array:
            row_LD: Array = encoder.encode([text])[0]
            return row_LD

        self._encode = encode

    def encode_prepared(self, prepared: Sequence[str]) -> Array:
        """Pooled hidden states hidden_BLD."""
        return np.stack([self._encode(text) for text in prepared])

    def encode(self, signals: Sequence[str]) -> Array:
        """As in `Encoder`."""
        return self.encode_prepared(signals)


def _nothing() -> None:
    """Nothing is done between two batches."""


class Batches:
    """Encodes units with one encoder, batch by batch."""

    def __init__(
        self, encoder: Encoder, size: int, check: Callable[[], None], encoded: Callable[[int], object]
    ) -> None:
        """`size`: clips per batch; `check` ends the work by raising; `encoded` is told how many rows are decided on."""
        self.encoder, self.preparer = encoder, encoder.preparer
        self.size, self.check, self.encoded = size, check, encoded

    def fill(self, rows: UnitRows, read: Callable[[int], Any], between: Callable[[], object] = _nothing) -> None:
        """Decide on every pending row of the unit: done, failed or absent.

        Rows that share a batch are decided on together, or none of them is when `between` is called. So whoever
        continues from there meets the same batches: of clips that may share one, whole batches are gone from the front.

        Args:
            rows: the unit's rows, pending as far as nothing is known of them.
            read: the signal of a row; raises `Absent`, or anything else, which is then the clip's failure unless
                it is the machine's (`extract.run.blame`): that is raised, and the unit stays pending.
            between: called after every batch.
        """
        for batch in Ahead(self._batches(rows, read), BATCHES_AHEAD, self.check):
            self._encode(rows, batch)
            between()

    def _batches(self, rows: UnitRows, read: Callable[[int], Any]) -> Generator[PreparedBatch, None, None]:
        waiting: dict[Hashable, list[tuple[int, Any]]] = {}
        with torch.inference_mode():
            for row in map(int, np.flatnonzero(~rows.decided)):
                self.check()
                item = self._item(rows, row, read)
                if item is None:
                    continue
                key, signal = item
                if isinstance(key, Alone):
                    # At once: what waits for others is in memory.
                    yield self._prepare([(row, signal)], f"{key.windows} windows")
                    continue
                waiting.setdefault(key, []).append((row, signal))
                if len(waiting[key]) == self.size:
                    yield self._prepare(waiting.pop(key))
            for items in waiting.values():
                yield self._prepare(items)

    def _item(self, rows: UnitRows, row: int, read: Callable[[int], Any]) -> tuple[Hashable, Any] | None:
        try:
            signal = read(row)
            return self.preparer.batch_key(signal), signal
        except Absent as nothing:
            rows.absent(row, str(nothing))
        # One clip's trouble is that clip's failure, whatever a library raises for it.
        except Exception as error:
            if is_the_machines(error):
                raise
            rows.fail(row, _reason(error))
        self.encoded(1)
        return None

    def _prepare(self, items: Sequence[tuple[int, Any]], note: str = "") -> PreparedBatch:
        rows, signals = zip(*items, strict=True)
        try:
            prepared = self.preparer.prepare(signals)
            if isinstance(prepared, Windows):
                prepared = replace(prepared, between=self.check)
            return PreparedBatch(rows, signals, prepared, note)
        # Which of them it was shows when each is encoded by itself.
        except Exception as error:
            if is_the_machines(error):
                raise
            return PreparedBatch(rows, signals, None, note)

    def _encode(self, rows: UnitRows, batch: PreparedBatch) -> None:
        with torch.inference_mode():
            try:
                if batch.prepared is None:
                    raise ValueError("these clips cannot be prepared together")
                hidden_BLD = self.encoder.encode_prepared(batch.prepared)
            except torch.OutOfMemoryError as error:
                if self.size > 1:
                    raise ValueError(
                        f"{self.encoder.device} has no room for batch_size={self.size}; halve it"
                    ) from error
                self._encode_each(rows, batch)
            except Exception as error:
                if is_the_machines(error):
                    raise
                self._encode_each(rows, batch)
            else:
                for row, hidden_LD in zip(batch.rows, hidden_BLD, strict=True):
                    rows.done(row, hidden_LD, batch.note)
        self.encoded(len(batch.rows))

    def _encode_each(self, rows: UnitRows, batch: PreparedBatch) -> None:
        for row, signal in zip(batch.rows, batch.signals, strict=True):
            self.check()
            try:
                hidden_LD = self.encoder.encode([signal])[0]
            # By itself it has the device to itself: that it does not fit is its own length's doing.
            except torch.OutOfMemoryError as error:
                rows.fail(
                    row, f"the clip does not fit into the memory of {self.encoder.device}: {_reason(error)[:120]}"
                )
            except Exception as error:
                if is_the_machines(error):
                    raise
                rows.fail(row, _reason(error))
            else:
                rows.done(row, hidden_LD, batch.note)


def _reason(error: Exception) -> str:
    """One line; errors of our own say enough without their class."""
    text = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:300]
