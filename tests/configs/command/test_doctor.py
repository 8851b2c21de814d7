"""`make doctor`: made-up machines, and what is said of each."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import configs.command.doctor.__main__ as doctor
from configs.command.doctor.checks import GIB, Finding, examine, needed_bytes
from configs.command.doctor.machine import Machine, Probe, look, probe
from configs.schema.features import Asr, Encoders, FeaturesConfig, MediaSettings

CONFIG = FeaturesConfig(corpus="data/metadata.csv", encoders=Encoders(audio="org/audio", video=None, text=None))
CUDA_13 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
CUDA_12_6 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
V100, H100 = ["Tesla V100", 7, 0, 32 * GIB], ["H100", 9, 0, 80 * GIB]


def torch_with(*devices: Any, built_for: Any = CUDA_13, cuda: str = "13.0") -> Probe:
    return Probe({"version": "2.11.0", "cuda": cuda, "built_for": built_for, "devices": list(devices)})


WELL = Machine(
    python=(3, 12),
    packages={"numpy": ("2.4.6", "2.4.6")},
    torch=torch_with(),
    av=Probe({"version": "18.1.0", "lacks": []}),
    decord=Probe({"version": "0.6.0"}),
    gpus=(),
    features_dir=Path("/data"),
    writable=True,
    free_bytes=500 * GIB,
    models={"org/audio": "/models/audio"},
    whisper_file=None,
    offline=False,
    hub_answers=None,
    memory_bytes=64 * GIB,
    cores=8,
    clips=1440,
)


def findings(subject: str, config: FeaturesConfig = CONFIG, ranks: int = 2, **changes: Any) -> list[Finding]:
    return [one for one in examine(replace(WELL, **changes), config, ranks) if one.subject == subject]


def test_a_machine_that_lacks_nothing_is_well_in_every_line() -> None:
    report = examine(WELL, CONFIG, ranks=2)
    assert {one.level for one in report} == {"ok"}
    assert {one.subject for one in report} >= {"python", "torch", "gpu", "disk", "PyAV", "decord", "model", "whisper"}
    assert not any(one.remedy for one in report)


@pytest.mark.parametrize(
    ("subject", "changes", "level", "remedy"),
    [
        ("python", {"python": (3, 13)}, "fail", "PYTHON="),
        ("packages", {"packages": {"zarr": ("3.1.6", "")}}, "fail", "make setup"),
        ("packages", {"packages": {"numpy": ("2.4.6", "2.4.5")}}, "warn", "make setup"),
        ("torch", {"torch": Probe({}, "libcudart.so.13: no such file")}, "fail", "make setup"),
        ("gpu", {"torch": torch_with(V100)}, "fail", "TORCH_INDEX=https://download.pytorch.org/whl/cu126"),
        ("gpu", {"gpus": ("Tesla V100, 7.0",)}, "warn", "cu126"),
        ("disk", {"writable": False}, "fail", "features_dir="),
        ("disk", {"free_bytes": GIB // 2}, "fail", "features_dir="),
        ("disk", {"free_bytes": 2 * GIB}, "warn", "features_dir="),
        ("PyAV", {"av": Probe({}, "No module named 'av'")}, "fail", "make setup"),
        ("PyAV", {"av": Probe({"version": "9", "lacks": ["libdav1d", "hevc"]})}, "warn", "make setup"),
        ("decord", {"decord": Probe({}, "no wheel")}, "warn", "media.reader=av"),
        ("model", {"models": {"org/audio": ""}, "offline": True}, "fail", "encoders.audio=models/audio"),
        ("model", {"models": {"org/audio": ""}, "hub_answers": False}, "fail", "encoders.audio=models/audio"),
        ("whisper", {"whisper_file": Path("/nowhere/base.en.pt")}, "warn", "asr.model=/path/base.en.pt"),
        ("memory", {"memory_bytes": 4 * GIB}, "warn", "RANKS=1"),
        ("memory", {"memory_bytes": 0}, "warn", "3 GiB"),
        ("threads", {"cores": 1}, "warn", "RANKS=1"),
    ],
)
def test_each_illness_has_its_remedy(subject: str, changes: dict[str, Any], level: str, remedy: str) -> None:
    (found,) = findings(subject, **changes)
    assert found.level == level
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("built_for", "device", "level"),
    [
        (CUDA_12_6, V100, "ok"),
        (CUDA_13, V100, "fail"),
        (CUDA_13, H100, "ok"),
        (["sm_80"], ["A10", 8, 6, GIB], "ok"),  # the same major version, an earlier minor one
        (["sm_86"], ["A100", 8, 0, GIB], "fail"),
        (["sm_70", "compute_70"], H100, "ok"),  # PTX is compiled for what came later
        (["sm_90a"], H100, "ok"),
    ],
)
def test_a_gpu_needs_kernels_of_its_own_generation(built_for: list[str], device: list[Any], level: str) -> None:
    (found,) = findings("gpu", torch=torch_with(device, built_for=built_for))
    assert found.level == level


def test_a_v100_is_told_that_it_computes_in_float16() -> None:
    (found,) = findings("gpu", torch=torch_with(V100, built_for=CUDA_12_6))
    assert "float16 (no bfloat16" in found.found
    (found,) = findings("gpu", torch=torch_with(H100))
    assert found.found.endswith("bfloat16")


def test_decord_is_needed_where_it_was_asked_for() -> None:
    config = replace(CONFIG, media=MediaSettings(reader="decord"))
    assert findings("decord", config, decord=Probe({}, "no wheel"))[0].level == "fail"


def test_a_whisper_of_transformers_is_one_of_the_models() -> None:
    config = replace(CONFIG, asr=Asr("base.en", engine="transformers"))
    (found,) = findings("whisper", config)
    assert (found.level, found.found) == ("ok", "openai/whisper-base.en is a model of transformers")
    (found,) = findings("model", config, models={"openai/whisper-base.en": ""}, hub_answers=False)
    assert (found.level, "SET=asr.model=models/whisper-base.en" in found.remedy) == ("fail", True)


def test_a_model_that_the_hub_has_is_well() -> None:
    (found,) = findings("model", models={"org/audio": ""}, hub_answers=True)
    assert found.level == "ok"
    assert "downloaded" in found.found


def test_room_grows_with_clips_and_conditions() -> None:
    clean = replace(CONFIG, conditions=CONFIG.conditions[:1])
    assert needed_bytes(2000, CONFIG) == 2 * needed_bytes(1000, CONFIG) > 2 * needed_bytes(1000, clean)
    assert needed_bytes(1440, CONFIG) > 1440 * 16 * 224 * 224 * 3


def test_the_doctor_outlives_what_it_tries() -> None:
    assert probe("import os; os.abort()").failure == "its process ended with -6"
    assert probe("import no_such_package").failure == "ModuleNotFoundError: No module named 'no_such_package'"
    assert probe("found = {'version': '1'}") == Probe({"version": "1"})


def test_this_machine_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").touch()
    (tmp_path / "metadata.csv").write_text("clip_id,path,label,speaker\na,a.wav,sad,1\n")
    config = FeaturesConfig(
        corpus=str(tmp_path / "metadata.csv"),
        features_dir=str(tmp_path / "not" / "yet"),
        encoders=Encoders(audio=str(model), video="no/such-model", text=None),
    )
    machine = look(config)
    assert machine.features_dir == tmp_path
    assert machine.models == {str(model): str(model), "no/such-model": ""}
    assert (machine.offline, machine.hub_answers, machine.clips) == (True, None, 1)
    assert machine.python == sys.version_info[:2]
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert machine.torch.found["version"].startswith(machine.packages["torch"][1])
    assert machine.av.found["lacks"] == []
    assert {"torch", "zarr", "av"} <= set(machine.packages)
    assert "pytest" not in machine.packages


def test_exit_code_and_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "look", lambda _: WELL)
    assert doctor.run(CONFIG) == 0
    assert "0 warn, 0 fail" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "look", lambda _: replace(WELL, cores=1))
    assert doctor.run(CONFIG) == 0
    monkeypatch.setattr(doctor, "look", lambda _: replace(WELL, python=(3, 13)))
    assert doctor.run(CONFIG) == 2
    lines = capsys.readouterr().out.splitlines()
    assert "fail  python    3.13 is not supported" in lines
    assert any(line.lstrip().startswith("-> remove .venv") for line in lines)
