"""The commands a newcomer types, as far as they cost nothing."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.tiny.places import ROOT

TARGETS = (
    "setup",
    "demo",
    "data",
    "corpus",
    "preview",
    "features",
    "train-fusion",
    "sweep",
    "report",
    "compare",
    "enrolment",
    "finetune-e2e",
    "robustness-table",
    "predict",
    "doctor",
    "test",
)


def make(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "-C", str(ROOT), "--no-print-directory", *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_help_lists_every_target_with_one_line() -> None:
    listed = dict(re.findall(r"^  make (\S+) +(\S.*)$", make("help").stdout, re.MULTILINE))
    rules = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(listed) == set(rules)
    assert set(TARGETS) <= set(listed)


@pytest.mark.parametrize("target", [name for name in TARGETS if name not in ("setup", "test")])
def test_each_stage_is_one_line_around_a_module(target: str) -> None:
    lines = [line for line in make("-n", target, "SET=a.b=1").stdout.splitlines() if "-m " in line]
    assert len(lines) == 1
    assert re.search(r"python -m [\w.]+ --config configs/\S+\.yaml .*a\.b=1", lines[0])


def test_the_app_installs_what_it_needs_once_and_moves_no_pin(tmp_path: Path) -> None:
    """gradio asks for a pillow older than the pinned one: with its dependencies, pip would take that."""
    ready = tmp_path / "ready-app"
    ready.touch()
    os.utime(ready, (4e9, 4e9))
    (line,) = [
        line for line in make("-n", "app", "RUN=outputs/x", f"READY_APP={ready}").stdout.splitlines() if "-m " in line
    ]
    assert line.endswith("-m fuse.predict.app --config configs/predict.yaml \"run='outputs/x'\" ")
    first = make("-n", "app", f"READY_APP={tmp_path}/not-yet").stdout
    assert "pip install --disable-pip-version-check --quiet --no-deps -r requirements-app.txt" in first
    pinned, app = ((ROOT / name).read_text() for name in ("requirements.txt", "requirements-app.txt"))
    names = [set(re.findall(r"^([\w.-]+)==", text, re.MULTILINE)) for text in (pinned, app)]
    assert "gradio" in names[1]
    assert not names[0] & names[1]


def test_engines_are_installed_once_where_one_is_asked_for(tmp_path: Path) -> None:
    plain = make("-n", "features", "ENGINE=torchrun", f"READY_CLUSTER={tmp_path}/not-yet").stdout
    assert "pip install" not in plain
    asked = make("-n", "features", "ENGINE=slurm", f"READY_CLUSTER={tmp_path}/not-yet").stdout
    assert "pip install --disable-pip-version-check --quiet --no-deps -r requirements-cluster.txt" in asked
    assert asked.splitlines()[-1].split() == [
        ".venv/bin/python", "-m", "extract", "--config", "configs/ravdess/features.yaml", "engine.name=slurm"
    ]  # fmt: skip
    pinned, cluster = ((ROOT / name).read_text() for name in ("requirements.txt", "requirements-cluster.txt"))
    names = [set(re.findall(r"^([\w.-]+)==", text, re.MULTILINE)) for text in (pinned, cluster)]
    assert {"datatrove", "ray"} <= names[1]
    assert not names[0] & names[1]


def test_a_path_that_the_shell_would_cut_is_refused() -> None:
    """Behind ` #` the shell reads nothing: the folder `RAVDESS` was taken for `RAVDESS #2`."""
    cut = make("-n", "features", "SET=corpus=data/RAVDESS #2/metadata.csv")
    assert cut.returncode == 2
    assert "quote the value that has a # in it" in cut.stderr
    for whole in ("corpus='data/RAVDESS #2/metadata.csv'", "corpus=data/RAVDESS#2/metadata.csv"):
        assert make("-n", "features", f"SET={whole}").stdout.rstrip().endswith(whole)


@pytest.mark.parametrize(
    "arguments", [("train-fusion", "seeds=[7]"), ("train-fusion", "CLIP=x.mp4"), ("features", "rank=3")]
)
def test_a_variable_that_a_target_would_ignore_is_refused(arguments: tuple[str, str]) -> None:
    """`make train-fusion seeds=[7]` trained seeds 0 to 4, and replaced their run."""
    refused = make("-n", *arguments)
    name = arguments[1].partition("=")[0]
    assert refused.returncode == 2
    assert f"{arguments[0]} does not take {name}=...; settings go into SET=" in refused.stderr
    assert "-m " not in refused.stdout


def test_variables_that_a_target_takes_and_those_of_the_environment_are_fine() -> None:
    assert make("-n", "predict", "CLIP=a b.mp4", "RUN=outputs/x", "SET=json=true", seeds="[7]").returncode == 0
    assert make("-n", "data", "ACTORS=1,2", "KIND=audio", "RANKS=1").returncode == 0


def test_nodes_are_named_where_several_can_work_together() -> None:
    given = ("NODES=2", "NODE_RANK=1", "RENDEZVOUS=gpu-1:29500")
    for target in ("features", "finetune-e2e"):
        assert make("-n", target, *given).returncode == 0
    refused = make("-n", "sweep", *given)
    assert refused.returncode == 2
    assert re.search("sweep does not take (NODE|RENDEZVOUS)", refused.stderr)


def test_shipped_configurations_of_the_makefile_exist() -> None:
    for path in re.findall(r"configs/[\w/]+\.yaml", (ROOT / "Makefile").read_text()):
        assert (ROOT / path).is_file(), path


def test_old_python_gets_a_clear_line(tmp_path: Path) -> None:
    old = tmp_path / "python3.8"
    old.write_text('#!/bin/sh\nif [ "$1" = --version ]; then echo "Python 3.8.1"; exit 0; fi\nexit 1\n')
    old.chmod(0o755)
    result = make("setup", f"PYTHON={old}", f"READY={tmp_path / 'ready'}")
    assert result.returncode == 2
    assert "Python 3.8.1 is not supported; install Python 3.11 or 3.12" in result.stdout


def test_missing_python_gets_a_clear_line(tmp_path: Path) -> None:
    result = make("setup", "PYTHON=no-such-python", f"READY={tmp_path / 'ready'}")
    assert "error: no no-such-python; install Python 3.11 or 3.12" in result.stdout
