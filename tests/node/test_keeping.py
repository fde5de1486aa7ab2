"""Does what a node holds survive it, and does it say so when it does not?

Real nodes with real directories. What the disk itself may do wrong is tried in tests/storage.
"""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

import gossip
from crdt import Context, encode_element, encode_state
from gossip.answers import explained
from tests.waiting import nodes, until, until_here

EACH_WAY = pytest.mark.parametrize("durability", ["interval", "full"])


def kept(node: gossip.Node) -> bytes:
    return encode_state(node._settled().state())


@EACH_WAY
def test_a_node_that_starts_again_has_what_it_had(cluster: str, tmp_path: Path, durability: str) -> None:
    with gossip.Node(cluster, data_dir=tmp_path, durability=durability) as node:
        node.map("flags")["beta"] = {"deep": [1, 2.5, b"x"]}
        node.map("flags")["gone"] = 1
        del node.map("flags")["gone"]
        node.set("online").add("ann")
        node.counter("hits").increment(7)
        node.register("motd").set("hello")
        before = kept(node)
    with gossip.Node(cluster, data_dir=tmp_path, durability=durability) as again:
        assert kept(again) == before
        assert again.map("flags") == {"beta": {"deep": [1, 2.5, b"x"]}} and again.counter("hits").value == 7
        again.counter("hits").increment()
        assert again.counter("hits").value == 8, "under a replica id of its own: nothing is counted twice"
        storage = again.status()["storage"]
        assert storage["directory"] == str(tmp_path) and storage["failed"] is None


def test_a_node_that_starts_again_has_its_log_too(cluster: str, tmp_path: Path) -> None:
    """It can tell peers what they miss write by write, and `gossip explain` what was replaced."""
    with gossip.Node(cluster, data_dir=tmp_path) as ann, gossip.Node(cluster) as bob:
        ann.map("m")["k"] = "first"
        ann.map("m")["k"] = "second"
        bob.counter("hits").increment()
        until_here(lambda: ann.counter("hits").value == 1 and bob.map("m").get("k") == "second")
        seen = dict(ann._store.context)
        bob.map("m")["k"] = "third"
        until_here(lambda: ann.map("m")["k"] == "third")
    with gossip.Node(cluster, data_dir=tmp_path) as again:
        runtime = again._runtime
        assert runtime is not None
        replication = runtime.engine.replication
        assert replication.missing(Context(seen)) and replication.missing(Context(replication.context())) == []
        assert replication.touched(Context(seen)) == {(1, "m", encode_element("k"))}
        told, _ = explained(again, {"object": "m", "key": "k"})
        assert [each["value"] for each in told["replaced"]] == ["second"]


@EACH_WAY
def test_a_whole_cluster_that_starts_again_has_what_it_had(cluster: str, tmp_path: Path, durability: str) -> None:
    names = ["ann", "bob", "cat"]

    async def live(number: int) -> None:
        made = [gossip.Node(cluster, name=name, data_dir=tmp_path / name, durability=durability) for name in names]
        for node in made:
            await node.start()
        await until(lambda: all(len(node.members) == 3 for node in made))
        for node in made:
            node.counter("hits").increment()
            node.map("m")[f"{node.me.name} {number}"] = number
        await until(lambda: all(node.counter("hits").value == 3 * (number + 1) for node in made), timeout=20)
        await until(lambda: all(len(node.map("m")) == 3 * (number + 1) for node in made))
        for node in made:
            await node.leave()

    for number in range(3):
        asyncio.run(live(number))


def test_what_others_wrote_is_kept_as_well(cluster: str, tmp_path: Path) -> None:
    with gossip.Node(cluster) as other:
        other.map("m").update({str(number): "x" * 1_000 for number in range(500)})
        with gossip.Node(cluster, data_dir=tmp_path) as node:
            assert len(node.map("m")) == 500, "a state that was merged"
            other.map("m")["later"] = 1
            other.counter("hits").increment(3)
            until_here(lambda: node.counter("hits").value == 3)
    with gossip.Node(cluster, data_dir=tmp_path) as again:
        assert len(again.map("m")) == 501 and again.counter("hits").value == 3


def test_who_was_away_takes_what_it_missed_and_brings_what_it_has(cluster: str, tmp_path: Path) -> None:
    with gossip.Node(cluster, data_dir=tmp_path) as node:
        node.map("m").update(a=1, b=1, mine=1)
    with gossip.Node(cluster) as other:
        other.map("m").update(c=3)
        with gossip.Node(cluster, data_dir=tmp_path) as again:
            expected = {"a": 1, "b": 1, "mine": 1, "c": 3}
            until_here(lambda: dict(again.map("m")) == dict(other.map("m")) == expected)
            del other.map("m")["a"]
            until_here(lambda: "a" not in again.map("m"))
    with gossip.Node(cluster, data_dir=tmp_path) as last:
        assert dict(last.map("m")) == {"b": 1, "mine": 1, "c": 3}, "what was deleted stays so"


