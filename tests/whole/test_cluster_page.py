"""docs/cluster.md: its commands are run as they stand there, but for the corpus and the encoders."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.configs.command.engines.one_node import one_node_slurm
from tests.configs.command.engines.stages import SOUND, settings
from tests.tiny.stage_one import Done, Site, write_site
from tests.whole.test_docs import commands, expanded, of

pytest.importorskip("datatrove", reason="pip install --no-deps -r requirements-cluster.txt")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LINES = {
    re.findall(r"ENGINE=(\w+)", line)[0]: line
    for block in of("console")
    if block.page.name == "cluster.md" and "needs-inputs" in block.markers
    for line in commands(block)
    if line.startswith("make features")
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return write_site(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def by_torchrun(site: Site) -> Done:
    return site.run("torchrun", *SOUND)


@contextmanager
def ray_cluster() -> Iterator[None]:
    """Of this machine, as `ray start --head` starts it."""
    pytest.importorskip("ray", reason="pip install --no-deps -r requirements-cluster.txt")
    ray = str(Path(sys.executable).parent / "ray")
    # Its sockets lie there: a path of more than 107 bytes is none.
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        options = ["--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}"]
        with subprocess.Popen([ray, "start", "--head", "--block", *options], start_new_session=True) as head:
            try:
                subprocess.run([sys.executable, "-c", JOIN], check=True, timeout=60)
                yield
            finally:
                head.terminate()


JOIN = """
import time, ray
for _ in range(50):
    try:
        ray.init(address="auto")
        break
    except ConnectionError:
        time.sleep(1)
else:
    raise SystemExit("no cluster")
"""


@contextmanager
def cluster(engine: str, line: str, folder: Path) -> Iterator[None]:
    """What the line takes for granted."""
    if engine == "slurm":
        (partition,) = re.findall(r"partition=(\w+)", line)
        with one_node_slurm(folder, partition):
            yield
    elif "ray_address=auto" in line:
        with ray_cluster():
            yield
    else:
        yield


def test_every_engine_has_a_command() -> None:
    assert set(LINES) == {"local", "slurm", "ray"}


@pytest.mark.parametrize("engine", sorted(LINES))
def test_a_command_of_the_page_makes_torchruns_bytes(
    engine: str, site: Site, by_torchrun: Done, tmp_path_factory: pytest.TempPathFactory
) -> None:
    line = LINES[engine]
    _, _, module, _, _, *overrides = shlex.split(expanded(line))
    assert (module, overrides[0]) == ("extract", f"engine.name={engine}")
    ranks = int(re.findall(r"RANKS=(\d+)", line)[0])
    with cluster(engine, line, tmp_path_factory.mktemp("node")):
        done = site.run(engine, *overrides, *settings(engine), ranks=ranks)
    assert done.code == 0, done.output + (done.folder / ".engine/log.txt").read_text()
    assert len(list((done.folder / ".engine/datatrove/completions").iterdir())) == 3
    assert done.stores == by_torchrun.stores
