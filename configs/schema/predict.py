"""What `make predict` may be told."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from configs.loader import STRICT
from configs.schema.fields import LabelMapping


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
        labels: other names for labels of a metadata.csv, those of the run, by which the answers are scored; null leaves
            their clips out.
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
    labels: LabelMapping = field(default_factory=dict)
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


@dataclass(frozen=True, config=STRICT)
class AppConfig:
    """Configuration of `python -m fuse.predict.app`.

    Attributes:
        run: folder of a run, or of one fold and seed of it.
        speaker: of an adapted run, whose clips will be tried.
        features_dir, encoders, asr_model: as for `make predict`.
        examples: a metadata.csv whose clips may be chosen; null, or not there: none.
        examples_shown: about how many of them, spread over the table.
        port: of 127.0.0.1; null: the first that is free from 7860 on.
        max_megabytes, max_seconds: larger or longer clips are refused.
        windows: parts that a clip is divided into, to see what each contributes.
        threads: torch threads.
    """

    run: str = "outputs/fusion"
    speaker: str | None = None
    features_dir: str | None = None
    encoders: ModelPlaces = field(default_factory=ModelPlaces)
    asr_model: str | None = None
    examples: str | None = "data/demo/metadata.csv"
    examples_shown: Annotated[int, Field(ge=1, le=1000)] = 16
    port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    max_megabytes: Annotated[float, Field(gt=0, le=2000)] = 50.0
    max_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    windows: Annotated[int, Field(ge=1, le=100)] = 6
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=1)] = 1
