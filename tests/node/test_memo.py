"""Does a map that was read before give what one gives that never was?

A handle that was just made remembers nothing, so it says what must be read. Not here: what that should be
(test_handles, test_drafts, test_expiry).
"""

from __future__ import annotations

import asyncio
import enum
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import pydantic
import pytest

import gossip
from crdt import FOREVER, Batch, LWWMap, Store, encode_element, encode_value
from gossip import memo
from gossip.memo import LONGEST, MOST, PATIENCE, Memo
from tests.waiting import nodes, until

GONE = "nothing"
KEYS = [*"abcdef", "a" * 127, "a" * 200]
VALUES = [None, True, 0, 1, -3, 1 << 40, 2.5, "", "text", b"bytes", "long" * 100, [1, 2], {"a": [1]}]


def read_twice(shared: gossip.Map[Any, Any], *keys: object) -> list[Any]:
    """What a handle gives that has been used: from its second read on it remembers."""
    for key in keys[:1] + keys:
        shared.get(key)
    return [shared[key] for key in keys]


def value_in(shared: gossip.Map[Any, Any], key: object) -> Any:
    """What is remembered of a key: `GONE` if that is nothing."""
    return shared._memo[key][2] if key in shared._memo else GONE


def alike(one: object, other: object) -> bool:
    return type(one) is type(other) and one == other


def changed(chance: Random, node: gossip.Node, shared: gossip.Map[str, Any]) -> None:
    """One of all that can happen to a map."""
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
            for _ in range(120):
                if chance.random() < 0.6:
                    changed(chance, *chance.choice(list(zip(made, maps, strict=True))))
                if chance.random() < 0.3:
                    await asyncio.sleep(0)
                if chance.random() < 0.05:
                    await until(lambda: made[0].seen == made[1].seen, "both have the same")
                if chance.random() < 0.02:
                    await made[0].leave()
                    await made[0].start()
                for node, shared in zip(made, maps, strict=True):
                    for key in chance.sample(KEYS, 3):
                        kept = shared._memo.get(key)
                        hits += kept is not None and shared._memo.elements.get(kept[0]) is kept[1]
                        before = node.map("m").get(key, GONE)
                        read = shared.get(key, GONE)
                        after = node.map("m").get(key, GONE)  # what ends may have ended between the two
                        assert alike(read, before) or alike(read, after), seed

    for seed in range(12):
        asyncio.run(story(seed))
    assert hits > 500, "or the memo had nothing to say"


def test_a_node_that_starts_anew_has_forgotten_what_was_read(cluster: str) -> None:
    async def story() -> None:
        node = gossip.Node(cluster)
        flags = node.map("flags")
        await node.start()
        flags["beta"] = True
        await asyncio.sleep(0)
        assert read_twice(flags, "beta") == [True] and value_in(flags, "beta") is True
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
    "another's state": lambda store, flags: store.merge_state(deleted(store).state()),
    "a drop": lambda store, flags: store.drop(mortal(store, flags), now=99, gone=()),
}


def deleted(store: Store) -> Store:
    """A store that has delivered the same, and a delete."""
    other = Store()
    other.merge_state(store.state())
    other.merge(LWWMap(other, "flags").delete("beta", replica=8, stamp=3))  # type: ignore[arg-type]
    return other


def mortal(store: Store, flags: LWWMap) -> tuple[int, str, bytes]:
    """The key, of which what is live ends from here on."""
    key = next((*flags.name, element) for element in store.elements(flags.name))
    store.merge(store.write(key, b"\xc3", 7, 2, expires=70))
    return key


@pytest.mark.parametrize("end", ENDS)
def test_the_elements_of_an_object_that_ended_are_empty_for_whoever_still_has_them(end: str) -> None:
    store = Store()
    flags = LWWMap(store, "flags")
    store.merge(flags.set("beta", True, replica=7, stamp=1))
    elements = store.elements(flags.name)
    assert len(elements) == 1
    ENDS[end](store, flags)
    assert not elements and store.elements(flags.name) is not elements


def test_a_clear_leaves_the_elements_of_no_object() -> None:
    store = Store()
    for name in ("flags", "users"):
        store.merge(LWWMap(store, name).set("beta", True, replica=7, stamp=1))
    held = [store.elements((1, name)) for name in ("flags", "users")]
    store.clear()
    assert held == [{}, {}]


