"""Feature stores: what was written is read, and whatever was not written, lost or damaged says so."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.features.rows import ArraySpec, State, UnitRows, parts_of
from cache.features.store import FeatureStore, open_store, remove_leftovers
from cache.features.units import unit_count, unit_rows

PROVENANCE = {"encoder": "tiny", "weights_sha256": "abc", "condition": {"name": "clean", "seed": 0}}
SPEC = ArraySpec("audio", "tiny", 3, 5, PROVENANCE)
TEXT = ArraySpec("text", "words", 2, 4, {"encoder": "words"})


def names(count: int) -> list[str]:
    return [f"clip-{number:03d}" for number in range(count)]


def features(rows: range, spec: ArraySpec = SPEC) -> npt.NDArray[np.float32]:
    """Row r is drawn from r: what is found in another row's place would show."""
    return np.stack(
        [np.random.default_rng(row).standard_normal((spec.layers, spec.width)).astype(np.float32) for row in rows]
    )


def filled(rows: range, spec: ArraySpec = SPEC) -> UnitRows:
    unit = UnitRows.empty(len(rows), spec)
    for number, row in enumerate(rows):
        unit.done(number, features(range(row, row + 1), spec)[0])
        unit.source[number] = f"sha-{row}"
    return unit


def new_store(path: Path, count: int = 20, spec: ArraySpec = SPEC) -> FeatureStore:
    store = FeatureStore.create(path, names(count))
    store.require(spec)
    return store


def full_store(path: Path, count: int = 20, spec: ArraySpec = SPEC) -> FeatureStore:
    store = new_store(path, count, spec)
    for unit in range(unit_count(count)):
        store.write_unit(spec, unit, filled(unit_rows(count, unit), spec))
    return store


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What is written is read


@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 9), st.randoms(use_true_random=False))
@settings(max_examples=6, deadline=None)
def test_every_row_comes_back_whatever_the_order_of_the_units(count: int, layers: int, width: int, random: Any) -> None:
    spec = replace(SPEC, layers=layers, width=width)
    order = list(range(unit_count(count)))
    random.shuffle(order)
    with tempfile.TemporaryDirectory() as folder:
        new_store(Path(folder, "a.zarr"), count, spec)
        for unit in order:  # each opens the store afresh, as ranks do
            store = FeatureStore.create(Path(folder, "a.zarr"), names(count))
            store.write_unit(spec, unit, filled(unit_rows(count, unit), spec))
        full_store(Path(folder, "b.zarr"), count, spec)
        read = open_store(Path(folder, "a.zarr"))
        assert list(read.clip_ids) == names(count)
        assert read.shape(spec.path) == (count, layers, width)
        for layer in range(layers):
            np.testing.assert_array_equal(read.read_layer(spec.path, layer), features(range(count), spec)[:, layer])
        assert (read.states(spec.path) == State.DONE).all()
        assert read.column(spec.path, "source") == [f"sha-{row}" for row in range(count)]
        assert files(Path(folder, "a.zarr")) == files(Path(folder, "b.zarr"))


def test_layout_is_the_documented_one(tmp_path: Path) -> None:
    full_store(tmp_path / "clean.zarr", 20)
    full_store(tmp_path / "clean.zarr", 20, TEXT)
    group = zarr.open_group(tmp_path / "clean.zarr", mode="r", zarr_format=3)
    assert list(np.asarray(group["clip_id"])) == names(20)
    hidden, state = group["audio/tiny/hidden"], group["audio/tiny/state"]
    assert isinstance(hidden, zarr.Array)
    assert isinstance(state, zarr.Array)
    assert (hidden.shape, hidden.chunks, str(hidden.dtype)) == ((20, 3, 5), (8, 1, 5), "float32")
    assert (state.shape, state.chunks, str(state.dtype)) == ((20,), (8,), "uint8")
    assert math.isnan(hidden.fill_value)
    checksum, words = group["audio/tiny/checksum"], group["text/words/checksum"]
    assert isinstance(checksum, zarr.Array)
    assert isinstance(words, zarr.Array)
    assert (checksum.shape, checksum.chunks, str(checksum.dtype)) == ((3, 7), (1, 7), "uint32")
    assert words.shape == (3, 2 + len(parts_of("text")) + 1)
    assert dict(group["audio/tiny"].attrs) == PROVENANCE
    assert sorted(group["text/words"].array_keys()) == [  # type: ignore[union-attr]
        *["checksum", "confidence", "hidden", "no_speech", "reason"],
        *["source", "state", "transcript", "wer", "words"],
    ]


