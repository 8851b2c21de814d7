"""A corpus that grows keeps its rows. Once ten more participants meant computing everything again."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache.care.garbage import garbage_in
from cache.care.growth import grow, is_growing
from cache.care.verify import verify
from cache.corpus.clips import read_corpus, write_metadata
from cache.features.table import load_table
from configs.loader import check, dump_config
from configs.schema.features import FeaturesConfig
from extract.run.plan import PLAN_FILE, Plan, make_plan, prepare_stores, write_plan
from extract.run.sources import check_sources
from extract.run.unit import Observer, Tools, load_tools, process_unit
from tests.tiny.corpus import write_tiny_corpus, write_tiny_encoders, write_tiny_mp4
from tests.tiny.places import ROOT
from tests.tiny.stage_one import run_here

CONDITIONS = ["clean", "noise-white-0db", "noise-babble-0db", "occlude-block-50"]
# Clips of the metadata that are there first. Sorted by speaker, new ones come between, before and after them.
SMALL = {
    "all but one in the middle": [n for n in range(24) if n != 11],
    "a third": list(range(0, 24, 3)),
    "the last eight": list(range(16, 24)),
    "all, in another order": list(range(23, -1, -1)),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("growing")
    corpus = read_corpus(write_tiny_corpus(root / "corpus", ["1", "2", "3", "4"], ["calm", "angry"], takes=3))
    for name, rows in SMALL.items():
        write_metadata([corpus.clips[row] for row in rows], root / f"corpus/{name}.csv")
    write_tiny_encoders(root / "encoders")
    return root


def plan_of(site: Path, features: str, listed: str = "metadata", **settings: Any) -> Plan:
    names = {"audio": "wav2vec2", "video": "videomae", "text": "roberta"}
    tree = {
        "corpus": f"{site}/corpus/{listed}.csv",
        "features_dir": f"{site}/{features}",
        "encoders": {modality: f"{site}/encoders/{name}" for modality, name in names.items()},
        "asr": {"model": None},
        "conditions": CONDITIONS,
        "noise": {"babble_speakers": ["3", "4"]},
        "media": {"size": 32},
    }
    return make_plan(check(FeaturesConfig, {**tree, **settings}, "test"))


@pytest.fixture(scope="module")
def tools(site: Path) -> Tools:
    return load_tools(plan_of(site, "models"), {"audio", "video", "text"}, torch.device("cpu"))


def computed(plan: Plan, tools: Tools, observer: Observer) -> dict[str, bytes]:
    """What `make features` does, in this process; every file of the stores and the media in the end."""
    grow(plan.features_dir, plan.corpus, plan.specs)
    prepare_stores(plan)
    check_sources(plan)
    for unit in plan.units:
        process_unit(plan, unit, tools, observer)
    return files_of(plan.features_dir)


def files_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != PLAN_FILE]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def at_once(site: Path, tools: Tools) -> dict[str, bytes]:
    return computed(plan_of(site, "at-once"), tools, Observer())


@pytest.fixture(scope="module")
def third(site: Path, tools: Tools) -> Path:
    """The features of every third clip."""
    plan = plan_of(site, "third", "a third")
    computed(plan, tools, Observer())
    return plan.features_dir


@contextmanager
def counted(tools: Tools) -> Iterator[list[int]]:
    """How many clips the encoders of sound and pictures are given at a time, while this is open."""
    calls = list[int]()
    with pytest.MonkeyPatch.context() as patch:
        for modality in ("audio", "video"):
            encoder = tools.encoders[modality]

            def encode(prepared: Any, encode_: Callable[[Any], Any] = encoder.encode_prepared) -> Any:
                hidden_BLD = encode_(prepared)
                calls.append(len(hidden_BLD))
                return hidden_BLD

            patch.setattr(encoder, "encode_prepared", encode)
        yield calls


@pytest.mark.parametrize("name", SMALL)
def test_made_at_once_or_grown_gives_the_same_bytes_and_old_clips_are_not_computed(
    site: Path, tools: Tools, at_once: dict[str, bytes], name: str
) -> None:
    computed(plan_of(site, name, name), tools, Observer())
    plan, new, decoded = plan_of(site, name), 24 - len(SMALL[name]), list[int]()
    with counted(tools) as encoded:
        files = computed(plan, tools, Observer(decoded=decoded.append))
    assert sum(decoded) == new
    # Sound and pictures, clean and not. Babble is drawn from the corpus: of other voices it is new for every clip.
    assert sum(encoded) in (new * 5, new * 4 + 24)
    assert files == at_once
    assert not verify(plan.features_dir).damage


def test_stage_two_reads_the_grown_store(site: Path, third: Path, tools: Tools, at_once: dict[str, bytes]) -> None:
    assert at_once
    folder = shutil.copytree(third, site / "table")
    computed(plan_of(site, "table"), tools, Observer())
    clips = read_corpus(site / "corpus/metadata.csv").clips
    grown, fresh = (load_table(site / name, clips, ["audio", "video", "text"]) for name in (folder.name, "at-once"))
    for modality, values in fresh.features.items():
        np.testing.assert_array_equal(grown.features[modality], values)


# Stretches of recordings


@pytest.fixture(scope="module")
def parts(site: Path) -> Path:
    """A table of stretches, two of each of eight recordings, and of four whole ones; and of some of them."""
    clips = read_corpus(site / "corpus/metadata.csv").clips
    halves = {"0": ("", "0.3"), "1": ("0.3", "")}
    cut = [
        replace(clip, clip_id=f"{clip.clip_id}-{half}", start=start, end=end)
        for clip in clips[:8]
        for half, (start, end) in halves.items()
    ]
    write_metadata([*cut, *clips[8:12]], site / "corpus/parts.csv")
    write_metadata([*cut[::3], *clips[8:10]], site / "corpus/some parts.csv")
    return site / "corpus"


def test_a_corpus_of_stretches_grows_to_the_bytes_of_one_made_at_once(site: Path, parts: Path, tools: Tools) -> None:
    """Other stretches of the same recordings come between those that are there. Nothing tried it."""
    assert (parts / "parts.csv").exists()
    fresh = computed(plan_of(site, "parts-at-once", "parts", conditions=["clean"]), tools, Observer())
    computed(plan_of(site, "parts", "some parts", conditions=["clean"]), tools, Observer())
    plan, decoded = plan_of(site, "parts", "parts", conditions=["clean"]), list[int]()
    with counted(tools) as encoded:
        files = computed(plan, tools, Observer(decoded=decoded.append))
    assert files == fresh
    assert (sum(decoded), sum(encoded)) == (20 - 8, 2 * (20 - 8))


def test_a_stretch_that_was_moved_is_computed_again_where_the_corpus_grows(
    site: Path, parts: Path, tools: Tools
) -> None:
    clips = list(read_corpus(parts / "parts.csv").clips)
    clips[0] = replace(clips[0], end="0.30001")
    write_metadata(clips, parts / "moved.csv")
    fresh = computed(plan_of(site, "moved-at-once", "moved", conditions=["clean"]), tools, Observer())
    computed(plan_of(site, "moved", "some parts", conditions=["clean"]), tools, Observer())
    grown = computed(plan_of(site, "moved", "moved", conditions=["clean"]), tools, Observer())
    assert stores(grown) == stores(fresh)


# Killed

# In a process of its own: the clips are dealt anew, until a call of something is the last.
KILLED = f"""
import os, signal, sys
from pathlib import Path
import cache.care.growth
from cache.features.store import FeatureStore
from cache.media import MediaStore
from extract.run.plan import read_plan

