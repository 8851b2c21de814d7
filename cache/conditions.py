"""Conditions: what was done to a clip before it was encoded. Pure data; the grammar is in docs/conditions.md.

clean
noise-white-10db    noise-white-minus5db    white noise at that signal-to-noise ratio
reverb-room-600ms                           a room with that reverberation time
occlude-block-50                            a block covering 50 % of the picture
occlude-eyes                                no level
noise-white-10db+occlude-block-50           joint: audio rows of the first, video rows of the second
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cache.names import did_you_mean

MODALITIES = ("audio", "video", "text")
CLEAN = "clean"


@dataclass(frozen=True)
class Kind:
    """A family of conditions: what it changes and which levels make sense.

    `levels`: the lowest and the highest; None: it has none. `allowed`: the only ones there are, where not all are.
    `milder_upwards`: a higher level changes less, as with a signal-to-noise ratio or a bit rate. `harmless`: at a low
    level nobody minds it; what it tests is whether answers stay as they are.
    """

    modality: str
    unit: str = ""
    levels: tuple[int, int] | None = None
    example: int = 0
    allowed: tuple[int, ...] = ()
    milder_upwards: bool = False
    harmless: bool = False

    def allows(self, level: int) -> bool:
        """Whether there is a condition of this level."""
        return not self.levels or (self.levels[0] <= level <= self.levels[1] and level in (self.allowed or (level,)))

    def level_name(self, level: int) -> str:
        """How the level is spelt in a condition's name; "" for a kind without levels."""
        return f"-{'minus' if level < 0 else ''}{abs(level)}{self.unit}" if self.levels else ""

    def severity(self, level: int) -> int:
        """A number that grows with how much is changed, to order the levels of this kind by."""
        return abs(level) if self.harmless else -level if self.milder_upwards else level


SNR_DB = (-40, 60)
PER_CENT = (1, 99)
# MPEG-2 layer III, which is what MP3 is at 16 kHz; an encoder would take the nearest of them without a word.
MP3_KBPS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
KINDS = {
    "noise-white": Kind("audio", "db", SNR_DB, 10, milder_upwards=True),
    "noise-pink": Kind("audio", "db", SNR_DB, 10, milder_upwards=True),
    "noise-babble": Kind("audio", "db", SNR_DB, 10, milder_upwards=True),
    "noise-file": Kind("audio", "db", SNR_DB, 10, milder_upwards=True),
    "reverb-room": Kind("audio", "ms", (50, 5000), 600),
    "clip-peak": Kind("audio", "", PER_CENT, 25, milder_upwards=True),
    "band-telephone": Kind("audio"),
    "codec-mp3": Kind("audio", "kbps", (8, 160), 16, MP3_KBPS, milder_upwards=True),
    "codec-aac": Kind("audio", "kbps", (8, 64), 16, milder_upwards=True),
    "silence-track": Kind("audio"),
    "gain-track": Kind("audio", "db", (-40, 40), -1, harmless=True),
    "cut-start": Kind("audio", "ms", (1, 1000), 20, harmless=True),
    "occlude-block": Kind("video", "", (1, 100), 50),
    "occlude-eyes": Kind("video"),
    "occlude-mouth": Kind("video"),
    "occlude-left": Kind("video"),
    "occlude-right": Kind("video"),
    "drop-frames": Kind("video", "", PER_CENT, 30),
    "freeze-frames": Kind("video", "", PER_CENT, 50),
    "blur-gaussian": Kind("video", "px", (1, 50), 4),
    "blur-motion": Kind("video", "px", (2, 100), 15),
    "light-low": Kind("video", "", PER_CENT, 25, milder_upwards=True),
    "noise-pixel": Kind("video", "", PER_CENT, 10),
    "codec-h264": Kind("video", "kbps", (5, 2000), 30, milder_upwards=True),
    "black-screen": Kind("video"),
    "shift-picture": Kind("video", "px", (1, 100), 4, harmless=True),
}


