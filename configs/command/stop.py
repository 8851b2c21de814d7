"""How a rank stops: between two batches, before torchrun loses patience, and never later than its launcher."""

from __future__ import annotations

import os
import signal

# Ten are promised. A batch that takes longer is given up: its unit stays pending either way.
SECONDS_TO_FINISH = 4


class Stopped(Exception):
    """The run was asked to stop, or its launcher is gone."""


class StopRequest:
    """Turns SIGTERM, SIGINT, SIGUSR1 and the death of the launcher into an exception between two batches.

    SIGUSR1 is what batch systems are told to send before they take a node back.
    """

    def __init__(self) -> None:
        """Remember the parent: a rank must not outlive it."""
        self.received, self._seconds_to_finish = False, SECONDS_TO_FINISH
        self.parent = os.getppid()

    @property
    def due(self) -> bool:
        """Whether it is time to go."""
        return self.received or os.getppid() != self.parent

    def listen(self, seconds_to_finish: int = SECONDS_TO_FINISH) -> None:
        """Catch the signals from now on; what takes longer than that after one is given up."""
        self._seconds_to_finish = seconds_to_finish
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._receive)

    def check(self) -> None:
        """Raise `Stopped` if it is time to go."""
        if self.due:
            raise Stopped

    def _receive(self, *_: object) -> None:
        self.received = True
        signal.alarm(self._seconds_to_finish)
