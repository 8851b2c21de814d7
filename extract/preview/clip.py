"""The clip that a command is given: a media file, or the id of a clip that a corpus lists."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cache.corpus.clips import Clip, Corpus
from cache.corpus.ravdess import parse_ravdess_name
from cache.corpus.stretch import Stretch
from cache.names import did_you_mean


@dataclass(frozen=True)
class ClipFile:
    """A clip, its file and what is known of it. `clip_id` seeds what is drawn, as in a run over a corpus."""

    clip_id: str
    path: Path
    statement: str = ""
    stretch: Stretch | None = None

    @property
    def folder_name(self) -> str:
        """The clip id as the name of one folder, whatever characters it has."""
        return re.sub(r"[^\w.-]", "_", self.clip_id).lstrip(".") or "clip"


def find_clip(name: str, corpus: Corpus | None) -> ClipFile:
    """The clip that is meant: by its id in the corpus, or by its file, which the corpus may list too.

    What no corpus says of a file, its RAVDESS name may.

    Raises:
        ValueError: one line: there is no such clip.
    """
    path = Path(name).expanduser()
    clip = _listed(name, path, corpus) if corpus else None
    if corpus and clip:
        return ClipFile(clip.clip_id, corpus.source(clip), clip.statement, clip.stretch)
    if not path.is_file():
        raise ValueError(_no_such_clip(name, path, corpus))
    try:
        return ClipFile(path.stem, path, parse_ravdess_name(path).statement)
    except ValueError:
        return ClipFile(path.stem, path)


def _listed(name: str, path: Path, corpus: Corpus) -> Clip | None:
    """The clip of that id, else the one whose media file this is."""
    by_id = next((clip for clip in corpus.clips if clip.clip_id == name), None)
    if by_id or not path.is_file():
        return by_id
    return next((clip for clip in corpus.clips if corpus.source(clip).resolve() == path.resolve()), None)


def _no_such_clip(name: str, path: Path, corpus: Corpus | None) -> str:
    if path.is_dir():
        return f"clip={name} is a folder; name one media file"
    if corpus is None:
        return f"clip={name}: no such file; to name a clip by its id, give corpus=metadata.csv"
    guess = did_you_mean(name, [clip.clip_id for clip in corpus.clips])
    return f"clip={name}: no such file, and no clip of that id in the corpus{guess}"
