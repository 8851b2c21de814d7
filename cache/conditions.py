"""Conditions: what was done to a clip before it was encoded. Pure data; the grammar is in docs/conditions.md.

clean
noise-white-10db    noise-white-minus5db    white noise at that signal-to-noise ratio
occlude-block-50                            a block covering 50 % of the picture
drop-frames-30                              30 % of the sampled frames dropped
noise-white-10db+occlude-block-50           joint: audio rows of the first, video rows of the second
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MODALITIES = ("audio", "video", "text")
CLEAN = "clean"


@dataclass(frozen=True)
class Kind:
    """A family of conditions: what it changes and which levels make sense."""

    modality: str
    unit: str
    lowest: int
    highest: int

    def level_name(self, level: int) -> str:
        """How the level is spelt in a condition's name."""
        return f"{'minus' if level < 0 else ''}{abs(level)}{self.unit}"


KINDS = {
    "noise-white": Kind("audio", "db", -40, 60),
    "occlude-block": Kind("video", "", 1, 100),
    "drop-frames": Kind("video", "", 1, 99),
}


@dataclass(frozen=True)
class Condition:
    """One corruption of one modality, or none.

    Attributes:
        name: canonical name, e.g. `noise-white-10db`.
        modality: the signal that is changed: `audio`, `video`, or "" for `clean`.
        kind: key of `KINDS`, or `clean`.
        level: dB of SNR for noise, per cent of the area for occlusion, per cent of frames for drops.
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


def parse_condition(name: str, seed: int = 0) -> Condition:
    """The condition of that name.

    Raises:
        ValueError: naming the grammar, and the nearest valid name.
    """
    if name == CLEAN:
        return Condition(CLEAN, "", CLEAN, 0, seed)
    match = re.fullmatch(r"([a-z]+-[a-z]+)-(minus)?(\d{1,3})(db)?", name)
    if match is None or match[1] not in KINDS:
        raise ValueError(f"unknown condition {name!r}{_nearest(name)}; known kinds: {_examples()}")
    level = int(match[3]) * (-1 if match[2] else 1)
    kind = KINDS[match[1]]
    if kind.level_name(level) != name.removeprefix(f"{match[1]}-"):
        raise ValueError(f"unknown condition {name!r}; this level is spelt {match[1]}-{kind.level_name(level)}")
    if not kind.lowest <= level <= kind.highest:
        raise ValueError(f"condition {name!r}: the level must lie in {kind.lowest} to {kind.highest}")
    return Condition(name, kind.modality, match[1], level, seed)


def parse_joint(name: str, seed: int = 0) -> tuple[Condition, ...]:
    """The parts of a condition name: one, or several of different modalities for `a+b`."""
    parts = tuple(parse_condition(part, seed) for part in name.split("+"))
    changed = [part.modality for part in parts]
    if len(parts) > 1 and ("" in changed or len(set(changed)) < len(changed)):
        raise ValueError(f"joint condition {name!r} must name one condition of each of several modalities")
    return parts


def stored_conditions(names: Sequence[str], seed: int = 0) -> tuple[Condition, ...]:
    """The conditions that need a store of their own: clean first, joint ones split into their parts."""
    parts = {part.name: part for name in (CLEAN, *names) for part in parse_joint(name, seed)}
    return tuple(parts.values())


def _examples() -> str:
    return ", ".join([CLEAN, *(f"{name}-{kind.level_name(10)}" for name, kind in KINDS.items())])


def _nearest(name: str) -> str:
    known = [CLEAN, *(f"{n}-{k.level_name(v)}" for n, k in KINDS.items() for v in (0, 5, 10, 20, 25, 30, 50))]
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
