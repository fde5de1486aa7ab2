"""Is a write that has no number yet like any other to whoever reads, writes, or hears of it?

Not here: what the engine makes of the writes of a turn (tests/protocol/test_replication.py, and the simulated world).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

import gossip
from crdt import Batch, LWWMap, Store, Write, decode_batch, encode_batch, encode_element
from gossip.answers import explained
from gossip.drafts import MOST, MOST_BYTES
from gossip.protocol.messages import Push
from gossip.protocol.replication import Replication
from gossip.protocol.settings import Settings
from tests.crdt.test_cut_short import cut_short
from tests.waiting import nodes, until


def logged(node: gossip.Node) -> list[Batch]:
    """The batches that this node has written."""
    replication = node._running().engine.replication
    entries = replication.log.since(replication.replica, 0, replication.flushed)
    return [decode_batch(entry.payload) for entry in entries or ()]


def test_a_hot_key_costs_one_write_a_turn(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            numbers = ann.map("m", int)
            for number in range(10_000):
                numbers["k"] = number
                assert numbers["k"] == number, "and whoever reads it sees the newest at once"
            await until(lambda: bob.map("m", int).get("k") == 9_999)
            assert [(batch.first, batch.last, len(batch.writes)) for batch in logged(ann)] == [(1, 1, 1)]
            assert ann.status()["coalesced"] == 9_999

    asyncio.run(story())


READINGS: dict[str, Callable[[gossip.Node], Any]] = {
    "a key": lambda node: node.map("m")["k"] == 1,
    "whether there is a key": lambda node: "k" in node.map("m"),
    "how many": lambda node: len(node.map("m")) == 1,
    "keys": lambda node: list(node.map("m")) == ["k"],
    "items": lambda node: dict(node.map("m").items()) == {"k": 1},
    "values": lambda node: list(node.map("m").values()) == [1],
    "entry": lambda node: node.map("m").entry("k").author == node.me.instance,
    "repr": lambda node: "1 key" in repr(node.map("m")),
    "edit": lambda node: edited(node) == 1,
    "pop": lambda node: node.map("m").pop("k") == 1,
    "an element": lambda node: "e" in node.set("s"),
    "elements": lambda node: set(node.set("s")) == {"e"},
    "entry of a set": lambda node: node.set("s").entry("e").author == node.me.instance,
    "register": lambda node: node.register("r").value == "v",
    "entry of a register": lambda node: node.register("r").entry().value == "v",  # type: ignore[union-attr]
    "conflicts": lambda node: node.register("r").conflicts == (),
    "touch": lambda node: node.map("m").touch("k", ttl=60) is None,
    "a counter": lambda node: node.counter("c").value == 3,
    "parts of a counter": lambda node: node.counter("c").parts() == {node.me.instance: 3},
    "counters": lambda node: node.counters("d").totals() == {"x": 2} and len(node.counters("d")) == 1,
    "whether there is a counter": lambda node: "x" in node.counters("d"),
    "an explanation": lambda node: explained(node, {"do": "explain", "object": "r"})[0]["author"] == node.me.name,
}


def edited(node: gossip.Node) -> int:
    with node.map("m").edit("k") as value:
        return int(value)


@pytest.mark.parametrize("reading", READINGS)
def test_whoever_reads_sees_what_was_written_just_before(cluster: str, reading: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            node.map("m")["k"] = 1
            node.set("s").add("e")
            node.register("r").set("v")
            node.counter("c").increment(3)
            node.counters("d")["x"].increment(2)
            assert len(node._drafts) == 5
            assert READINGS[reading](node)

    asyncio.run(story())


def test_a_turn_that_was_only_drafts_is_read_whole(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            empty = node.token
            node.map("m")["k"] = 1
            first = node.token
            assert first != empty, "a token has what was written just before"
            node.set("s").add("e")
            node.register("r").set("v")
            status = node.status()
            assert status["writes_delivered"] == 3 and len(status["objects"]) == 3
            node.map("m")["late"] = 2
            assert (await node.snapshot()).contents("m", "map") == {"k": 1, "late": 2}
            await node.sync(peers=0, timeout=5)

    asyncio.run(story())


def test_writes_leave_in_the_order_in_which_they_were_made_last(cluster: str) -> None:
    """A key that is written again goes to the end: nobody sees it at a peer before what was written earlier."""

    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            rng, numbers = Random(1), ann.map("m", int)
            for number in range(MOST * 3):
                numbers[f"k{rng.randrange(MOST)}"] = number
            await until(lambda: bob.map("m", int) == numbers)
            writes = [write for batch in logged(ann) for write in batch.writes]
            stamps = [write.stamp for write in writes]
            assert stamps == sorted(stamps)
            assert len(writes) < MOST * 3, "or none was replaced"

    asyncio.run(story())


def test_a_turn_that_writes_without_end_holds_a_bounded_number_of_drafts(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            for number in range(3 * MOST):
                node.map("m", int)[f"k{number}"] = number
                assert len(node._drafts) < MOST
            text = "x" * (MOST_BYTES // 4)
            for number in range(10):
                node.map("large")[f"k{number}"] = text
                assert sum(len(draft[3]) for draft in node._drafts.values()) < MOST_BYTES
            assert len(node.map("m")) == 3 * MOST and len(node.map("large")) == 10

    asyncio.run(story())


def test_a_draft_names_nothing_that_came_after_it(cluster: str) -> None:
    """Whoever wrote it has not seen that: both stay, as of writes that crossed."""

    async def story() -> None:
        async with gossip.Node(cluster) as ann:
            cat, store = 77, Store()
            write = LWWMap(store, "m").set("k", "cat", cat, ann._running().engine.stamp(1))
            packet = ann._running().engine.codec.encode(cat, Push((encode_batch(Batch(cat, 1, 1, (write,))),)))
            ann.map("m")["k"] = "ann"
            assert ann._drafts
            ann._running()._receive(packet, True, None, None)
            entry = ann.map("m").entry("k")
            assert {entry.value, *entry.conflicts} == {"ann", "cat"}

    asyncio.run(story())


def test_a_batch_has_nothing_in_it_that_was_written_before(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            m = ann.map("m")
            m["before"] = 1
            with ann.batch(note="for the test"):
                m["in it"] = 2
                m["in it too"] = 3
            m["after"] = 4
            await until(lambda: len(bob.map("m")) == 4)
            told = [(len(batch.writes), batch.note is not None) for batch in logged(ann)]
            assert told == [(1, False), (2, True), (1, False)]
            assert bob.map("m").entry("before").note is None and bob.map("m").entry("in it").note == "for the test"

    asyncio.run(story())


def test_who_reads_in_another_thread_never_sees_a_key_go_back(cluster: str) -> None:
    """Drafts are replaced, settled and forgotten under his eyes, and he takes no lock."""
    with gossip.Node(cluster) as node:
        numbers = node.map("m", int)
        numbers["k"] = 0
        seen, over = [0], threading.Event()

        def read() -> None:
            while not over.is_set():
                now = numbers["k"]
                if now != seen[-1]:
                    seen.append(now)

        reader = threading.Thread(target=read)
        reader.start()
        number, deadline = 0, time.monotonic() + 30
        try:
            while len(seen) < 100 and time.monotonic() < deadline:  # the scheduler says how soon that is
                number += 1
                numbers["k"] = number
                if number % 7 == 0:
                    assert len(numbers) == 1  # which has them settled
        finally:
            over.set()
            reader.join()
        assert seen == sorted(seen) and len(seen) >= 100


def test_what_was_written_before_a_watch_began_is_present_and_no_change(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            node.map("m")["before"] = 1
            async with node.map("m").watch() as changes:
                node.map("m")["after"] = 2
                told = [(change.kind, change.key) for change in [await anext(changes) for _ in range(3)]]
                assert told == [("present", "before"), ("complete", None), ("set", "after")]

    asyncio.run(story())


def test_a_node_that_leaves_hands_over_its_drafts(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            ann.map("m")["last"] = "words"
            await ann.leave()
            await until(lambda: bob.map("m").get("last") == "words")

    asyncio.run(story())


def test_a_draft_that_has_ended_is_not_seen(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            node.map("m")["k"] = "old"
            assert len(node.map("m")) == 1
            node.map("m").set("k", "new", ttl=0.001)
            draft = next(iter(node._drafts.values()))
            while node._running().engine.stamp(0) >= 0 and draft[4] > 0 and node.map("m").get("k") == "new":
                pass  # without a turn of the loop
            assert "k" not in node.map("m") and len(node.map("m")) == 0

    asyncio.run(story())


def test_a_batch_of_drafts_is_one_step_with_its_note(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            m, told = ann.map("m", int), []
            with ann.batch(note="outer"):
                for number in range(300):
                    m[f"k{number}"] = number
                m["k0"] = -1
                assert len(m) == 300, "which has them settled in the middle"
                with ann.batch(note="inner"):
                    m["inner"] = 1
                m["last"] = 2
                ann.counter("c").increment()
            assert not ann._drafts
            await until(lambda: bob.map("m", int) == m)
            told = [(len(batch.writes), batch.open, batch.note and batch.note.text) for batch in logged(ann)]
            assert [(more, note) for _, more, note in told] == [(True, "outer"), (True, "inner"), (False, "outer")]
            assert bob.map("m").entry("inner").note == "inner" and bob.map("m").entry("last").note == "outer"
            assert bob.counter("c").value == 1

    asyncio.run(story())


def test_a_batch_of_drafts_is_refused_before_it_is_too_large(cluster: str) -> None:
    """To the byte: those that might be too large, with the longest of all names, are counted exactly."""

    async def story() -> None:
        async with gossip.Node(cluster, max_transaction=100_000) as node:
            m, text, made = node.map("m", str), "x" * 1_000, 0
            with pytest.raises(ValueError, match="would become larger"), node.batch(author="ann"):
                while True:
                    m[f"k{made}"] = text
                    made += 1
            assert len(m) == made == (100_000 - 500 - 16 - 3) // (64 + 1 + 4 + 1003)

    asyncio.run(story())


def test_the_note_of_a_batch_that_was_refused_is_not_that_of_what_comes_after_it(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster, max_transaction=100_000) as node:
            m = node.map("m")
            with pytest.raises(ValueError, match="would become larger"), node.batch(author="ann", note="too much"):
                m["large"] = "x" * 100_000
            m["plain"] = 1
            entry = m.entry("plain")
            assert (entry.by, entry.note) == (None, None)

    asyncio.run(story())


@pytest.mark.parametrize("gathered", range(3))
def test_drafts_of_which_a_part_was_gathered_when_it_was_cut_short_are_all_written_once_more(gathered: int) -> None:
    """And none takes the place of another: whoever is told of the batch has all of them."""

    class Interrupted(list[Write | None]):
        def append(self, write: Write | None) -> None:
            if len(self) == 1 + gathered and not over:
                over.append(True)
                raise KeyboardInterrupt
            super().append(write)

    over: list[bool] = []
    ann, told = Replication(Store(), Settings(), 7), Store()
    drafts = [((1, "m", encode_element(key)), (stamp, 7, 0, b"\x01", 0, None)) for stamp, key in enumerate("xabc", 1)]
    ann.put([drafts.pop(0)])  # those of a turn that nothing was gathered of before are gathered in one step
    ann._gathered = Interrupted(ann._gathered)
    with pytest.raises(KeyboardInterrupt):
        ann.put(drafts)
    ann.put(drafts)
    for payload in ann.flush():
        told.merge_batch(decode_batch(payload))
    assert told.state() == ann.store.state() and told.fingerprint == ann.store.fingerprint


def test_a_thread_reads_and_watches_its_own_batch_in_order(cluster: str) -> None:
    """What was numbered in the middle of a batch is told before what was a draft at its end, of one key too."""

    async def story() -> None:
        async with gossip.Node(cluster) as node, node.map("m", int).watch() as changes:
            assert (await anext(changes)).kind == "complete"
            with node.batch():
                node.map("m", int)["k"] = 1
                assert len(node.map("m", int)) == 1
                node.map("m", int)["k"] = 2
            change = await anext(changes)
            assert (change.key, change.value) == ("k", 2)

    asyncio.run(story())


def test_who_is_cut_short_while_he_writes_a_draft_leaves_all_in_order(cluster: str) -> None:
    """At any line: a draft that was not counted let another one that was replaced leave in the place of its first."""

    async def story() -> None:
        async with gossip.Node(cluster) as node:
            shared, event, was_cut = node.map("m"), 0, True
            while was_cut:
                event += 1
                shared["a"] = 1
                was_cut = cut_short(lambda: shared.__setitem__("b", 2), event)
                shared["a"] = 3
                stamps = [draft[0] for _, draft in node._drafts.in_order()]
                assert stamps == sorted(stamps), f"cut short at event {event}"
                await asyncio.sleep(0)
            assert event > 20

    asyncio.run(story())
