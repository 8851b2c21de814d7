"""Stage one beside an object store: what was put there is never computed again, whatever network and machine do."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from cache.care.verify import verify
from cache.remote import bucket as buckets
from cache.remote.bucket import Bucket
from cache.remote.mirror import pull
from cache.remote.parts import Part
from cache.remote.published import Published
from extract.run import unit as units
from extract.run.plan import Plan, PlannedArray
from tests.cache.remote.faulty import ADDRESS, FAULTS, SECRET, FaultyProxy, healthy, now_and_then
from tests.tiny.corpus import write_tiny_mp4
from tests.tiny.stage_one import Done, Site, finish, wait_for, write_site

pytest.importorskip("obstore", reason="no obstore: pip install --no-deps -r requirements-s3.txt")
pytest.importorskip("moto.server", reason='no S3 server to test with: pip install "moto[server]"')
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
REMOTE = (f"remote={ADDRESS}", "max_failed=3")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return write_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def local(site: Site) -> Done:
    """The same without an object store."""
    return site.run_here("local", "max_failed=3")


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Part]:
    """Units of arrays that are computed in this process."""
    found, fill = list[Part](), units._fill_array

    def spy(plan: Plan, unit: int, array: PlannedArray, *others: object) -> None:
        found.append(Part(f"{array.condition.name}.zarr", array.spec.path, unit=unit))
        fill(plan, unit, array, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(units, "_fill_array", spy)
    return found


def there(folder: Path) -> set[Part]:
    return {part for part in Published(folder, ADDRESS).parts() if part.unit is not None}


def pulled(folder: Path) -> dict[str, bytes]:
    pull(ADDRESS, folder)
    assert not verify(folder).damage
    return Done(0, "", folder).stores


def test_units_are_there_through_faults_and_are_those_of_a_run_without(
    site: Site, local: Done, proxy: FaultyProxy, computed: list[Part], tmp_path: Path
) -> None:
    proxy.fault = now_and_then(1, 0.2)
    live = site.run_here("live", *REMOTE)
    assert live.code == local.code == 0, live.output
    assert {fault for _, _, fault in proxy.seen} == {"", *FAULTS}
    proxy.fault = healthy
    assert live.stores == local.stores
    assert pulled(tmp_path / "copy") == local.stores
    assert set(computed) == {part for part in there(tmp_path) if part.array}
    media = [part for part in there(tmp_path) if part.media]
    assert len(media) == 3
    for file in (tmp_path / "copy/media").rglob("*.h5"):
        assert file.read_bytes() == (local.folder / file.relative_to(tmp_path / "copy")).read_bytes()
    # Another machine: all of it comes through faults, nothing is computed or decoded, and nothing goes up.
    computed.clear()
    proxy.seen.clear()
    proxy.fault = now_and_then(2, 0.2)
    other = site.run_here("other", *REMOTE)
    proxy.fault = healthy
    assert other.code == 0, other.output
    assert "nothing to do" in other.output
    assert not computed
    assert other.stores == local.stores
    assert not [path for method, path, _ in proxy.seen if method == "PUT" and "/files/" in path]


def test_a_machine_that_is_killed_and_loses_its_disk_loses_what_it_had_in_work(
    site: Site, local: Done, proxy: FaultyProxy, computed: list[Part], tmp_path: Path
) -> None:
    process = site.start("killed", *REMOTE, ranks=1)
    wait_for(lambda: len([part for part in there(tmp_path) if part.array]) >= 2, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    known = {part for part in there(tmp_path) if part.array}
    assert len(known) < 15
    shutil.rmtree(site.root / "killed")
    proxy.fault = now_and_then(3, 0.2)
    again = site.run_here("killed", *REMOTE)
    proxy.fault = healthy
    assert again.code == 0, again.output
    assert f"{len(known)} units of features came from {ADDRESS}" in again.output
    assert not known & set(computed)
    assert len(computed) == len(set(computed)) == 15 - len(known)
    assert again.stores == local.stores == pulled(tmp_path / "copy")


def test_machines_that_share_an_address_end_with_the_same_bytes(
    site: Site, local: Done, proxy: FaultyProxy, tmp_path: Path
) -> None:
    both = [site.start(name, *REMOTE, ranks=1) for name in ("one", "two")]
    ended = [finish(process, site.root / name) for process, name in zip(both, ("one", "two"), strict=True)]
    assert [done.code for done in ended] == [0, 0], "\n".join(done.output for done in ended)
    assert all(done.stores == local.stores for done in ended)
    assert pulled(tmp_path / "copy") == local.stores
    made = [path for method, path, _ in proxy.seen if method == "PUT" and "/parts/" in path]
    assert set(made) == {f"/lab/features/one/parts/{part}/part.json" for part in Published(tmp_path, ADDRESS).parts()}


@pytest.mark.usefixtures("proxy")
def test_a_unit_that_another_machine_has_put_there_meanwhile_is_taken(
    site: Site, local: Done, computed: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is there when the run begins; all is when its ranks do."""
    meet, met = Published.parts, list[str]()

    def nothing_yet(self: Published, below: str = "") -> list[Part]:
        if met:
            return meet(self, below)
        met.append("")
        site.run_here("quicker", *REMOTE)
        computed.clear()
        return []

    monkeypatch.setattr(Published, "parts", nothing_yet)
    live = site.run_here("slower", *REMOTE)
    assert live.code == 0, live.output
    assert not computed
    assert "0 clips decoded" in live.output
    assert live.stores == local.stores


