"""What a features folder consists of, as an object store gets it: parts, each there as a whole or not at all.

    clean.zarr                              a store's own metadata and clip ids
    clean.zarr/audio/<encoder>              an array's metadata
    clean.zarr/audio/<encoder>/unit-00003   one unit of it, once it is complete
    media/frames16-size224/unit-00003       one unit's decoded clips, and where they came from

A part's files come here in such an order that one that is cut off is not complete: what seals it is written last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from cache.features.chunks import chunk_files
from cache.features.layout import DEVIATION_FILE
from cache.features.seal import METADATA, broken_files
from cache.files.hashes import sha256_of
from cache.media import recorded_part, sidecar_of

NAME = re.compile(
    r"(?P<store>[^/]+\.zarr)(/(?P<array>[^/]+/[^/]+)(/unit-(?P<unit>\d{5,}))?)?"
    r"|(?P<media>media/[^/]+)/unit-(?P<media_unit>\d{5,})"
)


@dataclass(frozen=True)
class Kept:
    """A file's content."""

    sha256: str
    size: int

    @classmethod
    def of(cls, file: Path) -> Kept:
        """That of a file here."""
        return cls(sha256_of(file), file.stat().st_size)


# By path inside the features folder.
Listing = Mapping[str, Kept]


@dataclass(frozen=True)
class Part:
    """One of them, by its name.

    Attributes:
        store: name of the store's folder; "" of media.
        array: `<modality>/<encoder>`; "" of media, and of a store.
        media: `media/<settings>`; "" of features.
        unit: its number; None of metadata.
    """

    store: str = ""
    array: str = ""
    media: str = ""
    unit: int | None = None

    @classmethod
    def named(cls, name: str) -> Part:
        """The part of this name, which may have been written elsewhere.

        Raises:
            ValueError: it is none.
        """
        found = NAME.fullmatch(name)
        if found is None or any(piece.startswith(".") or "\\" in piece for piece in name.split("/")):
            raise ValueError(f"{name!r} is no part of a features folder")
        unit = found["unit"] or found["media_unit"]
        return cls(found["store"] or "", found["array"] or "", found["media"] or "", int(unit) if unit else None)

    def __str__(self) -> str:
        """The name."""
        unit = "" if self.unit is None else f"unit-{self.unit:05d}"
        return "/".join(piece for piece in (self.store, self.array, self.media, unit) if piece)

    @property
    def rank(self) -> int:
        """Parts of lower rank are there first: units are of arrays, and those of stores."""
        return bool(self.array) + (self.unit is not None)

    @cached_property
    def seal(self) -> str:
        """The file, by its path in the features folder, that makes it complete."""
        if self.media:
            return f"{self.media}/unit-{self.unit:05d}.sources.json"
        if self.unit is not None:
            return f"{self.store}/{self.array}/state/c/{self.unit}"
        return f"{self.store}/{self.array}/checksum/{METADATA}" if self.array else f"{self.store}/{METADATA}"

    def may_hold(self, path: str) -> bool:
        """Whether a file may belong to it; the path may have been written elsewhere."""
        pieces = path.split("/")
        inside = "/".join(pieces[:2]) if self.media else pieces[0]
        is_plain = not any(piece.startswith(".") or not piece or "\\" in piece for piece in pieces)
        return is_plain and inside == (self.media or self.store)

    def is_complete(self, features_dir: Path) -> bool:
        """Whether all of it is here."""
        seal = features_dir / self.seal
        if self.media:
            part, known = features_dir / f"{self.media}/unit-{self.unit:05d}.h5", recorded_part(seal)
            return known is not None and part.is_file() and part.stat().st_size == known["size"]
        # A store or an array that is whole is sealed, and nothing of it lacks or is changed.
        return seal.is_file() if self.unit is not None else broken_files(seal.parent) == []

    def files(self, features_dir: Path) -> tuple[str, ...]:
        """Its files, by their paths in the features folder, the seal last."""
        found = sorted(file.relative_to(features_dir).as_posix() for file in self._files(features_dir))
        return (*(path for path in found if path != self.seal), self.seal)

    def _files(self, features_dir: Path) -> Iterator[Path]:
        folder = features_dir / self.store / self.array
        if self.media:
            part = features_dir / f"{self.media}/unit-{self.unit:05d}.h5"
            yield from (part, sidecar_of(part))
        elif self.unit is not None:
            for child in (child for child in folder.iterdir() if child.is_dir()):
                yield from chunk_files(folder, child.name, self.unit)
            # Measured on the clips of the first unit.
            if self.unit == 0 and (folder / DEVIATION_FILE).is_file():
                yield folder / DEVIATION_FILE
        elif self.array:
            yield from (folder.parent / METADATA, folder / METADATA, *folder.glob(f"*/{METADATA}"))
        else:
            yield from (folder / METADATA, folder / "clip_id" / METADATA, *chunk_files(folder, "clip_id", 0))

    def identity(self, features_dir: Path) -> Listing:
        """What tells it from another of this name, and takes no time to read: of all its data there are checksums."""
        if self.media:
            known = recorded_part(features_dir / self.seal) or {"sha256": "", "size": -1}
            return {f"{self.media}/unit-{self.unit:05d}.h5": Kept(known["sha256"], known["size"])}
        if self.unit is not None:
            paths: tuple[str, ...] = (f"{self.store}/{self.array}/checksum/c/{self.unit}/0",)
        else:
            paths = self.files(features_dir)
        return {path: Kept.of(features_dir / path) for path in paths}


def parts_here(features_dir: Path) -> Iterator[Part]:
    """All that are complete here, metadata before units."""
    yield from sorted(_parts(features_dir), key=lambda part: (part.rank, str(part)))


def _parts(features_dir: Path) -> Iterator[Part]:
    for folder in features_dir.glob("*.zarr"):
        store = Part(folder.name)
        # Without metadata a unit is of nothing.
        if store.is_complete(features_dir):
            yield store
            for file in folder.glob(f"*/*/checksum/{METADATA}"):
                array = Part(folder.name, file.parents[1].relative_to(folder).as_posix())
                if array.is_complete(features_dir):
                    yield from (array, *_units(features_dir, array))
    for file in features_dir.glob("media/*/unit-*.h5"):
        part = Part(media=f"media/{file.parent.name}", unit=int(file.stem.removeprefix("unit-")))
        if part.is_complete(features_dir):
            yield part


def _units(features_dir: Path, array: Part) -> Iterator[Part]:
    for file in (features_dir / array.store / array.array / "state/c").glob("*"):
        if file.name.isdecimal():
            yield replace(array, unit=int(file.name))
