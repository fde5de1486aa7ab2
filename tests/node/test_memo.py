"""Does a map that was read before give what one gives that never was?

A handle that was just made remembers nothing, so it says what must be read. Not here: what that should be
(test_handles, test_drafts, test_expiry).
"""

from __future__ import annotations

import asyncio
import enum
import threading
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

import gossip
from crdt import LWWMap, Store
from gossip import memo
from gossip.memo import LONGEST, MOST, PATIENCE, Memo
from tests.waiting import nodes, until

GONE = "nothing"
KEYS = [*"abcdef", "a" * 127, "a" * 200]
VALUES = [None, True, 0, 1, -3, 1 << 40, 2.5, "", "text", b"bytes", "long" * 100, [1, 2], {"a": [1]}]


def alike(read: object, fresh: object) -> bool:
    return type(read) is type(fresh) and read == fresh


def test_whatever_happens_a_map_that_was_read_gives_what_a_fresh_one_does(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memo, "MOST", 4)
    monkeypatch.setattr(memo, "PATIENCE", 7)
    hits = 0

    async def story(seed: int) -> None:
        nonlocal hits
        chance = Random(seed)
        async with nodes(f"{cluster}-{seed}") as made:
            maps = [node.map("m") for node in made]

            def change(node: gossip.Node, shared: gossip.Map[str, Any]) -> None:
                key, value = chance.choice(KEYS), chance.choice(VALUES)
                match chance.randrange(9):
                    case 0 | 1 | 2:
                        shared[key] = value
                    case 3:
                        shared.set(key, value, ttl=chance.choice((0.001, 60)))
                    case 4:
                        shared.set(key, value, owned=True)
                    case 5:
                        shared.pop(key, None)
                    case 6:
                        shared.clear()
                    case 7:
                        with node.batch():
                            shared.update(dict.fromkeys(KEYS, value))
                    case 8:
                        list(shared.items())

            for _ in range(120):
                if chance.random() < 0.6:
                    change(*chance.choice(list(zip(made, maps, strict=True))))
                if chance.random() < 0.3:
                    await asyncio.sleep(0)
                if chance.random() < 0.05:
                    await until(lambda: made[0].seen == made[1].seen, "both have the same")
                for node, shared in zip(made, maps, strict=True):
                    for key in chance.sample(KEYS, 3):
                        hits += key in shared._memo
                        read, fresh = shared.get(key, GONE), node.map("m").get(key, GONE)
                        # what ends may have ended between the two
                        assert alike(read, fresh) or alike(shared.get(key, GONE), node.map("m").get(key, GONE)), seed

    for seed in range(12):
        asyncio.run(story(seed))
    assert hits > 1000, "or the memo had nothing to say"


def test_a_node_that_starts_anew_has_forgotten_what_was_read(cluster: str) -> None:
    async def story() -> None:
        node = gossip.Node(cluster)
        flags = node.map("flags")
        await node.start()
        flags["beta"] = True
        await asyncio.sleep(0)
        assert flags["beta"] is True and "beta" in flags._memo
        await node.leave()
        with pytest.raises(gossip.NotRunning):
            flags["beta"]
        await node.start()
        with pytest.raises(KeyError):  # a store that is cleared left its old dict full, in which the memo looked
            flags["beta"]
        await node.leave()

    asyncio.run(story())


ENDS: dict[str, Callable[[Store, LWWMap], object]] = {
    "a delete": lambda store, flags: store.merge(flags.delete("beta", replica=7, stamp=2)),  # type: ignore[arg-type]
    "a clear": lambda store, flags: store.clear(),
    "another's state": lambda store, flags: store.merge_state(deleted(store, flags).state()),
}


def deleted(store: Store, flags: LWWMap) -> Store:
    """A store that has delivered the same, and a delete."""
    other = Store()
    other.merge_state(store.state())
    other.merge(LWWMap(other, "flags").delete("beta", replica=8, stamp=3))  # type: ignore[arg-type]
    return other


@pytest.mark.parametrize("end", ENDS)
def test_the_elements_of_an_object_that_ended_are_empty_for_whoever_still_has_them(end: str) -> None:
    store = Store()
    flags = LWWMap(store, "flags")
    store.merge(flags.set("beta", True, replica=7, stamp=1))
    elements = store.elements(flags.name)
    assert len(elements) == 1
    ENDS[end](store, flags)
    assert not elements and store.elements(flags.name) is not elements


