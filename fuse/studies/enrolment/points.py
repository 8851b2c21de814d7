"""The points of an enrolment curve: what is written, printed and drawn."""

from __future__ import annotations

from dataclasses import dataclass

ALL, NEUTRAL = "all", "neutral"


@dataclass(frozen=True)
class Point:
    """One point of the curve: UAR as a share, over draws; `low` and `high` over speakers, None with too few.

    `clips` is what is known of the speaker: a number of clips, `neutral` (the neutral ones) or `all`.
    """

    condition: str
    clips: str
    uar: float
    low: float | None
    high: float | None
    sd_over_draws: float
    draws: int
    speakers: int
