"""Stage one by datatrove's executor on this machine: killed in every way, and the bytes are torchrun's."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil
import pytest

from cache.features.store import open_store
from tests.configs.command.engines.stages import SOUND, kill_a_rank, ranks_anywhere, settings
from tests.tiny.stage_one import Done, Site, all_gone, finish, wait_for, write_site

pytest.importorskip("datatrove", reason="pip install --no-deps -r requirements-cluster.txt")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return write_site(tmp_path_factory.mktemp("local"))


@pytest.fixture(scope="module")
def by_torchrun(site: Site) -> Done:
    return site.run("torchrun", *SOUND)


def test_a_killed_rank_is_run_again_and_the_bytes_are_torchruns(site: Site, by_torchrun: Done) -> None:
    done = kill_a_rank(site, "killed", settings("local"), lambda: True)
    assert done.code == 0, done.output
    assert "features complete: 40 rows" in done.output
    log = (done.folder / ".engine/log.txt").read_text()
    assert "ended with -9" in log
    assert done.stores == by_torchrun.stores


def test_a_task_whose_own_process_is_killed_is_run_again(site: Site, by_torchrun: Done) -> None:
    """The pool of datatrove waited for its answer for ever."""
    folder = site.root / "task"
    process = site.start("task", *settings("local"))
    wait_for(lambda: ranks_anywhere(folder), process)
    rank = ranks_anywhere(folder)[0]
    rank.parent().kill()
    assert all_gone([rank])
    done = finish(process, folder)
    assert done.code == 0, done.output
    assert "ended with exit code -9" in (folder / ".engine/log.txt").read_text()
    assert done.stores == by_torchrun.stores


def test_a_killed_launcher_leaves_nobody_and_the_same_command_continues(site: Site, by_torchrun: Done) -> None:
    folder = site.root / "launcher"
    process = site.start("launcher", *settings("local"))
    wait_for(lambda: ranks_anywhere(folder), process)
    everyone = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    assert all_gone(everyone)
    again = site.run("launcher", *settings("local"))
    assert again.code == 0, again.output
    assert again.stores == by_torchrun.stores


def test_a_stopped_run_says_how_to_go_on_and_a_repaired_unit_runs_again(site: Site, by_torchrun: Done) -> None:
    """Files of completed tasks lie in the folder: the store is asked, and not they."""
    folder = site.root / "stopped"
    process = site.start("stopped", *settings("local"))
    wait_for(lambda: ranks_anywhere(folder), process)
    ranks, start = ranks_anywhere(folder), time.monotonic()
    process.send_signal(signal.SIGTERM)
    stopped = finish(process, folder)
    assert stopped.code == 143, stopped.output
    assert "the same command continues" in stopped.output
    assert time.monotonic() - start < 10
    assert all_gone(ranks)
    assert site.run("stopped", *settings("local")).code == 0
    open_store(folder / "clean.zarr").reset_unit("audio/wav2vec2", 1)
    repaired = site.run("stopped", *settings("local"))
    assert "features complete: 8 rows" in repaired.output
    assert repaired.stores == by_torchrun.stores


def test_what_a_rank_refuses_is_one_line(site: Site, tmp_path: Path) -> None:
    (tmp_path / "broken.pt").write_bytes(b"no checkpoint")
    text = [one for one in settings("local") if not one.startswith("encoders.text")]
    done = site.run("refused", *text, f"asr.model={tmp_path}/broken.pt")
    assert done.code == 2, done.output
    assert f"error: asr.model {tmp_path}/broken.pt could not be loaded" in done.output
    assert "Traceback" not in done.output
