"""What does it cost to give a node what it lacks: all of it, or ten of a million entries?

A node in this process has the entries; another, in a process of its own, joins it (a newcomer), and then lacks ten
writes that it was not sent: found in the log, and again where the log does not reach back, so that ranges are compared.
Beside the time stand the bytes that the other got, and for how long its loop could do nothing else at a time.

    python benchmarks/repair.py [--entries 1000000] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

import gossip
from benchmarks.measure import OURS, Result, alone
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


def asked(child: subprocess.Popen[str], line: str) -> dict[str, Any]:
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
            await asyncio.to_thread(asked, child, "deaf")
            for number in range(10):
                things[f"missed {number}"] = number
            await asyncio.sleep(0.1)
            figures |= await asyncio.to_thread(asked, child, "missed 9")
        finally:
            assert child.stdin is not None
            child.stdin.close()
            child.wait(30)
    return figures


async def ask(options: argparse.Namespace, result: Result) -> None:
    entries = options.entries or (20_000 if options.quick else 1_000_000)
    label = f"{entries:,} entries".replace(",", " ")
    for _ in range(1 if options.quick else 3):
        for what, log_bytes in (("ten from the log", 64 << 20), ("ten by ranges", 1)):
            with tempfile.TemporaryDirectory() as directory:
                os.environ["GOSSAMESH_RUNTIME_DIR"] = directory
                figures = await measure(entries, log_bytes)
            result.add(f"{label}, newcomer has all", OURS, figures["join s"], "s")
            result.add(f"{label}, {what}", OURS, figures["repair s"], "s")
            result.add(f"{label}, {what}, received", OURS, figures["KB"], "KB")
            result.add(f"{label}, {what}, held up for", OURS, figures["held up s"], "s")
    result.notes.append(f"the whole state has {figures['state MB']:.1f} MB; seconds from the start of the node on")


def own_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--entries", type=int)


if __name__ == "__main__":
    alone(__file__, __doc__ or "", ask, own_options)
