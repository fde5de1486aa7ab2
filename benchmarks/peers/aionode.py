"""What does a program see that has aiocluster in it, and when?

One node on the loopback, in the lines that benchmarks/peers says: what `aioclusters` starts, with a Python of its own
that is new enough. Only the interval of gossip is set. It imports nothing of this repository, which is not installed
for that Python.

    python -P aionode.py member|hear|tell|tell-one INTERVAL NAME PORT [SEED ...]      (the interval in milliseconds)
    python -P aionode.py --version
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import sys
import time
from typing import Any

from aiocluster import Cluster, Config, NodeId

SPAN = 256  # keys that are written in turn: more than are on their way at a time
LOOK = 0.005  # seconds from one look for the other node to the next


def told(line: str) -> None:
    print(line, flush=True)


def say(kind: str, name: str, members: int) -> None:
    told(json.dumps([time.monotonic(), kind, name, members]))


async def line() -> list[int] | None:
    """The numbers of the next line of input, or None at its end."""
    words = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    return [int(word) for word in words.split() if word.lstrip("-").isdigit()] if words else None


async def tell(cluster: Cluster, one_key: bool) -> None:
    """A line is a number and how many writes to make from it on. The number -1 is the end of a round."""
    while len(cluster.live_nodes()) < 2:
        await asyncio.sleep(LOOK)
    told("ready")
    while numbers := await line():
        first, count = numbers
        for number in range(first, first + count):
            key = -1 if number < 0 else 0 if one_key else number % SPAN
            cluster.set(f"key-{key}", f"{number} {time.monotonic_ns()}")


async def drained() -> None:
    while await line() is not None:
        pass


async def main(kind: str, interval: str, name: str, port: str, *seeds: str) -> None:
    if kind == "member":
        say("imported", "", 0)
        if await line() is None:
            return
    cluster = Cluster(
        Config(
            node_id=NodeId(name=name, gossip_advertise_addr=("127.0.0.1", int(port))),
            cluster_id="bench",
            gossip_interval=int(interval) / 1000,
            seed_nodes=[("127.0.0.1", int(seed)) for seed in seeds],
        )
    )

    async def joined(node: NodeId) -> None:
        say("joined", node.name, len(cluster.live_nodes()))

    async def died(node: NodeId) -> None:
        say("died", node.name, len(cluster.live_nodes()))

    async def heard(node: NodeId, key: str, before: Any, now: Any) -> None:
        told(f"{now.value} {time.monotonic_ns()}")

    if kind == "member":
        cluster.on_node_join(joined)
        cluster.on_node_leave(died)
    if kind == "hear":
        cluster.on_key_change(heard)
    async with cluster:
        match kind:
            case "member":
                say("started", name, 1)
                await drained()
            case "hear":
                told("ready")
                await drained()
            case _:
                await tell(cluster, kind == "tell-one")


if __name__ == "__main__":
    if len(sys.argv) > 4:
        asyncio.run(main(*sys.argv[1:]))
    else:
        print("aiocluster", importlib.metadata.version("aiocluster"))
