"""The command `trifuse`: make's targets, their configurations and variables."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

import trifuse
from configs.loader import FOLDER
from tests.tiny.places import ROOT
from trifuse.__main__ import COMMANDS, ENVIRONMENT, VARIABLES, into_environment, main, with_config

MAKEFILE = (ROOT / "Makefile").read_text()
# What is done to a checkout, not with TriFuse.
OF_THE_CHECKOUT = {"help", "setup", "test", "test-slow", "bench", "lint", "docs"}
# No target of make has them: `python -m` with these names in the README.
OF_THE_COMMAND = {"random-encoders", "cache"}


def test_the_command_knows_every_target_with_its_module_and_configuration() -> None:
    rules = re.findall(
        r"^([a-z0-9-]+):.*\n\t\$\(PY\) -m ([\w.]+) --config \$\(or \$\(CONFIG\),configs/(\S+)\)", MAKEFILE, re.M
    )
    known = {name: (one.module, one.config) for name, one in COMMANDS.items() if name not in OF_THE_COMMAND}
    assert known == {target: (module, config) for target, module, config in rules}
    targets = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, re.M))
    assert targets - OF_THE_CHECKOUT <= set(COMMANDS)


def test_the_command_knows_every_variable_of_the_targets() -> None:
    lines = re.findall(r"^(?:KNOWN_(?!bench|test)[\w-]+|ACROSS) := (.*)$", MAKEFILE, re.M)
    names = {name for line in lines for name in line.split()} - {"$(ACROSS)"}
    assert names | {"RANKS"} == {*VARIABLES, *ENVIRONMENT}


def test_what_commands_read_from_their_environment_is_put_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """`trifuse features NODES=2` was refused as an unknown setting; so was RANKS, which make takes the same way."""
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, "")
    given = ["RANKS=2", "NODES=3", "RENDEZVOUS=a:1=b", "seeds=[1]", "--config"]
    assert into_environment(given) == ["seeds=[1]", "--config"]
    assert [os.environ[name] for name in ENVIRONMENT] == ["2", "3", "", "a:1=b"]


def test_arguments_are_those_of_make() -> None:
    predict = COMMANDS["predict"]
    shipped = str(FOLDER / "predict.yaml")
    assert with_config(predict, ["CLIP=it's #1.mp4", "json=true"]) == [
        "--config",
        shipped,
        "clip='it''s #1.mp4'",
        "json=true",
    ]
    assert with_config(COMMANDS["data"], ["ACTORS=1,2", "KIND=audio"])[2:] == ["actors=[1,2]", "kind='audio'"]
    for given in (["--config", "my.yaml"], ["--config=my.yaml"], ["CONFIG=my.yaml"]):
        assert with_config(predict, given) == ["--config", "my.yaml"]
    assert with_config(predict, ["--config"]) == ["--config"]


def test_shipped_configurations_are_found_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "configs/sweeps/heads.yaml"
    assert with_config(COMMANDS["sweep"], [f"CONFIG={name}"]) == ["--config", str(FOLDER / "sweeps/heads.yaml")]
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).touch()
    assert with_config(COMMANDS["sweep"], ["--config", name]) == ["--config", name]


def test_a_command_that_does_not_exist_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["feature"]) == 2
    assert capsys.readouterr().err.startswith("error: no command feature (did you mean features?); there are: demo, ")
    assert main([]) == 2
    assert main(["--help"]) == 0
    listed = re.findall(r"^  trifuse (\S+) +\S", capsys.readouterr().out, re.M)
    assert listed == list(COMMANDS) * 2


def test_exit_codes_are_those_of_the_modules(tmp_path: Path) -> None:
    for arguments, code, said in (
        (["corpus", f"ROOT={tmp_path}/none"], 2, "error: "),
        (["cache", "info", str(tmp_path)], 2, "error: "),
        (["features", "--help"], 0, "--config FILE"),
    ):
        command = [sys.executable, "-m", "trifuse", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        assert said in done.stdout + done.stderr


def test_the_package_offers_what_notebooks_take() -> None:
    import fuse

    assert trifuse.load is fuse.load
    assert trifuse.features is fuse.features
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        trifuse.lode  # noqa: B018


@pytest.fixture(scope="module")
def setup() -> ModuleType:
    pytest.importorskip("setuptools")
    spec = spec_from_file_location("setup_of_trifuse", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("written", "packed"),
    [
        ("from cache.names import nearest\n", "from trifuse.cache.names import nearest\n"),
        ("from fuse import load", "from trifuse.fuse import load"),
        ("    from configs.loader import check\n", "    from trifuse.configs.loader import check\n"),
        ("import extract.__main__ as stage_one\n", "import trifuse.extract.__main__ as stage_one\n"),
        ("from cachetools import x\nimport fusepy as f\n", "from cachetools import x\nimport fusepy as f\n"),
        ('"""Read\nfrom cache to GPU."""\n', '"""Read\nfrom cache to GPU."""\n'),
        ("from functools import cache\n", "from functools import cache\n"),
    ],
)
def test_imports_are_moved_and_nothing_else(setup: ModuleType, written: str, packed: str) -> None:
    assert setup.inside_trifuse(written, "x.py") == packed


def test_an_import_that_would_bind_another_name_is_refused(setup: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"x\.py: write `import fuse\.train as NAME`"):
        setup.inside_trifuse("import fuse.train\n", "x.py")


def test_no_import_of_the_project_is_left_as_it_was(setup: ModuleType) -> None:
    left = re.compile(rf"^\s*(?:from|import) (?:{'|'.join(setup.FOLDERS)})\b(?!.* to )", re.M)
    for folder in (*setup.FOLDERS, "trifuse"):
        for path in (ROOT / folder).rglob("*.py"):
            packed = setup.inside_trifuse(path.read_text(), str(path))
            compile(packed, str(path), "exec")
            assert left.search(packed) is None, path


def test_the_package_asks_for_what_it_imports(setup: ModuleType) -> None:
    wanted = setup.imported_packages()
    assert {"torch==2.11.0", "zarr==3.1.6"} <= set(wanted)
    assert not any(one.startswith(("pytest", "ruff", "idna")) for one in wanted)
