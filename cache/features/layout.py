"""The arrays of a store, and how zarr keeps them.

Layout of `<features_dir>/<condition>.zarr` (shapes in clips, layers, width; chunks are one unit high):

    clip_id                         str     (clips,)                rows of every array, in this order
    <modality>/<encoder>/hidden     float32 (clips, layers, width)  NaN where not written
    <modality>/<encoder>/state      uint8   (clips,)                see `State`
    <modality>/<encoder>/source     str     (clips,)                sha256 of the media file
    <modality>/<encoder>/reason     str     (clips,)                why a clip failed or is absent
    <modality>/<encoder>/checksum   uint32  (units, layers + parts + 1)  CRC-32 of layers, of `parts_of`, of these
    text/<encoder>/transcript, words (JSON) str; confidence, wer, no_speech float32: (clips,)

Where these would be too many files, the chunks of `hidden` of one unit are a shard: see `wants_shards`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from cache.features.rows import TRANSCRIPT_COLUMNS, ArraySpec, parts_of
from cache.features.units import unit_count, unit_size

# Beside an array of approximate features: how far they are from exact ones, on the first clips of the corpus.
DEVIATION_FILE = "deviation.json"
# Columns notice damage themselves, on every reading. `hidden`, `state` and `checksum` are plain bytes.
GUARDED = (ZstdCodec(level=0), Crc32cCodec())
# Of more chunks, those of a unit share a file, a shard: file systems list, copy and remove a million files in hours.
MOST_CHUNKS = 10_000


def wants_shards(rows: int, layers: int) -> bool:
    """Whether the layers of a unit of an array that is made now are to share a file."""
    return layers > 1 and unit_count(rows) * layers > MOST_CHUNKS


def layout_of(rows: int, spec: ArraySpec, is_sharded: bool) -> dict[str, dict[str, Any]]:
    """The arrays of one encoder, and how zarr keeps them."""
    size, checksums = unit_size(rows), spec.layers + len(parts_of(spec.modality)) + 1
    column: dict[str, Any] = {"shape": (rows,), "chunks": (size,), "compressors": GUARDED}
    layout = {name: {**column, "dtype": str} for name in ("source", "reason")}
    if spec.modality == "text":
        for name, kind in TRANSCRIPT_COLUMNS.items():
            layout[name] = {**column, "dtype": kind, **({} if kind is str else {"fill_value": math.nan})}
    layout["state"] = {**column, "dtype": np.uint8, "compressors": None}
    layout["checksum"] = {
        "shape": (unit_count(rows), checksums),
        "chunks": (1, checksums),
        "dtype": np.uint32,
        "compressors": None,
    }
    # Hidden states are noise to a compressor: 7 % smaller, several times slower to read.
    layout["hidden"] = {
        "shape": (rows, spec.layers, spec.width),
        "chunks": (size, 1, spec.width),
        "dtype": np.float32,
        "fill_value": math.nan,
        "compressors": None,
        **({"shards": (size, spec.layers, spec.width)} if is_sharded else {}),
    }
    return layout


def write_clip_ids(group: zarr.Group, clip_ids: Sequence[str]) -> None:
    """The root's column of clip ids, in place of one that is damaged."""
    layout: dict[str, Any] = {"shape": (len(clip_ids),), "chunks": (max(1, len(clip_ids)),), "compressors": GUARDED}
    array = group.create_array("clip_id", dtype=str, overwrite=True, **layout)
    array[:] = np.array(clip_ids, dtype=object)


def read_clip_ids(group: zarr.Group) -> tuple[str, ...]:
    """The clip ids; empty where they are damaged: they then lack their fingerprint."""
    try:
        return tuple(str(name) for name in array_of(group, "clip_id")[:])
    except (ValueError, TypeError, KeyError):
        return ()


def array_of(group: zarr.Group, path: str) -> Any:
    """One of its arrays. zarr types a selection as any scalar or array; here it is always an array."""
    return group[path]
