"""How do systems take turns, each in a process of its own?

The process that measures a system has nothing else in it: no other's threads, heap or loop. All are connected and warm;
in each round one after the other gets the word, and the rest are idle. A question that is asked so has `fill(client)`,
which makes what will be read, and `one_round(client, seconds)`, which gives the microseconds of each thing measured.

    python -m benchmarks.turns QUESTION PEER CLIENT ADDRESS SECONDS      (such a process; a line of input is its turn)
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks import ours
from benchmarks.measure import OURS, Result, in_turn
from benchmarks.peers import Peer
from benchmarks.watching import Watching

PATIENCE = 120.0  # for one round: a system that needs longer is not slow but stuck


class Turn:
    """Such a process, seen from the one that gives the word."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__, *self._arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            await self._answer()
        except BaseException:
            await self._over()
            raise
        return self

    async def taken(self) -> dict[str, float]:
        """The figures of one round."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        return await self._answer()

    async def _answer(self) -> dict[str, float]:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        except TimeoutError:
            raise RuntimeError(f"no figures for {PATIENCE:.0f} s") from None
        if not line:
            raise RuntimeError("its process ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    async def _over(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()  # no further turn: it disconnects, and ends
        if self._process.returncode is None:
            try:
                await asyncio.wait_for(self._process.wait(), 10)
            except TimeoutError:
                self._process.kill()
        await self._process.wait()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._over()


async def opened(question: str, peer: Peer, directory: Path, seconds: float, stack: AsyncExitStack) -> dict[str, Turn]:
    """Its clients, not connected yet; the system runs until the stack is closed. Beside ours there is another node."""
    directory.mkdir()
    address = stack.enter_context(peer.running(directory))
    if peer is ours.PEER:
        await stack.enter_async_context(Watching(OURS, OURS, address))
    return {client: Turn(question, peer.name, client, address, str(seconds)) for client in peer.clients}


async def compared(everybody: dict[str, Peer], directory: Path, rounds: int, seconds: float, result: Result) -> None:
    """Asks all of them the question of this result."""
    turns: dict[str, Turn] = {}
    async with AsyncExitStack() as stack:

        async def attempt(name: str, work: Awaitable[Any]) -> Any:
            try:
                return await work
            except Exception as error:
                result.failed[name] = f"{type(error).__name__}: {error}"
                return {}

        for name, peer in everybody.items():
            if peer.missing:
                result.skipped[name] = f"{peer.missing} is not installed"
                continue
            turns |= await attempt(name, opened(result.question, peer, directory / name, seconds, stack))
        await asyncio.gather(*(attempt(name, stack.enter_async_context(turn)) for name, turn in turns.items()))
        for _, name in in_turn(turns, rounds):
            if name not in result.failed:
                for what, figure in (await attempt(name, turns[name].taken())).items():
                    result.add(what, name, figure)


async def taking(question: str, peer: Peer, client_name: str, address: str, seconds: float) -> None:
    """Measures when it has the word."""
    asked, loop = import_module(f"benchmarks.{question}"), asyncio.get_running_loop()
    async with peer.clients[client_name](address) as client:
        await asked.fill(client)
        say({})
        while await loop.run_in_executor(None, sys.stdin.readline):
            say(await asked.one_round(client, seconds))


def say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asking, which, way, where, long = sys.argv[1:]
    chosen = import_module(f"benchmarks.{asking}").EVERYBODY[which]
    try:
        asyncio.run(taking(asking, chosen, way, where, float(long)))
    except Exception as error:
        say({"error": f"{type(error).__name__}: {error}"})
        raise
