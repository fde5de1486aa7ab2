"""Can a program wait for what it needs, and does a wait that was in vain say who is missing?"""

from __future__ import annotations

import asyncio
import string
import threading
from pathlib import Path
from typing import Any

import pytest

import gossip
from gossip import token
from tests.waiting import nodes, until, until_here

# --- read your own writes ----------------------------------------------------------------------------------------


def test_a_token_taken_to_another_worker_shows_what_was_written(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster, 3) as (ann, bob, cat):
            for number in range(200):
                ann.map("m")["k"] = number
                await bob.wait_for(ann.token, timeout=5)
                assert bob.map("m")["k"] == number
            await cat.wait_for(bob.seen, timeout=5)
            assert cat.map("m")["k"] == 199
            await ann.wait_for(ann.token, timeout=0), "what I wrote is here at once"

    asyncio.run(story())


def test_a_token_goes_into_a_cookie(cluster: str) -> None:
    with gossip.Node(cluster) as node:
        assert token.parse(cluster, node.token) == {}, "nothing was written yet: nothing to wait for"
        node.map("m").update({str(number): number for number in range(1_000)})
        assert len(node.token) < 30 and set(node.token) <= {*string.ascii_letters, *string.digits, "-", "_"}
        assert token.parse(cluster, node.token) == {node.me.instance: 1_000}


def test_a_wait_that_is_too_long_names_who_is_missing(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster, 2) as (ann, bob):
            ann.map("m")["k"] = 1
            await bob.wait_for(ann.token, timeout=5)
            ahead = token.make(cluster, token.parse(cluster, ann.token) | {ann.me.instance: 9})
            with pytest.raises(TimeoutError, match=r"written by node-0 \(written 9, here 1\)"):
                await bob.wait_for(ahead, timeout=0.05)
            assert not bob._runtime.waits._tokens, "nothing is left of it"  # type: ignore[union-attr]

    asyncio.run(story())


def test_what_is_no_token_is_refused_with_a_reason(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster, 1) as (node,):
            node.map("m")["k"] = 1
            good = node.token
            for wrong in ("", "x", good[:-1], good[1:], good + "A", good.swapcase(), "ä" * 20, " " + good, "A" * 5000):
                with pytest.raises(ValueError, match=r"no token|another cluster"):
                    await node.wait_for(wrong, timeout=1)
            with pytest.raises(ValueError, match="another cluster"):
                await node.wait_for(token.make("other", token.parse(cluster, good)), timeout=1)
            for wrong in (None, 7, good.encode()):
                with pytest.raises(TypeError, match="text"):
                    await node.wait_for(wrong, timeout=1)  # type: ignore[arg-type]

    asyncio.run(story())


def test_a_wait_ends_when_the_node_leaves(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster, 2) as (ann, bob):
            never = token.make(cluster, token.parse(cluster, ann.token) | {7: 7})
            waiting = [asyncio.create_task(bob.wait_for(never)), asyncio.create_task(bob.sync(peers=5))]
            await until(lambda: bob._runtime.waits._tokens and bob._runtime.waits._answers)  # type: ignore[union-attr]
            await bob.leave()
            for each in waiting:
                with pytest.raises(gossip.NotRunning, match="left"):
                    await each

    asyncio.run(story())


def test_a_node_of_a_thread_can_be_waited_for_from_any_loop(cluster: str) -> None:
    with gossip.Node(cluster) as ann, gossip.Node(cluster) as bob:
        until_here(lambda: len(ann.members) == 2)
        ann.map("m")["k"] = 1

        async def story() -> None:
            await bob.wait_for(ann.token, timeout=5)
            await ann.sync(peers=1, timeout=5)
            assert bob.map("m")["k"] == 1

        asyncio.run(story())


# --- held by others ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peers", [0, 1, 2, "majority", "all"])
def test_what_was_synced_is_held_by_so_many(cluster: str, peers: Any) -> None:
    async def story() -> None:
        async with nodes(cluster, 3) as made:
            ann, *others = made
            for number in range(20):
                ann.counter("hits").increment()
                await ann.sync(peers=peers, timeout=5)
                holding = sum(node.counter("hits").value == number + 1 for node in others)
                assert holding >= {"majority": 1, "all": 2}.get(peers, peers)

    asyncio.run(story())


