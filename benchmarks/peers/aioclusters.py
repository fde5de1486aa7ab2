"""How fast is aiocluster, chitchat's protocol for asyncio?

A library in Python for 3.13 and later, so it runs with a Python of its own, which `make bench-peers` makes if there is
one so new. It speaks TCP, a connection for each exchange. As for chitchat: in rounds of a second, which is its default,
and of 50 ms, for speed; a node writes only its own keys, and a write waits for the next round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers import BUILT, Member, Peer, channel, flood, free_port

SECOND, FAST = 1000, 50  # milliseconds


@contextmanager
def running(directory: Path) -> Iterator[str]:
    """The ports of the two that are there: who hears, and who tells."""
    yield f"{free_port()} {free_port()}"


def member(interval: int) -> Member:
    def command(cluster: str, name: str, port: int, seeds: list[int]) -> list[str]:
        return [str(BUILT / "aiocluster"), "member", str(interval), name, *map(str, [port, *seeds])]

    return command


def node(kind: str, interval: int) -> Callable[[str], list[str]]:
    def command(address: str) -> list[str]:
        hears, tells = address.split()
        ports = [hears, tells] if kind == "hear" else [tells, hears]
        return [str(BUILT / "aiocluster"), kind, str(interval), kind, *ports]

    return command


PEER = Peer(
    "aiocluster",
    running,
    channels={
        "aiocluster": channel(node("tell", SECOND), node("hear", SECOND)),
        "aiocluster, 50 ms": channel(node("tell", FAST), node("hear", FAST)),
    },
    floods={"one key": flood(node("tell-one", FAST), node("hear", FAST))},
    members={"aiocluster": member(SECOND), "aiocluster, 50 ms": member(FAST)},
    built=("aiocluster",),
)
