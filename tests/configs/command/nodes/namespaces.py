"""Two machines, as far as the network goes: two namespaces of this one, joined by a cable. They share its disk."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.tiny.places import ROOT

RENDEZVOUS = "10.213.7.1:29500"


@dataclass(frozen=True)
class Cable:
    """The two namespaces' names."""

    names: tuple[str, str]

    def start(self, node: int, module: str, *arguments: str, ranks: int = 1) -> subprocess.Popen[str]:
        """The command of `make` on one of the two."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RANKS": str(ranks),
            "OMP_NUM_THREADS": "1",
            "NODES": "2",
            "NODE_RANK": str(node),
            "RENDEZVOUS": RENDEZVOUS,
        }
        command = ["ip", "netns", "exec", self.names[node], sys.executable, "-m", module, *arguments]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **streams)  # type: ignore[call-overload,no-any-return]


@contextmanager
def cable() -> Iterator[Cable]:
    """Lay one, for as long as this lasts; skips with the reason where that is not permitted."""
    names = (f"trifuse-{os.getpid()}-0", f"trifuse-{os.getpid()}-1")
    ends = (f"tf{os.getpid() % 10**6}a", f"tf{os.getpid() % 10**6}b")
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for number, (name, end) in enumerate(zip(names, ends, strict=True), start=1):
            _ip("link", "set", end, "netns", name)
            for words in (("addr", "add", f"10.213.7.{number}/24", "dev", end), ("link", "set", end, "up")):
                _ip("-n", name, *words)
            _ip("-n", name, "link", "set", "lo", "up")
        yield Cable(names)
    finally:
        for name in names:
            with suppress(OSError):
                subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _ip(*words: str) -> None:
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no `ip` here: apt-get install iproute2")
    if done.returncode:
        pytest.skip(f"network namespaces are not permitted here: ip {' '.join(words)}: {done.stderr.strip()}")


def strike(process: subprocess.Popen[str]) -> None:
    """SIGKILL to everything that runs on a node, as when its power fails."""
    everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in everyone:
        with suppress(psutil.Error):
            one.kill()
    process.communicate()


def all_done(processes: Sequence[subprocess.Popen[str]], seconds: float = 300) -> list[str]:
    """What they print, once they have ended well."""
    said = [process.communicate(timeout=seconds)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n-----\n".join(said)
    return said


def await_work(processes: Sequence[subprocess.Popen[str]], at_work: Callable[[], object]) -> None:
    deadline = time.monotonic() + 200
    while not at_work():
        for process in processes:
            assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def file_names(folder: Path, pattern: str) -> list[str]:
    return [path.name for path in folder.glob(pattern) if path.stat().st_size]