plan = read_plan(Path(sys.argv[1]) / "{PLAN_FILE}")
what, left = sys.argv[2], [int(sys.argv[3])]
owner, name, is_late = {{
    "unit": (FeatureStore, "write_unit", False),
    "rows": (FeatureStore, "keep_rows", False),
    "media": (MediaStore, "keep_clips", False),
    "complete": (cache.care.growth, "write_atomic", False),
    "rename": (Path, "rename", True),
    "end": (cache.care.growth, "fsync_path", True),
}}[what]
call = getattr(owner, name)
def dying(*arguments, **named):
    if not is_late or (plan.features_dir / ".grown/complete").exists():
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return call(*arguments, **named)
setattr(owner, name, dying)
cache.care.growth.grow(plan.features_dir, plan.corpus, plan.specs)
"""
PLACES = [
    ("rows", 1),
    ("rows", 9),
    ("media", 2),
    ("complete", 1),
    ("rename", 1),
    ("rename", 2),
    ("rename", 6),
    ("end", 1),
]


@pytest.mark.parametrize(
    # Each kill costs three seconds: two places are tried always, all of them in the long run.
    ("what", "number"),
    [pytest.param(*place, marks=[] if place in PLACES[::4] else pytest.mark.slow) for place in PLACES],
)
def test_a_kill_leaves_the_old_stores_whole_or_the_next_run_goes_on(
    site: Path, third: Path, tools: Tools, at_once: dict[str, bytes], what: str, number: int
) -> None:
    folder = shutil.copytree(third, site / f"killed-{what}-{number}")
    before, plan = files_of(folder), plan_of(site, folder.name)
    write_plan(plan, folder / PLAN_FILE)
    command = [sys.executable, "-c", KILLED, str(folder), what, str(number)]
    killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr
    late = what in ("rename", "end")
    assert is_growing(folder) == late
    rubbish = {one.path.name for one in garbage_in(folder)} if (folder / "clean.zarr").exists() else set()
    assert (".grown" in rubbish) == (not late)
    if not late:
        assert {path: content for path, content in files_of(folder).items() if not path.startswith(".grown/")} == before
    with counted(tools) as encoded:
        assert computed(plan, tools, Observer()) == at_once
    assert sum(encoded) in (16 * 5, 16 * 4 + 24)


# Refused


def test_clips_that_are_gone_are_refused_and_nothing_is_changed(site: Path, third: Path) -> None:
    before, plan = files_of(third), plan_of(site, "third", "the last eight")
    with pytest.raises(ValueError, match=r"clean.zarr holds features of other clips .* are gone, first .*; list them"):
        grow(plan.features_dir, plan.corpus, plan.specs)
    assert files_of(third) == before


def test_rows_that_were_made_differently_are_refused_and_nothing_is_changed(site: Path, third: Path) -> None:
    before = files_of(third)
    clips = read_corpus(site / "corpus/metadata.csv").clips
    write_metadata([replace(clip, statement="Else") for clip in clips], site / "corpus/other.csv")
    other = {"corpus": f"{site}/corpus/other.csv"}
    for settings, message in ({"pooling": "mean_std"}, "pooling"), (other, "statements"):
        plan = plan_of(site, "third", **settings)
        with pytest.raises(ValueError, match=rf"made differently: .*{message}"):
            grow(plan.features_dir, plan.corpus, plan.specs)
    assert files_of(third) == before


def test_a_full_disk_leaves_the_old_stores_whole(site: Path, third: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, plan = files_of(third), plan_of(site, "third")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cache.media._write_clip", full)
    with pytest.raises(OSError, match="No space left"):
        grow(plan.features_dir, plan.corpus, plan.specs)
    assert files_of(third) == before


def test_damage_is_not_dealt_anew(site: Path, third: Path, tools: Tools, at_once: dict[str, bytes]) -> None:
    """A flipped bit of a feature is named; that of a decoded clip costs its unit's decoding."""
    folder = shutil.copytree(third, site / "damaged")
    plan = plan_of(site, "damaged")
    hidden = folder / "clean.zarr/audio/wav2vec2/hidden/c/0/1/0"
    content = hidden.read_bytes()
    hidden.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(ValueError, match=r"audio/wav2vec2/hidden: unit 0, layer 1 is damaged"):
        grow(plan.features_dir, plan.corpus, plan.specs)
    hidden.write_bytes(content)
    part = folder / "media/frames16-size32/unit-00000.h5"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    decoded = list[int]()
    assert computed(plan, tools, Observer(decoded=decoded.append)) == at_once
    assert sum(decoded) == 24