def test_a_sync_alone_in_the_world(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster, 1) as (ann,):
            ann.map("m")["k"] = 1
            for peers in (0, "majority", "all"):
                await ann.sync(peers=peers, timeout=5)  # type: ignore[arg-type]
            with pytest.raises(TimeoutError, match=r"0 peers hold it, and 1 were asked for; there are no more members"):
                await ann.sync(peers=1, timeout=0.05)
            for wrong in ("most", None, 1.5):
                with pytest.raises(ValueError, match="majority"):
                    await ann.sync(peers=wrong)  # type: ignore[arg-type]

    asyncio.run(story())


def test_a_sync_in_vain_names_who_is_missing(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster, 3) as (ann, _, cat):
            deaf = cat._runtime  # type: ignore[union-attr]
            deaf.transport._received = lambda packet, *rest: True  # type: ignore[union-attr]
            ann.map("m")["k"] = 1
            await ann.sync(peers=1, timeout=5)
            with pytest.raises(TimeoutError, match=r"1 peers hold it, and all were asked for; missing: node-2"):
                await ann.sync(peers="all", timeout=0.2)

    asyncio.run(story())


def test_of_whom_others_only_told_nobody_is_waited_for_until_it_was_heard(cluster: str) -> None:
    """As `members` shows it: a list of one who has slept names the long dead, and they confirm nothing."""

    async def story() -> None:
        async with nodes(cluster, 2, probe_interval=60.0) as (ann, bob):
            engine = ann._runtime.engine  # type: ignore[union-attr]
            zoe = bob._runtime.engine.me._replace(instance=7, name="zoe", addresses=("unix:/gone",))  # type: ignore[union-attr]
            with ann._runtime.lock:  # type: ignore[union-attr]
                engine.membership.hear([zoe], asyncio.get_running_loop().time(), "bob said so")
            assert 7 in engine.members.peers() and len(ann.members) == 2
            ann.map("m")["k"] = 1
            for peers in ("all", "majority"):
                await ann.sync(peers=peers, timeout=5)  # type: ignore[arg-type]
            assert bob.map("m")["k"] == 1 and 7 in engine.membership.hearsay
            with ann._runtime.lock:  # type: ignore[union-attr]
                engine.membership.spoke(7, "it spoke to us")
            with pytest.raises(TimeoutError, match="missing: zoe"):
                await ann.sync(peers="all", timeout=0.05)

    asyncio.run(story())


def test_one_that_dies_meanwhile_is_not_waited_for(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster, 3) as (ann, bob, cat):
            cat._runtime.transport._received = lambda packet, *rest: True  # type: ignore[union-attr]
            ann.map("m")["k"] = 1
            waiting = asyncio.create_task(ann.sync(peers="all", timeout=10))
            await until(lambda: bob.map("m").get("k") == 1)
            await cat.leave()
            await waiting

    asyncio.run(story())


def test_a_question_that_was_lost_is_asked_again(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster, 2) as (ann, bob):
            transport = bob._runtime.transport  # type: ignore[union-attr]
            real, lost = transport._received, []

            def losing(packet: bytes, *rest: Any) -> bool:
                if len(lost) < 3:
                    lost.append(packet)
                    return True
                return real(packet, *rest)

            transport._received = losing
            ann.map("m")["k"] = 1
            await ann.sync(peers=1, timeout=10)
            assert bob.map("m")["k"] == 1 and len(lost) == 3

    asyncio.run(story())


# --- on disk -----------------------------------------------------------------------------------------------------


