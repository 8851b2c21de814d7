"""A features folder that works with an object store: what is complete here is put there, what is there comes here.

The folder is the working copy, with its locks and renames. A machine that loses its disk loses what it had in work.
Machines with folders of their own may share an address: nobody waits for anybody; each takes what another has put there
before it computes it, and of two who were at the same unit at the same time the second sees that both are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from cache.features.store import open_store
from cache.media import MediaStore, damaged_part
from cache.remote.mirror import give_last_run
from cache.remote.parts import Kept, Part, parts_here
from cache.remote.published import ELSEWHERE, Published, each


class Live:
    """What stage one does beside computing: the launcher before and after it, ranks for the units they work on."""

    def __init__(self, features_dir: Path, address: str) -> None:
        """Nothing is sent yet.

        Raises:
            ValueError: the address is none, or the package that speaks S3 is not installed.
        """
        self._published, self._features_dir = Published(features_dir, address), features_dir
        self._met, self._came = frozenset[Part](), frozenset[Part]()

    def meet(self, arrays: Iterable[tuple[str, str]]) -> str:
        """Take what is there of these arrays, (condition, path) each; returns what came, "" for nothing.

        Raises:
            ValueError: what is there is of other clips, or made otherwise, than what is here.
            OSError: the object store does not answer, or refuses.
        """
        wanted = {(f"{condition}.zarr", path) for condition, path in arrays}
        stores = {store for store, _ in wanted}
        there = [
            part
            for part in self._published.parts()
            if (part.store, part.array) in wanted or (part.store in stores and not part.array)
        ]
        metadata = [part for part in there if part.unit is None]
        # First of all: units that come into a store of other clips would be lost in it.
        for part in metadata:
            if part.is_complete(self._features_dir):
                self._published.has(part)
        each(self._published.take, metadata)
        self._met = frozenset(part for part in there if part.unit is not None)
        self._came = frozenset(part for part in self._met if not part.is_complete(self._features_dir))
        each(self._published.take, self._came)
        return f"{len(self._came)} units of features came from {self._published.address}" if self._came else ""

    def give_all(self) -> None:
        """Put all there that is complete here, and compare what is there with it.

        Raises:
            ValueError: what is there is of other clips or media files, or made otherwise; or something here is damaged.
            OSError: the object store does not answer, or refuses.
        """
        each(self._give, parts_here(self._features_dir))

    def came_from_there(self, condition: str, path: str, unit: int) -> bool:
        """Whether `meet` has taken this unit."""
        return Part(f"{condition}.zarr", path, unit=unit) in self._came

    def refuse_reset(self) -> None:
        """Refuse to compute units again that are there: since `meet` has taken all of them, something has reset them.

        Raises:
            ValueError: there are such units; the first, and the way out.
        """
        for part in self._met:
            if not part.is_complete(self._features_dir):
                self.refuse(str(part))

    def refuse(self, what: str) -> NoReturn:
        """Refuse to go on where something is there that was made of other media files.

        Raises:
            ValueError: always; what, and the way out.
        """
        raise ValueError(
            f"{self._published.address} has {what}, made of other media files than this corpus has here; {ELSEWHERE}"
        )

    def take_unit(self, condition: str, path: str, unit: int) -> bool:
        """Take a unit that is there by now; whether it came."""
        return bool(self._published.take(Part(f"{condition}.zarr", path, unit=unit)))

    def give_unit(self, condition: str, path: str, unit: int) -> None:
        """Put a unit there that is complete here."""
        self._give(Part(f"{condition}.zarr", path, unit=unit))

    def take_media(self, media: MediaStore, unit: int) -> bool:
        """Take decoded clips that are there by now; whether they came."""
        return bool(self._published.take(self._media_part(media, unit)))

    def give_media(self, media: MediaStore, unit: int) -> None:
        """Put a unit's decoded clips there."""
        self._give(self._media_part(media, unit))

    def conclude(self) -> None:
        """Put there what is complete here and not there, and what the run says of itself."""
        there = set(self._published.parts())
        each(self._give, (part for part in parts_here(self._features_dir) if part not in there))
        give_last_run(self._features_dir, self._published.bucket)

    def _give(self, part: Part) -> list[Kept]:
        if self._published.has(part):
            return []
        # What is damaged does not go up.
        if part.media:
            if found := damaged_part(self._features_dir / f"{part}.h5"):
                raise ValueError(f"{self._features_dir / f'{part}.h5'} is damaged ({found}); delete it")
        elif part.unit is not None:
            open_store(self._features_dir / part.store).read_unit(part.array, part.unit)
        return self._published.put(part)

    @staticmethod
    def _media_part(media: MediaStore, unit: int) -> Part:
        return Part(media=f"media/{media.folder.name}", unit=unit)
