"""Does what expires go everywhere by itself, and what is owned with its owner?

Real nodes with short times. A test waits for a condition; nothing is asserted of how long it took, only of what is seen
together.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import gossip
from crdt import encode_element, encode_value
from tests.waiting import nodes, until, until_here


@pytest.fixture
def node(cluster: str) -> Iterator[gossip.Node]:
    with gossip.Node(cluster) as node:
        yield node


def test_what_expires_is_gone_everywhere_and_leaves_nothing(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster, 3) as (ann, bob, eve):
            ann.map("sessions").set("a", "token", ttl=0.3)
            ann.set("online").add("ann", ttl=0.3)
            ann.register("lead").set("ann", ttl=0.3)
            ann.map("sessions")["b"] = "kept"
            for node in (bob, eve):
                await until(lambda node=node: len(node.map("sessions")) == 2, "it is here")
                assert "ann" in node.set("online") and node.register("lead").value == "ann"
            for node in (ann, bob, eve):
                await until(lambda node=node: dict(node.map("sessions")) == {"b": "kept"}, "it has ended")
                await until(lambda node=node: not node._store.mortal, "nothing of it is kept")
                assert not node.set("online") and node.register("lead").value is None
                assert node._store.objects.keys() == {(1, "sessions")}
            assert len({node.status()["digest"]["state"] for node in (ann, bob, eve)}) == 1

    asyncio.run(story())


def test_reading_is_exact_though_nobody_has_tidied_up(node: gossip.Node) -> None:
    """The loop may be late: what has ended is not seen, counted, listed or found by anybody, in memory or not."""
    things, elements, single = node.map("m"), node.set("s"), node.register("r")
    things["j"] = 2
    end = time.time() + 0.5
    things.set("k", 1, ttl=0.5)
    elements.add("e", ttl=0.5)
    single.set("v", ttl=0.5)
    assert (len(things), len(elements)) == (2, 1)
    with node._runtime.lock:  # type: ignore[union-attr]  # nothing is dropped while it is held
        until_here(lambda: time.time() > end + 0.01)
        assert "k" not in things and things.get("k") is None and dict(things) == {"j": 2} and len(things) == 1
        assert "e" not in elements and not list(elements) and len(elements) == 0
        assert single.value is None and single.conflicts == () and repr(single).endswith(": empty>")
        with pytest.raises(KeyError):
            things.entry("k")
        assert node._store.mortal, "and it is in memory all the time"
    with pytest.raises(KeyError):
        things.touch("k", ttl=5)


def test_a_touch_gives_it_another_time(node: gossip.Node) -> None:
    sessions = node.map("sessions")
    sessions.set("a", {"user": 7}, ttl=0.2)
    sessions.touch("a", ttl=60)
    sessions.set("b", 1, ttl=0.2)
    until_here(lambda: "b" not in sessions)
    assert sessions["a"] == {"user": 7}
    with pytest.raises(KeyError):
        sessions.touch("gone", ttl=1)


def test_a_touch_gives_an_end_to_what_had_none(node: gossip.Node) -> None:
    things = node.map("m")
    things["k"] = "for good"
    things.touch("k", ttl=60)
    entry = things.entry("k")
    assert entry.value == "for good" and entry.expires is not None and entry.conflicts == ()
    things.touch("k", ttl=0.01)
    until_here(lambda: not node._store.objects, "nothing of it is kept")
    assert "k" not in things and not node._store.mortal


def test_what_is_numbered_at_once_has_its_end_as_a_draft_has(cluster: str) -> None:
    """In a batch, what might be too large for it with the longest of all names is counted exactly, and is no draft."""
    with gossip.Node(cluster, max_transaction=100_000) as node:
        things = node.map("m")
        with node.batch():
            things.set("ttl", "x" * 99_200, ttl=60)
            assert not node._drafts and things.entry("ttl").expires is not None
        with node.batch():
            things.set("owned", "x" * 99_200, owned=True)
            assert not node._drafts and things.entry("owned").owned


def test_a_write_without_an_end_is_for_ever_and_one_with_an_end_is_not(node: gossip.Node) -> None:
    things = node.map("m")
    things.set("k", 1, ttl=0.05)
    things["k"] = 2
    things["j"] = 1
    things.set("j", 2, ttl=0.05)
    until_here(lambda: "j" not in things, "what it replaced stays replaced")
    until_here(lambda: not node._store.mortal, "it is forgotten, though this node has nobody to speak to")
    assert things["k"] == 2


def test_the_end_of_a_write_is_looked_for_from_the_end_of_its_turn_on(cluster: str) -> None:
    """Not only when something else has the deadlines looked at: who is alone was told half a second late."""

    async def story() -> None:
        async with gossip.Node(cluster) as node:
            runtime = node._running()
            node.map("m")["plain"] = 1
            await asyncio.sleep(0)
            node.map("m").set("k", 1, ttl=60)
            await asyncio.sleep(0)
            assert runtime._pulse._timer is not None
            assert runtime._pulse._timer_at <= runtime.engine.deadline < math.inf

    asyncio.run(story())


def test_an_entry_tells_its_end(node: gossip.Node) -> None:
    things = node.map("m")
    things.set("ttl", 1, ttl=60)
    things.set("owned", 1, owned=True)
    things["plain"] = 1
    entry = things.entry("ttl")
    assert entry.expires is not None and not entry.owned
    assert timedelta(seconds=50) < entry.expires - datetime.now(UTC) <= timedelta(seconds=60)
    assert things.entry("owned").owned and things.entry("owned").expires is None
    assert things.entry("plain").expires is None and not things.entry("plain").owned


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), 1e12, True, "60", b"", timedelta(seconds=1)])
def test_a_time_that_can_not_be_is_refused_at_the_call(node: gossip.Node, ttl: Any) -> None:
    for write in (
        lambda: node.map("m").set("k", 1, ttl=ttl),
        lambda: node.set("s").add("k", ttl=ttl),
        lambda: node.register("r").set("k", ttl=ttl),
        lambda: node.map("m").touch("k", ttl),
    ):
        with pytest.raises((TypeError, ValueError), match="ttl"):
            write()
    with pytest.raises(ValueError, match="two ways"):
        node.map("m").set("k", 1, ttl=1, owned=True)
    assert node.status()["writes_delivered"] == 0


def test_a_watch_tells_the_end(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster, 2) as (ann, bob):
            ann.map("m").set("k", 1, ttl=0.3)
            await until(lambda: "k" in bob.map("m"))
            async with bob.map("m").watch() as changes:
                seen = [await anext(changes) for _ in range(3)]
            told = [(each.kind, each.key, each.value) for each in seen]
            assert told == [("present", "k", 1), ("complete", None, None), ("deleted", "k", None)]
            assert seen[2].previous == 1

    asyncio.run(story())


def test_a_watch_tells_no_end_of_what_it_never_saw(cluster: str) -> None:
    """It had ended when it came, as after a partition: nobody saw it, and when it was tidied up all saw it deleted."""

    async def story() -> None:
        async with gossip.Node(cluster) as node, node.map("m").watch(snapshot=False) as changes:
            m = node.map("m")
            m.set("short", 1, ttl=0.001)
            until_here(lambda: "short" not in m)  # in the same turn: nobody was told of it yet
            m["next"] = 1
            assert (await anext(changes)).key == "next"
            await until(lambda: not node._store.mortal, "it is tidied up")
            m["last"] = 1
            assert (await anext(changes)).key == "last"

    asyncio.run(story())


def test_who_begins_anew_is_told_the_end_of_what_he_sees_then(cluster: str) -> None:
    """What nobody saw of a key before is no more to him: he sees what is there, and is told when that goes."""

    async def story() -> None:
        async with gossip.Node(cluster) as node, node.map("m").watch(snapshot=False) as changes:
            key, value = (1, "m", encode_element("k")), encode_value(1)
            changes._changed(0, [(key, None, (5, 7, 1, value, 1, None))])  # it had ended when it came
            changes._lagged = True  # so what comes next passes it by
            node.map("m")["k"] = 2
            node._settled()
            assert [(await anext(changes)).kind for _ in range(3)] == ["lagged", "present", "complete"]
            del node.map("m")["k"]
            change = await anext(changes)
            assert (change.kind, change.previous) == ("deleted", 2)

    asyncio.run(story())


def test_ten_thousand_touches_leave_one_place_in_the_queue(node: gossip.Node) -> None:
    sessions = node.map("sessions")
    for _ in range(10_000):
        sessions.set("a", 1, ttl=60)
    assert len(node._runtime.engine.expiry._queue) < 100  # type: ignore[union-attr]


# --- ownership --------------------------------------------------------------------------------------------------


def test_what_is_owned_goes_when_its_owner_leaves(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster, 3) as (ann, bob, eve):
            ann.set("online").add("ann", owned=True)
            bob.set("online").add("bob", owned=True)
            for node in (ann, bob, eve):
                await until(lambda node=node: set(node.set("online")) == {"ann", "bob"})
            async with eve.set("online").watch() as changes:
                before = {(await anext(changes)).key for _ in range(3)} - {None}
                await ann.leave()
                change = await anext(changes)
            assert before == {"ann", "bob"} and (change.kind, change.key) == ("deleted", "ann")
            for node in (bob, eve):
                await until(lambda node=node: set(node.set("online")) == {"bob"})
                await until(lambda node=node: len(node._store.objects[2, "online"]) == 1, "nothing of it is kept")
            async with gossip.Node(cluster) as late:
                assert set(late.set("online")) == {"bob"}, "a newcomer sees what the others see"

    asyncio.run(story())


def test_what_an_owner_overwrote_of_another_is_not_its_own(cluster: str) -> None:
    """C16: the owner dies while its entry is being overwritten by another: the other's write stays."""

    async def story() -> None:
        async with nodes(cluster, 3) as (ann, bob, eve):
            ann.map("m").set("k", "ann's", owned=True)
            await until(lambda: "k" in bob.map("m"))
            bob.map("m")["k"] = "bob's"
            await ann.leave()
            for node in (bob, eve):
                await until(lambda node=node: len(node.members) == 2)
                await until(lambda node=node: node.map("m").get("k") == "bob's")

    asyncio.run(story())


def test_an_element_that_two_own_is_there_while_one_of_them_lives(cluster: str) -> None:
    """Two tabs of one user at two workers: when the second worker left, the user was gone though the first lives."""

    async def story() -> None:
        async with nodes(cluster, 3) as (ann, bob, cat):
            ann.set("online").add("user", owned=True)
            await until(lambda: "user" in bob.set("online"))
            bob.set("online").add("user", owned=True)
            bob.set("online").add("user", owned=True)
            await ann.wait_for(bob.token, timeout=5)
            await bob.leave()
            for node in (ann, cat):
                await until(lambda node=node: len(node.members) == 2)
                assert "user" in node.set("online") and len(node.set("online")) == 1
            await ann.leave()
            await until(lambda: not cat.set("online"))

    asyncio.run(story())
