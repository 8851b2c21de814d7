"""What loading a table takes, against what was asked for: a store may be far larger than memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from cache.corpus.clips import Clip
from cache.features import store as stores
from cache.features.rows import ArraySpec, State, UnitRows
from cache.features.store import FeatureStore
from cache.features.table import FeatureTable, Layers, load_table, sharing
from cache.features.units import unit_count, unit_rows

CLIPS = tuple(Clip(f"c{n:04d}", f"c{n:04d}.wav", "happy", "1") for n in range(2880))
LAYERS, WIDTH = 12, 256
# One layer of one unit, and lists of ids, rows and states of all clips.
CHUNK, LISTS = 180 * WIDTH * 4, 2**20


@pytest.fixture(scope="module")
def features_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store of 2880 clips and 12 layers, 35 MB, that was never forced to the disk."""
    folder = tmp_path_factory.mktemp("large")
    spec = ArraySpec("audio", "tiny", LAYERS, WIDTH, {"encoder": "tiny"})
    store = FeatureStore.create(folder / "clean.zarr", [clip.clip_id for clip in CLIPS])
    store.require(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "force_to_disk", lambda *_: None)
        for unit in range(unit_count(len(CLIPS))):
            rows = UnitRows.empty(len(unit_rows(len(CLIPS), unit)), spec)
            rows.hidden_BLD[:] = np.arange(LAYERS, dtype=np.float32)[:, None] + unit
            rows.state[:] = State.DONE
            store.write_unit(spec, unit, rows)
    return folder


def loaded(features_dir: Path, clips: tuple[Clip, ...], layers: Layers) -> tuple[FeatureTable, int]:
    """The table, and the bytes that loading it took at most, its own among them."""
    load_table(features_dir, clips[:1], ("audio",), layers=layers)  # what is imported and compiled once
    tracemalloc.start()
    table = load_table(features_dir, clips, ("audio",), layers=layers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return table, peak


# The mean took five times what it gives, layers side by side twice, and few clips as much as all of them.
@pytest.mark.parametrize(
    ("layers", "every", "read", "columns"),
    [(9, 1, 1, 1), ("mean", 1, LAYERS, 1), ("2+3", 1, 2, 2), ("last", 20, 1, 1), ("mean", 20, LAYERS, 1)],
)
def test_loading_takes_what_is_asked_for_and_one_unit(
    features_dir: Path, layers: Layers, every: int, read: int, columns: int
) -> None:
    table, peak = loaded(features_dir, CLIPS[::every], layers)
    asked = table.features["audio"].nbytes
    assert asked == len(CLIPS) // every * WIDTH * columns * 4
    assert peak < 1.2 * asked + 2 * read * CHUNK + LISTS, f"{peak / asked:.2f} times what was asked for"


def test_of_units_that_are_not_asked_for_no_file_is_read(features_dir: Path) -> None:
    store = stores.open_store(features_dir / "clean.zarr")
    damaged = features_dir / "clean.zarr/audio/tiny/hidden/c/3/9/0"
    content = damaged.read_bytes()
    damaged.write_bytes(b"x" + content[1:])
    try:
        rows = np.array([0, 2879, 200])  # in any order
        found = {int(where[0]): float(values[0, 0]) for where, (values,) in store.read_rows("audio/tiny", [9], rows)}
        with pytest.raises(ValueError, match="unit 3, layer 9 is damaged"):
            store.read_layer("audio/tiny", 9)
    finally:
        damaged.write_bytes(content)
    assert found == {0: 9.0, 1: 24.0, 2: 10.0}


def test_tables_of_the_same_rows_hold_them_once(features_dir: Path) -> None:
    one, other = (load_table(features_dir, CLIPS[:300], ("audio",), layers=0) for _ in range(2))
    assert sharing(other, one).features["audio"] is one.features["audio"]
    last = load_table(features_dir, CLIPS[:300], ("audio",), layers="last")
    fewer = load_table(features_dir, CLIPS[:299], ("audio",), layers=0)
    assert sharing(last, one).features["audio"] is last.features["audio"]
    assert sharing(fewer, one).features["audio"] is fewer.features["audio"]
