"""A real Slurm of one node, this machine, whose three daemons and all files are the test's own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
DAEMONS_ARE_IN = "/usr/sbin"
PARTITION = "test"
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2100
PartitionName={partition} Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def one_node_slurm(folder: Path, partition: str = PARTITION) -> Iterator[None]:
    """Start it, with SLURM_CONF in this process's environment; skips the test where that cannot be done."""
    os.environ["PATH"] += os.pathsep + DAEMONS_ARE_IN
    if missing := [name for name in NEEDED if not shutil.which(name)]:
        pytest.skip(f"no {', '.join(missing)} here: apt install slurm-wlm munge")
    if os.geteuid():
        pytest.skip("slurmd wants to be started by root")
    with ExitStack() as stack:
        config = _write_config(folder, partition)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("SLURM_CONF", str(config))
        for name, *arguments in _daemons(folder, config):
            stack.enter_context(_daemon(folder, [name, *arguments]))
        _await_idle(folder)
        yield


def slurm(*command: str) -> str:
    """What a command of Slurm's prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _write_config(folder: Path, partition: str) -> Path:
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    config = folder / "slurm.conf"
    values = {"host": socket.gethostname().split(".")[0], "ports": [_free_port(), _free_port()], "user": "root"}
    config.write_text(CONFIG.format(folder=folder, partition=partition, **values))
    return config


def _free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _daemons(folder: Path, config: Path) -> Iterator[list[str]]:
    files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
    options = [f"--{name}={folder / file}" for name, file in {**files, "seed-file": "munge.seed"}.items()]
    yield ["munged", "--force", "--foreground", *options]
    yield ["slurmctld", "-D", "-f", str(config)]
    yield ["slurmd", "-D", "-f", str(config)]


@contextmanager
def _daemon(folder: Path, command: list[str]) -> Iterator[None]:
    with (folder / f"{command[0]}.out").open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def _await_idle(folder: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        asked = subprocess.run(["sinfo", "--noheader", "--format=%t"], capture_output=True, text=True, check=False)
        if asked.stdout.strip() == "idle":
            return
        if time.monotonic() > deadline:
            said = " ".join(path.read_text()[-300:] for path in sorted(folder.glob("*.out")))
            pytest.skip(f"Slurm does not start here: {asked.stdout} {asked.stderr} {said}")
        time.sleep(0.5)
