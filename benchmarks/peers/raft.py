"""How fast is a replicated dict of PySyncObj, which has Raft inside each process, and no server?

Nearest to gossamesh in form, and stronger in what it promises: a write waits until most have it, in one order for all.
Reads are of the process's own memory. The client that measures is one of three voters; the other two are processes of
their own. Writes are awaited (`sync=True`), as one must to know of them. Defaults throughout: shorter ticks than theirs
would answer sooner, and load the machine, on which all others are measured in turn, while nothing is asked of them.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers import PATIENCE, READY, Channel, Client, Peer, free_port


@contextmanager
def running(directory: Path) -> Iterator[str]:
    """Three addresses: who measures has the first. Who hears has the second, if anybody does."""
    yield " ".join(f"127.0.0.1:{free_port()}" for _ in range(3))


@contextmanager
def voting(address: str, *others: int) -> Iterator[Any]:
    """The first voter, when there is a leader; these others are started for it."""
    from benchmarks.peers.voter import Voter

    arguments = [sys.executable, "-m", "benchmarks.peers.voter", address]
    started = [subprocess.Popen([*arguments, str(place)]) for place in others]
    try:
        voter = Voter(address, 0)
        deadline = time.monotonic() + PATIENCE
        while not voter.isReady():
            if time.monotonic() > deadline:
                raise RuntimeError("no leader was elected")
            time.sleep(0.02)
        yield voter
        voter.destroy()
    finally:
        for each in started:
            each.kill()
            each.wait()


@asynccontextmanager
async def replicated_dict(address: str) -> AsyncIterator[Client]:
    with voting(address, 1, 2):
        from benchmarks.peers.voter import count, elements, table

        yield Client(
            read=table.__getitem__,
            write=lambda key, value: table.set(key, value, sync=True),
            write_many=lambda pairs: table.update(dict(pairs), sync=True),
            increment=lambda name: count.inc(sync=True),
            add=lambda name, element: elements.add(element, sync=True),
            has=lambda name, element: element in elements,
        )


@asynccontextmanager
async def tell(address: str) -> AsyncIterator[Callable[[int, bytes], Any]]:
    with voting(address, 2) as voter:
        yield lambda number, payload: voter.tell(payload)


def hear(address: str) -> Iterator[bytes]:
    from benchmarks.peers.voter import Voter, heard

    voter = Voter(address, 1)
    yield READY  # the election needs the others, who wait for this
    while voter is not None:
        yield heard.get()


PEER = Peer(
    "pysyncobj",
    running,
    clients={"pysyncobj": replicated_dict},
    channels={"pysyncobj": Channel(tell, hear)},
    modules=("pysyncobj",),
    packages=("pysyncobj",),
)
