"""Checksums of a store's zarr.json files: zarr guards none of them, and a flipped bit there can rename an encoder.

One zarr.json, the holder, keeps the CRC-32 of the others among its attributes, and its own: of its text as it reads
with 0 in place of that number.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zarr

METADATA = "zarr.json"
SEAL = "seal"
# Among what is kept beside the checksums of an array, where its units are shards.
SHARDED = "sharded"
_OWN = re.compile(rb'("own_crc32": )(\d+)')


def seal(holder: zarr.Group | zarr.Array[Any], folder: Path, files: Sequence[str], **copies: Any) -> None:
    """Write the checksums of `files` (paths from `folder`) into the holder; of a crash in between nothing is left.

    Args:
        holder: node of zarr whose attributes keep them, with other attributes it has.
        folder: the holder's own folder.
        files: the zarr.json files to guard.
        copies: what should be kept twice, beside the checksums.
    """
    checksums = {name: zlib.crc32((folder / name).read_bytes()) for name in files}
    content: dict[str, Any] = {**copies, "crc32": checksums, "own_crc32": 0}
    holder.attrs.update({SEAL: content})
    content["own_crc32"] = zlib.crc32((folder / METADATA).read_bytes())
    holder.attrs.update({SEAL: content})


def broken_files(folder: Path) -> list[str] | None:
    """The zarr.json files, as paths from the holder's `folder`, that are not what was sealed; None: not sealed.

    Where the holder itself is broken it alone is listed: nothing is known of the others.
    """
    holder = folder / METADATA
    if not holder.is_file():
        return None
    text = holder.read_bytes()
    content = _parsed(text)
    if content is None:
        return [METADATA]
    own, named = _OWN.search(text), SEAL in content["attributes"]
    if (own is None and not named) or (own is not None and own[2] == b"0"):
        return None
    if own is None or not named or zlib.crc32(_OWN.sub(rb"\g<1>0", text)) != int(own[2]):
        return [METADATA]
    return [name for name, crc in content["attributes"][SEAL]["crc32"].items() if _crc(folder / name) != crc]


def sealed(folder: Path) -> Mapping[str, Any]:
    """What the holder in `folder` keeps beside checksums; empty where it is broken or not sealed."""
    broken = broken_files(folder)
    if broken is None or METADATA in broken:
        return {}
    content: dict[str, Any] = json.loads((folder / METADATA).read_bytes())["attributes"][SEAL]
    return content


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) and isinstance(content.get("attributes"), dict) else None


def _crc(path: Path) -> int | None:
    return zlib.crc32(path.read_bytes()) if path.is_file() else None
