"""Features at an object store: no duplicate, no lost unit, no half one that reads as data, through all faults."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable, Iterator
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
from cache.remote.mirror import complete_files, pull, push
from tests.cache.remote.faulty import CUT, FAULTS, LOST, FaultyProxy, healthy

pytest.importorskip("obstore", reason="no obstore: pip install --no-deps -r requirements-s3.txt")
pytest.importorskip("moto.server", reason='no S3 server to test with: pip install "moto[server]"')

COUNT, SECRET = 20, "a-secret-that-nobody-may-read"
SPEC = ArraySpec("audio", "tiny", 2, 4, {"encoder": "tiny"})
ADDRESS = "s3://lab/features/one"


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    yield running.get_host_and_port()[1]
    running.stop()


@pytest.fixture
def proxy(server: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """An empty bucket behind a proxy that does not fail yet; nothing is waited for."""
    import boto3

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    resource = boto3.resource("s3", endpoint_url=f"http://127.0.0.1:{server}")
    resource.create_bucket(Bucket="lab")
    resource.Bucket("lab").objects.delete()
    monkeypatch.setattr(buckets, "PAUSES_SECONDS", (0.01,) * 12)
    running = FaultyProxy(server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
    yield running
    running.shutdown()
    running.server_close()


def write_units(folder: Path, units: range) -> FeatureStore:
    store = FeatureStore.create(folder / "clean.zarr", [f"c{n:02d}" for n in range(COUNT)])
    store.require(SPEC)
    for unit in units:
        rows = UnitRows.empty(len(unit_rows(COUNT, unit)), SPEC)
        rows.hidden_BLD[:] = np.random.default_rng(unit).standard_normal(rows.hidden_BLD.shape)
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


def now_and_then(seed: int, share: float) -> Callable[[str, str], str]:
    draw = random.Random(seed)
    return lambda *_: draw.choice(FAULTS) if draw.random() < share else ""


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
    # Each content once, and the manifest.
    assert len(objects()) == len(set(contents(features_dir).values())) + 1
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


def test_a_push_that_ended_early_is_nothing_and_goes_on(
    features_dir: Path, tmp_path: Path, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "PAUSES_SECONDS", (0.0,))
    puts = iter(range(10_000))
    proxy.fault = lambda method, _: CUT if method == "PUT" and next(puts) >= 10 else ""
    with pytest.raises(OSError, match=ADDRESS):
        push(features_dir, ADDRESS)
    proxy.fault = healthy
    there = objects()
    assert 0 < len(there) <= 10
    with pytest.raises(ValueError, match="no features were pushed"):
        pull(ADDRESS, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    proxy.seen.clear()
    push(features_dir, ADDRESS)
    assert sum(method == "PUT" for method, _, _ in proxy.seen) == len(objects()) - len(there)


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
    one, other = tmp_path / "one", tmp_path / "other"
    write_units(one, range(2))
    write_units(other, range(2, 3))
    push(one, ADDRESS)
    with pytest.raises(ValueError, match=r"other lacks \d+ files of s3://lab/features/one.*pull.*then push again"):
        push(other, ADDRESS)
    pull(ADDRESS, other)
    push(other, ADDRESS)
    pull(ADDRESS, one)
    assert contents(one) == contents(other)
    assert (open_store(one / "clean.zarr").states("audio/tiny") == State.DONE).all()


@pytest.mark.usefixtures("proxy")
def test_of_two_who_push_at_once_the_second_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write_units(one, range(2))
    write_units(other, range(2, 3))
    sizes, pushed = Bucket.sizes, list[str]()

    def meanwhile(self: Bucket, below: str) -> dict[str, int]:
        if not pushed:
            pushed.append("")
            pushed.append(push(one, ADDRESS))
        return sizes(self, below)

    monkeypatch.setattr(Bucket, "sizes", meanwhile)
    with pytest.raises(ValueError, match=r"somebody else pushed to \S+ at the same time; run: .* pull"):
        push(other, ADDRESS)
    pull(ADDRESS, tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(one)


def test_a_lost_answer_to_the_manifest_is_no_refusal(features_dir: Path, proxy: FaultyProxy) -> None:
    lost = iter([LOST])
    proxy.fault = lambda method, path: next(lost, "") if method == "PUT" and "manifest" in path else ""
    push(features_dir, ADDRESS)
    assert ("PUT", LOST) in {(method, fault) for method, _, fault in proxy.seen}


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
    with pytest.raises(ValueError, match=r"holds other features: \d+ files differ .* push to another name"):
        push(other, ADDRESS)
    with pytest.raises(ValueError, match=r"holds other features: \d+ files differ .* name another folder"):
        pull(ADDRESS, other)


@pytest.mark.usefixtures("proxy")
def test_a_manifest_may_not_name_files_outside(tmp_path: Path) -> None:
    for name in ("../x", "/etc/x", "clean.zarr/../../x", "notes.txt", "clean.zarr/.lock"):
        bucket = Bucket(f"s3://lab/{abs(hash(name))}")
        assert bucket.replace("manifest.json", f'{{"files": {{"{name}": ["00", 1]}}}}'.encode(), None)
        with pytest.raises(ValueError, match="is no file of a features folder"):
            pull(bucket.address, tmp_path / "copy")


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
