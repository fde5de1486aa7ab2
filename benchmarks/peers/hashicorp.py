"""How soon do memberlist and serf know who has come and who has crashed?

The libraries in Go whose protocol, SWIM with Lifeguard, is ours as well; serf has memberlist inside. Each is measured
with its profile for networks (`lan`, the default) and with the one for a single host (`local`), in a program that has
nothing else in it. They know of a crash when probes were not answered and the suspicion has run out.

Not here: data. memberlist has none, and serf's events are no state.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers import BUILT, Member, Peer


@contextmanager
def running(directory: Path) -> Iterator[str]:
    yield str(directory)


def member(system: str, profile: str) -> Member:
    def command(cluster: str, name: str, port: int, seeds: list[int]) -> list[str]:
        return [str(BUILT / "rivals"), system, profile, name, *map(str, [port, *seeds])]

    return command


PEER = Peer(
    "memberlist, serf",
    running,
    members={
        "memberlist": member("memberlist", "lan"),
        "memberlist, local profile": member("memberlist", "local"),
        "serf": member("serf", "lan"),
        "serf, local profile": member("serf", "local"),
    },
    built=("rivals",),
)