def test_a_second_process_on_one_directory_is_refused_with_the_holders_pid(cluster: str, tmp_path: Path) -> None:
    with gossip.Node(cluster, data_dir=tmp_path) as node:
        node.map("m")["k"] = 1
        with pytest.raises(gossip.StartError, match=str(os.getpid())):
            gossip.Node(cluster, data_dir=tmp_path).open()
        assert node.map("m") == {"k": 1} and len(node.members) == 1
    with gossip.Node(cluster, data_dir=tmp_path) as again:
        assert again.map("m") == {"k": 1}


def test_a_directory_of_another_cluster_is_refused(cluster: str, tmp_path: Path) -> None:
    with gossip.Node(cluster, data_dir=tmp_path):
        pass
    with pytest.raises(gossip.StartError, match=cluster):
        gossip.Node("another", data_dir=tmp_path).open()


def test_what_is_owned_does_not_come_back_from_the_disk(cluster: str, tmp_path: Path) -> None:
    with gossip.Node(cluster, data_dir=tmp_path) as node:
        node.set("online").add("ann", owned=True)
        node.map("m").set("soon", 1, ttl=0.1)
        node.map("m")["kept"] = 1
        until_here(lambda: "soon" not in node.map("m"))
    with gossip.Node(cluster, data_dir=tmp_path) as again:
        assert not again.set("online") and dict(again.map("m")) == {"kept": 1}


def test_own_writes_leave_when_they_are_on_the_disk_and_not_before(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with gossip.Node(cluster, data_dir=tmp_path, durability="full") as node, gossip.Node(cluster) as other:
            await until(lambda: len(node.members) == len(other.members) == 2)
            keeping = node._runtime.keeping  # type: ignore[union-attr]
            word, held = keeping._stored, []
            monkeypatch.setattr(keeping, "_stored", held.append)
            keeping._storage._stored = lambda ticket: asyncio.get_running_loop().call_soon(held.append, ticket)
            node.map("m")["k"] = 1
            other.map("m")["beside"] = 2
            await until(lambda: node.map("m").get("beside") == 2, "the rest goes on meanwhile")
            assert "k" not in other.map("m") and node.map("m")["k"] == 1
            async with gossip.Node(cluster) as late:
                assert "k" not in late.map("m") and late.map("m")["beside"] == 2
            keeping._own.append((1 << 60, node._runtime.engine.replication.handed))  # type: ignore[union-attr]
            word(1 << 60)
            await until(lambda: other.map("m").get("k") == 1)

    asyncio.run(story())


def test_a_disk_that_refuses_is_told_and_the_node_goes_on(cluster: str, tmp_path: Path, caplog: Any) -> None:
    async def story() -> None:
        settings: dict[str, Any] = {"data_dir": tmp_path, "durability": "full"}
        async with gossip.Node(cluster, **settings) as node, gossip.Node(cluster) as other:
            await until(lambda: len(node.members) == len(other.members) == 2)
            node._runtime.keeping._refused(OSError(errno.ENOSPC, "the disk is full"))  # type: ignore[union-attr]
            node.map("m")["k"] = 1
            await until(lambda: other.map("m").get("k") == 1, "it is a member all the same")
            assert "the disk is full" in node.status()["storage"]["failed"] and "the disk is full" in caplog.text

    asyncio.run(story())


def test_much_written_is_made_small_again(cluster: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with nodes(cluster, 1, data_dir=tmp_path) as (node,):
            storage = node._runtime.keeping._storage  # type: ignore[union-attr]
            storage._compact_bytes = 1 << 20
            for number in range(3_000):
                node.map("m")["k"] = "x" * 1_000 + str(number)
                await asyncio.sleep(0)
            await until(lambda: storage.compactions > 0)

    asyncio.run(story())
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 40 << 20
    with gossip.Node(cluster, data_dir=tmp_path) as again:
        assert again.map("m")["k"].endswith("2999")


@EACH_WAY
def test_a_word_of_the_disk_that_was_lost_keeps_nobody_waiting(cluster: str, tmp_path: Path, durability: str) -> None:
    """A signal handler raised just when the loop was told that all is synced; after that there was no other word."""

    async def story() -> None:
        async with gossip.Node(cluster, data_dir=tmp_path, durability=durability) as node:
            node.map("m")["k"] = 1
            await node.sync(peers=0, durable=True, timeout=10)
            keeping = node._running().keeping
            assert keeping._safe > 0
            keeping._safe = 0  # as if that had never been told
            await node.sync(peers=0, durable=True, timeout=10)

    asyncio.run(story())


@EACH_WAY
def test_a_disk_whose_words_never_come_is_asked(cluster: str, tmp_path: Path, durability: str) -> None:
    """The same while somebody waits already; and what was to leave when it is on the disk leaves."""

    async def story() -> None:
        async with (
            gossip.Node(cluster, data_dir=tmp_path, durability=durability, probe_interval=0.1) as ann,
            gossip.Node(cluster) as bob,
        ):
            storage = ann._running().keeping._storage
            storage._stored = storage._synced = lambda ticket: None
            ann.map("m")["k"] = 1
            await until(lambda: bob.map("m").get("k") == 1)
            ann.map("m")["k"] = 2
            await ann.sync(peers=0, durable=True, timeout=10)

    asyncio.run(story())


def test_what_was_lost_on_its_way_to_the_disk_is_not_called_durable(cluster: str, tmp_path: Path) -> None:
    """Ours: a signal handler raised between the engine and the disk, and a durable sync came back at once, since all
    that the disk had ever been given was safe. A node without peers has no timer that would mend it."""

    class TimeIsUp(Exception):
        pass

    async def story() -> None:
        async with gossip.Node(cluster, data_dir=tmp_path) as node:
            node.map("m")["k"] = 1
            await node.sync(peers=0, durable=True, timeout=10)
            keeping, raised = node._running().keeping, asyncio.Event()
            keep = keeping.keep

            def interrupted(effect: object) -> None:
                keeping.keep = keep  # type: ignore[method-assign]
                raise TimeIsUp

            keeping.keep = interrupted  # type: ignore[method-assign, assignment]
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: raised.set())
            node.map("m")["k"] = 2
            await raised.wait()
            await node.sync(peers=0, durable=True, timeout=10)
            assert keeping.status()["compactions"] == 1, "a state has it"  # type: ignore[index]

    asyncio.run(story())
    with gossip.Node(cluster, data_dir=tmp_path) as again:
        assert again.map("m")["k"] == 2


def test_a_state_that_a_signal_handler_kept_from_the_disk_is_taken_again(cluster: str, tmp_path: Path) -> None:
    """Nothing else would ask for it: few bytes were written since the last one."""

    async def story() -> None:
        async with gossip.Node(cluster, data_dir=tmp_path) as node:
            keeping, raised = node._running().keeping, asyncio.Event()
            compact = keeping._storage.compact

            def interrupted(*arguments: object) -> None:
                keeping._storage.compact = compact
                raise TimeoutError

            keeping._storage.compact = interrupted
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: raised.set())
            keeping.rewrite()
            node.map("m")["k"] = 1
            await raised.wait()
            node.map("m")["k"] = 2
            await until(lambda: keeping._storage.compactions == 1)

    asyncio.run(story())


