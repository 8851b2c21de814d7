"""A clip's path as it stands in a manifest, and the file that it means.

Manifests travel between systems: Windows writes backslashes, macOS may write an umlaut as two characters (Unicode's
NFD) where Linux has one (NFC). A path that names a file as it stands is that file. Else slashes and, folder by folder,
the other spellings of the same characters are tried. What no spelling finds stays as it stands, and is missed later.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath


def meant_path(root: Path, written: str, follow_links: bool = False) -> str:
    """The path below `root` that `written` means, as the file system spells it; `written` where nothing fits.

    Args:
        root: the corpus root.
        written: the path as the manifest has it.
        follow_links: links may lead out of the root.

    Raises:
        ValueError: it is absolute, leaves the root, or leads out of it by a link; without a place or a file's name.
    """
    for spelling in dict.fromkeys((written, written.replace("\\", "/"))):
        if os.path.lexists(root / _inside(root, spelling, follow_links)):
            return spelling
    if PureWindowsPath(written).is_absolute():
        raise ValueError(_outside(written))
    return _inside(root, _respelt(root, written.replace("\\", "/")), follow_links)


def _inside(root: Path, path: str, follow_links: bool) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise ValueError(_outside(path))
    # A link that leaves the root would let a manifest read any file of the machine.
    real_root = os.path.realpath(root)
    if not follow_links and os.path.commonpath([real_root, os.path.realpath(root / path)]) != real_root:
        raise ValueError(
            f"path {path!r} leads out of the corpus root {root}; copy the file into it, or set follow_links=true"
        )
    return path


def _outside(path: str) -> str:
    return f"path {path!r} must be relative to the corpus root and stay inside it"


def _respelt(root: Path, path: str) -> str:
    """The same names in the characters that the folders use; `path` where one of its names is not there."""
    if path.isascii():
        return path
    found: list[str] = []
    for name in PurePosixPath(path).parts:
        folder = root.joinpath(*found)
        if not os.path.lexists(folder / name):
            name = _same_characters(folder, name)
        if not name:
            return path
        found.append(name)
    return "/".join(found)


def _same_characters(folder: Path, name: str) -> str:
    if not folder.is_dir():
        return ""
    wanted = unicodedata.normalize("NFC", name)
    names = sorted(entry.name for entry in folder.iterdir())
    return next((entry for entry in names if unicodedata.normalize("NFC", entry) == wanted), "")


def missing_files(root: Path, paths: Sequence[str]) -> str:
    """One line on files that are not there or empty; "" where there is nothing to say."""
    sizes = [_size(root / path) for path in paths]
    said = []
    for what, state in (("missing", None), ("empty", 0)):
        some = [path for path, size in zip(paths, sizes, strict=True) if size == state]
        if some:
            said.append(f"{len(some)} of {len(paths)} files are {what}, first: {some[0]}")
    return f"{'; '.join(said)}; paths start from {root}" if said else ""


def _size(file: Path) -> int | None:
    """Bytes; None where there is no file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None
