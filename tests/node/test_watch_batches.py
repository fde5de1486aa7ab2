"""Does a watch never see half of a batch, and is a cursor never ahead, whatever a thread or a leaving node is about?"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import gossip
from tests.node.test_resume import agree, old_enough


class Block:
    """A batch that a thread has open; it writes what it is told to."""

    def __init__(self, node: gossip.Node) -> None:
        self._node = node
        self._write: threading.Event = threading.Event()
        self._key = ""
        self._begun, self._done = threading.Event(), threading.Event()
        self._wrote = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()
        assert self._begun.wait(5)

    def _work(self) -> None:
        try:
            with self._node.batch():
                self._begun.set()
                while self._write.wait(10) and self._key:
                    self._write.clear()
                    self._node.map("m")[self._key] = 1
                    self._wrote.set()
        except (RuntimeError, gossip.NotRunning):
            pass  # it took too long, or the node has left
        self._done.set()

    def write(self, key: str) -> None:
        self._wrote.clear()
        self._key = key
        self._write.set()
        assert self._wrote.wait(5)

    def end(self) -> None:
        self._key = ""
        self._write.set()
        assert self._done.wait(5)
        self._thread.join()


def test_a_cursor_that_is_taken_while_a_batch_is_open_is_from_before_it(cluster: str) -> None:
    """Ours: what the batch had written was delivered and not told, and whoever went on elsewhere never heard of it."""

    async def story() -> None:
        async with old_enough(cluster) as (ann, bob), ann.map("m").watch() as changes:
            ann.map("m")["first"] = 1
            while (await anext(changes)).key != "first":
                pass
            block = Block(ann)
            block.write("a")
            cursor = changes.cursor
            block.end()
            await agree(ann, bob)
            async with bob.map("m").watch(resume=cursor) as again:
                async with asyncio.timeout(5):
                    change = await anext(again)
                assert (change.kind, change.key) == ("set", "a")

    asyncio.run(story())


def test_a_cursor_that_is_taken_after_the_end_is_not_ahead_of_what_was_told(cluster: str) -> None:
    """Ours: a node that leaves ends its watches first, and what was written then was in their cursors, told to nobody:
    a worker that is replaced has requests under way."""

    async def story() -> None:
        async with old_enough(cluster) as (ann, bob):
            ann.map("m")["first"] = 1
            for unread in (False, True):
                async with ann.map("m").watch() as changes:
                    while (await anext(changes)).kind != "complete":
                        pass
                    if unread:
                        ann.map("m")["unread"] = 1
                    assert ann._runtime is not None
                    with ann._runtime.lock:
                        ann._watches.end()
                    ann.map("m")[f"late {unread}"] = 1
                    told = [each.key async for each in changes]
                    assert told == (["unread"] if unread else [])
                    cursor = changes.cursor
                await agree(ann, bob)
                async with bob.map("m").watch(resume=cursor) as again:
                    async with asyncio.timeout(5):
                        assert (await anext(again)).key == f"late {unread}"

    asyncio.run(story())


def test_what_a_batch_had_not_told_when_the_node_left_is_not_told_in_its_next_life(cluster: str) -> None:
    async def story() -> None:
        node = gossip.Node(cluster)
        await node.start()
        async with node.map("m").watch() as changes:
            block = Block(node)
            block.write("ghost")
            await node.leave()
            block.end()
            del changes
        await node.start()
        async with node.map("m").watch() as changes:
            assert (await anext(changes)).kind == "complete"
            with node.batch():
                node.map("m")["real"] = 1
            assert (await anext(changes)).key == "real" and dict(node.map("m")) == {"real": 1}
        await node.leave()

    asyncio.run(story())


@pytest.mark.parametrize("limit", [1, 100])
def test_a_watch_that_begins_or_lags_within_a_batch_sees_all_of_it_or_nothing(cluster: str, limit: int) -> None:
    async def story() -> None:
        async with gossip.Node(cluster, watch_keys=limit) as node:
            m = node.map("m")
            early = m.watch() if limit == 1 else None
            if early is not None:
                m.update({"x": 1, "y": 1})
                await early.__aenter__()
                while (await anext(early)).kind != "complete":
                    pass
                m.clear()  # too much for it
                assert early._lagged
            block = Block(node)
            block.write("a")

            async def first_step(watch: gossip.Watch[str, Any]) -> set[str]:
                async for step in watch.steps():
                    return {change.key for change in step if change.key is not None}
                raise AssertionError("it ended")

            async def begin() -> set[str]:
                async with m.watch() as changes:
                    return await first_step(changes)

            reading = asyncio.ensure_future(begin() if early is None else first_step(early))
            for _ in range(20):
                await asyncio.sleep(0)
            assert not reading.done()
            block.write("b")
            block.end()
            async with asyncio.timeout(5):
                assert {"a", "b"} <= await reading
            if early is not None:
                await early.__aexit__(None, None, None)

    asyncio.run(story())


def test_a_watch_that_waits_for_a_batch_when_the_node_leaves_is_told_so(cluster: str) -> None:
    async def story() -> None:
        node = gossip.Node(cluster)
        await node.start()
        block = Block(node)

        async def begin() -> None:
            async with node.map("m").watch():
                raise AssertionError("it began")

        reading = asyncio.ensure_future(begin())
        for _ in range(5):
            await asyncio.sleep(0)
        leaving = asyncio.ensure_future(node.leave())
        with pytest.raises(gossip.NotRunning):
            async with asyncio.timeout(5):
                await reading
        await leaving
        block.end()

    asyncio.run(story())


def test_who_was_away_for_more_than_is_soon_looked_through_gets_everything_anew(cluster: str) -> None:
    """To decode all of a full log took seconds, for each that came back, and everybody waited for it."""

    async def story() -> None:
        async with old_enough(cluster) as (ann, bob):
            async with ann.map("m").watch() as changes:
                assert (await anext(changes)).kind == "complete"
                cursor = changes.cursor
            for number in range(30):
                ann.map("m")[f"k{number}"] = "x" * 100_000
                await asyncio.sleep(0)
            await agree(ann, bob)
            async with bob.map("m").watch(resume=cursor) as again:
                assert (await anext(again)).kind == "lagged" and (await anext(again)).kind == "present"

    asyncio.run(story())


def test_a_key_that_is_replaced_again_and_again_does_not_carry_the_cursor_past_another(cluster: str) -> None:
    async def story() -> None:
        async with old_enough(cluster, 1) as (node,):
            m = node.map("m", int)
            async with m.watch() as changes:
                m["first"] = 0
                while (await anext(changes)).key != "first":
                    pass
                assert changes.cursor, "all up to here was read"
                m["a"] = m["b"] = 1
                assert changes.cursor
                for number in range(5):
                    m["a"] = number
                async with m.watch(resume=changes.cursor) as again:
                    assert {(await anext(again)).key, (await anext(again)).key} >= {"a", "b"}

    asyncio.run(story())


def test_objects_of_one_name_in_one_batch_are_told_each_to_its_own_watch(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            flags, names = node.map("x", int), node.set("x", str)
            async with flags.watch() as of_flags, names.watch() as of_names:
                assert (await anext(of_flags)).kind == (await anext(of_names)).kind == "complete"
                with node.batch():
                    flags["a"] = 1
                    names.add("b")
                    flags["c"] = 2
                told = [(await anext(of_flags)).key for _ in range(2)]
                assert (told, (await anext(of_names)).key) == (["a", "c"], "b")

    asyncio.run(story())
