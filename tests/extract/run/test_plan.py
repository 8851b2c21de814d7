"""The plan of a run: handed over whole, so that a rank looks for nothing and hashes nothing."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import extract.run.rank
from cache.corpus.clips import read_corpus, write_metadata
from cache.features.provenance import difference
from cache.features.rows import State
from cache.features.store import open_store
from configs.command.launch import ERROR_FILE
from configs.command.stop import StopRequest
from configs.loader import check
from configs.schema.features import FeaturesConfig
from extract.run.plan import PLAN_FILE, Plan, make_plan, prepare_stores, read_plan, write_plan
from extract.run.unit import load_tools
from tests.tiny.corpus import tone, write_tiny_corpus, write_tiny_encoders

soundfile = pytest.importorskip("soundfile")
AUDIO = "audio/wav2vec2"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plan")
    write_tiny_corpus(root / "corpus", ["1", "2"], ["calm", "angry"])
    write_tiny_encoders(root / "encoders")
    (root / "noise").mkdir()
    soundfile.write(root / "noise/hum.wav", tone(2.0), 16_000)
    return root


def plan_of(site: Path, features: str, **settings: Any) -> Plan:
    tree = {
        "corpus": f"{site}/corpus/metadata.csv",
        "features_dir": f"{site}/{features}",
        "encoders": {"audio": f"{site}/encoders/wav2vec2", "video": f"{site}/encoders/videomae", "text": None},
        "conditions": ["noise-file-0db", "noise-babble-0db", "occlude-block-50"],
        "noise": {"folder": f"{site}/noise", "babble_speakers": ["1", "2"]},
        "media": {"size": 32},
    }
    return make_plan(check(FeaturesConfig, {**tree, **settings}, "test"))


def rank(plan: Plan, exchange: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """One rank in this process, from the plan in the folder alone; returns the error that it left."""
    exchange.mkdir()
    prepare_stores(plan)
    write_plan(plan, exchange / PLAN_FILE)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setattr(StopRequest, "listen", lambda _: None)
    assert extract.run.rank.main([str(exchange)]) == 0
    error = exchange / ERROR_FILE
    return error.read_text() if error.exists() else ""


@pytest.mark.parametrize(
    ("modality", "name", "files", "message"),
    [
        ("audio", "wav2vec2", ["preprocessor_config.json"], "has no feature extractor"),
        ("video", "videomae", ["preprocessor_config.json"], "has no image processor"),
        ("text", "roberta", ["tokenizer.json", "vocab.json"], "has no tokenizer"),
    ],
)
def test_an_encoder_that_cannot_be_fed_is_refused_before_anything_is_written(
    site: Path, tmp_path: Path, modality: str, name: str, files: list[str], message: str
) -> None:
    folder = shutil.copytree(site / "encoders" / name, tmp_path / name)
    for file in files:
        (folder / file).unlink(missing_ok=True)
    with pytest.raises(ValueError, match=rf"^encoders\.{modality}: {folder} {message}"):
        plan_of(site, "refused", encoders={"audio": None, "video": None, "text": None, modality: str(folder)})
    assert not (site / "refused").exists()


def test_clips_whose_label_is_null_are_not_computed_and_other_names_change_nothing(site: Path, tmp_path: Path) -> None:
    """Once `labels`, which all later stages take, was an unknown key here."""
    first, *others = read_corpus(site / "corpus/metadata.csv").clips
    table = {"corpus": str(tmp_path / "metadata.csv"), "corpus_root": str(site / "corpus")}
    write_metadata([replace(first, label="bored"), *others], tmp_path / "metadata.csv")
    whole, named = plan_of(site, "features", **table), plan_of(site, "features", **table, labels={"calm": "still"})
    assert named.specs == whole.specs
    assert len(named.corpus.clips) == len(whole.corpus.clips) == 1 + len(others)
    fewer = plan_of(site, "features", **table, labels={"bored": None})
    assert [clip.clip_id for clip in fewer.corpus.clips] == [clip.clip_id for clip in others]
    with pytest.raises(ValueError, match=r"labels: .* has no label 'clam' \(did you mean calm"):
        plan_of(site, "features", **table, labels={"clam": None})


def test_a_plan_arrives_as_it_was_made(site: Path, tmp_path: Path) -> None:
    plan = plan_of(site, "written")
    write_plan(plan, tmp_path / PLAN_FILE)
    read = read_plan(tmp_path / PLAN_FILE)
    assert read == plan
    assert [dict(array.spec.provenance) for array in read.arrays] == [
        dict(array.spec.provenance) for array in plan.arrays
    ]
    for kind in ("noise-file", "noise-babble"):
        drawn = [one.noises.draw(kind, 800, np.random.default_rng(3), "elsewhere") for one in (plan, read)]
        np.testing.assert_array_equal(drawn[0], drawn[1])


def test_a_rank_hashes_no_model_and_no_recording(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once every rank made the plan again: a read of all weights, of all noise files and of the voices' clips."""
    plan, hashed = plan_of(site, "unhashed"), list[str]()
    digest = hashlib.file_digest

    def listening(file: Any, name: Any) -> Any:
        hashed.append(file.name)
        return digest(file, name)

    def refuse(*_: object) -> None:
        raise AssertionError("a rank looks for nothing")

    monkeypatch.setattr(hashlib, "file_digest", listening)
    for name in ("models.find_model", "models._settings_sha256"):
        monkeypatch.setattr(f"extract.encoders.{name}", refuse)
    for name in ("babble.babble_pool", "files.os.walk"):
        monkeypatch.setattr(f"extract.corrupt.noise.{name}", refuse)
    assert rank(plan, tmp_path / "exchange", monkeypatch) == ""
    assert not any(plan.lacks(unit) for unit in plan.units)
    folders = {Path(name).relative_to(site).parts[0] for name in hashed}
    # What is decoded is hashed as it is decoded, by processes of their own; the decoded part, when it is written.
    assert folders <= {"unhashed"}
    assert folders


