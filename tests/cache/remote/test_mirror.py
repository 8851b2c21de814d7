"""Features at an object store: no duplicate, no lost unit, no half one that reads as data, through all faults."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.__main__ import main
from cache.care.verify import verify
from cache.features.rows import ArraySpec, State, UnitRows
from cache.features.store import FeatureStore, open_store
from cache.features.units import unit_count, unit_rows
from cache.media import Media, MediaStore, Source
from cache.remote import bucket as buckets
from cache.remote.bucket import Bucket
from cache.remote.mirror import OF_THE_LAST_RUN, complete_files, pull, push
from cache.remote.parts import parts_here
from tests.cache.remote.faulty import ADDRESS, CUT, FAULTS, LOST, SECRET, FaultyProxy, healthy, now_and_then

pytest.importorskip("obstore", reason="no obstore: pip install --no-deps -r requirements-s3.txt")
pytest.importorskip("moto.server", reason='no S3 server to test with: pip install "moto[server]"')

COUNT = 20
SPEC = ArraySpec("audio", "tiny", 2, 4, {"encoder": "tiny"})


def write_units(folder: Path, units: range, seed: int = 0) -> FeatureStore:
    store = FeatureStore.create(folder / "clean.zarr", [f"c{n:02d}" for n in range(COUNT)])
    store.require(SPEC)
    for unit in units:
        rows = UnitRows.empty(len(unit_rows(COUNT, unit)), SPEC)
        rows.hidden_BLD[:] = np.random.default_rng(seed + unit).standard_normal(rows.hidden_BLD.shape)
        rows.state[:] = State.DONE
        store.write_unit(SPEC, unit, rows)
    return store


@pytest.fixture
def features_dir(tmp_path: Path) -> Path:
    """Three units of features and one part of media."""
    folder = tmp_path / "features"
    write_units(folder, range(unit_count(COUNT)))
    media = MediaStore(folder, {"frames": 0, "size": 8})
    clips = ((Media(np.full(5, n, np.float32), None), Source(f"{n:064d}", 1, 1, 1, 1)) for n in range(8))
    media.write_unit(0, clips)
    (folder / "config.yaml").write_text("corpus: x\n")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in complete_files(folder)}


def objects() -> dict[str, int]:
    return Bucket(ADDRESS).sizes("")


def after_some_puts(allowed: int) -> Callable[[str, str], str]:
    puts = iter(range(10_000))
    return lambda method, _: CUT if method == "PUT" and next(puts) >= allowed else ""


@pytest.mark.parametrize("seed", range(3))
def test_what_went_up_through_faults_comes_down_through_faults(
    features_dir: Path, tmp_path: Path, proxy: FaultyProxy, seed: int
) -> None:
    proxy.fault = now_and_then(seed, 0.3)
    push(features_dir, ADDRESS)
    pull(ADDRESS, tmp_path / "copy")
    assert {fault for _, _, fault in proxy.seen} == {"", *FAULTS}
    assert contents(tmp_path / "copy") == contents(features_dir)
    assert not verify(tmp_path / "copy").damage
    proxy.fault = healthy
    # Each content once, and what lists them.
    own = contents(features_dir)
    kept = {name for name in own if name not in OF_THE_LAST_RUN}
    parts = list(parts_here(features_dir))
    assert len(objects()) == len({own[name] for name in kept}) + len(parts) + len(own) - len(kept)
    proxy.seen.clear()
    assert "0 files" in push(features_dir, ADDRESS)
    assert not any(method == "PUT" for method, _, _ in proxy.seen)


def test_a_large_file_goes_up_in_parts_through_faults(
    tmp_path: Path, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "LARGE_BYTES", 2**20)
    file, copy = tmp_path / "unit.h5", tmp_path / "copy.h5"
    file.write_bytes(random.Random(0).randbytes(12 * 2**20))
    bucket = Bucket(ADDRESS)
    # The whole is put together, and nobody hears of it.
    lost = iter([LOST])
    proxy.fault = lambda method, path: next(lost, "") if method == "POST" and "uploadId" in path else ""
    bucket.add("files/one", file)
    assert ("POST", LOST) in {(method, fault) for method, _, fault in proxy.seen}
    cut = {"PUT": CUT, "GET": CUT}
    proxy.fault = lambda method, _: cut.pop(method, "")
    bucket.add("files/two", file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert [bucket.fetch(f"files/{name}", copy) for name in ("one", "two")] == [digest] * 2
    assert not cut


def test_a_push_that_ended_early_is_whole_parts_and_goes_on(
    features_dir: Path, tmp_path: Path, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "PAUSES_SECONDS", (0.0,))
    for allowed in (0, 3, 12):
        proxy.fault = after_some_puts(allowed)
        with pytest.raises(OSError, match=ADDRESS):
            push(features_dir, ADDRESS)
        proxy.fault = healthy
        copy = tmp_path / f"copy{allowed}"
        if allowed == 0:
            with pytest.raises(ValueError, match="no features were put at"):
                pull(ADDRESS, copy)
            assert not copy.exists()
        elif any(key.startswith("parts/clean.zarr/audio") for key in objects()):
            pull(ADDRESS, copy)
            assert contents(copy).items() <= contents(features_dir).items()
            assert not verify(copy).damage
    there = objects()
    proxy.seen.clear()
    push(features_dir, ADDRESS)
    pull(ADDRESS, tmp_path / "whole")
    assert contents(tmp_path / "whole") == contents(features_dir)
    files = [path for method, path, _ in proxy.seen if method == "PUT" and "/files/" in path]
    # Nothing that a part lists goes up again.
    assert len(files) < len([key for key in objects() if key.startswith("files/")])
    assert len(there) < len(objects())


def test_a_pull_that_ended_early_has_pending_units_and_goes_on(
    features_dir: Path, tmp_path: Path, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(features_dir, ADDRESS)
    copy = tmp_path / "copy"
    states = {name: content for name, content in contents(features_dir).items() if "/state/c/" in name}
    last = hashlib.sha256(states["clean.zarr/audio/tiny/state/c/0"]).hexdigest()
    proxy.fault = lambda _, path: LOST if last in path else ""
    with monkeypatch.context() as patch:
        patch.setattr(buckets, "PAUSES_SECONDS", (0.0,))
        with pytest.raises(OSError, match=ADDRESS):
            pull(ADDRESS, copy)
    store = open_store(copy / "clean.zarr")
    assert store.unit_is_pending("audio/tiny", 0)
    assert not verify(copy).damage or all("its data are complete" in one.problem for one in verify(copy).damage)
    proxy.fault = healthy
    pull(ADDRESS, copy)
    assert contents(copy) == contents(features_dir)


@pytest.mark.usefixtures("proxy")
def test_units_of_two_machines_come_together_and_none_is_lost(tmp_path: Path) -> None:
    one, other, copy = tmp_path / "one", tmp_path / "other", tmp_path / "copy"
    write_units(one, range(2))
    write_units(other, range(1, 3))
    with ThreadPoolExecutor(2) as pool:
        assert len(list(pool.map(lambda folder: push(folder, ADDRESS), (one, other)))) == 2
    pull(ADDRESS, copy)
    pull(ADDRESS, one)
    assert contents(one) == contents(copy)
    assert (open_store(copy / "clean.zarr").states("audio/tiny") == State.DONE).all()


@pytest.mark.usefixtures("proxy")
def test_of_two_who_push_other_features_at_once_the_second_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write_units(one, range(2))
    write_units(other, range(1, 2), seed=7)
    give, pushed = Bucket.replace, list[str]()

    def meanwhile(self: Bucket, key: str, content: bytes, version: str | None) -> bool:
        if "unit" in key and not pushed:
            pushed.append("")
            pushed.append(push(one, ADDRESS))
        return give(self, key, content, version)

    monkeypatch.setattr(Bucket, "replace", meanwhile)
    with pytest.raises(ValueError, match=r"unit 1 was made of other media files.*another place"):
        push(other, ADDRESS)
    pull(ADDRESS, tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(one)


def test_a_lost_answer_to_what_lists_a_part_is_no_refusal(features_dir: Path, proxy: FaultyProxy) -> None:
    proxy.fault = lambda method, path: (
        LOST if method == "PUT" and "/parts/" in path and (method, path, LOST) not in proxy.seen else ""
    )
    push(features_dir, ADDRESS)
    assert ("PUT", LOST) in {(method, fault) for method, _, fault in proxy.seen}


@pytest.mark.usefixtures("proxy")
def test_times_and_inodes_of_media_files_are_those_of_a_machine(features_dir: Path, tmp_path: Path) -> None:
    """Pulled decoded clips, once their files were looked at, were refused by the next push as other ones."""
    push(features_dir, ADDRESS)
    copy = tmp_path / "copy"
    pull(ADDRESS, copy)
    media = MediaStore(copy, {"frames": 0, "size": 8})
    media.refresh_sources(0, [replace(source, inode=99) for source in media.sources(0)])
    assert "0 files" in push(copy, ADDRESS)
    assert "0 files" in pull(ADDRESS, copy)


@pytest.mark.usefixtures("proxy")
def test_units_that_are_not_complete_stay_here(features_dir: Path, tmp_path: Path) -> None:
    (features_dir / "clean.zarr/audio/tiny/state/c/1").unlink()
    (features_dir / "clean.zarr/audio/tiny/checksum/c/1/0").unlink()
    (features_dir / "clean.zarr/audio/tiny/.unit-00001.kept").write_bytes(b"x")
    push(features_dir, ADDRESS)
    pull(ADDRESS, tmp_path / "copy")
    assert not [name for name in contents(tmp_path / "copy") if "/c/1" in name or "kept" in name]
    assert open_store(tmp_path / "copy/clean.zarr").unit_is_pending("audio/tiny", 1)


@pytest.mark.usefixtures("proxy")
def test_what_is_damaged_does_not_go_up_and_does_not_come_down(features_dir: Path, tmp_path: Path, server: int) -> None:
    import boto3

    push(features_dir, ADDRESS)
    chunk = features_dir / "clean.zarr/audio/tiny/state/c/0"
    name = hashlib.sha256(chunk.read_bytes()).hexdigest()
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{server}")
    client.put_object(Bucket="lab", Key=f"features/one/files/{name}", Body=b"\0" * chunk.stat().st_size)
    with pytest.raises(ValueError, match=rf"{name} \(clean.zarr/audio/tiny/state/c/\d\) is damaged"):
        pull(ADDRESS, tmp_path / "copy")
    assert not (tmp_path / "copy/clean.zarr/audio/tiny/state/c/0").exists()
    file = features_dir / "clean.zarr/audio/tiny/hidden/c/0/0/0"
    file.write_bytes(b"x" + file.read_bytes()[1:])
    with pytest.raises(ValueError, match=r"hidden, unit 0 .*run: python -m cache repair"):
        push(features_dir, "s3://lab/features/two")


@pytest.mark.usefixtures("proxy")
def test_other_features_are_neither_replaced_there_nor_here(features_dir: Path, tmp_path: Path) -> None:
    push(features_dir, ADDRESS)
    other = tmp_path / "other"
    shutil.copytree(features_dir, other)
    store = open_store(other / "clean.zarr")
    rows = UnitRows.empty(8, SPEC)
    rows.hidden_BLD[:], rows.state[:] = 1.0, State.DONE
    FeatureStore.create(other / "clean.zarr", store.clip_ids).write_unit(SPEC, 0, rows)
    with pytest.raises(ValueError, match=r"holds other features than .*clean.zarr.* differs.* another place"):
        push(other, ADDRESS)
    with pytest.raises(ValueError, match=r"holds other features than .* differs.*<a new folder>"):
        pull(ADDRESS, other)


@pytest.mark.usefixtures("proxy")
def test_what_is_there_may_not_name_files_outside(tmp_path: Path) -> None:
    for name in ("../x", "/etc/x", "clean.zarr/../../x", "notes.txt", "clean.zarr/.lock"):
        bucket = Bucket(f"s3://lab/{abs(hash(name))}")
        assert bucket.replace("parts/clean.zarr/part.json", f'{{"{name}": ["00", 1]}}'.encode(), None)
        with pytest.raises(ValueError, match=r"is no file of clean\.zarr"):
            pull(bucket.address, tmp_path / "copy")
    for name in ("notes", "=2E=2E/x.zarr", "clean.zarr/audio", "clean.zarr/.audio/x", "media/x"):
        bucket = Bucket(f"s3://lab/{abs(hash(name))}")
        assert bucket.replace(f"parts/{name}/part.json", b"{}", None)
        with pytest.raises(ValueError, match="is no part of a features folder"):
            pull(bucket.address, tmp_path / "copy")
    assert not (tmp_path / "copy/clean.zarr").exists()


def test_errors_are_one_line_without_credentials(
    features_dir: Path, proxy: FaultyProxy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "PAUSES_SECONDS", ())
    assert main(["push", str(features_dir), "s3://nobodys/name"]) == 2
    proxy.fault = lambda *_: "503"
    assert main(["push", str(features_dir), ADDRESS]) == 2
    assert main(["push", str(features_dir), f"s3://testing:{SECRET}@lab/x"]) == 2
    said = capsys.readouterr().err
    assert [line[:7] for line in said.splitlines()] == ["error: "] * 3
    assert SECRET not in said


@pytest.mark.usefixtures("proxy")
def test_the_commands_say_what_they_did(features_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(features_dir), ADDRESS]) == 0
    assert main(["pull", ADDRESS, str(tmp_path / "copy")]) == 0
    went, came = capsys.readouterr().out.splitlines()
    assert went.startswith(f"{ADDRESS}: ")
    assert came.startswith(f"{tmp_path / 'copy'}: ")
