"""What does it cost to count, and to put into a set?

The same counter and the same set all the time, a hundred elements in turn. Who has no counters or sets is not in the
table for them. What is `sent` has the turn of the loop in it in which a hundred operations leave; a peer's call ends
when the server has answered.

    python benchmarks/operations.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.measure import OURS, Result, alone, each_call
from benchmarks.peers import Client, peers
from benchmarks.turns import compared

EVERYBODY = {OURS: ours.PEER, **{name: peer for name, peer in peers().items() if peer.clients}}
ELEMENTS = [f"element-{number}" for number in range(100)]
COUNTER, SET = "hits", "online"


def numbered(call: Callable[..., Any], *before: str, elements: bool = False) -> Callable[[range], Any]:
    """A function of the calls' numbers."""
    after = [[element] for element in ELEMENTS] if elements else [[]]
    count = len(after)
    if inspect.iscoroutinefunction(call):

        async def each(numbers: range) -> None:
            for number in numbers:
                await call(*before, *after[number % count])

        return each

    def all_of(numbers: range) -> None:
        for number in numbers:
            call(*before, *after[number % count])

    return all_of


def calls(client: Client) -> dict[str, Callable[[range], Any]]:
    found = {}
    if client.increment is not None:
        found["count"] = numbered(client.increment, COUNTER)
    if client.add is not None:
        found["add to a set"] = numbered(client.add, SET, elements=True)
    if client.has is not None:
        found["is it in the set?"] = numbered(client.has, SET, elements=True)
    return found


async def fill(client: Client) -> None:
    for call in calls(client).values():
        answer = call(range(2))
        if inspect.isawaitable(answer):
            await answer


async def one_round(client: Client, seconds: float) -> dict[str, float]:
    found = {}
    for name, call in calls(client).items():
        spent = await each_call(call, seconds)
        found[name] = spent.call
        if not name.endswith("?"):
            found[f"{name}, and sent"] = spent.whole
    return found


async def ask(options: argparse.Namespace, result: Result) -> None:
    rounds, seconds = (2, 0.02) if options.quick else (10, 0.15)
    with tempfile.TemporaryDirectory() as directory:
        await compared(EVERYBODY, Path(directory), rounds, seconds, result)


if __name__ == "__main__":
    alone(__file__, __doc__ or "", ask)
