"""Protocols: which clips train, validate and test. Apart by speaker, but for one that shows what that is worth.

A protocol is a name and a rule; a rule turns the clips of a corpus into folds. The test speakers of a fold
are never seen in training or model choice, and the validation speakers are apart from both. Here are the
rules over named speakers; the others stand in `cache.protocols.speaker_folds` and `cache.protocols.clip_rules`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol as Interface

from cache.corpus.clips import Clip
from cache.names import by_number

PARTS = ("train", "validation", "test")
# What every number of a protocol with `leaks_speakers` is marked with.
LEAKS_SPEAKERS = "leaks speakers"


@dataclass(frozen=True)
class Fold:
    """One division of a corpus. Plain values only: `dataclasses.asdict` keeps it, `Fold(**kept)` makes it again.

    Attributes:
        number: counts from 1.
        train, validation, test: the speakers of each part.
        listed: ids of the clips of each of `PARTS`; empty where a part is every clip of its speakers.
        leaks_speakers: a speaker may stand in several parts; a clip never.

    Raises:
        ValueError: where a speaker, or a listed clip, stands in two parts.
    """

    number: int
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    listed: tuple[tuple[str, ...], ...] = field(default=(), kw_only=True)
    leaks_speakers: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        """A speaker in two parts would be tested on what was trained on."""
        assert len(self.listed) in (0, len(PARTS)), self.listed
        if not self.leaks_speakers:
            _refuse_repeats([*self.train, *self.validation, *self.test], f"fold {self.number}")
        _refuse_repeats(chain.from_iterable(self.listed), f"fold {self.number}", "clip")

    def clip_ids(self, part: str, clips: Iterable[Clip]) -> tuple[str, ...]:
        """Ids of those of the clips that stand in a part, in their order."""
        assert part in PARTS, part
        if self.listed:
            listed = frozenset(self.listed[PARTS.index(part)])
            return tuple(clip.clip_id for clip in clips if clip.clip_id in listed)
        speakers = frozenset(getattr(self, part))
        return tuple(clip.clip_id for clip in clips if clip.speaker in speakers)


class Rule(Interface):
    """How a protocol divides a corpus. A part may come back empty; `Protocol.folds` refuses that."""

    @property
    def leaks_speakers(self) -> bool:
        """A speaker may stand in several parts: said beside every number."""
        return False

    def named(self, clips: Iterable[Clip]) -> frozenset[str]:
        """Those of the clips' speakers that the rule knows where to put."""
        ...

    def divide(self, clips: Sequence[Clip]) -> tuple[Fold, ...]:
        """The folds over these clips.

        Raises:
            ValueError: these clips cannot be divided at all.
        """
        ...


@dataclass(frozen=True)
class CyclicGroups(Rule):
    """Fold k tests group k, validates on group k + 1 (cyclic) and trains on the others."""

    groups: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        """Two groups would leave nobody to train on."""
        if len(self.groups) < 3:
            raise ValueError(f"groups must be at least 3 (test, validation, train), got {len(self.groups)}")
        _refuse_repeats(chain.from_iterable(self.groups), "the groups")

    def named(self, clips: Iterable[Clip]) -> frozenset[str]:
        """Those of the clips' speakers that stand in a group."""
        return speakers_of(clips) & frozenset(chain.from_iterable(self.groups))

    def divide(self, clips: Sequence[Clip]) -> tuple[Fold, ...]:
        """One fold per group."""
        speakers = speakers_of(clips)
        turns = cyclic_parts([_present(group, speakers) for group in self.groups])
        return tuple(Fold(number, *map(by_number, parts)) for number, parts in enumerate(turns, start=1))


@dataclass(frozen=True)
class FixedFold(Rule):
    """A single division, every part written out."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        """Parts must be apart."""
        _refuse_repeats([*self.train, *self.validation, *self.test], "the fold")

    def named(self, clips: Iterable[Clip]) -> frozenset[str]:
        """Those of the clips' speakers that stand in a part."""
        return speakers_of(clips) & {*self.train, *self.validation, *self.test}

    def divide(self, clips: Sequence[Clip]) -> tuple[Fold, ...]:
        """The one fold."""
        speakers = speakers_of(clips)
        return (Fold(1, *(_present(getattr(self, part), speakers) for part in PARTS)),)


