"""Stage one on a Ray of this machine, two tasks at a time: killed, and the bytes are torchrun's."""

from __future__ import annotations

import pytest

from tests.configs.command.engines.stages import SOUND, kill_a_rank, ranks_anywhere, settings
from tests.tiny.stage_one import Done, Site, finish, wait_for, write_site

pytest.importorskip("datatrove", reason="pip install --no-deps -r requirements-cluster.txt")
pytest.importorskip("ray", reason="pip install --no-deps -r requirements-cluster.txt")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return write_site(tmp_path_factory.mktemp("ray"))


@pytest.fixture(scope="module")
def by_torchrun(site: Site) -> Done:
    return site.run("torchrun", *SOUND)


def test_a_killed_rank_is_run_again_and_the_bytes_are_torchruns(site: Site, by_torchrun: Done) -> None:
    done = kill_a_rank(site, "rank", settings("ray"), lambda: True)
    assert done.code == 0, done.output
    assert "ended with -9" in (done.folder / ".engine/log.txt").read_text()
    assert done.stores == by_torchrun.stores


def test_a_killed_worker_of_ray_takes_its_rank_along_and_its_task_is_run_again(site: Site, by_torchrun: Done) -> None:
    """Its rank must not go on beside the one that Ray starts for the same units."""
    folder = site.root / "worker"
    process = site.start("worker", *settings("ray"))
    wait_for(lambda: ranks_anywhere(folder), process)
    rank = ranks_anywhere(folder)[0]
    (worker,) = [parent for parent in rank.parents() if "RankWorker" in " ".join(parent.cmdline())][-1:]
    worker.kill()
    rank.wait(10)
    done = finish(process, folder)
    assert done.code == 0, done.output
    assert done.stores == by_torchrun.stores
