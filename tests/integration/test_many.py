"""Do more nodes than can watch each other live on one host, with few descriptors each, and is a crash known at once?"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack, nullcontext
from types import SimpleNamespace
from typing import cast

import pytest

import gossip
from gossip.endings import Endings
from gossip.neighbours import MESH, to_watch
from gossip.protocol.members import Claim, Status
from gossip.runtime import Runtime
from tests.integration.processes import Host
from tests.waiting import until

WATCHED = 6


def test_everybody_is_watched_by_three_at_least_and_who_comes_or_goes_changes_little() -> None:
    chance = random.Random(7)
    for count in (MESH + 1, 40, 200):
        ring = sorted(chance.getrandbits(64) for _ in range(count))
        chosen = {me: to_watch(me, (each for each in ring if each != me)) for me in ring}
        assert all(len(each) == WATCHED for each in chosen.values())
        for place, me in enumerate(ring):
            assert {ring[(place + step) % count] for step in (1, 2, 3)} <= chosen[me], "its successors"
            assert sum(me in each for each in chosen.values()) >= 3
        newcomer = chance.getrandbits(64)
        after = {me: to_watch(me, (each for each in [*ring, newcomer] if each != me)) for me in ring}
        assert sum(len(after[me] - chosen[me]) for me in ring) <= 3 * WATCHED
    few = range(MESH)
    assert all(to_watch(me, (each for each in few if each != me)) == {*few} - {me} for me in few), "few watch all"


class Seen:
    """The endings of one node of a host on which time is moved by hand, and there is nothing to be seen."""

    def __init__(self) -> None:
        self.loop = HandMovedLoop()
        self.rests: list[float] = []
        """When streams that are of no use were looked for."""
        self.let_go: list[int] = []
        self.table: dict[int, Claim] = {}
        neighbours = SimpleNamespace(meet=lambda peer, at: True, processes={}, forget=self.let_go.append)
        self.endings = Endings(cast(Runtime, SimpleNamespace(
            running=True, loop=self.loop, lock=nullcontext(), greet=lambda peer: None,
            whereabouts=SimpleNamespace(neighbours=neighbours),
            engine=SimpleNamespace(
                me=Claim(1, "me", (), 0), members=SimpleNamespace(table=self.table), unwatched=lambda peer: None
            ),
            transport=SimpleNamespace(
                stream_to=lambda peer: None, rest=lambda kept: self.rests.append(self.loop.now)
            ),
        )))  # fmt: skip

    def hear(self, claim: Claim) -> None:
        self.table[claim.instance] = claim
        self.endings.heard(claim)


def test_while_more_and_more_come_it_is_decided_again_and_again_who_is_watched() -> None:
    """Put off by each of those who came, it was decided when the last had come: all were kept open until then."""
    seen = Seen()
    for number in range(2, 202):
        seen.hear(Claim(number, f"n{number}", (f"unix:/{number}",), 0))
        seen.loop.advance(0.05)
    assert len(seen.rests) >= 50, "each tenth of a second in which somebody came"
    seen.loop.advance(60.0)
    assert len(seen.rests) <= 120, "and then now and then"


def test_whom_somebody_doubts_is_watched_on_until_that_is_over() -> None:
    """Who sees his process is all that keeps him a member."""
    seen = Seen()
    stalled = Claim(100, "n100", ("unix:/100",), 0, status=Status.STALLED, by=(1,))
    for number in range(2, 60):
        seen.hear(Claim(number, f"n{number}", (f"unix:/{number}",), 0))
    seen.hear(stalled)
    seen.hear(Claim(101, "n101", ("unix:/101",), 0))
    assert not {100, 101} & to_watch(1, seen.table)
    seen.loop.advance(60.0)
    assert 101 in seen.let_go and 100 not in seen.let_go
    seen.hear(stalled._replace(incarnation=1, status=Status.ALIVE, by=()))
    seen.loop.advance(60.0)
    assert 100 in seen.let_go


class HandMovedLoop:
    """A loop whose time a test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, asyncio.TimerHandle]] = []

    def call_later(self, delay: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(self.now + delay, call, (), cast(asyncio.AbstractEventLoop, self))
        self._due.append((self.now + delay, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """As asyncio wants it of a loop."""

    def get_debug(self) -> bool:
        return False

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._due and min(at for at, _ in self._due) <= end:
            first = min(self._due, key=lambda each: each[0])
            self._due.remove(first)
            self.now, handle = max(self.now, first[0]), first[1]
            if not handle.cancelled():
                handle._run()
        self.now = end


def watched(node: gossip.Node) -> set[int]:
    """Whose processes it watches."""
    assert node._runtime is not None
    return node._runtime.engine.membership.watched


def connected(node: gossip.Node) -> set[int]:
    """To whom it has a stream."""
    assert node._runtime is not None
    return set(node._runtime.transport._links)


def kept(node: gossip.Node) -> tuple[set[int], set[int]]:
    """Whose locks, and whose processes, it keeps open."""
    assert node._runtime is not None
    neighbours = node._runtime.whereabouts.neighbours
    return set(neighbours._witnesses), set(neighbours._processes)


@pytest.mark.timeout(120)
def test_of_many_on_one_host_each_watches_six_and_a_killed_one_is_known_to_all(
    here: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them is a process of its own, and the others hardly ever ping: what they know comes from who saw it."""
    monkeypatch.setattr("gossip.endings._REST", 0.2)
    monkeypatch.setattr("gossip.transport._REST", 0.2)

    async def story() -> None:
        victim = here.start("victim", probe_interval=60.0)
        async with AsyncExitStack() as stack:
            nodes = [gossip.Node(here.cluster, name=f"n{number}", probe_interval=60.0) for number in range(MESH + 4)]
            for node in nodes:
                await stack.enter_async_context(node)
            count = len(nodes) + 1
            await until(lambda: all(len(node.members) == count for node in nodes), "all know each other", timeout=30)
            await until(lambda: all(connected(node) == watched(node) for node in nodes), "the others rest", timeout=30)
            for node in nodes:
                assert len(watched(node)) == WATCHED and kept(node) == (watched(node), watched(node))
            seers = [node for node in nodes if node.members["victim"].instance in watched(node)]
            assert len(seers) >= 3
            victim.kill()
            await until(lambda: all("victim" not in node.members for node in nodes), timeout=30)
            told = [member.evidence for node in nodes for member in node.members.all if member.name == "victim"]
            proved = [why for why in told if why == "its process has ended"]
            assert len(told) == len(nodes) and 1 <= len(proved) <= len(seers), told
            assert all("said so" in why for why in told if why not in proved), told
            nodes[0].map("m", int)["k"] = 1
            await until(lambda: all(node.map("m", int).get("k") == 1 for node in nodes), "streams come back by need")
            few = nodes[: MESH - 8]
            await asyncio.gather(*(node.leave() for node in nodes[len(few) :]))
            await until(
                lambda: all(len(kept(node)[0]) == len(few) - 1 for node in few), "few see all of each other again"
            )

    asyncio.run(story())