@dataclass(frozen=True)
class Condition:
    """One corruption of one modality, or none.

    Attributes:
        name: canonical name, e.g. `noise-white-10db`.
        modality: the signal that is changed: `audio`, `video`, or "" for `clean`.
        kind: key of `KINDS`, or `clean`.
        level: in the unit of its kind (dB, ms, kbps, px, else per cent); 0 for a kind without levels.
        seed: with the clip id, seeds everything that is drawn.
    """

    name: str
    modality: str
    kind: str
    level: int
    seed: int = 0

    def rng(self, clip_id: str) -> np.random.Generator:
        """The generator of this condition for one clip: keyed to the seed and the clip id only."""
        return np.random.default_rng([self.seed, *clip_id.encode()])

    @property
    def changes(self) -> tuple[str, ...]:
        """Modalities whose features differ from clean. Noise reaches text through speech recognition."""
        return {"": MODALITIES, "audio": ("audio", "text"), "video": ("video",)}[self.modality]


@dataclass(frozen=True)
class JointCondition:
    """What was done to whole clips: one condition, or one each of several modalities. What `a+b` is parsed to."""

    parts: tuple[Condition, ...]

    @property
    def name(self) -> str:
        """As it is typed, and kept in tables: the parts' names, joined by `+`."""
        return "+".join(part.name for part in self.parts)

    def __str__(self) -> str:
        """The name."""
        return self.name


def parse_condition(name: str, seed: int = 0) -> Condition:
    """The condition of that name.

    Raises:
        ValueError: naming the grammar, and the nearest valid name.
    """
    if name == CLEAN:
        return Condition(CLEAN, "", CLEAN, 0, seed)
    match = re.fullmatch(r"([a-z]+-[a-z0-9]+?)(?:-(minus)?(\d{1,4})([a-z]*))?", name)
    if match is None or match[1] not in KINDS:
        raise ValueError(f"unknown condition {name!r}{_nearest(name)}; known kinds: {_examples()}")
    kind = KINDS[match[1]]
    level = int(match[3] or 0) * (-1 if match[2] else 1)
    canonical = match[1] + kind.level_name(level)
    if name != canonical:
        example = match[1] + kind.level_name(level if match[3] else kind.example)
        raise ValueError(f"unknown condition {name!r}; it is spelt {example}")
    if not kind.allows(level):
        raise ValueError(f"condition {name!r}: the level must {_allowed(kind)}")
    return Condition(name, kind.modality, match[1], level, seed)


def parse_joint(name: str, seed: int = 0) -> JointCondition:
    """What a name says in full: one condition, or several of different modalities for `a+b`.

    Raises:
        ValueError: as `parse_condition`; or two of them change one modality.
    """
    parts = tuple(parse_condition(part, seed) for part in name.split("+"))
    changed = [part.modality for part in parts]
    if len(parts) > 1 and ("" in changed or len(set(changed)) < len(changed)):
        raise ValueError(f"joint condition {name!r} must name one condition of each of several modalities")
    return JointCondition(parts)


# What clips are under that nothing was done to.
UNCHANGED = parse_joint(CLEAN)


def stored_conditions(wanted: Sequence[JointCondition]) -> tuple[Condition, ...]:
    """The conditions that need a store of their own: clean first, joint ones split into their parts."""
    parts = {part.name: part for joint in (UNCHANGED, *wanted) for part in joint.parts}
    return tuple(parts.values())


def _allowed(kind: Kind) -> str:
    if kind.allowed:
        return f"be one of {', '.join(map(str, kind.allowed))}"
    assert kind.levels
    return f"lie in {kind.levels[0]} to {kind.levels[1]}"


def _examples() -> str:
    return ", ".join([CLEAN, *(name + kind.level_name(kind.example) for name, kind in KINDS.items())])


def _nearest(name: str) -> str:
    levels = (0, 5, 10, 20, 25, 30, 50)
    known = [CLEAN]
    for name_of_kind, kind in KINDS.items():
        known += [name_of_kind + kind.level_name(level) for level in (*levels, kind.example) if kind.allows(level)]
    return did_you_mean(name, known)
