"""RAVDESS file names: seven two-digit fields that say everything about a clip.

    modality - channel - emotion - intensity - statement - repetition - actor
    01-01-06-01-02-01-12.mp4: audio-video, speech, fearful, normal, "Dogs ...", first time, actor 12

Livingstone & Russo 2018, The Ryerson Audio-Visual Database of Emotional Speech and Song, PLoS ONE 13(5),
https://doi.org/10.1371/journal.pone.0196391.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import PurePath

# Its emotions, in the order of their codes.
LABELS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
ACTORS = tuple(range(1, 25))
STATEMENTS = ("Kids are talking by the door", "Dogs are sitting by the door")

# What each field may say, by position in the name; code 1 is the first value, code 2 the second, ...
VALUES: dict[str, tuple[str, ...]] = {
    "modality": ("audio-video", "video-only", "audio-only"),
    "channel": ("speech", "song"),
    "emotion": LABELS,
    "intensity": ("normal", "strong"),
    "statement": STATEMENTS,
    "repetition": ("1", "2"),
    "actor": tuple(map(str, ACTORS)),
}

# The split column of metadata.csv: the protocol `holdout` (configs/splits/holdout.yaml; a test compares).
HOLDOUT = {"train": range(1, 21), "validation": range(21, 23), "test": range(23, 25)}


@dataclass(frozen=True)
class RavdessName:
    """The meaning of one file name; the fields hold words (`fearful`), not codes (`06`).

    Raises:
        ValueError: one line naming the field and what it may say.
    """

    modality: str
    channel: str
    emotion: str
    intensity: str
    statement: str
    repetition: str
    actor: str

    def __post_init__(self) -> None:
        """Refuse what no RAVDESS name can say."""
        for field, allowed in VALUES.items():
            value = getattr(self, field)
            if value not in allowed:
                raise ValueError(f"{field} {value!r} is not one of {', '.join(allowed)}")
        if self.emotion == "neutral" and self.intensity == "strong":
            raise ValueError("intensity 02 (strong) does not exist for neutral; allowed: 01 (normal)")

    @property
    def stem(self) -> str:
        """The file name without its suffix; also the clip id."""
        return "-".join(f"{VALUES[f.name].index(getattr(self, f.name)) + 1:02d}" for f in fields(self))

    @property
    def utterance(self) -> str:
        """What was said, how and by whom: the stem without its modality."""
        return self.stem[3:]

    @property
    def sex(self) -> str:
        """Odd actors are male, even ones female."""
        return "male" if int(self.actor) % 2 else "female"

    @property
    def metadata(self) -> dict[str, str]:
        """What the name says, by column of metadata.csv: all of a `Clip` but its path."""
        return {
            "clip_id": self.stem,
            "label": self.emotion,
            "speaker": self.actor,
            "statement": self.statement,
            "intensity": self.intensity,
            "repetition": self.repetition,
            "sex": self.sex,
            "split": next(split for split, actors in HOLDOUT.items() if int(self.actor) in actors),
        }


def is_ravdess_id(clip_id: str) -> bool:
    """Whether a clip id is the stem of one of RAVDESS's file names."""
    try:
        return parse_ravdess_name(clip_id).stem == clip_id
    except ValueError:
        return False


def parse_ravdess_name(file: str | PurePath) -> RavdessName:
    """Read a file's name; folders before it and its suffix do not matter.

    Raises:
        ValueError: one line naming the file, the field and the codes it may have.
    """
    path = PurePath(file)
    if not re.fullmatch(r"[0-9]{2}(-[0-9]{2}){6}", path.stem):
        shape = "-".join(VALUES)
        raise ValueError(f"{file} is not a RAVDESS name: seven two-digit fields {shape}, e.g. 03-01-06-01-02-01-12.wav")
    codes = dict(zip(VALUES, map(int, path.stem.split("-")), strict=True))
    for field, code in codes.items():
        if not 1 <= code <= len(VALUES[field]):
            raise ValueError(f"{file}: unknown {field} code {code:02d}; allowed: {_codes(field)}")
    try:
        return RavdessName(**{field: VALUES[field][code - 1] for field, code in codes.items()})
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _codes(field: str) -> str:
    allowed = VALUES[field]
    if field == "actor":
        return f"01 to {len(allowed)}"
    return ", ".join(f"{code:02d} ({meaning})" for code, meaning in enumerate(allowed, start=1))
