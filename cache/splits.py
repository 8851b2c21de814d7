"""Protocols: which speakers train, validate and test. Always over speakers, never over clips.

A protocol is a name and a rule; a rule turns the speakers of a corpus into folds. The test speakers of
a fold are never seen in training or model choice, and the validation speakers are apart from both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Protocol as Interface

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Fold:
    """One division of the speakers; `number` counts from 1.

    Raises:
        ValueError: where a speaker stands in two parts.
    """

    number: int
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        """A speaker in two parts would be tested on what was trained on."""
        _refuse_repeats([*self.train, *self.validation, *self.test], f"fold {self.number}")

    def part_of(self, speaker: str) -> str | None:
        """`train`, `validation` or `test`; None for a speaker that the fold leaves out."""
        return next((part for part in PARTS if speaker in getattr(self, part)), None)


class Rule(Interface):
    """How a protocol divides speakers. A part may come back empty; `Protocol.folds` refuses that."""

    def named(self, speakers: Collection[str]) -> frozenset[str]:
        """Those of the speakers that the rule knows where to put."""
        ...

    def divide(self, speakers: Collection[str]) -> tuple[Fold, ...]:
        """The folds over these speakers."""
        ...


@dataclass(frozen=True)
class CyclicGroups:
    """Fold k tests group k, validates on group k + 1 (cyclic) and trains on the others."""

    groups: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        """Two groups would leave nobody to train on."""
        if len(self.groups) < 3:
            raise ValueError(f"groups must be at least 3 (test, validation, train), got {len(self.groups)}")
        _refuse_repeats(chain.from_iterable(self.groups), "the groups")

    def named(self, speakers: Collection[str]) -> frozenset[str]:
        """Those of the speakers that stand in a group."""
        return frozenset(speakers) & frozenset(chain.from_iterable(self.groups))

    def divide(self, speakers: Collection[str]) -> tuple[Fold, ...]:
        """One fold per group."""
        groups = [_present(group, speakers) for group in self.groups]
        return tuple(self._fold(groups, k) for k in range(len(groups)))

    @staticmethod
    def _fold(groups: list[tuple[str, ...]], k: int) -> Fold:
        following = (k + 1) % len(groups)
        train = chain.from_iterable(group for i, group in enumerate(groups) if i not in (k, following))
        return Fold(k + 1, _ordered(train), groups[following], groups[k])


@dataclass(frozen=True)
class FixedFold:
    """A single division, every part written out."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        """Parts must be apart."""
        _refuse_repeats([*self.train, *self.validation, *self.test], "the fold")

    def named(self, speakers: Collection[str]) -> frozenset[str]:
        """Those of the speakers that stand in a part."""
        return frozenset(speakers) & {*self.train, *self.validation, *self.test}

    def divide(self, speakers: Collection[str]) -> tuple[Fold, ...]:
        """The one fold."""
        return (Fold(1, *(_present(getattr(self, part), speakers) for part in PARTS)),)


@dataclass(frozen=True)
class LeaveOneSpeakerOut:
    """Each speaker is tested in turn; the next few (numeric order, cyclic) validate, the others train."""

    validation_speakers: int = 2

    def named(self, speakers: Collection[str]) -> frozenset[str]:
        """Every speaker."""
        return frozenset(speakers)

    def divide(self, speakers: Collection[str]) -> tuple[Fold, ...]:
        """One fold per speaker."""
        order = _ordered(speakers)
        return tuple(self._fold(order[k:] + order[:k], k + 1) for k in range(len(order)))

    def _fold(self, turned: tuple[str, ...], number: int) -> Fold:
        first_train = 1 + self.validation_speakers
        return Fold(number, _ordered(turned[first_train:]), _ordered(turned[1:first_train]), turned[:1])


@dataclass(frozen=True)
class Protocol:
    """A named rule. Speakers are spelt as in `cache.clips.Clip.speaker` ("7", not "07")."""

    name: str
    rule: Rule

    def folds(self, speakers: Collection[str]) -> tuple[Fold, ...]:
        """The folds over the speakers of a corpus; speakers that the protocol does not name are left out.

        Raises:
            ValueError: one line, where a part of a fold would be empty with these speakers.
        """
        present = frozenset(speakers)
        folds = self.rule.divide(present)
        if not folds:
            raise ValueError(f"protocol {self.name}: the corpus has no speakers")
        for fold in folds:
            self._refuse_empty(fold, present)
        return folds

    def left_out(self, speakers: Collection[str]) -> tuple[str, ...]:
        """Speakers of the corpus that stand in no part of any fold, in numeric order."""
        return _ordered(frozenset(speakers) - self.rule.named(speakers))

    def _refuse_empty(self, fold: Fold, speakers: Collection[str]) -> None:
        empty = [part for part in PARTS if not getattr(fold, part)]
        if empty:
            raise ValueError(
                f"protocol {self.name}: fold {fold.number} has no {' and no '.join(empty)} speakers"
                f" in this corpus (it has {', '.join(_ordered(speakers))}); choose another protocol"
            )


def _order(speaker: str) -> tuple[int, int, str]:
    number = speaker.isascii() and speaker.isdigit()
    return (0, int(speaker), speaker) if number else (1, 0, speaker)


def _ordered(speakers: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(speakers, key=_order))


def _present(named: Collection[str], speakers: Collection[str]) -> tuple[str, ...]:
    return _ordered(frozenset(named) & frozenset(speakers))


def _refuse_repeats(speakers: Iterable[str], where: str) -> None:
    seen: set[str] = set()
    for speaker in speakers:
        if speaker in seen:
            raise ValueError(f"speaker {speaker} stands twice in {where}; each may be in one part only")
        seen.add(speaker)
