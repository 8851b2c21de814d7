"""What `make corpus` and `make data` may be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from configs.loader import STRICT


@dataclass(frozen=True, config=STRICT)
class CorpusConfig:
    """A folder of RAVDESS clips that is already there.

    Attributes:
        root: the folder; paths in the metadata start from it.
        out: the CSV to write; null: `metadata.csv` in the folder.
        channels: which of RAVDESS's vocal channels to list.
        kind: list only `video` (mp4) or only `audio` (wav, flac); null: what is there, one per utterance.
    """

    root: str = "data/ravdess"
    out: str | None = None
    channels: Annotated[tuple[Literal["speech", "song"], ...], Field(min_length=1)] = ("speech",)
    kind: Literal["video", "audio"] | None = None


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """RAVDESS from its Zenodo record.

    Attributes:
        record_url: the record in Zenodo's REST API.
        root: gets `metadata.csv` and the clips in `ravdess/<kind>/Actor_XX/`.
        actors: RAVDESS actors, 1 to 24.
        kind: `video` (mp4 with sound, about half a GB per actor to download) or `audio` (wav).
        attempts: how often the rest of one archive is asked for before giving up; what has arrived is kept.
        keep_zips: keep the archives after unpacking (in `ravdess/zips`).
        timeout_seconds: how long to wait for a connection, and for the next bytes.
        backoff_seconds: pause before the first new attempt; doubles with each further one.
    """

    record_url: str = "https://zenodo.org/api/records/1188976"
    root: str = "data"
    actors: Annotated[tuple[Annotated[int, Field(ge=1, le=24)], ...], Field(min_length=1)] = tuple(range(1, 25))
    kind: Literal["video", "audio"] = "video"
    attempts: Annotated[int, Field(ge=1)] = 6
    keep_zips: bool = False
    timeout_seconds: Annotated[float, Field(gt=0)] = 30.0
    backoff_seconds: Annotated[float, Field(ge=0)] = 1.0
