"""A corpus that grows keeps what it has: rows and decoded clips are dealt anew into stores of all its clips.

Units follow from the number of clips, so more clips mean other units. The new stores are what they would be if the
whole corpus had been computed at once, with pending units where clips are new, and what is known of those beside them
(`cache.features.chunks`). They are made in a folder of their own, `.grown`. Once all of them are there, which a file in
it says, they take the places of the old ones: a crash before that leaves the old stores as they were, and after it
the next run goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

from cache.corpus.clips import Corpus
from cache.features.creation import open_group, refuse_other_clips, refuse_other_make
from cache.features.layout import DEVIATION_FILE
from cache.features.rows import ArraySpec, UnitRows
from cache.features.store import FeatureStore, open_store
from cache.features.units import unit_count, unit_rows, unit_size
from cache.files.atomic import fsync_path, write_atomic
from cache.files.hashes import fingerprint
from cache.media import Failure, Media, MediaStore, MediaUnit, Source, damaged_part, recorded_provenance

GROWN, OUTGROWN = ".grown", ".outgrown"
COMPLETE = "complete"
# Sorted otherwise, a unit's clips come from many old ones: about as many as a corpus of usual size has.
UNITS_REMEMBERED = 16
# Its voices are those of the corpus: with more clips, other ones speak.
DRAWN_FROM_THE_CORPUS = "noise-babble"


def grow(features_dir: Path, corpus: Corpus, wanted: Mapping[str, Sequence[ArraySpec]]) -> str:
    """Make the stores hold all clips of a corpus, in its order; returns what was done, "" for nothing.

    Args:
        features_dir: folder of the stores; the caller holds its lock.
        corpus: all clips.
        wanted: by condition, the arrays that will be asked for.

    Raises:
        ValueError: a store has clips that the corpus no longer lists, was made differently, or is damaged. Nothing
            was changed.
        OSError: the disk is full.
    """
    finish_growing(features_dir)
    clip_ids = [clip.clip_id for clip in corpus.clips]
    outgrown = [open_store(path) for path in sorted(features_dir.glob("*.zarr")) if _is_of_others(path, clip_ids)]
    if not outgrown:
        return ""
    for store in outgrown:
        refuse_other_clips(store.path, store.clip_ids, clip_ids)
    plans = [_Regrown(store, corpus, wanted.get(store.path.stem, ())) for store in outgrown]
    for plan in plans:
        plan.arrays  # noqa: B018  (whatever is refused is refused before anything is written)
    grown = features_dir / GROWN
    try:
        for plan in plans:
            plan.write(grown / plan.store.path.name)
        _grow_media(features_dir, grown, outgrown[0].clip_ids, clip_ids)
    except OSError:
        shutil.rmtree(grown, ignore_errors=True)
        raise
    write_atomic(grown / COMPLETE, "")
    finish_growing(features_dir)
    return f"{len(outgrown[0].clip_ids)} of {len(clip_ids)} clips were there: what is known of them is kept"


def finish_growing(features_dir: Path) -> None:
    """Let complete new stores take their places, and remove what is left of incomplete ones."""
    grown, outgrown = features_dir / GROWN, features_dir / OUTGROWN
    if (grown / COMPLETE).exists():
        outgrown.mkdir(exist_ok=True)
        for new in sorted(path for path in grown.iterdir() if path.is_dir()):
            old = features_dir / new.name
            if old.exists():
                shutil.rmtree(outgrown / new.name, ignore_errors=True)
                old.rename(outgrown / new.name)
            new.rename(old)
        fsync_path(features_dir)
        (grown / COMPLETE).unlink()
    for folder in (grown, outgrown):
        if folder.exists():
            shutil.rmtree(folder)


def is_growing(features_dir: Path) -> bool:
    """Whether a run was killed while new stores took the places of old ones: the next run goes on."""
    return (features_dir / GROWN / COMPLETE).exists()


def _is_of_others(path: Path, clip_ids: Sequence[str]) -> bool:
    """Whether a store was made for other clips. One that a crash left without any is none of anybody."""
    return open_group(path, "r").attrs.get("corpus_sha256", fingerprint(clip_ids)) != fingerprint(clip_ids)


@dataclass(frozen=True)
class _Regrown:
    """A store of fewer clips, and what is to be made of it."""

    store: FeatureStore
    corpus: Corpus
    wanted: Sequence[ArraySpec]

    @cached_property
    def arrays(self) -> dict[str, ArraySpec]:
        """By path, the arrays to take over, as they are to be described.

        Raises:
            ValueError: one is wanted that was made differently.
        """
        wanted = {spec.path: spec for spec in self.wanted}
        found = {}
        for path in self.store.arrays():
            spec = self._described_anew(self.store.spec(path))
            new = wanted.get(path, spec)
            if _is_drawn_anew(spec, new):
                continue
            refuse_other_make(self.store.path, new, spec.provenance)
            found[path] = spec
        return found

    def _described_anew(self, spec: ArraySpec) -> ArraySpec:
        """With the fingerprint of all statements, where those of the clips that are there are what they were."""
        asr = spec.provenance.get("asr", {})
        statement = {clip.clip_id: clip.statement for clip in self.corpus.clips}
        then = fingerprint([statement[clip_id] for clip_id in self.store.clip_ids])
        if asr.get("statements_sha256") != then:
            return spec
        now = {**asr, "statements_sha256": fingerprint(list(statement.values()))}
        return replace(spec, provenance={**spec.provenance, "asr": now})

    def write(self, path: Path) -> None:
        """Make the store anew at `path`, with all that is known."""
        new = FeatureStore.create(path, [clip.clip_id for clip in self.corpus.clips])
        places = _places(self.store.clip_ids)
        for array, spec in self.arrays.items():
            new.require(spec)
            read = lru_cache(UNITS_REMEMBERED)(lambda unit, array=array: self.store.read_unit(array, unit))
            # Measured on the corpus's first clips, which may be other ones now.
            is_measured = (self.store.path / array / DEVIATION_FILE).exists()
            for unit in range(unit_count(len(new.clip_ids))):
                rows = _gathered(new.unit_clips(unit), spec, places, read)
                if rows.decided.all() and not (is_measured and unit == 0):
                    new.write_unit(spec, unit, rows)
                elif rows.decided.any():
                    new.keep_rows(spec, unit, rows, rows.decided)


def _is_drawn_anew(stored: ArraySpec, wanted: ArraySpec) -> bool:
    """Whether the noise of an array comes from the corpus, and nothing else has changed."""
    if stored.provenance.get("condition", {}).get("kind") != DRAWN_FROM_THE_CORPUS:
        return False
    without = [{key: value for key, value in spec.provenance.items() if key != "noise"} for spec in (stored, wanted)]
    return stored != wanted and without[0] == without[1]


def _places(clip_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """By clip id, the unit of a store of these clips, and the row in it."""
    size = unit_size(len(clip_ids))
    return {clip_id: divmod(row, size) for row, clip_id in enumerate(clip_ids)}


def _gathered(
    clip_ids: Sequence[str],
    spec: ArraySpec,
    places: Mapping[str, tuple[int, int]],
    read: Callable[[int], UnitRows],
) -> UnitRows:
    """The rows of these clips as far as they are known, the others pending."""
    rows = UnitRows.empty(len(clip_ids), spec)
    for row, clip_id in enumerate(clip_ids):
        if clip_id in places:
            unit, place = places[clip_id]
            rows.take(row, read(unit), place)
    return rows


def _grow_media(features_dir: Path, grown: Path, old: Sequence[str], new: Sequence[str]) -> None:
    """Deal the decoded clips anew: parts of units that are complete, and what is known of the others."""
    if not (features_dir / "media").is_dir():
        return
    (grown / "media").mkdir(parents=True, exist_ok=True)
    for folder in sorted((features_dir / "media").iterdir()):
        provenance = recorded_provenance(folder)
        if provenance is None:
            continue
        with _OldMedia(MediaStore(features_dir, provenance), old) as known:
            store = MediaStore(grown, provenance)
            for unit in range(unit_count(len(new))):
                span = unit_rows(len(new), unit)
                _write_media(store, unit, new[span.start : span.stop], known)


def _write_media(store: MediaStore, unit: int, clip_ids: Sequence[str], known: _OldMedia) -> None:
    there = [row for row, clip_id in enumerate(clip_ids) if known.has(clip_id)]
    clips = (known.clip(clip_ids[row]) for row in there)
    if len(there) == len(clip_ids):
        store.write_unit(unit, clips)
    elif there:
        store.keep_clips(unit, zip(there, clips, strict=True))


class _OldMedia:
    """The decoded clips of a corpus that has grown, by clip id. A part that is damaged has none."""

    def __init__(self, store: MediaStore, clip_ids: Sequence[str]) -> None:
        self._store, self._places = store, _places(clip_ids)
        units = sorted({unit for unit, _ in self._places.values()})
        self._whole = {unit for unit in units if not damaged_part(store.part(unit)) and store.is_current(unit)}
        # A corpus of thousands of units would run out of open files.
        self._open: dict[int, tuple[ExitStack, MediaUnit]] = {}

    def __enter__(self) -> _OldMedia:
        return self

    def __exit__(self, *_: object) -> None:
        for stack, _unit in self._open.values():
            stack.close()

    def has(self, clip_id: str) -> bool:
        return clip_id in self._places and self._places[clip_id][0] in self._whole

    def clip(self, clip_id: str) -> tuple[Media | Failure, Source]:
        unit, row = self._places[clip_id]
        media = self._unit(unit)
        return media.clip(row), media.sources[row]

    def _unit(self, unit: int) -> MediaUnit:
        if unit not in self._open:
            if len(self._open) == UNITS_REMEMBERED:
                stack, _ = self._open.pop(next(iter(self._open)))
                stack.close()
            stack = ExitStack()
            self._open[unit] = stack, stack.enter_context(self._store.open_unit(unit))
        return self._open[unit][1]