def test_who_still_has_the_elements_of_an_object_that_ended_has_no_table_of_them() -> None:
    store = Store()
    flags = LWWMap(store, "flags")
    for number in range(1_000):
        store.merge(flags.set(str(number), True, replica=7, stamp=number + 1))
    elements = store.elements(flags.name)
    for number in range(1_000):
        store.merge(flags.delete(str(number), replica=7, stamp=2_000 + number))  # type: ignore[arg-type]
    assert sys.getsizeof(elements) == sys.getsizeof({})


def lose(store: Store, flags: LWWMap) -> None:
    """What was delivered is not there any more, and another has it still."""
    other = Store()
    other.merge_state(store.state())
    del store.objects[flags.name][encode_element("beta")]
    assert len(store.adopt(other.state())) == 1


def expire(store: Store, flags: LWWMap) -> None:
    key = (*flags.name, encode_element("beta"))
    store.merge(store.write(key, encode_value(False), 7, 3, expires=70))
    assert store.drop(key, 70, ())


def merge_another(store: Store, flags: LWWMap) -> None:
    other = Store()
    other.merge_state(store.state())
    other.merge(LWWMap(other, "flags").set("beta", False, replica=8, stamp=3))
    assert store.merge_state(other.state())


CHANGES: dict[str, Callable[[Store, LWWMap], object]] = {
    "a write": lambda store, flags: store.merge(flags.set("beta", False, replica=7, stamp=3)),
    "a turn": lambda store, flags: store.put_all(
        [((*flags.name, encode_element("beta")), (3, 7, 0, encode_value(False), FOREVER, None))], 7
    ),
    "a batch": lambda store, flags: store.merge_batch(Batch(7, 3, 3, (flags.set("beta", False, replica=7, stamp=3),))),
    "another's state": merge_another,
    "what was lost": lose,
    "an end": expire,
}


@pytest.mark.parametrize("change", CHANGES)
def test_as_long_as_an_object_has_elements_they_are_in_one_dict(change: str) -> None:
    store = Store()
    flags = LWWMap(store, "flags")
    for stamp, key in enumerate(("beta", "sale"), 1):
        store.merge(flags.set(key, True, replica=7, stamp=stamp))
    elements = store.elements(flags.name)
    CHANGES[change](store, flags)
    assert store.elements(flags.name) is elements


def test_who_counts_what_is_there_while_the_node_starts_anew_is_told_no_key(cluster: str) -> None:
    """A store that is cleared empties the elements that a reader has in hand, and had not emptied the list of the
    mortal."""
    reached, go_on = threading.Event(), threading.Event()

    class Mortal(dict[Any, Any]):
        def get(self, name: Any, default: Any = None) -> Any:
            keys = super().get(name, default)
            if threading.current_thread() is not threading.main_thread() and not reached.is_set():
                reached.set()
                go_on.wait(10)
            return keys

    async def story() -> None:
        node = gossip.Node(cluster)
        await node.start()
        things = node.map("m")
        things.set("k", 1, ttl=60)
        await asyncio.sleep(0)
        node._store.mortal = Mortal(node._store.mortal)
        count = asyncio.create_task(asyncio.to_thread(len, things))
        await until(reached.is_set, "it has in its hand what it counts")
        node._store.clear()  # as a start does
        go_on.set()
        assert await count in (0, 1)
        await node.leave()

    asyncio.run(story())


class Settling(dict[bytes, Any]):
    """Elements of which a thread that reads one is interrupted by another that settles, before it goes on."""

    def __init__(self, node: gossip.Node, elements: Mapping[bytes, Any]) -> None:
        super().__init__(elements)
        self._node = node

    def get(self, element: bytes, default: Any = None) -> Any:
        live = super().get(element, default)
        self._node._settled()
        return live


def test_a_reader_looks_for_a_draft_before_he_looks_at_what_is_live(cluster: str) -> None:
    """In the other order he finds the old write, then no draft any more, and goes back."""

    async def story() -> None:
        async with gossip.Node(cluster) as node:
            numbers = node.map("m", int)
            numbers["k"] = 1
            await asyncio.sleep(0)
            assert read_twice(numbers, "k") == [1]
            numbers._memo.elements = Settling(node, numbers._memo.elements)
            numbers["k"] = 2
            assert numbers["k"] == 2

    asyncio.run(story())


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


class Lower(pydantic.RootModel[str]):
    """A key that is another one when it is packed."""

    model_config = pydantic.ConfigDict(frozen=True)

    @pydantic.field_validator("root")
    @classmethod
    def low(cls, text: str) -> str:
        return text.lower()


