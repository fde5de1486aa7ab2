"""Does a node whose own loop stood still judge nobody by that, and does it call nobody slow?"""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

import gossip
from gossip.protocol.messages import Message, Ping, PingReq
from gossip.pulse import Pulse
from tests.contracts.ends import LOOPS
from tests.waiting import until

KINDS = ("datagrams", "streams")
INTERVAL = 0.2


class Stander:
    """A node whose loop stands still in the very turn in which it pings, until the answer lies in its sockets, and so
    much longer; and then does what was due meanwhile before it has looked at them, as asyncio may."""

    def __init__(self, node: gossip.Node, other: gossip.Node, seconds: float) -> None:
        assert node._runtime is not None and other._runtime is not None
        self.runtime = node._runtime
        self.waited: list[float] = []
        """How long after each ping its answer was there, at the most."""
        self.asked: list[Message] = []
        """What it said of probes, from the first time that it stood still."""
        self.judged: list[str] = []
        """What became of whom."""
        self.runtime._member_changed = lambda changed: self.judged.append(changed.why)
        self.trips: list[float] | None = None
        """The round trips by which the other is judged, when the answer had been received."""
        self.trips_before = self._trips()
        self._acked = self.runtime.engine.membership.detector.acked
        self.runtime.engine.membership.detector.acked = self._answered  # type: ignore[method-assign]
        self._there = other._runtime.transport
        self._send = self._there.send
        self._answer = threading.Event()
        self._seconds = seconds
        self._encode = self.runtime.engine.codec.encode
        self.runtime.engine.codec.encode = self._notice  # type: ignore[method-assign]

    def _notice(self, sender: int, message: Message) -> bytes:
        if isinstance(message, Ping | PingReq):
            self.asked.append(message)
        if isinstance(message, Ping) and not self.waited:
            self.waited.append(0.0)
            self._crowd()
            self._there.send = self._sent  # type: ignore[method-assign]
            self.runtime.loop.call_soon(self._stand_still, time.monotonic())
        return self._encode(sender, message)

    def _sent(self, *arguments: Any) -> None:
        self._send(*arguments)
        self._answer.set()

    def _crowd(self) -> None:
        """Has more datagrams lie before the answer than a few turns of the loop read."""
        if bound := self.runtime.whereabouts.bound:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as crowd:
                for _ in range(250):
                    crowd.sendto(b"of nobody", (bound.host, bound.port))

    def _stand_still(self, begun: float) -> None:
        assert self._answer.wait(30)
        self.waited[0] = time.monotonic() - begun
        time.sleep(self._seconds)  # waits: a loop that stands still is what is tried
        self.runtime._pulse._due(self.runtime.engine, 2)

    def _answered(self, number: int, *arguments: Any) -> Any:
        relayed = self._acked(number, *arguments)
        if self.trips is None and self.asked and number == self.asked[0].number:
            self.trips = self._trips()
        return relayed

    def _trips(self) -> list[float]:
        return [trip for trips in self.runtime.engine.membership.detector._trips.values() for trip in trips]


@asynccontextmanager
async def beside_a_quiet_one(kind: str, **settings: Any) -> AsyncIterator[tuple[gossip.Node, gossip.Node]]:
    """A node, and another in a thread that answers while the loop of the first one stands still, and asks nothing."""
    with tempfile.TemporaryDirectory(prefix="gm-") as one, tempfile.TemporaryDirectory(prefix="gm-") as two:
        bind: dict[str, Any] = {"bind": "127.0.0.1:0"} if kind == "datagrams" else {}
        async with gossip.Node("late", name="ann", runtime_dir=one, **bind, **settings) as ann:
            if bind:
                bind["seeds"] = [address for address in ann.status()["addresses"] if "unix" not in address]
            quiet = gossip.Node("late", name="bob", runtime_dir=two if bind else one, probe_interval=600.0, **bind)
            await asyncio.to_thread(quiet.open)
            try:
                await until(lambda: "bob" in ann.members and ann.members["bob"].rtt is not None)
                yield ann, quiet
            finally:
                await asyncio.to_thread(quiet.close)


def play(loop: str, story: Callable[[], Any]) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(story())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("intervals", [0.4, 1.5, 5.0])
def test_answers_that_lay_in_the_sockets_while_the_loop_stood_still_came_in_time(
    loop: str, kind: str, intervals: float
) -> None:
    """By less than half an interval late, so that no round is void; by more; and by as many as make a death."""

    async def story() -> None:
        seconds = intervals * INTERVAL
        async with beside_a_quiet_one(kind, probe_interval=INTERVAL, probe_timeout=0.05) as (ann, bob):
            stander = Stander(ann, bob, seconds)
            trips = await until(lambda: stander.trips)
            said = [type(message) for message in stander.asked if message.number == stander.asked[0].number]
            assert said == [Ping], "nobody was asked again, by a stream or through others"
            assert stander.judged == []
            new = trips[len(stander.trips_before) :]
            if kind == "datagrams":
                assert len(new) == 1 and new[0] < stander.waited[0] + seconds / 2, (new, stander.waited)
            else:
                assert new == [], "how long the way is nobody can tell"

    play(loop, story)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_tick_that_is_due_in_less_than_a_millisecond_does_not_go_round_and_round(loop: str) -> None:
    """Ours: uvloop takes less than half a millisecond for none, and the engine was asked in vain until it was over."""

    async def story() -> None:
        ticks, over = [0], asyncio.Event()
        detector = SimpleNamespace(waits=False)
        engine: Any = SimpleNamespace(membership=SimpleNamespace(detector=detector), deadline=0.0)

        def tick() -> None:
            ticks[0] += 1
            if time.monotonic() < engine.deadline:
                pulse.follow(engine)
            else:
                over.set()

        pulse = Pulse(asyncio.get_running_loop(), tick)
        for _ in range(20):
            over.clear()
            engine.deadline = time.monotonic() + 0.0004
            pulse.follow(engine)
            await over.wait()
        assert 20 <= ticks[0] <= 40

    play(loop, story)
