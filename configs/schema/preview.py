"""What `make preview` may be told."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from cache.conditions import parse_joint
from configs.loader import STRICT
from configs.schema.features import Asr, MediaSettings, NoiseSettings
from configs.schema.fields import BareName, LabelMapping, NamedCondition

# At least one of every kind; several levels where one would not show what the next costs.
PREVIEW_CONDITIONS = tuple(
    parse_joint(name)
    for name in (
        "clean",
        "noise-white-20db",
        "noise-white-10db",
        "noise-white-0db",
        "noise-white-minus10db",
        "noise-pink-10db",
        "noise-pink-minus10db",
        "noise-babble-10db",
        "noise-babble-0db",
        "noise-file-10db",
        "noise-file-0db",
        "reverb-room-300ms",
        "reverb-room-1200ms",
        "clip-peak-25",
        "band-telephone",
        "codec-mp3-16kbps",
        "codec-aac-16kbps",
        "silence-track",
        "gain-track-minus6db",
        "cut-start-20ms",
        "occlude-block-25",
        "occlude-block-50",
        "occlude-block-75",
        "occlude-eyes",
        "occlude-mouth",
        "occlude-left",
        "occlude-right",
        "drop-frames-30",
        "drop-frames-75",
        "freeze-frames-50",
        "blur-gaussian-4px",
        "blur-motion-15px",
        "light-low-25",
        "noise-pixel-10",
        "codec-h264-30kbps",
        "codec-h264-5kbps",
        "black-screen",
        "shift-picture-4px",
    )
)


@dataclass(frozen=True, config=STRICT)
class PreviewConfig:
    """Configuration of `python -m extract.preview`.

    Attributes:
        clip: a media file, or the id of a clip of `corpus`.
        corpus: metadata.csv that knows the clip's statement and speaker, and whose other clips make babble.
        follow_links: read clips behind links that lead out of the corpus root.
        labels: as in stage one: clips whose label is null are not heard in babble.
        conditions: null: those of `PREVIEW_CONDITIONS` that can be made with what is configured.
        statement: what is said in the clip; null: what the corpus or the file's RAVDESS name says.
        out: folder; the sheets, sounds and transcripts of a clip stand in a folder of its id below it.
    """

    clip: str | None = None
    corpus: str | None = None
    corpus_root: str | None = None
    follow_links: bool = False
    labels: LabelMapping = field(default_factory=dict)
    conditions: Annotated[Annotated[tuple[NamedCondition, ...], Field(min_length=1)] | None, BareName] = None
    statement: str | None = None
    asr: Asr = field(default_factory=Asr)
    noise: NoiseSettings = field(default_factory=NoiseSettings)
    media: MediaSettings = field(default_factory=MediaSettings)
    out: str = "outputs/preview"