def test_a_key_that_equals_a_remembered_one_is_still_another_key(cluster: str) -> None:
    class Name(enum.StrEnum):
        BETA = "beta"

    async def story() -> None:
        async with gossip.Node(cluster) as node:
            flags, anything = node.map("flags"), node.map("things", key=object)
            flags["beta"] = 1
            anything["1"], anything[1], anything[True], anything[1.0] = "text", "int", "bool", "float"
            for _ in range(3):
                assert flags["beta"] == 1
                assert [anything[key] for key in ("1", 1, True, 1.0)] == ["text", "int", "bool", "float"]
                with pytest.raises(KeyError):
                    flags[Name.BETA]  # equal to a key that is remembered, and no key of this map
                with pytest.raises(KeyError):
                    flags[["no key"]]  # type: ignore[index]
                await asyncio.sleep(0)
            assert list(anything._memo) == ["1"]

    asyncio.run(story())


def test_what_is_read_again_is_not_unpacked_again(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            flags = node.map("flags")
            flags["beta"], flags["sale"] = None, [1]
            await asyncio.sleep(0)
            assert flags["beta"] is None and flags["sale"] == [1]
            flags["beta"] = True
            await asyncio.sleep(0)
            assert flags["beta"] is True, "the first since it was written"
            monkeypatch.setattr("gossip.shared.decode_value", lambda encoded: "unpacked")
            assert flags["beta"] is True and flags["sale"] == "unpacked"
            flags["sale"] = True  # another key changes nothing
            assert flags["beta"] is True and flags["sale"] == "unpacked"
            flags["beta"] = False
            assert flags["beta"] == "unpacked"

    asyncio.run(story())


def test_what_is_read_twice_is_the_readers_own(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            carts = node.map("carts")
            carts["ann"] = [1]
            await asyncio.sleep(0)
            carts["ann"].append(2)
            carts["ann"].append(3)
            assert carts["ann"] == [1] and carts._memo["ann"][1:] == (b"", None)

    asyncio.run(story())


def test_a_program_can_read_only_what_its_type_allows_however_often(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            anything, numbers = node.map("m"), node.map("m", int)
            anything["k"] = "text"
            await asyncio.sleep(0)
            for _ in range(3):
                assert anything["k"] == "text"
                with pytest.raises(gossip.WrongType):
                    numbers["k"]
            floats = node.map("m", float)
            numbers["k"] = 7
            await asyncio.sleep(0)
            for _ in range(3):  # which a float map takes as it is
                assert (anything["k"], numbers["k"], floats["k"]) == (7, 7, 7)
            anything["k"] = "text"  # of a key that was remembered
            await asyncio.sleep(0)
            for _ in range(3):
                with pytest.raises(gossip.WrongType):
                    numbers["k"]

    asyncio.run(story())


def test_readers_in_threads_never_go_back(cluster: str) -> None:
    """A reader sees a number that only grows, while the loop writes it and settles it again and again."""
    wrong: list[tuple[int, int]] = []

    async def story() -> None:
        async with gossip.Node(cluster) as node:
            numbers, over = node.map("m", int), threading.Event()
            numbers["k"] = 0

            def read() -> None:
                last = 0
                while not over.is_set():
                    now = numbers["k"]
                    if now < last:
                        wrong.append((last, now))
                    last = now

            threads = [threading.Thread(target=read) for _ in range(3)]
            for thread in threads:
                thread.start()
            for number in range(3_000):
                numbers["k"] = number
                if number % 3 == 0:
                    await asyncio.sleep(0)
            over.set()
            for thread in threads:
                thread.join()

    asyncio.run(story())
    assert not wrong


def test_a_memo_is_bounded_and_begins_anew_when_other_keys_matter() -> None:
    kept, store = Memo(frozenset({int})), Store()
    flags = LWWMap(store, "flags")
    store.merge(flags.set("k", 1, replica=7, stamp=1))
    live, elements = flags.live("k"), store.elements(flags.name)
    assert isinstance(live, bytes)
    for number in range(MOST + PATIENCE - 1):
        kept.keep(f"key-{number}", live, 1, elements)
    assert len(kept) == MOST and "key-0" in kept and f"key-{MOST}" not in kept
    kept.keep("key-0", live, 2, elements)  # one that it has may change
    assert kept["key-0"][2] == 2 and len(kept) == MOST
    kept.keep("another", live, 1, elements)
    assert list(kept) == ["another"]


def test_a_long_value_is_not_there_twice(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            texts = node.map("texts")
            texts["short"], texts["long"], texts["grown"] = "x" * 100, "x" * LONGEST, "x"
            await asyncio.sleep(0)
            assert [len(texts[key]) for key in ("short", "long", "grown")] == [100, LONGEST, 1]
            texts["grown"] = "x" * LONGEST
            await asyncio.sleep(0)
            assert [len(texts[key]) for key in ("short", "long", "grown")] == [100, LONGEST, LONGEST]
            assert [texts._memo[key][2] for key in ("short", "long", "grown")] == ["x" * 100, None, "x"]

    asyncio.run(story())
