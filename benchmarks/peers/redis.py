"""How fast is Redis, with redis-py and hiredis?

The server has its defaults (a snapshot now and then, no fsync), on a unix socket and on TCP of the loopback. Its users
have a blocking client, or the one for asyncio; the fastest of what is documented is a unix socket, one connection
without the pool, and no asyncio. Writes become known by `PUBLISH`, or by keyspace notifications and a `GET`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from msgpack import packb, unpackb

from benchmarks.peers import READY, Channel, Client, Flood, Payloads, Peer, free_port, served

CHANNEL = "probe"


@contextmanager
def running(directory: Path) -> Iterator[str]:
    port = free_port()
    path = directory / "redis.sock"
    arguments = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
    with served([*arguments, "--unixsocket", str(path)], directory, port, path):
        yield f"{port} {path}"


def connect(address: str, **more: Any) -> Any:
    """Over the unix socket: in every measurement the faster of the two."""
    import redis

    return redis.Redis(unix_socket_path=address.partition(" ")[2], **more)


def speaking(connection: Any) -> Client:
    def write_many(pairs: list[tuple[str, Any]]) -> None:
        pipe = connection.pipeline(transaction=False)
        for key, value in pairs:
            pipe.set(key, packb(value))
        pipe.execute()

    return Client(
        read=lambda key: unpackb(connection.get(key)),
        write=lambda key, value: connection.set(key, packb(value)),
        write_many=write_many,
        increment=lambda key: connection.incr(key),
        add=lambda key, element: connection.sadd(key, element),
        has=lambda key, element: connection.sismember(key, element),
    )


@asynccontextmanager
async def by_default(address: str) -> AsyncIterator[Client]:
    import redis

    with redis.Redis(port=int(address.partition(" ")[0])) as connection:
        yield speaking(connection)


@asynccontextmanager
async def fastest(address: str) -> AsyncIterator[Client]:
    with connect(address, single_connection_client=True) as connection:
        yield speaking(connection)


@asynccontextmanager
async def asynchronous(address: str) -> AsyncIterator[Client]:
    import redis.asyncio

    async with redis.asyncio.Redis(unix_socket_path=address.partition(" ")[2]) as connection:

        async def read(key: str) -> Any:
            return unpackb(await connection.get(key))

        async def write(key: str, value: Any) -> None:
            await connection.set(key, packb(value))

        async def increment(key: str) -> None:
            await connection.incr(key)

        async def add(key: str, element: str) -> None:
            await connection.sadd(key, element)

        async def has(key: str, element: str) -> bool:
            return bool(await connection.sismember(key, element))

        yield Client(read, write, None, increment, add, has)


# -- channels ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def publish(address: str) -> AsyncIterator[Callable[[int, bytes], Any]]:
    with connect(address, single_connection_client=True) as connection:
        yield lambda number, payload: connection.publish(CHANNEL, payload)


@asynccontextmanager
async def publish_many(address: str) -> AsyncIterator[Callable[[Payloads], None]]:
    with connect(address, single_connection_client=True) as connection:

        def tell(payloads: Payloads) -> None:
            pipe = connection.pipeline(transaction=False)
            for _, payload in payloads:
                pipe.publish(CHANNEL, payload)
            pipe.execute()

        yield tell


def listen(address: str) -> Iterator[bytes]:
    """A thread or process that does nothing else: the fastest way to hear."""
    subscription = connect(address).pubsub()
    subscription.subscribe(CHANNEL)
    for message in subscription.listen():
        yield READY if message["type"] == "subscribe" else message["data"]


async def listen_in_loop(address: str) -> AsyncIterator[bytes]:
    """As a web worker hears, beside its requests."""
    import redis.asyncio

    subscription = redis.asyncio.Redis(unix_socket_path=address.partition(" ")[2]).pubsub()
    await subscription.subscribe(CHANNEL)
    async for message in subscription.listen():
        yield READY if message["type"] == "subscribe" else message["data"]


@asynccontextmanager
async def set_notified(address: str) -> AsyncIterator[Callable[[int, bytes], Any]]:
    with connect(address, single_connection_client=True) as connection:
        connection.config_set("notify-keyspace-events", "K$")  # costs every SET something: only while it is measured
        yield lambda number, payload: connection.set(f"probe:{number}", payload)
        connection.config_set("notify-keyspace-events", "")


def fetch_when_notified(address: str) -> Iterator[bytes]:
    values = connect(address, single_connection_client=True)
    subscription = connect(address).pubsub()
    subscription.psubscribe("__keyspace@0__:probe:*")
    for message in subscription.listen():
        if message["type"] == "psubscribe":
            yield READY
        elif (value := values.get(message["channel"].partition(b":")[2])) is not None:
            yield value


PEER = Peer(
    "redis",
    running,
    clients={"redis": by_default, "redis, unix socket": fastest, "redis, asyncio": asynchronous},
    channels={
        "redis pub/sub": Channel(publish, listen),
        "redis pub/sub, asyncio": Channel(publish, listen_in_loop),
        "redis keyspace": Channel(set_notified, fetch_when_notified),
    },
    floods={"keys of their own": Flood(publish_many, listen)},
    programs=("redis-server",),
    modules=("redis", "hiredis"),
    packages=("redis", "hiredis"),
)
