"""Does a program hear what happens to members and to its node, and does nobody pay for one that does not listen?"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

import gossip
from gossip.events import MOST
from gossip.protocol.effects import Warned
from gossip.protocol.members import Claim, Status
from tests.node.test_members import heard
from tests.waiting import nodes, until, until_here


async def next_of(events: gossip.Events, *kinds: str) -> gossip.Event:
    async with asyncio.timeout(10):
        async for event in events:
            if event.kind in kinds:
                return event
    raise AssertionError(f"the stream ended before any of {kinds}")


def test_who_comes_and_goes_is_told_with_the_evidence(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster, name="ann") as ann, ann.events() as events:
            bob = gossip.Node(cluster, name="bob", tags={"role": "web"})
            await bob.start()
            joined = await next_of(events, "joined")
            assert joined.member is not None and joined.at.tzinfo is not None
            assert (joined.member.name, joined.member.tags) == ("bob", {"role": "web"}) and joined.evidence
            await bob.leave()
            left = await next_of(events, "left", "died")
            assert (left.kind, left.member and left.member.instance) == ("left", joined.member.instance)
        async with gossip.Node(cluster) as again:
            stream = again.events()
            async with stream as events:
                pass
            assert not again._listening

    asyncio.run(story())


def test_each_change_of_a_member_is_told_once_and_an_echo_not_at_all(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster, name="ann") as ann, ann.events() as events:
            runtime = ann._runtime
            assert runtime is not None
            bob = Claim(7, "bob", ("unix:/nowhere/bob",), 1)
            old = Claim(9, "old", ("unix:/nowhere/old",), 1, (), 0, Status.DEAD)
            for claim in (
                bob, bob, bob._replace(status=Status.SUSPECT), bob._replace(status=Status.SUSPECT),
                bob._replace(incarnation=1), bob._replace(incarnation=2), old,
                bob._replace(incarnation=2, status=Status.DEAD), bob._replace(incarnation=3, status=Status.DEAD),
            ):  # fmt: skip
                with runtime.lock:
                    runtime.perform(heard(runtime, (claim,)))
            told = [await anext(events) for _ in range(4)]
            assert [event.kind for event in told] == ["joined", "suspected", "refuted", "died"]
            assert {event.member and event.member.name for event in told} == {"bob"}
            assert not events._unread, "of one whose end is all that is known nothing happened"

    asyncio.run(story())


def test_one_that_is_doubted_when_it_is_first_shown_joins_all_the_same(cluster: str) -> None:
    """Who counts those who join and go counted one too few."""

    async def story() -> None:
        async with gossip.Node(cluster, name="ann") as ann, ann.events() as events:
            runtime = ann._runtime
            assert runtime is not None
            bob = Claim(7, "bob", ("unix:/nowhere/bob",), 1, (), 0, Status.SUSPECT)
            for claim in (bob, bob._replace(incarnation=1, status=Status.ALIVE)):
                with runtime.lock:
                    runtime.perform(heard(runtime, (claim,)))
            assert [(await anext(events)).kind for _ in range(3)] == ["joined", "suspected", "refuted"]

    asyncio.run(story())


def test_warnings_a_new_life_and_a_failed_disk_are_told(cluster: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob), ann.events() as events:
            runtime = ann._runtime
            assert runtime is not None
            for kind in ("skewed", "diverged", "repaired"):
                with runtime.lock:
                    runtime.perform([Warned(kind, bob.me.instance, f"it is {kind}")])  # type: ignore[arg-type]
                event = await next_of(events, kind)
                assert (event.member and event.member.name, event.evidence) == (bob.me.name, f"it is {kind}")
            me = ann.me.instance
            buried = runtime.engine.me._replace(status=Status.DEAD)
            with runtime.lock:
                runtime.perform(heard(runtime, (buried,)))
            reborn = await next_of(events, "reborn")
            assert reborn.member is not None and reborn.member.instance == ann.me.instance != me
        async with gossip.Node(cluster, data_dir=tmp_path) as ann, ann.events() as events:
            assert ann._runtime is not None
            ann._runtime.keeping._refused(OSError("no more"))
            assert (await next_of(events, "storage_failed")).evidence == "no more"

    asyncio.run(story())


def test_a_listener_who_does_not_read_costs_a_bounded_memory_and_is_told_how_much_he_missed(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as ann, ann.events() as events:
            for number in range(MOST + 50):
                ann._happened("skewed", 7, str(number))
            assert len(events._unread) == MOST
            first, second = await anext(events), await anext(events)
            assert (first.kind, first.evidence) == ("missed", "50 events were not read in time")
            assert (second.kind, second.evidence, second.member) == ("skewed", "50", None)

    asyncio.run(story())


def test_they_are_read_in_any_loop_and_end_with_the_node(cluster: str) -> None:
    seen: list[str] = []
    listening = threading.Event()

    async def read(node: gossip.Node) -> None:
        async with node.events() as events:
            listening.set()
            async for event in events:
                seen.append(event.kind)

    with gossip.Node(cluster) as ann:
        thread = threading.Thread(target=lambda: asyncio.run(read(ann)))
        thread.start()
        assert listening.wait(10)
        with gossip.Node(cluster):
            pass
        until_here(lambda: seen[-1:] in (["left"], ["died"]), "she has heard of the end")
    thread.join(10)
    assert not thread.is_alive() and seen[0] == "joined"

    async def late() -> None:
        with pytest.raises(gossip.NotRunning):
            async with ann.events():
                raise AssertionError("it began")
        with pytest.raises(RuntimeError, match="begin with their block"):
            await anext(ann.events())

    asyncio.run(late())


def test_a_peer_that_takes_less_than_is_sent_is_told_once_each_way(cluster: str) -> None:
    """The peer's process stands still; its socket takes no more, and what is sent waits, up to the bound."""

    async def story() -> None:
        async with gossip.Node(cluster, send_buffer=1 << 20, max_transaction=100_000, push_bytes=65_536) as ann:
            slow = gossip.Node(cluster, name="slow")
            await asyncio.to_thread(slow.open)
            await until(lambda: len(ann.members) == 2)
            async with ann.events() as events:
                assert slow._runtime is not None
                release = threading.Event()
                slow._runtime.loop.call_soon_threadsafe(release.wait)
                number = 0
                while not ann.status()["counters"].get("dropped"):
                    number += 1
                    ann.map("m")[str(number)] = "x" * 50_000
                    await asyncio.sleep(0)
                    assert number < 10_000
                for more in range(20):
                    ann.map("m")[f"more {more}"] = "x" * 50_000
                    await asyncio.sleep(0)
                lagging = await next_of(events, "lagging")
                assert lagging.member is not None and lagging.member.name == "slow" and "1 MiB" in lagging.evidence
                (row,) = [each for each in ann.status()["members"] if each["name"] == "slow"]
                assert row["lagging"] and 0 < row["unsent"] <= 1 << 20
                assert ann.status()["counters"]["lagging"] == 1 < ann.status()["counters"]["dropped"]
                release.set()
                await next_of(events, "caught_up")
                await until(lambda: dict(slow.map("m")) == dict(ann.map("m")), "it asked for the rest", timeout=30)
                (row,) = [each for each in ann.status()["members"] if each["name"] == "slow"]
                assert not row["lagging"]
            await asyncio.to_thread(slow.close)

    asyncio.run(story())
