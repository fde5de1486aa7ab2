"""Many nodes in one process, for what only many show: a program for the tests to start, to ask, and to kill.

    python -m tests.integration.crowd CLUSTER NAME COUNT '{"probe_interval": 0.2}'

It says {"ready": ...} when all its nodes have started, answers each line of its input with one, and leaves when that
ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import gossip


def answer(nodes: list[gossip.Node], question: str) -> Any:
    match question:
        case "living":
            return [sorted(member.name for member in node.members if member.status != "stalled") for node in nodes]
        case "statuses":
            return [dict(Counter(member.status for member in node.members.all)) for node in nodes]
        case "evidence":
            return [{m.name: [m.since, m.evidence] for m in node.members.all if m.status == "dead"} for node in nodes]
        case "streams":
            transports = [node._runtime.transport for node in nodes if node._runtime is not None]
            return [len(transport._links) for transport in transports]
        case "watched":
            runtimes = [node._runtime for node in nodes if node._runtime is not None]
            return [len(runtime.engine.membership.watched) for runtime in runtimes]
        case "use":
            return {"descriptors": len(os.listdir("/proc/self/fd")), "cpu": time.process_time()}
        case "counters":
            return [node.status()["counters"] for node in nodes]
        case "write":
            for node in nodes:
                node.map("m")[node.me.name] = 1
            return None
        case "size":
            return [len(node.map("m")) for node in nodes]
    raise ValueError(question)


async def main(cluster: str, name: str, count: str, settings: str) -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with AsyncExitStack() as stack:
        nodes = [gossip.Node(cluster, name=f"{name}{number}", **json.loads(settings)) for number in range(int(count))]
        for node in nodes:
            await stack.enter_async_context(node)
        print(json.dumps({"ready": os.getpid()}), flush=True)
        while line := await lines.readline():
            print(json.dumps(answer(nodes, line.decode().strip())), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
