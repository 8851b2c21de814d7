"""Protocols that look at more of a clip than its speaker: what was said in it, its split, or nothing but its label."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cache.corpus.clips import Clip
from cache.names import by_number, did_you_mean
from cache.protocols.folds import PARTS, CyclicGroups, Fold, Rule, cyclic_parts, in_several_parts, speakers_of


@dataclass(frozen=True)
class SentenceHeldOut(Rule):
    """Groups of speakers crossed with what they say: tested on a statement that was never trained on.

    Each statement is held out in turn (by its words, in the order of the alphabet), once per group: test is the
    held-out statement of the test speakers; training and validation are all other statements of theirs. Validation
    hears the training statements because a choice made on the held-out one would have seen it. The held-out
    statement of training and validation speakers has no part, so that over all folds each clip is tested once.
    """

    groups: CyclicGroups

    def named(self, clips: Iterable[Clip]) -> frozenset[str]:
        """Those of the clips' speakers that stand in a group."""
        return self.groups.named(clips)

    def divide(self, clips: Sequence[Clip]) -> tuple[Fold, ...]:
        """One fold per statement and group: first every group with the first statement held out.

        Raises:
            ValueError: a clip's statement is not known, or there are fewer than two.
        """
        named = self.named(clips)
        said = {clip.clip_id: spoken_words(clip.statement) for clip in clips if clip.speaker in named}
        _refuse_unknown(said)
        by_speaker = self.groups.divide(clips)
        crossed = [(held_out, fold) for held_out in sorted(set(said.values())) for fold in by_speaker]
        return tuple(
            replace(fold, number=number, listed=_listed(fold, clips, {i for i in said if said[i] == held_out}))
            for number, (held_out, fold) in enumerate(crossed, start=1)
        )


@dataclass(frozen=True)
class RandomClips(Rule):
    """Clips are dealt out by label, whoever speaks: only to show how much leakage flatters a number.

    Fold k tests the k-th hand, validates on the next one (cyclic) and trains on the others. The order within a label
    is that of a hash of seed and clip id, so that it does not depend on the order of the corpus.
    """

    folds: int = 5
    seed: int = 0

    @property
    def leaks_speakers(self) -> bool:
        """Always."""
        return True

    def __post_init__(self) -> None:
        """Two hands would leave nothing to train on."""
        if self.folds < 3:
            raise ValueError(f"folds must be at least 3 (test, validation, train), got {self.folds}")

    def named(self, clips: Iterable[Clip]) -> frozenset[str]:
        """Every speaker."""
        return speakers_of(clips)

    def divide(self, clips: Sequence[Clip]) -> tuple[Fold, ...]:
        """As many folds as hands."""
        order = sorted(clips, key=lambda clip: (clip.label, self._draw(clip), clip.clip_id))
        # Dealt on from label to label: neither a label's clips nor all of them differ by more than one between hands.
        turns = cyclic_parts([[clip.clip_id for clip in order[hand :: self.folds]] for hand in range(self.folds)])
        speaker = {clip.clip_id: clip.speaker for clip in clips}
        return tuple(
            Fold(number, *(by_number({speaker[i] for i in ids}) for ids in listed), listed=listed, leaks_speakers=True)
            for number, listed in enumerate(turns, start=1)
        )

    def _draw(self, clip: Clip) -> bytes:
        return hashlib.sha256(f"{self.seed} {clip.clip_id}".encode()).digest()


@dataclass(frozen=True)
class SplitColumn(Rule):
    """The one fold that the corpus itself names: the column `split` says train, validation or test of each clip.

    Attributes:
        leaks_speakers: a speaker may stand in several parts, as in some published splits; every number then says so.
            False: such a split is refused.
    """

    leaks_speakers: bool = False

    def named(self, clips: Iterable[Clip]) -> frozenset[str]:
        """Every speaker."""
        return speakers_of(clips)

    def divide(self, clips: Sequence[Clip]) -> tuple[Fold, ...]:
        """The one fold.

        Raises:
            ValueError: a clip has no split or an unknown one, or a speaker stands in two parts and must not.
        """
        _refuse_other_splits(clips)
        heard: dict[str, set[str]] = {}
        for clip in clips:
            heard.setdefault(clip.speaker, set()).add(clip.split)
        shared = {name: [part for part in PARTS if part in heard[name]] for name in by_number(heard)}
        shared = {name: parts for name, parts in shared.items() if len(parts) > 1}
        if shared and not self.leaks_speakers:
            raise ValueError(
                f"{in_several_parts(1, shared)}, or mark every number with a protocol file of your own: "
                "protocol={kind: split-column, leaks_speakers: true}"
            )
        listed = tuple(tuple(clip.clip_id for clip in clips if clip.split == part) for part in PARTS)
        speakers = (by_number(name for name in heard if part in heard[name]) for part in PARTS)
        return (Fold(1, *speakers, listed=listed if shared else (), leaks_speakers=self.leaks_speakers),)


def spoken_words(statement: str) -> str:
    """A statement without what cannot be heard: case, punctuation, spaces."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", statement).casefold()))


def _listed(fold: Fold, clips: Sequence[Clip], held_out: set[str]) -> tuple[tuple[str, ...], ...]:
    train, validation = (
        tuple(i for i in fold.clip_ids(part, clips) if i not in held_out) for part in ("train", "validation")
    )
    return train, validation, tuple(i for i in fold.clip_ids("test", clips) if i in held_out)


def _refuse_other_splits(clips: Sequence[Clip]) -> None:
    wrong = [clip for clip in clips if clip.split not in PARTS]
    if wrong:
        values = ", ".join(sorted({repr(clip.split) if clip.split else "nothing" for clip in wrong}))
        meant = did_you_mean(wrong[0].split, PARTS) if wrong[0].split else ""
        raise ValueError(
            f"the column split of metadata.csv says {values}{meant} of {len(wrong)} of {len(clips)} clips, "
            f"first {wrong[0].clip_id}; it may say {', '.join(PARTS)}"
        )


def _refuse_unknown(said: dict[str, str]) -> None:
    unknown = [clip_id for clip_id, words in said.items() if not words]
    if unknown:
        raise ValueError(
            f"{len(unknown)} clips have no statement, first {unknown[0]}; fill in the column statement of metadata.csv"
        )
    statements = sorted(set(said.values()))
    if len(statements) < 2:
        found = f"only {statements[0]!r}" if statements else "nothing"
        raise ValueError(
            f"to hold a statement out takes at least 2, the speakers it names say {found}; choose another protocol"
        )
