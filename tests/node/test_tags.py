"""Can a running node say what it is now, and does every member's program see that?"""

from __future__ import annotations

import asyncio
import signal
import tempfile
import threading
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import pytest

import gossip
from gossip.datagrams import POSTAGE
from gossip.protocol.members import Status
from tests.node.test_events import next_of
from tests.node.test_members import heard
from tests.waiting import nodes, until, until_here

KEY = bytes(range(32))


def test_a_program_changes_its_tags_and_all_see_them_and_are_told(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster, 3, tags={"role": "web", "zone": "a"}) as (ann, bob, cat):
            async with bob.events() as of_bob, ann.events() as of_ann:
                ann.tag(role="db", draining="yes", zone=None)
                wanted = {"role": "db", "draining": "yes"}
                assert ann.me.tags == wanted, "here at once"
                changed = await next_of(of_bob, "changed")
                assert changed.member is not None and changed.member.instance == ann.me.instance
                assert changed.member.tags == wanted
                assert "draining=yes, role=db, no zone" in changed.evidence
                own = await next_of(of_ann, "changed")
                assert own.member == ann.me
            await until(lambda: cat.members["node-0"].tags == wanted)
            assert [member.name for member in cat.members.where(role="db")] == ["node-0"]
            ann.tag(draining=None, nothing=None)
            await until(lambda: bob.members["node-0"].tags == {"role": "db"})
            assert bob.members["node-0"].status == "alive"

    asyncio.run(story())


def test_new_tags_leave_at_the_end_of_the_turn_and_wait_for_no_packet(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster, probe_interval=60.0) as (ann, bob):
            ann._runtime.transport._received = lambda packet, *rest: True  # type: ignore[union-attr]  # she is deaf
            ann.tag(role="web")
            await until(lambda: bob.members["node-0"].tags == {"role": "web"})

    asyncio.run(story())


def test_a_node_that_does_not_run_is_tagged_for_its_start(cluster: str) -> None:
    node = gossip.Node(cluster, tags={"role": "web", "zone": "a"})
    node.tag(role="db", zone=None)
    with node:
        assert node.me.tags == node.config.tags == {"role": "db"}
        node.tag(size="9")
    node.tag(role=None)
    with node, gossip.Node(cluster) as bob:
        until_here(lambda: len(bob.members) == 2)
        assert node.me.tags == bob.members[node.me.instance].tags == {"size": "9"}


def test_what_is_said_while_the_node_starts_is_not_lost(cluster: str) -> None:
    async def story() -> None:
        node = gossip.Node(cluster)
        starting = asyncio.ensure_future(node.start())
        await asyncio.sleep(0)
        assert node._runtime is not None and not node._runtime.running, "it has taken its settings"
        node.tag(role="web")
        await starting
        assert node.me.tags == {"role": "web"}
        await node.leave()

    asyncio.run(story())


def test_a_node_that_goes_on_anew_keeps_the_tags_that_it_has_now(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster, tags={"role": "web"}) as (ann, bob):
            ann.tag(role="db")
            before, runtime = ann.me.instance, ann._runtime
            assert runtime is not None
            with runtime.lock:
                runtime.perform(heard(runtime, (runtime.engine.me._replace(status=Status.DEAD),)))
            assert ann.me.instance != before and ann.me.tags == {"role": "db"}
            await until(lambda: [member.instance for member in bob.members.where(role="db")] == [ann.me.instance])

    asyncio.run(story())


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"role": 7}, "'role'"), ({"role": b"x"}, "'role'"), ({"role": "a\nb"}, "'role'"), ({"a\n": "x"}, "text"),
        ({"x" * 129: ""}, "128"), ({"role": "x" * 4_093}, "4096"), ({str(number): "" for number in range(65)}, "64"),
        ({"": "x"}, "128"),
    ],
    ids=lambda each: str(each)[:20],
)  # fmt: skip
def test_what_is_no_tag_is_refused_and_changes_nothing(tags: dict[str, Any], said: str, cluster: str) -> None:
    node = gossip.Node(cluster, tags={"zone": "a"})
    with pytest.raises(gossip.ConfigError, match=said):
        node.tag(**tags)
    with node:
        with pytest.raises(gossip.ConfigError, match=said):
            node.tag(**tags)
        assert node.me.tags == node.config.tags == {"zone": "a"}