def test_text_keeps_its_transcripts(tmp_path: Path) -> None:
    store = new_store(tmp_path / "clean.zarr", 3, TEXT)
    rows = filled(range(3), TEXT)
    rows.columns |= {"transcript": ["a", "", "dé\n"], "words": ["[]", "", "[1]"]}
    rows.columns |= {"confidence": [0.5, math.nan, 1.0], "wer": [0.0, math.nan, 2.0]}
    store.write_unit(TEXT, 0, rows)
    read = open_store(tmp_path / "clean.zarr")
    assert read.column(TEXT.path, "transcript") == ["a", "", "dé\n"]
    assert read.column(TEXT.path, "words") == ["[]", "", "[1]"]
    np.testing.assert_array_equal(read.column(TEXT.path, "wer"), [0.0, math.nan, 2.0])


def test_encoders_of_a_modality(tmp_path: Path) -> None:
    store = new_store(tmp_path / "x.zarr")
    store.require(replace(SPEC, encoder="other"))
    assert store.encoders("audio") == ["other", "tiny"]
    assert store.encoders("video") == []


# What is not there


def test_unwritten_rows_are_pending_and_nan(tmp_path: Path) -> None:
    store = new_store(tmp_path / "x.zarr")
    store.write_unit(SPEC, 1, filled(range(8, 16)))
    assert [store.unit_is_pending(SPEC.path, unit) for unit in range(3)] == [True, False, True]
    layer = store.read_layer(SPEC.path, 0)
    assert np.isnan(layer[:8]).all()
    assert np.isnan(layer[16:]).all()
    np.testing.assert_array_equal(layer[8:16], features(range(8, 16))[:, 0])


def test_failed_and_absent_rows_are_their_state_never_data(tmp_path: Path) -> None:
    store = new_store(tmp_path / "x.zarr", 8)
    rows = filled(range(8))
    rows.fail(2, "no such file")
    rows.absent(5, "the clip has no such stream")
    rows.hidden_BLD[[2, 5]] = np.nan
    store.write_unit(SPEC, 0, rows)
    states = store.states(SPEC.path)
    assert (states[2], states[5]) == (State.FAILED, State.ABSENT)
    assert np.flatnonzero(np.isnan(store.read_layer(SPEC.path, 1)).all(axis=1)).tolist() == [2, 5]
    assert store.reasons(SPEC.path) == ["", "", "no such file", "", "", "the clip has no such stream", "", ""]


@pytest.mark.parametrize("outcome", ["fail", "absent"])
def test_a_unit_without_any_data_is_finished_and_intact(tmp_path: Path, outcome: str) -> None:
    """zarr stores no chunk that is all NaN: its absence must not read as damage."""
    store = new_store(tmp_path / "x.zarr", 8)
    rows = UnitRows.empty(8, SPEC)
    for row in range(8):
        getattr(rows, outcome)(row, "reason")
    store.write_unit(SPEC, 0, rows)
    assert not store.unit_is_pending(SPEC.path, 0)
    assert np.isnan(store.read_layer(SPEC.path, 0)).all()


