"""How much memory does an entry take, and for how long does the garbage collector stop the program?

Values of 100 bytes in a process of its own for each: what a node has more afterwards, its log of recent writes
included, beside a plain dict of `str` and `bytes`, the bare store without a node, and a Redis server. Resident is
what the kernel gave; traced is what Python asked for, without what the allocator keeps for later.

    python benchmarks/memory.py [--entries 100000 1000000] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.measure import OURS, Result, alone, in_turn, resident
from benchmarks.peers import Peer, peers
from crdt import Store, Write, encode_element

DICT, STORE = "dict of bytes", "store alone"
SIZE, STEP = 100, 1000


def value() -> bytes:
    """An object of its own, as values that came from somewhere are."""
    return bytes(bytearray(SIZE))


def fill_dict(entries: int) -> object:
    return {f"key-{number}": value() for number in range(entries)}


def fill_store(entries: int) -> object:
    held = Store()
    for number in range(entries):
        key = (1, "bench", encode_element(f"key-{number}"))
        held.merge(Write((7, number + 1), key, (number + 1) << 16, b"\xc4\x64" + value(), ()))
    return held


def told(before: int, entries: int) -> None:
    """Prints what it is more, while all of it is there."""
    traced = tracemalloc.get_traced_memory()[0] / entries if tracemalloc.is_tracing() else 0.0
    more = (resident() - before) / entries
    begun = time.perf_counter()
    gc.collect()
    print(json.dumps({"resident": more, "traced": traced, "full collection": (time.perf_counter() - begun) * 1e3}))


async def hold_node(entries: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with ours.node(directory) as node:
            shared, before = node.map("bench", bytes), resident()
            for number in range(entries):
                shared[f"key-{number}"] = value()
                if number % STEP == 0:
                    await asyncio.sleep(0)
            told(before, entries)


def hold(system: str, entries: int) -> None:
    """In the process of its own."""
    if system == OURS:
        asyncio.run(hold_node(entries))
        return
    before = resident()
    held = (fill_dict if system == DICT else fill_store)(entries)
    told(before, entries)
    del held


def one_round(system: str, entries: int, trace: bool) -> dict[str, float]:
    arguments = [sys.executable, "-m", "benchmarks.memory", "--hold", system]
    arguments += ["--entries", str(entries), *(["--trace"] if trace else [])]
    answer = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=600)
    figures: dict[str, float] = json.loads(answer.stdout)
    return figures


async def of_redis(peer: Peer, entries: int) -> float:
    """Bytes an entry that the server has more."""
    from redis import Redis

    with tempfile.TemporaryDirectory() as directory, peer.running(Path(directory)) as address:
        connection: Any = Redis(unix_socket_path=address.partition(" ")[2])
        before = connection.info("memory")["used_memory_rss"]
        async with peer.clients["redis, unix socket"](address) as client:
            assert client.write_many is not None
            for first in range(0, entries, STEP):
                client.write_many([(f"key-{number}", value()) for number in range(first, first + STEP)])
        more: float = (connection.info("memory")["used_memory_rss"] - before) / entries
        return more


async def ask(options: argparse.Namespace, result: Result) -> None:
    many = options.entries or ([30_000] if options.quick else [100_000, 1_000_000])
    result.floors += [DICT, STORE]
    redis = peers()["redis"]
    if redis.missing:
        result.skipped["redis"] = f"{redis.missing} is not installed"
    for entries in many:
        label = f"{entries:,} entries".replace(",", " ")
        for number, system in in_turn((DICT, OURS, STORE, "redis-server"), 1 if options.quick else 3):
            if system == "redis-server":
                if not redis.missing:
                    result.add(f"{label}, resident", system, await of_redis(redis, entries), "bytes an entry")
                continue
            figures = one_round(system, entries, trace=False)
            result.add(f"{label}, resident", system, figures["resident"], "bytes an entry")
            if number == 0:  # tracing takes minutes, and gives the same each time
                traced = one_round(system, entries, trace=True)["traced"]
                result.add(f"{label}, traced", system, traced, "bytes an entry")
            result.add(f"{label}, full collection", system, figures["full collection"], "ms")


def own_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--entries", type=int, nargs="+")
    parser.add_argument("--hold", help=argparse.SUPPRESS)
    parser.add_argument("--trace", action="store_true", help=argparse.SUPPRESS)


if __name__ == "__main__":
    if "--hold" in sys.argv:
        if "--trace" in sys.argv:
            tracemalloc.start()
        hold(sys.argv[sys.argv.index("--hold") + 1], int(sys.argv[sys.argv.index("--entries") + 1]))
    else:
        alone(__file__, __doc__ or "", ask, own_options)
