"""Rows of a unit that is not complete: kept beside the array, so that what is known of it is not computed again.

`<modality>/<encoder>/.unit-00003.kept` holds the rows that have been decided on: the SHA-256 of an npz, then the npz.
It is bound to the array's provenance and to the unit's clips, and goes when the unit is complete.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.features.rows import ArraySpec, UnitRows
from cache.files.atomic import write_atomic

PATTERN = ".unit-*.kept"
DIGEST_BYTES = 32


def kept_file(folder: Path, unit: int) -> Path:
    """Where the array in `folder` keeps the rows of a unit that is not complete."""
    return folder / f".unit-{unit:05d}.kept"


def keep_rows(
    folder: Path, unit: int, spec: ArraySpec, clip_ids: Sequence[str], rows: UnitRows, which: npt.NDArray[np.bool_]
) -> None:
    """Keep those rows of a unit that `which` (clips,) marks; they replace what was kept of it.

    Args:
        folder: of the array.
        unit: number of the unit.
        spec: how the rows are made.
        clip_ids: of the whole unit.
        rows: of the whole unit.
        which: the rows to keep; each has been decided on.
    """
    places = np.flatnonzero(which)
    columns = {"source": rows.source, "reason": rows.reason, **rows.columns}
    texts = {name: [_plain(values[place]) for place in places] for name, values in columns.items()}
    content = io.BytesIO()
    np.savez(
        content,
        made=np.array(_made(spec, clip_ids)),
        columns=np.array(json.dumps(texts)),
        places=places,
        state=rows.state[places],
        hidden=rows.hidden_BLD[places],
    )
    payload = content.getvalue()
    write_atomic(kept_file(folder, unit), hashlib.sha256(payload).digest() + payload)


def kept_rows(folder: Path, unit: int, spec: ArraySpec, clip_ids: Sequence[str]) -> UnitRows:
    """The rows that are kept of a unit, the others pending; all are where nothing fits or the file is damaged."""
    rows, kept = UnitRows.empty(len(clip_ids), spec), _read(kept_file(folder, unit))
    if kept is None or str(kept["made"]) != _made(spec, clip_ids):
        return rows
    places = kept["places"]
    rows.state[places], rows.hidden_BLD[places] = kept["state"], kept["hidden"]
    own = {"source": rows.source, "reason": rows.reason, **rows.columns}
    for name, values in json.loads(str(kept["columns"])).items():
        for place, value in zip(places, values, strict=True):
            own[name][place] = value
    return rows


def count_kept(folder: Path, unit: int) -> int:
    """How many rows are kept of a unit; whether they fit is not asked."""
    kept = _read(kept_file(folder, unit))
    return 0 if kept is None else len(kept["places"])


def forget_kept(folder: Path, unit: int) -> None:
    """Delete what is kept of a unit."""
    kept_file(folder, unit).unlink(missing_ok=True)


def needless_files(folder: Path) -> Iterator[Path]:
    """What is kept of units that are complete: their writer was killed before it could delete it."""
    for file in sorted(folder.rglob(PATTERN)):
        number = int(file.name.removeprefix(".unit-").removesuffix(".kept"))
        # A pending unit has no states: zarr leaves out what is all zero.
        if (file.parent / f"state/c/{number}").exists():
            yield file


def _made(spec: ArraySpec, clip_ids: Sequence[str]) -> str:
    made = {"path": spec.path, "layers": spec.layers, "width": spec.width, "provenance": dict(spec.provenance)}
    return json.dumps({**made, "clips": list(clip_ids)}, sort_keys=True)


def _read(file: Path) -> Mapping[str, Any] | None:
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    digest, payload = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        return None
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
        return dict(arrays)


def _plain(value: Any) -> str | float:
    return value if isinstance(value, str) else float(value)
