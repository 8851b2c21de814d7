"""What a node is told, and what torchrun makes of it."""

from __future__ import annotations

import socket

import pytest

from configs.command.nodes.settings import Nodes, interface_towards, refuse_several, these_nodes


def test_nothing_said_is_one_node_and_torchrun_stands_alone() -> None:
    """NODE_RANK alone is something that clouds set, whatever runs there."""
    for environment in ({}, {"NODE_RANK": "3"}, {"NODES": "", "RENDEZVOUS": ""}, {"NODES": "1", "RENDEZVOUS": "a:1"}):
        nodes = these_nodes(environment)
        assert (nodes, nodes.meeting("x"), nodes.environment()) == (Nodes(), ["--standalone"], {})


def test_torchrun_is_given_its_own_arguments_and_node_0_has_the_first_ranks() -> None:
    """torchrun sorts nodes by what it takes for their addresses; the first one's is connected to."""
    given = {"NODES": "11", "RENDEZVOUS": "gpu-7.lab:29500"}
    nodes = [these_nodes({**given, "NODE_RANK": str(rank)}) for rank in range(11)]
    said = [dict(word.removeprefix("--").split("=", 1) for word in one.meeting("job-1")) for one in nodes]
    common = {"nnodes": "11", "rdzv-backend": "c10d", "rdzv-endpoint": "gpu-7.lab:29500", "rdzv-id": "job-1"}
    assert all(common.items() <= one.items() for one in said)
    assert [one["node-rank"] for one in said] == [str(rank) for rank in range(11)]
    assert [one["rdzv-conf"] for one in said] == ["is_host=1"] + ["is_host=0"] * 10
    names = [one["local-addr"] for one in said]
    assert names == sorted(names)
    assert names[0] == "gpu-7.lab"
    assert [one.lead for one in nodes] == [True] + [False] * 10


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"NODES": "two"}, "NODES='two' must be a whole number"),
        ({"NODES": "0"}, "NODES=0: one is the least"),
        ({"NODES": "2", "NODE_RANK": "2", "RENDEZVOUS": "a:1"}, r"NODE_RANK=2 of NODES=2: .* from 0 to 1"),
        ({"NODES": "2", "NODE_RANK": "-1"}, "NODE_RANK='-1' must be a whole number"),
        ({"NODES": "2", "NODE_RANK": "1"}, "NODES=2 needs RENDEZVOUS=<host>:<port>"),
        ({"NODES": "2", "RENDEZVOUS": "host"}, "it is 'host'"),
        ({"NODES": "2", "RENDEZVOUS": "host:0"}, "it is 'host:0'"),
        ({"NODES": "2", "RENDEZVOUS": "host:65536"}, "it is 'host:65536'"),
        ({"NODES": "2", "RENDEZVOUS": "--x:1 y:2"}, "it is '--x:1 y:2'"),
        ({"RENDEZVOUS": "a:1", "NODE_RANK": "1"}, "RENDEZVOUS=a:1 needs NODES=<how many>"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        these_nodes(environment)
    assert "\n" not in str(refused.value)


def test_what_runs_on_one_node_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_several("a sweep")
    for name, value in (("NODES", "2"), ("NODE_RANK", "1"), ("RENDEZVOUS", "a:1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="NODES=2: a sweep runs on one node; leave NODES out"):
        refuse_several("a sweep")


def test_gloo_is_given_the_interface_that_leads_to_node_0() -> None:
    """It took the address behind the host's own name, which no other machine reaches."""
    name = interface_towards("127.0.0.1", 29500)
    assert name in [found for _, found in socket.if_nameindex()]
    assert Nodes(2, 1, "127.0.0.1:29500").environment() == {"GLOO_SOCKET_IFNAME": name}
    assert interface_towards("no-such-host.invalid", 29500) == ""
