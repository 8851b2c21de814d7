"""Decoded clips, kept once: HDF5 part files, one per unit, from which everything later is computed.

    <features_dir>/media/frames16-size224/unit-00003.h5             the media of one unit's clips
    <features_dir>/media/frames16-size224/unit-00003.sources.json   which files they came from, and checksums
    <features_dir>/media/frames16-size224/kept-00003.h5             those that are known of a unit that is not complete
    <features_dir>/media/frames16-size224/kept-00003-001.h5         those that were decoded since, a minute's worth each
    <features_dir>/media/frames16-size224-face/...                  the same, cut around the face

Inside a part, group `<row>` holds `waveform` (float32, mono, 16 kHz) and `frames` (uint8, T H W C) as far
as the clip has them, and the attributes `failure` where decoding failed, `face` (found, not found)
where one was looked for, and `overruled` where decord gave other frames than the strict reader.
"""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from cache.corpus.stretch import Stretch, part_hash
from cache.files.atomic import revealed, write_atomic
from cache.files.hashes import sha256_of
from cache.files.remedy import features_command

SAMPLE_RATE_HZ = 16_000
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Media:
    """One decoded clip. None: the clip has no such stream, or no face was looked for.

    `overruled`: decord was asked and gave other frames; these are the strict reader's.
    """

    waveform_T: npt.NDArray[np.float32] | None
    frames_THWC: npt.NDArray[np.uint8] | None
    face_found: bool | None = None
    overruled: bool = False


@dataclass(frozen=True)
class Failure:
    """A clip that could not be decoded, and why."""

    reason: str


@dataclass(frozen=True)
class Source:
    """A media file as it was when it was decoded. `sha256` is "" when it could not be read.

    Of a stretch of a file, `sha256` is the file's and the stretch behind it.
    """

    sha256: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path, sha256: str | None = None, stretch: Stretch | None = None) -> Source:
        """Describe a file, or a stretch of it, hashing it unless the hash is known."""
        if not path.is_file():  # reading a pipe would never end
            return cls("", 0, 0, 0, 0)
        try:
            stat = path.stat()
            digest = part_hash(sha256_of(path), stretch) if sha256 is None else sha256
        except OSError:
            return cls("", 0, 0, 0, 0)
        return cls(digest, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)

    @property
    def file_sha256(self) -> str:
        """Of the whole file."""
        return self.sha256.partition("@")[0]

    def looks_unchanged(self, path: Path) -> bool:
        """Whether size, times and inode are as they were: cheap, and enough to trust the hash."""
        return Source.of(path, self.sha256) == self


class MediaUnit:
    """The decoded clips of one unit, open for reading."""

    def __init__(self, file: h5py.File, sources: list[Source]) -> None:
        """Use `MediaStore.open_unit`."""
        self._file = file
        self.sources = sources

    def failure(self, row: int) -> str:
        """Why the clip could not be decoded; "" when it could."""
        return str(self._file[str(row)].attrs.get("failure", ""))

    def face_found(self, row: int) -> bool | None:
        """Whether the frames are cut around a face; None where none was looked for."""
        face = self._file[str(row)].attrs.get("face")
        return None if face is None else bool(face == "found")

    def overruled(self, row: int) -> bool:
        """Whether decord gave other frames than the strict reader, whose frames these are."""
        return bool(self._file[str(row)].attrs.get("overruled", False))

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

    def clip(self, row: int) -> Media | Failure:
        """All that is known of a clip, as it was written."""
        reason = self.failure(row)
        if reason:
            return Failure(reason)
        return Media(self.waveform(row), self.frames(row), self.face_found(row), self.overruled(row))


