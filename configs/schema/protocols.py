"""Protocols as a configuration names them, into `cache.protocols.folds.Protocol`.

A name is that of a file of `configs/splits/`, or `speaker-folds-K` (K folds over the speakers of any corpus, seed 0) or
`speaker-folds-K-seed-S`, or the path of a YAML file of the user's that reads like those of `configs/splits/`.
`cross-corpus` tests on another corpus (`cache.protocols.cross_corpus`). In place of
`auto` comes the name of the protocol that fits the corpus (`cache.protocols.choice`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from cache.corpus.clips import normal_speaker
from cache.names import did_you_mean
from cache.protocols.clip_rules import RandomClips, SentenceHeldOut, SplitColumn
from cache.protocols.cross_corpus import CROSS_CORPUS
from cache.protocols.folds import CyclicGroups, FixedFold, LeaveOneSpeakerOut, Protocol, Rule
from cache.protocols.speaker_folds import SpeakerFolds
from configs.loader import STRICT, load_config

FOLDER = Path(__file__).parents[1] / "splits"
SPEAKER_FOLDS = re.compile(r"speaker-folds-([1-9][0-9]{0,3})(?:-seed-(0|[1-9][0-9]{0,8}))?")
AUTO = "auto"
# What an unknown name is answered with, beside the names of files.
FORMS = (AUTO, CROSS_CORPUS, "speaker-folds-5", "speaker-folds-5-seed-1")

Speaker = Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]
Speakers = Annotated[tuple[Speaker, ...], Field(min_length=1)]


@dataclass(frozen=True, config=STRICT)
class CyclicGroupsConfig:
    """One fold per group: tested on it, validated on the next one (cyclic)."""

    kind: Literal["cyclic-groups"]
    groups: tuple[Speakers, ...]

    def rule(self) -> Rule:
        """The rule these keys describe."""
        return CyclicGroups(tuple(map(_names, self.groups)))


@dataclass(frozen=True, config=STRICT)
class FixedFoldConfig:
    """A single fold with its parts written out."""

    kind: Literal["fixed-fold"]
    train: Speakers
    validation: Speakers
    test: Speakers

    def rule(self) -> Rule:
        """The rule these keys describe."""
        return FixedFold(_names(self.train), _names(self.validation), _names(self.test))


@dataclass(frozen=True, config=STRICT)
class LeaveOneSpeakerOutConfig:
    """One fold per speaker of the corpus, whoever they are."""

    kind: Literal["leave-one-speaker-out"]
    validation_speakers: Annotated[int, Field(ge=1)]

    def rule(self) -> Rule:
        """The rule these keys describe."""
        return LeaveOneSpeakerOut(self.validation_speakers)


@dataclass(frozen=True, config=STRICT)
class SentenceHeldOutConfig:
    """One fold per statement of the corpus and group: tested on a statement that was not trained on."""

    kind: Literal["sentence-held-out"]
    groups: tuple[Speakers, ...]

    def rule(self) -> Rule:
        """The rule these keys describe."""
        return SentenceHeldOut(CyclicGroups(tuple(map(_names, self.groups))))


@dataclass(frozen=True, config=STRICT)
class RandomClipsConfig:
    """Clips dealt out whoever speaks: leaks speakers."""

    kind: Literal["random-clips"]
    folds: Annotated[int, Field(ge=3)]
    seed: Annotated[int, Field(ge=0)]

    def rule(self) -> Rule:
        """The rule these keys describe."""
        return RandomClips(self.folds, self.seed)


@dataclass(frozen=True, config=STRICT)
class SpeakerFoldsConfig:
    """Speakers dealt out so that groups have about as much of each label; a group tests, the next one validates."""

    kind: Literal["speaker-folds"]
    folds: Annotated[int, Field(ge=3)]
    seed: Annotated[int, Field(ge=0)]

    def rule(self) -> Rule:
        """The rule these keys describe."""
        return SpeakerFolds(self.folds, self.seed)


@dataclass(frozen=True, config=STRICT)
class SplitColumnConfig:
    """The split that the corpus names; `leaks_speakers` allows speakers in several parts, and marks the scores."""

    kind: Literal["split-column"]
    leaks_speakers: bool = False

    def rule(self) -> Rule:
        """The rule these keys describe."""
        return SplitColumn(self.leaks_speakers)


AnyRuleConfig = (
    CyclicGroupsConfig
    | FixedFoldConfig
    | LeaveOneSpeakerOutConfig
    | SentenceHeldOutConfig
    | RandomClipsConfig
    | SpeakerFoldsConfig
    | SplitColumnConfig
)


@dataclass(frozen=True, config=STRICT)
class ProtocolConfig:
    """A file of `configs/splits/`."""

    protocol: Annotated[AnyRuleConfig, Field(discriminator="kind")]


def protocol_names() -> tuple[str, ...]:
    """Every protocol there is a file for."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def load_protocol(name: str) -> Protocol:
    """The protocol of that name, form or path, as the module says.

    Raises:
        ValueError: one line: an unknown name with the nearest known one, or what is wrong in the file.
    """
    if name == CROSS_CORPUS:
        return Protocol(name, SplitColumn())
    if form := SPEAKER_FOLDS.fullmatch(name):
        try:
            return Protocol(name, SpeakerFolds(int(form[1]), int(form[2] or 0)))
        except ValueError as error:
            raise ValueError(f"protocol {name}: {error}") from error
    path = _file_of(name)
    config = load_config(ProtocolConfig, path)
    try:
        return Protocol(name, config.protocol.rule())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _file_of(name: str) -> Path:
    known = protocol_names()
    if name in known:
        return FOLDER / f"{name}.yaml"
    if Path(name).suffix not in (".yaml", ".yml"):
        every = (*known, *FORMS)
        said = f"{', '.join(known)}, speaker-folds-K[-seed-S], {CROSS_CORPUS}, {AUTO}, or the path of a YAML file"
        raise ValueError(f"unknown protocol {name!r}{did_you_mean(name, every)}; known: {said}")
    if not Path(name).is_file():
        raise ValueError(f"no protocol file {name}{did_you_mean(Path(name).stem, known)}")
    return Path(name)


def _names(speakers: tuple[Speaker, ...]) -> tuple[str, ...]:
    return tuple(normal_speaker(str(speaker)) for speaker in speakers)
