"""Folds over the speakers of any corpus: dealt out so that every group has about as much of each label.

Shape letters: G groups, C labels.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.corpus.clips import Clip
from cache.names import by_number
from cache.protocols.folds import CyclicGroups, Fold, Rule, speakers_of

# Dealings that are tried; the most even one is taken.
TRIES = 16


@dataclass(frozen=True)
class SpeakerFolds(Rule):
    """Groups of speakers, in turn tested, validated on (the next one, cyclic) and trained on.

    Speakers come in an order that follows from the seed and their names (a hash), and each joins the group that has
    least so far of what this speaker says: least of the sum, over labels, of the group's share of the label's clips
    times the speaker's. A tie goes to the group with fewer speakers. Of 16 such orders the one is taken whose groups
    differ least, in the sum over labels of the squared shares. The order of the clips does not matter.
    """

    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        """Two groups would leave nobody to train on."""
        if self.folds < 3:
            raise ValueError(f"folds must be at least 3 (test, validation, train), got {self.folds}")

    def named(self, clips: Iterable[Clip]) -> frozenset[str]:
        """Every speaker."""
        return speakers_of(clips)

    def divide(self, clips: Sequence[Clip]) -> tuple[Fold, ...]:
        """As many folds as groups.

        Raises:
            ValueError: there are fewer speakers than groups; with the number of groups that would do.
        """
        speakers = speakers_of(clips)
        if len(speakers) < self.folds:
            way_out = f"take {len(speakers)} folds" if len(speakers) >= 3 else "3 speakers are the fewest for any folds"
            raise ValueError(
                f"{self.folds} folds need at least {self.folds} speakers, this corpus has {len(speakers)}; {way_out}"
            )
        return CyclicGroups(even_groups(clips, self.folds, self.seed)).divide(clips)


def even_groups(clips: Sequence[Clip], count: int, seed: int = 0) -> tuple[tuple[str, ...], ...]:
    """The speakers of the clips, dealt into so many groups (no more than there are speakers) as `SpeakerFolds` says."""
    shares = _shares(clips)
    dealings = [_deal(_order(shares, seed, turn), shares, count) for turn in range(TRIES)]
    return min(dealings, key=lambda groups: _unevenness(groups, shares))


def _order(speakers: Iterable[str], seed: int, turn: int) -> list[str]:
    return sorted(speakers, key=lambda name: hashlib.sha256(f"{seed} {turn} {name}".encode()).digest())


def _shares(clips: Sequence[Clip]) -> dict[str, NDArray[np.float64]]:
    """By speaker, the share (C,) of each label's clips that are this speaker's."""
    labels = {label: place for place, label in enumerate(sorted({clip.label for clip in clips}))}
    shares = {name: np.zeros(len(labels)) for name in by_number(speakers_of(clips))}
    totals = Counter(clip.label for clip in clips)
    counts = Counter((clip.speaker, clip.label) for clip in clips)
    for (speaker, label), count in counts.items():
        shares[speaker][labels[label]] = count / totals[label]
    return shares


def _deal(order: Sequence[str], shares: Mapping[str, NDArray[np.float64]], count: int) -> tuple[tuple[str, ...], ...]:
    groups: list[list[str]] = [[] for _ in range(count)]
    sums_GC = np.zeros((count, len(shares[order[0]])))
    for speaker in order:
        # Rounded, so that sums that are equal but for the order of adding are a tie.
        had_G = np.round(sums_GC @ shares[speaker], 9)
        group = min(range(count), key=lambda place: (had_G[place], len(groups[place])))
        groups[group].append(speaker)
        sums_GC[group] += shares[speaker]
    return tuple(by_number(group) for group in groups)


def _unevenness(groups: Sequence[Sequence[str]], shares: Mapping[str, NDArray[np.float64]]) -> float:
    sums_GC = np.array([np.sum([shares[speaker] for speaker in group], axis=0) for group in groups])
    return round(float((sums_GC**2).sum()), 9)
