"""How many writes a second get to 1 and to 7 other processes, and how late are they at 50 000 a second?

One process writes 200 at a time, as fast as it can; the clock stops when the last process that waits has the last write
in hand. Beside it Redis, in pipelines of 200: of SETs, which end at the server, and of PUBLISHes, which end where
ours do. `held, and not read` is what SETs do: the other process has each write when the clock stops, and nobody there
is told of any but the last of 200; they are written by `update`. `one key` writes the same key again and again: who
waits gets the last; only that is asked of others that gossip, in a table of their own. `batches` become visible whole.
At a set rate the writes have keys of their own, so that none can stand for another, and each says how late it came.

    python benchmarks/sustained.py [--peers 1 7] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from benchmarks import ours
from benchmarks.measure import NOT_QUICK, OURS, Result, alone, in_turn, percentile
from benchmarks.peers import Flood, Payloads, Peer, peers
from benchmarks.watching import END, PATIENCE, Heard, Watching, payload

CHUNK = 200
RATE = 50_000
ONE_KEY = "one key"
OWN_KEYS, AT_RATE = "keys of their own", f"{RATE:,} a second".replace(",", " ")
PIPELINE, PUBLISHED = "redis pipeline of SETs", "redis pub/sub pipeline"


class Load:
    """One who writes, and processes that wait for it."""

    def __init__(self, peer: Peer, flood: Flood, listeners: int) -> None:
        self.peer, self.flood, self.listeners = peer, flood, listeners
        self._watching: list[Watching] = []
        self._made = 0  # numbers go on from round to round: what comes late is not taken for one of the next
        self._tell: Callable[[Payloads], None] = lambda payloads: None

    async def open(self, kind: str, directory: Path, stack: AsyncExitStack) -> None:
        directory.mkdir()
        address = stack.enter_context(self.peer.running(directory))
        self._watching = [Watching(self.peer.name, kind, address, "floods") for _ in range(self.listeners)]
        for each in self._watching:
            await stack.enter_async_context(each)
        self._tell = await stack.enter_async_context(self.flood.tell(address))

    def _write(self, count: int) -> None:
        self._tell([(number, payload(number)) for number in range(self._made, self._made + count)])
        self._made += count

    async def as_fast_as_it_goes(self, writes: int) -> float:
        """Writes a second, until the last is everywhere."""
        begun = time.monotonic_ns()
        for first in range(0, writes, CHUNK):
            self._write(min(CHUNK, writes - first))
            await asyncio.sleep(0)
        last = self._made - 1
        ends = [next(now for number, _, now in each if number == last) for each in await self._heard()]
        return writes / (max(ends) - begun) * 1e9

    async def at_rate(self, seconds: float) -> tuple[float, list[float], int]:
        """Writes made a second, the milliseconds each took to each process, and how many were never shown."""
        first, begun = self._made, time.monotonic()
        while (now := time.monotonic() - begun) < seconds:
            self._write(first + int(now * RATE) - self._made)
            await asyncio.sleep(0.001)
        took, made = time.monotonic() - begun, self._made - first
        delays = [delay for each in await self._heard() for delay in first_heard(each, first)]
        return made / took, delays, made * self.listeners - len(delays)

    async def _heard(self) -> list[Heard]:
        """What each process has heard, once each has the last write.

        Who was left behind is given everything in one step, and may hear of the end before the last: it is told again.
        """
        heard: list[Heard] = [[] for _ in self._watching]
        deadline = time.monotonic() + PATIENCE
        while not all(any(number == self._made - 1 for number, _, _ in reversed(each)) for each in heard):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the last write had not come everywhere after {PATIENCE} s")
            self._tell([(END, payload(END))])
            for each, watching in zip(heard, self._watching, strict=True):
                each += await watching.heard()
        return heard


async def one_round(load: Load, what: str, system: str, writes: int, seconds: float, result: Result) -> None:
    """As fast as it goes, and, with keys of their own, at the rate that is meant to be sustained."""
    result.add(what, system, await load.as_fast_as_it_goes(writes), "writes/s", more=True)
    if what.endswith(OWN_KEYS):
        label = f"{what.partition(',')[0]}, {AT_RATE}"
        rate, delays, lost = await load.at_rate(seconds)
        result.add(f"{label}, reached", system, rate, "writes/s", more=True)
        for share in (50, 99):
            result.add(f"{label}, p{share}", system, percentile(delays, share / 100), "ms")
        if lost:
            result.notes.append(f"{label}: {lost} writes of {system} were never shown by themselves")


async def pipeline_of_sets(peer: Peer, directory: Path, stack: AsyncExitStack) -> Callable[[int], float]:
    """Writes a second until the server has answered the last pipeline."""
    directory.mkdir()
    address = stack.enter_context(peer.running(directory))
    client = await stack.enter_async_context(peer.clients["redis, unix socket"](address))
    write_many = client.write_many
    assert write_many is not None

    def rate(writes: int) -> float:
        begun = time.monotonic_ns()
        for first in range(0, writes, CHUNK):
            write_many([(f"key-{n}", payload(n)) for n in range(first, min(first + CHUNK, writes))])
        return writes / (time.monotonic_ns() - begun) * 1e9

    return rate


def first_heard(heard: Heard, first: int) -> list[float]:
    """Of each write from this number on, the milliseconds until it was heard.

    Who falls behind is given everything anew, and hears of a write a second time: that one is no delay.
    """
    delays: dict[int, float] = {}
    for number, delay, _ in heard:
        if number >= first:
            delays.setdefault(number, delay / 1e6)
    return list(delays.values())


Turn = Callable[[], Awaitable[None]]


async def among(rounds: int, writes: int, quick: bool, result: Result) -> None:
    """Ours anew and all others that gossip: some are busy while others have the word, so no server is measured here."""
    label, loads = "1 peer, among those that gossip", {}
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        others = {name: peer for name, peer in peers().items() if ONE_KEY in peer.floods}
        absent = {name: peer.missing for name, peer in others.items() if peer.missing}
        result.skipped |= {name: f"{why} is not installed" for name, why in absent.items()}
        if quick:
            result.skipped |= {name: NOT_QUICK for name in others if name not in absent}
        if quick or absent.keys() == others.keys():
            return  # ours is not measured again beside nobody
        for name, peer in {OURS: ours.PEER, **others}.items():
            if name in absent:
                continue
            with noted(f"{name}, {label}", result):
                load = Load(peer, peer.floods[ONE_KEY], 1)
                await load.open(ONE_KEY, directory / name, stack)
                loads[name] = load
        for _, name in in_turn(loads, rounds):
            if f"{name}, {label}" not in result.failed:
                with noted(f"{name}, {label}", result):
                    await one_round(loads[name], f"{label}, {ONE_KEY}", name, writes, 0, result)


async def measure(listeners: int, rounds: int, writes: int, seconds: float, result: Result) -> None:
    label, redis = f"{listeners} peer{'s' if listeners > 1 else ''}", peers()["redis"]
    if redis.missing:
        result.skipped["redis"] = f"{redis.missing} is not installed"
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        async def flooding(peer: Peer, system: str, kind: str) -> Turn:
            load, what = Load(peer, peer.floods[kind], listeners), f"{label}, {kind}"
            await load.open(kind, directory / f"{system} {kind}".replace("/", " "), stack)
            return lambda: one_round(load, what, system, writes, seconds, result)

        async def setting() -> Turn:
            rate = await pipeline_of_sets(redis, directory / PIPELINE, stack)

            async def turn() -> None:
                reached = rate(writes)
                for kind in (OWN_KEYS, ours.HELD):
                    result.add(f"{label}, {kind}", PIPELINE, reached, "writes/s", more=True)

            return turn

        makers: dict[str, Awaitable[Turn]] = {
            f"{OURS}, {kind}": flooding(ours.PEER, OURS, kind) for kind in ours.PEER.floods
        }
        if not redis.missing:
            makers |= {f"{PUBLISHED}, {kind}": flooding(redis, PUBLISHED, kind) for kind in redis.floods}
        if listeners == 1 and not redis.missing:
            makers[PIPELINE] = setting()
        turns: dict[str, Turn] = {}
        for name, maker in makers.items():
            with noted(f"{name}, {label}", result):
                turns[name] = await maker
        for _, name in in_turn(turns, rounds):
            if f"{name}, {label}" not in result.failed:
                with noted(f"{name}, {label}", result):
                    await turns[name]()


@contextmanager
def noted(name: str, result: Result) -> Iterator[None]:
    """One that fails is in the result with what happened, and the others go on."""
    try:
        yield
    except Exception as error:
        result.failed[name] = f"{type(error).__name__}: {error}"


async def ask(options: argparse.Namespace, result: Result) -> None:
    rounds, writes, seconds = (2, 4_000, 0.3) if options.quick else (10, 20_000, 3.0)
    for listeners in options.peers or ([1] if options.quick else [1, 7]):
        await measure(listeners, rounds, writes, seconds, result)
    await among(rounds, writes, options.quick, result)


def own_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peers", type=int, nargs="+", help="processes that wait")


if __name__ == "__main__":
    alone(__file__, __doc__ or "", ask, own_options)
