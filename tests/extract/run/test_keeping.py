"""Work inside a unit is kept. Once a run that was stopped or killed began its unit again from the first clip."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache.features.chunks import kept_file, kept_rows
from cache.features.rows import ArraySpec, State, UnitRows
from cache.features.store import FeatureStore, remove_leftovers
from cache.media import Failure, Source
from configs.loader import check
from configs.schema.features import FeaturesConfig
from extract.run.keeping import Keeping
from extract.run.plan import PLAN_FILE, Plan, make_plan, prepare_stores, write_plan
from extract.run.unit import Observer, Tools, decode_unit, load_tools, process_unit
from tests.tiny.corpus import write_tiny_corpus, write_tiny_encoders
from tests.tiny.places import ROOT

AUDIO = "audio/wav2vec2"
# In a process of its own, which dies without a word in the middle of unit 0: after its third batch of two clips.
KILLED = f"""
import os, signal, sys
from pathlib import Path
import torch
import extract.run.keeping
from extract.run.plan import read_plan
from extract.run.unit import Observer, load_tools, process_unit

extract.run.keeping.SECONDS_BETWEEN_KEEPING = float(sys.argv[2])
plan = read_plan(Path(sys.argv[1]) / "{PLAN_FILE}")
rows = []
def encoded(count):
    rows.extend([0] * count)
    if len(rows) >= 6:
        os.kill(os.getpid(), signal.SIGKILL)
process_unit(plan, 0, load_tools(plan, {{"audio"}}, torch.device("cpu")), Observer(encoded=encoded))
"""
# The same while the clips of the unit are decoded: at its fourth, or in the middle of keeping the third.
KILLED_DECODING = f"""
import os, signal, sys
from pathlib import Path
import cache.media
import extract.run.unit
from extract.run.plan import read_plan
from extract.run.unit import Observer, decode_unit

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

extract.run.unit.SECONDS_BETWEEN_KEEPING = float(sys.argv[2])
plan = read_plan(Path(sys.argv[1]) / "{PLAN_FILE}")
clips = []
def decoded(count):
    clips.extend([0] * count)
    if len(clips) >= 3 and sys.argv[3] == "sha256":
        cache.media.sha256_of = die
    if len(clips) >= 3 and sys.argv[3] == "sidecar":
        cache.media.write_atomic = die
    if len(clips) >= 4:
        die()
decode_unit(plan, 0, Observer(decoded=decoded))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("keeping")
    write_tiny_corpus(root / "corpus", ["1", "2", "3"], ["calm", "angry"], takes=2)
    write_tiny_encoders(root / "encoders")
    return root


def plan_of(site: Path, features: str) -> Plan:
    tree = {
        "corpus": f"{site}/corpus/metadata.csv",
        "features_dir": f"{site}/{features}",
        "encoders": {"audio": f"{site}/encoders/wav2vec2", "video": None, "text": None},
        "conditions": ["clean"],
        "media": {"size": 32},
        "batch_size": 2,
    }
    plan = make_plan(check(FeaturesConfig, tree, "test"))
    prepare_stores(plan)
    return plan


@pytest.fixture(scope="module")
def tools(site: Path) -> Tools:
    return load_tools(plan_of(site, "models"), {"audio"}, torch.device("cpu"))


@pytest.fixture(scope="module")
def whole(site: Path, tools: Tools) -> dict[str, bytes]:
    return completed(plan_of(site, "whole"), tools)


def completed(plan: Plan, tools: Tools) -> dict[str, bytes]:
    """Every file of the stores once all units are computed."""
    for unit in plan.units:
        process_unit(plan, unit, tools)
    files = [path for store in plan.features_dir.glob("*.zarr") for path in store.rglob("*") if path.is_file()]
    return {str(path.relative_to(plan.features_dir)): path.read_bytes() for path in files}


