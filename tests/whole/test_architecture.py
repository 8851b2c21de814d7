"""The shape of the project: who may import whom, what importing costs, and one set of pins."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.tiny.places import ROOT

LAYERS = ("cache", "configs", "extract", "fuse")
MODULES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))


def package(path: Path) -> str:
    """The top-level folder, however deep the module lies."""
    return path.relative_to(ROOT).parts[0]


def imported_packages(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "." for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_folder_imports_itself_and_those_to_its_left(path: Path) -> None:
    layer = package(path)
    to_the_right = set(LAYERS[LAYERS.index(layer) + 1 :]) | {"tests"}
    assert not imported_packages(path) & to_the_right


@pytest.mark.parametrize("layer", LAYERS)
def test_packages_are_this_checkouts(layer: str) -> None:
    """`fuse` also exists on PyPI, as fusepy."""
    spec = find_spec(layer)
    assert spec is not None
    assert spec.origin == str(ROOT / layer / "__init__.py")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


IMPORT_ALL = """
import importlib, json, logging, os, signal, sys, threading
def state():
    signals = [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    return os.listdir(), os.getcwd(), signals, logging.root.handlers, threading.active_count()
before = state()
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps({"torch": "torch" in sys.modules, "changed": [b for a, b in zip(before, state()) if a != b]}))
"""


def import_all(modules: list[Path], folder: Path) -> tuple[dict[str, object], str]:
    """Import modules in a fresh process that runs in `folder`; returns what changed, and all it printed."""
    names = [module_name(path) for path in modules if path.name != "__main__.py"]
    command = [sys.executable, "-c", IMPORT_ALL, json.dumps(names)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    *printed, report = done.stdout.splitlines()
    return json.loads(report), "\n".join(printed) + done.stderr


def test_cache_and_configs_never_import_torch(tmp_path: Path) -> None:
    light = [path for path in MODULES if package(path) in ("cache", "configs")]
    report, _ = import_all(light, tmp_path)
    assert len(light) > 30
    assert report["torch"] is False


def test_launching_stage_one_needs_no_torch(tmp_path: Path) -> None:
    """A run with nothing to do should not wait for it."""
    names = ("extract/run/plan", "extract/run/failures", "extract/run/sources", "configs/command/launch")
    report, _ = import_all([ROOT / f"{name}.py" for name in names], tmp_path)
    assert report["torch"] is False


def test_importing_does_nothing(tmp_path: Path) -> None:
    report, printed = import_all(MODULES, tmp_path)
    assert report["changed"] == []
    assert printed == ""


def pins(lines: list[str]) -> dict[str, str]:
    """name==version, comments and pip's options aside."""
    plain = [line.partition("#")[0].strip() for line in lines]
    found = [re.fullmatch(r"([\w.-]+)==([\w.+-]+)", line) for line in plain if line and not line.startswith("--")]
    assert all(found), plain
    return {match[1].lower(): match[2] for match in found if match}


def test_both_package_lists_pin_the_same() -> None:
    requirements = pins((ROOT / "requirements.txt").read_text().splitlines())
    pip_part = (ROOT / "environment.yml").read_text().partition("- pip:\n")[2]
    environment = pins([line.strip().removeprefix("- ") for line in pip_part.splitlines()])
    assert requirements == environment
    assert {"torch", "zarr", "decord", "transformers"} <= set(requirements)


def test_torch_and_torchaudio_are_of_one_release() -> None:
    requirements = pins((ROOT / "requirements.txt").read_text().splitlines())
    assert requirements["torch"] == requirements["torchaudio"]
