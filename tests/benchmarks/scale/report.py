"""Many clips planned, written, resumed, verified and trained on: time, memory and files. Nothing is encoded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from tests.benchmarks.scale.encoders import BLOCKS, WIDTH
from tests.benchmarks.scale.steps import FEATURES, STEPS, Site, measured

CLIPS = 10_000


def run(folder: Path, clips: int = CLIPS) -> Iterator[str]:
    """Every step in turn; lines of the report as they come, for a million take hours."""
    site = Site(folder, clips)
    yield f"{clips} clips, 4 arrays of {BLOCKS + 1} x {WIDTH} in 2 stores, one process and thread:"
    for step in STEPS:
        if "Parquet" in step and find_spec("pyarrow") is None:
            yield f"  {step:26} left out: no pyarrow (requirements-parquet.txt)"
            continue
        took = measured(site, step)
        per_million = took.seconds * 1_000_000 / clips
        yield (
            f"  {step:26} {took.seconds:8.1f} s ({per_million:7.0f} s per million), "
            f"processor {took.processor_seconds:8.1f} s, "
            f"peak {took.peak_mib:5.0f} MiB, counted {took.counted}"
        )
    files, size = files_and_bytes(folder / FEATURES)
    yield f"  {files} files in the stores, {files / clips:.3f} for each clip; {size / 1e9:.2f} GB"


def files_and_bytes(folder: Path) -> tuple[int, int]:
    """How many files there are below a folder, and how large they are together."""
    files, size = 0, 0
    for above, _, names in os.walk(folder):
        files += len(names)
        size += sum(Path(above, name).stat().st_size for name in names)
    return files, size
