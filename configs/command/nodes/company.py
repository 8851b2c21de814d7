"""How the nodes of a job keep together: each leaves word of itself, every second, on storage that all of them see.

Node 0 has the lock of the folder, plans and concludes. The others wait until it is there, check that they would do
the same, start their ranks when it starts its own, and end with what it ends with. Who falls silent, or says that it
has ended, ends the job on all nodes. Clocks are not compared: word is new where it has changed.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cache.files.atomic import write_atomic
from cache.files.difference import difference
from cache.files.lock import PATIENCE_SECONDS, locked
from configs.command.launch import ERROR_FILE, Interruption
from configs.command.nodes.settings import Nodes

# In the folder that a job writes to.
FOLDER = ".nodes"
AGREED = "agreed.json"
SECONDS_BETWEEN_WORDS = 1.0
SECONDS_OF_SILENCE = 30.0
# Node 0 may have much to plan, and people start nodes by hand.
SECONDS_TO_COME = 1800.0
SECONDS_TO_LEAVE = 10.0
SECONDS_BETWEEN_LOOKS = 0.2

# What a node is at, in this order; `RUNS`, `OVER` and `DECIDES` once for each round of ranks.
PLANS, READY, JOINED, RUNS, OVER, DECIDES, ENDED = "plans", "ready", "joined", "runs", "over", "decides", "ended"


@dataclass(frozen=True)
class Word:
    """What a node says of itself.

    Attributes:
        job: which start of the command it is of.
        beat: rises with every word.
        state: what it is at.
        round: how often ranks were started.
        code: how they ended, or how the command ends.
        said: why, for people; "" where there is nothing to say.
    """

    job: str
    beat: int = 0
    state: str = PLANS
    round: int = 0
    code: int = 0
    said: str = ""


class Company:
    """The nodes of a job, seen from one of them.

    Attributes:
        nodes: how many there are, and which this is.
        folder: where launchers and ranks of all nodes leave word for each other.
        reason: why the job has to end, as soon as another node gives one.
    """

    def __init__(self, nodes: Nodes, folder: Path, interruption: Interruption, job: str = "") -> None:
        """`job`: the same on all nodes, and of no other start."""
        self.nodes, self.folder, self.reason = nodes, folder, ""
        self._interruption = interruption
        self._word = Word(job)
        self._heard: dict[int, tuple[int, float]] = {}
        self._looked = float("-inf")
        self._falters = ""
        self._last = 1, ""
        self._talking = threading.Lock()
        self._gone = threading.Event()
        self._voice = threading.Thread(target=self._talk, daemon=True)

    def meet(self, agreed: Callable[[], Mapping[str, Any]], share: Callable[[], object]) -> None:
        """Wait until all nodes are there and would do the same.

        Args:
            agreed: returns, as JSON knows it, what must be equal on all nodes.
            share: called on node 0 before the others are let in: they are to share its lock.

        Raises:
            ValueError: a node would do something else, or has not come, or has ended.
        """
        if self.nodes.count == 1:
            return
        own = json.loads(json.dumps(agreed()))
        if self.nodes.lead:
            write_atomic(self.folder / AGREED, json.dumps(own, indent=1))
            share()
            self._say(state=READY)
            others = range(1, self.nodes.count)
            print(f"node 0 waits for {len(others)} more (the same command with another NODE_RANK)", flush=True)
            if not self._wait(lambda: all(self._is_at(one, JOINED) for one in others), SECONDS_TO_COME):
                late = next((one for one in others if not self._is_at(one, JOINED)), 1)
                raise ValueError(self.reason or f"node {late} has not come; start the same with NODE_RANK={late} there")
        else:
            self._wait(lambda: self._is_at(0, READY), SECONDS_TO_COME)
            if self.reason:
                raise ValueError(self.reason)
            there = json.loads((self.folder / AGREED).read_text(encoding="utf-8"))
            names = ("on node 0", f"on node {self.nodes.rank}")
            if differs := difference(there, own, names):
                raise ValueError(f"nodes would do different things ({differs}); give all of them the same")
            self._say(state=JOINED)

    def run(self, arguments: Sequence[str], ranks: int, max_restarts: int, keep_open: Sequence[int] = ()) -> None:
        """Run `python -m <module> <arguments>` on the ranks of all nodes, to their end.

        torchrun cannot go on without a node whose ranks have died while others are done: all are started again.

        Raises:
            ValueError: node 0 has ended before.
        """
        if self.nodes.count == 1:
            self._interruption.torchrun(arguments, ranks, max_restarts, keep_open)
            return
        for attempt in range(max_restarts + 1):
            self._begin()
            meeting, extra = self.nodes.meeting(f"{self._word.job}-{self._word.round}"), self.nodes.environment()
            code = self._interruption.torchrun(arguments, ranks, 0, keep_open, meeting, extra, self.listen)
            if not self._again(code, attempt < max_restarts):
                return

    def listen(self) -> bool:
        """Hear what the others say, at most once a second; returns whether these ranks are to end."""
        if not self.reason and time.monotonic() - self._looked > SECONDS_BETWEEN_WORDS:
            self._looked = time.monotonic()
            for node in self._watched:
                self._mark(node)
        return bool(self.reason or self._falters)

    @property
    def why(self) -> str:
        """Why the ranks here were ended early, where another node is the cause; "" where none is."""
        return self.reason or self._falters

    def conclude(self, code: int, said: str) -> None:
        """Say how the command ends, and why; the others hear it when this is left."""
        self._last = code, said

    def verdict(self) -> tuple[int, str]:
        """On other nodes than 0: how the command ends, and what is to be said of it."""
        self._wait(lambda: self._is_at(0, ENDED), float("inf"))
        if code := self._interruption.exit_code:
            return code, self._told
        word = self._hear(0)
        if word and word.state == ENDED and word.job == self._word.job:
            return word.code, word.said
        return 1, f"error: {self.reason}; the same command on all nodes continues"

    @property
    def _told(self) -> str:
        """What is to be said of a signal, once one came."""
        return f"node {self.nodes.rank} was told to stop" if self._interruption.exit_code else ""

    @property
    def _watched(self) -> Sequence[int]:
        """Node 0 hears all of them, and they hear node 0."""
        return range(1, self.nodes.count) if self.nodes.lead else (0,)

    def _begin(self) -> None:
        """A round begins when node 0 says so."""
        self._falters, wanted = "", self._word.round + 1
        if not self.nodes.lead:
            self._wait(lambda: self._has_begun(wanted), float("inf"))
        if self.reason:
            raise ValueError(self.reason)
        self._say(state=RUNS, round=wanted, code=0, said="")

    def _again(self, code: int, may: bool) -> bool:
        """Wait until the round is over on all nodes; returns whether there is another one of the same."""
        own, decided = self._word.round, partial(self._is_at, 0, DECIDES, self._word.round)
        self._say(state=OVER, code=code, said=self._told)
        if self.nodes.lead:
            self._wait(lambda: all(self._is_at(node, OVER, own) for node in self._watched), float("inf"))
            self.listen()
        else:
            self._wait(lambda: decided() or self._has_begun(own + 1) or self._is_at(0, ENDED), float("inf"))
        if self._told:
            self._say(code=self._interruption.exit_code, said=self._told)
            return False
        if not self.nodes.lead:
            return self._has_begun(own + 1)
        again = may and bool(code or self._falters) and not (self.reason or (self.folder / ERROR_FILE).exists())
        if not again:
            self._say(state=DECIDES, code=0)
        return again

    def _wait(self, come: Callable[[], bool], seconds: float) -> bool:
        """Wait for something while there is no reason to end, nor a signal; returns whether it came."""
        deadline = time.monotonic() + seconds
        while not come():
            self.listen()
            if self.reason or self._interruption.exit_code or time.monotonic() > deadline:
                return come()
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return True

    def _is_at(self, node: int, state: str, number: int | None = None) -> bool:
        """Whether a node of this job is at something, in a round, or in any."""
        word = self._hear(node)
        if word is None or word.job != self._word.job or word.state != state:
            return False
        return number in (None, word.round)

    def _has_begun(self, number: int) -> bool:
        """Whether node 0 has begun a round."""
        word = self._hear(0)
        return word is not None and word.job == self._word.job and word.round >= number

    def _mark(self, node: int) -> None:
        """Take note of what a node says."""
        word = self._hear(node)
        if word and word.job != self._word.job:
            if node == 0:
                self.reason = "node 0 was started again"
            return
        beat, when = self._heard.get(node, (-1, time.monotonic()))
        if word and word.beat != beat:
            beat, when = self._heard[node] = word.beat, time.monotonic()
        if node in self._heard and time.monotonic() - when > SECONDS_OF_SILENCE:
            self.reason = f"node {node} died or hangs: no word from it for {SECONDS_OF_SILENCE:.0f} s"
        elif word and word.state == ENDED and word.code:
            self.reason = word.said.removeprefix("error: ") or f"node {node} has ended"
        elif word and word.state == OVER and word.round == self._word.round and word.code:
            self.reason, self._falters = word.said, f"ranks of node {node} have died"

    def _hear(self, node: int) -> Word | None:
        """The last word of a node; None while it is being written, or was never."""
        return heard(self.folder / _file(node))

    def _say(self, **changes: Any) -> None:
        # In place and not by a new file of the same name: some clients of network storage find that late.
        with self._talking:
            self._word = replace(self._word, beat=self._word.beat + 1, **changes)
            (self.folder / _file(self.nodes.rank)).write_text(json.dumps(asdict(self._word)), encoding="utf-8")

    def _talk(self) -> None:
        while not self._gone.wait(SECONDS_BETWEEN_WORDS):
            # A hiccup of the storage; others will say that nothing was heard.
            with suppress(OSError):
                self._say()

    def _enter(self) -> None:
        self._say()
        self._voice.start()

    def _leave(self) -> None:
        """Have the last word; node 0 removes the folder once all others have had theirs."""
        self._gone.set()
        self._voice.join()
        with suppress(OSError):
            code, said = self._last
            self._say(state=ENDED, code=code, said=said)
        deadline = time.monotonic() + SECONDS_TO_LEAVE
        while self.nodes.lead and time.monotonic() < deadline:
            if all(self._is_at(node, ENDED) for node in self._watched):
                shutil.rmtree(self.folder, ignore_errors=True)
                return
            time.sleep(SECONDS_BETWEEN_LOOKS)


@contextmanager
def company(nodes: Nodes, folder: Path, interruption: Interruption) -> Iterator[Company]:
    """Be one of the nodes that write to a folder; of one node, there is a temporary folder and nobody to wait for.

    Node 0 holds the folder's lock. Whatever ends this on one node is said to the others.

    Raises:
        ValueError: node 0 is not there.
    """
    if nodes.count == 1:
        with tempfile.TemporaryDirectory() as name:
            yield Company(nodes, Path(name), interruption)
        return
    ours = folder / FOLDER
    if nodes.lead:
        shutil.rmtree(ours, ignore_errors=True)
        ours.mkdir(parents=True)
    job = uuid.uuid4().hex[:8] if nodes.lead else _living_job(nodes, ours)
    joined = Company(nodes, ours.resolve(), interruption, job)
    joined._enter()
    try:
        yield joined
    except BaseException as error:
        code, told = (2, f"error: {error}") if isinstance(error, (ValueError, OSError)) else (1, "")
        joined.conclude(code, told or f"error: node {nodes.rank} was stopped")
        raise
    finally:
        joined._leave()


def assist(
    nodes: Nodes,
    folder: Path,
    interruption: Interruption,
    agreed: Callable[[], Mapping[str, Any]],
    programs: Callable[[Path], Sequence[Sequence[str]]],
    ranks: int,
    max_restarts: int = 0,
    key: str = "features_dir",
) -> int:
    """Be another node than 0, to the end of the command; prints what node 0 says at last, and returns the exit code.

    Args:
        nodes, folder, interruption: as of `company`.
        agreed: as of `Company.meet`.
        programs: from the folder where word is left, the modules and arguments that ranks run, one after the other.
        ranks, max_restarts: as of `Company.run`.
        key: the setting that names the folder.

    Raises:
        ValueError: this node would do something else, or node 0 has ended before.
    """
    with company(nodes, folder, interruption) as together:
        together.meet(agreed, share=lambda: None)
        with locked(folder, key=key, shared=True) as lock:
            for program in programs(together.folder):
                if not together.why:
                    together.run(program, ranks, max_restarts, [lock])
        code, said = together.verdict()
        together.conclude(code, said)
    goes_on = "; the same command on all nodes continues" if interruption.exit_code else ""
    print(f"{said}{goes_on}", file=sys.stderr if code else sys.stdout)
    return code


def patience(nodes: Nodes) -> float:
    """How long to wait for the folder's lock: nodes of a job whose first one was killed notice it after a while."""
    return PATIENCE_SECONDS if nodes.count == 1 else SECONDS_OF_SILENCE + PATIENCE_SECONDS


def heard(path: Path) -> Word | None:
    """The word in a file; None while it is being written, or was never."""
    try:
        return Word(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _living_job(nodes: Nodes, folder: Path) -> str:
    """Wait for node 0, and for its word to change: that of an earlier start does not."""
    print(f"node {nodes.rank} waits for node 0 ({folder / _file(0)})", flush=True)
    deadline, first = time.monotonic() + SECONDS_TO_COME, heard(folder / _file(0))
    while time.monotonic() < deadline:
        word = heard(folder / _file(0))
        if word and first and word.job == first.job and word.beat > first.beat and word.state in (PLANS, READY):
            return word.job
        first = word if first is None or (word and word.job != first.job) else first
        time.sleep(SECONDS_BETWEEN_LOOKS)
    raise ValueError("node 0 has not come; start the same with NODE_RANK=0 there")


def _file(node: int) -> str:
    return f"node-{node}.json"