def test_zeros_are_data(tmp_path: Path) -> None:
    store = new_store(tmp_path / "x.zarr", 8)
    rows = UnitRows.empty(8, SPEC)
    for row in range(8):
        rows.done(row, np.zeros((3, 5), np.float32))
    store.write_unit(SPEC, 0, rows)
    np.testing.assert_array_equal(store.read_layer(SPEC.path, 0), np.zeros((8, 5)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_a_failure_that_names_the_layer(value: float) -> None:
    rows = UnitRows.empty(2, SPEC)
    hidden_LD = features(range(1))[0]
    hidden_LD[1, 3] = value
    rows.done(0, hidden_LD)
    assert rows.state[0] == State.FAILED
    assert rows.reason[0] == "encoder returned values that are not finite in layer 1"
    assert np.isnan(rows.hidden_BLD[0]).all()


def test_a_unit_with_an_open_row_is_not_written(tmp_path: Path) -> None:
    store = new_store(tmp_path / "x.zarr", 8)
    rows = filled(range(8))
    rows.state[3] = State.PENDING
    with pytest.raises(AssertionError, match=r"unit 0 of audio/tiny has rows that nobody decided on"):
        store.write_unit(SPEC, 0, rows)
    assert store.unit_is_pending(SPEC.path, 0)


def test_a_reset_unit_leaves_nothing_of_itself_and_touches_no_other(tmp_path: Path) -> None:
    store = full_store(tmp_path / "x.zarr")
    before = files(tmp_path / "x.zarr")
    store.reset_unit(SPEC.path, 1)
    assert files(tmp_path / "x.zarr") == {name: data for name, data in before.items() if "/c/1" not in name}


def test_a_reset_unit_is_pending_and_can_be_written_again(tmp_path: Path) -> None:
    store = full_store(tmp_path / "x.zarr")
    before = files(tmp_path / "x.zarr")
    store.reset_unit(SPEC.path, 1)
    assert [store.unit_is_pending(SPEC.path, unit) for unit in range(3)] == [False, True, False]
    store.write_unit(SPEC, 1, filled(range(8, 16)))
    assert files(tmp_path / "x.zarr") == before


# Crashes in the middle of writing


class CrashError(Exception):
    pass


@pytest.mark.parametrize("array", ["hidden", "source", "reason", "checksum", "state"])
def test_a_crash_leaves_the_unit_pending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, array: str) -> None:
    full_store(tmp_path / "undisturbed.zarr")
    store = full_store(tmp_path / "x.zarr")
    store.reset_unit(SPEC.path, 1)
    write = zarr.Array.__setitem__

    def crash(self: zarr.Array[Any], where: Any, value: Any) -> None:
        if self.path.endswith(f"/{array}"):
            raise CrashError
        write(self, where, value)

    monkeypatch.setattr(zarr.Array, "__setitem__", crash)
    with pytest.raises(CrashError):
        store.write_unit(SPEC, 1, filled(range(8, 16)))
    monkeypatch.undo()
    store = FeatureStore.create(tmp_path / "x.zarr", names(20))
    assert store.unit_is_pending(SPEC.path, 1)
    store.write_unit(SPEC, 1, filled(range(8, 16)))
    assert files(tmp_path / "x.zarr") == files(tmp_path / "undisturbed.zarr")


def test_data_is_on_disk_before_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = new_store(tmp_path / "x.zarr", 8)
    forced: list[str] = []
    state_file = tmp_path / "x.zarr/audio/tiny/state/c/0"

    def noted(path: Path) -> None:
        if path.is_file():
            forced.append(f"{path.relative_to(tmp_path / 'x.zarr/audio/tiny')}{' after state' * state_file.exists()}")

    monkeypatch.setattr("cache.features.chunks.fsync_path", noted)
    store.write_unit(SPEC, 0, filled(range(8)))
    assert forced[-1] == "state/c/0 after state"
    assert sorted(forced[:-1]) == ["checksum/c/0/0", "hidden/c/0/0/0", "hidden/c/0/1/0", "hidden/c/0/2/0", "source/c/0"]


@pytest.mark.parametrize("lost", ["audio/tiny/reason/zarr.json", "audio/tiny/hidden/zarr.json", "audio/zarr.json"])
def test_a_crash_while_making_a_store_is_made_good(tmp_path: Path, lost: str) -> None:
    new_store(tmp_path / "undisturbed.zarr")
    store = new_store(tmp_path / "x.zarr")
    # Provenance and checksums of the metadata come last.
    for path in ("audio/tiny", "audio/tiny/checksum"):
        store.group[path].attrs.put({})
    (tmp_path / "x.zarr" / lost).unlink()
    new_store(tmp_path / "x.zarr")
    assert files(tmp_path / "x.zarr") == files(tmp_path / "undisturbed.zarr")


def test_a_crash_before_the_clip_ids_were_complete_is_made_good(tmp_path: Path) -> None:
    new_store(tmp_path / "undisturbed.zarr")
    group = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=3)
    group.create_array("clip_id", shape=(20,), dtype=str, chunks=(20,))
    new_store(tmp_path / "x.zarr")
    assert files(tmp_path / "x.zarr") == files(tmp_path / "undisturbed.zarr")


