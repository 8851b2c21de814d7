"""A clip's path as it stands in a manifest, and the file that it means.

Manifests travel between systems: Windows writes backslashes, macOS may write an umlaut as two characters (Unicode's
NFD) where Linux has one (NFC). A path that names a file as it stands is that file. Else slashes and, folder by folder,
the other spellings of the same characters are tried. What no spelling finds stays as it stands, and is missed later.
"""

from __future__ import annotations

import os
import posixpath
import stat
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath

FOLDERS_REMEMBERED = 1024


def meant_path(root: Path, written: str, follow_links: bool = False) -> str:
    """The path below `root` that `written` means; see `MeantPaths`, which is for many of them.

    Raises:
        ValueError: as there.
    """
    return MeantPaths(root, follow_links).find(written)


class MeantPaths:
    """Finds many paths below one root. What it learns of folders it keeps, so it is for one reading of a manifest."""

    def __init__(self, root: Path, follow_links: bool = False) -> None:
        """`root`: the corpus root; `follow_links`: links may lead out of it."""
        self._root, self._below, self._follow_links = root, f"{root}/", follow_links
        self._real_root = os.path.realpath(root)
        # A million clips lie in a few folders, or in folders that follow one another.
        self._leaves = lru_cache(FOLDERS_REMEMBERED)(self._leads_out)

    def find(self, written: str) -> str:
        """The path that `written` means, as the file system spells it; `written` where nothing fits.

        Raises:
            ValueError: it is absolute, leaves the root, or leads out of it by a link; without a place or a file's name.
        """
        for spelling in dict.fromkeys((written, written.replace("\\", "/"))):
            if self._is_there(spelling):
                return spelling
        if PureWindowsPath(written).is_absolute():
            raise ValueError(_outside(written))
        path = _respelt(self._root, written.replace("\\", "/"))
        self._is_there(path)
        return path

    def _is_there(self, path: str) -> bool:
        """Whether there is such a file, or a link of that name; refuses one that is not inside the root."""
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(_outside(path))
        try:
            mode = os.lstat(self._below + path).st_mode
        except (OSError, ValueError):
            mode = None
        if self._follow_links:
            return mode is not None
        # A link that leaves the root would let a manifest read any file of the machine.
        is_link = mode is not None and stat.S_ISLNK(mode)
        if self._leads_out(path) if is_link else self._leaves(posixpath.dirname(path)):
            raise ValueError(
                f"path {path!r} leads out of the corpus root {self._root}; copy the file into it, "
                "or set follow_links=true"
            )
        return mode is not None

    def _leads_out(self, path: str) -> bool:
        return os.path.commonpath([self._real_root, os.path.realpath(self._below + path)]) != self._real_root


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
