"""`python -m cache gc`: what no store and no run needs any more, with its size; deleted only on request."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache.care.growth import GROWN, OUTGROWN, is_growing
from cache.care.mend import provenance_of
from cache.care.verify import arrays_in, media_parts_in, stores_in
from cache.features.chunks import KEPT_PATTERN, chunk_files, needless_kept
from cache.features.rows import State
from cache.features.seal import sealed
from cache.features.units import unit_count
from cache.files.lock import locked
from cache.media import MediaStore, needless_parts, sidecar_of


@dataclass(frozen=True)
class Garbage:
    """A file or folder that can go, and why."""

    path: Path
    why: str

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return size_of(self.path)


def collect(features_dir: Path, delete: bool) -> list[str]:
    """List what can go, and delete it if asked to; returns lines to print.

    Raises:
        ValueError: there are no stores, or a job is writing to them.
    """
    stores_in(features_dir)
    with locked(features_dir, 0.0):
        found = list(garbage_in(features_dir))
        lines = [f"{readable(one.size):>10}  {one.path.relative_to(features_dir)}  ({one.why})" for one in found]
        total = readable(sum(one.size for one in found))
        if delete:
            for one in found:
                shutil.rmtree(one.path) if one.path.is_dir() else one.path.unlink()
    if not found:
        return ["nothing to delete"]
    return [*lines, f"{total} {'deleted' if delete else 'could be deleted: add --yes'}"]


def garbage_in(features_dir: Path) -> Iterator[Garbage]:
    """Everything that can go; nothing is named twice."""
    unused = [features_dir / "media" / name for name in sorted(_unused_media(features_dir))]
    never = [array for store in stores_in(features_dir) for array in _never_used(store)]
    yield from (Garbage(path, "no store was made with these settings") for path in unused)
    yield from (Garbage(path, "never written to") for path in never)
    for path in _leftovers(features_dir):
        if not any(path.is_relative_to(folder) for folder in [*unused, *never]):
            yield Garbage(path, "left by a killed writer")
    for store in stores_in(features_dir):
        for array in arrays_in(store):
            if store / array not in never:
                yield from (Garbage(path, "of a pending unit") for path in _pending_chunks(store / array))


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def readable(size: int) -> str:
    """A size for people: 12.3 MB."""
    value, units = float(size), ["B", "kB", "MB", "GB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def _leftovers(features_dir: Path) -> Iterator[Path]:
    # Where new stores are taking the places of old ones, the next run of stage one goes on.
    for name in () if is_growing(features_dir) else (GROWN, OUTGROWN):
        yield from features_dir.glob(name)
    for pattern in ("*.zarr/**/*.partial", ".*.part*", "media/*/.*.part*", "*.zarr/**/.*.part*"):
        yield from sorted(features_dir.glob(pattern))
    for store in stores_in(features_dir):
        yield from needless_kept(store)
    yield from needless_parts(features_dir)
    for part in media_parts_in(features_dir):
        sidecar = sidecar_of(part)
        if part.exists() != sidecar.exists():
            yield part if part.exists() else sidecar


def _unused_media(features_dir: Path) -> set[str]:
    """Media folders that no array was computed from: video arrays name theirs, audio arrays can use any."""
    there = {path.name for path in features_dir.glob("media/*") if path.is_dir()}
    provenances = [provenance_of(store / array) for store in stores_in(features_dir) for array in arrays_in(store)]
    if not all(provenances):  # damaged: it may need any of them
        return set()
    settings = [provenance["media"] for provenance in provenances if "media" in provenance]
    needed = there & {MediaStore(features_dir, media).folder.name for media in settings}
    sound = {name for name in there if name.startswith("frames0-")}
    return there - (needed or sound or there)


def _never_used(store: Path) -> list[Path]:
    """Arrays without a single finished unit or kept row: stage one makes them again when they are asked for."""
    begun = ("state/c/*", KEPT_PATTERN)
    return [store / array for array in arrays_in(store) if not any(any((store / array).glob(one)) for one in begun)]


def _pending_chunks(folder: Path) -> Iterator[Path]:
    clips = sealed(folder / "checksum").get("clips", 0)
    names = [child.name for child in folder.iterdir() if child.is_dir() and child.name != "state"]
    for unit in range(unit_count(clips) if clips else 0):
        state = chunk_files(folder, "state", unit)
        if not state or (np.fromfile(state[0], np.uint8) == State.PENDING).all():
            yield from (file for name in names for file in chunk_files(folder, name, unit))
