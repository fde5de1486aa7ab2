"""How does a test wait? For a condition and with a deadline, never for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import gossip

STEP = 0.002


class TooLate(AssertionError):
    """A condition did not come true in time."""


async def until(condition: Callable[[], Any], what: str = "", timeout: float = 10.0) -> Any:
    """What the condition gives, as soon as it is true."""
    deadline = time.monotonic() + timeout
    while True:
        if result := condition():
            return result
        if time.monotonic() > deadline:
            raise TooLate(f"not within {timeout} s: {what or condition}")
        await asyncio.sleep(STEP)


def until_here(condition: Callable[[], Any], what: str = "", timeout: float = 10.0) -> Any:
    """`until`, where there is no loop."""
    deadline = time.monotonic() + timeout
    while True:
        if result := condition():
            return result
        if time.monotonic() > deadline:
            raise TooLate(f"not within {timeout} s: {what or condition}")
        time.sleep(STEP)  # waits: the pause between two looks at the condition


@asynccontextmanager
async def nodes(cluster: str, count: int = 2, **settings: Any) -> AsyncIterator[list[gossip.Node]]:
    """So many started nodes of one cluster, in this process, that all know each other."""
    made = [gossip.Node(cluster, name=f"node-{number}", **settings) for number in range(count)]
    try:
        for node in made:
            await node.start()
        await until(lambda: all(len(node.members) == count for node in made), "all know each other")
        yield made
    finally:
        for node in made:
            await node.leave()
