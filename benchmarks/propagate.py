"""How long until a write is visible in another process, and how many get there a second?

Real processes, each with a node, over the same unix streams that workers use. One writes, the others take the time at
which their watch gives it; the clock is CLOCK_MONOTONIC, which all processes of a machine share. Beside it, in the same
rounds, an echo over a bare unix stream between two processes: half its round trip is the floor for anything that sends.

    python benchmarks/propagate.py [--peers 1 7] [--writes 500] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import gossip

READY = "ready"
_ECHO = """
import socket, sys
stream = socket.socket(fileno=int(sys.argv[1]))
while data := stream.recv(64):
    stream.send(data)
"""


async def peer(cluster: str) -> None:
    """A peer: watches the map, and tells for each key how long its write took to get here, in nanoseconds."""
    async with gossip.Node(cluster) as node:
        counts: list[int] = []
        async with node.map("probe", int).watch() as changes:
            print(READY, flush=True)
            async for change in changes:
                now = time.monotonic_ns()
                if change.key == "end":
                    break
                if change.kind == "set" and change.value is not None:
                    counts.append(now - change.value)
        print(json.dumps(counts), flush=True)
        async with node.counter("rate").watch():
            while not node.register("stop").value:
                await asyncio.sleep(0.01)
        print(json.dumps(node.counter("rate").value), flush=True)


async def latencies(node: gossip.Node, writes: int) -> list[float]:
    """Writes one by one, each after the last has had time to arrive; takes the floor in turn, microseconds."""
    floor = []
    ours, theirs = socket.socketpair()
    echo = subprocess.Popen(
        [sys.executable, "-c", _ECHO, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    ours.send(b"warm")
    ours.recv(64)
    probe = node.map("probe", int)
    for number in range(writes):
        probe[f"key-{number}"] = time.monotonic_ns()
        await asyncio.sleep(0.002)
        before = time.perf_counter()
        ours.send(bytes(60))
        ours.recv(64)
        floor.append((time.perf_counter() - before) / 2 * 1e6)
    ours.close()
    echo.wait()
    probe["end"] = 0
    await asyncio.sleep(0)
    return floor


async def sustained(node: gossip.Node, writes: int) -> float:
    """Distinct writes a second that this node can make while they are being sent."""
    table = node.map("load", int)
    before = time.perf_counter()
    for number in range(writes):
        table[f"key-{number % 5000}"] = number
        if number % 200 == 199:
            await asyncio.sleep(0)
    return writes / (time.perf_counter() - before)


async def measure(peers: int, writes: int) -> dict[str, object]:
    """One run with so many peers."""
    cluster = f"bench-{os.getpid()}-{peers}"
    processes = [
        subprocess.Popen([sys.executable, __file__, "--peer", cluster], stdout=subprocess.PIPE, text=True)
        for _ in range(peers)
    ]
    try:
        loop = asyncio.get_running_loop()
        for process in processes:
            assert process.stdout is not None
            assert (await loop.run_in_executor(None, process.stdout.readline)).strip() == READY
        async with gossip.Node(cluster) as node:
            while len(node.members) < peers + 1:
                await asyncio.sleep(0.01)
            floor = await latencies(node, writes)
            seen = [
                json.loads(await loop.run_in_executor(None, each.stdout.readline)) for each in processes if each.stdout
            ]
            rate = await sustained(node, 20_000)
            node.register("stop").set(True)
            for process in processes:
                await loop.run_in_executor(None, process.wait)
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
    visible = [ns / 1e3 for each in seen for ns in each]
    return {"peers": peers, "floor_us": floor, "visible_us": visible, "writes_per_s": rate}


def percentile(values: list[float], share: float) -> float:
    """The value that this share of all does not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def report(figures: dict[str, object]) -> None:
    """A few lines for people."""
    visible, floor = figures["visible_us"], figures["floor_us"]
    assert isinstance(visible, list) and isinstance(floor, list)
    half = statistics.median(floor)
    print(f"{figures['peers']} peers, {len(visible)} observations; half a bare echo takes {half:.0f} us (median)")
    for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
        value = percentile(visible, share)
        print(f"  visible {name}: {value:8.0f} us   {value / half:6.1f} x half an echo")
    print(f"  writes made and sent: {figures['writes_per_s']:,.0f} a second")


def main() -> None:
    """Measures, and prints text or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=int, nargs="+", default=[1, 7])
    parser.add_argument("--writes", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        asyncio.run(peer(options.peer))
        return
    with tempfile.TemporaryDirectory() as directory:
        os.environ["GOSSAMESH_RUNTIME_DIR"] = directory
        results = [asyncio.run(measure(peers, options.writes)) for peers in options.peers]
    if options.json:
        print(json.dumps({"python": platform.python_version(), "results": results}))
        return
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores")
    for figures in results:
        report(figures)


if __name__ == "__main__":
    main()
