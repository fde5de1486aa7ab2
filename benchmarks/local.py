"""What does a read and a write cost, beside what people use today?

A number, a dict of five fields and a KiB of bytes, at keys that exist; in an event loop, and from another thread
than the loop's. Ours has a node in another process beside it, to which every write is sent. `write` is how long the
call takes, which keeps a draft; `write, and sent` has the turn of the loop in it in which a hundred writes leave, and
`one a turn` is for who writes one thing now and then: each has a turn of its own. For a peer's client all are the same:
its call ends when the server has answered. A read gives a value that is the reader's own. Ours remembers the keys that
were read, and short values that nobody can change until they are written anew; and the keys here are fewer than it
remembers, and read again and again. So `the first since it was written` is asked as well; what a read takes where it
remembers nothing is in `gossip/memo.py`. The bare dict decodes nothing, and shows the floor.

    python benchmarks/local.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.measure import OURS, Result, alone, each_call
from benchmarks.peers import Client, Peer, peers
from benchmarks.turns import compared

# Keys of each kind, in turn. Who takes them only one by one has a tenth of the first: it would take him seconds, and no
# call of his depends on it.
KEYS = {"a number": 8_000, "a dict of 5 fields": 200, "1 KiB": 200}
PAYLOADS: dict[str, Callable[[int], Any]] = {
    "a number": lambda number: number,
    "a dict of 5 fields": lambda number: {
        "id": number,
        "name": "ann",
        "active": True,
        "score": 1.5,
        "tags": ["a", "b"],
    },
    "1 KiB": lambda number: bytes(1024),
}
MIXED = 10  # of so many calls one is a write
FEW = 50  # keys that are written for one read each, even where a write takes a tenth of a second


@contextmanager
def nothing_runs(directory: Path) -> Iterator[str]:
    yield str(directory)


@asynccontextmanager
async def bare(address: str) -> AsyncIterator[Client]:
    table: dict[str, Any] = {}
    yield Client(table.__getitem__, table.__setitem__)


EVERYBODY = {"dict": Peer("dict", nothing_runs, {"dict": bare}), OURS: ours.PEER}
EVERYBODY |= {name: peer for name, peer in peers().items() if peer.clients}


def keys_of(kind: str, client: Client) -> list[str]:
    """The keys of one kind of payload; no space, for memcached takes none."""
    count = KEYS[kind] if client.write_many is not None else KEYS[kind] // 10
    return [f"{kind.replace(' ', '-')}-{number}" for number in range(count)]


def calls(client: Client, kind: str) -> dict[str, Callable[[range], Any]]:
    """What is measured of it, as functions of the calls' numbers. Of a coroutine function the await is the call."""
    read, write, payload, keys = client.read, client.write, PAYLOADS[kind], keys_of(kind, client)
    count = len(keys)
    if inspect.iscoroutinefunction(read):

        async def get(numbers: range) -> None:
            for number in numbers:
                await read(keys[number % count])

        async def put(numbers: range) -> None:
            for number in numbers:
                await write(keys[number % count], payload(number))

        async def either(numbers: range) -> None:
            for number in numbers:
                if number % MIXED:
                    await read(keys[number % count])
                else:
                    await write(keys[number % count], payload(number))

        return {"read": get, "write": put, "90 % reads": either}

    def get_all(numbers: range) -> None:
        for number in numbers:
            read(keys[number % count])

    def put_all(numbers: range) -> None:
        for number in numbers:
            write(keys[number % count], payload(number))

    def either_of_all(numbers: range) -> None:
        for number in numbers:
            if number % MIXED:
                read(keys[number % count])
            else:
                write(keys[number % count], payload(number))

    return {"read": get_all, "write": put_all, "90 % reads": either_of_all}


async def fill(client: Client) -> None:
    """What is read exists."""
    for kind, payload in PAYLOADS.items():
        pairs = [(key, payload(number)) for number, key in enumerate(keys_of(kind, client))]
        if client.write_many is not None:
            client.write_many(pairs)
        else:
            for key, value in pairs:
                answer = client.write(key, value)
                if inspect.isawaitable(answer):
                    await answer


async def once_each(made: dict[str, Callable[[range], Any]], keys: int) -> float:
    """What a read costs, in microseconds, if each key was written since it was read last."""
    took = 0.0
    for call in (made["write"], made["read"]):
        await asyncio.sleep(0)  # what was written is sent
        begun = time.perf_counter()
        answer = call(range(keys))
        if inspect.isawaitable(answer):
            await answer
        took = time.perf_counter() - begun
    return took / keys * 1e6


async def one_round(client: Client, seconds: float) -> dict[str, float]:
    awaited = inspect.iscoroutinefunction(client.read)
    found = {}
    for kind in PAYLOADS:
        made = calls(client, kind)
        found[f"read, {kind}"] = (await each_call(made["read"], seconds)).call
        write = await each_call(made["write"], seconds)
        found |= {f"write, {kind}": write.call, f"write, {kind}, and sent": write.whole}
        if kind == "a number":
            keys = min(len(keys_of(kind, client)), max(FEW, int(seconds / write.whole * 1e6)))
            found[f"read, {kind}, the first since it was written"] = await once_each(made, keys)
            found[f"write, {kind}, and sent, one a turn"] = (await each_call(made["write"], seconds, most=1)).whole
            found[f"90 % reads, {kind}, and sent"] = (await each_call(made["90 % reads"], seconds)).whole
            for name in () if awaited else ("read", "write"):
                spent = await asyncio.to_thread(asyncio.run, each_call(made[name], seconds))
                found[f"{name}, {kind}, from a thread"] = spent.call
    return found


async def ask(options: argparse.Namespace, result: Result) -> None:
    rounds, seconds = (2, 0.02) if options.quick else (10, 0.15)
    with tempfile.TemporaryDirectory() as directory:
        await compared(EVERYBODY, Path(directory), rounds, seconds, result)
    result.floors.append("dict")


if __name__ == "__main__":
    alone(__file__, __doc__ or "", ask)
