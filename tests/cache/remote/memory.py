"""An object store in this process, for tests of what is done with one; `faulty.py` stands before a real one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path


class MemoryBucket:
    """What `cache.remote.bucket.Bucket` promises, of objects that all with the same address share."""

    everywhere: dict[str, dict[str, bytes]]
    asked: list[str]
    fault: Callable[[str], bool]

    @classmethod
    def anew(cls, objects: dict[str, dict[str, bytes]]) -> type[MemoryBucket]:
        """A class of its own with these objects, by address; none of its requests fails."""
        return type(cls.__name__, (cls,), {"everywhere": objects, "asked": [], "fault": staticmethod(lambda _: False)})

    def __init__(self, address: str) -> None:
        self.address = address
        self._objects = self.everywhere.setdefault(address, {})

    def sizes(self, below: str) -> dict[str, int]:
        self._ask(f"list {below}")
        return {key: len(content) for key, content in self._objects.items() if key.startswith(f"{below}/")}

    def read(self, key: str) -> tuple[bytes, str] | None:
        self._ask(key)
        return (self._objects[key], hashlib.md5(self._objects[key]).hexdigest()) if key in self._objects else None

    def add(self, key: str, file: Path) -> None:
        self._ask(key)
        self._objects.setdefault(key, file.read_bytes())

    def replace(self, key: str, content: bytes, version: str | None) -> bool:
        there = self.read(key)
        if (there and there[1]) != version and (there is None or there[0] != content):
            return False
        self._objects[key] = content
        return True

    def fetch(self, key: str, file: Path) -> str:
        self._ask(key)
        file.write_bytes(self._objects[key])
        return hashlib.sha256(self._objects[key]).hexdigest()

    def _ask(self, key: str) -> None:
        self.asked.append(key)
        if self.fault(key):
            raise OSError(f"{self.address}: no answer")
