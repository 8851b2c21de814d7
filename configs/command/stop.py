"""How a rank stops: between two batches, before torchrun loses patience, and never later than its launcher."""

from __future__ import annotations

import os
import signal

# Ten are promised. A batch that takes longer is given up: its unit stays pending either way.
SECONDS_TO_FINISH = 4


class Stopped(Exception):
    """The run was asked to stop, or its launcher is gone."""


class StopRequest:
    """Turns SIGTERM, SIGINT and the death of the launcher into an exception between two batches."""

    def __init__(self) -> None:
        """Remember the parent: a rank must not outlive it."""
        self.received = False
        self.parent = os.getppid()

    def listen(self) -> None:
        """Catch the signals from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def check(self) -> None:
        """Raise `Stopped` if it is time to go."""
        if self.received or os.getppid() != self.parent:
            raise Stopped

    def _receive(self, *_: object) -> None:
        self.received = True
        signal.alarm(SECONDS_TO_FINISH)
