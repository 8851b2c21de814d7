"""The shape of the project: who imports whom, what a folder holds, what importing costs, what the README names."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.tiny.places import ROOT

LAYERS = ("cache", "configs", "extract", "fuse", "trifuse")
MODULES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
FILES = [path for layer in (*LAYERS, "tests") for path in (ROOT / layer).rglob("*.*")]
# Python leaves folders of its own wherever it was run without PYTHONDONTWRITEBYTECODE.
FOLDERS = sorted({path.parent for path in FILES if "__pycache__" not in path.parts})
MOST_CHILDREN = 11


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


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(path: Path, known: set[str]) -> set[str]:
    """The project's modules that one names, wherever it does: at the top, inside a function, or for types alone.

    An import that is put off, or that only a type checker sees, hides a circle; a reader still goes round it.
    """
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    found = names & known
    # `from a import b` names the folder a as well; what is meant is the deepest of them.
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)}


def arrows(imports: dict[str, set[str]]) -> dict[str, dict[str, set[str]]]:
    """Folder to {child: children that it imports}: where two dotted names part, there is an arrow between siblings."""
    drawn: dict[str, dict[str, set[str]]] = {}
    for importer, others in imports.items():
        for other in others:
            left, right = (name.split(".") for name in (importer, other))
            depth = next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), None)
            if depth is not None:
                folder = drawn.setdefault(".".join(left[:depth]), {})
                folder.setdefault(left[depth], set()).add(right[depth])
    return drawn


def test_no_two_modules_and_no_two_folders_go_in_a_circle() -> None:
    """`CycleError` names the circle. Siblings are all that lies in one folder, at any depth: modules and folders."""
    paths = {module_name(path): path for path in (*MODULES, *TESTS)}
    imports = {name: imported_modules(path, set(paths)) for name, path in paths.items()}
    assert sum(map(len, imports.values())) > 500
    TopologicalSorter(imports).prepare()
    for siblings in arrows(imports).values():
        TopologicalSorter(siblings).prepare()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_folder_can_be_taken_in_at_a_glance(folder: Path) -> None:
    children = [path.name for path in folder.iterdir() if path.name not in ("__init__.py", "__pycache__")]
    assert len(children) <= MOST_CHILDREN, sorted(children)


@pytest.mark.parametrize("path", sorted({path.parent for path in (*MODULES, *TESTS)}), ids=str)
def test_every_package_is_one_in_a_clone(path: Path) -> None:
    """`features/` in .gitignore once hid cache/features/__init__.py, and every later file of that folder."""
    assert (path / "__init__.py").is_file()
    patterns = (ROOT / ".gitignore").read_text().split()
    assert not {f"{part}/" for part in path.relative_to(ROOT).parts} & set(patterns)


# Where names of conditions are parsed: in a configuration, on a command line, as files' names, in a notebook.
PARSED_IN = (
    "cache/conditions.py",
    "cache/exchange",
    "cache/features/cached.py",
    "configs/schema",
    "extract/preview/__main__.py",
    "fuse/predict/app/trial.py",
    "fuse/predict/features.py",
    "fuse/robustness/conditions.py",
    "fuse/robustness/figures/joint.py",
    "fuse/robustness/rows.py",
    "fuse/studies/report/page/subjects.py",
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_condition_is_parsed_where_it_comes_in_and_travels_parsed(path: Path) -> None:
    names = {
        alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    parses = bool(names & {"parse_condition", "parse_joint"})
    assert not parses or str(path.relative_to(ROOT)).startswith(PARSED_IN)


# What is written about it

TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MENTION = re.compile(r"(?<![\w/$.])(?:cache|configs|extract|fuse|tests|docs)/[\w./-]*\w")


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.name)
def test_every_path_and_module_that_is_mentioned_exists(text: Path) -> None:
    written = text.read_text()
    missing = [name for name in MENTION.findall(written) if not (ROOT / name).exists()]
    missing += [name for name in re.findall(r"-m ((?:cache|extract|fuse|tests)[\w.]*)", written) if not find_spec(name)]
    assert missing == []


def folders_in_the_readme() -> list[str]:
    """The tree under "How it is built": two blanks further in is one folder further down."""
    tree = (ROOT / "README.md").read_text().partition("## How it is built")[2].split("```")[1]
    found: list[str] = []
    for indent, name in re.findall(r"^( *)([\w-]+)/", tree, re.MULTILINE):
        above = "".join(f"{part}/" for part in found[-1].split("/")[: len(indent) // 2]) if indent else ""
        found.append(above + name)
    return found


def test_the_readmes_tree_has_every_folder() -> None:
    expected = {str(path.relative_to(ROOT)) for path in FOLDERS if path.parts[len(ROOT.parts)] != "tests"}
    written = folders_in_the_readme()
    assert {name for name in written if not name.startswith("tests")} == expected
    assert len(written) == len(set(written))


@pytest.mark.parametrize("layer", LAYERS)
def test_packages_are_this_checkouts(layer: str) -> None:
    """`fuse` also exists on PyPI, as fusepy."""
    spec = find_spec(layer)
    assert spec is not None
    assert spec.origin == str(ROOT / layer / "__init__.py")


IMPORT_ALL = """
import importlib, json, logging, os, signal, sys, threading
def state():
    signals = [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    return os.listdir(), os.getcwd(), signals, logging.root.handlers, threading.active_count()
before, slow = state(), {}
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
    for library in {"sklearn", "scipy", "pandas", "transformers"} & set(sys.modules):
        slow.setdefault(library, name)
changed = [b for a, b in zip(before, state()) if a != b]
print(json.dumps({"torch": "torch" in sys.modules, "slow": slow, "changed": changed}))
"""
# They draw, or synthesise, whatever they are asked: what they need is imported above.
NEED_THEM = ("extract/corpora/synthetic", "fuse/demo.py", "fuse/studies/report")


def import_all(modules: list[Path], folder: Path) -> tuple[dict[str, Any], str]:
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


def test_importing_does_nothing_and_takes_no_second_for_what_is_seldom_used(tmp_path: Path) -> None:
    """Every command and every rank waited for scikit-learn or scipy.signal: half of the time until its first line."""
    last = [path for path in MODULES if str(path.relative_to(ROOT)).startswith(NEED_THEM)]
    report, printed = import_all([*(path for path in MODULES if path not in last), *last], tmp_path)
    assert report["changed"] == []
    assert printed == ""
    assert set(report["slow"].values()) <= {module_name(path) for path in last}


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
