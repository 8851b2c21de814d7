"""The corpus that the tests of fine-tuning use."""

from __future__ import annotations

from tests.fuse.finetune.conftest import corpus

__all__ = ["corpus"]
