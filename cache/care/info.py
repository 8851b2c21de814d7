"""`python -m cache info`: what a features folder holds, as plain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cache.care.garbage import readable, size_of
from cache.care.verify import media_parts_in, stores_in
from cache.exchange.imports import TOOL
from cache.features.rows import State
from cache.features.store import FeatureStore, open_store

HEADER = ("condition", "array", "layers x width", "clips", "compute", "size", "made by")
RANDOM = "RANDOM WEIGHTS"


def info(features_dir: Path) -> list[str]:
    """Lines to print: a table of the arrays, then totals.

    Raises:
        ValueError: there are no stores, or one cannot be read.
    """
    stores = [open_store(path) for path in stores_in(features_dir)]
    rows = [row for store in stores for row in _rows(store)]
    sizes = [size_of(store.path) for store in stores]
    parts = media_parts_in(features_dir)
    counts = sorted({len(store.clip_ids) for store in stores})
    return [
        *_aligned([HEADER, *rows]),
        "",
        f"{len(stores)} stores, {len(rows)} arrays, {' or '.join(map(str, counts))} clips: {readable(sum(sizes))}",
        f"decoded media: {len(parts)} parts, {readable(size_of(features_dir / 'media'))}",
    ]


def _rows(store: FeatureStore) -> Iterator[tuple[str, ...]]:
    for path in store.arrays():
        store.refuse_broken_metadata(path)
        provenance, shape, layers = store.provenance(path), store.shape(path), store.layers(path)
        kept = "" if list(layers) == list(range(len(layers))) else f" (layers {', '.join(map(str, layers))})"
        yield (
            store.path.stem,
            path,
            f"{shape[1]} x {shape[2]}{kept}",
            _states(store, path),
            str(provenance.get("dtype", "")),
            readable(size_of(store.path / path)),
            ", ".join(_made_by(provenance)),
        )


def _states(store: FeatureStore, path: str) -> str:
    states = store.states(path)
    return ", ".join(f"{int(np.sum(states == s))} {s.name.lower()}" for s in State if np.any(states == s))


def _made_by(provenance: Mapping[str, Any]) -> Iterator[str]:
    """Provenance in short; all of it stands in the array's attributes."""
    if provenance.get("random_weights"):
        yield RANDOM
    if provenance.get("tool") == TOOL:
        yield f"imported, file {provenance['sha256'][:8]}"
    if "model_type" in provenance:
        yield f"{provenance['model_type']}, weights {provenance.get('weights_sha256', '')[:8]}"
    if "pooling" in provenance:
        yield f"pooling {provenance['pooling']}"
    if "asr" in provenance:
        yield f"text by {provenance['asr'].get('model') or 'statement'}"
    libraries = provenance.get("libraries", {})
    yield from (f"{name} {libraries[name]}" for name in ("torch", "transformers") if name in libraries)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER) - 1)]
    return ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]) for row in rows]
