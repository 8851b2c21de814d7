"""Protocols by name: `configs/splits/<name>.yaml` into `cache.protocols.folds.Protocol`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from cache.corpus.clips import normal_speaker
from cache.names import did_you_mean
from cache.protocols.clip_rules import RandomClips, SentenceHeldOut
from cache.protocols.folds import CyclicGroups, FixedFold, LeaveOneSpeakerOut, Protocol, Rule
from configs.loader import STRICT, load_config

FOLDER = Path(__file__).parents[1] / "splits"

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


AnyRuleConfig = (
    CyclicGroupsConfig | FixedFoldConfig | LeaveOneSpeakerOutConfig | SentenceHeldOutConfig | RandomClipsConfig
)


@dataclass(frozen=True, config=STRICT)
class ProtocolConfig:
    """A file of `configs/splits/`."""

    protocol: Annotated[AnyRuleConfig, Field(discriminator="kind")]


def protocol_names() -> tuple[str, ...]:
    """Every protocol there is a file for."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def load_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        ValueError: one line: an unknown name with the nearest known one, or what is wrong in the file.
    """
    known = protocol_names()
    if name not in known:
        raise ValueError(f"unknown protocol {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}")
    path = FOLDER / f"{name}.yaml"
    config = load_config(ProtocolConfig, path)
    try:
        return Protocol(name, config.protocol.rule())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _names(speakers: tuple[Speaker, ...]) -> tuple[str, ...]:
    return tuple(normal_speaker(str(speaker)) for speaker in speakers)