def test_what_the_network_refused_goes_up_when_it_is_back(
    site: Site, local: Done, proxy: FaultyProxy, computed: list[Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "PAUSES_SECONDS", (0.0,))
    proxy.fault = lambda method, path: "503" if method == "PUT" and "unit-" in path and "audio" in path else ""
    live = site.run_here("refused", *REMOTE)
    assert live.code == 2
    assert live.output.splitlines()[-1].startswith(f"error: {ADDRESS}: ")
    assert not [part for part in there(tmp_path) if part.array.startswith("audio")]
    proxy.fault = healthy
    again = site.run_here("refused", *REMOTE)
    assert again.code == 0, again.output
    assert len(computed) == len(set(computed))
    assert pulled(tmp_path / "copy") == local.stores


@pytest.mark.usefixtures("proxy")
def test_other_features_are_refused_before_anything_is_computed(
    site: Site, computed: list[Part], tmp_path: Path
) -> None:
    site.run_here("first", *REMOTE)
    before, objects = computed.copy(), Bucket(ADDRESS).sizes("")
    made_differently = site.run_here("otherwise", *REMOTE, "pooling=mean_std")
    assert "audio/wav2vec2 was made differently: pooling" in made_differently.output.splitlines()[-1]
    changed = Site(tmp_path / "site")
    shutil.copytree(site.root / "corpus", changed.root / "corpus")
    shutil.copytree(site.root / "encoders", changed.root / "encoders")
    write_tiny_mp4(changed.clips / "c00.mp4", 0.5, seed=99)
    other_file = changed.run_here("features", *REMOTE, f"encoders.audio={site.root}/encoders/wav2vec2")
    assert "unit-00000, made of other media files than this corpus has here" in other_file.output.splitlines()[-1]
    assert "remote=s3://bucket/other" in other_file.output
    assert [made_differently.code, other_file.code] == [2, 2]
    assert computed == before
    assert Bucket(ADDRESS).sizes("") == objects


def test_credentials_are_said_and_kept_nowhere(site: Site, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "PAUSES_SECONDS", ())
    said = [site.run_here("quiet", *REMOTE)]
    proxy.fault = lambda *_: "503"
    said.append(site.run_here("quiet", *REMOTE))
    said.append(site.run_here("quiet", f"remote=s3://testing:{SECRET}@lab/x"))
    assert [done.code for done in said] == [0, 2, 2]
    assert "remote: give s3://bucket/name: small letters and digits" in said[-1].output
    assert not [done.output for done in said if SECRET in done.output]
    files = [path for path in site.root.rglob("*") if path.is_file() and path.suffix in (".yaml", ".csv", ".json", "")]
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
