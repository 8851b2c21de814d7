"""The decoded clips that a fine-tune reads: which store they are in, and its files, kept open."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cache.conditions import CLEAN
from cache.features.store import open_store
from cache.features.units import unit_size
from cache.files.remedy import features_command
from cache.media import Media, MediaStore, MediaUnit
from extract.encoders.models import Model

# Units of a corpus are about sixteen.
UNITS_OPEN = 32


def find_media(folder: Path, models: Mapping[str, Model], rows: Sequence[int], stored: int) -> MediaStore | None:
    """The media store that holds these rows at the size the video encoder takes; None where only text is used.

    Args:
        folder: of the features.
        models: encoders by modality.
        rows: of the clips that will be read.
        stored: how many clips the store holds.

    Raises:
        ValueError: the decoded clips are not there, and how to have them made again.
    """
    if not models.keys() & {"audio", "video"}:
        return None
    kept = [_media_of(folder, models["video"])] if "video" in models else _every_media(folder)
    units = sorted({row // unit_size(stored) for row in rows})
    missing = f"no decoded clips in {folder / 'media'}"
    for provenance in kept:
        media = MediaStore(folder, provenance)
        lacking = [unit for unit in units if not media.has_unit(unit)]
        if not lacking:
            return media
        missing = f"{media.folder} lacks {len(lacking)} of {len(units)} units of decoded clips"
    raise ValueError(f"{missing}; run: {features_command(folder, (), ['restore_media=true'])}")


def _media_of(folder: Path, model: Model) -> Mapping[str, Any]:
    """The media that the features of a video encoder were made of."""
    store, plain = open_store(folder / f"{CLEAN}.zarr"), {"frames": model.frames, "size": model.size}
    stored = store.provenance(f"video/{model.name}") if model.name in store.encoders("video") else {}
    media: Mapping[str, Any] = stored.get("media", plain)
    return media


def _every_media(folder: Path) -> list[Mapping[str, Any]]:
    """The media that are there, by their settings: any will do where only sound is wanted."""
    records = [next(path.glob("*.sources.json"), None) for path in sorted(folder.glob("media/frames*"))]
    return [json.loads(record.read_text())["provenance"] for record in records if record]


class OpenMedia:
    """Reads clips of a media store, and keeps the files of some units open: opening costs as much as reading a clip.

    Every process opens its own: files that were open when it was forked are closed when it first reads.
    """

    def __init__(self, store: MediaStore, clips: int) -> None:
        """`clips`: how many the store holds."""
        self._store, self._unit_size, self._process = store, unit_size(clips), os.getpid()
        self._open: dict[int, tuple[ExitStack, MediaUnit]] = {}

    def read(self, row: int, *modalities: str) -> Media:
        """As `MediaUnit.read`, by the clip's row in the store."""
        if self._process != os.getpid():
            self.close()
        unit, place = divmod(row, self._unit_size)
        if unit not in self._open:
            self._open_unit(unit)
        return self._open[unit][1].read(place, *modalities)

    def close(self) -> None:
        """Close what is open; reading opens it again."""
        for stack, _ in self._open.values():
            stack.close()
        self._open, self._process = {}, os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        """Without open files: another process opens its own."""
        return {**self.__dict__, "_open": {}}

    def _open_unit(self, unit: int) -> None:
        if len(self._open) == UNITS_OPEN:
            oldest, _ = self._open.pop(next(iter(self._open)))
            oldest.close()
        with ExitStack() as stack:
            opened = stack.enter_context(self._store.open_unit(unit))
            self._open[unit] = stack.pop_all(), opened
