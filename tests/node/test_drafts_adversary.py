"""Do drafts keep what is promised, whoever comes in between: notes, limits, threads, signal handlers, rebirth?

Not here: the usual ways to write and to read (test_drafts).
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from random import Random

import pytest

import gossip
from crdt import Batch, LWWMap, Store, encode_batch
from gossip.protocol.messages import Push
from tests.node.test_door import interrupted
from tests.waiting import nodes, until, until_here


def check_numbers(node: gossip.Node) -> None:
    """Whether every number of this node is used once, and what is counted is what is there."""
    replication, store = node._running().engine.replication, node._settled()
    assert replication.flushed == store.context[replication.replica]
    told = store.fingerprint, store.sums
    store.recount()
    assert told == (store.fingerprint, store.sums)


def test_a_note_ends_with_its_batch_though_the_last_write_of_it_was_too_large_for_a_draft(cluster: str) -> None:
    """The note stayed, with no draft, and became that of whatever was written next."""

    async def story() -> None:
        async with nodes(cluster, max_transaction=100_000) as (ann, bob):
            m = ann.map("m", str)
            with pytest.raises(ValueError, match="would become larger"), ann.batch(author="eve", note="too much"):
                for number in range(1_000):
                    m[f"k{number}"] = "x" * 1_000
            m["after"] = "by nobody"
            with ann.batch(note="whole"):
                m["large"] = "x" * 98_500
            m["after it"] = "too"
            await until(lambda: "after it" in bob.map("m"))
            for node in (ann, bob):
                told = [(key, node.map("m").entry(key).by, node.map("m").entry(key).note) for key in ("k0", "large")]
                assert told == [("k0", "eve", "too much"), ("large", None, "whole")]
                for key in ("after", "after it"):
                    assert (node.map("m").entry(key).by, node.map("m").entry(key).note) == (None, None)

    asyncio.run(story())


def test_an_entry_that_another_thread_replaces_has_its_note_all_the_same(cluster: str) -> None:
    """It was looked up when the write had gone already, or while it was a draft."""
    switching = sys.getswitchinterval()
    with gossip.Node(cluster) as node:
        m, s, r = node.map("m", int), node.set("s"), node.register("r", int)
        over, seen = threading.Event(), 0
        wrong: list[object] = []

        def write() -> None:
            number = 0
            while not over.is_set():
                number += 1
                with node.batch(author="ann", note="always"):
                    m["k"] = number
                    s.add("k")
                    r.set(number)

        writer = threading.Thread(target=write)
        sys.setswitchinterval(1e-6)
        writer.start()
        try:
            until_here(lambda: r.value)
            while seen < 10_000:
                seen += 1
                for entry in (m.entry("k"), s.entry("k"), r.entry()):
                    if entry is None or (entry.by, entry.note) != ("ann", "always"):
                        wrong.append(entry)
        finally:
            sys.setswitchinterval(switching)
            over.set()
            writer.join()
        assert not wrong


ASKED: dict[str, Callable[[gossip.Node], object]] = {
    "token": lambda node: node.token,
    "seen": lambda node: node.seen,
    "status": lambda node: node.status(),
    "entry": lambda node: node.map("m").entry("k0"),
    "how many": lambda node: len(node.map("m")),
    "total": lambda node: node.counter("c").value,
}


@pytest.mark.parametrize("asked", ASKED)
def test_a_signal_handler_may_ask_while_its_thread_writes(cluster: str, asked: str) -> None:
    """It had the drafts settled that its thread was just settling: numbers were used twice, and the context went back,
    so that peers refused all that followed."""
    with gossip.Node(cluster) as ann, gossip.Node(cluster) as bob:
        m, hits, calls = ann.map("m", int), ann.counter("c"), 0
        caught: list[BaseException] = []
        m["k0"] = 0
        ASKED[asked](ann)  # what it imports is there

        def handler() -> None:
            nonlocal calls
            calls += 1
            try:
                ASKED[asked](ann)
            except BaseException as error:
                caught.append(error)

        with interrupted(handler, every=0.001):
            number = 0
            while calls < 500:
                number += 1
                m[f"k{number % 100}"] = number
                hits.increment()
                if number % 300 == 0:
                    assert len(m) == 100
        assert not caught and hits.value == number
        until_here(lambda: bob.counter("c").value == number and bob.map("m", int) == m)
        until_here(lambda: ann._running().engine.replication.settled)
        check_numbers(ann)
        assert bob.status()["counters"].get("malformed", 0) == 0


@pytest.mark.parametrize("seed", range(4))
def test_a_history_of_everything_is_as_that_of_a_dict(cluster: str, seed: int) -> None:
    """Whatever is asked in between, and in whatever batch: nobody can tell a draft from any other write."""

    async def story() -> None:
        rng = Random(seed)
        async with nodes(cluster, **({"max_transaction": 30_000} if seed % 2 else {})) as (ann, bob):
            m, wanted, notes = ann.map("m"), dict[str, object](), dict[str, str | None]()
            c, total = ann.counter("c"), 0

            def step(note: str | None) -> None:
                nonlocal total
                key, value, kind = rng.choice("abcdefg"), rng.choice([1, True, 1.0, "1", b"1", "x" * 900]), rng.random()
                if kind < 0.45:
                    m.set(key, value, **rng.choice([{}, {}, {"ttl": 100}, {"owned": True}]))
                    wanted[key], notes[key] = value, note
                elif kind < 0.60:
                    assert repr(m.pop(key, "none")) == repr(wanted.pop(key, "none"))
                elif kind < 0.65 and key in wanted:
                    m.touch(key, 100)
                    notes[key] = note
                elif kind < 0.75:
                    total += 1
                    c.increment()
                elif kind < 0.80 and key in wanted:
                    entry = m.entry(key)
                    assert (repr(entry.value), entry.note, entry.conflicts) == (repr(wanted[key]), notes[key], ())
                elif kind < 0.83:
                    assert c.value == total and len(m) == len(wanted)
                elif kind < 0.86:
                    assert ann.token and ann.seen and ann.status()
                elif kind < 0.87:
                    m.clear()
                    wanted.clear()
                assert repr(m.get(key)) == repr(wanted.get(key)) and (key in m) == (key in wanted)

            for _ in range(100):
                for _ in range(rng.randrange(10)):
                    outer, inner = rng.choice(["one", "two", None]), rng.choice(["three", None])
                    if rng.random() < 0.7:
                        step(None)
                        continue
                    with ann.batch(note=outer):
                        for _ in range(rng.randrange(6)):
                            step(outer)
                        with ann.batch(note=inner):
                            step(inner or outer)
                        step(outer)
                await asyncio.sleep(0)  # the turn ends
            await until(lambda: bob._store.context == ann._settled().context)
            for node in (ann, bob):
                there = node.map("m")
                assert {key: (repr(there[key]), there.entry(key).note) for key in there} == {
                    key: (repr(value), notes[key]) for key, value in wanted.items()
                }
                assert node.counter("c").value == total
            check_numbers(ann)

    asyncio.run(story())


def test_a_signal_handler_never_sees_a_key_go_back_or_go_away(cluster: str) -> None:
    """It may read in the middle of the settling: a draft is there until its write is in the store."""
    with gossip.Node(cluster) as node:
        m, seen = node.map("m", int), [0]
        m["k"] = 0

        with interrupted(lambda: seen.append(m.get("k", -1)), every=0.0005):
            number = 0
            while len(seen) < 1_500:
                number += 1
                m["k"] = number
                for other in range(300):
                    m[f"k{other}"] = number
                assert len(m) == 301  # which has them settled
        assert seen == sorted(seen) and len(set(seen)) > 10


def test_a_watch_is_told_of_what_was_written_just_before_the_node_left(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node, node.map("m", int).watch(snapshot=False) as changes:
            node.map("m", int)["last"] = 1
            assert node._drafts
            await node.leave()
            assert [(change.key, change.value) async for change in changes] == [("last", 1)]

    asyncio.run(story())


def concur(ann: gossip.Node, key: str, count: int) -> None:
    """So many cats wrote this key, and none has seen another's write."""
    engine = ann._running().engine
    for cat in range(1, count + 1):
        write = LWWMap(Store(), "m").set(key, "cat", cat, engine.stamp(1))
        packet = engine.codec.encode(count + 1, Push((encode_batch(Batch(cat, 1, 1, (write,))),)))
        ann._running()._receive(packet, True, None, None)


