"""Encoders that are never run: a plan asks for their names, layers and hashes."""

from __future__ import annotations

from pathlib import Path

from configs.schema.demo import RandomEncodersConfig
from extract.corpora.synthetic.encoders import write_random_encoders

# As many layers as base models have; a row of each is narrow, so that a million fit on a disk.
BLOCKS, WIDTH = 12, 16


def write_stub_encoders(folder: Path) -> None:
    """One for sound, one for pictures and one for text."""
    write_random_encoders(RandomEncodersConfig(out=str(folder), width=WIDTH, blocks=BLOCKS, size=32, patch=16))
