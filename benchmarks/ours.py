"""How is gossamesh itself asked, in the words in which the peers are?

A node in this process, as a program has it, and other nodes where a question has them. The address is the runtime
directory in which nodes of one measurement meet.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import gossip
from benchmarks.measure import OURS
from benchmarks.peers import READY, Channel, Client, Flood, Payloads, Peer

CLUSTER = "bench"
HELD = "held, and not read"
SPAN = 200_000  # keys of a flood: more than are on their way at a time, and not more with every round


@contextmanager
def running(directory: Path) -> Iterator[str]:
    """Nothing has to run. A directory of its own with a short name: sockets are made in it, whose paths are bounded."""
    with tempfile.TemporaryDirectory(prefix="gm-") as short:
        yield short


def node(address: str) -> gossip.Node:
    """A node that meets only those of the same address."""
    return gossip.Node(CLUSTER, runtime_dir=address)


def speaking(node: gossip.Node) -> Client:
    shared = node.map("shared")
    counters: dict[str, gossip.Counter] = {}
    sets: dict[str, gossip.Set[str]] = {}

    def counter(name: str) -> gossip.Counter:  # as a program has it: made once
        found = counters.get(name)
        return counters.setdefault(name, node.counter(name)) if found is None else found

    def elements(name: str) -> gossip.Set[str]:
        found = sets.get(name)
        return sets.setdefault(name, node.set(name, str)) if found is None else found

    def write_many(pairs: list[tuple[str, Any]]) -> None:
        with node.batch():
            for key, value in pairs:
                shared[key] = value

    return Client(
        read=shared.__getitem__,
        write=shared.__setitem__,
        write_many=write_many,
        increment=lambda name: counter(name).increment(),
        add=lambda name, element: elements(name).add(element),
        has=lambda name, element: element in elements(name),
    )


@asynccontextmanager
async def in_loop(address: str) -> AsyncIterator[Client]:
    async with node(address) as started:
        yield speaking(started)


@asynccontextmanager
async def tell(address: str) -> AsyncIterator[Callable[[int, bytes], Any]]:
    async with node(address) as started:
        probe = started.map("probe", bytes)
        yield lambda number, payload: probe.__setitem__(f"key-{number}", payload)


def flood(one_key: bool = False, whole: bool = False, unread: bool = False) -> Flood:
    """Writes one by one, as a program does, or as a batch; the loop has its turn between two calls. What is `unread` is
    written by `update`, as others have pipelines, and held by who waits, but not read there: he hears of the last of
    each call, which comes after all others of it."""

    @asynccontextmanager
    async def tell(address: str) -> AsyncIterator[Callable[[Payloads], None]]:
        async with node(address) as started:
            probe, ends = started.map("probe", bytes), started.map("ends", bytes)

            def all_of(payloads: Payloads) -> None:
                with started.batch() if whole else nullcontext():
                    for number, payload in payloads:
                        name = "end" if number < 0 else "key" if one_key else f"key-{number % SPAN}"
                        probe[name] = payload

            def all_at_once(payloads: Payloads) -> None:
                probe.update((f"key-{number % SPAN}", payload) for number, payload in payloads if number >= 0)
                for number, payload in payloads[-1:]:  # each a key of its own, or one could stand for another
                    ends[f"{number % SPAN}" if number >= 0 else "end"] = payload

            yield all_at_once if unread else all_of

    return Flood(tell, partial(hear_all, "ends" if unread else "probe"))


async def hear(address: str) -> AsyncIterator[bytes]:
    async with node(address) as started, started.map("probe", bytes).watch() as changes:
        yield READY
        async for change in changes:
            if change.value is not None:
                yield change.value


async def hear_all(name: str, address: str) -> AsyncIterator[bytes]:
    """The same for who is told much at once."""
    async with node(address) as started, started.map(name, bytes).watch() as changes:
        yield READY
        async for step in changes.steps():
            for change in step:
                if change.value is not None:
                    yield change.value


PEER = Peer(
    OURS,
    running,
    clients={OURS: in_loop},
    channels={OURS: Channel(tell, hear)},
    floods={
        "keys of their own": flood(),
        HELD: flood(unread=True),
        "one key": flood(one_key=True),
        "batches of 200": flood(whole=True),
    },
    modules=("gossip",),
    packages=("gossamesh",),
)
