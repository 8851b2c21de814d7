"""Nodes that keep together, as threads of this process; in place of torchrun there is a function."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from configs.command.launch import ERROR_FILE, Interruption
from configs.command.nodes import company as module
from configs.command.nodes.company import FOLDER, Company, company
from configs.command.nodes.settings import Nodes

Ranks = Callable[[Callable[[], object]], int]


class Stub(Interruption):
    """Ranks that are a function of `look`, by the number of the round."""

    def __init__(self, *rounds: Ranks) -> None:
        super().__init__()
        self.rounds, self.meetings = list(rounds), list[Sequence[str]]()

    def torchrun(self, *given: Any, **_: Any) -> int:
        self.meetings.append(given[4])
        return self.rounds.pop(0)(given[6])


def fine(_: Callable[[], object]) -> int:
    return 0


def dead(_: Callable[[], object]) -> int:
    return 1


def at_work(look: Callable[[], object]) -> int:
    """For as long as nobody says that it is to end."""
    deadline = time.monotonic() + 20
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return 143


@dataclass
class Node:
    """One of two, and what became of it."""

    rank: int
    ranks: Stub
    agreed: dict[str, Any] = field(default_factory=dict)
    max_restarts: int = 0
    outcome: Any = None
    why: str = ""

    def work(self, folder: Path) -> None:
        try:
            with company(Nodes(2, self.rank, "here:1"), folder, self.ranks) as one:
                one.meet(lambda: self.agreed, lambda: None)
                one.run(["module"], 1, self.max_restarts)
                self.why = one.why
                self.outcome = self._end(one)
        except ValueError as error:
            self.outcome = str(error)

    def _end(self, one: Company) -> tuple[int, str]:
        code, said = (0, "complete") if self.rank == 0 else one.verdict()
        if self.rank == 0 and (self.why or self.ranks.exit_code):
            code, said = 1, f"error: {self.why or 'node 0 was told to stop'}"
        one.conclude(code, said)
        return code, said


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("BETWEEN_WORDS", 0.05), ("BETWEEN_LOOKS", 0.01), ("OF_SILENCE", 1.0), ("TO_LEAVE", 1.0)):
        monkeypatch.setattr(module, f"SECONDS_{name}", seconds)


def together(folder: Path, *nodes: Node) -> None:
    threads = [threading.Thread(target=node.work, args=(folder,)) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_both_meet_under_one_name_and_end_with_what_node_0_says(tmp_path: Path) -> None:
    """A word of an earlier start lies there; nobody takes it for a node."""
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "node-0.json").write_text('{"job": "old", "beat": 9, "state": "ready"}')
    nodes = [Node(rank, Stub(fine), {"seed": 1}) for rank in (0, 1)]
    together(tmp_path, *nodes)
    assert [node.outcome for node in nodes] == [(0, "complete")] * 2
    names = [[word for word in node.ranks.meetings[0] if word.startswith("--rdzv-id=")] for node in nodes]
    assert names[0] == names[1]
    assert "old" not in names[0][0]
    assert not (tmp_path / FOLDER).exists()


def test_a_node_that_would_do_something_else_is_refused_on_both(tmp_path: Path) -> None:
    nodes = [Node(rank, Stub(), {"config": {"threads": 1 + rank}, "RANKS": 1}) for rank in (0, 1)]
    together(tmp_path, *nodes)
    wanted = "nodes would do different things (config.threads: 1 on node 0, 2 on node 1); give all of them the same"
    assert [node.outcome for node in nodes] == [wanted, wanted]


def test_ranks_that_died_on_one_node_are_started_again_on_both(tmp_path: Path) -> None:
    """torchrun waits for five minutes where one node is done and the other one starts again."""
    nodes = [Node(0, Stub(at_work, fine), max_restarts=1), Node(1, Stub(dead, fine), max_restarts=1)]
    together(tmp_path, *nodes)
    assert [node.outcome for node in nodes] == [(0, "complete")] * 2
    assert [len(node.ranks.meetings) for node in nodes] == [2, 2]


def test_what_ranks_refuse_is_not_tried_again_and_restarts_come_to_an_end(tmp_path: Path) -> None:
    def refuse(_: Callable[[], object]) -> int:
        (tmp_path / FOLDER / ERROR_FILE).write_text("no such model")
        return 1

    for first in (refuse, dead):
        nodes = [Node(0, Stub(first, *[dead] * (first is dead)), max_restarts=int(first is dead))]
        nodes.append(Node(1, Stub(at_work, *[dead] * (first is dead)), max_restarts=int(first is dead)))
        together(tmp_path, *nodes)
        assert [node.ranks.rounds for node in nodes] == [[], []]


@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_is_told_to_stop_ends_the_other_with_its_reason(tmp_path: Path, rank: int) -> None:
    def stopped(_: Callable[[], object]) -> int:
        nodes[rank].ranks.signal = 15
        return 143

    nodes = [Node(one, Stub(stopped if one == rank else at_work)) for one in (0, 1)]
    together(tmp_path, *nodes)
    said = [f"node {rank} was told to stop" in f"{node.why} {node.outcome}" for node in nodes]
    assert said[1 - rank]
    if rank == 1:
        assert nodes[1].outcome[0] == 143


@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_falls_silent_ends_the_other(tmp_path: Path, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a machine does that loses its power."""
    silent = threading.Event()
    plain = Company._say

    def say(one: Company, **changes: Any) -> None:
        if not (silent.is_set() and one.nodes.rank == rank):
            plain(one, **changes)

    def struck(_: Callable[[], object]) -> int:
        silent.set()
        time.sleep(2)
        return -9

    monkeypatch.setattr(Company, "_say", say)
    nodes = [Node(one, Stub(struck if one == rank else at_work)) for one in (0, 1)]
    together(tmp_path, *nodes)
    assert f"node {rank} died or hangs: no word from it for 1 s" in nodes[1 - rank].why


def test_node_0_says_why_it_cannot_begin(tmp_path: Path) -> None:
    def planning(folder: Path) -> None:
        with suppress(ValueError), company(Nodes(2, 0, "here:1"), folder, Stub()):
            time.sleep(0.5)
            raise ValueError("no such store")

    first, second = Node(0, Stub()), Node(1, Stub())
    first.work = planning  # type: ignore[method-assign]
    together(tmp_path, first, second)
    assert second.outcome == "no such store"


def test_one_that_does_not_come_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS_TO_COME", 0.3)
    for rank, said in ((0, "node 1 has not come; start the same with NODE_RANK=1 there"), (1, "node 0 has not come")):
        node = Node(rank, Stub())
        together(tmp_path / str(rank), node)
        assert said in node.outcome
