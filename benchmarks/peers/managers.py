"""How fast is a dict of `multiprocessing.Manager`?

It is in the standard library: a process that holds the dict, and a proxy that asks it over a unix socket, with pickle.
There is no way to be told of a write, and no faster setting.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from benchmarks.peers import Client, Peer


@contextmanager
def running(directory: Path) -> Iterator[str]:
    yield str(directory)


@asynccontextmanager
async def proxy(address: str) -> AsyncIterator[Client]:
    # spawned: the process that measures has threads and a loop, of which a fork would copy a part
    with multiprocessing.get_context("spawn").Manager() as manager:
        shared = manager.dict()
        yield Client(read=shared.__getitem__, write=shared.__setitem__, write_many=shared.update)


PEER = Peer("multiprocessing.Manager", running, clients={"Manager().dict()": proxy})
