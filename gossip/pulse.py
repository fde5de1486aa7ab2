"""When is the engine called again, and was it our own loop that was late?

A node judges itself first. A tick that comes late waits until the loop has read what lies in the streams: it may be
what somebody is judged by, and was there in time. (Datagrams are read by whoever ticks, see `udp`.)

The kernel tells when a datagram came, and nothing of what came by a stream: that is there when the loop gets around to
it. So while an ack is waited for, the loop is asked again and again whether it comes round. What is read after it has
not for a while came at any time in it, and says nothing of how long the way is.

Invariants: one timer for the engine; while no ack is waited for, there is no other, so that a node at rest is woken
once more for each ping.
Not here: what becomes of what was due while a node was late (`protocol.detector`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from math import inf
from typing import Final

from gossip.protocol.engine import Engine

_SOONEST: Final = 0.001
"""Seconds to the next tick at least: less than half of that is none for uvloop, which ticked in vain until then."""
_IN_TIME: Final = 0.01
"""Seconds by which a tick may be late, and the loop has just looked at the sockets."""
_TURNS: Final = 2
"""Turns of the loop until it has read what lies in the streams: asyncio does first what was due before it looked."""
_BEAT: Final = 0.005
"""Seconds between two beats: longer than a ping takes on one host, which is answered before the first."""
_LATE: Final = 5 * _BEAT
"""Seconds that the last two beats may take together."""
LOST: Final = 1.0
"""Seconds after which a call of the loop that has not come is taken for lost: what a signal handler raised between two
lines of the loop's own code cost it. Not less: under load each turn would put off what is just about to come."""


class Pulse:
    """The one timer of an engine, and a watch over the loop in which it lives. `tick` is called when it is due."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tick: Callable[[], None]) -> None:
        self._loop = loop
        self._tick = tick
        self._timer: asyncio.Handle | None = None
        self._timer_at = self._comes_at = 0.0
        """What it is for, and when the loop will come to it."""
        self._beating: asyncio.TimerHandle | None = None
        self._last = self._before = 0.0

    def follow(self, engine: Engine) -> None:
        """Keeps the timer at the engine's deadline. One that is too early ticks in vain, which is cheap."""
        now = time.monotonic()
        if engine.membership.detector.waits and (self._beating is None or now - self._last > LOST):
            self._last = now
            self._beat(engine)
        deadline = engine.deadline
        if self._timer is not None:
            if self._timer_at <= deadline and now - self._comes_at < LOST:
                return
            self._timer.cancel()
            self._timer = None
        if deadline < inf:
            # kept here, for uvloop's handle of a call that is due at once does not know when it is
            delay = max(deadline - now, _SOONEST)
            self._timer_at, self._comes_at = deadline, now + delay
            self._timer = self._loop.call_later(delay, self._due, engine, _TURNS)

    def _due(self, engine: Engine, turns: int) -> None:
        if turns and time.monotonic() - engine.deadline > _IN_TIME:
            self._timer, self._timer_at = self._loop.call_soon(self._due, engine, turns - 1), -inf
            self._comes_at = time.monotonic()
            return
        self._timer = None
        self._tick()

    def _beat(self, engine: Engine) -> None:
        # two: if what held up the loop was of the same turn, this beat is as late, and nothing was read in between
        self._before, self._last = self._last, time.monotonic()
        waits = engine.membership.detector.waits
        self._beating = self._loop.call_later(_BEAT, self._beat, engine) if waits else None

    @property
    def late(self) -> bool:
        """Whether what is read now may have waited for us."""
        return self._beating is not None and time.monotonic() - self._before > _LATE

    def stop(self) -> None:
        """The node has left."""
        for each in (self._timer, self._beating):
            if each is not None:
                each.cancel()
