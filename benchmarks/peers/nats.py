"""How fast is NATS, with nats-py: its key-value store on JetStream, and its publish and subscribe?

The client is for asyncio only. A put is acknowledged by the server; the store is kept in memory, which its documents
call the fastest, and in files, which is the default. Writes become known by a watch of the store, or without it by a
plain subject, which keeps nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from msgpack import packb, unpackb

from benchmarks.peers import READY, Channel, Client, Peer, free_port, served

SUBJECT = "probe"


@contextmanager
def running(directory: Path) -> Iterator[str]:
    port = free_port()
    arguments = ["nats-server", "--jetstream", "--addr", "127.0.0.1", "--port", str(port)]
    with served([*arguments, "--store_dir", str(directory)], directory, port):
        yield f"nats://127.0.0.1:{port}"


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Any]:
    import nats

    connection = await nats.connect(address)
    try:
        yield connection
    finally:
        await connection.close()


def bucket(storage: str) -> Callable[[str], AbstractAsyncContextManager[Client]]:
    @asynccontextmanager
    async def client(address: str) -> AsyncIterator[Client]:
        async with connected(address) as connection:
            store = await connection.jetstream().create_key_value(bucket=storage, storage=storage)

            async def read(key: str) -> Any:
                return unpackb((await store.get(key)).value)

            async def write(key: str, value: Any) -> None:
                await store.put(key, packb(value))

            yield Client(read, write)

    return client


@asynccontextmanager
async def put(address: str) -> AsyncIterator[Callable[[int, bytes], Any]]:
    async with connected(address) as connection:
        store = await connection.jetstream().key_value("probe")

        async def tell(number: int, payload: bytes) -> None:
            await store.put(f"key-{number}", payload)

        yield tell


async def watch(address: str) -> AsyncIterator[bytes]:
    async with connected(address) as connection:
        store = await connection.jetstream().create_key_value(bucket="probe", storage="memory")
        changes = await store.watchall()
        async for entry in changes:  # it begins with what is there: nothing, and a None to say that it is complete
            yield READY if entry is None else entry.value


@asynccontextmanager
async def publish(address: str) -> AsyncIterator[Callable[[int, bytes], Any]]:
    async with connected(address) as connection:

        async def tell(number: int, payload: bytes) -> None:
            await connection.publish(SUBJECT, payload)
            await connection.flush()  # without it the payload waits for the client's own flusher

        yield tell


async def subscribe(address: str) -> AsyncIterator[bytes]:
    async with connected(address) as connection:
        subscription = await connection.subscribe(SUBJECT)
        await connection.flush()
        yield READY
        async for message in subscription.messages:
            yield message.data


PEER = Peer(
    "nats",
    running,
    clients={"nats KV": bucket("file"), "nats KV, memory": bucket("memory")},
    channels={"nats KV watch": Channel(put, watch), "nats pub/sub": Channel(publish, subscribe)},
    programs=("nats-server",),
    modules=("nats",),
    packages=("nats-py",),
)
