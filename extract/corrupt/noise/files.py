"""Noise out of a folder of sound files: MUSAN (D. Snyder et al., arXiv 1510.08484) and whatever is laid out like it."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from cache.files.hashes import fingerprint, sha256_of
from extract.corrupt.noise.excerpt import RecordingError, excerpt
from extract.corrupt.sound.level import Waveform
from extract.media.decode import decode
from extract.media.length import refuse_incomplete
from extract.media.tracks import declares_sound

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aif", ".aiff")
# Decoded files that are kept: the same few are rarely drawn twice in a row, and an hour of music takes 230 MB.
KEPT_FILES = 4


class NoiseFiles:
    """Stretches of sound files; every file is equally likely, whatever its length."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        """`names`: the files' paths inside `folder`."""
        self.folder, self.names = folder, tuple(names)
        self._recording = functools.lru_cache(KEPT_FILES)(self._decode)

    @classmethod
    def of_folder(cls, folder: str | None) -> NoiseFiles:
        """All sound files of a folder and the folders in it.

        Raises:
            ValueError: no folder, or nothing in it.
        """
        if folder is None:
            raise ValueError("noise-file needs sound files to draw from: set noise.folder to a folder of them")
        root = Path(folder).expanduser()
        if not root.is_dir():
            raise ValueError(f"noise.folder {folder} is not a folder")
        try:
            found = list(_files(root))
        except OSError as error:
            raise ValueError(f"noise.folder {folder} cannot be read: {error}") from error
        names = sorted(path.relative_to(root).as_posix() for path in found if path.suffix.lower() in SUFFIXES)
        if not names:
            raise ValueError(f"noise.folder {folder} holds no sound files ({', '.join(SUFFIXES)}) in it or below")
        return cls(root, names)

    def draw(self, length: int, rng: np.random.Generator, clip_id: str) -> Waveform:  # noqa: ARG002
        """A stretch (length,) from a random place of a random file, whichever clip it is for.

        Raises:
            RecordingError: the file cannot be decoded; its name.
        """
        return excerpt(self._recording(self.names[int(rng.integers(len(self.names)))]), length, rng)

    def provenance(self) -> dict[str, Any]:
        """How many files, and a hash over their names and contents.

        Raises:
            RecordingError: a file's header is no sound file's; its name. Else it would be found when it is drawn.
            ValueError: the folder cannot be read.
        """
        try:
            hashes = [value for name in self.names for value in (name, self._sha256(name))]
        except OSError as error:
            raise ValueError(f"noise.folder {self.folder} cannot be read: {error}") from error
        return {"files": len(self.names), "files_sha256": fingerprint(hashes)}

    def _sha256(self, name: str) -> str:
        with _named(name):
            refuse_incomplete(self.folder / name)
            has_sound = declares_sound(self.folder / name)
        if not has_sound:
            raise RecordingError(f"noise.folder: {name} has no sound; take it out")
        return sha256_of(self.folder / name)

    def _decode(self, name: str) -> Waveform:
        with _named(name):
            waveform_T = decode(self.folder / name, frames=0, size=1).waveform_T
        if waveform_T is None or not waveform_T.size:
            raise RecordingError(f"noise.folder: {name} has no sound; take it out")
        return waveform_T


def _files(root: Path) -> Iterator[Path]:
    """Files of a folder and those in it. macOS leaves `._name` files and `__MACOSX` folders that hold no sound."""
    for parent, folders, names in os.walk(root, onerror=_raise):
        folders[:] = [name for name in folders if _counts(name)]
        yield from (Path(parent, name) for name in names if _counts(name))


def _counts(name: str) -> bool:
    return not name.startswith("._") and name != "__MACOSX"


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Whatever a decoder raises on a damaged file becomes an error that names the file."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise RecordingError(f"noise.folder: {name} cannot be decoded ({reason}); take it out") from error


def _raise(error: OSError) -> NoReturn:
    raise error
