"""The protocol of a corpus for which none is named: the first of these that its clips allow.

- `holdout`, where every clip id is a RAVDESS name and each of its parts has a speaker;
- `split-column`, where the column `split` says train, validation or test of every clip, with nobody in two parts;
- `holdout`, where the speakers are 1 to 24, as RAVDESS numbers them;
- `speaker-folds-K`, with K the number of speakers, 5 at most; clips of nobody known count for no speaker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cache.corpus.clips import UNKNOWN_SPEAKER, Clip
from cache.corpus.ravdess import ACTORS, HOLDOUT, is_ravdess_id
from cache.protocols.clip_rules import SplitColumn
from cache.protocols.folds import PARTS, Protocol, speakers_of

# One tests, one validates, one trains.
FEWEST_SPEAKERS, MOST_FOLDS = 3, 5
LEAKING = "random-clips"


@dataclass(frozen=True)
class FittingProtocol:
    """Its name, as a configuration may name it, and in words why it is the one."""

    name: str
    why: str


def fitting_protocol(clips: Sequence[Clip]) -> FittingProtocol:
    """The protocol that the module says.

    Raises:
        ValueError: there are too few speakers for any; one line with what would do.
    """
    speakers, holdout = speakers_of(clips), FittingProtocol("holdout", "RAVDESS's speakers")
    if _divides(speakers) and all(is_ravdess_id(clip.clip_id) for clip in clips):
        return holdout
    useless = _why_not_split(clips)
    if useless == "":
        return FittingProtocol("split-column", "the column split is filled")
    if speakers == set(map(str, ACTORS)):
        return holdout
    known = speakers - {UNKNOWN_SPEAKER}
    if len(known) < FEWEST_SPEAKERS:
        found = f"{len(known)} known speaker{'s' if len(known) != 1 else ''}"
        raise ValueError(
            f"protocol auto: this corpus has {found}, and at least {FEWEST_SPEAKERS} are needed, one each to test, to "
            f"validate and to train; fill in the column speaker, or set protocol={LEAKING}, whose scores say nothing "
            "about new speakers"
        )
    count = min(MOST_FOLDS, len(known))
    aside = f"; the column split is not used: {useless}" if useless else ""
    return FittingProtocol(f"speaker-folds-{count}", f"{len(known)} speakers{aside}")


def _divides(speakers: frozenset[str]) -> bool:
    """Whether `holdout` leaves no part empty."""
    return all(speakers & set(map(str, actors)) for actors in HOLDOUT.values())


def _why_not_split(clips: Sequence[Clip]) -> str | None:
    """Why the column `split` is no protocol; "" where it is one, None where nobody filled it in."""
    if not any(clip.split for clip in clips):
        return None
    missing = [part for part in PARTS if not any(clip.split == part for clip in clips)]
    if missing and all(clip.split in PARTS for clip in clips):
        return f"no clip is of {' or of '.join(missing)}"
    try:
        Protocol("split-column", SplitColumn()).folds(clips)
    except ValueError as error:
        return str(error).partition(": ")[2].partition(", or mark")[0]
    return ""
