"""What `make corpus` and `make data` may be told."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from cache.names import did_you_mean
from configs.loader import STRICT

FOLDER = Path(__file__).parents[1] / "corpora"
LAYOUTS = ("ravdess", "folders", "pattern", "csv")


def ready_made() -> tuple[str, ...]:
    """The corpora whose layout is shipped: `configs/corpora/<name>.yaml`."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def _known_layout(name: str) -> str:
    known = (*LAYOUTS, *ready_made())
    if name not in known:
        raise ValueError(f"no layout {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")
    return name


@dataclass(frozen=True, config=STRICT)
class CorpusConfig:
    """A folder of clips that is already there, and how it says who speaks and what the label is.

    Attributes:
        root: the folder; paths in the metadata start from it.
        out: the table to write, Parquet where it ends in `.parquet`, else CSV; null: `metadata.csv` in the folder.
        layout: `ravdess`, `folders` (label/clip, speaker/label/clip), `pattern`, `csv`, or the name of a file in
            configs/corpora; null: `pattern` or `csv` where that key is set, else what the names of the files show.
        channels: which of RAVDESS's vocal channels to list.
        kind: list only `video` (mp4 and others) or only `audio` (wav, flac and others); null: what is there.
        pattern: of file names, with parts in braces: "{speaker}_{statement}_{label}_*"; of several, the first that
            fits a name counts.
        csv: a table (CSV or Parquet) with a line per clip, in the folder or below; or a table per split:
            {train: a.csv, test: b.csv}.
        columns: what the table calls our columns: {label: emotion, speaker: actor}.
        labels: the labels behind the codes of names or tables, {ANG: angry, XXX: null} (null: leave those clips
            out); or the labels alone, in their order. Either way, their order is that of `labels.txt`.
        values: the same for other columns: {statement: {DFA: "Don't forget a jacket"}}.
        by: columns that follow from another: {speaker: {sex: {"03": male, "08": female}}}.
        fill: columns that are put together from others, or the same for all clips: {statement: "Say the word {word}"}.
        ids: clips are called by their `name` or by their whole `path`; null: as the layout has it.
        follow_links: list what links lead to, also out of the folder.
        overwrite: replace a metadata.csv that another program wrote, or a labels.txt with other labels.
    """

    root: str = "data/ravdess"
    out: str | None = None
    layout: Annotated[str, AfterValidator(_known_layout)] | None = None
    channels: Annotated[tuple[Literal["speech", "song"], ...], Field(min_length=1)] = ("speech",)
    kind: Literal["video", "audio"] | None = None
    pattern: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    csv: str | dict[str, str] | None = None
    columns: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str | None] | tuple[str, ...] | None = None
    values: dict[str, dict[str, str | None]] = field(default_factory=dict)
    by: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    fill: dict[str, str] = field(default_factory=dict)
    ids: Literal["name", "path"] | None = None
    follow_links: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Refuse a pattern or a table beside a layout that does not look at it."""
        for name in ("pattern", "csv"):
            if getattr(self, name) is not None and self.layout in LAYOUTS and self.layout != name:
                raise ValueError(f"{name}: layout={self.layout} does not look at it; set one of the two")
        if self.pattern is not None and self.csv is not None:
            raise ValueError("pattern: a table says where its clips are; set pattern or csv")


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
