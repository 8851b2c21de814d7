"""What later stages read, brought from an object store into their folder: the arrays asked for, and nothing else.

A folder that has them all asks nobody. What comes is compared with its SHA-256 and is complete or not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from cache.conditions import CLEAN, MODALITIES, JointCondition
from cache.features.seal import sealed
from cache.features.units import unit_count
from cache.files.lock import locked
from cache.remote.mirror import take_last_run
from cache.remote.parts import Part
from cache.remote.published import Published, each

# Another run that reads the same features may be fetching them.
PATIENCE_SECONDS = 600.0


def fetch_features(
    features_dir: Path,
    address: str,
    conditions: Iterable[JointCondition] | None,
    modalities: Sequence[str],
    encoders: Mapping[str, str],
) -> None:
    """Bring what is there of some modalities, under clean and these conditions, as far as it is not here.

    Args:
        features_dir: folder of the stores.
        address: the place in an object store.
        conditions: None: all that are there.
        modalities: names.
        encoders: by modality, whose features; of the others all.

    Raises:
        ValueError: what is there is not what is here, or damaged.
        OSError: the object store does not answer, or refuses; the same command continues.
    """
    below: tuple[str, ...] = ("",)
    if conditions is not None:
        changed = {part.name: part.changes for joint in conditions for part in joint.parts if part.modality}
        own = {
            name: [one for one in modalities if one in changes or one not in MODALITIES]
            for name, changes in changed.items()
        }
        own[CLEAN] = list(modalities)
        below = tuple(f"{name}.zarr" for name in own if not _is_here(features_dir, f"{name}.zarr", own[name], encoders))
    if not below:
        return
    there = _there(features_dir, address, below)
    wanted = [part for part in there if part.store and _is_asked_for(part, modalities, encoders)]
    _bring(Published(features_dir, address), wanted)


def fetch_media(features_dir: Path, address: str) -> None:
    """Bring the decoded clips that are there and not here.

    Raises:
        ValueError: what is there is damaged.
        OSError: the object store does not answer, or refuses; the same command continues.
    """
    _bring(Published(features_dir, address), _there(features_dir, address, ("media",)))


def _bring(published: Published, parts: Sequence[Part]) -> None:
    folder = published.features_dir
    lacking = [part for part in parts if not part.is_complete(folder)]
    if not lacking:
        return
    with locked(folder, PATIENCE_SECONDS):
        # A unit that came into a store of other clips, or another array, would be taken for one of it.
        for part in parts:
            if part.unit is None and part.is_complete(folder):
                published.has(part)
        came = each(published.take, lacking)
        take_last_run(folder, published.bucket)
    print(f"{len(lacking)} parts ({len(came)} files) came from {published.address} to {folder}")


@lru_cache
def _there(features_dir: Path, address: str, below: tuple[str, ...]) -> tuple[Part, ...]:
    """What is there, asked once: what is missing then is missing to the end of a run."""
    published = Published(features_dir, address)
    return tuple(part for one in below for part in published.parts(one))


def _is_asked_for(part: Part, modalities: Sequence[str], encoders: Mapping[str, str]) -> bool:
    modality, _, encoder = part.array.partition("/")
    return not part.array or (modality in modalities and encoders.get(modality, encoder) == encoder)


def _is_here(features_dir: Path, store: str, modalities: Sequence[str], encoders: Mapping[str, str]) -> bool:
    """Whether all of these modalities is complete here: then nobody has to be asked."""
    return Part(store).is_complete(features_dir) and all(
        _has(features_dir, store, name, encoders.get(name)) for name in modalities
    )


def _has(features_dir: Path, store: str, modality: str, encoder: str | None) -> bool:
    arrays = [path for path in (features_dir / store / modality).glob("*") if path.is_dir()]
    known = [Part(store, f"{modality}/{path.name}") for path in arrays if encoder in (None, path.name)]
    return bool(known) and all(_is_whole(features_dir, array) for array in known)


def _is_whole(features_dir: Path, array: Part) -> bool:
    folder = features_dir / array.store / array.array
    if not array.is_complete(features_dir):
        return False
    units = range(unit_count(sealed(folder / "checksum")["clips"]))
    return all((folder / f"state/c/{unit}").is_file() for unit in units)
