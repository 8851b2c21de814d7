"""What a large corpus costs grows with its size, not with the square of it: counts, never times."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import cache.care.growth
import extract.run.plan
from cache.care.growth import grow
from cache.corpus.clips import read_corpus, write_metadata
from cache.features.store import FeatureStore
from cache.features.units import unit_count
from cache.media import Media, MediaStore, Source
from extract.run.plan import PLAN_FILE, Plan, make_plan, prepare_stores, read_plan, write_plan
from extract.run.sources import check_sources
from tests.benchmarks.scale.encoders import write_stub_encoders
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
