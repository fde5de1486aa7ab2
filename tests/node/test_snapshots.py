"""Is a snapshot what was there at one moment, and does a cluster go back to it by ordinary writes?"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import gossip
from crdt import encode_state
from tests.waiting import nodes, until, until_here


@pytest.fixture
def node(cluster: str) -> Iterator[gossip.Node]:
    with gossip.Node(cluster) as node:
        yield node


def taken(node: gossip.Node, as_of: datetime | None = None) -> gossip.Snapshot:
    return asyncio.run(node.snapshot(as_of=as_of))


def restored(node: gossip.Node, *what: Any, **how: Any) -> list[gossip.Difference]:
    return asyncio.run(node.restore(*what, **how))


def told(found: list[gossip.Difference]) -> set[tuple[Any, ...]]:
    values = ((each.name, each.key, each.before, each.after) for each in found)
    return {tuple(repr(part) if isinstance(part, dict) else part for part in each) for each in values}


def fill(node: gossip.Node) -> None:
    node.map("flags").update({"beta": True, "old": {"deep": [1, b"x"]}})
    node.set("online").update(["ann", "bob"])
    node.counter("hits").increment(5)
    node.register("motd").set("hello")


def change(node: gossip.Node) -> None:
    node.map("flags")["beta"] = False
    del node.map("flags")["old"]
    node.map("flags")["new"] = 1
    node.set("online").remove("ann")
    node.set("online").add("cat")
    node.counter("hits").increment(2)
    node.register("motd").delete()
    node.map("later")["k"] = 1


# -- taking ----------------------------------------------------------------------------------------------------------


def test_a_snapshot_holds_what_was_there_and_nothing_that_came_later(node: gossip.Node) -> None:
    fill(node)
    before = datetime.now(UTC)
    snapshot = taken(node)
    assert abs((snapshot.at - before).total_seconds()) < 5 and snapshot.node == node.me.name
    change(node)
    assert snapshot.contents("flags") == {"beta": True, "old": {"deep": [1, b"x"]}}
    assert snapshot.contents("online") == {"ann", "bob"} and snapshot.contents("motd") == "hello"
    assert snapshot.contents("hits") == 5
    assert [(each["type"], each["name"], each["entries"]) for each in snapshot.objects] == [
        ("map", "flags", 2), ("set", "online", 2), ("counter", "hits", 1), ("register", "motd", 1)
    ]  # fmt: skip
    with pytest.raises(KeyError):
        snapshot.contents("later")
    node.counter("flags").increment()
    both = taken(node)
    with pytest.raises(ValueError, match="a map and a counter"):
        both.contents("flags")
    assert both.contents("flags", type="counter") == 1


def test_what_differs_between_two_is_told_key_by_key(node: gossip.Node) -> None:
    fill(node)
    first = taken(node)
    change(node)
    second = taken(node)
    forth = {
        ("flags", "beta", True, False),
        ("flags", "old", repr({"deep": [1, b"x"]}), None),
        ("flags", "new", None, 1),
        ("online", "ann", True, False),
        ("online", "cat", False, True),
        ("hits", None, 5, 7),
        ("motd", None, "hello", None),
        ("later", "k", None, 1),
    }

    assert told(first.diff(second)) == forth
    assert told(second.diff(first)) == {(name, key, after, before) for name, key, before, after in forth}
    assert first.diff(taken(node), objects=["hits"])[0].kind == "set" and first.diff(first) == []


def test_a_batch_is_in_it_whole_or_not_at_all(node: gossip.Node) -> None:
    done = threading.Event()
    pair = node.map("pair")

    def work() -> None:
        number = 0
        while not done.is_set():
            number += 1
            with node.batch():
                pair["a"] = number
                pair["b"] = number

    thread = threading.Thread(target=work)
    thread.start()
    try:
        until_here(lambda: len(pair) == 2)
        seen = [taken(node).contents("pair") for _ in range(100)]
    finally:
        done.set()
        thread.join()
    assert all(each["a"] == each["b"] for each in seen) and len({each["a"] for each in seen}) > 10


def test_what_is_owned_is_not_in_it_and_what_ends_ends_when_it_should(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            ann.set("online").add("ann", owned=True)
            ann.map("m").set("mine", 1, owned=True)
            bob.map("m").set("soon over", 1, ttl=0.3)
            bob.map("m").set("later", 1, ttl=3_000)
            await until(lambda: len(ann.map("m")) == 3)
            end = ann.map("m").entry("later").expires
            snapshot = await ann.snapshot()
            assert snapshot.contents("m") == {"soon over": 1, "later": 1}
            with pytest.raises(KeyError):
                snapshot.contents("online")
            await until(lambda: "soon over" not in ann.map("m"))
            bob.map("m").clear()
            await until(lambda: "later" not in ann.map("m"))
            ann.map("m").set("mine", 1, owned=True)
            assert told(await ann.restore(snapshot)) == {("m", "later", None, 1)}
            await until(lambda: dict(bob.map("m")) == {"mine": 1, "later": 1})
            assert bob.map("m").entry("later").expires == end, "and not as long again as it had had"
            assert bob.map("m").entry("mine").owned and set(ann.set("online")) == {"ann"}, "which is left alone"

    asyncio.run(story())


def test_an_owned_entry_over_another_stays_and_so_does_what_others_own_of_a_set(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            snapshot = await ann.snapshot()
            ann.set("online").add("x")
            await until(lambda: "x" in bob.set("online"))
            bob.set("online").add("x", owned=True)
            ann.map("m")["k"] = "plain"
            await until(lambda: len(bob.map("m")) == 1)
            bob.map("m").set("k", "owned", owned=True)
            await until(lambda: ann.map("m").get("k") == "owned")
            await ann.restore(snapshot)
            assert ann.map("m")["k"] == "owned" and "x" in ann.set("online")

    asyncio.run(story())


def test_what_is_left_when_what_is_owned_is_taken_out_is_the_same_from_a_file(cluster: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            ann.set("online").add("x")
            await until(lambda: "x" in bob.set("online"))
            with bob.batch(note="that is taken out as well"):
                bob.set("online").add("x", owned=True)
            assert bob.set("online").entry("x").owned, "that is shown, and the other is there beside it"
            snapshot = await bob.snapshot()
            assert snapshot.contents("online") == {"x"}
            assert gossip.Snapshot.load(snapshot.save(tmp_path / "x.gossamesh")) == snapshot

    asyncio.run(story())


# -- going back ------------------------------------------------------------------------------------------------------


def test_all_members_go_back_to_it(cluster: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with nodes(cluster, 3) as (ann, bob, cat):
            fill(ann)
            await until(lambda: bob.register("motd").value == cat.register("motd").value == "hello")
            path = (await ann.snapshot()).save(tmp_path / "before.gossamesh")
            change(bob)
            await until(lambda: "later" in [each["name"] for each in cat.status()["objects"]])
            found = await cat.restore(path)
            assert ("hits", None, 7, 5) in told(found)
            for node in (ann, bob, cat):
                await until(lambda node=node: node.map("flags") == {"beta": True, "old": {"deep": [1, b"x"]}})
                await until(lambda node=node: node.counter("hits").value == 5 and not node.map("later"))
                assert set(node.set("online")) == {"ann", "bob"} and node.register("motd").value == "hello"
                assert "restored from a snapshot of 20" in str(node.map("flags").entry("beta").note)
            await until(lambda: len({encode_state(node._store.state()) for node in (ann, bob, cat)}) == 1)
            assert await bob.restore(path) == [], "all is as it was"

    asyncio.run(story())


def test_a_dry_run_tells_and_changes_nothing(node: gossip.Node) -> None:
    fill(node)
    snapshot = taken(node)
    change(node)
    seen = node.seen
    tried = restored(node, snapshot, dry_run=True)
    assert node.seen == seen and len(tried) == 8, "not a single write"
    assert restored(node, snapshot) == tried


def test_only_what_was_asked_for_is_restored(node: gossip.Node) -> None:
    fill(node)
    snapshot = taken(node)
    change(node)
    assert told(restored(node, snapshot, objects=["hits", "motd"])) == {
        ("hits", None, 7, 5),
        ("motd", None, None, "hello"),
    }
    assert node.map("flags")["beta"] is False and set(node.set("online")) == {"bob", "cat"}
    restored(node, snapshot, objects=["flags"], delete=False)
    assert node.map("flags") == {"beta": True, "old": {"deep": [1, b"x"]}, "new": 1}, "what has come since is kept"
    assert told(restored(node, snapshot, objects=["later"])) == {("later", "k", 1, None)}, "though it was not there"
    with pytest.raises(ValueError, match="there is no object 'nobody'"):
        restored(node, snapshot, objects=["nobody"])
    with pytest.raises(TypeError, match=r"\['flags'\]"):
        restored(node, snapshot, objects="flags")


def test_what_is_written_while_it_is_restored_stays(cluster: str) -> None:
    """Each write takes the place of what was compared, and a counter counts the difference."""

    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            ann.map("m").update({f"k{number}": 0 for number in range(5_000)})
            ann.counter("hits").increment(100)
            snapshot = await ann.snapshot()
            ann.map("m").update({f"k{number}": 1 for number in range(5_000)})
            ann.counter("hits").increment(50)
            steps = []

            def meanwhile(done: int, total: int) -> None:
                steps.append((done, total))
                if len(steps) == 1:
                    ann.map("m")["k4999"] = "mine"
                    del ann.map("m")["k4998"]
                    ann.map("m")["also new"] = 1
                    ann.counter("hits").increment(7)

            found = await ann.restore(snapshot, progress=meanwhile)
            assert len(found) == 5_001 - 2 and steps[-1] == (5_001, 5_001) and len(steps) > 5
            m = dict(ann.map("m"))
            assert m.pop("k4999") == "mine" and "k4998" not in m and m.pop("also new") == 1
            assert set(m.values()) == {0} and ann.counter("hits").value == 107
            await until(lambda: dict(bob.map("m")) == dict(ann.map("m")) and bob.counter("hits").value == 107)

    asyncio.run(story())


def test_a_snapshot_of_another_cluster_is_taken_only_if_that_is_meant(cluster: str, node: gossip.Node) -> None:
    with gossip.Node(cluster + "-other") as other:
        fill(other)
        snapshot = taken(other)
    with pytest.raises(gossip.SnapshotError, match=r"is of the cluster '.*-other', and this node of"):
        restored(node, snapshot)
    assert not node.map("flags")
    restored(node, snapshot, foreign=True)
    assert node.map("flags")["beta"] is True


def test_large_values_are_restored_where_transactions_are_small(cluster: str) -> None:
    with gossip.Node(cluster, max_transaction=4_000) as node:
        for number in range(20):
            node.map("m")[f"k{number}"] = "x" * 900
        node.map("m")["large"] = "y" * 1_000_000
        snapshot = taken(node)
        for key in node.map("m"):
            del node.map("m")[key]
        restored(node, snapshot)
        assert len(node.map("m")) == 21 and len(node.map("m")["large"]) == 1_000_000


def test_it_works_from_another_loop_and_not_after_the_end(cluster: str) -> None:
    with gossip.Node(cluster) as node:
        fill(node)
        snapshot = taken(node)
    with pytest.raises(gossip.NotRunning):
        taken(node)
    with pytest.raises(gossip.NotRunning):
        restored(node, snapshot)


# -- a moment that is past -------------------------------------------------------------------------------------------


def now() -> datetime:
    """A moment, and it is past when this returns: what is written from here on is of a later millisecond."""
    moment = datetime.now(UTC)
    until_here(lambda: (datetime.now(UTC) - moment).total_seconds() > 0.002)
    return moment


def test_what_was_there_at_any_moment_is_read_from_the_log(cluster: str, tmp_path: Path) -> None:
    moments: list[tuple[datetime, dict[str, int], int]] = []
    with gossip.Node(cluster, data_dir=tmp_path) as node, gossip.Node(cluster) as peer:
        for number in range(30):
            with node.batch():
                node.map("m")[f"k{number % 7}"] = number
                node.map("m").pop(f"k{number % 5}", None)
            peer.counter("hits").increment()
            until_here(lambda number=number: node.counter("hits").value == number + 1)
            moments.append((now(), dict(node.map("m")), number + 1))
        for moment, m, hits in moments:
            past = taken(node, moment)
            assert (past.contents("m") if m else {}, past.contents("hits")) == (m, hits)
            assert abs((past.at - moment).total_seconds()) < 0.001
        last = taken(node)
    with gossip.Node(cluster, data_dir=tmp_path) as again:
        again.map("later")["k"] = again.map("m")["k1"] = -1
        for moment, m, hits in moments[::7]:
            past = taken(again, moment)
            assert (past.contents("m") if m else {}, past.contents("hits")) == (m, hits), "after a restart too"
        restored(again, taken(again, moments[-1][0]))
        assert again.map("m") == last.contents("m") and again.counter("hits").value == 30 and not again.map("later")


def test_a_batch_that_was_under_way_is_in_the_past_whole_or_not_at_all(cluster: str, tmp_path: Path) -> None:
    with gossip.Node(cluster, data_dir=tmp_path, batch_bytes=1_000) as node:
        with node.batch():
            node.map("m")["first"] = "x" * 2_000
            middle = now()
            node.map("m")["second"] = "y" * 2_000
        end = now()
        assert not taken(node, middle).objects
        assert len(taken(node, end).contents("m")) == 2


def test_what_had_ended_or_had_not_yet_is_seen_as_of_then(cluster: str, tmp_path: Path) -> None:
    with gossip.Node(cluster, data_dir=tmp_path) as node:
        node.map("m").set("k", 1, ttl=0.2)
        then = now()
        until_here(lambda: not node.map("m"))
        after = now()
        assert taken(node, then).contents("m") == {"k": 1} and not taken(node, after).objects


def test_what_the_log_does_not_reach_is_refused_and_never_guessed(cluster: str, tmp_path: Path) -> None:
    """A log that begins later knows nothing of before: to go back to nothing would delete all there is."""
    before = now()
    with gossip.Node(cluster, data_dir=tmp_path / "ann") as ann:
        ann.map("m")["k"] = 1
        between = now()
        with pytest.raises(gossip.SnapshotError, match="reaches back to"):
            taken(ann, before)
        with gossip.Node(cluster, data_dir=tmp_path / "bob") as bob:
            after = now()
            assert taken(bob, after).contents("m") == {"k": 1}
            with pytest.raises(gossip.SnapshotError, match="given everything by a peer"):
                taken(bob, between)
        runtime = ann._runtime
        assert runtime is not None
        del ann.map("m")["k"]
        with runtime.lock:
            runtime.keeping.rewrite()
        ann.map("m")["other"] = 1
        until_here(lambda: ann.status()["storage"]["compactions"] == 1)
        with pytest.raises(gossip.SnapshotError, match="compacted then"):
            taken(ann, between)
        assert taken(ann, now()).contents("m") == {"other": 1}


def test_a_moment_that_can_not_be_is_refused(cluster: str, tmp_path: Path, node: gossip.Node) -> None:
    with pytest.raises(gossip.StorageFailed, match="no data_dir"):
        taken(node, datetime.now(UTC))
    with pytest.raises(ValueError, match="with its time zone"):
        taken(node, datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="in the future"):
        taken(node, datetime(2100, 1, 1, tzinfo=UTC))


def test_several_read_the_past_at_once_while_the_node_writes_and_leaves(cluster: str, tmp_path: Path) -> None:
    async def story() -> None:
        node = gossip.Node(cluster, data_dir=tmp_path)
        await node.start()
        node.map("m").update({f"k{number}": number for number in range(3_000)})
        moment = await asyncio.to_thread(now)
        reads = [asyncio.ensure_future(node.snapshot(as_of=moment)) for _ in range(5)]
        for number in range(200):
            node.map("m")[f"k{number}"] = -1
            await asyncio.sleep(0)
        for past in await asyncio.gather(*reads):
            assert past.contents("m") == {f"k{number}": number for number in range(3_000)}
        last = [asyncio.ensure_future(node.snapshot(as_of=moment)) for _ in range(5)]
        await asyncio.sleep(0)
        await node.leave()
        for outcome in await asyncio.gather(*last, return_exceptions=True):
            assert isinstance(outcome, gossip.Snapshot | gossip.StorageFailed | gossip.NotRunning)

    asyncio.run(story())