class MediaStore:
    """All decoded clips of a corpus under one setting of `media.frames` and `media.size`."""

    def __init__(self, features_dir: Path, provenance: Mapping[str, Any]) -> None:
        """`provenance`: what changes the samples or pixels; parts made otherwise are decoded again."""
        short, resample = provenance.get("short_side"), provenance.get("resample")
        name = f"frames{provenance['frames']}-size{provenance['size']}"
        name += f"-short{short}" if short else ""
        name += f"-{resample}" if resample and resample != "bilinear" else ""
        name += f"-{provenance['reader']}" if "reader" in provenance else ""
        self.folder = features_dir / "media" / (name + ("-face" if provenance.get("face_crop") else ""))
        self.provenance = dict(provenance)

    def part(self, unit: int) -> Path:
        """The HDF5 file of a unit."""
        return self.folder / f"unit-{unit:05d}.h5"

    def has_unit(self, unit: int) -> bool:
        """Whether the unit is decoded: cheap, by its size; `damaged_part` reads all of it."""
        part, record = self.part(unit), _record(self._sidecar(unit))
        return record is not None and part.is_file() and part.stat().st_size == record["part"]["size"]

    def sources(self, unit: int) -> list[Source]:
        """The files a unit was decoded from."""
        return [Source(**row) for row in self._known(unit)["sources"]]

    def refresh_sources(self, unit: int, sources: list[Source]) -> None:
        """Record new times and inodes of files whose content is the same."""
        self._write_sidecar(self.part(unit), self._known(unit)["part"], sources)

    def is_current(self, unit: int) -> bool:
        """Whether the unit was decoded under the same provenance."""
        return bool(self._known(unit)["provenance"] == self.provenance)

    def forget_unit(self, unit: int) -> None:
        """Delete a unit, so that it is decoded again."""
        forget_part(self.part(unit))
        self._forget_kept(unit)

    def write_unit(
        self, unit: int, clips: Iterator[tuple[Media | Failure, Source]], seconds_between_keeping: float = math.inf
    ) -> None:
        """Write one unit's clips as they come; the part appears when it is complete.

        Those that have come are kept so often, and when something ends the work early (never where nothing is said).
        """
        # What is kept of it may be what is written.
        forget_part(self.part(unit))
        pieces = _Pieces(self, unit, seconds_between_keeping)
        with self._writing(self.part(unit)) as (file, sources):
            try:
                for row, (media, source) in enumerate(clips):
                    _write_clip(file.create_group(str(row)), media)
                    sources[row] = source
                    pieces.written(file, sources)
            except Exception:
                # What ended it is the news, and may be that the disk is full.
                with suppress(OSError):
                    pieces.ended(file, sources)
                raise
        self._forget_kept(unit)

    def kept_part(self, unit: int, number: int = 0) -> Path:
        """Where clips of a unit that is not complete are kept."""
        return self.folder / f"kept-{unit:05d}{f'-{number:03d}' if number else ''}.h5"

    def kept_parts(self, unit: int) -> list[Path]:
        """All that is kept of a unit, in the order it was written."""
        return sorted(self.folder.glob(f"kept-{unit:05d}*.h5"), key=lambda part: part.stem)

    def keep_clips(self, unit: int, clips: Iterator[tuple[int, tuple[Media | Failure, Source]]]) -> None:
        """Keep some clips, by their rows, of a unit that is not complete, and nothing else of it."""
        self._forget_kept(unit)
        with self._writing(self.kept_part(unit), is_whole=False) as (file, sources):
            for row, (media, source) in clips:
                _write_clip(file.create_group(str(row)), media)
                sources[row] = source

    @contextmanager
    def open_kept(self, unit: int) -> Iterator[Mapping[int, tuple[MediaUnit, Source]]]:
        """What is kept of a unit that is not complete: by row, where it is and the file that it came from.

        What is of another make, or damaged, is deleted.
        """
        kept: dict[int, tuple[MediaUnit, Source]] = {}
        with ExitStack() as stack:
            for part in self.kept_parts(unit):
                known = self._kept_sources(part)
                if not known or damaged_part(part):
                    forget_part(part)
                    continue
                media = MediaUnit(stack.enter_context(h5py.File(part, "r")), list(known.values()))
                kept.update({row: (media, source) for row, source in known.items()})
            yield kept

    def copy_to_piece(self, unit: int, file: h5py.File, sources: Mapping[int, Source]) -> None:
        """Keep these rows of a file that is being written, as far as they are not kept, in a piece of their own."""
        parts = self.kept_parts(unit)
        known = {row: source for part in parts for row, source in self._kept_sources(part).items()}
        new = {row: source for row, source in sources.items() if known.get(row) != source}
        if not new:
            return
        number = max((int(part.stem.partition("-")[2].partition("-")[2] or 0) for part in parts), default=0) + 1
        with self._writing(self.kept_part(unit, number), is_whole=False) as (piece, written):
            for row, source in new.items():
                file.copy(str(row), piece)
                written[row] = source

    def _kept_sources(self, part: Path) -> dict[int, Source]:
        """By row, the files that what is kept came from; nothing where it is of another make or not complete."""
        record = _record(sidecar_of(part))
        if record is None or record["provenance"] != self.provenance:
            return {}
        return {row: Source(**source) for row, source in zip(record["rows"], record["sources"], strict=True)}

    def _forget_kept(self, unit: int) -> None:
        for part in self.kept_parts(unit):
            forget_part(part)

    @contextmanager
    def _writing(self, path: Path, is_whole: bool = True) -> Iterator[tuple[h5py.File, dict[int, Source]]]:
        """A part to write rows into, and where to say of each what file it came from."""
        sources: dict[int, Source] = {}
        with revealed(path) as part:
            with h5py.File(part, "w") as file:
                yield file, sources
            written = {"sha256": sha256_of(part), "size": part.stat().st_size}
        self._write_sidecar(path, written, list(sources.values()), {} if is_whole else {"rows": list(sources)})

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
                f"{self.part(unit)} is not readable ({error}); delete it and run: {self._command()}"
            ) from error
        with file:
            yield MediaUnit(file, self.sources(unit))

    def _known(self, unit: int) -> dict[str, Any]:
        record = _record(self._sidecar(unit))
        if record is None:
            raise ValueError(f"{self._sidecar(unit)} is damaged; delete it and run: {self._command()}")
        return record

    def _command(self) -> str:
        """What decodes clips of this store."""
        return features_command(self.folder.parents[1], (), ["restore_media=true"])

    def _write_sidecar(
        self, path: Path, part: Mapping[str, Any], sources: list[Source], partial: Mapping[str, Any] = NOTHING
    ) -> None:
        record = {"provenance": self.provenance, "part": dict(part), "sources": [asdict(source) for source in sources]}
        record |= partial
        write_atomic(sidecar_of(path), json.dumps({**record, "crc32": _crc(record)}, indent=1))

    def _sidecar(self, unit: int) -> Path:
        return sidecar_of(self.part(unit))


