"""What does a worker see, and how late does it see what the others write?

Every worker writes the time into a shared map now and then, and watches what the others write there. CLOCK_MONOTONIC is
one clock for all processes of a host, so the difference is the lag: from the call that wrote to the turn in which a
watch at another worker gave it. Four times a second it tells all that in a report, which is shared state as well.

Invariant: a lag is taken only of writes that were made while we watched, never of those that a start brought along.
Not here: who reads the reports (`story`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import gossip

PROBE_EVERY = 0.05
REPORT_EVERY = 0.25
_KEPT = 4096
"""Lags kept, the newest: more than a demo makes, and a bound for one that is kept open."""

QUIET = "quiet"
"""What the register `phase` says when nobody is to write any more, so that the states can be compared."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one worker sees. Times in `_ns` are CLOCK_MONOTONIC, lags and `joined_ms` milliseconds."""

    pid: int
    instance: str
    answered: int
    members: int
    hits: int
    sessions: int
    online: int
    lags: int
    lag_p50: float
    lag_p99: float
    lag_max: float
    began_ns: int
    ready_ns: int
    first_hits: int
    first_sessions: int
    final: bool
    """Whether it is the last one, and this worker writes nothing more."""

    @property
    def joined_ms(self) -> float:
        """How long the node took from its start until it had what the others share."""
        return (self.ready_ns - self.began_ns) / 1e6


class Lags:
    """The newest lags, in milliseconds."""

    def __init__(self) -> None:
        self._kept: deque[float] = deque(maxlen=_KEPT)

    def add(self, milliseconds: float) -> None:
        self._kept.append(milliseconds)

    def quantiles(self) -> tuple[int, float, float, float]:
        """How many there are, their median, their 99th percentile and the greatest."""
        ranked = sorted(self._kept)
        if not ranked:
            return 0, 0.0, 0.0, 0.0
        last = len(ranked) - 1
        return len(ranked), ranked[last // 2], ranked[round(last * 0.99)], ranked[-1]


class Witness:
    """Looks at one worker from inside: `async with witness:` while its node runs."""

    def __init__(
        self, node: gossip.Node, hits: gossip.Counter, sessions: gossip.Map[str, Any], online: gossip.Set[str]
    ) -> None:
        self.answered = self.hits = 0
        """Requests answered, and hits made, by this worker alone; the application counts them."""
        self._node = node
        self._hits, self._sessions, self._online = hits, sessions, online
        self._probes = node.map("probes", int)
        self._reports = node.map("reports", Report)
        self._phase = node.register("phase", str)
        self._lags = Lags()
        self._tasks: list[asyncio.Task[None]] = []
        self._began = self._ready = 0
        self._first = (0, 0)

    def starts(self, began: int) -> None:
        """The node has just started, having begun at this time: what does it hold before anything is served?"""
        self._began, self._ready = began, time.monotonic_ns()
        self._first = (self._hits.value, len(self._sessions))

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(work) for work in (self._watch(), self._probe(), self._tell())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self) -> None:
        me = self._node.me.instance
        async with self._probes.watch() as changes:
            async for change in changes:
                if change.kind == "set" and change.author != me and change.value is not None:
                    self._lags.add((time.monotonic_ns() - change.value) / 1e6)

    async def _probe(self) -> None:
        me = f"{self._node.me.instance:016x}"
        while True:
            if not self._quiet:
                self._probes[me] = time.monotonic_ns()
            await asyncio.sleep(PROBE_EVERY)

    async def _tell(self) -> None:
        told_final = False
        while True:
            report = self.report()
            if not (report.final and told_final):
                self._reports[str(report.pid)] = report
            told_final = report.final
            await asyncio.sleep(REPORT_EVERY)

    @property
    def _quiet(self) -> bool:
        return self._phase.value == QUIET

    def report(self) -> Report:
        """What this worker sees now."""
        count, median, late, latest = self._lags.quantiles()
        return Report(
            os.getpid(), f"{self._node.me.instance:016x}", self.answered, len(self._node.members),
            self._hits.value, len(self._sessions), len(self._online),
            count, round(median, 3), round(late, 3), round(latest, 3),
            self._began, self._ready, *self._first, final=self._quiet,
        )  # fmt: skip
