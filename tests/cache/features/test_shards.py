"""Stores of many chunks keep the layers of a unit in one file: they read as others do, and damage is named as there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

from cache.care.repair import repair
from cache.care.verify import verify
from cache.features import layout
from cache.features.layout import wants_shards
from cache.features.rows import ArraySpec, UnitRows
from cache.features.seal import METADATA
from cache.features.store import FeatureStore, open_store
from cache.features.units import unit_count

CLIPS, LAYERS, WIDTH = 20, 3, 2
# The layers are those of the model with these numbers.
SPEC = ArraySpec("audio", "tiny", LAYERS, WIDTH, {"encoder": "tiny", "layers": [0, 4, 7]})
ABSENT_UNIT = 1
HIDDEN = "audio/tiny/hidden"


@pytest.fixture(autouse=True, scope="module")
def quick_disk() -> Iterator[None]:
    """What reaches the disk when is tested elsewhere; here waiting for it would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


def make(features_dir: Path) -> FeatureStore:
    """What stage one does: three units, one of which has no sound at all."""
    store = FeatureStore.create(features_dir / "clean.zarr", [f"c{n:02d}" for n in range(CLIPS)])
    store.require(SPEC)
    for unit in range(unit_count(CLIPS)):
        if store.unit_is_pending(SPEC.path, unit):
            store.write_unit(SPEC, unit, rows_of(store, unit))
    return store


def rows_of(store: FeatureStore, unit: int) -> UnitRows:
    rows = UnitRows.empty(len(store.unit_clips(unit)), SPEC)
    for row in range(len(rows.state)):
        if unit == ABSENT_UNIT:
            rows.absent(row, "no sound")
        else:
            rows.done(row, np.random.default_rng([unit, row]).standard_normal((LAYERS, WIDTH), np.float32))
    return rows


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return make(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "MOST_CHUNKS", 4)
        return make(tmp_path_factory.mktemp("sharded"))


@pytest.fixture
def sharded(intact: FeatureStore, tmp_path: Path) -> Path:
    """A features folder; a store of its size would not be sharded if it was made now."""
    shutil.copytree(intact.path, tmp_path / "clean.zarr")
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if not name.endswith(".lock")}


def test_which_stores_are_sharded_follows_from_their_size() -> None:
    """A hundred thousand clips of thirteen layers have fewer chunks than that, a million have more."""
    assert not wants_shards(100_000, 13)
    assert wants_shards(1_000_000, 13)
    # A unit of one layer is one file anyway.
    assert not wants_shards(10_000_000, 1)


def test_a_sharded_store_reads_as_a_plain_one(plain: FeatureStore, intact: FeatureStore) -> None:
    one, other = (zarr.open_group(store.path, mode="r")["audio/tiny"] for store in (plain, intact))
    assert isinstance(one, zarr.Group)
    assert isinstance(other, zarr.Group)
    assert dict(one.attrs) == dict(other.attrs)
    assert sorted(one.array_keys()) == sorted(other.array_keys())
    for name in one.array_keys():
        first, second = one[name], other[name]
        assert isinstance(first, zarr.Array)
        assert isinstance(second, zarr.Array)
        assert (first.shape, first.dtype, first.chunks) == (second.shape, second.dtype, second.chunks)
        np.testing.assert_array_equal(first[:], second[:])
    for layer in range(LAYERS):
        first_BD, second_BD = (open_store(store.path).read_layer(SPEC.path, layer) for store in (plain, intact))
        np.testing.assert_array_equal(first_BD, second_BD)


def test_a_unit_is_one_file_of_features(plain: FeatureStore, intact: FeatureStore) -> None:
    assert not verify(intact.path.parent).damage
    # The unit without sound is all fill value, which zarr does not store.
    chunks = [sum("/hidden/c/" in name for name in files(store.path)) for store in (plain, intact)]
    assert chunks == [2 * LAYERS, 2]


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 4
    file.write_bytes(bytes(content))


def test_every_flipped_byte_of_a_shard_is_named_once_and_by_its_layer(sharded: Path) -> None:
    file = sharded / f"clean.zarr/{HIDDEN}/c/2/0/0"
    whole = file.read_bytes()
    layer_bytes = 8 * WIDTH * 4
    for position in range(len(whole)):
        flip(file, position)
        (damage,) = verify(sharded).damage
        # Behind the layers stands where they are: without that, none is known.
        layer = [0, 4, 7][position // layer_bytes] if position < LAYERS * layer_bytes else None
        assert (damage.array, damage.part, damage.unit, damage.layer) == (SPEC.path, "hidden", 2, layer)
        file.write_bytes(whole)


@pytest.mark.parametrize(
    "damage",
    [Path.unlink, lambda file: file.write_bytes(file.read_bytes()[:-3]), lambda file: file.write_bytes(b"")],
    ids=["gone", "cut off", "empty"],
)
def test_a_shard_that_is_lost_is_one_unit_and_computed_again(sharded: Path, damage: Callable[[Path], None]) -> None:
    before = files(sharded)
    damage(sharded / f"clean.zarr/{HIDDEN}/c/0/0/0")
    (found,) = verify(sharded).damage
    assert (found.part, found.unit, found.layer) == ("hidden", 0, None)
    with pytest.raises(ValueError, match="hidden: unit 0, layer 4 is damaged"):
        open_store(sharded / "clean.zarr").read_layer(SPEC.path, 1)
    repair(sharded)
    make(sharded)
    assert files(sharded) == before


@pytest.mark.parametrize("name", [f"{HIDDEN}/{METADATA}", f"audio/tiny/checksum/{METADATA}"])
def test_a_store_stays_as_it_was_made(sharded: Path, plain: FeatureStore, name: str, tmp_path: Path) -> None:
    """Mended, it is not what a new one of its size would be: sharded where that is plain, and plain where sharded."""
    for folder, most in ((sharded, 10_000), (tmp_path / "plain", 4)):
        if folder != sharded:
            shutil.copytree(plain.path, folder / "clean.zarr")
        before = files(folder)
        flip(folder / "clean.zarr" / name, 40)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(layout, "MOST_CHUNKS", most)
            repair(folder)
            make(folder)
        assert files(folder) == before
