"""Sealed zarr.json files: any change is found, and where it is; a seal that was never finished is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import zarr

from cache.features.seal import METADATA, broken_files, seal, sealed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    group = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=3, attributes={"one": 1})
    group.create_group("a")
    group.create_group("b", attributes={"name": "b"})
    seal(group, tmp_path / "x.zarr", [f"a/{METADATA}", f"b/{METADATA}"], width=7)
    return tmp_path / "x.zarr"


def test_what_is_sealed_is_intact_and_keeps_its_attributes(folder: Path) -> None:
    assert broken_files(folder) == []
    assert sealed(folder)["width"] == 7
    assert zarr.open_group(folder, mode="r").attrs["one"] == 1


def test_sealing_again_gives_the_same_bytes(folder: Path) -> None:
    before = (folder / METADATA).read_bytes()
    seal(zarr.open_group(folder, mode="a"), folder, [f"a/{METADATA}", f"b/{METADATA}"], width=7)
    assert (folder / METADATA).read_bytes() == before


def test_every_bit_of_the_holder_is_guarded(folder: Path) -> None:
    intact = (folder / METADATA).read_bytes()
    for position in range(0, 8 * len(intact), 3):  # three is no divisor of eight: every bit of a byte has its turn
        changed = bytearray(intact)
        changed[position // 8] ^= 1 << position % 8
        (folder / METADATA).write_bytes(changed)
        assert broken_files(folder) == [METADATA]
        assert sealed(folder) == {}


def test_the_others_are_told_apart(folder: Path) -> None:
    (folder / "b" / METADATA).write_text((folder / "b" / METADATA).read_text().replace('"b"', '"c"'))
    assert broken_files(folder) == [f"b/{METADATA}"]
    (folder / "a" / METADATA).unlink()
    assert broken_files(folder) == [f"a/{METADATA}", f"b/{METADATA}"]


def test_a_seal_that_was_not_finished_is_none(folder: Path) -> None:
    group = zarr.open_group(folder, mode="a")
    group.attrs["seal"] = {"crc32": {}, "own_crc32": 0}
    assert broken_files(folder) is None
    assert sealed(folder) == {}
    group.attrs.put({"one": 1})
    assert broken_files(folder) is None
    (folder / METADATA).unlink()
    assert broken_files(folder) is None
