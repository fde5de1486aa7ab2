"""How fast is chitchat, which gossips what each node says of itself, in rounds?

The library in Rust of Quickwit, with the reconciliation of Cassandra: every interval a node compares versions with
three others. It leaves the interval to its user; measured are a second, as programs have it, and 50 ms, as its own
tests have it, for speed. There is no push: a write waits for the next round. A node writes only its own keys, so that
nothing is ever in conflict. A node is dead when its heartbeats were late for too long (phi accrual).
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


def in_rounds(program: str) -> Peer:
    """Of a program that takes an interval in milliseconds, and is for the rest as all that are built here."""

    def member(interval: int) -> Member:
        def command(cluster: str, name: str, port: int, seeds: list[int]) -> list[str]:
            return [str(BUILT / program), "member", str(interval), name, *map(str, [port, *seeds])]

        return command

    def node(kind: str, interval: int) -> Callable[[str], list[str]]:
        def command(address: str) -> list[str]:
            hears, tells = address.split()
            ports = [hears, tells] if kind == "hear" else [tells, hears]
            return [str(BUILT / program), kind, str(interval), kind, *ports]

        return command

    return Peer(
        program,
        running,
        channels={
            program: channel(node("tell", SECOND), node("hear", SECOND)),
            f"{program}, 50 ms": channel(node("tell", FAST), node("hear", FAST)),
        },
        floods={"one key": flood(node("tell-one", FAST), node("hear", FAST))},
        members={program: member(SECOND), f"{program}, 50 ms": member(FAST)},
        built=(program,),
    )


PEER = in_rounds("chitchat")
