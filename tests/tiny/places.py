"""Where the checkout lies, and real inputs beside it that some tests use where they are there; never part of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("SHARED", ROOT.parent / "shared"))

needs_audio = pytest.mark.skipif(not (SHARED / "ravdess/audio").is_dir(), reason="no RAVDESS audio in $SHARED")
needs_video = pytest.mark.skipif(not (SHARED / "ravdess/video").is_dir(), reason="no RAVDESS video in $SHARED")
needs_whisper = pytest.mark.skipif(
    not (SHARED / "models/whisper-tiny.en-encoder").is_dir(), reason="no Whisper encoder in $SHARED"
)

CASES = SHARED / "cases/models"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="no cases of models in $SHARED")
