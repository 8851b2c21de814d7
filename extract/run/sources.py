"""Units that are computed again: media files changed since they were decoded, or clips were not encoded whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from cache.corpus.clips import Clip
from cache.corpus.paths import missing_files
from cache.corpus.stretch import Stretch, part_hash
from cache.features.rows import State, UnitRows
from cache.features.units import UNITS_PER_BLOCK, block_rows, unit_rows, unit_size
from cache.media import Source
from extract.encoders.models import Model, bytes_that_fit
from extract.run.plan import Plan, PlannedArray

# Why a clip failed that was longer than its encoder takes, before there were windows.
TOO_LONG = "s of sound; the window takes up to"


def check_sources(plan: Plan) -> int:
    """Set units whose media files changed back to pending; returns how many.

    Cheap for unchanged files: size, times and inode are compared, and only what differs is hashed.
    With `retry_failed`, units with failed clips are computed again as well; always those of before there were windows.
    """
    reset, cut_short, recorded = 0, _cut_short(plan), Recorded(plan)
    for unit in plan.units:
        retried = plan.config.retry_failed and _has_failures(plan, unit)
        if retried or unit in cut_short or _changed(plan, unit, recorded):
            # States first: a crash in between leaves pending units, never features of a file that is gone.
            for array in plan.arrays:
                plan.stores[array.condition.name].reset_unit(array.spec.path, unit)
            plan.media.forget_unit(unit)
            reset += 1
    return reset


def check_published(plan: Plan) -> None:
    """Refuse to go on with features that came from an object store and are of other media files than are here.

    Raises:
        ValueError: there are such; the first unit, and the way out.
    """
    if plan.live is None:
        return
    # `check_sources` has reset those whose decoded clips are not here.
    plan.live.refuse_reset()
    for unit in plan.units:
        if plan.media.has_unit(unit):
            came = [array for array in plan.arrays if plan.live.came_from_there(*array.place, unit)]
            _refuse_other_files(plan, unit, came)


def take_published(plan: Plan, unit: int) -> None:
    """Take what an object store has by now of a unit that is lacking here, if the run works with one.

    Raises:
        ValueError: it was made of other media files than are here.
        OSError: the object store does not answer, or refuses.
    """
    if plan.live is None or not plan.lacks(unit):
        return
    came = [array for array in plan.pending(unit) if plan.live.take_unit(*array.place, unit)]
    lacks_clips = plan.lacks(unit) and not plan.media.has_unit(unit)
    if lacks_clips and plan.live.take_media(plan.media, unit) and _media_changed(plan, unit, plan.clips(unit)):
        plan.live.refuse(f"decoded clips of unit {unit}")
    _refuse_other_files(plan, unit, came)


def _refuse_other_files(plan: Plan, unit: int, came: Sequence[PlannedArray]) -> None:
    if plan.live is None or not came:
        return
    clips, rows = plan.clips(unit), unit_rows(len(plan.corpus.clips), unit)
    sources = (
        plan.media.sources(unit)
        if plan.media.has_unit(unit)
        else [Source.of(plan.corpus.source(clip), stretch=clip.stretch) for clip in clips]
    )
    for array in came:
        then = plan.stores[array.condition.name].column(array.spec.path, "source", rows)
        if any(now.sha256 and now.sha256 != old for now, old in zip(sources, then, strict=True)):
            plan.live.refuse(f"{array.condition.name} {array.spec.path}, unit {unit}")


def look_for_files(plan: Plan) -> str:
    """One line on the files that this run is to read and that are missing or empty; "" if there is none.

    They are failed clips like any other; but whoever gave a wrong root should not learn it hours later.

    Raises:
        ValueError: every file that is to be read is missing.
    """
    paths = [
        clip.path
        for unit in plan.units
        if (plan.pending(unit) and not plan.media.has_unit(unit)) or plan.lacks_media(unit)
        for clip in plan.clips(unit)
    ]
    line = missing_files(plan.corpus.root, paths)
    if line and not any((plan.corpus.root / path).exists() for path in paths):
        raise ValueError(f"{line}; set corpus_root to the folder that they start from, or mend the column path")
    return line


class Recorded:
    """The hashes of media files that arrays were computed from, for whoever goes through the units in order."""

    def __init__(self, plan: Plan) -> None:
        """Of all arrays of a plan."""
        self._plan = plan
        self._column = lru_cache(len(plan.arrays))(self._read)

    def of(self, array: PlannedArray, unit: int) -> list[str]:
        """Those of a unit's clips."""
        clips = len(self._plan.corpus.clips)
        rows, block = unit_rows(clips, unit), block_rows(clips, unit)
        column = self._column(array.condition.name, array.spec.path, block)
        return column[rows.start - block.start : rows.stop - block.start]

    def _read(self, condition: str, path: str, block: range) -> list[str]:
        return self._plan.stores[condition].column(path, "source", block)


