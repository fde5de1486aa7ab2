"""How long until a write is in the hands of another process that waits for it, and of all seven?

One process writes, now and then; for each way to be told, other processes do nothing but wait. The ways take turns,
write by write. Two floors go beside them: of an echo over a bare unix stream half the round trip, for whatever sends,
and the same bytes from one event loop to a task of another, for whatever is heard on asyncio. All seven have a write
when the last one has it.

Ways of systems that gossip have a table of their own, with ours anew: some of them are busy while others have the word,
and servers are not to be measured beside that.

    python benchmarks/visible.py [--peers 1 7] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import loops, ours
from benchmarks.measure import NOT_QUICK, OURS, Result, alone, percentile
from benchmarks.peers import Peer, peers
from benchmarks.watching import END, Heard, Watching, payload

GAP = 0.002  # seconds from one write to the next: each finds everybody at rest
WARM = 50
FLOOR = "half an echo"
SHARES = {"p50": 0.5, "p99": 0.99}
AMONG = ", among those that gossip"
MANY = (OURS, loops.TWO_LOOPS, "redis pub/sub", "redis pub/sub, asyncio")  # who is asked to tell more than one process
_ECHO = """
import socket, sys
stream = socket.socket(fileno=int(sys.argv[1]))
while data := stream.recv(64):
    stream.send(data)
"""


@contextmanager
def echo() -> Iterator[Callable[[], float]]:
    """A function that takes half a round trip, in microseconds."""
    here, there = socket.socketpair()
    process = subprocess.Popen([sys.executable, "-c", _ECHO, str(there.fileno())], pass_fds=[there.fileno()])
    there.close()

    def half() -> float:
        before = time.perf_counter()
        here.send(bytes(60))
        here.recv(64)
        return (time.perf_counter() - before) / 2 * 1e6

    with here:
        half()
        yield half
    process.wait()


class Way:
    """A channel with its processes, and the function that tells them."""

    def __init__(self, peer: Peer, name: str) -> None:
        self.peer, self.name = peer, name
        self.watching: list[Watching] = []
        self._tell: Callable[[int, bytes], Any] = lambda number, told: None

    async def open(self, directory: Path, listeners: int, stack: AsyncExitStack) -> None:
        directory.mkdir()
        address = stack.enter_context(self.peer.running(directory))
        for _ in range(listeners):
            self.watching.append(await stack.enter_async_context(Watching(self.peer.name, self.name, address)))
        self._tell = await stack.enter_async_context(self.peer.channels[self.name].tell(address))

    async def tell(self, number: int) -> None:
        answer = self._tell(number, payload(number))
        if inspect.isawaitable(answer):
            await answer

    async def heard(self) -> list[Heard]:
        await self.tell(END)
        return [await each.heard() for each in self.watching]


async def opened(
    everybody: dict[str, Peer], listeners: int, directory: Path, stack: AsyncExitStack, result: Result
) -> list[Way]:
    ways = []
    for name, peer in everybody.items():
        for channel in peer.channels:
            if listeners > 1 and channel not in MANY:
                continue
            if peer.missing:
                result.skipped[name] = f"{peer.missing} is not installed"
                continue
            way = Way(peer, channel)
            try:
                await way.open(directory / channel.replace("/", " "), listeners, stack)
                ways.append(way)
            except Exception as error:
                result.failed[channel] = f"{type(error).__name__}: {error}"
    return ways


async def written(ways: list[Way], rounds: int, writes: int, half: Callable[[], float], result: Result) -> list[float]:
    """Writes in turn; gives the floors. A way that fails tells no more."""
    floors = []
    for number in range(WARM + rounds * writes):
        start = number % len(ways)
        for way in ways[start:] + ways[:start]:
            if way.name in result.failed:
                continue
            try:
                await way.tell(number)
            except Exception as error:
                result.failed[way.name] = f"{type(error).__name__}: {error}"
            await asyncio.sleep(GAP)
        floors.append(half())
    return floors[WARM:]


def keep(result: Result, label: str, system: str, delays: list[list[float]]) -> None:
    """The percentiles of each round, and of all rounds together those that one round has too few writes for."""
    for each_round in delays:
        for share_name, share in SHARES.items():
            result.add(f"{label}, {share_name}", system, percentile(each_round, share))
    every = [delay for each_round in delays for delay in each_round]
    result.add(f"{label}, p99.9 of all rounds", system, percentile(every, 0.999))
    result.add(f"{label}, longest of all rounds", system, max(every))


def by_round(heard: list[Heard], rounds: int, writes: int) -> list[dict[int, list[float]]]:
    """Of each round the delays of each of its writes, one for each process that heard it."""
    found: list[dict[int, list[float]]] = [{} for _ in range(rounds)]
    for each in heard:
        for number, delay, _ in each:
            if number >= WARM:
                found[(number - WARM) // writes].setdefault(number, []).append(delay / 1e3)
    return found


async def measure(listeners: int, rounds: int, writes: int, result: Result, among: str = "") -> None:
    one = f"at the other process{among}" if listeners == 1 else f"at one of {listeners} processes"
    others = {name: peer for name, peer in peers().items() if bool(peer.members) == bool(among)}
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        half = stack.enter_context(echo())
        bare = {} if among else {loops.TWO_LOOPS: loops.PEER}
        ways = await opened({OURS: ours.PEER, **bare, **others}, listeners, directory, stack, result)
        floors = await written(ways, rounds, writes, half, result)
        keep(result, one, FLOOR, [floors[number * writes : (number + 1) * writes] for number in range(rounds)])
        for way in ways:
            if way.name in result.failed:
                continue
            try:
                found = by_round(await way.heard(), rounds, writes)
            except Exception as error:
                result.failed[way.name] = f"{type(error).__name__}: {error}"
                continue
            lost = rounds * writes * listeners - sum(len(each) for one_round in found for each in one_round.values())
            if lost:
                result.notes.append(f"{way.name}: {lost} of {rounds * writes * listeners} were not heard")
            keep(result, one, way.name, [[d for each in one_round.values() for d in each] for one_round in found])
            if listeners > 1:
                last = [[max(each) for each in one_round.values()] for one_round in found]
                keep(result, f"at all {listeners} processes", way.name, last)


async def ask(options: argparse.Namespace, result: Result) -> None:
    rounds, writes = (2, 60) if options.quick else (10, 300)
    for listeners in options.peers:
        await measure(listeners, rounds, writes, result)
    gossiping = {name: peer for name, peer in peers().items() if peer.members and peer.channels}
    absent = {name: peer.missing for name, peer in gossiping.items() if peer.missing}
    result.skipped |= {name: f"{why} is not installed" for name, why in absent.items()}
    if options.quick:
        result.skipped |= {name: NOT_QUICK for name in gossiping if name not in absent}
    elif 1 in options.peers and absent.keys() != gossiping.keys():  # ours is not measured again beside nobody
        await measure(1, rounds, writes, result, AMONG)
    result.floors += [FLOOR, loops.TWO_LOOPS]


def own_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peers", type=int, nargs="+", default=[1, 7], help="processes that wait")


if __name__ == "__main__":
    alone(__file__, __doc__ or "", ask, own_options)
