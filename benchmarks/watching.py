"""When does another process hear of a write?

A process that does nothing but hear: it takes the time (CLOCK_MONOTONIC, which all processes of a machine share) at
which it has the value in hand. A payload is a number and the time before the write; who hears by a program that is not
Python adds the time at which that program had it. At a payload of number -1 it
prints, as JSON, the number, the delay and the time of all that it heard since the last; it is ended from outside.

    python -m benchmarks.watching SYSTEM channels|floods NAME ADDRESS
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from array import array
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Self

from benchmarks import loops, ours
from benchmarks.measure import OURS
from benchmarks.peers import READY, peers

END = -1
PATIENCE = 120.0  # for what was written to get through: more than the slowest needs for three seconds of writes
Heard = list[tuple[int, int, int]]
"""Number, nanoseconds of delay and time of what a process heard. It keeps them in an array, one after the other: the
garbage collector takes 5 ms for a list of 150 000 tuples, and that would be a delay of whoever makes objects as he
works, and of nobody else."""


def payload(number: int) -> bytes:
    """What is written: whose turn it is, and when that began."""
    return b"%d %d" % (number, time.monotonic_ns())


def take(told: bytes, heard: array[int]) -> None:
    """Keeps it; at the end of a round tells all of it."""
    now = time.monotonic_ns()
    if told == READY:
        print(READY.decode(), flush=True)
        return
    number, begun, *came = told.split()
    if int(number) == END:
        print(json.dumps(list(zip(heard[::3], heard[1::3], heard[2::3], strict=True))), flush=True)
        del heard[:]
    else:
        now = int(came[0]) if came else now
        heard.extend((int(number), now - int(begun), now))


async def hear(channel: Iterator[bytes] | AsyncIterator[bytes]) -> None:
    heard = array("q")
    if isinstance(channel, AsyncIterator):
        async for told in channel:
            take(told, heard)
    else:
        for told in channel:
            take(told, heard)


class Watching:
    """Such a process, seen from the one that measures."""

    def __init__(self, system: str, name: str, address: str, kind: str = "channels") -> None:
        self._arguments = (system, kind, name, address)
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__, *self._arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, limit=1 << 28,
        )  # fmt: skip
        try:
            if (await self._line()).strip() != READY:
                raise RuntimeError(f"who should hear {self._arguments[2]} ended before it did")
        except BaseException:
            await self._over()
            raise
        return self

    async def _line(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            return await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        except TimeoutError:
            raise RuntimeError(f"who should hear {self._arguments[2]} said nothing for {PATIENCE:.0f} s") from None

    async def heard(self) -> Heard:
        """Number, nanoseconds of delay, and time of all that it heard; the end was told before."""
        return [(number, delay, now) for number, delay, now in json.loads(await self._line())]

    async def _over(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._over()


if __name__ == "__main__":
    system, kind, name, address = sys.argv[1:]
    peer = {OURS: ours.PEER, loops.TWO_LOOPS: loops.PEER}.get(system) or peers()[system]
    asyncio.run(hear(getattr(peer, kind)[name].hear(address)))
