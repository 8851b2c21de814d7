"""The media files of a folder, in the order of their names: what every layout starts from."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

# A clip with a picture or only a sound, told by the container: people extract 01-...wav from 01-...mp4.
VIDEO = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".mpg", ".mpeg", ".ts", ".wmv", ".3gp")
AUDIO = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus", ".aif", ".aiff", ".wma")
KINDS = dict.fromkeys(VIDEO, "video") | dict.fromkeys(AUDIO, "audio")


def media_files(folder: Path, root: Path, suffixes: Collection[str], follow_links: bool = False) -> Iterator[Path]:
    """Media files below the folder. macOS leaves `._name` files and `__MACOSX` folders in zips: hidden names are none.

    Args:
        folder: searched with all its subfolders.
        root: the corpus root, which holds `folder`.
        suffixes: those that count, in small letters.
        follow_links: go where links lead, also out of the root; else such a link is refused.

    Raises:
        ValueError: one line: a link that leaves the root.
        OSError: a folder that cannot be read.
    """
    real_root = root.resolve()
    seen = {os.path.realpath(folder)}
    for parent, folders, files in os.walk(folder, onerror=_unreadable, followlinks=follow_links):
        folders[:] = sorted(name for name in folders if _counts(name))
        for name in folders if not follow_links else ():
            _refuse_escape(Path(parent, name), real_root)
        if follow_links:
            folders[:] = [name for name in folders if _is_new(os.path.realpath(Path(parent, name)), seen)]
        for name in sorted(filter(_counts, files)):
            path = Path(parent, name)
            if path.suffix.lower() in suffixes:
                if not follow_links:
                    _refuse_escape(path, real_root)
                yield path


def refuse_no_folder(folder: Path) -> None:
    """Raises ValueError where there is no such folder."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder" if folder.exists() else f"no folder {folder}")


def _is_new(real: str, seen: set[str]) -> bool:
    """Whether a folder is met for the first time: a link to a folder above it would lead round and round."""
    new = real not in seen
    seen.add(real)
    return new


def _unreadable(error: OSError) -> None:
    raise error  # os.walk would pass over a folder that cannot be read, and the corpus would be short


def _counts(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _refuse_escape(path: Path, real_root: Path) -> None:
    if path.is_symlink() and not path.resolve().is_relative_to(real_root):
        raise ValueError(
            f"{path} is a link out of the corpus root; copy what it points to, give that folder as root, or set "
            "follow_links=true"
        )
