"""`python -m cache push` and `pull`: a features folder copied to an object store and back, whole or not at all.

    s3://bucket/name/files/<sha256>     contents, each once; an object is never replaced by another content
    s3://bucket/name/manifest.json      which files there are: path, SHA-256, size; what it does not list is not there

A push adds what is not there yet, looks whether all of it is, and then puts a manifest in place of the one that it
began from, if that is still there. A manifest only ever gains files of stores and media: a push that would lose or
change one is refused, so that of two who push neither loses a unit. Units that are not complete are left out.

A pull writes what is not here yet, and the states of units last: as long as it is not complete, they are pending.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath

from cache.care.garbage import readable
from cache.care.verify import stores_in, verify
from cache.files.atomic import revealed
from cache.files.hashes import sha256_of
from cache.files.lock import locked
from cache.media import sidecar_of
from cache.remote.bucket import LARGE_BYTES, Bucket

FILES, MANIFEST = "files", "manifest.json"
# Of the last run of stage one: each run writes them anew.
OF_THE_LAST_RUN = ("config.yaml", "failures.csv")
WORKERS = 16
UNIT_PLACE = 5  # of clean.zarr/audio/name/hidden/c/3/0/0


@dataclass(frozen=True)
class Kept:
    """A file's content."""

    sha256: str
    size: int

    @property
    def key(self) -> str:
        """Where it is below the address."""
        return f"{FILES}/{self.sha256}"


Listing = Mapping[str, Kept]


def push(features_dir: Path, address: str) -> str:
    """Copy what is complete to an object store; returns what was done.

    Raises:
        ValueError: there is nothing to push, it is damaged, or something else is there; no manifest was written.
        OSError: the object store does not answer, or refuses.
    """
    stores_in(features_dir)
    bucket = Bucket(address)
    with locked(features_dir, 0.0):
        if damage := verify(features_dir).damage:
            more = f" (and {len(damage) - 1} more)" if len(damage) > 1 else ""
            raise ValueError(f"{damage[0]}{more}; run: python -m cache repair {features_dir}")
        known, version = _manifest(bucket)
        own = {path: _kept(features_dir / path) for path in complete_files(features_dir)}
        _refuse_loss(known, own, bucket.address, features_dir)
        added = _add(bucket, features_dir, own)
        if own != known and not bucket.replace(MANIFEST, _dumped(own), version):
            raise ValueError(
                f"somebody else pushed to {bucket.address} at the same time; run: python -m cache pull "
                f"{bucket.address} {features_dir}, then push again"
            )
    return f"{bucket.address}: {_counted(added)} copied, {len(own)} files are there"


def pull(address: str, features_dir: Path) -> str:
    """Copy what an object store has and this folder lacks; returns what was done.

    Raises:
        ValueError: nothing is there, a file here is another one, or an object is not what was pushed.
        OSError: the object store does not answer, or refuses; the same command continues.
    """
    bucket = Bucket(address)
    known, _ = _manifest(bucket)
    if not known:
        raise ValueError(f"no features were pushed to {bucket.address}, or not to the end; push them, or mend the name")
    with locked(features_dir, 0.0):
        here = {path: _kept(features_dir / path) for path in known if (features_dir / path).is_file()}
        _refuse_other(known, here, features_dir)
        wanted = {path: kept for path, kept in known.items() if here.get(path) != kept}

        def fetch(path: str) -> None:
            with revealed(features_dir / path) as part:
                if bucket.fetch(wanted[path].key, part) != wanted[path].sha256:
                    raise ValueError(
                        f"{bucket.address}/{wanted[path].key} ({path}) is damaged; delete that object and push again "
                        "from where the features are whole"
                    )

        for _, paths in groupby(sorted(wanted, key=_turn), key=_turn):
            _each(fetch, list(paths), wanted)
    return f"{features_dir}: {_counted(wanted.values())} copied, {len(known)} files are there"


def complete_files(features_dir: Path) -> Iterator[str]:
    """What is copied: metadata, files of units that are complete, parts of media that are, what the last run said."""
    for store in stores_in(features_dir):
        for file in sorted(path for path in store.rglob("*") if path.is_file()):
            inside = file.relative_to(features_dir).parts
            if not any(name.startswith(".") or name.endswith(".partial") for name in inside) and _is_complete(
                file, inside
            ):
                yield "/".join(inside)
    for part in sorted(features_dir.glob("media/*/unit-*.h5")):
        if sidecar_of(part).is_file():
            yield from (str(PurePosixPath(file.relative_to(features_dir))) for file in (part, sidecar_of(part)))
    yield from (name for name in OF_THE_LAST_RUN if (features_dir / name).is_file())


