"""The corpus, and the process group of one, that the tests of fine-tuning use."""

from __future__ import annotations

from tests.fuse.finetune.conftest import alone, corpus

__all__ = ["alone", "corpus"]
