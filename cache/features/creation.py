"""How a store and its arrays come to be: made once for certain clips in a certain way, and refused to any other.

What says so are zarr.json files, which zarr does not guard: they are sealed as soon as they are all there
(`cache.features.seal`), so that an array without a seal is one that a crash left half made.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import zarr

from cache.features.layout import array_of, layout_of, read_clip_ids, wants_shards, write_clip_ids
from cache.features.provenance import every_difference
from cache.features.rows import ArraySpec
from cache.features.seal import METADATA, SHARDED, broken_files, seal
from cache.files.atomic import fsync_path
from cache.files.hashes import fingerprint
from cache.files.remedy import features_command


def make_store(path: Path, clip_ids: Sequence[str]) -> zarr.Group:
    """Open the store's root, making it first if need be.

    Raises:
        ValueError: it was made for other clips, or is damaged.
    """
    group = open_group(path, "a")
    corpus = fingerprint(clip_ids)
    # The attribute is written after the ids: it says that they are complete.
    if "corpus_sha256" not in group.attrs:
        if any(child.is_dir() and child.name != "clip_id" for child in path.iterdir()):
            raise ValueError(f"{path / METADATA} is lost; {way_out(path)}")
        write_clip_ids(group, clip_ids)
        group.attrs["corpus_sha256"] = corpus
    if group.attrs["corpus_sha256"] != corpus:
        stored = read_clip_ids(group)
        refuse_other_clips(path, stored, clip_ids)
        lacking = len(set(clip_ids) - set(stored))
        raise ValueError(
            f"{path} lacks {lacking} of the {len(clip_ids)} clips that this corpus lists, or has them in another "
            "order; run make features with it: what is there is kept"
        )
    if fingerprint(read_clip_ids(group)) != corpus:  # damaged, but these are the same ids
        write_clip_ids(group, clip_ids)
    if broken_files(path) is None:
        seal(group, path, [f"clip_id/{METADATA}"])
        _force_metadata_to_disk(path, path / "clip_id")
    return group


def make_arrays(store: Path, root: zarr.Group, clips: int, spec: ArraySpec, is_sharded: bool | None = None) -> None:
    """Make the arrays of `spec`, or check that those there were made the same way.

    `is_sharded`: whether a new array keeps its units as shards; None: as suits its size.

    Raises:
        ValueError: naming every difference in provenance and the way out.
    """
    folder = store / spec.path
    refuse_broken_metadata(store, spec.path)
    stored = root[spec.path].attrs.asdict() if (folder / METADATA).exists() else {}
    refuse_other_make(store, spec, stored)
    # The parent explicitly: a crash between the two would leave it implied, and other bytes behind.
    group = root.require_group(spec.modality).require_group(spec.encoder)
    arrays = layout_of(clips, spec, wants_shards(clips, spec.layers) if is_sharded is None else is_sharded)
    for name, layout in arrays.items():
        if name not in group:
            group.create_array(name, **layout)
        (folder / name / "c").mkdir(exist_ok=True)
    if not stored:
        group.attrs.put(dict(spec.provenance))
    if broken_files(folder / "checksum") is None:
        files = [f"../../{METADATA}", f"../{METADATA}", *(f"../{n}/{METADATA}" for n in arrays if n != "checksum")]
        copies: dict[str, Any] = {"clips": clips, "layers": spec.layers, "width": spec.width}
        # Of what is there: a run that was killed may have begun it.
        copies |= {SHARDED: True} if array_of(group, "hidden").shards else {}
        seal(array_of(group, "checksum"), folder / "checksum", files, **copies, provenance=dict(spec.provenance))
        _force_metadata_to_disk(store, folder)


def refuse_other_make(store: Path, spec: ArraySpec, stored: Mapping[str, Any]) -> None:
    """Refuse an array whose provenance is `stored` where `spec` is wanted; an empty one is that of no array.

    Raises:
        ValueError: naming every difference and the way out.
    """
    if stored and stored != dict(spec.provenance):
        raise ValueError(
            f"{store} {spec.path} was made differently: {every_difference(stored, spec.provenance)}; "
            f"set another features_dir, or delete {store / spec.path} to recompute it"
        )


def refuse_other_clips(path: Path, stored: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse a store that holds clips which a corpus no longer lists.

    Raises:
        ValueError: one line, with what can be done.
    """
    listed = set(wanted)
    gone = [clip_id for clip_id in stored if clip_id not in listed]
    if gone:
        raise ValueError(
            f"{path} holds features of other clips than this corpus lists: {len(gone)} are gone, first {gone[0]}; "
            f"list them again (later stages may leave clips out), set another features_dir, or delete {path}"
        )


def refuse_broken_metadata(store: Path, path: str) -> None:
    """Refuse an array with a zarr.json that is not what was written: it may say anything.

    Raises:
        ValueError: naming the file and the way out.
    """
    folder = store / path
    broken = broken_files(folder / "checksum")
    holder = folder / "checksum" / METADATA
    if broken is None and holder.exists() and is_written(folder):
        raise ValueError(
            f"{folder} was written by another version; delete it and run: {features_command(store.parent)}"
        )
    # One that is missing can be made again from the same provenance, but for the one that guards the others.
    changed = [file for name in broken or [] if (file := holder.parent / name).exists()]
    if broken is None and not holder.exists() and is_written(folder):
        changed = [holder]
    if changed:
        raise ValueError(f"{os.path.normpath(changed[0])} is damaged; {way_out(store)}")


def open_group(path: Path, mode: Literal["r", "a"]) -> zarr.Group:
    """The store's root.

    Raises:
        ValueError: its zarr.json is damaged.
        FileNotFoundError: there is none to read.
    """
    try:
        return zarr.open_group(path, mode=mode, zarr_format=3)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split())}); {way_out(path)}") from error


def is_written(folder: Path) -> bool:
    """Whether any unit of the array in `folder` was written."""
    return any(folder.glob("state/c/*"))


def way_out(store: Path) -> str:
    """What to do about damage, to be added to a message."""
    return f"run: python -m cache repair {shlex.quote(str(store.parent))}, then: {features_command(store.parent)}"


def _force_metadata_to_disk(store: Path, folder: Path) -> None:
    files = [store / METADATA, folder.parent / METADATA, *folder.rglob(METADATA), *(store / "clip_id").glob("c/*")]
    for file in files:
        fsync_path(file)
        fsync_path(file.parent)
