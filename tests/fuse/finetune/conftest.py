"""A corpus that is written once, and a process group of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist

from fuse.finetune.training.stepper import World
from tests.fuse.finetune.site import ALONE, write_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with metadata.csv, encoders/, features/ (stage one) and fusion/ (stage two). Copy what you change."""
    root = tmp_path_factory.mktemp("finetune")
    write_corpus(root)
    return root


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A process group of one."""
    store = tmp_path_factory.mktemp("group") / "store"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield ALONE
    dist.destroy_process_group()
