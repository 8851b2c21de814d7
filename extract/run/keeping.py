"""Work inside a unit is kept while it goes on: a unit of a large corpus takes minutes, or hours without a GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np

from cache.features.rows import ArraySpec, UnitRows
from cache.features.store import FeatureStore

SECONDS_BETWEEN_KEEPING = 60.0


class Keeping:
    """Keeps the rows of one unit of one array as they are decided on."""

    def __init__(self, store: FeatureStore, spec: ArraySpec, unit: int, sources: Sequence[str]) -> None:
        """Take up what was kept of media files with these SHA-256, `sources`, in the order of the rows."""
        self._store, self._spec, self._unit = store, spec, unit
        self.rows = _taken_up(store.kept_rows(spec, unit), spec, sources)
        self.taken_up = int(self.rows.decided.sum())
        self._settled = self._kept = self.rows.decided
        self._last = time.monotonic()

    def between(self) -> None:
        """A batch is complete: it may be kept from now on, and is once a minute."""
        self._settled = self.rows.decided
        if time.monotonic() - self._last >= SECONDS_BETWEEN_KEEPING:
            self._keep()

    @contextmanager
    def until_the_end(self) -> Iterator[None]:
        """Whatever ends the work, what is complete of it is kept."""
        try:
            yield
        except Exception:
            # What ended it is the news, and may be that the disk is full.
            with suppress(OSError):
                self._keep()
            raise

    def _keep(self) -> None:
        if (self._settled & ~self._kept).any():
            self._store.keep_rows(self._spec, self._unit, self.rows, self._settled)
            self._kept = self._settled
        self._last = time.monotonic()


def _taken_up(kept: UnitRows, spec: ArraySpec, sources: Sequence[str]) -> UnitRows:
    """The rows to begin with: those kept whose media files are the same."""
    rows = UnitRows.empty(len(sources), spec)
    for row in map(int, np.flatnonzero(kept.decided)):
        if kept.source[row] == sources[row]:
            rows.take(row, kept, row)
    rows.source = list(sources)
    return rows