def _is_complete(file: Path, inside: tuple[str, ...]) -> bool:
    """Whether a file of a store is of no unit, or of one that has its state."""
    if len(inside) <= UNIT_PLACE or inside[UNIT_PLACE - 1] != "c":
        return True
    array = file.parents[len(inside) - UNIT_PLACE + 1]
    return (array / "state/c" / inside[UNIT_PLACE]).is_file()


def _turn(path: str) -> int:
    """When a file is written, files of one turn together: what says that others are complete comes after them."""
    parts = PurePosixPath(path).parts
    if len(parts) == 1:
        return 4
    if path.endswith(".sources.json") or parts[3:5] == ("state", "c"):
        return 3
    if len(parts) == 2:
        return 1
    return 0 if parts[-1] == "zarr.json" or parts[1] == "clip_id" else 2


def _add(bucket: Bucket, features_dir: Path, own: Listing) -> list[Kept]:
    """Add the contents that are not there; returns them. All are there afterwards."""
    lacking = _lacking(bucket, own)

    def add(path: str) -> None:
        bucket.add(own[path].key, features_dir / path)

    _each(add, list(lacking.values()), own)
    if lacking and (left := _lacking(bucket, own)):
        raise ValueError(
            f"{bucket.address} did not keep {len(left)} files, first {next(iter(left.values()))}; push again"
        )
    return list(lacking)


def _lacking(bucket: Bucket, own: Listing) -> dict[Kept, str]:
    """The contents that are not there in full, each with one file that has it."""
    sizes = bucket.sizes(FILES)
    return {kept: path for path, kept in own.items() if sizes.get(kept.key) != kept.size}


def _each(act: Callable[[str], None], paths: Iterable[str], listing: Listing) -> None:
    """Small files many at a time, large ones one by one: parts of media fill the network by themselves."""
    paths = list(paths)
    with ThreadPoolExecutor(WORKERS) as pool:
        # The first error ends it: what has not begun is given up.
        waiting = [pool.submit(act, path) for path in paths if listing[path].size <= LARGE_BYTES]
        try:
            for one in waiting:
                one.result()
        finally:
            pool.shutdown(cancel_futures=True)
    for path in paths:
        if listing[path].size > LARGE_BYTES:
            act(path)


def _refuse_loss(known: Listing, own: Listing, address: str, features_dir: Path) -> None:
    kept = [path for path in known if path not in OF_THE_LAST_RUN]
    if changed := [path for path in kept if path in own and own[path] != known[path]]:
        raise ValueError(
            f"{address} holds other features: {len(changed)} files differ from those of {features_dir}, first "
            f"{changed[0]}; push to another name"
        )
    if gone := [path for path in kept if path not in own]:
        raise ValueError(
            f"{features_dir} lacks {len(gone)} files of {address}, first {gone[0]}; run: python -m cache pull "
            f"{address} {features_dir}, then push again, or push to another name"
        )


def _refuse_other(known: Listing, here: Listing, features_dir: Path) -> None:
    other = [path for path, kept in here.items() if path not in OF_THE_LAST_RUN and kept != known[path]]
    if other:
        raise ValueError(
            f"{features_dir} holds other features: {len(other)} files differ from those to be copied, first "
            f"{other[0]}; name another folder"
        )


def _manifest(bucket: Bucket) -> tuple[Listing, str | None]:
    """What is there, and the version of the manifest that says so; nothing and None where there is none.

    Raises:
        ValueError: it cannot be read, or names a file outside of stores and media.
    """
    found = bucket.read(MANIFEST)
    if found is None:
        return {}, None
    try:
        files = {
            str(path): Kept(str(sha256), int(size)) for path, (sha256, size) in json.loads(found[0])["files"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{bucket.address}/{MANIFEST} is none of python -m cache push; name another place") from None
    if foreign := [path for path in files if not _may_be(path)]:
        raise ValueError(f"{bucket.address}/{MANIFEST} names {foreign[0]!r}, which is no file of a features folder")
    return files, found[1]


def _may_be(path: str) -> bool:
    """Whether a path stays inside a features folder: it was written elsewhere."""
    parts = path.split("/")
    inside = parts[0].endswith(".zarr") or parts[0] == "media" or path in OF_THE_LAST_RUN
    return inside and not any(part.startswith(".") or not part or "\\" in part for part in parts)


def _dumped(listing: Listing) -> bytes:
    files = {path: [kept.sha256, kept.size] for path, kept in sorted(listing.items())}
    return json.dumps({"files": files}, indent=0).encode()


def _kept(file: Path) -> Kept:
    return Kept(sha256_of(file), file.stat().st_size)


def _counted(kept: Iterable[Kept]) -> str:
    sizes = [one.size for one in kept]
    return f"{len(sizes)} files ({readable(sum(sizes))})"
