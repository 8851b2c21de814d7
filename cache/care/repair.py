"""`python -m cache repair`: set damaged units, and only those, back to pending; print what computes them.

A damaged zarr.json is rebuilt: its contents follow from the clips, the shape and the provenance, which are stored
twice (in the array's own attributes, and beside the checksums).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from cache.care.mend import mend_metadata
from cache.care.verify import OTHER_VERSION, Damage, stores_in, verify
from cache.exchange.imports import TOOL
from cache.features.chunks import forget_kept, remove_unit
from cache.features.seal import sealed
from cache.files.lock import locked
from cache.media import forget_part


def repair(features_dir: Path) -> list[str]:
    """Repair a features folder; returns lines that say what was done and what to run now.

    Raises:
        ValueError: there are no stores, or another job is writing to them.
    """
    stores_in(features_dir)
    with locked(features_dir, 0.0):
        damage = verify(features_dir).damage
        lines = [str(one) for one in damage]
        if mend_metadata(features_dir, damage):
            # What stood behind a damaged zarr.json can be compared only now.
            left = verify(features_dir).damage
            lines += [f"{one.store} {one.array} {one.part}: written again" for one in damage if one not in left]
            lines += [str(one) for one in left if one not in damage]
            damage = left
        _reset(features_dir, damage)
    return [*lines, *_conclusion(features_dir, damage)] if lines else ["nothing to repair"]


def _reset(features_dir: Path, damage: Iterable[Damage]) -> None:
    known = [one for one in damage if one.problem != OTHER_VERSION]
    for store, array, unit in dict.fromkeys((one.store, one.array, one.unit) for one in known):
        folder = features_dir / store / array
        if array and unit is not None:
            remove_unit(folder, unit)
            forget_kept(folder, unit)
        elif unit is not None:
            forget_part(folder / f"unit-{unit:05d}.h5")
        elif "/" in array:  # nothing says how it was made
            shutil.rmtree(folder / "state", ignore_errors=True)
            shutil.rmtree(folder)


def _conclusion(features_dir: Path, damage: Sequence[Damage]) -> Iterator[str]:
    units = {(one.store, one.array, one.unit) for one in damage if one.array and one.unit is not None}
    if units:
        yield f"{len(units)} units are pending again"
    for one in damage:
        if one.unit is None and "/" in one.array and one.problem != OTHER_VERSION:
            yield f"{one.store} {one.array} was deleted: nothing says how it was made"
        elif one.unit is None and not one.array:
            yield f"{one.store}: its clips are not known; the same corpus gives them back, else delete it"
    parts = sum(one.unit is not None and not one.array for one in damage)
    if parts:
        yield f"{parts} media parts are forgotten; their clips are decoded again when they are needed"
    if not damage:
        yield "nothing has to be computed again"
    else:
        yield from _commands(features_dir, dict.fromkeys((one.store, one.array) for one in damage))


def _commands(features_dir: Path, arrays: Iterable[tuple[str, str]]) -> Iterator[str]:
    """The lines that compute these arrays (store, `<modality>/<encoder>`) again."""
    conditions: dict[str, None] = {}
    encoders: dict[str, str] = {}
    for store, array in arrays:
        condition, (modality, _, encoder) = Path(store).stem, array.partition("/")
        tool = sealed(features_dir / store / array / "checksum").get("provenance", {}).get("tool")
        if tool == TOOL:
            yield (
                f"run: python -m cache import FILE --modality {modality} --name {encoder} "
                f"--features-dir {features_dir} --condition {condition}"
            )
            continue
        if store.endswith(".zarr"):
            conditions[condition] = None
        if encoder and _configured(features_dir, modality) != encoder:
            encoders[modality] = f" encoders.{modality}=<{encoder}: its hub name or folder>"
    if conditions:
        config = features_dir / "config.yaml"
        named = str(config) if config.is_file() else "<the configuration they were made with>"
        yield f'run: make features CONFIG={named} SET="conditions=[{",".join(conditions)}]{"".join(encoders.values())}"'


def _configured(features_dir: Path, modality: str) -> str:
    """Name of a modality's encoder in the configuration of the last run; "" where it is not known."""
    try:
        config: dict[str, Any] = yaml.safe_load((features_dir / "config.yaml").read_text())
        return Path(config["encoders"][modality] or "").name
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return ""