def test_a_noise_file_that_is_none_is_refused_before_anything_is_written(site: Path, tmp_path: Path) -> None:
    shutil.copytree(site / "noise", tmp_path / "noise")
    (tmp_path / "noise/page.wav").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=r"noise.folder: page.wav cannot be decoded \(.+\); take it out"):
        plan_of(site, "refused", noise={"folder": f"{tmp_path}/noise"}, conditions=["noise-file-0db"])
    assert not (site / "refused").exists()


def test_a_noise_file_that_breaks_off_ends_the_run_and_fails_no_clip(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once every clip that drew it was a failed clip, for good."""

    def break_off(*_: object, **__: object) -> None:
        raise ValueError("the file is cut off")

    monkeypatch.setattr("extract.corrupt.noise.files.decode", break_off)
    plan = plan_of(site, "broken", conditions=["noise-file-0db"])
    error = rank(plan, tmp_path / "exchange", monkeypatch)
    assert error == "noise.folder: hum.wav cannot be decoded (the file is cut off); take it out"
    states = {name: open_store(plan.features_dir / f"{name}.zarr").states(AUDIO) for name in plan.stores}
    assert (states["clean"] == State.DONE).any()
    assert (states["noise-file-0db"] == State.PENDING).all()


def test_what_ends_one_rank_ends_the_others(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(site, "ended", conditions=["clean"])
    exchange = tmp_path / "exchange"
    monkeypatch.setattr("extract.run.rank.load_tools", lambda *_: (exchange / ERROR_FILE).write_text("enough"))
    assert rank(plan, exchange, monkeypatch) == "enough"
    assert all(plan.lacks(unit) for unit in plan.units)


@pytest.fixture
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch says that there is one, and so does the driver."""
    monkeypatch.setattr("extract.run.provenance._can_be_loaded", lambda _: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)


def made_with(plan: Plan, modality: str) -> dict[str, Any]:
    return dict(next(array.spec.provenance for array in plan.arrays if array.spec.modality == modality))


def heard(site: Path, features: str) -> Plan:
    (site / "whisper.pt").write_bytes(b"stands for a checkpoint")
    encoders = {"audio": f"{site}/encoders/wav2vec2", "video": None, "text": f"{site}/encoders/roberta"}
    return plan_of(site, features, encoders=encoders, asr={"model": f"{site}/whisper.pt"}, conditions=["clean"])


@pytest.mark.usefixtures("_gpu")
def test_a_gpu_is_in_the_provenance_and_so_is_whispers_precision(site: Path) -> None:
    plan = heard(site, "gpu")
    assert plan.device == made_with(plan, "audio")["device"] == made_with(plan, "text")["device"] == "cuda"
    assert made_with(plan, "text")["asr"]["precision"] == "float16"


@pytest.mark.usefixtures("_gpu")
def test_the_other_engine_is_in_the_provenance(site: Path) -> None:
    (site / "whisper.pt").write_bytes(b"stands for a checkpoint")
    encoders = {"audio": None, "video": None, "text": f"{site}/encoders/roberta"}
    asr = {"model": f"{site}/whisper.pt", "engine": "transformers", "batch_size": 8}
    plan = plan_of(site, "engine", encoders=encoders, asr=asr, conditions=["clean"])
    made = made_with(plan, "text")["asr"]
    assert (made["engine"], made["precision"], made["model"]) == ("transformers", "float16", "whisper.pt")
    assert "whisper-timestamped" not in made["libraries"]
    assert set(plan.checkpoint) == {site / "whisper.pt"}
    assert difference({"asr.model": "x"}, {"asr.model": "x", "asr.engine": "transformers"}) == (
        "asr.engine whisper-timestamped, not transformers"
    )


def test_a_cpu_is_not_so_that_its_stores_keep_their_bytes(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    plan = heard(site, "cpu")
    assert plan.device == "cpu"
    made = made_with(plan, "text")["asr"]
    assert not {"device", "precision"} & {*made_with(plan, "audio"), *made}
    # As before there were two engines.
    assert set(made) == {"model", "statements_sha256", "weights_sha256", "language", "libraries"}
    assert {"whisper-timestamped", "openai-whisper"} < set(made["libraries"])


def test_a_store_of_a_cpu_is_not_continued_on_a_gpu(site: Path, request: pytest.FixtureRequest) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: False)
        prepare_stores(heard(site, "both"))
    request.getfixturevalue("_gpu")
    with pytest.raises(ValueError, match=r"audio/wav2vec2 was made differently: device was cpu, is cuda; set another"):
        prepare_stores(heard(site, "both"))


@pytest.mark.usefixtures("_gpu")
def test_a_rank_that_finds_no_gpu_does_not_write_rows_of_one(site: Path) -> None:
    with pytest.raises(ValueError, match=r"planned for a GPU, but torch now finds the CPU alone"):
        load_tools(heard(site, "lost"), {"audio"}, torch.device("cpu"))


@pytest.mark.parametrize("name", ["model.safetensors", "preprocessor_config.json"])
def test_a_model_that_changed_since_it_was_hashed_is_refused(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shutil.copytree(site / "encoders/wav2vec2", tmp_path / "wav2vec2")
    encoders = {"audio": f"{tmp_path}/wav2vec2", "video": None, "text": None}
    plan = plan_of(site, f"changed-{name}", encoders=encoders, conditions=["clean"])
    file = tmp_path / "wav2vec2" / name
    file.write_bytes(file.read_bytes())
    error = rank(plan, tmp_path / "exchange", monkeypatch)
    assert error == f"{file} was changed after this run had been planned; start it again"
    assert (open_store(plan.features_dir / "clean.zarr").states(AUDIO) == State.PENDING).all()
