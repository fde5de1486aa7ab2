"""What does it take two event loops to hand each other some bytes?

A process writes them to a unix socket within the call, and in another a task is woken that waits for them. Nothing is
encoded, kept, merged or looked up. It is about the least that any library takes by which a task on asyncio is told;
half an echo is that of a thread which does nothing but wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers import READY, Channel, Peer

TWO_LOOPS = "two loops"


@contextmanager
def running(directory: Path) -> Iterator[str]:
    yield str(directory)


def _hearer(directory: str, number: int) -> Path:
    return Path(directory) / f"{number}.sock"


class _Hearing(asyncio.Protocol):
    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.woken = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.heard += data.splitlines()
        self.woken.set()


@asynccontextmanager
async def tell(directory: str) -> AsyncIterator[Callable[[int, bytes], Any]]:
    loop, number, hearers = asyncio.get_running_loop(), 0, []
    while (path := _hearer(directory, number)).exists():
        transport, _ = await loop.create_unix_connection(asyncio.Protocol, str(path))
        hearers.append(transport)
        number += 1

    def all_of(number: int, payload: bytes) -> None:
        for each in hearers:
            each.write(payload + b"\n")

    try:
        yield all_of
    finally:
        for each in hearers:
            each.close()


async def hear(directory: str) -> AsyncIterator[bytes]:
    """Those who hear are started one after the other, and before who tells."""
    number = 0
    while (path := _hearer(directory, number)).exists():
        number += 1
    hearing = _Hearing()
    await asyncio.get_running_loop().create_unix_server(lambda: hearing, str(path))
    yield READY
    while True:
        await hearing.woken.wait()
        hearing.woken.clear()
        told, hearing.heard = hearing.heard, []
        for each in told:
            yield each


PEER = Peer(TWO_LOOPS, running, channels={TWO_LOOPS: Channel(tell, hear)})
