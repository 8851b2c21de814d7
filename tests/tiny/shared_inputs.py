"""Real inputs that some tests use where they are present, beside the checkout; never part of the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.tiny.places import ROOT

SHARED = Path(os.environ.get("SHARED", ROOT.parent / "shared"))

needs_audio = pytest.mark.skipif(not (SHARED / "ravdess/audio").is_dir(), reason="no RAVDESS audio in $SHARED")
needs_video = pytest.mark.skipif(not (SHARED / "ravdess/video").is_dir(), reason="no RAVDESS video in $SHARED")
needs_whisper = pytest.mark.skipif(
    not (SHARED / "models/whisper-tiny.en-encoder").is_dir(), reason="no Whisper encoder in $SHARED"
)

CASES = SHARED / "cases/models"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="no cases of models in $SHARED")
