"""Stage one on a real Slurm of one node: killed, signalled, requeued, cancelled, and the bytes are torchrun's."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.command.engines.slurm import NAME_FILE
from tests.configs.command.engines.one_node import PARTITION, one_node_slurm, slurm
from tests.configs.command.engines.stages import SOUND, kill_a_rank, ranks_anywhere, settings
from tests.tiny.stage_one import Done, Site, finish, wait_for, write_site

pytest.importorskip("datatrove", reason="pip install --no-deps -r requirements-cluster.txt")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SETTINGS = settings("slurm", f"engine.slurm.partition={PARTITION}")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with one_node_slurm(tmp_path_factory.mktemp("slurm")):
        yield write_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def by_torchrun(site: Site) -> Done:
    return site.run("torchrun", *SOUND)


def jobs() -> dict[str, str]:
    """State by number, of what waits or runs."""
    lines = slurm("squeue", "--noheader", "--array", "--format=%A %T").split("\n")
    return dict(line.split() for line in lines if line)


def test_a_killed_rank_is_submitted_again_and_the_bytes_are_torchruns(site: Site, by_torchrun: Done) -> None:
    done = kill_a_rank(site, "killed", SETTINGS, lambda: True)
    assert done.code == 0, done.output
    logs = [path.read_text() for path in (done.folder / ".engine/datatrove/slurm_logs").glob("*.out")]
    assert any("ended with -9" in text for text in logs)
    assert done.stores == by_torchrun.stores
    assert not (done.folder / NAME_FILE).exists()


def test_a_signalled_task_is_queued_again_and_goes_on(site: Site, by_torchrun: Done) -> None:
    """As before a node is taken back: scancel --signal=USR1."""
    folder = site.root / "requeued"
    process = site.start("requeued", *SETTINGS)
    wait_for(lambda: ranks_anywhere(folder), process)
    # A signal reaches nobody in a task that runs and has no step yet: of those that have, one.
    number = ranks_anywhere(folder)[0].environ()["SLURM_JOB_ID"]
    slurm("scancel", "--signal=USR1", number)
    wait_for(lambda: jobs().get(number) == "PENDING", process)
    assert "Restarts=1" in slurm("scontrol", "show", "job", number)
    # Slurm would wait for two minutes.
    slurm("scontrol", "update", f"JobId={number}", "StartTime=now")
    done = finish(process, folder)
    assert done.code == 0, done.output
    assert done.stores == by_torchrun.stores


def test_a_stopped_launcher_takes_its_job_along(site: Site, by_torchrun: Done) -> None:
    folder = site.root / "stopped"
    process = site.start("stopped", *SETTINGS)
    wait_for(lambda: ranks_anywhere(folder), process)
    process.send_signal(signal.SIGTERM)
    stopped = finish(process, folder)
    assert stopped.code == 143, stopped.output
    assert "the same command continues" in stopped.output
    again = site.run("stopped", *SETTINGS)
    assert again.code == 0, again.output
    assert again.stores == by_torchrun.stores
    assert jobs() == {}


def test_a_killed_launcher_takes_its_job_along(site: Site) -> None:
    folder = site.root / "launcher"
    process = site.start("launcher", *SETTINGS)
    wait_for(lambda: ranks_anywhere(folder), process)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while jobs() or ranks_anywhere(folder):
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_what_sbatch_refuses_is_in_the_log(site: Site) -> None:
    refused = site.run("refused", *SETTINGS, "engine.slurm.partition=nowhere", "max_restarts=0")
    assert refused.code == 1
    log = site.root / "refused/.engine/log.txt"
    assert f"(see {log}); the same command continues" in refused.output
    assert "invalid partition specified: nowhere" in Path(log).read_text()
