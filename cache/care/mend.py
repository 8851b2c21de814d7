"""Damaged zarr.json files and clip ids, rebuilt from other places that hold the same information.

A store's metadata follow from its clip ids and, for each array, layers, width and provenance. An empty copy of the
store is made from these in a temporary folder, and each file that differs is copied from it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cache.care.verify import Damage, arrays_in, stores_in
from cache.features.rows import ArraySpec
from cache.features.seal import METADATA, SHARDED, broken_files, sealed
from cache.features.store import FeatureStore
from cache.files.atomic import write_atomic
from cache.files.hashes import fingerprint


def mend_metadata(features_dir: Path, damage: Iterable[Damage]) -> bool:
    """Mend what can be mended of the stores with such damage; returns whether there was any."""
    broken = [one for one in damage if one.part.endswith(METADATA) or one.part == "clip_id"]
    for store in dict.fromkeys(one.store for one in broken):
        path = features_dir / store
        clip_ids = _clip_ids(features_dir, path)
        # A modality's own zarr.json comes with any of its arrays.
        concerned = {one.array for one in broken if one.store == store}
        arrays = [array for array in arrays_in(path) if {array, array.partition("/")[0]} & concerned]
        if clip_ids:
            with tempfile.TemporaryDirectory() as folder:
                _copy_what_differs(_twin(path, arrays, Path(folder, store), clip_ids), path)
    return bool(broken)


def provenance_of(folder: Path) -> dict[str, Any]:
    """How an array was made, from either place that keeps it; empty where neither can be read."""
    return dict(sealed(folder / "checksum").get("provenance") or _attributes(folder))


def _twin(path: Path, arrays: Sequence[str], twin: Path, clip_ids: Sequence[str]) -> Path:
    store = FeatureStore.create(twin, clip_ids)
    for array in arrays:
        spec = _spec(path / array, len(clip_ids))
        if spec is not None:
            store.require(spec, _is_sharded(path / array))
    return twin


def _copy_what_differs(twin: Path, path: Path) -> None:
    # The store's own zarr.json last: it says that the clip ids are complete.
    for file in sorted(twin.rglob("*"), key=lambda file: (file.parent == twin, file)):
        target = path / file.relative_to(twin)
        if file.is_file() and not (target.is_file() and target.read_bytes() == file.read_bytes()):
            write_atomic(target, file.read_bytes())


def _clip_ids(features_dir: Path, path: Path) -> Sequence[str]:
    """The clip ids of a store: its own, or those of another store with the same fingerprint; empty: neither."""
    corpus = _attributes(path).get("corpus_sha256") if sealed(path) else None
    candidates = [_readable_ids(store) for store in [path, *stores_in(features_dir)]]
    if corpus is None:  # its own, which their codec has checked
        return candidates[0]
    return next((ids for ids in candidates if fingerprint(ids) == corpus), ())


def _readable_ids(path: Path) -> Sequence[str]:
    if not (path / "clip_id/c/0").is_file():
        return ()
    try:
        ids = np.asarray(zarr.open_array(path / "clip_id", mode="r", zarr_format=3)[:])
    # zarr raises whatever its codecs and its reader of zarr.json do.
    except Exception:
        return ()
    return [str(clip_id) for clip_id in ids]


def _spec(folder: Path, clips: int) -> ArraySpec | None:
    """What the array was made as; None where neither place says it."""
    seal = sealed(folder / "checksum")
    if not seal and (folder / "checksum" / METADATA).exists() and broken_files(folder / "checksum") is None:
        return None  # another version made it
    try:
        shape = _json(folder / "hidden").get("shape", []) if not seal else [clips, seal["layers"], seal["width"]]
        provenance = provenance_of(folder)
        rows, layers, width = map(int, shape)
    except (ValueError, TypeError):
        return None
    if rows != clips or not provenance:
        return None
    return ArraySpec(folder.parent.name, folder.name, layers, width, provenance)


def _is_sharded(folder: Path) -> bool:
    """Whether the array keeps its units as shards, which a new one of its size may do otherwise."""
    if seal := sealed(folder / "checksum"):
        return SHARDED in seal
    codecs = _json(folder / "hidden").get("codecs") or [{}]
    return bool(codecs[0].get("name") == "sharding_indexed")


def _attributes(folder: Path) -> dict[str, Any]:
    attributes = _json(folder).get("attributes")
    return attributes if isinstance(attributes, dict) else {}


def _json(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / METADATA).read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
