"""What `make predict` may be told."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from configs.loader import STRICT


@dataclass(frozen=True, config=STRICT)
class ModelPlaces:
    """Where encoders are now; null: where the features folder of the run says."""

    audio: str | None = None
    video: str | None = None
    text: str | None = None


@dataclass(frozen=True, config=STRICT)
class PredictConfig:
    """Configuration of `python -m fuse.predict`.

    Attributes:
        clip: a media file, a folder of them, or a metadata.csv.
        clip_root: folder that the paths of a metadata.csv start from; null: its own.
        run: folder of a run, or of one fold and seed of it; several folds and seeds answer together.
        statement: what is said in the clip, for a run that reads statements; null: what the table or a RAVDESS name
            says.
        speaker: of an adapted run, whose clips these are.
        features_dir: null: where the run's configuration says.
        encoders, asr_model: where models are now.
        json, csv: print that instead of text.
        threads: torch threads.
    """

    clip: str | None = None
    clip_root: str | None = None
    run: str = "outputs/fusion"
    statement: str | None = None
    speaker: str | None = None
    features_dir: str | None = None
    encoders: ModelPlaces = field(default_factory=ModelPlaces)
    asr_model: str | None = None
    json: bool = False
    csv: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=1)] = 1

    def __post_init__(self) -> None:
        """Refuse two formats at once."""
        if self.json and self.csv:
            raise ValueError("json and csv: choose one of them")
