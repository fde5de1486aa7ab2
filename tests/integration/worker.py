"""What does a worker of a real program do? A program for the process tests to start, to talk to, and to kill.

    python -m tests.integration.worker CLUSTER '{"name": "w1", "probe_interval": 0.2}'

It starts a node, says {"ready": ...}, obeys one JSON request a line from its input, and answers each with one line. It
leaves when its input ends or SIGTERM comes, as a program would that was written with care.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

import gossip

Request = dict[str, Any]


class Load:
    """Work in the background: one transaction a turn, of one count and one entry that says which count it was."""

    def __init__(self, node: gossip.Node) -> None:
        self.done = 0
        self._node = node
        self._going = True

    async def run(self) -> None:
        counter, log = self._node.counter("load"), self._node.map("load", int)
        name = self._node.me.name
        while self._going:
            self.done += 1
            with self._node.batch():
                counter.increment()
                log[f"{name}:{self.done}"] = self.done
            await asyncio.sleep(0.002)  # waits: the pace of the work, nothing is asserted after it

    def stop(self) -> int:
        self._going = False
        return self.done


class Ear:
    """What happened to whom, as this node was told: each as its kind and the name of the member."""

    def __init__(self, node: gossip.Node) -> None:
        self.heard: list[tuple[str, str]] = []
        self._node = node

    async def listen(self) -> None:
        async with self._node.events() as events:
            async for event in events:
                self.heard.append((event.kind, event.member.name if event.member else ""))


async def hold(mebibytes: int) -> list[bytes]:
    """So much memory, and really there. A bit at a time: whose loop stands still is called dead before the kill."""
    held = []
    for _ in range(mebibytes):
        held.append(b"\1" * (1 << 20))
        await asyncio.sleep(0)
    return held


def inherit(by: str) -> int:
    """A child that has a copy of every descriptor of ours, whatever Python would close in it; gives its pid."""
    if by == "exec":
        descriptors = [int(name) for name in os.listdir("/proc/self/fd")]
        return subprocess.Popen(["sleep", "1000"], pass_fds=[each for each in descriptors if _is_open(each)]).pid
    libc = ctypes.PyDLL(None)  # holds the interpreter's lock, so that the child comes back to where nobody else is
    pid = int(libc.fork())
    while pid == 0:
        libc.pause()
    return pid


def _is_open(descriptor: int) -> bool:
    with contextlib.suppress(OSError):
        os.fstat(descriptor)
        return True
    return False


def obey(node: gossip.Node, load: Load, ear: Ear, request: Request) -> Any:
    name = request.get("name", "shared")
    match request["do"]:
        case "set":
            node.map(name)[request["key"]] = request["value"]
        case "delete":
            del node.map(name)[request["key"]]
        case "get":
            return node.map(name).get(request["key"])
        case "size":
            return len(node.map(name))
        case "map":
            return dict(node.map(name))
        case "fill":
            for number in range(request["count"]):
                node.map(name)[f"{number:06}"] = number
        case "big":
            node.map(name)[request["key"]] = request["letter"] * ((1 << 20) - 5)
        case "big?":
            value = node.map(name).get(request["key"]) or ""
            return [len(value), sorted(set(value))]
        case "add":
            node.set(name).add(request["element"])
        case "elements":
            return sorted(node.set(name))
        case "count":
            node.counter(name).increment(request["amount"])
        case "value":
            return node.counter(name).value
        case "put":
            node.register(name).set(request["value"])
        case "read":
            return node.register(name).value
        case "me":
            return asdict(node.me)
        case "members":
            return [asdict(member) for member in node.members.all]
        case "status":
            return node.status()
        case "heard":
            return ear.heard
        case "block":
            time.sleep(request["seconds"])  # waits: a loop that stands still is what is tried
        case "have a child":
            return inherit(request["by"])
        case "load":
            return load.done
        case "stop load":
            return load.stop()
        case _:
            raise ValueError(request)
    return None


async def write_on(node: gossip.Node) -> None:
    """Counts, and says each number when it is on the disk, until somebody kills us."""
    number = node.counter("kept").value
    while True:
        number += 1
        with node.batch():
            node.counter("kept").increment()
            node.map("kept", int)[str(number)] = number
        await node.sync(peers=0, durable=True)
        say({"kept": number})


async def answers(node: gossip.Node, load: Load, ear: Ear) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=4 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    working = None
    held: list[bytes] = []
    while line := await reader.readline():
        request = json.loads(line)
        if request["do"] == "start load":
            working = asyncio.create_task(load.run())
            say({"answer": None})
            continue
        if request["do"] == "sync":
            try:
                await node.sync(peers=request["peers"], durable=request["durable"], timeout=request.get("within"))
                say({"answer": True})
            except Exception as error:
                say({"error": repr(error)})
            continue
        if request["do"] == "hold":
            held += await hold(request["mebibytes"])
            say({"answer": None})
            continue
        if request["do"] == "write on":
            working = asyncio.create_task(write_on(node))
            continue
        if request["do"] == "open a batch":
            threading.Thread(target=never_end, args=(node,), daemon=True).start()
            while not node._runtime.door.open:  # type: ignore[union-attr]
                await asyncio.sleep(0)
        try:
            say({"answer": None if request["do"] == "open a batch" else obey(node, load, ear, request)})
        except Exception as error:
            say({"error": repr(error)})
    if working is not None:
        load.stop()
        await working


def never_end(node: gossip.Node) -> None:
    """Holds a batch open, as long as the process lives: what the loop writes is a part of it."""
    with node.batch():
        threading.Event().wait()


def say(what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def main(cluster: str, settings: dict[str, Any]) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        async with gossip.Node(cluster, **settings) as node:
            size = len(node.map("shared"))  # before anything is awaited: what was there when `start` returned
            say({"ready": {"pid": os.getpid(), "size": size, **asdict(node.me)}})
            ear = Ear(node)
            listening = asyncio.create_task(ear.listen())
            await answers(node, Load(node), ear)
            del listening  # held until here: it ends with the node


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
