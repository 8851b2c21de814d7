"""Where a user says that something is: a file or folder of this machine, never an address of an object store.

What keeps stores whole are locks and renames, which only a file system has. `s3://bucket/x` taken for a path would be
a folder called `s3:`; it is refused, with what works with such places (`cache.remote`).
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

# As it is written, and as a path made of it reads.
BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]+[a-z0-9]/[^/?#\s][^?#\s]*")
ADDRESS = re.compile(r"(s3[an]?|gs|gcs|az|abfss?|wasbs?|hf|hdfs|https?|ftp|file):/", re.IGNORECASE)


class NotHere(ValueError, argparse.ArgumentTypeError):
    """An address where a path should be; argparse, too, says this error's own words."""


def is_address(text: str | Path) -> bool:
    """Whether it names a place that is reached by a network."""
    return ADDRESS.match(str(text)) is not None


def refuse_address(text: str | Path, key: str = "") -> None:
    """Refuse what is no path; `key`: of the setting that it is the value of.

    Raises:
        NotHere: one line with the way out.
    """
    if is_address(text):
        where = f"{key}: " if key else ""
        raise NotHere(
            f"{where}{text} is no file or folder of this machine, whose locks and renames keep stores whole; "
            "work on a folder here with remote=s3://bucket/name beside it, or copy features with python -m cache pull "
            "s3://bucket/name FOLDER, or push"
        )


def local_path(text: str | Path) -> Path:
    """A path that a user gave.

    Raises:
        NotHere: it is an address.
    """
    refuse_address(text)
    return Path(text)


def bucket_address(text: str) -> str:
    """The address of a place in an object store, which a user gave, without a slash at its end.

    Raises:
        ValueError: it is none.
    """
    address = text.rstrip("/")
    if BUCKET.fullmatch(address) is None:
        # Whatever else stands there may be a password.
        raise ValueError("give s3://bucket/name: small letters and digits, a name below the bucket, no credentials")
    return address