def test_leftovers_of_killed_writers_go(tmp_path: Path) -> None:
    full_store(tmp_path / "x.zarr")
    before = files(tmp_path / "x.zarr")
    (tmp_path / "x.zarr/audio/tiny/hidden/c/0/0/0.0123abcd.partial").write_bytes(b"half")
    remove_leftovers(tmp_path / "x.zarr")
    assert files(tmp_path / "x.zarr") == before


# Damage

CHUNK = "audio/tiny/hidden/c/1/2/0"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, truncate, empty, Path.unlink], ids=["flip", "truncate", "empty", "delete"])
def test_a_damaged_chunk_is_named_and_the_others_can_be_read(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    store = full_store(tmp_path / "x.zarr")
    damage(tmp_path / "x.zarr" / CHUNK)
    with pytest.raises(ValueError, match=r"audio/tiny/hidden: unit 1, layer 2 is damaged; .*then: make features SET"):
        store.read_layer(SPEC.path, 2)
    np.testing.assert_array_equal(store.read_layer(SPEC.path, 1), features(range(20))[:, 1])


@pytest.mark.parametrize("damage", [flip, Path.unlink], ids=["flip", "delete"])
def test_a_damaged_checksum_is_not_taken_for_good(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    store = full_store(tmp_path / "x.zarr")
    damage(tmp_path / "x.zarr/audio/tiny/checksum/c/1/0")
    with pytest.raises(ValueError, match=r"audio/tiny/checksum: unit 1 is damaged"):
        [store.read_layer(SPEC.path, layer) for layer in range(3)]


def test_a_flipped_state_is_not_taken_for_good(tmp_path: Path) -> None:
    store = full_store(tmp_path / "x.zarr")
    path = tmp_path / "x.zarr/audio/tiny/state/c/1"
    path.write_bytes(bytes([1, 1, 3, 1, 1, 1, 1, 1]))
    with pytest.raises(ValueError, match=r"audio/tiny/state: unit 1 is damaged"):
        store.read_layer(SPEC.path, 0)


@pytest.mark.parametrize("name", ["source", "state"])
def test_a_truncated_column_is_named(tmp_path: Path, name: str) -> None:
    store = full_store(tmp_path / "x.zarr")
    truncate(tmp_path / "x.zarr/audio/tiny" / name / "c/2")
    damaged = pytest.raises(ValueError, match=rf"audio/tiny/{name}: unit 2 is damaged; run: python -m cache repair")
    with damaged:
        store.column(SPEC.path, name)
    assert [store.unit_is_pending(SPEC.path, unit) for unit in range(2)] == [False, False]
    if name == "state":
        with damaged:
            store.unit_is_pending(SPEC.path, 2)


def test_a_unit_is_written_over_chunks_that_a_power_cut_left_empty(tmp_path: Path) -> None:
    """The last unit is shorter than its chunk: zarr would read the old chunk first."""
    full_store(tmp_path / "undisturbed.zarr")
    store = full_store(tmp_path / "x.zarr")
    store.reset_unit(SPEC.path, 2)
    (tmp_path / "x.zarr/audio/tiny/hidden/c/2/1/0").write_bytes(b"")
    (tmp_path / "x.zarr/audio/tiny/source/c/2").write_bytes(b"")
    store.write_unit(SPEC, 2, filled(range(16, 20)))
    assert files(tmp_path / "x.zarr") == files(tmp_path / "undisturbed.zarr")


@pytest.mark.parametrize("name", ["zarr.json", "hidden/zarr.json", "checksum/zarr.json"])
def test_changed_metadata_is_refused(tmp_path: Path, name: str) -> None:
    full_store(tmp_path / "x.zarr")
    flip(tmp_path / "x.zarr/audio/tiny" / name)
    with pytest.raises(ValueError, match=rf"audio/tiny/{name} is damaged; run: python -m cache repair"):
        new_store(tmp_path / "x.zarr")


def test_layers_are_those_of_the_provenance(tmp_path: Path) -> None:
    store = new_store(tmp_path / "x.zarr", spec=replace(SPEC, provenance={**PROVENANCE, "layers": [3, 7, 8]}))
    assert store.layers(SPEC.path) == (3, 7, 8)
    assert new_store(tmp_path / "y.zarr").layers(SPEC.path) == (0, 1, 2)


def test_a_lost_state_is_a_pending_unit(tmp_path: Path) -> None:
    store = full_store(tmp_path / "x.zarr")
    (tmp_path / "x.zarr/audio/tiny/state/c/1").unlink()
    assert [store.unit_is_pending(SPEC.path, unit) for unit in range(3)] == [False, True, False]


@pytest.mark.parametrize("content", [None, "", "{}", "not json"])
def test_no_store_is_one_line_with_the_command(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "clean.zarr").mkdir()
        (tmp_path / "clean.zarr/zarr.json").write_text(content)
    with pytest.raises(ValueError, match=r"clean\.zarr") as error:
        open_store(tmp_path / "clean.zarr")
    assert "make features" in str(error.value)
    assert "\n" not in str(error.value)


# Provenance


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"weights_sha256": "abd"}, "weights_sha256 was abc, is abd"),
        ({"condition": {"name": "clean", "seed": 1}}, "condition.seed was 0, is 1"),
        ({"pooling": "mean"}, "pooling was not recorded, is mean"),
        (
            {"encoder": "x", "condition": {"name": "y", "seed": 0}},
            "condition.name was clean, is y; encoder was tiny, is x",
        ),
    ],
)
def test_other_provenance_is_refused_with_the_difference_and_the_way_out(
    tmp_path: Path, changed: dict[str, Any], expected: str
) -> None:
    full_store(tmp_path / "clean.zarr")
    before = files(tmp_path / "clean.zarr")
    store = FeatureStore.create(tmp_path / "clean.zarr", names(20))
    with pytest.raises(ValueError, match=r"was made differently") as error:
        store.require(replace(SPEC, provenance={**PROVENANCE, **changed}))
    assert f"audio/tiny was made differently: {expected}; set another features_dir, or delete" in str(error.value)
    assert files(tmp_path / "clean.zarr") == before