def test_a_key_that_its_type_changes_is_not_remembered_as_it_was_said(cluster: str) -> None:
    """It was looked up as `ann` first, and as `Ann` ever after."""

    async def story() -> None:
        async with gossip.Node(cluster) as node:
            raw, typed = node.map("m"), node.map("m", key=Lower)
            raw["ann"], raw["Ann"] = "lower", "upper"
            await asyncio.sleep(0)
            assert [typed["Ann"] for _ in range(4)] == ["lower"] * 4  # type: ignore[index]

    asyncio.run(story())


def test_what_is_read_again_is_not_unpacked_again(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            flags = node.map("flags")
            flags["beta"], flags["sale"] = None, [1]
            await asyncio.sleep(0)
            assert read_twice(flags, "beta", "sale") == [None, [1]]
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


def test_a_handle_that_is_used_once_remembers_nothing(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            node.map("flags")["beta"] = True
            await asyncio.sleep(0)
            flags = node.map("flags")
            assert flags["beta"] is True and not flags._memo
            assert flags["beta"] is True and list(flags._memo) == ["beta"]

    asyncio.run(story())


def test_what_is_read_twice_is_the_readers_own(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            carts = node.map("carts")
            carts["ann"] = [1]
            await asyncio.sleep(0)
            for _ in range(4):
                carts["ann"].append(2)
            assert carts["ann"] == [1] and value_in(carts, "ann") is None

    asyncio.run(story())


def test_a_program_can_read_only_what_its_type_allows_however_often(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            anything, numbers, floats = node.map("m"), node.map("m", int), node.map("m", float)
            anything["k"] = "text"
            await asyncio.sleep(0)
            for _ in range(4):
                assert anything["k"] == "text"
                with pytest.raises(gossip.WrongType):
                    numbers["k"]
            numbers["k"] = 7
            await asyncio.sleep(0)
            for _ in range(4):  # which a float map takes as it is
                assert (anything["k"], numbers["k"], floats["k"]) == (7, 7, 7)
            anything["k"] = "text"  # of a key that was remembered
            await asyncio.sleep(0)
            for _ in range(4):
                with pytest.raises(gossip.WrongType):
                    numbers["k"]

    asyncio.run(story())


def test_readers_in_threads_never_go_back(cluster: str) -> None:
    """A reader sees a number that only grows, while the loop writes, settles and ends it again and again."""
    wrong: list[tuple[int, int]] = []
    seen = [0, 0, 0]

    async def story() -> None:
        async with gossip.Node(cluster) as node:
            numbers, over = node.map("m", int), threading.Event()
            numbers["k"] = 0

            def read(reader: int) -> None:
                last = 0
                while not over.is_set():
                    now = numbers.get("k", last)
                    if now < last:
                        wrong.append((last, now))
                    seen[reader] += now != last
                    last = now

            threads = [threading.Thread(target=read, args=(reader,)) for reader in range(3)]
            for thread in threads:
                thread.start()
            number, deadline = 0, time.monotonic() + 20
            while min(seen) < 100 and not wrong and time.monotonic() < deadline:
                number += 1
                numbers["k"] = number
                if number % 3 == 0:
                    await asyncio.sleep(0)
                if number % 50 == 0:
                    del numbers["k"]
            over.set()
            for thread in threads:
                thread.join()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # or they take turns a few times in all
    try:
        asyncio.run(story())
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
    assert min(seen) >= 100, "they saw it grow"


# -- how much is remembered, and for how long ---------------------------------------------------------------------


def test_a_memo_is_bounded_and_begins_anew_when_other_keys_matter() -> None:
    kept, store = Memo(frozenset({int})), Store()
    flags = LWWMap(store, "flags")
    store.merge(flags.set("k", 1, replica=7, stamp=1))
    live = flags.live("k")
    assert isinstance(live, bytes)
    for number in range(-1, MOST + PATIENCE - 1):
        kept.keep(f"key-{number}", live, 1, flags)
    assert len(kept) == MOST and "key-0" in kept and f"key-{MOST}" not in kept
    kept.keep("key-0", live, 2, flags)  # one that it has may change
    assert kept["key-0"][2] == 2 and len(kept) == MOST
    kept.keep("another", live, 1, flags)
    assert list(kept) == ["another"]


def test_a_memo_that_began_anew_is_as_patient_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memo, "MOST", 2)
    monkeypatch.setattr(memo, "PATIENCE", 3)
    kept, flags = Memo(frozenset({int})), LWWMap(Store(), "flags")
    for number in range(-1, 5):
        kept.keep(f"key-{number}", b"a write", 1, flags)
    assert list(kept) == ["key-4"]
    kept.keep("key-5", b"a write", 1, flags)
    kept.keep("key-6", b"a write", 1, flags)
    assert list(kept) == ["key-4", "key-5"], "one read in vain is not reason enough"


def test_a_memo_takes_no_more_than_so_many_bytes() -> None:
    """Of the longest keys and values that it takes, in the widest characters."""
    wide, flags, kept = "\U0001f600", LWWMap(Store(), "flags"), Memo(frozenset({str}))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(1_001):
            kept.keep(f"{number:04}".ljust(127, wide), bytes(LONGEST), wide * 30 + f"{number:04}", flags)
        assert len(kept) == 1_000
        assert 1_500 < (tracemalloc.get_traced_memory()[0] - before) / 1_000 < 2_100
    finally:
        tracemalloc.stop()


def test_neither_a_long_value_nor_a_long_key_is_there_twice(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            texts, key = node.map("texts"), "k" * 128
            texts["short"], texts["long"], texts["grown"], texts[key] = "x" * 100, "x" * LONGEST, "x", "y"
            await asyncio.sleep(0)
            assert read_twice(texts, "short", "long", "grown", key) == ["x" * 100, "x" * LONGEST, "x", "y"]
            assert [value_in(texts, each) for each in ("short", "long", "grown", key)] == ["x" * 100, None, "x", GONE]
            texts["grown"] = "x" * LONGEST
            await asyncio.sleep(0)
            assert texts["grown"] == "x" * LONGEST and value_in(texts, "grown") is None, "what it was is forgotten"

    asyncio.run(story())


FORGETTING: dict[str, Callable[[gossip.Map[str, str]], object]] = {
    "pop": lambda secrets: secrets.pop("t"),
    "del": lambda secrets: secrets.__delitem__("t"),
    "clear": lambda secrets: secrets.clear(),
    "popitem": lambda secrets: secrets.popitem(),
}


@pytest.mark.parametrize("way", FORGETTING)
def test_a_secret_that_was_deleted_is_not_remembered(cluster: str, way: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            secrets, elsewhere = ann.map("secrets", str), bob.map("secrets", str)
            secrets["t"] = "secret"
            await until(lambda: "t" in elsewhere)
            assert read_twice(secrets, "t") == read_twice(elsewhere, "t") == ["secret"]
            FORGETTING[way](secrets)
            assert "t" not in secrets and value_in(secrets, "t") == GONE
            await until(lambda: elsewhere.get("t") is None)
            assert value_in(elsewhere, "t") == GONE, "whoever looks for it forgets it as well"

    asyncio.run(story())


def test_a_queue_whose_keys_are_read_once_does_not_fill_the_memo(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            queue = node.map("queue", int)
            for start in range(0, 2_000, 500):
                queue.update({f"job-{number}": number for number in range(start, start + 500)})
                assert [queue.pop(f"job-{number}") for number in range(start, start + 500)]
            assert len(queue._memo) == 0

    asyncio.run(story())


def test_a_map_that_ended_leaves_nothing_to_the_next_of_its_name(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            here, there = ann.map("m", int), bob.map("m", int)
            here.update(a=1, b=2)
            await until(lambda: len(there) == 2)
            assert read_twice(there, "a", "b") == [1, 2]
            here.clear()
            here["c"] = 3
            await until(lambda: list(there) == ["c"])
            assert there["c"] == 3 and list(there._memo) == ["c"]

    asyncio.run(story())


def test_what_is_read_of_a_map_that_ended_and_began_anew_is_remembered(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            flags = node.map("flags")
            for _ in range(2):
                flags["beta"] = True
                await asyncio.sleep(0)
                assert read_twice(flags, "beta") == [True] and value_in(flags, "beta") is True
                assert flags._memo.elements is node._store.elements(flags._view.name)
                del flags["beta"]

    asyncio.run(story())


def test_what_ends_is_never_remembered(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            sessions = node.map("sessions")
            sessions["a"] = 1
            await asyncio.sleep(0)
            assert read_twice(sessions, "a") == [1]
            sessions.set("a", 2, ttl=0.05)
            await asyncio.sleep(0)
            live = node._store.shown((*sessions._view.name, b"\xa1a"))
            assert isinstance(live, tuple) and live[4] != FOREVER
            assert [sessions["a"] for _ in range(3)] == [2, 2, 2] and value_in(sessions, "a") in (1, GONE)
            await until(lambda: "a" not in sessions)
            with pytest.raises(KeyError):
                sessions["a"]
            assert value_in(sessions, "a") == GONE

    asyncio.run(story())
