"""Which node of how many this is, from the environment, as torchrun takes it."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

# A name or an IPv4 address, and a port.
ENDPOINT = re.compile(r"([A-Za-z0-9_.-]+):(\d{1,5})")
SIOCGIFADDR = 0x8915


@dataclass(frozen=True)
class Nodes:
    """A job's nodes, seen from one of them.

    Attributes:
        count: how many machines run the command.
        rank: which of them this is, from 0.
        rendezvous: host and port by which the others reach node 0; "" where there is one node.
    """

    count: int = 1
    rank: int = 0
    rendezvous: str = ""

    @property
    def lead(self) -> bool:
        """Whether this one plans, holds the lock and concludes."""
        return self.rank == 0

    def meeting(self, name: str) -> list[str]:
        """torchrun's arguments by which ranks of all nodes meet; `name`: of this start, so that no other one joins."""
        if self.count == 1:
            return ["--standalone"]
        host = self.rendezvous.rpartition(":")[0]
        return [
            f"--nnodes={self.count}",
            f"--node-rank={self.rank}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={self.rendezvous}",
            f"--rdzv-id={name}",
            # torchrun would guess from the host's name who opens the port, and take nobody for it behind an address
            # that the machine itself does not know.
            f"--rdzv-conf=is_host={int(self.lead)}",
            # It numbers nodes in the order of these names, and the ranks of all connect to the first one.
            f"--local-addr={host if self.lead else f'{host}~{self.rank:06d}'}",
        ]

    def environment(self) -> dict[str, str]:
        """What ranks need to reach those of other nodes, where the user has not said it."""
        if self.count == 1:
            return {}
        # gloo would take the address behind the host's own name: on Debian that is one that no other machine reaches.
        host, _, port = self.rendezvous.rpartition(":")
        name = interface_towards(host, int(port))
        return {"GLOO_SOCKET_IFNAME": name} if name else {}


ONE_NODE = Nodes()


def these_nodes(environment: Mapping[str, str] = os.environ) -> Nodes:
    """NODES, NODE_RANK and RENDEZVOUS; one node where nothing is said.

    Raises:
        ValueError: one line: they do not go together.
    """
    rendezvous = environment.get("RENDEZVOUS", "")
    if not environment.get("NODES"):
        if rendezvous:
            raise ValueError(f"RENDEZVOUS={rendezvous} needs NODES=<how many> and NODE_RANK=<which of them, from 0>")
        return Nodes()
    count, rank = _number(environment, "NODES", "1"), _number(environment, "NODE_RANK", "0")
    if not count:
        raise ValueError("NODES=0: one is the least")
    if rank >= count:
        raise ValueError(f"NODE_RANK={rank} of NODES={count}: they are numbered from 0 to {count - 1}")
    if count == 1:
        return Nodes()
    found = ENDPOINT.fullmatch(rendezvous)
    if not found or not 0 < int(found[2]) < 65536:
        raise ValueError(
            f"NODES={count} needs RENDEZVOUS=<host>:<port> of node 0, the same on all nodes, and NODE_RANK; it is "
            f"{rendezvous!r}"
        )
    return Nodes(count, rank, rendezvous)


def refuse_several(what: str) -> None:
    """Refuse NODES for something that runs on one.

    Raises:
        ValueError: one line.
    """
    if (nodes := these_nodes()).count > 1:
        raise ValueError(f"NODES={nodes.count}: {what} runs on one node; leave NODES out")


def interface_towards(host: str, port: int) -> str:
    """Name of the network interface by which this machine reaches a host; "" where it cannot be told (Linux only)."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Nothing is sent: the kernel looks up the route.
        probe.connect((host, port))
        own = socket.inet_aton(probe.getsockname()[0])
        for _, name in socket.if_nameindex():
            with suppress(OSError):
                asked = struct.pack("256s", name.encode())
                if fcntl.ioctl(probe.fileno(), SIOCGIFADDR, asked)[20:24] == own:
                    return name
    return ""


def _number(environment: Mapping[str, str], name: str, default: str) -> int:
    text = environment.get(name) or default
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{name}={text!r} must be a whole number")
    return int(text)