def test_the_advice_works(tmp_path: Path) -> None:
    import shutil

    store = full_store(tmp_path / "clean.zarr")
    shutil.rmtree(tmp_path / "clean.zarr" / SPEC.path)
    store = FeatureStore.create(tmp_path / "clean.zarr", names(20))
    store.require(replace(SPEC, width=7, provenance={**PROVENANCE, "weights_sha256": "abd"}))
    assert store.shape(SPEC.path) == (20, 3, 7)
    assert (store.states(SPEC.path) == State.PENDING).all()


def test_the_same_provenance_changes_nothing(tmp_path: Path) -> None:
    full_store(tmp_path / "x.zarr")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "x.zarr").rglob("*")}
    new_store(tmp_path / "x.zarr")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "x.zarr").rglob("*")} == before


@pytest.mark.parametrize("more", [[*names(20), "another"], names(20)[::-1]])
def test_a_store_of_fewer_clips_is_not_written_to_as_it_is(tmp_path: Path, more: list[str]) -> None:
    full_store(tmp_path / "clean.zarr")
    with pytest.raises(ValueError, match=r"lacks [01] of the 2[01] clips .* run make features with it"):
        FeatureStore.create(tmp_path / "clean.zarr", more)


@pytest.mark.parametrize("other", [names(19), [*names(19), "another"]])
def test_a_store_of_other_clips_is_refused(tmp_path: Path, other: list[str]) -> None:
    full_store(tmp_path / "clean.zarr")
    with pytest.raises(ValueError, match=r"holds features of other clips.*set another features_dir, or delete"):
        FeatureStore.create(tmp_path / "clean.zarr", other)
