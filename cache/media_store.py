"""Decoded clips, kept once: HDF5 part files, one per unit, from which everything later is computed.

    <features_dir>/media/frames16-size224/unit-00003.h5             the media of one unit's clips
    <features_dir>/media/frames16-size224/unit-00003.sources.json   which files they came from

Inside a part, group `<row>` holds `waveform` (float32, mono, 16 kHz) and `frames` (uint8, T H W C) as far
as the clip has them, and the attribute `failure` where decoding failed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from cache.atomic import revealed, write_atomic

SAMPLE_RATE_HZ = 16_000


@dataclass(frozen=True)
class Media:
    """One decoded clip. None: the clip has no such stream."""

    waveform_T: npt.NDArray[np.float32] | None
    frames_THWC: npt.NDArray[np.uint8] | None


@dataclass(frozen=True)
class Failure:
    """A clip that could not be decoded, and why."""

    reason: str


@dataclass(frozen=True)
class Source:
    """A media file as it was when it was decoded. `sha256` is "" when it could not be read."""

    sha256: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path, sha256: str | None = None) -> Source:
        """Describe a file, hashing it unless the hash is known."""
        if not path.is_file():  # reading a pipe would never end
            return cls("", 0, 0, 0, 0)
        try:
            stat = path.stat()
            digest = sha256_of(path) if sha256 is None else sha256
        except OSError:
            return cls("", 0, 0, 0, 0)
        return cls(digest, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)

    def looks_unchanged(self, path: Path) -> bool:
        """Whether size, times and inode are as they were: cheap, and enough to trust the hash."""
        return Source.of(path, self.sha256) == self


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class MediaUnit:
    """The decoded clips of one unit, open for reading."""

    def __init__(self, file: h5py.File, sources: list[Source]) -> None:
        """Use `MediaStore.open_unit`."""
        self._file = file
        self.sources = sources

    def failure(self, row: int) -> str:
        """Why the clip could not be decoded; "" when it could."""
        return str(self._file[str(row)].attrs.get("failure", ""))

    def read(self, row: int, *modalities: str) -> Media:
        """The clip's waveform (`audio`) and frames (`video`); only what is asked for is read."""
        waveform_T = self.waveform(row) if "audio" in modalities else None
        return Media(waveform_T, self.frames(row) if "video" in modalities else None)

    def waveform(self, row: int) -> npt.NDArray[np.float32] | None:
        """Mono samples at 16 kHz, or None for a clip without sound."""
        group = self._file[str(row)]
        return group["waveform"][:] if "waveform" in group else None

    def frames(self, row: int) -> npt.NDArray[np.uint8] | None:
        """The kept frames, (T, H, W, C), or None for a clip without picture."""
        group = self._file[str(row)]
        return group["frames"][:] if "frames" in group else None


class MediaStore:
    """All decoded clips of a corpus under one setting of `media.frames` and `media.size`."""

    def __init__(self, features_dir: Path, provenance: Mapping[str, Any]) -> None:
        """`provenance`: what changes the samples or pixels; parts made otherwise are decoded again."""
        self.folder = features_dir / "media" / f"frames{provenance['frames']}-size{provenance['size']}"
        self.provenance = dict(provenance)

    def part(self, unit: int) -> Path:
        """The HDF5 file of a unit."""
        return self.folder / f"unit-{unit:05d}.h5"

    def has_unit(self, unit: int) -> bool:
        """Whether the unit is decoded."""
        return self.part(unit).exists() and self._sidecar(unit).exists()

    def sources(self, unit: int) -> list[Source]:
        """The files a unit was decoded from."""
        rows = json.loads(self._sidecar(unit).read_text())["sources"]
        return [Source(**row) for row in rows]

    def refresh_sources(self, unit: int, sources: list[Source]) -> None:
        """Record new times and inodes of files whose content is the same."""
        record = {"provenance": self.provenance, "sources": [asdict(source) for source in sources]}
        write_atomic(self._sidecar(unit), json.dumps(record, indent=1))

    def is_current(self, unit: int) -> bool:
        """Whether the unit was decoded under the same provenance."""
        return bool(json.loads(self._sidecar(unit).read_text())["provenance"] == self.provenance)

    def forget_unit(self, unit: int) -> None:
        """Delete a unit, so that it is decoded again."""
        self._sidecar(unit).unlink(missing_ok=True)
        self.part(unit).unlink(missing_ok=True)

    def write_unit(self, unit: int, clips: Iterator[tuple[Media | Failure, Source]]) -> None:
        """Write one unit's clips as they come; the part appears when it is complete."""
        sources = []
        with revealed(self.part(unit)) as part, h5py.File(part, "w") as file:
            for row, (media, source) in enumerate(clips):
                _write_clip(file.create_group(str(row)), media)
                sources.append(source)
        self.refresh_sources(unit, sources)

    @contextmanager
    def open_unit(self, unit: int) -> Iterator[MediaUnit]:
        """Read a unit's clips.

        Raises:
            ValueError: the part is not there or not readable; names it.
        """
        try:
            file = h5py.File(self.part(unit), "r")
        except OSError as error:
            raise ValueError(
                f"{self.part(unit)} is not readable ({error}); delete it and run make features again"
            ) from error
        with file:
            yield MediaUnit(file, self.sources(unit))

    def _sidecar(self, unit: int) -> Path:
        return self.part(unit).with_suffix(".sources.json")


def _write_clip(group: h5py.Group, media: Media | Failure) -> None:
    if isinstance(media, Failure):
        group.attrs["failure"] = media.reason
        return
    if media.waveform_T is not None:
        group["waveform"] = media.waveform_T
    if media.frames_THWC is not None:
        group["frames"] = media.frames_THWC
