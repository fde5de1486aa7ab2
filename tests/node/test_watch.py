"""What does a watcher see? The present state, then every change, in order per key: late perhaps, never wrong."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC
from typing import Any

import pytest

import gossip
from crdt import Live, Store, Write, encode_element
from crdt.codec import MAP
from tests.waiting import nodes, until, until_here


async def some(changes: gossip.Watch[Any, Any], count: int) -> list[gossip.Change[Any, Any]]:
    """So many changes; the mark after the present state is another test's."""
    told: list[gossip.Change[Any, Any]] = []
    async with asyncio.timeout(10):
        while len(told) < count:
            told += [change for change in [await anext(changes)] if change.kind != "complete"]
    return told


async def unmarked(changes: gossip.Watch[Any, Any]) -> AsyncIterator[gossip.Change[Any, Any]]:
    async for change in changes:
        if change.kind != "complete":
            yield change


def test_the_present_state_comes_first_then_changes(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            flags = ann.map("flags", int)
            flags.update(a=1, b=2)
            async with flags.watch() as changes:
                present = await some(changes, 2)
                assert {(each.key, each.value, each.previous, each.kind) for each in present} == {
                    ("a", 1, None, "present"), ("b", 2, None, "present")
                }  # fmt: skip
                flags["a"] = 3
                (change,) = await some(changes, 1)
                assert (change.key, change.value, change.previous, change.kind) == ("a", 3, 1, "set")
                assert change.author == ann.me.instance and change.stamp == flags.entry("a").stamp
                await until(lambda: "a" in bob.map("flags"))
                del bob.map("flags")["a"]
                (change,) = await some(changes, 1)
                assert (change.key, change.value, change.previous, change.kind) == ("a", None, 3, "deleted")

    asyncio.run(story())


def test_each_type_can_be_watched(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            watches = ann.set("s", str).watch(), ann.counter("c").watch(), ann.register("r").watch()
            async with watches[0] as elements, watches[1] as parts, watches[2] as values:
                bob.set("s", str).add("e")
                bob.counter("c").increment(4)
                bob.register("r").set("v")
                (change,) = await some(elements, 1)
                assert (change.key, change.value, change.previous, change.kind) == ("e", True, False, "set")
                (change,) = await some(parts, 1)
                assert (change.key, change.value, change.previous, change.author) == (None, 4, 0, bob.me.instance)
                (change,) = await some(values, 1)
                assert (change.key, change.value, change.previous, change.kind) == (None, "v", None, "set")
                bob.set("s", str).remove("e")
                (change,) = await some(elements, 1)
                assert (change.key, change.value, change.previous, change.kind) == ("e", False, True, "deleted")
                bob.register("r").delete()
                (change,) = await some(values, 1)
                assert (change.value, change.previous, change.kind) == (None, "v", "deleted")

    asyncio.run(story())


def test_changes_of_a_key_come_in_order_and_its_last_value_is_always_given(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            seen: dict[str, list[int]] = defaultdict(list)
            numbers, there = ann.map("numbers", int), bob.map("numbers", int)

            async def write() -> None:
                for number in range(400):
                    there[f"k{number % 7}"] = number
                    if number % 3 == 0:
                        await asyncio.sleep(0)
                there["end"] = 1

            async with numbers.watch() as changes:
                writing = asyncio.create_task(write())
                async for change in unmarked(changes):
                    if change.key == "end":
                        break
                    assert change.previous == (seen[change.key][-1] if seen[change.key] else None)
                    seen[change.key].append(change.value)
                await writing
            assert all(values == sorted(set(values)) for values in seen.values())
            assert {key: values[-1] for key, values in seen.items()} == {f"k{n % 7}": n for n in range(393, 400)}

    asyncio.run(story())


def test_a_key_that_changes_much_while_nobody_reads_is_one_change(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            numbers = node.map("numbers", int)
            numbers["old"] = 0
            async with numbers.watch() as changes:
                for number in range(1000):
                    numbers["k"] = number
                numbers["x"] = 1
                del numbers["x"]  # nobody saw it come, so nobody need see it go
                del numbers["old"]
                (change,) = await some(changes, 1)
                assert (change.key, change.value, change.previous) == ("k", 999, None)
                numbers["end"] = 1
                assert (await some(changes, 1))[0].key == "end"

    asyncio.run(story())


def test_a_watcher_may_write_what_it_watches(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            numbers = ann.map("numbers", int)
            async with numbers.watch() as changes:
                bob.map("numbers", int)["k"] = 0
                async with asyncio.timeout(10):
                    async for change in unmarked(changes):
                        if change.value == 50:
                            break
                        numbers["k"] = change.value + 1
            await until(lambda: bob.map("numbers", int)["k"] == 50)

    asyncio.run(story())


def test_a_watcher_that_raises_harms_nobody(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            numbers = ann.map("numbers", int)
            async with numbers.watch() as other:
                with pytest.raises(ZeroDivisionError):
                    async with numbers.watch() as changes:
                        bob.map("numbers", int)["k"] = 0
                        async for change in unmarked(changes):
                            1 // change.value
                assert ann.status()["watches"] == 1
                bob.map("numbers", int)["j"] = 1
                assert [each.key for each in await some(other, 2)] == ["k", "j"]

    asyncio.run(story())


def test_a_change_that_a_watch_gives_is_as_one_that_is_made_by_hand(cluster: str) -> None:
    """It is made in another way, which must not show."""

    async def story() -> None:
        async with gossip.Node(cluster) as node:
            numbers = node.map("numbers", int)
            async with numbers.watch() as changes:
                numbers["a"] = 1
                (change,) = await some(changes, 1)
                entry = numbers.entry("a")
                other = gossip.Change("a", 1, None, "set", node.me.instance, entry.stamp, "another source")
                assert type(change) is gossip.Change and change == other and hash(change) == hash(other)
                assert change.source is numbers and repr(change) == repr(other) and change.time == other.time
                assert dataclasses.replace(change, value=2).value == 2
                for name in ("value", "source", "more"):
                    with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
                        setattr(change, name, 2)

    asyncio.run(story())


def test_two_watchers_each_see_everything(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            numbers = node.map("numbers", int)
            async with numbers.watch() as one, numbers.watch() as two:
                numbers["a"] = 1
                assert [each.key for each in await some(one, 1)] == ["a"]
                numbers["b"] = 1
                assert [each.key for each in await some(two, 2)] == ["a", "b"]
                assert [each.key for each in await some(one, 1)] == ["b"]

    asyncio.run(story())


def test_a_watcher_that_never_reads_is_not_given_everything_anew_where_that_is_no_less(cluster: str) -> None:
    """A flood of new keys: begun anew again and again, who reads it would never get through."""

    async def story() -> None:
        async with gossip.Node(cluster, watch_keys=100) as node:
            numbers = node.map("numbers", int)
            async with numbers.watch() as changes:
                for number in range(3000):
                    numbers[str(number % 1000)] = number
                    assert len(changes._unread) <= len(numbers)
                told = await some(changes, 1000)
                assert {each.kind for each in told} == {"set"}
                assert {each.key: each.value for each in told} == dict(numbers)
                assert not changes._unread

    asyncio.run(story())


def test_a_watcher_that_never_reads_stays_bounded_then_lags_and_sees_the_present(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster, watch_keys=100) as node:
            numbers = node.map("numbers", int)
            numbers.update({str(number): number for number in range(1000)})
            async with numbers.watch() as changes:
                await some(changes, 1000)
                for number in range(800):
                    del numbers[str(number)]
                    assert len(changes._unread) <= max(100, len(numbers))
                first, *rest = await some(changes, 201)
                assert (first.key, first.value, first.kind) == (None, None, "lagged")
                assert {each.kind for each in rest} == {"present"}
                assert {each.key: each.value for each in rest} == dict(numbers)
                numbers["next"] = 1
                assert [(each.key, each.kind) for each in await some(changes, 1)] == [("next", "set")]

    asyncio.run(story())


def test_a_watcher_that_keeps_up_never_lags_however_much_changes(cluster: str) -> None:
    """What was read is not unread: else every watcher would lag after `watch_keys` changes."""

    async def story() -> None:
        async with gossip.Node(cluster, watch_keys=50) as node:
            numbers = node.map("numbers", int)
            async with numbers.watch() as changes:
                for number in range(150):
                    numbers[f"{number}"] = number
                    (change,) = await some(changes, 1)
                    assert (change.key, change.value, change.kind) == (f"{number}", number, "set")
                for first in range(0, 150, 30):
                    for number in range(first, first + 30):
                        del numbers[f"{number}"]
                    deleted = await some(changes, 30)
                    assert {each.kind for each in deleted} == {"deleted"}
                    assert [each.key for each in deleted] == [f"{number}" for number in range(first, first + 30)]
                assert changes._changes == 0 and not changes._lagged

    asyncio.run(story())


def test_a_slow_reader_of_a_large_map_gets_through_while_it_changes(cluster: str) -> None:
    """The present state is larger than `watch_keys`: if it counted, every change would begin it anew."""

    async def story() -> None:
        async with gossip.Node(cluster, watch_keys=50) as node:
            numbers = node.map("numbers", int)
            numbers.update({str(number): number for number in range(500)})
            seen = {}
            async with numbers.watch() as changes:
                for turn in range(510):
                    (change,) = await some(changes, 1)
                    assert change.kind != "lagged"
                    seen[change.key] = change.value
                    if turn < 10:
                        numbers[f"new {turn}"] = turn
            assert seen == dict(numbers)

    asyncio.run(story())


def test_a_lagging_watcher_that_lags_again_is_not_wrong(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster, watch_keys=10) as node:
            numbers = node.map("numbers", int)
            state: dict[str, int] = {}
            lagged = 0
            async with numbers.watch() as changes:
                for turn in range(200):
                    for step in range(turn % 17):
                        key = str((turn * 7 + step) % 40)
                        if key in numbers and ((turn + step) % 5 == 0 or turn % 30 > 20):
                            del numbers[key]
                        else:
                            numbers[key] = turn
                    while changes._unread or changes._lagged:
                        (change,) = await some(changes, 1)
                        if change.kind == "lagged":
                            lagged += 1
                            state.clear()
                        elif change.kind == "deleted":
                            del state[change.key]
                        else:
                            state[change.key] = change.value
                        if turn % 3:
                            break
                while changes._unread or changes._lagged:
                    (change,) = await some(changes, 1)
                    state = {} if change.kind == "lagged" else state
                    if change.kind == "deleted":
                        del state[change.key]
                    elif change.kind != "lagged":
                        state[change.key] = change.value
            assert state == dict(numbers) and lagged > 1

    asyncio.run(story())


def test_watches_end_at_leave_and_what_was_unread_can_be_read(cluster: str) -> None:
    async def story() -> None:
        node = gossip.Node(cluster)
        await node.start()
        numbers = node.map("numbers", int)
        async with numbers.watch() as waiting, numbers.watch() as unread:
            task = asyncio.create_task(some(waiting, 1))
            await asyncio.sleep(0)
            numbers["k"] = 1
            await task
            ended = asyncio.create_task(anext(waiting, "ended"))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            await node.leave()
            assert await ended == "ended"
            assert [change.key async for change in unmarked(unread)] == ["k"]
        with pytest.raises(gossip.NotRunning):
            async with numbers.watch():
                pass

    asyncio.run(story())


def test_a_cancelled_watcher_leaves_nothing_behind(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            entered = asyncio.Event()

            async def watch() -> None:
                async with node.map("numbers").watch() as changes:
                    entered.set()
                    async for _ in unmarked(changes):
                        pass

            task = asyncio.create_task(watch())
            await entered.wait()
            assert node.status()["watches"] == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert node.status()["watches"] == 0

    asyncio.run(story())


def test_a_watch_begins_with_its_block(cluster: str) -> None:
    with gossip.Node(cluster) as node, pytest.raises(RuntimeError, match="async with"):
        aiter(node.map("numbers").watch())


def test_a_watch_in_another_loop_than_the_nodes(cluster: str) -> None:
    """The node lives in a thread of its own, the watcher in a loop of the program, and a third thread writes."""
    last = 3000
    with gossip.Node(cluster) as node:
        numbers = node.map("numbers", int)
        state: dict[str, int] = {}
        begun = threading.Event()

        def write() -> None:
            begun.wait()
            for number in range(last + 1):
                numbers[f"k{number % 11}"] = number
            numbers["end"] = 1

        async def watch() -> None:
            async with asyncio.timeout(30), numbers.watch() as changes:
                begun.set()
                async for change in unmarked(changes):
                    if change.key == "end":
                        return
                    assert change.value > state.get(change.key, -1), "in order, and the last one"
                    assert change.previous == state.get(change.key)
                    state[change.key] = change.value

        writer = threading.Thread(target=write)
        writer.start()
        asyncio.run(watch())
        writer.join()
        assert state == {key: value for key, value in numbers.items() if key != "end"}


def test_a_watcher_in_another_loop_is_not_drowned_in_wake_ups(cluster: str) -> None:
    with gossip.Node(cluster) as node:
        numbers = node.map("numbers", int)

        async def watch() -> int:
            loop = asyncio.get_running_loop()
            async with numbers.watch() as changes:
                writer = threading.Thread(target=lambda: [numbers.update(k=number) for number in range(2000)])
                writer.start()
                writer.join()  # this loop is blocked meanwhile, as a careless program would block it
                assert len(loop._ready) < 100  # type: ignore[attr-defined]
                for told in range(100):  # the newest when it began to read, and what was a draft then
                    if (await some(changes, 1))[0].value == 1999:
                        return told
                raise AssertionError("it is told of each")

        asyncio.run(watch())


def test_a_watch_whose_loop_was_closed_does_not_break_those_who_write(cluster: str) -> None:
    with gossip.Node(cluster) as node:
        numbers = node.map("numbers", int)
        loop = asyncio.new_event_loop()
        watch = numbers.watch()
        loop.run_until_complete(watch.__aenter__())
        loop.close()
        for number in range(10):
            numbers[str(number)] = number
        assert len(numbers) == 10


def test_changes_made_by_others_wake_a_watcher_in_another_thread(cluster: str) -> None:
    with gossip.Node(cluster) as ann, gossip.Node(cluster) as bob:
        seen: list[Any] = []

        async def watch() -> None:
            async with asyncio.timeout(10), ann.map("numbers", int).watch() as changes:
                seen.append("begun")
                async for change in unmarked(changes):
                    seen.append(change.value)
                    if change.value == 2:
                        return

        thread = threading.Thread(target=lambda: asyncio.run(watch()))
        thread.start()
        until_here(lambda: seen)
        for number in (1, 2):
            bob.map("numbers", int)["k"] = number
            until_here(lambda number=number: number in seen)
        thread.join(10)
        assert seen == ["begun", 1, 2]


def test_a_counter_is_watched_as_its_total(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            hits = ann.counter("hits")
            hits.increment(2)
            bob.counter("hits").increment(3)
            await until(lambda: hits.value == 5)
            assert hits.parts() == {ann.me.instance: 2, bob.me.instance: 3}
            async with hits.watch() as all_, hits.watch(snapshot=False) as new:
                (present,) = await some(all_, 1)
                hits.decrement()
                (changed,), (only,) = await some(all_, 1), await some(new, 1)
                assert (present.key, present.kind, present.previous) == (None, "present", None)
                assert (changed.kind, changed.value, changed.previous) == ("set", 4, present.value)
                assert (only.kind, only.value, only.previous) == ("set", 4, 5)

    asyncio.run(story())


def test_a_watch_without_a_snapshot_gives_changes_only(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster, 1) as (ann,):
            flags = ann.map("flags", int)
            flags.update(a=1, b=2)
            async with flags.watch(snapshot=False) as changes:
                flags["b"] = 3
                (change,) = await some(changes, 1)
                assert (change.key, change.value, change.previous, change.kind) == ("b", 3, 2, "set")
                assert abs(change.time.timestamp() - time.time()) < 5
                assert change.time == flags.entry("b").time and change.time.tzinfo is UTC

    asyncio.run(story())


def test_a_key_with_thousands_of_conflicts_can_be_watched(cluster: str) -> None:
    """They hang below each other in a chain, and two such chains can not be compared: it recurses."""

    def many(head: int) -> Live:
        live: Live | None = None
        for number in range(5000):
            live = (number, 7, number, b"\x01", 0, live)
        return (head, 7, head, b"\x01", 0, live)

    async def story() -> None:
        async with gossip.Node(cluster) as node, node.map("m").watch() as changes:
            key = (MAP, "m", encode_element("k"))
            changes._changed(0, [(key, many(9000), many(9000))])  # what is shown is the same
            changes._changed(0, [(key, many(9000), many(9001))])
            changes._changed(0, [(key, many(9001), many(9002))])
            (change,) = await some(changes, 1)
            assert change.stamp == 9002
            assert not changes._unread

    asyncio.run(story())


def test_only_what_a_reader_sees_of_a_key_is_a_change_of_it(cluster: str) -> None:
    """Writes that did not see each other come and go above and below what is shown; some have the same number."""
    ann, bob, cat, key = 7, 8, 9, (MAP, "m", encode_element("k"))

    async def story() -> None:
        async with gossip.Node(cluster) as node, node.map("m").watch(snapshot=False) as changes:
            store = Store()

            def told(*writes: Write) -> list[tuple[Any, Any]]:
                """What of these is told to who reads when they have all come."""
                for write in writes:
                    change = store.merge(write)
                    assert change is not None
                    changes._changed(0, [change])
                told = [changes._change(each) for each in changes._pop_all()]
                return [(each.value, each.previous) for each in told if each is not None]

            assert told(Write((ann, 1), key, 5, b"\x01", ())) == [(1, None)]
            assert told(Write((bob, 1), key, 4, b"\x02", ())) == [], "it is a conflict, and not shown"
            assert told(Write((cat, 1), key, 6, b"\x03", ())) == [(3, 1)], "it is shown, and of the same number"
            assert told(Write((ann, 2), key, 7, None, ((ann, 1), (bob, 1)))) == [], "the conflicts are gone"
            assert isinstance(store.shown(key), bytes)
            over, away = Write((bob, 2), key, 8, b"\x04", ()), Write((bob, 3), key, 9, None, ((bob, 2),))
            assert told(over, away) == [], "it came and went before anybody looked"
            assert told(Write((bob, 4), key, 10, b"\x05", ((cat, 1),))) == [(5, 3)]
            assert told(Write((bob, 5), key, 11, None, ((bob, 4),))) == [(None, 5)]

    asyncio.run(story())


def test_who_asks_a_watch_without_its_block_is_told_and_does_not_wait_for_ever(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            with pytest.raises(RuntimeError, match="begins with its block"):
                await anext(node.map("flags").watch())

    asyncio.run(story())


def test_a_watch_of_some_keys_is_told_of_these_only_and_does_not_lag_by_others(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster, 2, watch_keys=10) as (ann, bob):
            things = ann.map("m", key=object)
            things.update({"user/1/cart": 1, "user/2": 2, "other": 3, 7: 4})
            await until(lambda: len(bob.map("m", key=object)) == 4)
            async with (
                bob.map("m", key=object).watch("user/*") as users,
                bob.map("m", key=object).watch("*/cart", snapshot=False) as carts,
            ):
                seen = [(change.kind, change.key) for change in await some(users, 2)]
                assert sorted(seen) == [("present", "user/1/cart"), ("present", "user/2")]
                things.update({str(number): number for number in range(1_000)})
                things["user/3/cart"] = 5
                del things["user/2"]
                things[7] = 5
                told = await some(users, 2)
                assert {(each.kind, each.key) for each in told} == {("set", "user/3/cart"), ("deleted", "user/2")}
                assert (await some(carts, 1))[0].key == "user/3/cart"

    asyncio.run(story())


@pytest.mark.parametrize(("unread", "lags"), [(100, False), (101, True)])
def test_who_reads_nothing_keeps_ten_times_watch_keys_and_no_more(cluster: str, unread: int, lags: bool) -> None:
    """Up to there it is told what is new, since all anew were more; beyond, what it holds for its reader is bounded."""

    async def story() -> None:
        async with gossip.Node(cluster, watch_keys=10) as node:
            numbers = node.map("numbers", int)
            async with numbers.watch() as changes:
                assert (await anext(changes)).kind == "complete"
                numbers.update({str(number): number for number in range(unread)})
                assert len(numbers) == unread, "which has all of it told"
                assert ((await anext(changes)).kind == "lagged") is lags

    asyncio.run(story())


def test_what_had_ended_when_it_became_visible_is_no_change(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node, node.map("m").watch(snapshot=False) as changes:
            m = node.map("m")
            m.set("short", 1, ttl=0.001)
            until_here(lambda: "short" not in m)  # in the same turn
            m["end"] = 1
            assert (await anext(changes)).key == "end"

    asyncio.run(story())
