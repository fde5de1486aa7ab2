"""Is what a node shows of members what it knows, and is a loss looked into at once?

Claims are given to the engine of a real node, as if others had told them.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Sequence
from typing import Any

import gossip
from discovery import HostDirectory, runtime_directory
from gossip.protocol.effects import Effect
from gossip.protocol.members import Claim, Status
from gossip.runtime import Runtime
from tests.waiting import until, until_here


def heard(runtime: Runtime, claims: Sequence[Claim]) -> list[Effect]:
    """What the engine wants done when somebody said this of those who were heard themselves."""
    now, membership = runtime.now(), runtime.engine.membership
    effects = runtime.engine._follow(membership.hear(claims, now, "cat said so"), now)
    return effects + [effect for claim in claims for effect in membership.spoke(claim.instance, "it spoke to us")]


def test_whom_others_told_of_is_no_member_until_it_is_heard(cluster: str) -> None:
    with gossip.Node(cluster, name="ann") as node:
        runtime = node._runtime
        assert runtime is not None
        with runtime.lock:
            bob = Claim(7, "bob", ("unix:/nowhere/bob",), 1)
            runtime.perform(runtime.engine._follow(runtime.engine.membership.hear((bob,), 0.0, "cat said so"), 0.0))
            assert [member.name for member in node.members.all] == ["ann"]
            runtime.perform(runtime.engine.membership.spoke(bob.instance, "it spoke to us"))
            assert [member.name for member in node.members] == ["ann", "bob"]


def test_why_somebody_is_gone_is_told_by_who_saw_it_and_not_by_an_echo(cluster: str) -> None:
    with gossip.Node(cluster) as node:
        runtime = node._runtime
        assert runtime is not None
        bob = Claim(7, "bob", ("unix:/nowhere/bob",), 1)
        with runtime.lock:
            runtime.perform(heard(runtime, (bob,)))
            runtime.perform(runtime.engine.exited(bob.instance, runtime.now()))
        (seen,) = [member for member in node.members.all if member.name == "bob"]
        assert (seen.status, seen.evidence) == ("dead", "its process has ended")
        echo = bob._replace(incarnation=3, status=Status.DEAD)
        with runtime.lock:
            runtime.perform(heard(runtime, (echo,)))
        assert [member for member in node.members.all if member.name == "bob"] == [seen]


def test_one_that_says_it_is_nowhere_and_then_somewhere_is_a_member_with_a_story(cluster: str) -> None:
    """Anybody may say that of himself: it ended the stream by which it came, at everybody."""
    with gossip.Node(cluster) as node:
        runtime = node._runtime
        assert runtime is not None
        bob = Claim(7, "bob", ("unix:/nowhere/bob",), 1)
        for claim in (bob, bob._replace(addresses=(), incarnation=1), bob._replace(incarnation=2)):
            with runtime.lock:
                runtime.perform(heard(runtime, (claim,)))
        stories = [verdict.evidence for verdict in node._verdicts.of(bob.instance)]
        assert "is at no address now" in stories[-2] and "was at no address" in stories[-1]


def test_that_a_member_has_moved_is_a_part_of_its_story(cluster: str) -> None:
    with gossip.Node(cluster) as node:
        runtime = node._runtime
        assert runtime is not None
        bob = Claim(7, "bob", ("unix:/nowhere/bob", "10.0.0.2:7946"), 1)
        moved = bob._replace(incarnation=1, addresses=("unix:/nowhere/bob", "10.0.0.77:7946"))
        with runtime.lock:
            for claim in (bob, moved, moved._replace(incarnation=2)):
                runtime.perform(heard(runtime, (claim,)))
        story = [(verdict.status, verdict.evidence) for verdict in node._verdicts.of(bob.instance)]
        assert story == [
            ("alive", "it spoke to us"),
            ("alive", "it is at 10.0.0.77:7946 now, and was at 10.0.0.2:7946: cat said so"),
        ]
        assert node.members["bob"].address == "10.0.0.77:7946"


def test_the_suspected_are_members_and_the_dead_are_none(cluster: str) -> None:
    with gossip.Node(cluster, name="ann", tags={"role": "web"}) as node:
        runtime = node._runtime
        assert runtime is not None
        claims = [
            Claim(
                7 + status, f"is {status.name.lower()}", (f"unix:/nowhere/{status}",), 1, (("role", "web"),), 0, status
            )
            for status in Status
        ]
        with runtime.lock:
            runtime.perform(heard(runtime, claims))
            living = {"ann", "is alive", "is suspect", "is stalled"}
            assert {member.name for member in node.members} == living and len(node.members) == 4
            assert {member.name for member in node.members.where(role="web")} == living
            assert {member.name for member in node.members.alive} == {"ann", "is alive"}
            assert {member.name for member in node.members.all} == living | {"is dead", "is left"}
            assert node.members["is suspect"].status == "suspect" and "is suspect" in node.members
            assert "is dead" not in node.members and "is left" not in node.members


def test_one_that_is_not_there_is_suspected_at_once_and_not_only_when_it_is_probed(cluster: str) -> None:
    with gossip.Node(cluster, probe_interval=30.0) as node:
        runtime = node._runtime
        assert runtime is not None
        with runtime.lock:
            bob = Claim(7, "bob", ("unix:/nowhere/bob",), 1)
            runtime.perform(heard(runtime, (bob,)))
        node.map("m")["k"] = 1
        until_here(lambda: node.members["bob"].status == "suspect", timeout=5)


def test_a_process_that_takes_its_time_to_die_is_proved_dead_when_it_has(cluster: str) -> None:
    """It closes its files one after the other: the streams are seen to end while the lock is still held."""

    async def story() -> None:
        async with gossip.Node(cluster, probe_interval=30.0, hint_timeout=30.0) as node:
            runtime = node._runtime
            assert runtime is not None
            place = HostDirectory(runtime_directory(cluster)).claim(7)
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(place.socket_path))
                listener.listen()
                listener.setblocking(False)
                bob = Claim(place.instance, "bob", (str(place.address),), 1)
                runtime.perform(heard(runtime, (bob,)))
                node.map("m")["k"] = 1
                stream, _ = await asyncio.get_running_loop().sock_accept(listener)
            stream.close()
            await until(lambda: runtime.transport.counters["connect_failed"], "it was lost, and looked for")
            assert [member.status for member in node.members.all if member.name == "bob"] == ["alive"]
            place.abandon()
            await until(lambda: "bob" not in node.members, timeout=5)
            (gone,) = [member for member in node.members.all if member.name == "bob"]
            assert (gone.status, gone.evidence) == ("dead", "its process has ended")

    asyncio.run(story())


def test_where_only_streams_pass_nobody_is_called_dead(cluster: str) -> None:
    """A firewall that lets only TCP through is the commonest mistake there is: everybody buried everybody."""

    async def story() -> None:
        quick: dict[str, Any] = {"bind": "127.0.0.1:0", "probe_interval": 0.2, "probe_timeout": 0.05}
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            async with gossip.Node(cluster, name="ann", runtime_dir=one, **quick) as ann:
                without_datagrams(ann)
                seeds = [address for address in ann.status()["addresses"] if "unix" not in address]
                async with gossip.Node(cluster, name="bob", runtime_dir=two, seeds=seeds, **quick) as bob:
                    without_datagrams(bob)
                    for node, other in ((ann, "bob"), (bob, "ann")):
                        await until(lambda node=node, other=other: other in node.members)
                        seen: set[float | None] = {None}
                        while len(seen) < 8:  # as many rounds, in which a suspect would have been buried
                            await until(lambda node=node, other=other, seen=seen: node.members[other].rtt not in seen)
                            seen.add(node.members[other].rtt)
                            assert node.members[other].status == "alive"
                        assert node.status()["counters"].get("reborn", 0) == 0

    asyncio.run(story())


def without_datagrams(node: gossip.Node) -> None:
    """From here on none that is sent to this node arrives."""
    transport = node._runtime.transport  # type: ignore[union-attr]
    received = transport._received
    transport._received = lambda packet, stream, *rest: received(packet, stream, *rest) if stream else True
