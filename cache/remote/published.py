"""Parts of a features folder at an object store: given and taken whole, by any number of machines at a time.

    s3://bucket/name/files/<sha256>            contents, each once; an object is never replaced by another content
    s3://bucket/name/parts/<name>/part.json    the files of a part: path, SHA-256, size; what none lists is not there

A part's contents are there before what lists them, which is made on the condition that there is none: of two who give
the same part one makes it, and the other sees that it is the same. What is given stays, and is never replaced.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote

from cache.features.chunks import forget_kept, remove_unit
from cache.files.atomic import revealed
from cache.remote.bucket import Bucket
from cache.remote.parts import Kept, Listing, Part

FILES, PARTS, RECORD = "files", "parts", "/part.json"
PARTS_AT_A_TIME, FILES_AT_A_TIME = 4, 8
T = TypeVar("T")
R = TypeVar("R")
PUT_AGAIN = "delete that object, and push from where the features are whole"
ELSEWHERE = (
    "what is there is never replaced: give the features here another place (remote=s3://bucket/other), or go on with "
    "those there (features_dir=<a new folder>)"
)


class Published:
    """What of a features folder is at an address, or may be put there."""

    def __init__(self, features_dir: Path, address: str) -> None:
        """Nothing is sent yet.

        Raises:
            ValueError: the address is none, or the package that speaks S3 is not installed.
        """
        self.bucket, self.features_dir = Bucket(address), features_dir

    @property
    def address(self) -> str:
        """Where."""
        return self.bucket.address

    def parts(self, below: str = "") -> list[Part]:
        """All parts that are there, metadata before units; `below`: of one store or folder of media."""
        keys = self.bucket.sizes(f"{PARTS}/{_escaped(below)}" if below else PARTS)
        found = [self._part(key) for key in keys]
        return sorted(found, key=lambda part: (part.rank, str(part)))

    def give(self, part: Part) -> list[Kept]:
        """Put a part there that is complete here; returns the contents that were sent.

        Raises:
            ValueError: another one of this name is there, made otherwise or of other media files.
            OSError: the object store does not answer, or refuses. Nothing of the part is there for anybody.
        """
        return [] if self.has(part) else self.put(part)

    def put(self, part: Part) -> list[Kept]:
        """The same where it is known not to be there."""
        own = {path: Kept.of(self.features_dir / path) for path in part.files(self.features_dir)}
        contents = {kept: self.features_dir / path for path, kept in own.items()}
        _together(lambda kept: self.bucket.add(_key(kept), contents[kept]), contents, FILES_AT_A_TIME)
        if not self.bucket.replace(_record_key(part), _dumped(own), None):
            # Somebody was quicker: what is there is the same, or refused.
            self.has(part)
        return list(contents)

    def has(self, part: Part) -> bool:
        """Whether this part, as it is here, is there.

        Raises:
            ValueError: another one of this name is.
        """
        known = self.listing(part)
        if known is None:
            return False
        own = part.identity(self.features_dir)
        looked_at = own if part.unit is not None else {**own, **known}
        if other := [path for path in looked_at if known.get(path) != own.get(path)]:
            raise ValueError(
                f"{self.address} holds other features than {self.features_dir}: {min(other)} differs, so {_why(part)}; "
                f"{ELSEWHERE}"
            )
        return True

    def take(self, part: Part) -> list[Kept]:
        """Write a part here, if it is there and not here; returns the contents that came.

        Raises:
            ValueError: an object is not what was put there; the part is not here then.
            OSError: the object store does not answer, or refuses.
        """
        if part.is_complete(self.features_dir) or (listing := self.listing(part)) is None:
            return []
        folder = self.features_dir / part.store / part.array
        if part.array and part.unit is not None and folder.is_dir():
            # What a crash left of it might stay beside what comes.
            remove_unit(folder, part.unit)
        others = [path for path in listing if path != part.seal]
        _together(lambda path: self._fetch(part, path, listing[path]), others, FILES_AT_A_TIME)
        self._fetch(part, part.seal, listing[part.seal])
        if part.array and part.unit is not None:
            forget_kept(folder, part.unit)
        return list(listing.values())

    def listing(self, part: Part) -> Listing | None:
        """The files of a part that is there; None: it is not.

        Raises:
            ValueError: what lists them is damaged, or names files outside of the part.
        """
        found = self.bucket.read(_record_key(part))
        if found is None:
            return None
        where = f"{self.address}/{_record_key(part)}"
        try:
            files = {str(path): Kept(str(digest), int(size)) for path, (digest, size) in json.loads(found[0]).items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(
                f"{where} is damaged; delete that object, and what is complete is put there again"
            ) from None
        if foreign := [path for path in files if not part.may_hold(path)]:
            raise ValueError(f"{where} names {foreign[0]!r}, which is no file of {part}")
        if part.seal not in files:
            raise ValueError(f"{where} lacks {part.seal}; {PUT_AGAIN}")
        return files

    def _fetch(self, part: Part, path: str, kept: Kept) -> None:
        with revealed(self.features_dir / path) as file:
            if self.bucket.fetch(_key(kept), file) != kept.sha256:
                raise ValueError(
                    f"{self.address}/{_key(kept)} ({path}) is damaged; delete it and {_record_key(part)}, and push "
                    "from where the features are whole"
                )

    def _part(self, key: str) -> Part:
        try:
            return Part.named(_unescaped(key.removeprefix(f"{PARTS}/").removesuffix(RECORD)))
        except ValueError as error:
            raise ValueError(f"{self.address}/{key}: {error}") from None


def each(act: Callable[[Part], Iterable[Kept]], parts: Iterable[Part]) -> list[Kept]:
    """Give or take parts, metadata before units, media one by one; returns all contents. The first error ends it."""
    by_turn: dict[tuple[int, bool], list[Part]] = {}
    for part in parts:
        by_turn.setdefault((part.rank, bool(part.media)), []).append(part)
    moved: list[Kept] = []
    for (_, is_media), own in sorted(by_turn.items()):
        for contents in _together(act, own, 1 if is_media else PARTS_AT_A_TIME):
            moved += contents
    return moved


def _together(act: Callable[[T], R], items: Iterable[T], at_a_time: int) -> list[R]:
    with ThreadPoolExecutor(at_a_time) as pool:
        waiting = [pool.submit(act, item) for item in items]
        try:
            return [one.result() for one in waiting]
        finally:
            # After an error, what has not begun is given up.
            pool.shutdown(cancel_futures=True)


def _why(part: Part) -> str:
    if part.unit is not None:
        return f"unit {part.unit} was made of other media files, or by a machine that computes otherwise"
    return f"{part.array} was made differently" if part.array else "it is of other clips, or in another order"


def _key(kept: Kept) -> str:
    return f"{FILES}/{kept.sha256}"


def _record_key(part: Part) -> str:
    return f"{PARTS}/{_escaped(str(part))}{RECORD}"


def _escaped(name: str) -> str:
    """A name of an encoder may be any text; a key is of letters that every object store takes as they are."""
    return quote(name, safe="/").replace("~", "%7E").replace("%", "=")


def _unescaped(key: str) -> str:
    return unquote(key.replace("=", "%"))


def _dumped(listing: Listing) -> bytes:
    return json.dumps({path: [kept.sha256, kept.size] for path, kept in sorted(listing.items())}, indent=0).encode()
