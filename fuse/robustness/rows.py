"""The rows of the robustness table: what is written, printed and drawn."""

from __future__ import annotations

from dataclasses import dataclass


class BySpeaker(dict[str, float]):
    """Each test speaker's UAR as a share; as text, and so in the tables, in per cents: "23: 41.2, 24: 50.0"."""

    def __str__(self) -> str:
        """In per cents."""
        return ", ".join(f"{speaker}: {100 * score:.1f}" for speaker, score in self.items())


@dataclass(frozen=True)
class Row:
    """One line of the table. Scores are shares; `low` and `high` bound UAR over speakers, None with too few.

    `sd_over_seeds` is the standard deviation of UAR over the run's seeds, None for one seed.
    """

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
    sd_over_seeds: float | None
    speakers_uar: BySpeaker