def _changed(plan: Plan, unit: int, recorded: Recorded) -> bool:
    clips = plan.clips(unit)
    if plan.media.has_unit(unit):
        return _media_changed(plan, unit, clips)
    # The decoded media were deleted, or other ones are asked for: the stores themselves say what they hold.
    finished = [
        array for array in plan.arrays if not plan.stores[array.condition.name].unit_is_pending(array.spec.path, unit)
    ]
    then = [recorded.of(array, unit) for array in finished]
    now = [Source.of(plan.corpus.source(clip), stretch=clip.stretch).sha256 for clip in clips] if finished else []
    return any(new and old != new for hashes in then for old, new in zip(hashes, now, strict=True))


def _media_changed(plan: Plan, unit: int, clips: Sequence[Clip]) -> bool:
    if not plan.media.is_current(unit):
        return True
    known = plan.media.sources(unit)
    now = [
        source_now(source, plan.corpus.source(clip), clip.stretch) for source, clip in zip(known, clips, strict=True)
    ]
    if [source.sha256 for source in now] != [source.sha256 for source in known]:
        return True
    if now != known:
        plan.media.refresh_sources(unit, now)
    return False


def source_now(known: Source, path: Path, stretch: Stretch | None) -> Source:
    """The file that a clip was decoded from as it is now; hashed only where it looks otherwise than it was."""
    same_stretch = known.sha256 == part_hash(known.file_sha256, stretch)
    # A file that was decoded and then removed is no change: the media store has what is needed of it.
    if same_stretch and (known.looks_unchanged(path) or (known.sha256 and not path.exists())):
        return known
    return Source.of(path, stretch=stretch)


def _cut_short(plan: Plan) -> set[int]:
    """Units with sound that failed for its length, or a text that was cut, as it was before there were windows."""
    found, clips = set[int](), len(plan.corpus.clips)
    for array in plan.arrays:
        if array.spec.modality in CUT_SHORT:
            for first in plan.units[::UNITS_PER_BLOCK]:
                block = block_rows(clips, first)
                known = _known(plan, array, block)
                rows = CUT_SHORT[array.spec.modality](plan.models[array.spec.modality], known)
                found |= {(block.start + row) // unit_size(clips) for row in rows}
    return found


def _known(plan: Plan, array: PlannedArray, block: range) -> UnitRows:
    """Some units' rows of an array, without features, and with what is kept of units that are not complete."""
    store, path, clips = plan.stores[array.condition.name], array.spec.path, len(plan.corpus.clips)
    rows = UnitRows.empty(len(block), replace(array.spec, layers=0))
    units = range(block.start // unit_size(clips), -(-block.stop // unit_size(clips)))
    rows.state = np.concatenate([store.unit_states(path, unit) for unit in units])
    rows.reason = store.column(path, "reason", block)
    rows.columns = {name: store.column(path, name, block) for name in rows.columns if name == "transcript"}
    for unit in (unit for unit in units if store.unit_is_pending(path, unit)):
        kept, span = store.kept_rows(array.spec, unit), unit_rows(clips, unit)
        kept.hidden_BLD = kept.hidden_BLD[:, :0]
        kept.columns = {name: values for name, values in kept.columns.items() if name in rows.columns}
        for place, row in enumerate(span):
            rows.take(row - block.start, kept, place)
    return rows


def _failed_for_length(_: Model, known: UnitRows) -> list[int]:
    return [row for row in np.flatnonzero(known.state == State.FAILED).tolist() if TOO_LONG in known.reason[row]]


def _without_an_end(model: Model, known: UnitRows) -> list[int]:
    """Rows of texts of more tokens than their encoder can place, of which nothing says that they are of windows."""
    fit, texts = bytes_that_fit(model), known.columns["transcript"]
    done = np.flatnonzero(known.state == State.DONE).tolist()
    unsaid = [row for row in done if not known.reason[row] and len(texts[row].encode()) > fit]
    if not unsaid:
        return []
    # Only then: importing torch takes longer than the rest of a run with nothing to do.
    from extract.encoders.text import TextPreparer

    preparer = TextPreparer(model)
    return [row for row in unsaid if preparer.windows(texts[row])]


CUT_SHORT: dict[str, Callable[[Model, UnitRows], list[int]]] = {
    "audio": _failed_for_length,
    "text": _without_an_end,
}


def _has_failures(plan: Plan, unit: int) -> bool:
    for array in plan.arrays:
        store, path = plan.stores[array.condition.name], array.spec.path
        states = [store.unit_states(path, unit), store.kept_rows(array.spec, unit).state]
        if any((state == State.FAILED).any() for state in states):
            return True
    return False
