"""Who visits the workers, and what was answered to them?

A process of its own, so that it does not disturb whom it measures. Each visitor logs in, clicks a while over one
keep-alive connection, comes back over another one (which another worker may get), clicks on, and logs out or stays.
A line of JSON on standard output tells the tally four times a second, and all of it at the end.

Invariant: what counts as answered was answered: status 200, read to its end. A request whose connection broke is
*unanswered*: the worker may have done it or not. Every request is a POST, since HTTP clients, ours too, silently repeat
a GET whose connection broke; and then a hit might count twice.

Not here: what the tally means (`verdict`).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import time
from collections import Counter, defaultdict, deque
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp

VISITOR = "visitor-"
"""How the names of these visitors begin. Others may log in as well, a person with a browser, who is not judged."""
TELL_EVERY = 0.25
_PATIENCE = 10.0
"""Seconds for one request."""
_NUMBERS = 10_000
"""Of the newest hits of each worker: seconds of them, where what is lost is a matter of microseconds."""


@dataclass(slots=True)
class Tally:
    """What was asked and answered until `at_ns` (CLOCK_MONOTONIC)."""

    at_ns: int = 0
    answered: int = 0
    hits: int = 0
    hits_unanswered: int = 0
    unanswered: int = 0
    """Sent, and the connection broke before the answer was here; hits, logins and logouts."""
    refused: int = 0
    """Could not connect, or answered with anything but 200."""
    moved: int = 0
    """Requests of a session that another worker than the one that opened it answered."""
    unknown: int = 0
    """Those of them for which that worker did not know the session."""
    workers: dict[str, int] = field(default_factory=dict)
    """Requests answered by pid."""
    open: int = 0
    """Sessions whose opening was answered, and whose end nobody asked for."""
    ends: int = 0
    """Sessions whose end somebody asked for."""


@dataclass(slots=True)
class Outcome:
    """The end: the tally, and each session and name by what the answers say of it.

    `kept` must be there, `ended` must not be, `unsure` may: a request about it broke. Sessions are `{id: name}`.
    """

    tally: Tally
    kept: dict[str, str]
    ended: dict[str, str]
    unsure: dict[str, str]
    numbers: dict[str, list[int]]
    """The newest answered hits of each pid, by their number at that worker: what it did last is what could be lost."""
    names_unsure: list[str]
    """Names of which even the login was not answered, so that nobody knows the session."""


class Visitors:
    """All the visitors, and what they were told."""

    def __init__(self, url: str, pause: float) -> None:
        self._url = url
        self._pause = pause
        self._names = (f"{VISITOR}{number}" for number in itertools.count(1))
        self._workers: Counter[str] = Counter()
        self._kept: dict[str, str] = {}
        self._ended: dict[str, str] = {}
        self._unsure: dict[str, str] = {}
        self._names_unsure: list[str] = []
        self._numbers: defaultdict[str, deque[int]] = defaultdict(lambda: deque(maxlen=_NUMBERS))
        self._tally = Tally()
        self.over = asyncio.Event()

    async def come_and_go(self) -> None:
        """One visitor after the other, until it is over."""
        while not self.over.is_set():
            await self._visit(next(self._names))

    async def _visit(self, name: str) -> None:
        async with self._connection() as first:
            opened = await self._post(first, "login", json={"name": name})
            if opened is None:
                self._names_unsure.append(name)
                return
            session, home = opened["session"], opened["worker"]
            self._kept[session] = name
            await self._click(first, session, home)
        async with self._connection() as second:
            await self._click(second, session, home)
            if random.random() < 0.5 and not self.over.is_set():
                await self._log_out(second, session)

    async def _click(self, connection: aiohttp.ClientSession, session: str, home: str) -> None:
        for _ in range(random.randint(3, 15)):
            await self._wait()
            if self.over.is_set():
                return
            answer = await self._post(connection, "hit", session=session)
            if answer is None:
                self._tally.hits_unanswered += 1
                continue
            self._tally.hits += 1
            self._numbers[answer["worker"]].append(answer["number"])
            if answer["worker"] != home:
                self._tally.moved += 1
                self._tally.unknown += not answer["known"]

    async def _log_out(self, connection: aiohttp.ClientSession, session: str) -> None:
        name = self._kept.pop(session)
        self._tally.ends += 1
        answer = await self._post(connection, "logout", session=session)
        if answer is None or not answer["known"]:
            self._unsure[session] = name
        else:
            self._ended[session] = name

    async def _post(self, connection: aiohttp.ClientSession, path: str, **more: Any) -> dict[str, Any] | None:
        """The answer, with the worker that gave it; None if there was none, or not the one to be wished for."""
        session = more.pop("session", None)
        headers = {"cookie": f"session={session}"} if session else {}
        try:
            async with connection.post(f"{self._url}/{path}", headers=headers, **more) as response:
                content: dict[str, Any] = await response.json()
        except aiohttp.ClientConnectorError:
            self._tally.refused += 1
            return None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            self._tally.unanswered += 1
            return None
        if response.status != 200:
            self._tally.refused += 1
            return None
        worker = response.headers["x-worker"]
        self._workers[worker] += 1
        self._tally.answered += 1
        return {**content, "worker": worker}

    def _connection(self) -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(total=_PATIENCE)
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1), timeout=timeout)

    async def _wait(self) -> None:
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.5))

    def tally(self) -> Tally:
        """As of now: all that it counts was answered before `at_ns`."""
        self._tally.workers = dict(self._workers)
        self._tally.open = len(self._kept)
        self._tally.at_ns = time.monotonic_ns()
        return self._tally

    def outcome(self) -> Outcome:
        """All of it, when it is over."""
        numbers = {worker: list(answered) for worker, answered in self._numbers.items()}
        return Outcome(self.tally(), self._kept, self._ended, self._unsure, numbers, self._names_unsure)


async def visit(url: str, seconds: float, visitors: int, rate: float) -> None:
    """So many visitors at a time, together `rate` requests a second, for so long."""
    crowd = Visitors(url, visitors / rate)
    tasks = [asyncio.create_task(crowd.come_and_go()) for _ in range(visitors)]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(min(TELL_EVERY, max(0.0, end - time.monotonic())))
        print(json.dumps(asdict(crowd.tally())), flush=True)
    crowd.over.set()
    await asyncio.gather(*tasks)  # each ends with the answer it waits for
    print(json.dumps({"outcome": asdict(crowd.outcome())}), flush=True)


def main() -> None:
    """The command line of this process; `story` writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--visitors", type=int, default=32)
    parser.add_argument("--rate", type=float, default=400.0)
    options = parser.parse_args()
    try:
        asyncio.run(visit(options.url, options.seconds, options.visitors, options.rate))
    except BrokenPipeError:
        pass  # whoever wanted to know is gone


if __name__ == "__main__":
    main()
