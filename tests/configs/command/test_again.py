"""A message can repeat the command that is running, whole, with what has to change."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from configs.command.again import TARGETS, again, again_run, beside, remembered
from configs.command.entry import main
from configs.schema.fusion import FusionConfig
from tests.tiny.places import ROOT


def started_as(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", ModuleSpec(module, None), raising=False)


def test_every_module_of_the_makefile_has_its_target() -> None:
    lines = re.findall(r"^([a-z0-9-]+):.*\n\t\$\(PY\) -m ([\w.]+) --config", (ROOT / "Makefile").read_text(), re.M)
    assert len(lines) > 8
    assert {module: target for target, module in lines} == TARGETS


def test_the_command_comes_again_with_its_file_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages named one setting, and a reader who typed it lost CONFIG and the rest of SET."""
    started_as(monkeypatch, "fuse.train")
    settings = ["corpus=data/my corpus/a.csv", "augment.audio=[noise-white-0db]", "seeds=[1,2]", "overwrite=false"]
    with remembered(Path("configs/x.yaml"), settings):
        said = again("augment=null", "overwrite=true")
    kept = ["corpus=data/my corpus/a.csv", "seeds=[1,2]", "augment=null", "overwrite=true"]
    words = shlex.split(said)
    assert words[:3] == ["make", "train-fusion", "CONFIG=configs/x.yaml"]
    assert words[3].startswith("SET=")
    assert shlex.split(words[3].removeprefix("SET=")) == kept
    assert again("augment=null") == "the same with augment=null"


def test_a_sweep_has_settings_of_stage_two_under_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was told to set `augment=null`, which is no key of a sweep."""
    for module, said in (("fuse.sweep", "seeds=[1] run.augment=null"), ("fuse.train", "seeds=[1] augment=null")):
        started_as(monkeypatch, module)
        with remembered(Path("x.yaml"), ["seeds=[1]"]):
            assert f'CONFIG=x.yaml SET="{said}"' in again_run("augment=null")


def test_what_makes_a_folder_is_found_beside_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make robustness-table CONFIG=configs/demo/robustness.yaml` told to train RAVDESS's run for the demo."""
    assert beside("fusion*.yaml", "output_dir", "outputs/demo/fusion") is None
    started_as(monkeypatch, "fuse.robustness")
    with remembered(ROOT / "configs/demo/robustness.yaml", []):
        assert beside("fusion*.yaml", "output_dir", "outputs/demo/fusion") == ROOT / "configs/demo/fusion.yaml"
        assert beside("fusion*.yaml", "output_dir", "outputs/elsewhere") is None


def test_a_command_that_fails_says_itself_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started_as(monkeypatch, "fuse.finetune.__main__")
    file = tmp_path / "x.yaml"
    file.write_text("corpus: a.csv\n")

    def fail(_: FusionConfig) -> int:
        raise ValueError(f"try: {again('seeds=[1]')}")

    assert main(FusionConfig, fail, "test", ["--config", str(file), "head=lda"]) == 2
    assert capsys.readouterr().err == f'error: try: make finetune-e2e CONFIG={file} SET="head=lda seeds=[1]"\n'
    assert again("seeds=[1]") == "the same with seeds=[1]"
