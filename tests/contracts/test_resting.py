"""Which streams rest when they are of no use, and is nothing lost by it?

Of neighbours only, where there are many (`gossip.endings`): what leads to other hosts stays open.
"""

from __future__ import annotations

import pytest

from tests.contracts.ends import Play, World
from tests.contracts.test_transport import stuff
from tests.waiting import until

AT_ONCE = -1.0


def test_a_stream_to_a_neighbour_rests_if_it_is_of_no_use_and_comes_back_by_need(
    run: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: World) -> None:
        near = world.kind == "unix"
        here, there = await world.end(), await world.end()
        here.send(there, b"one", peer=7)
        await until(lambda: there.received == [b"one"])
        here.transport.rest(())
        assert set(here.transport._links) == {7}, "it was of use a moment ago"
        monkeypatch.setattr("gossip.transport._REST", AT_ONCE)
        here.transport.rest({7})
        assert set(here.transport._links) == {7}, "it is needed"
        here.transport.rest(())
        assert set(here.transport._links) == (set() if near else {7})
        await until(lambda: len(there.transport._inbound) == (0 if near else 1))
        here.send(there, b"two", peer=7)
        await until(lambda: there.received == [b"one", b"two"])
        assert here.lost == [] and there.lost == []

    run(story)


def test_a_stream_in_which_something_waits_does_not_rest(run: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        monkeypatch.setattr("gossip.transport._REST", AT_ONCE)
        here = await world.end()
        listener, slow = world.listener()
        stuff(here, slow, peer=7)
        await until(lambda: here.transport._links[7]._opened)
        assert here.transport.backlog(7)["unsent"]
        here.transport.rest(())
        assert set(here.transport._links) == {7}
        listener.close()

    run(story)
