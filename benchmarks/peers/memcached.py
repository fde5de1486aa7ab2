"""How fast is memcached, with pylibmc?

pylibmc is the client in C, the fastest that Python has; over a unix socket, with the binary protocol off, which is its
default. memcached can not tell anybody of a write, and has no sets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from msgpack import packb, unpackb

from benchmarks.peers import Client, Peer, free_port, served


@contextmanager
def running(directory: Path) -> Iterator[str]:
    # two servers: one that listens on a unix socket has no port. As root it must be told that it may stay root
    port, path = free_port(), directory / "memcached.sock"
    other = directory / "tcp"
    other.mkdir()
    with (
        served(["memcached", "-u", "root", "-l", "127.0.0.1", "-p", str(port)], other, port),
        served(["memcached", "-u", "root", "-s", str(path)], directory, path),
    ):
        yield f"127.0.0.1:{port} {path}"


def connected(place: int, **behaviors: Any) -> Callable[[str], AbstractAsyncContextManager[Client]]:
    @asynccontextmanager
    async def client(address: str) -> AsyncIterator[Client]:
        import pylibmc

        server = pylibmc.Client([address.split(" ")[place]], behaviors=behaviors)
        counted = set()

        def increment(key: str) -> None:
            if key not in counted:
                server.set(key, 0)
                counted.add(key)
            server.incr(key)

        yield Client(
            read=lambda key: unpackb(server.get(key)),
            write=lambda key, value: server.set(key, packb(value)),
            write_many=lambda pairs: server.set_multi({key: packb(value) for key, value in pairs}),
            increment=increment,
        )

    return client


PEER = Peer(
    "memcached",
    running,
    clients={"memcached": connected(0), "memcached, unix socket": connected(1)},
    programs=("memcached",),
    modules=("pylibmc",),
    packages=("pylibmc",),
)