def counted(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many clips each call of the encoder was given, from now on."""
    encoder, calls = tools.encoders["audio"], list[int]()
    encode = encoder.encode_prepared

    def counting(prepared: Any) -> Any:
        hidden_BLD = encode(prepared)
        calls.append(len(hidden_BLD))
        return hidden_BLD

    monkeypatch.setattr(encoder, "encode_prepared", counting)
    return calls


@pytest.mark.parametrize(("seconds", "kept"), [(0, 4), pytest.param(60, 0, marks=pytest.mark.slow)])
def test_what_was_encoded_before_a_kill_is_not_encoded_again(
    site: Path, tools: Tools, whole: dict[str, bytes], seconds: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches of two were complete when the third had just been encoded."""
    plan = plan_of(site, f"killed-{seconds}")
    write_plan(plan, plan.features_dir / PLAN_FILE)
    command = [sys.executable, "-c", KILLED, str(plan.features_dir), str(seconds)]
    killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr
    assert kept_file(plan.features_dir / "clean.zarr" / AUDIO, 0).exists() == bool(kept)
    assert plan.pending(0)
    calls = counted(tools, monkeypatch)
    assert completed(plan, tools) == whole
    assert sum(calls) == 12 - kept


def test_what_was_encoded_before_a_stop_is_kept_at_once(
    site: Path, tools: Tools, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, seen = plan_of(site, "stopped"), list[int]()

    def stop_after_two_batches() -> None:
        if sum(seen) >= 4:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        process_unit(plan, 0, tools, Observer(stop_after_two_batches, seen.append))
    calls = counted(tools, monkeypatch)
    told = list[int]()
    process_unit(plan, 0, tools, Observer(encoded=told.append))
    assert sum(calls) == 8 - sum(seen)
    assert sum(told) == 8
    assert completed(plan, tools) == whole


@pytest.mark.parametrize(
    ("seconds", "place", "kept"),
    [
        pytest.param(60, "", 0, marks=pytest.mark.slow),
        (0, "", 3),
        pytest.param(0, "sha256", 2, marks=pytest.mark.slow),
        (0, "sidecar", 2),
    ],
)
def test_what_was_decoded_before_a_kill_is_not_decoded_again(
    site: Path, tools: Tools, whole: dict[str, bytes], seconds: int, place: str, kept: int
) -> None:
    """Once every clip of the unit was. A piece that was half written, or that nothing vouches for yet, is not used."""
    plan = plan_of(site, f"decoding-{seconds}-{place}")
    write_plan(plan, plan.features_dir / PLAN_FILE)
    command = [sys.executable, "-c", KILLED_DECODING, str(plan.features_dir), str(seconds), place]
    killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr
    assert not plan.media.has_unit(0)
    decoded = list[int]()
    decode_unit(plan, 0, Observer(decoded=decoded.append))
    assert decoded == [int(row >= kept) for row in range(8)]
    assert not plan.media.kept_parts(0)
    assert completed(plan, tools) == whole
    never_killed = plan_of(site, "whole")
    assert plan.media.part(0).read_bytes() == never_killed.media.part(0).read_bytes()


def test_what_was_decoded_before_a_stop_is_kept_at_once(site: Path, tools: Tools, whole: dict[str, bytes]) -> None:
    plan, seen = plan_of(site, "stopped-decoding"), list[int]()

    def stop_after_two_clips() -> None:
        if len(seen) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        decode_unit(plan, 0, Observer(stop_after_two_clips, decoded=seen.append))
    decoded = list[int]()
    decode_unit(plan, 0, Observer(decoded=decoded.append))
    assert decoded == [0, 0, 1, 1, 1, 1, 1, 1]
    assert completed(plan, tools) == whole


def test_a_clip_that_could_not_be_decoded_before_a_stop_is_tried_again_where_that_is_asked_for(site: Path) -> None:
    plan = plan_of(site, "failed")
    source = Source.of(plan.corpus.source(plan.clips(0)[0]))
    plan.media.keep_clips(0, iter([(0, (Failure("no luck"), source))]))
    decode_unit(replace(plan, config=replace(plan.config, retry_failed=True)), 0)
    with plan.media.open_unit(0) as unit:
        assert unit.failure(0) == ""


# What is kept, and for whom


SPEC = ArraySpec("text", "roberta", layers=2, width=3, provenance={"encoder": "roberta"})
CLIPS = [f"c{number}" for number in range(20)]


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    store = FeatureStore.create(tmp_path / "clean.zarr", CLIPS)
    store.require(SPEC)
    return store


def half_done() -> UnitRows:
    """Of eight rows the first is done, the second failed, the third absent."""
    rows = UnitRows.empty(8, SPEC)
    rows.source = [f"hash {row}" for row in range(8)]
    rows.columns["transcript"][0], rows.columns["confidence"][0] = "Kids talk", np.float32(0.1)
    rows.done(0, np.arange(6, dtype=np.float32).reshape(2, 3))
    rows.fail(1, "no samples")
    rows.absent(2, "empty transcript")
    return rows


def test_all_of_a_row_comes_back(store: FeatureStore) -> None:
    store.keep_rows(SPEC, 1, half_done(), half_done().decided)
    back, rows = store.kept_rows(SPEC, 1), half_done()
    assert list(back.state) == [State.DONE, State.FAILED, State.ABSENT, *[State.PENDING] * 5]
    np.testing.assert_array_equal(back.hidden_BLD, rows.hidden_BLD)
    assert back.reason == rows.reason
    assert back.source[:3] == rows.source[:3]
    assert back.columns["transcript"] == rows.columns["transcript"]
    assert np.float32(back.columns["confidence"][0]) == np.float32(0.1)
    assert not store.kept_rows(SPEC, 0).decided.any()


def test_rows_of_another_make_of_other_clips_or_damaged_are_not_taken_up(store: FeatureStore) -> None:
    folder = store.path / SPEC.path
    store.keep_rows(SPEC, 0, half_done(), half_done().decided)
    other = ArraySpec(SPEC.modality, SPEC.encoder, SPEC.layers, SPEC.width, {"encoder": "bert"})
    assert kept_rows(folder, 0, SPEC, CLIPS[:8]).decided.any()
    assert not kept_rows(folder, 0, other, CLIPS[:8]).decided.any()
    assert not kept_rows(folder, 0, SPEC, CLIPS[1:9]).decided.any()
    content = bytearray(kept_file(folder, 0).read_bytes())
    for place in (0, 40, len(content) // 2, len(content) - 1):
        flipped = content.copy()
        flipped[place] ^= 1
        kept_file(folder, 0).write_bytes(flipped)
        assert not kept_rows(folder, 0, SPEC, CLIPS[:8]).decided.any()


def test_a_row_of_a_file_that_changed_is_computed_again(store: FeatureStore) -> None:
    store.keep_rows(SPEC, 0, half_done(), half_done().decided)
    now = ["hash 0", "another", *half_done().source[2:]]
    keeping = Keeping(store, SPEC, 0, now)
    assert list(np.flatnonzero(keeping.rows.decided)) == [0, 2]
    assert keeping.taken_up == 2
    assert keeping.rows.source == now


def test_it_is_kept_once_a_minute(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("extract.run.keeping.time.monotonic", lambda: clock[0])
    keeping, file, seen = Keeping(store, SPEC, 0, half_done().source), kept_file(store.path / SPEC.path, 0), []
    for row in range(8):
        clock[0] += 25.0
        keeping.rows.fail(row, "no samples")
        keeping.between()
        seen.append(int(store.kept_rows(SPEC, 0).decided.sum()) if file.exists() else 0)
    assert seen == [0, 0, 3, 3, 3, 6, 6, 6]


@pytest.mark.parametrize("ended", [FeatureStore.reset_unit, lambda store, *_: remove_leftovers(store.path)])
def test_a_file_that_outlived_its_unit_goes(
    store: FeatureStore, ended: Callable[[FeatureStore, str, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer was killed after it had written the state."""
    rows, file = half_done(), kept_file(store.path / SPEC.path, 0)
    store.keep_rows(SPEC, 0, rows, rows.decided)
    remove_leftovers(store.path)
    assert file.exists()
    for row in range(3, 8):
        rows.fail(row, "no samples")
    with monkeypatch.context() as patch:
        patch.setattr("cache.features.store.forget_kept", lambda *_: None)
        store.write_unit(SPEC, 0, rows)
    assert file.exists()
    ended(store, SPEC.path, 0)
    assert not file.exists()
