"""The part of a recording that is a clip: `start` and `end` of metadata.csv, in seconds of the recording."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Stretch:
    """From `start_seconds` up to, and without, `end_seconds`; inf: up to the end of the recording."""

    start_seconds: float
    end_seconds: float

    def __str__(self) -> str:
        """As it stands behind the hash of a recording: two stretches of one file are two clips."""
        return f"@{_said(self.start_seconds)}-{'' if math.isinf(self.end_seconds) else _said(self.end_seconds)}"


def _said(seconds: float) -> str:
    """To a nanosecond in any recording. Six digits alone are hundredths of a second after a quarter of an hour."""
    return f"{seconds:.12g}"


def part_hash(file_sha256: str, stretch: Stretch | None) -> str:
    """What tells one clip's sound and picture from another's: its file's hash, and the stretch of it that it is."""
    return f"{file_sha256}{stretch or ''}" if file_sha256 else ""


def parse_stretch(start: str, end: str) -> Stretch | None:
    """The stretch that two cells name; None where both are empty: the whole file.

    Raises:
        ValueError: a cell that is no number of seconds, or an end that does not lie behind the start.
    """
    if not start and not end:
        return None
    stretch = Stretch(_seconds("start", start, 0.0), _seconds("end", end, math.inf))
    if not stretch.start_seconds < stretch.end_seconds:
        raise ValueError(f"end={end} does not lie behind start={start or 0}; give both in seconds of the recording")
    return stretch


def _seconds(name: str, text: str, default: float) -> float:
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{name}={text} must be a number of seconds, 0 or more")
    return seconds
