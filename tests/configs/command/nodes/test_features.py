"""Stage one on two nodes with a rank each: the store is that of one node, whichever node loses its power on the way."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.configs.command.engines.stages import SOUND
from tests.configs.command.nodes.namespaces import Cable, all_done, await_work, cable, file_names, strike
from tests.tiny.stage_one import Done, Site, ranks_of, write_site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def laid() -> Iterator[Cable]:
    with cable() as both:
        yield both


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, laid: Cable) -> Site:
    assert laid.names  # where there is no cable, nothing is made
    return write_site(tmp_path_factory.mktemp("nodes"))


@pytest.fixture(scope="module")
def on_one_node(site: Site) -> Done:
    return site.run("one", *SOUND)


@pytest.mark.parametrize("struck", [0, 1])
def test_a_node_that_dies_ends_the_job_and_the_same_commands_go_on_to_the_same_bytes(
    laid: Cable, site: Site, on_one_node: Done, struck: int
) -> None:
    name = f"struck-{struck}"
    folder = site.root / name
    arguments = ("extract", "--config", str(site.config(name)), *SOUND)
    nodes = [laid.start(node, *arguments) for node in (0, 1)]
    await_work(nodes, lambda: file_names(folder, f".nodes/decodes-{struck}"))
    strike(nodes[struck])
    start = time.monotonic()
    output, _ = nodes[1 - struck].communicate(timeout=100)
    assert time.monotonic() - start < 60
    assert nodes[1 - struck].returncode == 1, output
    (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert error.startswith(f"error: node {struck} died or hangs: no word from it for 30 s")
    assert error.endswith("the same command on all nodes continues")
    said = all_done([laid.start(node, *arguments) for node in (1, 0)])
    assert all("features complete: " in text for text in said)
    assert Done(0, "", folder).stores == on_one_node.stores
    assert not (folder / ".nodes").exists()


def test_a_rank_that_dies_is_started_again_and_a_signal_on_one_node_ends_both(
    laid: Cable, site: Site, on_one_node: Done
) -> None:
    """torchrun waited for five minutes where one node was done and the other one started again."""
    folder = site.root / "rank"
    arguments = ("extract", "--config", str(site.config("rank")), *SOUND)
    nodes = [laid.start(node, *arguments) for node in (0, 1)]
    await_work(nodes, lambda: file_names(folder, ".nodes/decodes-1"))
    nodes[1].send_signal(signal.SIGTERM)
    said = [node.communicate(timeout=60)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [1, 143], said
    assert "error: node 1 was told to stop, with " in said[0]
    nodes = [laid.start(node, *arguments) for node in (0, 1)]
    await_work(nodes, lambda: file_names(folder, ".nodes/decodes-1"))
    ranks_of(nodes[1])[0].kill()
    all_done(nodes)
    assert Done(0, "", folder).stores == on_one_node.stores


def test_nodes_of_other_settings_are_refused_on_both(laid: Cable, site: Site) -> None:
    arguments = ("extract", "--config", str(site.config("refused")), *SOUND)
    nodes = [laid.start(node, *arguments, f"threads={1 + node}") for node in (0, 1)]
    said = [node.communicate(timeout=60)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [2, 2], said
    for text in said:
        assert "error: nodes would do different things (config.threads: 1 on node 0, 2 on node 1)" in text
