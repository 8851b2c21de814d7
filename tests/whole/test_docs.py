"""What README and docs/ tell people to type works, links lead somewhere, and messages are those of the code.

A fenced block says what it is: `console` for commands, `python`, `yaml`, `text`. A marker behind that says what running
it would need: `needs-network`, `needs-gpu`, `needs-inputs` (clips, runs or models that are not part of the project).
Commands without a marker are run by the test that `RUN_BY` names. Of all the others, the target, the module, the
configuration and every override are checked here.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import cache.__main__ as cache_command
from cache.conditions import UNCHANGED
from cache.files.atomic import write_atomic
from configs.loader import check, dump_config, load_config
from configs.schema.corpora import CorpusConfig
from configs.schema.demo import RandomEncodersConfig
from configs.schema.features import Asr, Encoders, FeaturesConfig
from configs.schema.fusion import FusionConfig, Optim
from configs.schema.protocols import load_protocol
from configs.schema.sweep import SweepConfig
from extract.corpora.synthetic.encoders import write_random_encoders
from extract.run.plan import make_plan, prepare_stores
from extract.run.unit import load_tools, process_unit
from fuse import train
from tests.tiny.corpus import write_tiny_corpus, write_tiny_encoders, write_tiny_mp4
from tests.tiny.places import ROOT

# The site's first page, which is the README and a list of the others.
INDEX = ROOT / "docs/index.md"
PAGES = [ROOT / "README.md", *(path for path in sorted((ROOT / "docs").glob("*.md")) if path != INDEX)]
LANGUAGES = ("console", "python", "yaml", "text")
MARKERS = ("needs-network", "needs-gpu", "needs-inputs")
FENCE = re.compile(r"^```(\S*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN_BY = {"make demo": "tests/whole/test_demo.py", "make test": "tests"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    markers: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text[: match.start()].count("\n") + 1, match[1], tuple(match[2].split()), match[3])
        for match in FENCE.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]


def of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_is_and_what_it_needs(page: Path) -> None:
    fences = re.findall(r"^```", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(blocks(page))
    for block in blocks(page):
        assert block.language in LANGUAGES, block
        assert set(block.markers) <= set(MARKERS), block


# Commands


def commands(block: Block) -> list[str]:
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line.partition("  # ")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


COMMANDS = [pytest.param(block, line, id=f"{block}-{line[:50]}") for block in of("console") for line in commands(block)]


@functools.cache
def expanded(command: str) -> str:
    """What make would run, with the shell's variables put in already; a command of another kind as it is."""
    words = shlex.split(command)
    if words[0] != "make":
        return command
    dry = ["make", "-n", "--no-print-directory", "-C", str(ROOT), *words[1:]]
    done = subprocess.run(dry, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout.strip().splitlines()[-1]


@functools.cache
def kind_of(module: str) -> type[Any]:
    """The dataclass that a module's command line is read into: the first argument of its call of `main`."""
    spec = find_spec(module)
    assert spec is not None, f"no module {module}"
    name = f"{module}.__main__" if spec.submodule_search_locations else module
    loaded = import_module(name)
    tree = ast.parse(Path(str(loaded.__file__)).read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "main"]
    kind: type[Any] = getattr(loaded, ast.unparse(calls[0].args[0]))
    return kind


def check_module(arguments: list[str]) -> None:
    """`-m module ...` names a module, and all that follows is read by it."""
    module, *rest = arguments
    if module == "cache":
        cache_command._parser().parse_args(rest)
    elif module == "pytest":
        assert all((ROOT / word).exists() for word in rest if word.startswith("tests/")), rest
    elif "--config" in rest:
        overrides = [word for word in rest[2:] if not word.startswith("--")]
        load_config(kind_of(module), ROOT / rest[1], overrides)
    else:
        assert find_spec(module) is not None


@pytest.mark.parametrize(("block", "command"), COMMANDS)
def test_a_command_names_what_is_there_and_its_settings_are_read(
    block: Block, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A key that was renamed, a value that is out of range, a condition that is misspelt: all end here."""
    monkeypatch.setenv("SHARED", "/inputs")
    (tmp_path / "own.yaml").write_text("pattern: '{speaker}_{label}'\n")
    whole = re.sub(r"CONFIG=own.yaml", f"CONFIG={tmp_path}/own.yaml", os.path.expandvars(command))
    words = shlex.split(expanded(whole))
    assert words[:2] in (["python", "-m"], [".venv/bin/python", "-m"]), f"{block}: {command}"
    check_module(words[2:])
    if not block.markers:
        assert (ROOT / RUN_BY[command]).exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_target_that_is_mentioned_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z0-9-]+)", page.read_text(encoding="utf-8"))) <= targets


# Python and YAML


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the snippets find where they run: features/, outputs/fusion/, a.mp4 and b.mp4."""
    root = tmp_path_factory.mktemp("docs")
    metadata = write_tiny_corpus(root / "corpus", ("1", "2", "21", "23"), ("happy", "sad"))
    made = write_random_encoders(RandomEncodersConfig(out=str(root / "random"), width=16, blocks=9, size=32))
    encoder = made["audio"].rename(root / "wav2vec2-base-960h")
    config = FeaturesConfig(
        corpus=str(metadata),
        features_dir=str(root / "features"),
        encoders=Encoders(str(encoder), None, None),
        asr=Asr(model=None),
        conditions=(UNCHANGED,),
    )
    plan = make_plan(config)
    prepare_stores(plan)
    for unit in plan.units:
        process_unit(plan, unit, load_tools(plan, {"audio"}, torch.device("cpu")))
    write_atomic(root / "features/config.yaml", dump_config(config))
    run = FusionConfig(
        corpus=str(metadata),
        features_dir=str(root / "features"),
        modalities=("audio",),
        optim=Optim(epochs=1),
        output_dir=str(root / "outputs/fusion"),
    )
    assert train.run(run) == 0
    for number, name in enumerate(("a.mp4", "b.mp4")):
        write_tiny_mp4(root / name, seed=number)
    return root


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_snippets_run(block: Block, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site)
    exec(compile(block.text, str(block), "exec"), {})


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_yaml_is_read(block: Block, tmp_path: Path) -> None:
    """A grid, a protocol, a run from one corpus to another, or words for the codes of a corpus."""
    tree = yaml.safe_load(block.text)
    file = tmp_path / "x.yaml"
    file.write_text(block.text, encoding="utf-8")
    if "target" in tree:
        check(FusionConfig, tree, str(block))
    elif "protocol" in tree:
        assert load_protocol(str(file)).name
    else:
        check(SweepConfig if "grid" in tree else CorpusConfig, tree, str(block))


# Links


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_linked_from_the_readme_and_part_of_the_site() -> None:
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in links(ROOT / "README.md")}
    assert set(PAGES) - {ROOT / "README.md"} <= linked
    listed = re.findall(r"^[\w-]+$", INDEX.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(page.stem for page in PAGES if page.name != "README.md")


def test_what_the_site_is_made_with_is_pinned() -> None:
    lines = (ROOT / "docs/requirements.txt").read_text().splitlines()
    plain = [line.partition("#")[0].strip() for line in lines]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+-]+", line) for line in plain if line)


# What else is said


@functools.cache
def said_by_the_code() -> tuple[str, ...]:
    """Every text of the code and of the Makefile; … where a value is put in."""
    found = [(ROOT / "Makefile").read_text()]
    for path in (path for folder in ("cache", "configs", "extract", "fuse") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def test_the_messages_of_troubleshooting_are_those_of_the_code() -> None:
    """A reader looks for the words that stand on the screen."""
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)
    messages = [message for row in rows for message in re.findall(r"`([^`]+)`", row)]
    assert len(messages) > 40
    # A value may be put together from several; what stands between two values is of one text.
    pieces = [piece.strip() for message in messages for piece in message.split("…") if len(piece.strip()) > 3]
    unsaid = [piece for piece in pieces if not any(piece in text for text in said_by_the_code())]
    assert unsaid == []


def test_the_citation_is_of_this_version_and_licence() -> None:
    """https://github.com/citation-file-format/citation-file-format, 1.2.0: what it requires, and what we know."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{citation["version"]}"' in project
    assert f'license = "{citation["license"]}"' in project
    for person in (*citation["authors"], *(author for one in citation["references"] for author in one["authors"])):
        assert set(person) in ({"name"}, {"family-names", "given-names"})


# The whole way


@pytest.mark.slow
def test_the_readmes_five_commands_lead_from_a_folder_to_a_table(tmp_path: Path) -> None:
    """As they stand there, but for encoders that are small and need no network."""
    for number, speaker in enumerate(("Anna", "Björn", "Clara", "Dieter", "Elif", "Franz")):
        for label in ("freude", "trauer", "wut"):
            write_tiny_mp4(tmp_path / "clips" / speaker / label / f"Aufnahme {number}.mp4", seed=number)
    shutil.copy(tmp_path / "clips/Anna/wut/Aufnahme 0.mp4", tmp_path / "new.mp4")
    encoders = write_tiny_encoders(tmp_path / "encoders")
    small = [f"encoders.{name}={folder}" for name, folder in encoders.items() if name != "text"]
    further = {
        "extract": [*small, "encoders.text=null", "asr.model=null", "media.size=32"],
        "fuse.train": ["modalities=[audio,video]", "optim.epochs=2"],
    }
    (block,) = [block for block in of("console") if "make corpus ROOT=clips" in block.text]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RANKS": "1"}
    printed = []
    for line in commands(block):
        _, _, module, _, config, *overrides = shlex.split(expanded(line))
        command = [sys.executable, "-m", module, "--config", str(ROOT / config), *overrides, *further.get(module, [])]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        printed.append(done.stdout)
    assert len(printed) == 5
    assert "new.mp4: " in printed[3]
    assert "freude" in printed[3]
    assert (tmp_path / "outputs/robustness/robustness_table.md").is_file()
