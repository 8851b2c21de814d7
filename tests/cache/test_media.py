"""The media store: each clip decoded once, parts appear complete, changed files are noticed cheaply."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cache.files.hashes import sha256_of
from cache.media import Failure, Media, MediaStore, Source, damaged_part, needless_parts
from tests.tiny.corpus import pictures, tone

PROVENANCE = {"frames": 4, "size": 32, "libraries": {"decord": "0.6.0"}}
UNCHANGED = Source("sha", 1, 2, 3, 4)


def clips() -> list[tuple[Media | Failure, Source]]:
    both = Media(tone(0.1), pictures(4, 32, 32))
    outcomes: list[Media | Failure] = [both, Media(None, pictures(4, 32, 32, 1)), Media(tone(0.2), None)]
    outcomes += [Failure("the file is empty (0 bytes)"), Media(np.zeros(0, np.float32), None)]
    return [(outcome, Source(f"sha{row}", row, 2, 3, 4)) for row, outcome in enumerate(outcomes)]


@pytest.fixture
def store(tmp_path: Path) -> MediaStore:
    store = MediaStore(tmp_path, PROVENANCE)
    store.write_unit(3, iter(clips()))
    return store


def test_what_is_written_is_read(store: MediaStore) -> None:
    with store.open_unit(3) as unit:
        assert unit.sources == [source for _, source in clips()]
        for row, (outcome, _) in enumerate(clips()):
            assert unit.failure(row) == (outcome.reason if isinstance(outcome, Failure) else "")
            expected = outcome if isinstance(outcome, Media) else Media(None, None)
            read = unit.read(row, "audio", "video")
            for got, wanted in ((read.waveform_T, expected.waveform_T), (read.frames_THWC, expected.frames_THWC)):
                assert (got is None) == (wanted is None)
                if got is not None and wanted is not None:
                    np.testing.assert_array_equal(got, wanted)
                    assert got.dtype == wanted.dtype


def test_only_what_is_asked_for_is_read(store: MediaStore) -> None:
    with store.open_unit(3) as unit:
        assert unit.read(0, "audio").frames_THWC is None
        assert unit.read(0, "video").waveform_T is None


def test_units_are_there_or_not(store: MediaStore) -> None:
    assert store.has_unit(3)
    assert not store.has_unit(2)
    assert store.is_current(3)
    store.forget_unit(3)
    store.forget_unit(3)
    assert not store.has_unit(3)
    assert list(store.folder.iterdir()) == []


@pytest.mark.usefixtures("store")
def test_other_settings_have_their_own_folder(tmp_path: Path) -> None:
    assert not MediaStore(tmp_path, {**PROVENANCE, "size": 64}).has_unit(3)
    assert not MediaStore(tmp_path, {**PROVENANCE, "frames": 0}).has_unit(3)


@pytest.mark.usefixtures("store")
def test_other_provenance_is_not_current(tmp_path: Path) -> None:
    assert not MediaStore(tmp_path, {**PROVENANCE, "libraries": {"decord": "0.7.0"}}).is_current(3)


def test_a_crash_while_decoding_leaves_nothing(tmp_path: Path) -> None:
    store = MediaStore(tmp_path, PROVENANCE)

    def interrupted() -> Iterator[tuple[Media | Failure, Source]]:
        yield from clips()[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write_unit(0, interrupted())
    assert not store.has_unit(0)
    assert list(store.folder.iterdir()) == []


def keep_two_pieces(store: MediaStore) -> None:
    """Clip 0, then clips 1 and 2, of a unit that was not completed."""
    store.keep_clips(0, iter([(0, clips()[0])]))
    end_after_three_clips(store)


def end_after_three_clips(store: MediaStore) -> None:
    def ending() -> Iterator[tuple[Media | Failure, Source]]:
        yield from clips()[:3]
        raise InterruptedError

    with pytest.raises(InterruptedError):
        store.write_unit(0, ending(), 3600.0)


def test_what_is_kept_of_a_unit_is_read_from_all_its_pieces(tmp_path: Path) -> None:
    store = MediaStore(tmp_path, PROVENANCE)
    keep_two_pieces(store)
    assert [part.name for part in store.kept_parts(0)] == ["kept-00000.h5", "kept-00000-001.h5"]
    with store.open_kept(0) as kept:
        assert {row: source for row, (_, source) in kept.items()} == {row: clips()[row][1] for row in range(3)}
        np.testing.assert_array_equal(kept[2][0].waveform(2), tone(0.2))
    store.write_unit(0, iter(clips()))
    assert store.kept_parts(0) == []


def test_a_damaged_piece_is_not_used_and_its_clips_are_kept_anew(tmp_path: Path) -> None:
    store = MediaStore(tmp_path, PROVENANCE)
    keep_two_pieces(store)
    content = bytearray(store.kept_part(0, 1).read_bytes())
    content[len(content) // 2] ^= 1
    store.kept_part(0, 1).write_bytes(content)
    with store.open_kept(0) as kept:
        assert list(kept) == [0]
    end_after_three_clips(store)
    with store.open_kept(0) as kept:
        assert list(kept) == [0, 1, 2]


def test_pieces_of_a_unit_that_is_complete_are_not_needed(tmp_path: Path) -> None:
    """Their writer was killed before it deleted them."""
    store = MediaStore(tmp_path, PROVENANCE)
    keep_two_pieces(store)
    assert list(needless_parts(tmp_path)) == []
    pieces = {path: path.read_bytes() for path in store.folder.glob("kept-*")}
    store.write_unit(0, iter(clips()))
    for path, content in pieces.items():
        path.write_bytes(content)
    assert [part.name for part in needless_parts(tmp_path)] == ["kept-00000-001.h5", "kept-00000.h5"]


def test_a_part_without_its_sources_is_not_there(store: MediaStore) -> None:
    """They are written second: a crash between the two means decoding again."""
    store.part(3).with_suffix(".sources.json").unlink()
    assert not store.has_unit(3)


@pytest.mark.parametrize("content", [None, b"", b"\x89HDF\r\n\x1a\n", b"x" * 5000])
def test_an_unreadable_part_is_named(store: MediaStore, content: bytes | None) -> None:
    store.part(3).unlink()
    if content is not None:
        store.part(3).write_bytes(content)
    with pytest.raises(
        ValueError, match=r'unit-00003\.h5 is not readable .*delete it and run: make features SET="features_dir='
    ):
        store.open_unit(3).__enter__()


def test_refreshed_sources_replace_the_old(store: MediaStore) -> None:
    store.refresh_sources(3, [UNCHANGED] * 5)
    assert store.sources(3) == [UNCHANGED] * 5
    assert store.is_current(3)


# Sources


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_source_is_its_content_and_its_times(tmp_path: Path) -> None:
    path = write(tmp_path / "x", b"content")
    source, stat = Source.of(path), path.stat()
    assert source == Source(sha256_of(path), 7, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    assert source.sha256 == "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
    assert source.looks_unchanged(path)


def test_replacing_by_a_file_of_equal_size_and_time_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "x", b"content")
    source = Source.of(path)
    other = write(tmp_path / "y", b"CONTENT")
    os.utime(other, ns=(source.mtime_ns, source.mtime_ns))
    other.replace(path)
    assert path.stat().st_mtime_ns == source.mtime_ns
    assert not source.looks_unchanged(path)


def test_writing_in_place_with_the_old_time_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "x", b"content")
    source = Source.of(path)
    write(path, b"CONTENT")
    os.utime(path, ns=(source.mtime_ns, source.mtime_ns))
    assert not source.looks_unchanged(path)


def test_touching_looks_changed_but_hashes_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "x", b"content")
    source = Source.of(path)
    os.utime(path, ns=(1, 1))
    assert not source.looks_unchanged(path)
    assert Source.of(path).sha256 == source.sha256


def test_a_missing_file_has_no_hash_and_looks_changed_once_it_is_there(tmp_path: Path) -> None:
    missing = Source.of(tmp_path / "x")
    assert missing.sha256 == ""
    assert missing.looks_unchanged(tmp_path / "x")
    assert not missing.looks_unchanged(write(tmp_path / "x", b""))


def test_neither_folders_nor_pipes_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert Source.of(tmp_path / "pipe") == Source.of(tmp_path) == Source("", 0, 0, 0, 0)


# Damage


def test_an_intact_part_is_well(store: MediaStore) -> None:
    assert damaged_part(store.part(3)) == ""


def test_a_flipped_bit_is_found_by_reading_all_and_a_lost_end_by_the_size(store: MediaStore) -> None:
    intact = store.part(3).read_bytes()
    store.part(3).write_bytes(intact[:900] + bytes([intact[900] ^ 4]) + intact[901:])
    assert store.has_unit(3)
    assert damaged_part(store.part(3)) == "its SHA-256 is not that of what was written"
    store.part(3).write_bytes(intact[:-5])
    assert not store.has_unit(3)
    assert damaged_part(store.part(3)) == f"it has {len(intact) - 5} bytes, {len(intact)} were written"
    store.part(3).unlink()
    assert damaged_part(store.part(3)) == "it is missing"


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{}", b"\xff", b"not json"])
def test_a_damaged_sidecar_means_decoding_again(store: MediaStore, content: bytes | None) -> None:
    sidecar = store.part(3).with_suffix(".sources.json")
    sidecar.unlink()
    if content is not None:
        sidecar.write_bytes(content)
    assert not store.has_unit(3)
    assert damaged_part(store.part(3)) == f"unit-00003.sources.json is {'missing' if content is None else 'damaged'}"
    with pytest.raises(
        ValueError, match=r"unit-00003\.sources\.json is damaged; delete it and run: make features SET="
    ):
        store.is_current(3)
    store.write_unit(3, iter(clips()))
    assert damaged_part(store.part(3)) == ""


def test_every_bit_of_a_sidecar_is_guarded(store: MediaStore) -> None:
    sidecar = store.part(3).with_suffix(".sources.json")
    intact = sidecar.read_bytes()
    for position in range(0, 8 * len(intact), 11):
        changed = bytearray(intact)
        changed[position // 8] ^= 1 << position % 8
        sidecar.write_bytes(changed)
        assert not store.has_unit(3)


def test_refreshing_sources_keeps_the_checksum(store: MediaStore) -> None:
    store.refresh_sources(3, [UNCHANGED] * 5)
    assert damaged_part(store.part(3)) == ""


def test_a_crash_between_part_and_sidecar_leaves_no_old_sidecar(
    store: MediaStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MediaStore, "_write_sidecar", crash)
    with pytest.raises(KeyboardInterrupt):
        store.write_unit(3, iter(clips()[:1]))
    assert not store.has_unit(3)
