"""How fast is Distributed Data of Apache Pekko, CRDTs that spread by gossip between JVMs?

Nearest to gossamesh in what it does: replicated maps, sets and counters in each process, no server, a cluster of its
own with failure detection. Each key is an LWWMap of one entry. By default a write is local, deltas spread every 200 ms,
and who has subscribed is told every 500 ms; `fast` sends each write whole to all at once (WriteAll) and tells every
10 ms, as its documents offer. Many writes of one key are local and told every 10 ms, since only the last counts. A
member that does not answer is `unreachable`, and that counts as known here: until it is removed the split brain
resolver waits 20 s more. Its logging is off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers import BUILT, Peer, channel, flood, free_port


@contextmanager
def running(directory: Path) -> Iterator[str]:
    """The ports of the two that are there: who hears, and who tells."""
    yield f"{free_port()} {free_port()}"


def member(cluster: str, name: str, port: int, seeds: list[int]) -> list[str]:
    return [str(BUILT / "pekko"), "member", "default", name, *map(str, [port, *seeds])]


def node(kind: str, settings: str) -> Callable[[str], list[str]]:
    def command(address: str) -> list[str]:
        hears, tells = address.split()
        ports = [hears] if kind == "hear" else [tells, hears]
        return [str(BUILT / "pekko"), kind, settings, kind, *ports]

    return command


PEER = Peer(
    "pekko",
    running,
    channels={
        "pekko": channel(node("tell", "default"), node("hear", "default")),
        "pekko, fast": channel(node("tell", "fast"), node("hear", "fast")),
    },
    floods={"one key": flood(node("tell-one", "told"), node("hear", "told"))},
    members={"pekko": member},
    programs=("java",),
    built=("pekko",),
)
