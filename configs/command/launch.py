"""Starting what starts ranks and stopping it: signals are passed on, ranks never outlive their launcher."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType

PR_SET_PDEATHSIG = 1
# Ten are promised between a signal and the end; torchrun alone would wait for thirty.
SECONDS_OF_GRACE = 5.0
SECONDS_BETWEEN_LOOKS = 0.2
# In the folder where ranks leave word: torchrun cannot pass on their exit codes.
ERROR_FILE = "error.txt"
# "trifuse." in the installed package, which holds the checkout's folders (setup.py).
_PREFIX = __name__.removesuffix("configs.command.launch")


def module_name(name: str) -> str:
    """What this checkout's module `extract.run.rank` is called here: `trifuse.extract.run.rank` once installed."""
    return _PREFIX + name


def rank_count() -> int:
    """Number of ranks, from the environment variable RANKS (default 2).

    Raises:
        ValueError: it is not a positive number.
    """
    text = os.environ.get("RANKS", "2")
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise ValueError(f"RANKS={text!r} must be a positive whole number")
    return int(text)


def _nothing() -> None:
    """Nobody looks."""


class Interruption:
    """Catches SIGINT and SIGTERM for the time of a run and passes them on to what started the ranks."""

    def __init__(self, seconds_of_grace: float = SECONDS_OF_GRACE) -> None:
        """Nothing is caught until `listen`; ranks have so long to end by themselves."""
        self.signal, self._seconds_of_grace = 0, seconds_of_grace
        self._deadline = 0.0
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def exit_code(self) -> int:
        """130 or 143 after a signal, else 0."""
        return 128 + self.signal if self.signal else 0

    def listen(self) -> None:
        """Catch both signals from now on."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def torchrun(
        self,
        arguments: Sequence[str],
        ranks: int,
        max_restarts: int,
        keep_open: Sequence[int] = (),
        meeting: Sequence[str] = ("--standalone",),
        extra: Mapping[str, str] = MappingProxyType({}),
        look: Callable[[], object] = _nothing,
    ) -> int:
        """Run `python -m <module> <arguments>` on every rank and wait; returns torchrun's exit code.

        Args:
            arguments: the module, and what it is given.
            ranks: how many, on this machine.
            max_restarts: how often they are started again after one died.
            keep_open, look: as of `start`.
            meeting: torchrun's arguments by which ranks of several machines meet.
            extra: what ranks find in their environment where it is not there already.
        """
        starter = module_name("configs.command.torchrun")
        command = [sys.executable, "-m", starter, *meeting, f"--nproc-per-node={ranks}"]
        module, *rest = arguments
        command += [f"--max-restarts={max_restarts}", "--monitor-interval=0.5", "-m", module_name(module), *rest]
        return self.start(command, {**extra, **environment()}, keep_open, look=look)

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        keep_open: Sequence[int] = (),
        output: int | None = None,
        look: Callable[[], object] = _nothing,
    ) -> int:
        """Run a command that starts ranks and wait; returns its exit code.

        Args:
            command, environment: of the process.
            keep_open: file descriptors that it inherits.
            output: where it writes; None: where this process does.
            look: called several times a second while it runs; what is true ends it as a signal does.
        """
        # A session of its own: Ctrl-C reaches this process alone, which then stops the ranks in order.
        self._child = subprocess.Popen(
            command,
            start_new_session=True,
            preexec_fn=die_with_parent,
            pass_fds=keep_open,
            env=environment,
            stdout=output,
            stderr=output,
        )
        ended = False
        while (code := self._child.poll()) is None:
            if (self.signal or ended) and time.monotonic() > self._deadline:
                break
            if look() and not (self.signal or ended):
                ended = True
                self._end()
            time.sleep(SECONDS_BETWEEN_LOOKS)
        if self.signal or ended:
            # It, ranks and their decoders, as far as they are still there. What this interrupts is pending.
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
        return self._child.wait() if code is None else code

    def _receive(self, number: int, _: object) -> None:
        self.signal = number
        if self._child is None:
            # Planning, downloading or waiting for the lock: every file written so far is complete.
            print("interrupted before any rank was started; the same command continues", file=sys.stderr)
            raise SystemExit(self.exit_code)
        self._end()

    def _end(self) -> None:
        assert self._child is not None
        self._deadline = time.monotonic() + self._seconds_of_grace
        self._child.terminate()


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal when its parent is killed outright (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def environment() -> dict[str, str]:
    """What ranks find in their environment."""
    # The launcher has resolved every hub name; ranks must see the same files, and need no network.
    # torchrun would set and announce OMP_NUM_THREADS; each rank sets its threads itself.
    return {
        "OMP_NUM_THREADS": "1",
        # A rank that is stopped leaves its decoders behind in a hurry; the system cleans up.
        "PYTHONWARNINGS": "ignore:resource_tracker:UserWarning",
        **os.environ,
        # Installed, nothing is looked for in the folder where a user happens to be: it may be a checkout.
        **({"PYTHONSAFEPATH": "1"} if _PREFIX else {}),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