def test_threads_and_signal_handlers_tag_a_node(cluster: str) -> None:
    """SIGTERM is when a worker begins to drain. The handler may come upon its own thread inside."""
    with gossip.Node(cluster, name="ann") as ann, gossip.Node(cluster) as bob:
        threads = [threading.Thread(target=lambda n=n: ann.tag(**{f"t{n}": str(n)})) for n in range(8)]
        for thread in threads:
            thread.start()
        before = signal.signal(signal.SIGUSR1, lambda *_: ann.tag(draining="yes"))
        try:
            runtime = ann._runtime
            assert runtime is not None
            with runtime.lock:
                signal.raise_signal(signal.SIGUSR1)
                assert "draining" not in ann.config.tags
        finally:
            signal.signal(signal.SIGUSR1, before)
        for thread in threads:
            thread.join(10)
        wanted = {"draining": "yes", **{f"t{n}": str(n) for n in range(8)}}
        until_here(lambda: bob.members["ann"].tags == wanted if "ann" in bob.members else False)


@pytest.mark.parametrize("far", [False, True], ids=["unix", "udp and tcp, with a key"])
def test_eight_members_with_all_tags_see_all_of_each_other(cluster: str, far: bool) -> None:
    """4 KiB each; and new ones, when they change. No datagram is longer than others take."""
    sizes: list[int] = []

    def watch(node: gossip.Node) -> None:
        transport = node._runtime.transport  # type: ignore[union-attr]
        received = transport._received

        def look(packet: bytes, stream: bool, *rest: Any) -> bool:
            if not stream:
                sizes.append(len(packet) + POSTAGE)
            return received(packet, stream, *rest)

        transport._received = look

    def tags(name: str, letter: str) -> dict[str, str]:
        return {"name": name, **{f"t{number:02}": letter * 60 for number in range(62)}, "rest": letter * 120}

    async def story() -> None:
        made: list[gossip.Node] = []
        with ExitStack() as directories:
            async with AsyncExitStack() as living:
                for number in range(8):
                    where: dict[str, Any] = {}
                    if far:
                        seeds = [made[0].me.address] if made else []
                        directory = directories.enter_context(tempfile.TemporaryDirectory())
                        where = {"bind": "127.0.0.1:0", "key": KEY, "runtime_dir": directory, "seeds": seeds}
                    node = gossip.Node(
                        cluster, name=f"n{number}", tags=tags(f"n{number}", "x"), probe_interval=0.2, **where
                    )
                    made.append(await living.enter_async_context(node))
                    watch(node)
                for letter in "xy":
                    for node in made:
                        node.tag(**tags(node.me.name, letter))
                    wanted = {node.me.name: tags(node.me.name, letter) for node in made}
                    await until(
                        lambda wanted=wanted: all({m.name: m.tags for m in node.members} == wanted for node in made),
                        timeout=20,
                    )
                await until(lambda: not far or len(sizes) > 50)
                assert all(member.status == "alive" for node in made for member in node.members)
                assert max(sizes, default=0) <= 1_200

    asyncio.run(story())


def test_a_registry_is_asked_by_tags(cluster: str) -> None:
    async def story() -> None:
        kinds = [{"role": "web", "zone": "a"}, {"role": "api", "zone": "b"}, {"role": "db", "zone": "a"}, {}]
        async with nodes(cluster, 4) as made:
            for node, tags in zip(made, kinds, strict=True):
                node.tag(**tags)
            asked = made[3].members
            await until(lambda: [dict(member.tags) for member in asked] == kinds)

            def names(**tags: Any) -> list[str]:
                return [member.name for member in asked.where(**tags)]

            assert names(role="web") == ["node-0"]
            assert names(role="web", zone="b") == []
            assert names(zone="a") == ["node-0", "node-2"]
            assert names(role={"web", "api"}) == names(role=("web", "api")) == ["node-0", "node-1"]
            assert names(role={"web", "api"}, zone="b") == ["node-1"]
            assert names(role=None) == ["node-3"]
            assert names(role={"web", None}) == ["node-0", "node-3"]
            assert names(role="") == names(role=set()) == [], "a tag that is missing is not an empty one"
            assert names(role="we") == [], "no part of a value"
            assert len(names()) == 4
            with pytest.raises(TypeError, match="role=7"):
                names(role=7)

    asyncio.run(story())
