"""Who is measured beside us, and what has each to be able to do for that?

A peer is a system as its users have it: started for real in a directory of its own, with nothing but its defaults, and
spoken to by the client that they use. Where it documents faster settings or has several clients, each is measured under
a name of its own, and a goal counts against the fastest. A value is whatever Python has: who takes only bytes gets
msgpack, as fast as there is, and the time for it counts, because its users spend it too.

Invariant: a peer that is not here is named with what is missing; it never fails a run.
Not here: the questions. No file here knows what is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import re
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

READY = b"ready"  # what a channel gives first: it hears from here on
PATIENCE = 30.0
BUILT = Path(__file__).parent / "build"  # programs that `make bench-peers` builds from the sources in this folder


@dataclass(frozen=True)
class Client:
    """A connection, warm. What a system has no word for is None, and not measured. May be coroutine functions."""

    read: Callable[[str], Any]
    write: Callable[[str, Any], Any]
    write_many: Callable[[list[tuple[str, Any]]], Any] | None = None
    increment: Callable[[str], Any] | None = None
    add: Callable[[str, str], Any] | None = None  # to the set of a name, an element
    has: Callable[[str, str], Any] | None = None


@dataclass(frozen=True)
class Channel:
    """A way to tell other processes of a write.

    `tell` gives a function that makes the write `number` with its payload known; `hear`, in another process, gives
    READY and then the payloads.
    """

    tell: Callable[[str], AbstractAsyncContextManager[Callable[[int, bytes], Any]]]
    hear: Callable[[str], Iterator[bytes] | AsyncIterator[bytes]]


Payloads = list[tuple[int, bytes]]


@dataclass(frozen=True)
class Flood:
    """The same for many writes at once: `tell` gives a function of all that is to be written now."""

    tell: Callable[[str], AbstractAsyncContextManager[Callable[[Payloads], None]]]
    hear: Callable[[str], Iterator[bytes] | AsyncIterator[bytes]]


Member = Callable[[str, str, int, list[int]], list[str]]
"""The command of a process that is one member: of this cluster, of this name, at this port of the loopback, and the
ports of those that were there before it.

It prints lines of JSON, [seconds of CLOCK_MONOTONIC, kind, name, members]. First `imported`; then it waits for a line
of input, and starts. From then on it tells what its system tells a program: who `joined`, `died` or `left`, and how
many it takes for alive then, itself included. It ends with its input, or by kill -9.
"""


def _is_here(module: str) -> bool:
    """Whether it could be imported; of one inside a package, that is imported for the answer."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@dataclass(frozen=True)
class Peer:
    """A system: how to start it, and how to speak to it. An address is whatever `running` gives."""

    name: str
    running: Callable[[Path], AbstractContextManager[str]]
    clients: dict[str, Callable[[str], AbstractAsyncContextManager[Client]]] = field(default_factory=dict)
    channels: dict[str, Channel] = field(default_factory=dict)
    floods: dict[str, Flood] = field(default_factory=dict)  # by what keys the writes have
    members: dict[str, Member] = field(default_factory=dict)
    programs: tuple[str, ...] = ()
    built: tuple[str, ...] = ()  # programs in BUILT
    modules: tuple[str, ...] = ()  # as they are imported
    packages: tuple[str, ...] = ()  # as they are installed

    @property
    def missing(self) -> str:
        """What is not installed here; empty if it can be measured."""
        programs = [f"the program {name}" for name in self.programs if shutil.which(name) is None]
        built = [f"the program {name} of `make bench-peers`" for name in self.built if not (BUILT / name).exists()]
        modules = [f"the module {name}" for name in self.modules if not _is_here(name)]
        return " and ".join(programs + built + modules)

    @property
    def versions(self) -> dict[str, str]:
        """Of its programs and packages, as they tell them."""
        told = {name: importlib.metadata.version(name) for name in self.packages}
        for name in self.programs:
            asked = subprocess.run([name, "--version"], capture_output=True, text=True, timeout=PATIENCE, check=False)
            number = re.search(r"\d+(\.\d+)+", asked.stdout + asked.stderr)
            told[name] = number.group() if number else "unknown"
        for name in self.built:  # of what it was built from: a name and a number a line
            asked = subprocess.run(
                [BUILT / name, "--version"], capture_output=True, text=True, timeout=PATIENCE, check=False
            )
            told |= dict(line.split(maxsplit=1) for line in asked.stdout.splitlines())
        return told


def peers() -> dict[str, Peer]:
    """All of them, in the order in which they are shown."""
    shared = ("redis", "managers", "diskcaches", "memcached", "stash", "nats", "raft", "etcd")
    gossiping = ("hashicorp", "scuttlebutt", "pekko", "aioclusters")
    found = [import_module(f"benchmarks.peers.{name}").PEER for name in (*shared, *gossiping)]
    return {peer.name: peer for peer in found}


def free_port() -> int:
    """A port of the loopback that nobody has just now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@contextmanager
def served(arguments: list[str], directory: Path, *doors: int | Path) -> Iterator[None]:
    """A server that runs until the end of the block; the block begins when it listens on these ports and sockets."""
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(arguments, cwd=directory, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + PATIENCE
            for door in doors:
                while not _listens(door):
                    if process.poll() is not None or time.monotonic() > deadline:
                        told = (directory / "log").read_text(encoding="utf-8", errors="replace")[-300:]
                        raise RuntimeError(f"{arguments[0]} did not start; the end of its log: {told}")
                    time.sleep(0.02)
            yield
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()


@asynccontextmanager
async def telling(command: list[str]) -> AsyncIterator[Callable[[int, int], None]]:
    """A program that is not Python makes the writes: from this number on, so many.

    It says READY, and then has lines of two numbers. It takes the time of a write itself, so that the way to it is no
    part of how late one is heard. It is a part of how many there are a second: some milliseconds of a whole round.
    """
    process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    writing, reading = process.stdin, process.stdout
    assert writing is not None
    assert reading is not None
    try:
        if (await reading.readline()).strip() != READY:
            raise RuntimeError(f"{Path(command[0]).name} ended before it could write")
        yield lambda first, count: writing.write(b"%d %d\n" % (first, count))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def hearing(command: list[str]) -> Generator[bytes, None, None]:
    """A program that is not Python hears: READY, and then payloads, each with the time at which the program had it.

    Its input is a pipe that nobody writes to: it ends when this process is killed.
    """
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield from (line.strip() for line in process.stdout)


def channel(teller: Callable[[str], list[str]], hearer: Callable[[str], list[str]]) -> Channel:
    """Of two such programs, whose commands are functions of the address."""

    @asynccontextmanager
    async def tell(address: str) -> AsyncIterator[Callable[[int, bytes], Any]]:
        async with telling(teller(address)) as writes:
            yield lambda number, payload: writes(number, 1)

    return Channel(tell, lambda address: hearing(hearer(address)))


def flood(teller: Callable[[str], list[str]], hearer: Callable[[str], list[str]]) -> Flood:
    """The same for many writes; what is to be written is always a row of numbers."""

    @asynccontextmanager
    async def tell(address: str) -> AsyncIterator[Callable[[Payloads], None]]:
        async with telling(teller(address)) as writes:
            yield lambda payloads: writes(payloads[0][0], len(payloads))

    return Flood(tell, lambda address: hearing(hearer(address)))


def _listens(door: int | Path) -> bool:
    family, address = (socket.AF_UNIX, str(door)) if isinstance(door, Path) else (socket.AF_INET, ("127.0.0.1", door))
    with socket.socket(family) as knocking, contextlib.suppress(OSError):
        knocking.connect(address)
        return True
    return False
