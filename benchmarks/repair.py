"""What does it cost to give a node what it lacks: all of it, or ten of a million entries?

A node in this process has the entries; another, in a process of its own, joins it (a newcomer), and then lacks ten
writes that it was not sent: found in the log, and again where the log does not reach back, so that ranges are compared.
Beside the time stand the bytes that the other got, and for how long its loop could do nothing else at a time.

    python benchmarks/repair.py --entries 1000000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import gossip
from crdt import state_parts

CHILD = """
import asyncio, json, sys, time
import gossip

longest = size = 0

async def beat():
    global longest
    last = time.perf_counter()
    while True:
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now

async def main():
    global longest, size
    begun = time.perf_counter()
    beats = asyncio.create_task(beat())
    async with gossip.Node("bench", max_state=4 << 30) as node:
        print(json.dumps({"joined": time.perf_counter() - begun, "entries": len(node.map("m"))}), flush=True)
        loop = asyncio.get_running_loop()
        real = node._runtime.transport._received

        def counted(packet, *rest):
            global size
            size += len(packet)
            return real(packet, *rest)

        while line := await loop.run_in_executor(None, sys.stdin.readline):
            if line == "deaf\\n":
                node._runtime.transport._received = lambda packet, *rest: True
                print("{}", flush=True)
                continue
            key = line.strip()
            node._runtime.transport._received = counted
            begun, longest, size = time.perf_counter(), 0, 0
            while key not in node.map("m"):
                await asyncio.sleep(0.001)
            took = time.perf_counter() - begun
            print(json.dumps({"repair s": took, "KB": size / 1e3, "held up s": longest}), flush=True)

asyncio.run(main())
"""


def ask(child: subprocess.Popen[str], line: str) -> dict[str, Any]:
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(line + "\n")
    child.stdin.flush()
    answer: dict[str, Any] = json.loads(child.stdout.readline())
    return answer


async def measure(entries: int, log_bytes: int, step: int = 20_000) -> dict[str, float]:
    figures: dict[str, float] = {}
    async with gossip.Node("bench", log_bytes=log_bytes) as node:
        things = node.map("m", int)
        for start in range(0, entries, step):
            for number in range(start, min(start + step, entries)):
                things[f"key {number}"] = number
            await asyncio.sleep(0)
        figures["state MB"] = sum(map(len, state_parts(node._store.state()))) / 1e6
        child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=-1, stdout=-1, text=True)
        try:
            assert child.stdout is not None
            joined = json.loads(await asyncio.to_thread(child.stdout.readline))
            assert joined["entries"] == entries, joined
            figures["join s"] = joined["joined"]
            await asyncio.to_thread(ask, child, "deaf")
            for number in range(10):
                things[f"missed {number}"] = number
            await asyncio.sleep(0.1)
            figures |= await asyncio.to_thread(ask, child, "missed 9")
        finally:
            assert child.stdin is not None
            child.stdin.close()
            child.wait(30)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=100_000)
    entries = parser.parse_args().entries
    with tempfile.TemporaryDirectory() as directory:
        os.environ["GOSSAMESH_RUNTIME_DIR"] = directory
        begun = time.perf_counter()
        print(f"{entries} entries; seconds until it was all there, from the start of the node, or of its hearing again")
        for what, log_bytes in (("the log reaches back", 64 << 20), ("ranges are compared", 1)):
            figures = asyncio.run(measure(entries, log_bytes))
            shown = ", ".join(f"{name} {figure:.2f}" for name, figure in figures.items())
            print(f"  {what:22} {shown}")
        print(f"  (all of it took {time.perf_counter() - begun:.0f} s)")


if __name__ == "__main__":
    main()
