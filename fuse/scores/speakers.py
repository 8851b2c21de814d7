"""How evenly a run serves speakers: the spread of their scores, the worst one, women compared with men.

Every speaker counts alike here, however many clips each has: the question is about people, not about the pooled score
(for that, see `fuse.scores.jackknife`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fuse.scores.intervals import Interval, difference_interval
from fuse.scores.predictions import Predictions

_SEXES = {"female": "female", "f": "female", "male": "male", "m": "male"}


@dataclass(frozen=True)
class SpeakerSpread:
    """One evaluation's scores over speakers, as shares.

    Attributes:
        speakers: speakers that it rests on.
        sd: standard deviation over them (n - 1), which holds the noise of few clips per speaker as well; None for one.
        worst_speaker: the speaker with the lowest score, the first of several.
        worst_score: that score. It falls as speakers are added: compare runs on the same speakers.
        females: speakers known to be female; `males` alike.
        female_minus_male: difference of the two means; None where either has no speaker.
        gap_interval: its 95 % interval (Welch); None under 4 speakers of either.
    """

    speakers: int
    sd: float | None
    worst_speaker: str
    worst_score: float
    females: int
    males: int
    female_minus_male: float | None
    gap_interval: Interval | None


def spread_of(scores: Mapping[str, float], sexes: Mapping[str, str]) -> SpeakerSpread:
    """The spread of scores by speaker, from `speaker_scores`, with what `speaker_sexes` says of them.

    Raises:
        ValueError: there are no scores, or some are not numbers.
    """
    values = np.array(list(scores.values()), dtype=np.float64)
    if not values.size or not np.isfinite(values).all():
        raise ValueError("a spread over speakers needs a score for each; some are not numbers, or there are none")
    by_sex = {sex: [score for name, score in scores.items() if sexes.get(name) == sex] for sex in ("female", "male")}
    female, male = by_sex["female"], by_sex["male"]
    worst = min(scores, key=lambda name: scores[name])
    return SpeakerSpread(
        speakers=len(values),
        sd=float(values.std(ddof=1)) if len(values) > 1 else None,
        worst_speaker=worst,
        worst_score=float(scores[worst]),
        females=len(female),
        males=len(male),
        female_minus_male=float(np.mean(female) - np.mean(male)) if female and male else None,
        gap_interval=difference_interval(female, male),
    )


def speaker_sexes(predictions: Predictions) -> dict[str, str]:
    """Each speaker's sex, "female" or "male"; "" where the corpus does not say, or says both."""
    found: dict[str, set[str]] = {}
    for speaker, sex in set(zip(predictions.speaker.tolist(), predictions.sex.tolist(), strict=True)):
        found.setdefault(speaker, set()).add(_SEXES.get(sex.strip().casefold(), ""))
    return {speaker: sexes.pop() if len(sexes) == 1 else "" for speaker, sexes in found.items()}