def test_a_disk_whose_words_never_come_is_asked_by_who_waits(cluster: str, tmp_path: Path) -> None:
    """A node alone has no timer, and looks at nothing by itself."""

    async def story() -> None:
        async with gossip.Node(cluster, data_dir=tmp_path) as node:
            storage = node._running().keeping._storage
            storage._stored = storage._synced = lambda ticket: None
            node.map("m")["k"] = 1
            await node.sync(peers=0, durable=True, timeout=10)

    asyncio.run(story())


def test_what_was_lost_on_its_way_to_the_disk_leaves_when_a_state_has_it(cluster: str, tmp_path: Path) -> None:
    """Nothing is written after it, of which a word of the disk would speak."""

    async def story() -> None:
        async with gossip.Node(cluster, data_dir=tmp_path, durability="full") as ann, gossip.Node(cluster) as bob:
            await until(lambda: len(ann.members) == len(bob.members) == 2)
            keeping = ann._running().keeping
            keep = keeping.keep

            def interrupted(effect: object) -> None:
                keeping.keep = keep  # type: ignore[method-assign]
                raise TimeoutError

            keeping.keep = interrupted  # type: ignore[method-assign, assignment]
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
            ann.map("m")["k"] = 1
            await until(lambda: bob.map("m").get("k") == 1)

    asyncio.run(story())


def test_a_state_that_is_wanted_while_another_is_written_is_taken_after_it(cluster: str, tmp_path: Path) -> None:
    """A node alone has no timer: it took none until the next write, and what it had was lost if it left before."""

    async def story() -> None:
        async with gossip.Node(cluster, data_dir=tmp_path) as node:
            m, storage = node.map("m"), node._running().keeping._storage
            m.update({f"k{number}": "x" * 1_000_000 for number in range(30)})
            await node.sync(peers=0, durable=True, timeout=10)
            storage._queue_bytes = 1 << 20
            m.update({f"k{number}": "y" * 1_000_000 for number in range(3)})
            await until(lambda: storage.compacting)
            m.update({f"k{number}": "z" * 1_000_000 for number in range(3)})
            await asyncio.sleep(0)
            assert storage.compacting and storage.overflows == 2
            await node.sync(peers=0, durable=True, timeout=10)

    asyncio.run(story())
    with gossip.Node(cluster, data_dir=tmp_path) as again:
        assert again.map("m")["k2"][0] == "z"
