"""What must stand beside a run's numbers, in its files and in the last lines that it prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cache.features.table import FeatureTable
from cache.protocols.folds import LEAKS_SPEAKERS
from configs.schema.fusion import FusionConfig
from configs.schema.protocols import load_protocol
from fuse.runs.adaptation import ADAPTED
from fuse.runs.style import shortened

RANDOM_NOTE = "random-weight encoders: plumbing, not a result"


def caveats(config: FusionConfig, table: FeatureTable) -> str:
    """What must stand beside every number of a configuration; "" if nothing."""
    leaks = load_protocol(config.protocol).leaks_speakers
    said = {RANDOM_NOTE: table.random_weights, LEAKS_SPEAKERS: leaks, ADAPTED: config.standardise == "speaker"}
    return "; ".join(text for text, applies in said.items() if applies)


def run_in_words(run: str, head: str, modalities: Iterable[str], condition: object) -> str:
    """What a figure is of: "outputs/fusion: mlp on audio+video, clean"."""
    return f"{shortened(run, 40)}: {head} on {'+'.join(modalities)}, {condition}"


def print_caveats(out: Path, left_out: Sequence[str], note: str) -> None:
    """The last lines of every run: what its numbers rest on, and where they are."""
    if left_out:
        print(f"{len(left_out)} clips left out: they failed in stage one (failures.csv)")
    if note:
        print(f"note: {note}")
    print(f"run folder: {out}")
