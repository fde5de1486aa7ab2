"""Does the datagram socket lose nothing that the kernel held, starve nobody, raise nothing, and know when each came?"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest

from discovery import Address
from gossip.udp import _A_TURN, Datagrams
from tests.contracts.ends import LOOPS, End, World, frame, play
from tests.waiting import until

each_loop = pytest.mark.parametrize("loop", LOOPS)
needs_ipv6 = pytest.mark.skipif(
    not socket.has_dualstack_ipv6() or "::1" not in str(socket.getaddrinfo("::1", 0)), reason="needs IPv6"
)


class Mouth:
    """A plain socket that sends to a `Datagrams`, and what that took."""

    def __init__(self, host: str = "127.0.0.1", talks: str = "") -> None:
        self.taken: list[bytes] = []
        self.ago: list[float | None] = []
        self.counters: Counter[str] = Counter()
        self.datagrams = Datagrams(host, 0, self._take, self.counters)
        self.port = self.datagrams._socket.getsockname()[1]
        self.here = socket.socket(socket.AF_INET6 if ":" in (talks or host) else socket.AF_INET, socket.SOCK_DGRAM)
        self.here.bind((talks or host, 0))
        self.here.setblocking(False)
        self._to = (talks or host, self.port)

    def _take(self, datagram: bytes, ago: float | None) -> None:
        self.taken.append(datagram)
        self.ago.append(ago)

    def say(self, datagram: bytes) -> None:
        self.here.sendto(datagram, self._to)

    async def noted(self) -> None:
        """Waits until the kernel notes when datagrams come: it begins a moment after it was asked to, if nobody was
        before."""
        while not self.ago or (self.ago[-1] or 0.0) < 0.005:
            self.ago.clear()
            self.say(b"noted?")
            time.sleep(0.005)  # waits: for the datagram to have been there as long
            await until(lambda: self.ago)
        self.taken.clear()
        self.ago.clear()

    def close(self) -> None:
        self.datagrams.close()
        self.here.close()


def told(loop: str, story: Callable[..., Awaitable[None]], **ways: str) -> None:
    """Plays a story about a mouth; whatever comes of it, nothing is left open (see `play`)."""

    async def with_mouth(world: World) -> None:
        mouth = Mouth(**ways)
        try:
            await story(mouth)
        finally:
            mouth.close()

    play("tcp", loop, with_mouth)


@each_loop
def test_a_burst_that_comes_while_the_loop_is_busy_is_received_whole(loop: str) -> None:
    """More than a socket holds unless it asks for more: 277 of the smallest, where nothing else is configured."""

    async def story(mouth: Mouth) -> None:
        for number in range(400):
            mouth.say(b"%d" % number)
        await until(lambda: len(mouth.taken) == 400)
        assert mouth.taken == [b"%d" % number for number in range(400)] and not mouth.counters

    told(loop, story)


@each_loop
def test_a_flood_leaves_every_turn_of_the_loop_to_others_too(loop: str) -> None:
    async def story(mouth: Mouth) -> None:
        for number in range(400):
            mouth.say(b"%d" % number)
        turns = [0]
        while len(mouth.taken) < 400:
            await asyncio.sleep(0)
            turns.append(len(mouth.taken))
        steps = [after - before for before, after in pairwise(turns)]
        assert max(steps) == _A_TURN, steps

    told(loop, story)


@each_loop
def test_before_a_verdict_all_that_has_come_is_taken_at_once(loop: str) -> None:
    async def story(mouth: Mouth) -> None:
        for number in range(400):
            mouth.say(b"%d" % number)
        mouth.datagrams.catch_up()
        assert len(mouth.taken) == 400

    told(loop, story)


def test_what_found_no_room_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gossip.udp._RECEIVE_BUFFER", 1)

    async def story(mouth: Mouth) -> None:
        for number in range(400):
            mouth.say(b"%d" % number)
        await until(lambda: mouth.taken)
        mouth.datagrams.catch_up()
        received = len(mouth.taken)
        mouth.say(b"and one that tells of those before it")
        await until(lambda: len(mouth.taken) > received)
        if sys.platform == "linux":
            assert mouth.counters == {"datagrams_overrun": 400 - received}

    told("asyncio", story)


# --- when it came -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when a datagram came")
@each_loop
def test_a_datagram_that_waited_for_a_loop_which_stood_still_says_for_how_long(loop: str) -> None:
    async def story(mouth: Mouth) -> None:
        await mouth.noted()
        begun = time.monotonic()
        mouth.say(b"early")
        assert select.select([mouth.datagrams], [], [], 10)[0]
        time.sleep(0.2)  # waits: a loop that stands still is what is tried
        mouth.say(b"late")
        await until(lambda: mouth.taken == [b"early", b"late"])
        early, late = mouth.ago
        assert early is not None and late is not None
        assert 0.0 <= late < early and 0.19 < early <= time.monotonic() - begun, (early, late)

    told(loop, story)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when a datagram came")
def test_a_wall_clock_that_was_set_meanwhile_makes_nothing_older_than_the_last_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(mouth: Mouth) -> None:
        real = time.time_ns
        for step, number in ((-3600, 1), (3600, 2)):
            mouth.say(b"before the step")
            assert select.select([mouth.datagrams], [], [], 10)[0]
            monkeypatch.setattr(time, "time_ns", lambda step=step: real() + step * 1_000_000_000)
            emptied = mouth.datagrams._emptied
            await until(lambda number=number: len(mouth.taken) == number)
            monkeypatch.setattr(time, "time_ns", real)
            ago = mouth.ago[-1]
            assert ago is not None and 0.0 <= ago <= time.monotonic() - emptied, step

    told("asyncio", story)


def test_who_is_not_told_when_it_came_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gossip.udp._SO_TIMESTAMPNS", 65_000)  # an option that no kernel has

    async def story(mouth: Mouth) -> None:
        mouth.say(b"1")
        await until(lambda: mouth.taken)
        assert mouth.ago == [None]

    told("asyncio", story)


# --- ways, and errors ---------------------------------------------------------------------------------------------


@needs_ipv6
@each_loop
@pytest.mark.parametrize("talks", ["127.0.0.1", "::1"])
def test_at_every_address_both_families_are_heard_and_answered(loop: str, talks: str) -> None:
    async def story(mouth: Mouth) -> None:
        mouth.say(b"hello")
        await until(lambda: mouth.taken == [b"hello"])
        assert mouth.datagrams.send(b"and you", talks, mouth.here.getsockname()[1])
        await until(lambda: select.select([mouth.here], [], [], 0)[0])
        assert mouth.here.recv(100) == b"and you" and not mouth.counters

    told(loop, story, host="::", talks=talks)


@needs_ipv6
@each_loop
def test_what_can_not_be_a_datagram_there_goes_by_stream(loop: str) -> None:
    """Too long for one, or to an address of the other family."""

    async def story(world: World) -> None:
        here, there = await world.end(), await world.end()
        here.send(there.address, bytes(70_000), peer=1, datagram=True)
        await until(lambda: there.received == [bytes(70_000)])
        far = End()
        world.ends.append(far)
        address = await far.transport.listen_network(Address("::1", 0))
        here.send(str(address), b"by stream", peer=2, datagram=True)
        await until(lambda: far.received == [b"by stream"])
        assert not here.counters and not here.lost

    play("tcp", loop, story)


@each_loop
def test_what_is_said_both_ways_arrives_by_the_one_that_is_open(loop: str) -> None:
    """A stream that the kernel does not get through was all that a witness could be asked by."""

    async def story(world: World) -> None:
        here, there = await world.end(), await world.end()
        listener, address = world.listener()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as beside:
            beside.bind(("127.0.0.1", int(address.rpartition(":")[2])))
            here.transport.send(1, (address,), b"ask", datagram=True, both=True)
            assert select.select([beside], [], [], 10)[0] and beside.recv(100) == b"ask", "and nobody read the stream"
        stream = await world.accept(listener)
        assert await asyncio.get_running_loop().sock_recv(stream, 100) == frame(b"ask")
        there.transport._datagrams.close()  # type: ignore[union-attr]
        here.transport.send(2, (there.address,), b"ask", datagram=True, both=True)
        await until(lambda: there.received == [b"ask"])

    play("tcp", loop, story)


@each_loop
@pytest.mark.parametrize("number", ["ENETUNREACH", "EPERM", "ENOBUFS", "EAGAIN", "ECONNREFUSED"])
def test_an_error_of_the_socket_is_a_counter_and_the_next_datagram_leaves(loop: str, number: str) -> None:
    """M11: what no network can be had for, a firewall forbids, or finds no buffer. In either direction."""

    async def story(world: World) -> None:
        here, there = await world.end(), await world.end()
        assert here.transport._datagrams is not None
        here.transport._datagrams._socket = broken = Broken(here.transport._datagrams._socket, getattr(errno, number))
        for _ in range(3):
            here.send(there.address, b"lost", datagram=True)
        assert here.counters == {"datagram_failed": 3}
        broken.works = True
        here.send(there.address, b"arrives", datagram=True)
        await until(lambda: there.received == [b"arrives"])
        assert here.lost == []

    play("tcp", loop, story)


class Broken:
    """A socket of which the kernel says this whenever something is sent, until it works again."""

    def __init__(self, real: socket.socket, number: int) -> None:
        self._real, self._number = real, number
        self.works = False

    def sendto(self, *arguments: Any) -> int:
        if not self.works:
            raise OSError(self._number, "for the test")
        return self._real.sendto(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@each_loop
def test_real_errors_are_counters_too(loop: str) -> None:
    """From loopback no other host can be reached, and everybody at once only by who asked for it."""

    async def story(mouth: Mouth) -> None:
        for host in ("192.0.2.1", "255.255.255.255"):
            assert mouth.datagrams.send(b"x", host, 9)
        assert mouth.counters == {"datagram_failed": 2}

    told(loop, story)
