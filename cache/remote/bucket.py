"""A place in an object store, `s3://bucket/name`: whole objects, made or replaced only where that loses nothing.

A single PUT is atomic there: an object is whole or it is not. There are no locks and no renames; instead a write may
depend on what is there (`If-None-Match`, `If-Match`). An answer may be lost though the write was done: what failed in a
way that says nothing is tried again, and a refusal is believed only after looking.

Credentials are those of the environment (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ..., or the machine's role).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from cache.files.place import bucket_address

T = TypeVar("T")
# Larger files go up in parts, of which nothing is seen before the last one is there.
LARGE_BYTES = 64 * 2**20
PAUSES_SECONDS = (0.1, 0.4, 1.5, 5.0, 15.0)
# These are answers; every other error leaves open what happened.
ANSWERS = (
    "FileNotFoundError",
    "NotFoundError",
    "AlreadyExistsError",
    "PreconditionError",
    "PermissionDeniedError",
    "UnauthenticatedError",
)
SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")
INSTALL = "s3:// needs obstore, which is not installed; run: pip install --no-deps -r requirements-s3.txt"


class Bucket:
    """The objects below one address. All methods may be called by several threads."""

    def __init__(self, address: str) -> None:
        """Nothing is sent yet.

        Raises:
            ValueError: the address is none, or the package that speaks S3 is not installed.
        """
        self.address = bucket_address(address)
        bucket, _, name = self.address.removeprefix("s3://").partition("/")
        try:
            import obstore
            from obstore.store import S3Store
        except ModuleNotFoundError as error:
            raise ValueError(INSTALL) from error
        self._obs = obstore
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        self._store = S3Store(
            bucket,
            prefix=name,
            config={"checksum_algorithm": "sha256", **({"endpoint": endpoint} if endpoint else {})},
            client_options={"allow_http": endpoint.startswith("http://"), "timeout": "600s", "connect_timeout": "10s"},
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=60)},
        )

    def sizes(self, below: str) -> dict[str, int]:
        """By key, the size of every object below a key."""
        pages = self._patiently(lambda: [dict(one) for page in self._obs.list(self._store, below) for one in page])
        return {one["path"]: int(one["size"]) for one in pages}

    def read(self, key: str) -> tuple[bytes, str] | None:
        """A small object, and its version; None where there is none."""

        def get() -> tuple[bytes, str] | None:
            try:
                found = self._obs.get(self._store, key)
                return bytes(found.bytes()), str(found.meta["e_tag"])
            except FileNotFoundError:
                return None

        return self._patiently(get)

    def add(self, key: str, file: Path) -> None:
        """Put a file at a key that is of its content: of all who do so, any may be the one that makes the object."""
        size = file.stat().st_size

        def put() -> None:
            if size > LARGE_BYTES:
                if not self._has(key, size):
                    self._obs.put(self._store, key, file)
                return
            content = file.read_bytes()
            try:
                self._obs.put(self._store, key, content, mode="create", use_multipart=False)
            except self._obs.exceptions.AlreadyExistsError:
                if not self._has(key, size):  # by a store that keeps half of a PUT
                    self._obs.put(self._store, key, content, use_multipart=False)

        self._patiently(put)

    def _has(self, key: str, size: int) -> bool:
        try:
            return int(self._obs.head(self._store, key)["size"]) == size
        except FileNotFoundError:
            return False

    def replace(self, key: str, content: bytes, version: str | None) -> bool:
        """Put a small object in place of the one of this version, None: of none; whether it is there now."""
        mode: Any = "create" if version is None else {"e_tag": version}
        errors = self._obs.exceptions

        def put() -> bool:
            try:
                self._obs.put(self._store, key, content, mode=mode, use_multipart=False)
            except (errors.AlreadyExistsError, errors.PreconditionError):
                # It may be this one, of which no answer came.
                return (now := self.read(key)) is not None and now[0] == content
            return True

        return self._patiently(put)

    def fetch(self, key: str, file: Path) -> str:
        """Write an object to a file; returns the SHA-256 of what came."""

        def get() -> str:
            digest = hashlib.sha256()
            with file.open("wb") as out:
                for piece in self._obs.get(self._store, key).stream():
                    digest.update(piece)
                    out.write(piece)
            return digest.hexdigest()

        return self._patiently(get)

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """What comes of it, tried again as long as errors leave open what happened.

        Raises:
            OSError: it did not work; one line, without credentials.
        """
        for pause in (*PAUSES_SECONDS, None):
            try:
                return attempt()
            # What is not there, as a bucket, is said by Python's own error.
            except (self._obs.exceptions.BaseError, FileNotFoundError) as error:
                if pause is None or type(error).__name__ in ANSWERS:
                    raise OSError(f"{self.address}: {_said(error)}") from None
                time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")


def _said(error: Exception) -> str:
    """The first line of an error, without what the environment keeps secret."""
    text = next(iter(str(error).splitlines()), type(error).__name__)
    for secret in filter(None, map(os.environ.get, SECRETS)):
        text = text.replace(secret, "***")
    return text[:300]
