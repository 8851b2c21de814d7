"""One progress bar per job with rate and time left; plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """A bar on a terminal; otherwise a line every ten seconds and one at the end."""

    def __init__(self, what: str, total: int, unit: str, shown: bool = True) -> None:
        """`shown=False` keeps every rank but the first silent."""
        self.what, self.total, self.unit = what, total, unit
        self.count = 0
        self.start = self.last = time.monotonic()
        terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, desc=what, unit=f" {unit}", disable=not (shown and terminal))
        self._lines = shown and not terminal

    def __enter__(self) -> Progress:
        """Start counting."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the bar, or print the last line."""
        self._bar.close()
        if self._lines and self.count and kind is None:
            self._line()

    def add(self, count: int) -> None:
        """Count finished items."""
        self.count += count
        self._bar.update(count)
        if self._lines and time.monotonic() - self.last > SECONDS_BETWEEN_LINES:
            self._line()

    def _line(self) -> None:
        self.last = time.monotonic()
        rate = self.count / max(self.last - self.start, 1e-9)
        left = (self.total - self.count) / rate if rate else 0.0
        text = f"{self.what}: {self.count}/{self.total} {self.unit}, {rate:.1f} {self.unit}/s, {left:.0f} s left"
        print(text, file=sys.stderr, flush=True)
