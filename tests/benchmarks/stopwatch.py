"""Interleaved timing: each round runs every contender once, so that a busy machine is busy for all of them."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Times:
    """Medians over the rounds: seconds on the clock, and seconds of processor time, children included."""

    wall_seconds: float
    cpu_seconds: float

    def over(self, other: Times) -> str:
        """How many times longer this took than `other`."""
        wall, cpu = self.wall_seconds / other.wall_seconds, self.cpu_seconds / other.cpu_seconds
        return f"{wall:.2f}x wall, {cpu:.2f}x processor time"


def interleaved(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Times]:
    """Median times of each contender over `rounds` rounds."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            wall, cpu = time.perf_counter(), cpu_seconds()
            contender()
            taken[name].append((time.perf_counter() - wall, cpu_seconds() - cpu))
    return {name: Times(*map(statistics.median, zip(*values, strict=True))) for name, values in taken.items()}


def cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
