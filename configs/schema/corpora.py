"""What `make corpus` may be told."""

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
