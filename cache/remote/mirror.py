"""`python -m cache push` and `pull`: a features folder copied to an object store and back, whole or not at all.

What is complete here and not there is put there, or the other way round, part by part (`cache.remote.parts`): one that
ends early goes on where it ended, and what several machines made of one store comes together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from cache.care.garbage import readable
from cache.care.verify import stores_in, verify
from cache.files.atomic import write_atomic
from cache.files.lock import locked
from cache.remote.bucket import Bucket
from cache.remote.parts import Kept, parts_here
from cache.remote.published import Published, each

# Of the last run of stage one, wherever that was: each run writes them anew.
OF_THE_LAST_RUN = ("config.yaml", "failures.csv")


def push(features_dir: Path, address: str) -> str:
    """Copy what is complete to an object store; returns what was done.

    Raises:
        ValueError: there is nothing to push, it is damaged, or something else is there.
        OSError: the object store does not answer, or refuses; the same command continues.
    """
    stores_in(features_dir)
    published = Published(features_dir, address)
    with locked(features_dir, 0.0):
        if damage := verify(features_dir).damage:
            more = f" (and {len(damage) - 1} more)" if len(damage) > 1 else ""
            raise ValueError(f"{damage[0]}{more}; run: python -m cache repair {features_dir}")
        parts = list(parts_here(features_dir))
        sent = each(published.give, parts)
        give_last_run(features_dir, published.bucket)
    return f"{published.address}: {_counted(sent)} copied, {len(parts)} parts are there"


def pull(address: str, features_dir: Path) -> str:
    """Copy what an object store has and this folder lacks; returns what was done.

    Raises:
        ValueError: nothing is there, a part here is another one, or an object is not what was put there.
        OSError: the object store does not answer, or refuses; the same command continues.
    """
    published = Published(features_dir, address)
    parts = published.parts()
    if not parts:
        raise ValueError(f"no features were put at {published.address}, or not to the end; push them, or mend the name")
    with locked(features_dir, 0.0):
        for part in parts:
            if part.is_complete(features_dir):
                published.has(part)
        came = each(published.take, parts)
        take_last_run(features_dir, published.bucket)
    return f"{features_dir}: {_counted(came)} copied, {len(parts)} parts are there"


def complete_files(features_dir: Path) -> Iterator[str]:
    """What is copied: the files of all parts, and what the last run said."""
    yield from dict.fromkeys(path for part in parts_here(features_dir) for path in part.files(features_dir))
    yield from (name for name in OF_THE_LAST_RUN if (features_dir / name).is_file())


def give_last_run(features_dir: Path, bucket: Bucket) -> None:
    """Put what the last run said there: of two who do so at a time, one is the last."""
    for name in OF_THE_LAST_RUN:
        if (features_dir / name).is_file():
            content, there = (features_dir / name).read_bytes(), bucket.read(name)
            if there is None or there[0] != content:
                bucket.replace(name, content, there and there[1])


def take_last_run(features_dir: Path, bucket: Bucket) -> None:
    """Write what the last run said here, where nothing says it yet."""
    for name in OF_THE_LAST_RUN:
        if not (features_dir / name).is_file() and (there := bucket.read(name)) is not None:
            write_atomic(features_dir / name, there[0])


def _counted(kept: Iterable[Kept]) -> str:
    sizes = [one.size for one in kept]
    return f"{len(sizes)} files ({readable(sum(sizes))})"
