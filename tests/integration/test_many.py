"""Do more nodes than can watch each other live on one host, with few descriptors each, and is a crash known at once?"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack

import pytest

import gossip
from gossip.neighbours import MESH, to_watch
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
    neighbours = node._runtime.neighbours
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
