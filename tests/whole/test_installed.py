"""`pip install .` and the command `trifuse`, in a place of their own beside packages that have our folders' names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.tiny.places import ROOT
from tests.tiny.stage_one import Site, write_site

pytestmark = pytest.mark.slow
SHIPPED = ("cache", "configs", "extract", "fuse", "trifuse")
FILES = ("pyproject.toml", "setup.py", "requirements.txt", "MANIFEST.in", "LICENSE")
FOREIGN = "raise ImportError('this package belongs to somebody else')\n"
NO_NETWORK = ("No matching distribution found", "Could not find a version", "ConnectionError", "NewConnectionError")
IMPORT_ALL = """
import importlib, json, pkgutil, sys
import trifuse
names = [one.name for one in pkgutil.walk_packages(trifuse.__path__, "trifuse.") if not one.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(json.dumps([trifuse.__file__, len(names), sorted(set(sys.modules) & {"cache", "configs", "extract", "fuse"})]))
"""


@dataclass(frozen=True)
class Place:
    """A fresh environment with the package, and a folder full of foreign packages to work in."""

    environment: Path
    folder: Path

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [str(self.environment / "bin" / program), *arguments]
        return subprocess.run(
            command, cwd=self.folder, env={**kept, "RANKS": "2"}, capture_output=True, text=True, check=False
        )


def build_wheel(folder: Path) -> Path:
    """From a copy of the tree: a build leaves folders behind."""
    source = folder / "source"
    for name in SHIPPED:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and any(words in done.stderr for words in NO_NETWORK):
        pytest.skip("needs setuptools from the package index, to build a wheel")
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("trifuse-*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def write_foreign(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(FOREIGN)


@pytest.fixture(scope="module")
def place(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Everything else comes from the environment that the tests run in."""
    root = tmp_path_factory.mktemp("place")
    venv.create(root / "env")
    site = next((root / "env/lib").glob("python*/site-packages"))
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    command = [sys.executable, "-m", "pip", "--python", str(root / "env/bin/python"), "install", "--quiet", "--no-deps"]
    subprocess.run([*command, "--no-index", str(wheel)], check=True)
    write_foreign(site, SHIPPED[:-1])
    (root / "work").mkdir()
    write_foreign(root / "work", SHIPPED)
    return Place(root / "env", root / "work")


def test_the_wheel_claims_one_name(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"trifuse"}
    shipped = {str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.yaml")}
    # The page of a report: a wheel without it once would have installed, and failed at its first report.
    shipped |= {str(path.relative_to(ROOT)) for path in (ROOT / "fuse").rglob("templates/*.*")}
    assert any(name.endswith(".j2") for name in shipped)
    assert {f"trifuse/{name}" for name in shipped} <= set(names)
    assert not any("tests/" in name for name in names)


def test_every_module_finds_its_own_and_none_that_belongs_to_others(place: Place) -> None:
    done = place.run("python", "-P", "-c", IMPORT_ALL)
    assert done.returncode == 0, done.stderr[-1500:]
    file, count, taken = json.loads(done.stdout.splitlines()[-1])
    assert Path(file).is_relative_to(place.environment)
    assert count > 150
    assert taken == []


def test_the_command_says_what_it_can_do(place: Place) -> None:
    done = place.run("trifuse", "--help")
    assert done.returncode == 0
    assert "trifuse finetune-e2e" in done.stdout
    assert place.run("trifuse", "featurs").returncode == 2


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return write_site(tmp_path_factory.mktemp("site"))


def test_doctor_corpus_and_a_stage_one_with_ranks(place: Place, site: Site) -> None:
    config = str(site.config("features"))
    doctor = place.run("trifuse", "doctor", "--config", config)
    assert doctor.returncode == 0, doctor.stdout
    assert "as pinned" in doctor.stdout
    for speaker, label in (("anna", "sad"), ("ben", "happy")):
        folder = place.folder / "clips" / speaker / label
        folder.mkdir(parents=True)
        shutil.copy(site.clips / "c00.mp4", folder / f"{speaker}.mp4")
    corpus = place.run("trifuse", "corpus", "ROOT=clips", "OUT=listed.csv", "LAYOUT=folders")
    assert corpus.returncode == 0, corpus.stderr
    assert len((place.folder / "listed.csv").read_text().splitlines()) == 3
    features = place.run("trifuse", "features", "--config", config, "max_failed=3")
    assert features.returncode == 0, features.stderr[-1500:]
    assert "features complete" in features.stdout
    assert place.run("trifuse", "cache", "verify", str(site.root / "features")).returncode == 0
    # The same bytes as from the checkout: the package is the same code under other names.
    again = site.run("checkout", "max_failed=3")
    assert again.code == 0, again.output
    installed = replace(again, folder=site.root / "features")
    assert installed.stores == again.stores
