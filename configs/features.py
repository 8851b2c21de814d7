"""What stage one may be told."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from configs.condition_name import ConditionName
from configs.loader import STRICT

CARD_CONDITIONS = (
    "clean",
    "noise-white-20db",
    "noise-white-10db",
    "noise-white-5db",
    "noise-white-0db",
    "occlude-block-25",
    "occlude-block-50",
    "drop-frames-30",
)


@dataclass(frozen=True, config=STRICT)
class Encoders:
    """Hub name or local directory of each encoder; null: not this modality."""

    audio: str | None = "facebook/wav2vec2-base-960h"
    video: str | None = "MCG-NJU/videomae-base"
    text: str | None = "distilbert/distilroberta-base"


@dataclass(frozen=True, config=STRICT)
class Asr:
    """Speech recognition. `model`: Whisper name or checkpoint file; null: the corpus's statement is the text."""

    model: str | None = "base.en"
    language: str = "en"


@dataclass(frozen=True, config=STRICT)
class MediaSettings:
    """What is kept of a decoded clip, and how decoding is run."""

    frames: Annotated[int, Field(ge=2, le=256)] = 16
    size: Annotated[int, Field(ge=16, le=1024)] = 224
    decode_workers: Annotated[int, Field(ge=1, le=64)] = 1
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0


@dataclass(frozen=True, config=STRICT)
class FeaturesConfig:
    """Configuration of `python -m extract`."""

    corpus: str
    corpus_root: str | None = None
    features_dir: str = "features"
    encoders: Encoders = field(default_factory=Encoders)
    asr: Asr = field(default_factory=Asr)
    conditions: tuple[ConditionName, ...] = CARD_CONDITIONS
    media: MediaSettings = field(default_factory=MediaSettings)
    batch_size: Annotated[int, Field(ge=1)] = 8
    max_failed: Annotated[int, Field(ge=0)] = 0
    threads: Annotated[int, Field(ge=1)] = 1
    max_restarts: Annotated[int, Field(ge=0)] = 3
    retry_failed: bool = False

    def __post_init__(self) -> None:
        """Refuse a run without any encoder."""
        if not any((self.encoders.audio, self.encoders.video, self.encoders.text)):
            raise ValueError("encoders: every modality is null; name at least one encoder")
