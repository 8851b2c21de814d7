"""The unit of work of stage one, called alone: no torchrun, no rank, no environment."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import extract.run.unit
from cache.features.layout import DEVIATION_FILE
from cache.features.rows import State
from configs.loader import check
from configs.schema.features import FeaturesConfig
from extract.run.plan import Plan, make_plan, prepare_stores
from extract.run.unit import Observer, Tools, decode_unit, load_tools, process_unit
from tests.tiny.corpus import write_tiny_corpus, write_tiny_encoders
from tests.tiny.encoders import recogniser as write_recogniser

CONDITIONS = ["clean", "noise-white-0db"]


class Enough(Exception):
    """Raised by a check that was asked often enough."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("unit")
    write_tiny_corpus(root / "corpus", ["1", "2", "3"], ["calm", "angry"], takes=2)
    write_tiny_encoders(root / "encoders")
    return root


def plan_of(site: Path, features: str, **settings: Any) -> Plan:
    tree = {
        "corpus": f"{site}/corpus/metadata.csv",
        "features_dir": f"{site}/{features}",
        "encoders": {"audio": f"{site}/encoders/wav2vec2", "video": None, "text": f"{site}/encoders/roberta"},
        "asr": {"model": None},
        "conditions": CONDITIONS,
        "media": {"size": 32},
        "batch_size": 2,
    }
    plan = make_plan(check(FeaturesConfig, {**tree, **settings}, "test"))
    prepare_stores(plan)
    return plan


@pytest.fixture(scope="module")
def tools(site: Path) -> Tools:
    plan = plan_of(site, "models")
    return load_tools(plan, {"audio", "text"}, torch.device(plan.device))


def stored(plan: Plan) -> dict[str, bytes]:
    files = [path for store in plan.features_dir.glob("*.zarr") for path in store.rglob("*") if path.is_file()]
    return {str(path.relative_to(plan.features_dir)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole(site: Path, tools: Tools) -> dict[str, bytes]:
    plan = plan_of(site, "whole")
    for unit in plan.units:
        process_unit(plan, unit, tools)
    assert not any(plan.lacks(unit) for unit in plan.units)
    return stored(plan)


def asked(times: int) -> Callable[[], None]:
    """A check that ends the work when it is asked once more than that."""
    left = [times]

    def check_() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Enough

    return check_


def test_units_come_in_any_order_and_only_what_is_asked_for_is_computed(
    site: Path, tools: Tools, whole: dict[str, bytes]
) -> None:
    plan = plan_of(site, "backwards")
    assert len(plan.units) == 2
    process_unit(plan, 1, tools)
    assert [plan.lacks(unit) for unit in plan.units] == [True, False]
    process_unit(plan, 0, tools)
    assert stored(plan) == whole


def test_a_second_call_does_nothing(site: Path, tools: Tools, whole: dict[str, bytes]) -> None:
    plan, seen = plan_of(site, "twice"), list[int]()
    for unit in plan.units:
        process_unit(plan, unit, tools)
    times = {path: path.stat().st_mtime_ns for path in plan.features_dir.rglob("*")}
    nothing_loaded = Tools(torch.device("cpu"), {}, None, None)
    for unit in plan.units:
        process_unit(plan, unit, nothing_loaded, Observer(asked(0), seen.append, seen.append))
    assert seen == []
    assert {path: path.stat().st_mtime_ns for path in plan.features_dir.rglob("*")} == times
    assert stored(plan) == whole


@pytest.mark.parametrize("times", [0, 9, 20, 32])
def test_a_unit_that_was_left_half_done_ends_with_the_same_bytes(
    site: Path, tools: Tools, whole: dict[str, bytes], times: int
) -> None:
    """While it decodes, in its first array, in the next ones."""
    plan = plan_of(site, f"half-{times}")
    with pytest.raises(Enough):
        process_unit(plan, 0, tools, Observer(asked(times)))
    assert plan.pending(0)
    for unit in plan.units:
        process_unit(plan, unit, tools)
    assert stored(plan) == whole


def test_a_unit_that_was_half_written_ends_with_the_same_bytes(
    site: Path, tools: Tools, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The features are there, what says so is not."""
    plan = plan_of(site, "unsaid")
    with monkeypatch.context() as patch:
        patch.setattr("cache.features.store.force_to_disk", _fail)
        with pytest.raises(OSError, match="no disk"):
            process_unit(plan, 0, tools)
    assert list(plan.features_dir.glob("clean.zarr/audio/wav2vec2/hidden/c/0/*/0"))
    assert (plan.stores["clean"].states("audio/wav2vec2") == State.PENDING).all()
    for unit in plan.units:
        process_unit(plan, unit, tools)
    assert stored(plan) == whole


def _fail(*_: object) -> None:
    raise OSError("no disk")


def test_who_looks_on_is_told_of_every_clip_and_row(site: Path, tools: Tools) -> None:
    plan, encoded, decoded = plan_of(site, "counted"), list[int](), list[int]()
    observer = Observer(encoded=encoded.append, decoded=decoded.append)
    for unit in plan.units:
        decode_unit(plan, unit, observer)
        process_unit(plan, unit, tools, observer, is_decoded=True)
    assert sum(decoded) == 12
    assert sum(encoded) == 12 * len(plan.arrays)


def test_it_knows_neither_ranks_nor_signals_nor_the_environment() -> None:
    tree = ast.parse(Path(extract.run.unit.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not {name for name in imported if name and name.startswith(("os", "signal", "configs.command"))}
    assert "extract.run.rank" not in imported


@pytest.fixture(scope="module")
def whisper(site: Path) -> dict[str, Any]:
    """Settings of a recogniser that takes four clips at a time; a unit has six."""
    return {"model": str(write_recogniser(site / "whisper.pt")), "engine": "transformers", "batch_size": 4}


def test_transcripts_in_batches_are_the_same_where_work_was_taken_up(site: Path, whisper: dict[str, Any]) -> None:
    """Rows of a batch were heard before, and are heard again beside the others that lack."""
    plan = plan_of(site, "heard", asr=whisper, conditions=["clean"])
    tools = load_tools(plan, {"audio", "text"}, torch.device(plan.device))
    for unit in plan.units:
        process_unit(plan, unit, tools)
    store = plan.stores["clean"]
    assert set(store.column("text/roberta", "transcript")) == {"dogs were sitting"}
    assert all(confidence > 0 for confidence in store.column("text/roberta", "confidence"))
    again = plan_of(site, "again", asr=whisper, conditions=["clean"])
    others = load_tools(again, {"audio", "text"}, torch.device(again.device))
    for times in (3, 9, 14):
        with pytest.raises(Enough):
            process_unit(again, 0, others, Observer(asked(times)))
    for unit in again.units:
        process_unit(again, unit, others)
    assert stored(again) == stored(plan)


def test_another_number_format_of_whisper_is_measured(
    site: Path, whisper: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where texts may be others."""
    for module in ("deviation", "recogniser"):
        monkeypatch.setattr(f"extract.asr.{module}.asr_precision", lambda _: "float16")
    plan = plan_of(site, "float16", asr=whisper, conditions=["clean"])
    process_unit(plan, 0, load_tools(plan, {"audio", "text"}, torch.device(plan.device)))
    found = json.loads((plan.stores["clean"].path / "text/roberta" / DEVIATION_FILE).read_text())
    assert set(found) == {"asr"}
    assert found["asr"]["clips"] == len(plan.clips(0))
    assert found["asr"]["other_texts"] == 0