@dataclass(frozen=True)
class LeaveOneSpeakerOut(Rule):
    """Each speaker is tested in turn; the next few (numeric order, cyclic) validate, the others train."""

    validation_speakers: int = 2

    def named(self, clips: Iterable[Clip]) -> frozenset[str]:
        """Every speaker."""
        return speakers_of(clips)

    def divide(self, clips: Sequence[Clip]) -> tuple[Fold, ...]:
        """One fold per speaker."""
        order = by_number(speakers_of(clips))
        return tuple(self._fold(order[k:] + order[:k], k + 1) for k in range(len(order)))

    def _fold(self, turned: tuple[str, ...], number: int) -> Fold:
        first_train = 1 + self.validation_speakers
        return Fold(number, by_number(turned[first_train:]), by_number(turned[1:first_train]), turned[:1])


@dataclass(frozen=True)
class Protocol:
    """A named rule. Speakers are spelt as in `cache.corpus.clips.Clip.speaker` ("7", not "07")."""

    name: str
    rule: Rule

    @property
    def leaks_speakers(self) -> bool:
        """Its scores are flattered; whatever shows one says `LEAKS_SPEAKERS` beside it."""
        return self.rule.leaks_speakers

    def folds(self, clips: Sequence[Clip]) -> tuple[Fold, ...]:
        """The folds over the clips of a corpus; those of speakers that the protocol does not name are left out.

        Raises:
            ValueError: one line, where a part of a fold would be empty with these clips, or they lack what the
                protocol goes by.
        """
        try:
            folds = self.rule.divide(clips)
        except ValueError as error:
            raise ValueError(f"protocol {self.name}: {error}") from error
        if not folds:
            raise ValueError(f"protocol {self.name}: the corpus has no speakers")
        for fold in folds:
            self._refuse_empty(fold, clips)
        return folds

    def left_out(self, clips: Iterable[Clip]) -> tuple[str, ...]:
        """Speakers of these clips that stand in no part of any fold, in numeric order."""
        clips = tuple(clips)
        return by_number(speakers_of(clips) - self.rule.named(clips))

    def _refuse_empty(self, fold: Fold, clips: Sequence[Clip]) -> None:
        empty = [part for part in PARTS if not fold.clip_ids(part, clips)]
        if empty:
            what = "clips" if fold.listed else "speakers"
            raise ValueError(
                f"protocol {self.name}: fold {fold.number} has no {' and no '.join(empty)} {what} in this corpus"
                f" (it has {len(clips)} clips of {', '.join(by_number(speakers_of(clips)))}); choose another protocol"
            )


def in_several_parts(number: int, parts_of: Mapping[str, Sequence[str]]) -> str:
    """What is said of speakers who stand in several parts of a fold and must not: the first one and how many."""
    speaker, parts = next(iter(parts_of.items()))
    others = f" ({len(parts_of)} speakers in all)" if len(parts_of) > 1 else ""
    return f"fold {number}: speaker {speaker} stands in {' and '.join(parts)}{others}; give each speaker one part"


def speakers_of(clips: Iterable[Clip]) -> frozenset[str]:
    """Who speaks in these clips."""
    return frozenset(clip.speaker for clip in clips)


def cyclic_parts(groups: Sequence[Sequence[str]]) -> tuple[tuple[tuple[str, ...], ...], ...]:
    """Names of each of `PARTS`, turn by turn: one group tests, the next one (cyclic) validates, the others train."""
    turns = []
    for k in range(len(groups)):
        following = (k + 1) % len(groups)
        others = [group for i, group in enumerate(groups) if i not in (k, following)]
        turns.append((tuple(chain.from_iterable(others)), tuple(groups[following]), tuple(groups[k])))
    return tuple(turns)


def _present(named: Collection[str], speakers: Collection[str]) -> tuple[str, ...]:
    return by_number(frozenset(named) & frozenset(speakers))


def _refuse_repeats(names: Iterable[str], where: str, what: str = "speaker") -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{what} {name} stands twice in {where}; each may be in one part only")
        seen.add(name)
