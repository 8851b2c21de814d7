"""Which conditions have features, and which of those that are asked for lack them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from cache.conditions import CLEAN, MODALITIES, UNCHANGED, JointCondition, parse_joint
from cache.features.rows import State
from cache.features.store import FeatureStore, open_store
from cache.features.table import reaches


def touches(
    features_dir: Path, condition: JointCondition, modalities: Iterable[str], encoders: Mapping[str, str]
) -> list[str]:
    """The modalities, of these, that a condition changes for the clips whose features are here."""
    clean = open_store(features_dir / f"{CLEAN}.zarr")
    changed = {name for part in condition.parts if part.modality for name in part.changes}
    stores = [path for part in condition.parts if (path := features_dir / f"{part.name}.zarr").exists()]
    imported = {name for path in stores if path.stem != CLEAN for name in _modalities(path)}
    return [
        name
        for name in modalities
        if (name in changed and reaches(clean, name, encoders.get(name))) or (name in imported - set(MODALITIES))
    ]


def lacking(
    features_dir: Path, condition: JointCondition, modalities: Iterable[str], encoders: Mapping[str, str]
) -> list[str]:
    """The parts of a condition, by name, that have no complete features of a modality that they change."""
    names = [name for name in modalities if name in MODALITIES]
    return [
        part.name
        for part in condition.parts
        if part.modality
        and any(
            not _is_complete(features_dir / f"{part.name}.zarr", name, encoders.get(name))
            for name in touches(features_dir, JointCondition((part,)), names, encoders)
        )
    ]


def cached_conditions(
    features_dir: Path, modalities: Iterable[str], encoders: Mapping[str, str]
) -> tuple[tuple[JointCondition, ...], tuple[str, ...]]:
    """The conditions that change some of these modalities and are complete here; and names of those begun only."""
    found, begun = [], []
    names = tuple(modalities)
    for path in sorted(features_dir.glob("*.zarr")):
        condition = _condition(path.stem)
        if condition is None or not touches(features_dir, condition, names, encoders):
            continue
        if lacking(features_dir, condition, names, encoders):
            begun.append(condition.name)
        else:
            found.append(condition)
    return tuple(found), tuple(begun)


def _modalities(path: Path) -> set[str]:
    return {array.partition("/")[0] for array in open_store(path).arrays()}


def _condition(name: str) -> JointCondition | None:
    """A store's condition; None: of clean clips, or a folder that is called otherwise."""
    try:
        condition = parse_joint(name)
    except ValueError:
        return None
    return None if condition == UNCHANGED else condition


def _is_complete(path: Path, modality: str, encoder: str | None) -> bool:
    if not path.exists():
        return False
    store = open_store(path)
    known = [name for name in store.encoders(modality) if encoder in (None, name)]
    return bool(known) and all(_is_done(store, f"{modality}/{name}") for name in known)


def _is_done(store: FeatureStore, path: str) -> bool:
    return bool((store.states(path) != State.PENDING).all())
