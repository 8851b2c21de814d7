"""Clips and the corpus they form: `metadata.csv`, or the same table as Parquet, read strictly.

Required columns: clip_id, path, label, speaker. Known optional ones are the other fields of `Clip`;
any further column is ignored. Which labels there are is said in `cache.corpus.labels`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from sys import intern

from cache.corpus.labels import label_set, normal_label, unprintable
from cache.corpus.parquet import is_parquet, parquet_bytes
from cache.corpus.paths import MeantPaths
from cache.corpus.sheet import place_in, read_rows
from cache.corpus.stretch import Stretch, parse_stretch
from cache.files.atomic import write_atomic
from cache.files.csv import write_csv

REQUIRED = ("clip_id", "path", "label", "speaker")
STRETCH = ("start", "end")
# Of a million clips, most have these in common: one text in memory serves them all.
SHARED = ("speaker", "statement", "intensity", "repetition", "sex", "split")
# Who speaks in a clip of which nobody knows it.
UNKNOWN_SPEAKER = "unknown"


@dataclass(frozen=True, slots=True)
class Clip:
    """One labelled utterance. `path` is relative to the corpus root; "" means not known.

    `sha256` of the media file: where it is known, a file with another one is a failed clip. `start` and `end`: the clip
    is this stretch of the file, in seconds.
    """

    clip_id: str
    path: str
    label: str
    speaker: str
    statement: str = ""
    intensity: str = ""
    repetition: str = ""
    sex: str = ""
    split: str = ""
    sha256: str = ""
    start: str = ""
    end: str = ""

    @property
    def stretch(self) -> Stretch | None:
        """The part of the file that is the clip; None: the whole of it."""
        return parse_stretch(self.start, self.end)


COLUMNS = tuple(field.name for field in fields(Clip))


@dataclass(frozen=True)
class Corpus:
    """Clips in the order of their manifest, the folder their paths start from, and the label set in its order.

    `notes`: lines to print: what was read otherwise than it is written.
    """

    root: Path
    clips: tuple[Clip, ...]
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def source(self, clip: Clip) -> Path:
        """The clip's media file."""
        return self.root / clip.path


def normal_speaker(text: str) -> str:
    """Speaker "07" is speaker "7": protocols name RAVDESS actors by number."""
    return (text.lstrip("0") or "0") if text.isascii() and text.isdigit() else text


def read_corpus(
    metadata: Path,
    root: Path | None = None,
    follow_links: bool = False,
    mapping: Mapping[str, str | None] | None = None,
) -> Corpus:
    """Read and check a metadata.csv, or a table of another name: a CSV file in UTF-8, or Parquet (`.parquet`).

    Args:
        metadata: the table.
        root: folder that `path` is relative to; default: the table's folder.
        follow_links: links may lead out of the root; else a clip behind such a link is refused. Where no clip is
            opened, links do not matter.
        mapping: other names for labels; None leaves their clips out.

    Raises:
        ValueError: one line naming the file, the line and what to do.
    """
    root = metadata.parent if root is None else root
    if not metadata.is_file():
        raise ValueError(
            f"no metadata file {metadata}; write one with: make corpus ROOT=<folder of clips> OUT={metadata}"
        )
    if not root.is_dir():
        raise ValueError(f"corpus_root {root} is not a folder")
    paths, label_at, clips = MeantPaths(root, follow_links), dict[int, str](), list[Clip]()
    for line, row in read_rows(metadata, REQUIRED, COLUMNS):
        clips.append(_clip(metadata, line, row, paths))
        label_at[line] = clips[-1].label
    _refuse_duplicates(metadata, clips)
    found = label_set(metadata, [clip.clip_id for clip in clips], label_at, mapping or {})
    labelled = ((clip, found.meant[clip.label]) for clip in clips)
    kept = tuple(clip if clip.label == label else replace(clip, label=label) for clip, label in labelled if label)
    if not kept:
        raise ValueError(f"labels: the label of every clip of {metadata} is null; leave one")
    return Corpus(root, kept, found.labels, found.notes)


def write_metadata(clips: Iterable[Clip], path: Path, further: Sequence[Mapping[str, str]] = ()) -> None:
    """Write a table that `read_corpus` accepts: a CSV, or Parquet where the name ends in `.parquet`.

    `further`: of each clip, columns that it does not know; the same ones for all clips. (): there are none.

    Raises:
        ValueError: it is to be Parquet, and pyarrow is not installed.
    """
    header, rows = _table(tuple(clips), further)
    if is_parquet(path):
        write_atomic(path, parquet_bytes(header, rows))
    else:
        write_csv(path, header, rows)


def _table(clips: Sequence[Clip], further: Sequence[Mapping[str, str]]) -> tuple[list[str], Iterator[tuple[str, ...]]]:
    """The names of the columns, and the cells of each clip."""
    # Two columns more only where somebody needs them.
    known = [name for name in COLUMNS if name not in STRETCH or any(clip.stretch for clip in clips)]
    more = tuple(further[0]) if further else ()
    cells = [tuple(columns[name] for name in more) for columns in further] or [()] * len(clips)
    rows = ((*(getattr(clip, name) for name in known), *others) for clip, others in zip(clips, cells, strict=True))
    return [*known, *more], rows


def _clip(metadata: Path, line: int, row: dict[str, str], paths: MeantPaths) -> Clip:
    values = {name: (row.get(name) or "").strip() for name in COLUMNS}
    values |= {name: intern(values[name]) for name in SHARED}
    empty = [name for name in REQUIRED if not values[name]]
    if empty:
        raise ValueError(f"{place_in(metadata, line)}: {', '.join(empty)} is empty")
    label = normal_label(values["label"])
    if strange := unprintable(label):
        raise ValueError(f"{place_in(metadata, line)}: label {label!r} holds the character {strange}; take it out")
    # Hashes are compared as text, and some tools write them in capitals.
    known = {"label": intern(label), "speaker": normal_speaker(values["speaker"]), "sha256": values["sha256"].lower()}
    try:
        parse_stretch(values["start"], values["end"])
        return Clip(**{**values, **known, "path": paths.find(values["path"])})
    except ValueError as error:
        raise ValueError(f"{place_in(metadata, line)}: {error}") from error


def _refuse_duplicates(metadata: Path, clips: Sequence[Clip]) -> None:
    seen: dict[str, set[str]] = {"clip_id": set(), "path": set()}
    for clip in clips:
        stretch = clip.stretch
        for name, value in (("clip_id", clip.clip_id), ("path", f"{clip.path}{stretch}" if stretch else clip.path)):
            if value in seen[name]:
                raise ValueError(f"{metadata}: {name} {value!r} appears twice; each clip may be listed once")
            seen[name].add(value)