class _Pieces:
    """Keeps what is written of a unit while it goes on.

    HDF5 whose writer was killed may not open again. So what is new is copied to small files that are closed at once.
    """

    def __init__(self, store: MediaStore, unit: int, seconds: float) -> None:
        self._store, self._unit, self._seconds = store, unit, seconds
        self._last = time.monotonic()

    def written(self, file: h5py.File, sources: Mapping[int, Source]) -> None:
        """These rows of the file are complete."""
        if time.monotonic() - self._last >= self._seconds:
            self._store.copy_to_piece(self._unit, file, sources)
            self._last = time.monotonic()

    def ended(self, file: h5py.File, sources: Mapping[int, Source]) -> None:
        """Nothing more will be written."""
        if self._seconds < math.inf:
            self._store.copy_to_piece(self._unit, file, sources)


def sidecar_of(part: Path) -> Path:
    """The file beside a part that says where its clips came from."""
    return part.with_suffix(".sources.json")


def recorded_provenance(folder: Path) -> dict[str, Any] | None:
    """How the clips in a folder of a media store were decoded, from the first part that says so; None: none does."""
    records = (_record(sidecar) for sidecar in sorted(folder.glob("*.sources.json")))
    return next((dict(record["provenance"]) for record in records if record is not None), None)


def recorded_part(sidecar: Path) -> dict[str, Any] | None:
    """`sha256` and `size` of the part beside which this file is; None where it is missing or damaged."""
    record = _record(sidecar)
    return None if record is None else dict(record["part"])


def forget_part(part: Path) -> None:
    """Delete a part; what says that it is complete goes first."""
    sidecar_of(part).unlink(missing_ok=True)
    part.unlink(missing_ok=True)


def needless_parts(features_dir: Path) -> Iterator[Path]:
    """What is kept of units that are complete, or half written: their writers were killed."""
    for part in sorted(features_dir.glob("media/*/kept-*.h5")):
        whole = part.with_name(f"unit-{part.stem.split('-')[1]}.h5")
        if sidecar_of(whole).exists() or not sidecar_of(part).exists():
            yield part


def damaged_part(part: Path) -> str:
    """What is wrong with a part or the file beside it, "" for nothing. Reads all of it."""
    record = _record(sidecar_of(part))
    if record is None:
        return f"{sidecar_of(part).name} is {'damaged' if sidecar_of(part).is_file() else 'missing'}"
    if not part.is_file():
        return "it is missing"
    if part.stat().st_size != record["part"]["size"]:
        return f"it has {part.stat().st_size} bytes, {record['part']['size']} were written"
    return "" if sha256_of(part) == record["part"]["sha256"] else "its SHA-256 is not that of what was written"


def _record(sidecar: Path) -> dict[str, Any] | None:
    """What is known of a part; None where that is missing or damaged."""
    try:
        record: dict[str, Any] = json.loads(sidecar.read_bytes())
        crc = record.pop("crc32")
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return record if crc == _crc(record) else None


def _crc(record: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(record).encode())


def _write_clip(group: h5py.Group, media: Media | Failure) -> None:
    if isinstance(media, Failure):
        group.attrs["failure"] = media.reason
        return
    if media.waveform_T is not None:
        group["waveform"] = media.waveform_T
    if media.frames_THWC is not None:
        group["frames"] = media.frames_THWC
    if media.face_found is not None:
        group.attrs["face"] = "found" if media.face_found else "not found"
    if media.overruled:
        group.attrs["overruled"] = True
