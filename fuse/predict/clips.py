"""What `make predict` is pointed at: a media file, a folder of them, or a metadata.csv."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cache.corpus.clips import read_corpus
from cache.corpus.ravdess import parse_ravdess_name
from cache.corpus.sheet import is_table
from cache.corpus.stretch import Stretch
from extract.corpora.files import KINDS, media_files


@dataclass(frozen=True)
class Wanted:
    """A clip to predict, or a stretch of it; `statement` is what is said there and `label` how, "" if nobody knows."""

    path: Path
    statement: str = ""
    stretch: Stretch | None = None
    label: str = ""


def find_clips(name: str, root: str | None = None, labels: Mapping[str, str | None] | None = None) -> list[Wanted]:
    """The clips that are meant, in the order of the table or of their paths.

    Args:
        name: a media file, a folder (searched recursively; hidden files are passed over), or a table of clips.
        root: folder that the paths of a table start from; default: its own.
        labels: other names for the labels of a table; None leaves their clips out.

    Raises:
        ValueError: there is none, or there are labels to be named and no table that has any.
    """
    path = Path(name).expanduser()
    if is_table(path):
        corpus = read_corpus(path, Path(root) if root else None, mapping=labels)
        return [Wanted(corpus.source(clip), clip.statement, clip.stretch, clip.label) for clip in corpus.clips]
    if labels:
        raise ValueError(f"labels: clip={name} has none; they are those of a metadata.csv")
    if path.is_dir():
        found = list(media_files(path, path, KINDS))
        if not found:
            raise ValueError(f"clip={name}: no media file in this folder; known: {' '.join(KINDS)}")
        return [_of_file(file) for file in found]
    if not path.is_file():
        raise ValueError(f"clip={name}: no such file; name a media file, a folder of them or a metadata.csv")
    return [_of_file(path)]


def _of_file(path: Path) -> Wanted:
    """What no table says of a file, its RAVDESS name may."""
    try:
        return Wanted(path, parse_ravdess_name(path).statement)
    except ValueError:
        return Wanted(path)
