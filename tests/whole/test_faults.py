"""Faults, really injected: processes killed at random moments, full disks, read-only folders."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import cache.features.chunks
import extract.run.rank
from cache.corpus.clips import Clip, write_metadata
from cache.corpus.ravdess import LABELS
from cache.features.rows import State
from cache.features.store import open_store, remove_leftovers
from configs.command.entry import main
from configs.command.launch import ERROR_FILE
from configs.command.stop import StopRequest
from configs.loader import load_config
from configs.schema.features import FeaturesConfig
from extract.__main__ import run
from extract.run.plan import PLAN_FILE, make_plan, prepare_stores, write_plan
from tests.tiny.corpus import tone, write_tiny_encoders
from tests.tiny.stage_one import Done, Site, ranks_of, wait_for, write_site

VICTIMS = ("launcher", "torchrun", "rank")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return write_site(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def undisturbed(site: Site) -> Done:
    return site.run_here("undisturbed", "max_failed=3")


def finished_chunks(folder: Path) -> dict[Path, int]:
    """When each chunk of the features of finished units was written."""
    written = {}
    for store in map(open_store, folder.glob("*.zarr")):
        for path in (f"{m}/{e}" for m in ("audio", "video", "text") for e in store.encoders(m)):
            done = store.states(path) != State.PENDING
            for chunk in (store.path / path / "hidden/c").glob("*/*/*"):
                if done[int(chunk.parent.parent.name) * 8]:
                    written[chunk] = chunk.stat().st_mtime_ns
    return written


def kill(site: Site, features: str, victim: str, rng: np.random.Generator, longest_seconds: float) -> None:
    """Start the run, or continue it, and kill one of its processes at a random moment; wait for the end."""
    process = site.start(features, "max_failed=3", ranks=int(rng.integers(1, 4)))
    wait_for(lambda: ranks_of(process) or process.poll() is not None, process)
    try:
        process.wait(rng.uniform(0, longest_seconds))
    except Exception:
        children = psutil.Process(process.pid).children()
        targets = {"launcher": [psutil.Process(process.pid)], "torchrun": children, "rank": ranks_of(process)}
        for target in targets[victim][:1]:
            target.kill()
    process.communicate(timeout=200)


def kill_often(site: Site, features: str, victims: Sequence[str], seed: int) -> dict[Path, int]:
    """Kill launcher, torchrun or a rank, one after the other; returns when finished chunks were first seen written."""
    rng, first_seen = np.random.default_rng(seed), dict[Path, int]()
    for victim in victims:
        kill(site, features, victim, rng, longest_seconds=8)
        first_seen = {**finished_chunks(site.root / features), **first_seen}
    return first_seen


def assert_nothing_was_lost(site: Site, features: str, first_seen: dict[Path, int], undisturbed: Done) -> None:
    final = site.run(features, "max_failed=3")
    assert final.code == 0, final.output
    assert final.stores == undisturbed.stores
    now = finished_chunks(site.root / features)
    assert {path: now[path] for path in first_seen} == first_seen, "a finished unit was computed again"


@pytest.mark.timeout(400)
def test_a_kill_of_each_kind_at_a_random_moment_loses_nothing(site: Site, undisturbed: Done) -> None:
    first_seen = kill_often(site, "each", VICTIMS, seed=5)
    assert_nothing_was_lost(site, "each", first_seen, undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_kills_at_random_moments_lose_nothing(site: Site, undisturbed: Done) -> None:
    """Ten runs of five kills each: a run that is finished has nothing left to lose."""
    for seed in range(10):
        victims = np.random.default_rng(seed).choice(VICTIMS, 5).tolist()
        first_seen = kill_often(site, f"fifty-{seed}", victims, seed)
        assert_nothing_was_lost(site, f"fifty-{seed}", first_seen, undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_torchrun_recovers_a_killed_rank_twenty_times_out_of_twenty(site: Site, undisturbed: Done) -> None:
    rng = np.random.default_rng(0)
    for number in range(20):
        features = f"restart-{number}"
        process = site.start(features, "max_failed=3")
        wait_for(lambda process=process: len(ranks_of(process)) == 2, process)  # type: ignore[misc]
        try:
            process.wait(rng.uniform(0, 6))
        except Exception:
            victims = ranks_of(process)
            victims[int(rng.integers(len(victims)))].kill()
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        assert Done(0, output, site.root / features).stores == undisturbed.stores


# Disks


def rank_main(site: Site, features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """One rank in this process; returns what it left for the launcher."""
    config = load_config(FeaturesConfig, site.config(features))
    plan = make_plan(config)
    prepare_stores(plan)
    write_plan(plan, tmp_path / PLAN_FILE)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setattr(StopRequest, "listen", lambda _: None)
    assert extract.run.rank.main([str(tmp_path)]) == 0
    error = tmp_path / ERROR_FILE
    return error.read_text() if error.exists() else ""


def failing_after(calls: int, code: int) -> Callable[[Any], None]:
    left = [calls]

    def fail(path: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(code, os.strerror(code), str(path))

    return fail


@pytest.mark.parametrize("calls", [0, 7, 40])
def test_a_full_disk_stops_with_one_line_and_loses_nothing(
    site: Site, undisturbed: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    features = f"full-{calls}"
    with monkeypatch.context() as patch:
        patch.setattr(cache.features.chunks, "fsync_path", failing_after(calls, errno.ENOSPC))
        error = rank_main(site, features, tmp_path, monkeypatch)
    assert "No space left on device" in error
    assert error.endswith("make room, then the same command continues")
    assert "\n" not in error
    (tmp_path / ERROR_FILE).unlink()
    assert rank_main(site, features, tmp_path, monkeypatch) == ""
    folder = site.root / features
    for store in folder.glob("*.zarr"):
        remove_leftovers(store)
    assert Done(0, "", folder).stores == undisturbed.stores


def test_a_read_only_folder_is_2_and_one_line(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    config = site.config("read-only")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        assert main(FeaturesConfig, run, "", ["--config", str(config)]) == 2
    assert "error: [Errno 30] Read-only file system: " in capsys.readouterr().err


# Many ranks


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_1440_clips_over_7_ranks_are_those_of_one(tmp_path: Path) -> None:
    import soundfile

    site, sound = Site(tmp_path), tone(1.0)
    write_tiny_encoders(site.root / "encoders")
    clips = [Clip(f"c{n:04d}", f"clips/c{n:04d}.wav", LABELS[n % 8], str(n % 24)) for n in range(1440)]
    site.clips.mkdir(parents=True)
    for number, clip in enumerate(clips):
        soundfile.write(site.root / "corpus" / clip.path, np.roll(sound, number)[: 8000 + number % 5], 16_000)
    write_metadata(clips, site.root / "corpus/metadata.csv")
    audio = ("encoders.video=null", "encoders.text=null", "conditions=[clean]")
    seven, one = (site.run(f"ranks-{ranks}", *audio, ranks=ranks) for ranks in (7, 1))
    assert (seven.code, one.code) == (0, 0), seven.output + one.output
    assert seven.stores == one.stores
    assert "1440 done" in seven.output
