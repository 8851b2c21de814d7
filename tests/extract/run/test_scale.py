"""What a large corpus costs grows with its size, not with the square of it: counts, never times."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import cache.care.growth
import extract.run.plan
from cache.care.growth import grow
from cache.care.verify import verify
from cache.corpus.clips import read_corpus, write_metadata
from cache.features.chunks import UnitLayers
from cache.features.store import FeatureStore
from cache.features.units import unit_count
from cache.media import Media, MediaStore, Source
from extract.__main__ import run as run_features
from extract.run.plan import PLAN_FILE, Plan, make_plan, prepare_stores, read_plan, write_plan
from extract.run.sources import check_sources
from tests.benchmarks.scale.encoders import write_stub_encoders
from tests.benchmarks.scale.steps import STEPS, Site, measured
from tests.benchmarks.scale.stub import fill, stub_clips, stub_config, write_stub_corpus

CLIPS = 150


@pytest.fixture(autouse=True, scope="module")
def quick_disk() -> Iterator[None]:
    """What reaches the disk when is tested elsewhere; here waiting for it would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A corpus whose features are all there, and no media."""
    folder = tmp_path_factory.mktemp("scale")
    write_stub_encoders(folder / "encoders")
    write_stub_corpus(folder, CLIPS)
    plan = make_plan(stub_config(folder, folder / "encoders"))
    prepare_stores(plan)
    fill(plan, plan.units)
    return plan


@contextmanager
def counted(owner: Any, name: str) -> Iterator[list[Any]]:
    """What a function returned, call by call, while this is open."""
    results, original = list[Any](), getattr(owner, name)

    def call(*arguments: Any, **named: Any) -> Any:
        results.append(original(*arguments, **named))
        return results[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, call)
        yield results


def test_a_rerun_reads_what_is_recorded_of_a_clip_once(plan: Plan) -> None:
    """Once all hashes were read for every unit: 23 s for ten thousand clips, days for a million."""
    with counted(FeatureStore, "column") as columns:
        assert check_sources(plan) == 0
    read = sum(map(len, columns))
    # The hashes of every array, and reasons and transcripts of sound and text.
    arrays = [array.spec.modality for array in plan.arrays]
    assert read == CLIPS * (len(arrays) + arrays.count("audio") + 2 * arrays.count("text"))


def test_stores_of_one_corpus_share_its_ids(plan: Plan) -> None:
    """Once each held a million texts of its own, in every rank."""
    first, *others = plan.stores.values()
    assert others
    assert all(store.clip_ids is first.clip_ids for store in others)


def test_ranks_read_a_plan_some_clips_at_a_time(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once its clips were one piece of JSON: every rank of a million clips held 1.3 GB."""
    monkeypatch.setattr(extract.run.plan, "CLIPS_PER_LINE", 20)
    write_plan(plan, tmp_path / PLAN_FILE)
    read = read_plan(tmp_path / PLAN_FILE)
    assert read == plan
    lines = (tmp_path / PLAN_FILE).read_bytes().splitlines()
    assert [line.count(b"clip-") // 2 for line in lines] == [0, *[20] * 7, 10]


def test_folders_are_resolved_once_and_not_for_every_clip(tmp_path: Path) -> None:
    """Once four times for every clip, link by link: 0.3 ms each, five minutes of a million clips."""
    write_metadata(stub_clips(2500), tmp_path / "metadata.csv")
    with counted(os.path, "realpath") as resolved:
        corpus = read_corpus(tmp_path / "metadata.csv")
    assert len(corpus.clips) == 2500
    folders = {clip.path.rpartition("/")[0] for clip in corpus.clips}
    assert len(resolved) == 1 + len(folders)


def test_a_corpus_that_grows_deals_its_clips_once_and_opens_few_files(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the places of all clips were looked up for every unit, and all media parts were open at the same time."""
    encoders = plan.features_dir.parent / "encoders"
    write_stub_corpus(tmp_path, CLIPS)
    small = make_plan(stub_config(tmp_path, encoders))
    prepare_stores(small)
    for unit in small.units:
        source = Source("0" * 64, 1, 1, 1, 1)
        small.media.write_unit(unit, iter([(Media(None, None), source)] * len(small.clips(unit))))
    write_stub_corpus(tmp_path, CLIPS + 50)
    large = make_plan(stub_config(tmp_path, encoders))
    monkeypatch.setattr(cache.care.growth, "UNITS_REMEMBERED", 2)
    open_now, most = [0], [0]
    original = MediaStore.open_unit

    @contextmanager
    def open_unit(store: MediaStore, unit: int) -> Iterator[Any]:
        with original(store, unit) as media:
            open_now[0] += 1
            most[0] = max(most[0], open_now[0])
            yield media
        open_now[0] -= 1

    monkeypatch.setattr(MediaStore, "open_unit", open_unit)
    with counted(cache.care.growth, "_places") as dealt:
        assert grow(large.features_dir, large.corpus, large.specs)
    # Once for each store, and once for the media.
    assert len(dealt) == 1 + len(large.stores)
    assert unit_count(CLIPS) > 2
    assert (most, open_now) == ([2], [0])


@pytest.mark.slow
def test_ten_thousand_clips_from_the_manifest_to_a_trained_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundredth of a million, as `make bench BENCH=scale` runs it, beside a quarter of that; all in shards."""
    few, many = (lived_through(Site(tmp_path / str(clips), clips, most_chunks=100)) for clips in (2_500, 10_000))
    # Memory for each further clip: its text, and of training its rows and what is predicted of it. Others are flat.
    for step in many.peaks_mib:
        clip_bytes = (many.peaks_mib[step] - few.peaks_mib[step]) * 2**20 / 7500
        assert clip_bytes < (6_000 if "train" in step else 3_000), step
    # Of an array a unit is a shard, states, hashes and checksums; what else there is does not grow.
    assert (many.files - few.files) / (unit_count(10_000) - unit_count(2_500)) == 4 * 4
    assert many.counts["verify"] == 0
    for step in ("verify: find that unit", "repair it", "compute it again"):
        assert many.counts[step] == 1, step
    folder = tmp_path / "10000"
    assert verify(folder / "features").damage == []

    def refuse(*_: object) -> None:
        raise AssertionError("nothing is left to do")

    before = modified(folder / "features")
    for owner, name in ((UnitLayers, "read"), (FeatureStore, "read_rows"), (FeatureStore, "write_unit")):
        monkeypatch.setattr(owner, name, refuse)
    assert run_features(stub_config(folder, folder / "encoders")) == 0
    assert modified(folder / "features") == before


@dataclass(frozen=True)
class Life:
    """What the steps of a corpus took and counted, by their names, and how many files came of it."""

    peaks_mib: Mapping[str, float]
    counts: Mapping[str, int]
    files: int


def lived_through(site: Site) -> Life:
    site.folder.mkdir()
    took = {step: measured(site, step) for step in STEPS if "Parquet" not in step or find_spec("pyarrow")}
    peaks = {step: one.peak_mib for step, one in took.items()}
    return Life(peaks, {step: one.counted for step, one in took.items()}, len(modified(site.folder / "features")))


def modified(folder: Path) -> dict[str, int]:
    """When files were last written to; what a run writes of itself is left out."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.parent != folder)
    return {str(file): file.stat().st_mtime_ns for file in files}
