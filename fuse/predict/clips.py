"""What `make predict` is pointed at: a media file, a folder of them, or a metadata.csv."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cache.corpus.clips import read_corpus
from cache.corpus.ravdess import parse_ravdess_name
from cache.corpus.stretch import Stretch
from extract.corpora.files import KINDS, media_files


@dataclass(frozen=True)
class Wanted:
    """A clip to predict, or a stretch of it; `statement` is what is said there, "" if nobody knows."""

    path: Path
    statement: str = ""
    stretch: Stretch | None = None


def find_clips(name: str, root: str | None = None) -> list[Wanted]:
    """The clips that are meant, in the order of the table or of their paths.

    Args:
        name: a media file, a folder (searched recursively; hidden files are passed over), or a CSV as stage one reads.
        root: folder that the paths of a CSV start from; default: its own.

    Raises:
        ValueError: there is none.
    """
    path = Path(name).expanduser()
    if path.suffix.lower() == ".csv":
        corpus = read_corpus(path, Path(root) if root else None)
        return [Wanted(corpus.source(clip), clip.statement, clip.stretch) for clip in corpus.clips]
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