def test_what_is_durable_is_on_the_disks_of_those_who_have_one(cluster: str, tmp_path: Path) -> None:
    async def story() -> None:
        ann = gossip.Node(cluster, name="ann", data_dir=tmp_path / "ann")
        bob = gossip.Node(cluster, name="bob", data_dir=tmp_path / "bob")
        async with ann, bob, gossip.Node(cluster, name="cat") as cat:
            await until(lambda: len(ann.members) == len(bob.members) == len(cat.members) == 3)
            for number in range(10):
                ann.map("m")[str(number)] = number
                await ann.sync(peers=1, durable=True, timeout=10)
                for node in (ann, bob):
                    keeping = node._runtime.keeping  # type: ignore[union-attr]
                    assert keeping._safe > 0 and len(node.map("m")) == number + 1
            with pytest.raises(
                TimeoutError, match=r"1 peers hold it on disk, and 2 were asked for; missing: cat"
            ) as told:
                await ann.sync(peers=2, durable=True, timeout=0.3)
            assert str(told.value).endswith("cat (in memory alone: it has no data_dir, or its disk refused)")
            for asked in (2, "all"):
                with pytest.raises(
                    gossip.StorageFailed, match=r"too few have a disk .*: cat can hold it in memory alone"
                ):
                    await ann.sync(peers=asked, durable=True)  # type: ignore[arg-type]
            await ann.sync(durable=True)
            await ann.sync(peers=0, durable=True, timeout=10)
            await cat.sync(peers=2, durable=True, timeout=10)
            with pytest.raises(gossip.StorageFailed, match="data_dir"):
                await cat.sync(peers=0, durable=True)

    asyncio.run(story())


def test_after_the_disk_has_refused_nothing_is_acknowledged(cluster: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with gossip.Node(cluster, data_dir=tmp_path) as ann:
            ann.map("m")["k"] = 1
            await ann.sync(peers=0, durable=True, timeout=10)
            ann._runtime.keeping._refused(OSError("the disk is full"))  # type: ignore[union-attr]
            ann.map("m")["k"] = 2
            with pytest.raises(gossip.StorageFailed, match="the disk is full"):
                await ann.sync(peers=0, durable=True, timeout=10)
            assert ann.map("m")["k"] == 2

    asyncio.run(story())


def test_where_no_disk_is_nothing_is_durable(cluster: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with nodes(cluster, 1) as (ann,):
            ann.map("m")["k"] = 1
            for peers in (0, "all"):
                with pytest.raises(gossip.StorageFailed):
                    await ann.sync(peers=peers, durable=True, timeout=1)  # type: ignore[arg-type]
            with pytest.raises(TimeoutError, match="on disk"):
                await ann.sync(durable=True, timeout=0.05)
            with pytest.raises(gossip.StorageFailed, match="this node can hold it in memory alone"):
                await ann.sync(durable=True)
            waiting = asyncio.create_task(ann.sync(peers=1, durable=True))  # of others, who may still come
            async with gossip.Node(cluster, data_dir=tmp_path):
                await asyncio.wait_for(waiting, 10)
            for wrong in (-1, True):
                with pytest.raises(ValueError, match="majority"):
                    await ann.sync(peers=wrong)

    asyncio.run(story())


def test_one_that_starts_again_is_not_two(cluster: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with gossip.Node(cluster, name="ann") as ann:
            bob = gossip.Node(cluster, name="bob", data_dir=tmp_path)
            await bob.start()
            ann.map("m")["k"] = 1
            waiting = asyncio.create_task(ann.sync(peers=2, durable=True, timeout=2))
            await until(lambda: any(map(len, ann._runtime.waits._answers.values())))  # type: ignore[union-attr]
            await bob.leave()
            await bob.start()
            with pytest.raises(TimeoutError, match="1 peers hold it on disk"):
                await waiting
            await bob.leave()

    asyncio.run(story())


def test_what_an_open_batch_holds_back_is_not_called_durable(cluster: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with gossip.Node(cluster, data_dir=tmp_path) as ann:
            begun, done = threading.Event(), threading.Event()

            def work() -> None:
                with ann.batch():
                    begun.set()
                    done.wait(20)

            thread = threading.Thread(target=work)
            thread.start()
            await asyncio.to_thread(begun.wait)
            ann.map("m")["plain"] = 1
            waiting = asyncio.create_task(ann.sync(peers=0, durable=True, timeout=10))
            await asyncio.sleep(0)
            assert not waiting.done()
            done.set()
            await waiting
            assert ann._runtime.engine.replication.settled  # type: ignore[union-attr]
            await asyncio.to_thread(thread.join)

    asyncio.run(story())
