"""The rows of the robustness table: what is written, printed and drawn."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table. Scores are shares; `low` and `high` bound UAR over speakers, None with too few."""

    run: str
    modalities: str
    condition: str
    uar: float
    accuracy: float
    low: float | None
    high: float | None
    drop: float | None
    drop_low: float | None
    drop_high: float | None
    clips: int
    speakers: int
    seeds: int
    speakers_uar: str
