"""SHA-256 of what a result rests on: of a file, and of a list of names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(values: Sequence[str]) -> str:
    """SHA-256 of a sequence of strings, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(list(values)).encode()).hexdigest()