def test_a_clip_that_changed_meanwhile_is_computed_again(site: Path, third: Path, tools: Tools) -> None:
    copy = shutil.copytree(site / "corpus", site / "changed/corpus")
    shutil.copytree(third, site / "changed/features")
    write_tiny_mp4(copy / "clips/s1-calm-0.mp4", 0.5, seed=99)
    settings = {"corpus": f"{copy}/metadata.csv", "features_dir": f"{site}/changed/features"}
    plan, fresh = (
        plan_of(site, "", **settings),
        plan_of(site, "", **{**settings, "features_dir": f"{site}/changed/new"}),
    )
    assert stores(computed(plan, tools, Observer())) == stores(computed(fresh, tools, Observer()))


def stores(files: dict[str, bytes]) -> dict[str, bytes]:
    """Without the media, which know when their files were written."""
    return {path: content for path, content in files.items() if ".zarr/" in path}


# As users start it


def test_make_features_grows(site: Path, third: Path, at_once: dict[str, bytes]) -> None:
    folder = shutil.copytree(third, site / "command")
    plan = plan_of(site, "command")
    (site / "command.yaml").write_text(dump_config(plan.config))
    done = run_here(site / "command.yaml", folder)
    assert done.code == 0, done.output
    assert "note: 8 of 24 clips were there: what is known of them is kept" in done.output
    assert "16 clips decoded" in done.output
    assert stores(files_of(folder)) == stores(at_once)
    assert sorted(path.name for path in folder.glob(".*")) == [".lock"]
