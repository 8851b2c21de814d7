"""What went wrong: failures.csv, the summary printed at the end, and the exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, fields

import numpy as np

from cache.features.rows import State
from cache.features.units import unit_rows
from cache.files.atomic import write_atomic
from cache.files.csv import csv_text
from cache.media import MediaUnit
from extract.run.plan import Plan

SHOWN = 5


@dataclass(frozen=True)
class FailedClip:
    """A row of failures.csv."""

    clip_id: str
    condition: str
    modality: str
    reason: str


def failed_clips(plan: Plan) -> list[FailedClip]:
    """Every failed row of every store, in the order of the stores."""
    return list(_failed(plan))


def write_failures(plan: Plan, failed: list[FailedClip]) -> None:
    """Write `<features_dir>/failures.csv`; a header alone when nothing failed."""
    header = [field.name for field in fields(FailedClip)]
    write_atomic(plan.features_dir / "failures.csv", csv_text(header, map(astuple, failed)))


def pending_rows(plan: Plan) -> int:
    """Rows that still wait, over all stores."""
    return sum(
        int((plan.stores[array.condition.name].states(array.spec.path) == State.PENDING).sum()) for array in plan.arrays
    )


def summary(plan: Plan, failed: list[FailedClip]) -> str:
    """A line per array, then the first failures."""
    lines = [f"{plan.features_dir}: {len(plan.corpus.clips)} clips"]
    for array in plan.arrays:
        states = plan.stores[array.condition.name].states(array.spec.path)
        counts = ", ".join(f"{int(np.sum(states == s))} {s.name.lower()}" for s in State if np.any(states == s))
        random = "  (random weights: for plumbing, not for results)" if array.spec.provenance["random_weights"] else ""
        lines.append(f"  {array.condition.name:24} {array.spec.path:36} {counts}{random}")
    if plan.config.media.face_crop:
        lines.append(f"  no face was found in {faces_not_found(plan)} clips: their centre was cut out")
    if plan.config.media.reader == "decord":
        lines.append(f"  decord gave other frames of {overruled(plan)} clips: theirs are the strict reader's")
    clips = list(dict.fromkeys(row.clip_id for row in failed))
    if clips:
        lines.append(f"{len(clips)} clips failed, listed in {plan.features_dir / 'failures.csv'}; the first:")
        reasons = {row.clip_id: row for row in reversed(failed)}
        lines += [
            f"  {reasons[clip].clip_id} ({reasons[clip].modality}): {reasons[clip].reason}" for clip in clips[:SHOWN]
        ]
    return "\n".join(lines)


def faces_not_found(plan: Plan) -> int:
    """Clips whose face was looked for in vain: their centre was cut out."""
    return _clips_where(plan, lambda media, row: media.face_found(row) is False) if plan.config.media.face_crop else 0


def overruled(plan: Plan) -> int:
    """Clips of which decord gave other frames than the strict reader."""
    return _clips_where(plan, lambda media, row: media.overruled(row))


def _clips_where(plan: Plan, holds: Callable[[MediaUnit, int], bool]) -> int:
    found = 0
    for unit in plan.units:
        if plan.media.has_unit(unit):
            rows = len(unit_rows(len(plan.corpus.clips), unit))
            with plan.media.open_unit(unit) as media:
                found += sum(holds(media, row) for row in range(rows))
    return found


def _failed(plan: Plan) -> Iterator[FailedClip]:
    for array in plan.arrays:
        store, path = plan.stores[array.condition.name], array.spec.path
        failed = np.flatnonzero(store.states(path) == State.FAILED)
        # Most arrays have none, and a million reasons take seconds to read.
        reasons = store.reasons(path) if failed.size else []
        for row in failed:
            yield FailedClip(plan.corpus.clips[row].clip_id, array.condition.name, array.spec.modality, reasons[row])
