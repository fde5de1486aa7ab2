"""How fast is diskcache, a dictionary in SQLite files that processes share?

Fastest by its documentation is to evict nothing, which saves the bookkeeping of a read. There is no way to be told of a
write. It keeps what it holds on disk, which nobody else here does unless asked to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers import Client, Peer


@contextmanager
def running(directory: Path) -> Iterator[str]:
    yield str(directory)


def opened(part: str, **settings: Any) -> Callable[[str], AbstractAsyncContextManager[Client]]:
    @asynccontextmanager
    async def client(address: str) -> AsyncIterator[Client]:
        import diskcache

        with diskcache.Cache(f"{address}/{part}", **settings) as cache:

            def write_many(pairs: list[tuple[str, Any]]) -> None:
                with cache.transact():
                    for key, value in pairs:
                        cache.set(key, value)

            yield Client(cache.__getitem__, cache.set, write_many, cache.incr)

    return client


PEER = Peer(
    "diskcache",
    running,
    clients={"diskcache": opened("default"), "diskcache, no eviction": opened("fast", eviction_policy="none")},
    modules=("diskcache",),
    packages=("diskcache",),
)