def fill(node: gossip.Node, m: gossip.Map[str, str], keys: list[str], value: str) -> None:
    """Writes these keys in one batch, with the longest note there may be, until it is refused."""
    with pytest.raises(ValueError, match="would become larger"), node.batch(author="a" * 128, note="n" * 1024):
        for key in keys:
            m[key] = value
    replication = node._running().engine.replication
    assert 0.9 * 100_000 < replication._transaction_size <= 100_000


def test_a_batch_of_drafts_is_not_too_large_either_where_all_is_as_long_as_it_may_be(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster, max_transaction=100_000) as node:
            m = node.map("m" * 255, str)
            keys = [f"{number:0509}" for number in range(100)]
            for key in keys:
                m[key] = "old"  # so that each write names one
            assert len(m) == 100
            fill(node, m, keys, "x" * 997)

    asyncio.run(story())


def test_a_batch_of_drafts_is_not_too_large_either_where_one_write_replaces_many(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster, max_transaction=100_000) as ann:
            concur(ann, "k0", 2_000)
            m = ann.map("m", str)
            assert len(m.entry("k0").conflicts) == 1_999
            fill(ann, m, [f"k{number}" for number in range(100)], "x" * 9_000)

    asyncio.run(story())


def test_a_draft_settles_all_the_conflicts_of_its_key(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            concur(ann, "k", 3)
            m = ann.map("m", str)
            assert len(m.entry("k").conflicts) == 2
            m["k"] = "mine"
            assert ann._drafts
            for node in (ann, bob):
                await until(lambda node=node: node.map("m").get("k") == "mine")
                assert node.map("m").entry("k").conflicts == ()

    asyncio.run(story())


def test_what_came_moves_the_deadline_though_nothing_else_happens(cluster: str) -> None:
    """All deadlines are asked for after those whom it has woken, once in a turn, and not never."""

    async def story() -> None:
        async with gossip.Node(cluster, probe_interval=60.0, discovery_interval=60.0, join_timeout=0.1) as ann:
            engine = ann._running().engine
            now = engine.stamp(time.time_ns() // 1_000_000)
            write = LWWMap(Store(), "m").set("k", "cat", 77, now)._replace(expires=now + (200 << 16))
            packet = engine.codec.encode(77, Push((encode_batch(Batch(77, 1, 1, (write,))),)))
            await until(lambda: ann._running()._schedule_asked < 0)
            ann._running()._receive(packet, True, None, None)
            assert ann._store.objects and ann._running()._schedule_asked > 0
            await asyncio.sleep(0)  # the turn ends
            assert ann._running()._schedule_asked < 0
            await until(lambda: not ann._store.objects, "it has ended")

    asyncio.run(story())
