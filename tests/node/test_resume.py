"""Does a reader that comes back miss nothing, wherever it comes back, and is one that can not be told so told that?"""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from random import Random
from typing import Any

import pytest

import gossip
from crdt import FOREVER, chain
from crdt.timestamp import at
from tests.waiting import nodes, until


class Reader:
    """What a client makes of a watch: a dict, and how far it is."""

    def __init__(self) -> None:
        self.state: dict[Any, Any] = {}
        self.kinds: list[str] = []
        self.cursor: str | None = None

    def take(self, change: gossip.Change[Any, Any], cursor: str) -> None:
        self.kinds.append(change.kind)
        if change.kind == "lagged":
            self.state.clear()
        elif change.kind == "deleted":
            self.state.pop(change.key, None)
        elif change.kind != "complete":
            self.state[change.key] = change.value
        self.cursor = cursor

    async def read(self, watch: gossip.Watch[Any, Any], want: Any, seconds: float = 5.0) -> None:
        """Reads on until it has what it should."""
        async with asyncio.timeout(seconds), watch as changes:
            if self.cursor is not None and self.state == want() and not changes._unread:
                return
            async for change in changes:
                self.take(change, changes.cursor)
                if change.kind != "lagged" and not changes._completing and self.state == want():
                    return


@asynccontextmanager
async def old_enough(cluster: str, count: int = 2, **settings: Any) -> AsyncIterator[list[gossip.Node]]:
    """Nodes that began longer ago than clocks may differ: what ended before that, they can not know."""
    async with nodes(cluster, count, max_clock_skew=0.05, **settings) as made:
        begun = time.time()
        await until(lambda: time.time() > begun + 0.1)
        yield made


def dict_of(node: gossip.Node) -> dict[Any, Any]:
    return dict(node.map("m").items())  # as of one moment: `dict` itself asks for the keys first, and one may end


def ends_soon(node: gossip.Node) -> bool:
    """Whether something here, shown or not, expires within the next seconds."""
    soon = at(int(time.time() * 1000) + 10_000)
    heads = [live for elements in node._store.objects.values() for live in elements.values()]
    return any(FOREVER < link[4] < soon for head in heads for link in chain(head))


async def agree(*those: gossip.Node) -> None:
    """All have what each of them has written."""
    for node in those:
        await node.sync(peers="all", timeout=10)


# -- marks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 500])
def test_one_mark_comes_after_all_that_was_there(cluster: str, size: int) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            m = node.map("m", int)
            m.update({f"k{number}": number for number in range(size)})
            async with m.watch() as changes:
                m["new"] = 1
                m["k0"] = 7
                kinds = [(await anext(changes)).kind for _ in range(size + 2)]
            expected = [*["present"] * size, "complete", "set", "set"][: size + 2]
            assert kinds == expected, "what changes meanwhile comes after it"
            async with m.watch(snapshot=False) as changes:
                m["newer"] = 1
                assert (await anext(changes)).kind == "set", "who wants no state needs no mark"

    asyncio.run(story())


def test_several_objects_come_in_one_stream_with_one_mark(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            flags, online, hits, motd = ann.map("x", int), ann.set("x"), ann.counter("x"), ann.register("x")
            flags["a"] = 1
            flags["user/1"] = 2
            online.add("ann")
            hits.increment(3)
            motd.set("hello")
            await until(lambda: bob.register("x").value == "hello")
            theirs = bob.map("x", int), bob.set("x"), bob.counter("x"), bob.register("x")
            async with bob.watch((theirs[0], "user/*"), *theirs[1:]) as changes:
                told = [await anext(changes) for _ in range(5)]
                assert [change.source is handle for change, handle in zip(told[:4], theirs, strict=True)] == [True] * 4
                assert [(change.key, change.value) for change in told[:4]] == [
                    ("user/1", 2), ("ann", True), (None, 3), (None, "hello"),
                ]  # fmt: skip
                assert told[4].kind == "complete" and told[4].source is None
                flags["a"] = 5
                hits.increment()
                change = await anext(changes)
                assert (change.source is theirs[2], change.value) == (True, 4), "nobody asked for flags['a']"

    asyncio.run(story())


def test_only_what_can_be_watched_is(cluster: str) -> None:
    with gossip.Node(cluster) as node:
        with pytest.raises(TypeError, match="nothing to watch"):
            node.watch()
        with pytest.raises(TypeError, match="not str"):
            node.watch("flags")  # type: ignore[arg-type]


# -- steps -----------------------------------------------------------------------------------------------------------


def test_no_step_has_a_part_of_a_batch(cluster: str) -> None:
    """Both keys are always written together; a reader that takes whole steps never sees them differ."""

    async def story() -> None:
        async with nodes(cluster, 3) as (ann, bob, eve):
            seen: dict[str, int] = {}
            steps = 0

            async def write(node: gossip.Node, turns: int) -> None:
                for number in range(turns):
                    with node.batch():
                        for half in ("left", "right"):
                            node.map(half, int)[node.me.name] = number
                    await asyncio.sleep(0)

            async def read() -> None:
                nonlocal steps
                left, right = eve.map("left", int), eve.map("right", int)
                async with eve.watch(left, right) as changes:
                    async for step in changes.steps():
                        steps += 1
                        for change in step:
                            if change.kind in ("present", "set"):
                                seen[f"{'left' if change.source is left else 'right'} {change.key}"] = change.value
                        for name in ("node-0", "node-1"):
                            assert seen.get(f"left {name}") == seen.get(f"right {name}"), step
                        if seen.get("left node-0") == seen.get("left node-1") == 299:
                            return

            async with asyncio.timeout(30):
                await asyncio.gather(write(ann, 300), write(bob, 300), read())
            assert steps > 10

    asyncio.run(story())


# -- resuming --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_who_resumes_is_told_what_was_touched_since_and_nothing_else(cluster: str, where: str) -> None:
    async def story() -> None:
        async with old_enough(cluster) as (ann, bob):
            m = ann.map("m", int)
            m.update({f"k{number}": number for number in range(100)})
            reader = Reader()
            await reader.read(m.watch(), lambda: dict_of(ann))
            m["k7"] = 70
            del m["k8"]
            m["new"] = 1
            m["brief"] = 1
            del m["brief"]
            ann.map("other")["x"] = 1
            await agree(ann, bob)
            node = ann if where == "here" else bob
            reader.kinds.clear()
            await reader.read(node.map("m", int).watch(resume=reader.cursor), lambda: dict_of(ann))
            assert sorted(reader.kinds) in (["deleted", "deleted", "set", "set"], ["deleted", "set", "set"])
            assert reader.state == dict_of(ann)

    asyncio.run(story())


def test_what_ends_without_a_write_is_told_too(cluster: str) -> None:
    async def story() -> None:
        async with old_enough(cluster, 3) as (ann, bob, eve):
            ann.map("m").set("short", 1, ttl=0.3)
            bob.map("m").set("owned", 1, owned=True)
            ann.map("m")["kept"] = 1
            await agree(ann, bob, eve)
            reader = Reader()
            await reader.read(ann.map("m").watch(), lambda: {"short": 1, "owned": 1, "kept": 1})
            await bob.leave()
            await until(lambda: dict_of(eve) == dict_of(ann) == {"kept": 1})
            await until(lambda: not eve._store.mortal, "it was tidied up")
            reader.kinds.clear()
            await reader.read(eve.map("m").watch(resume=reader.cursor), lambda: {"kept": 1})
            assert sorted(reader.kinds) == ["deleted", "deleted"]

    asyncio.run(story())


def test_a_key_that_is_deleted_again_before_the_resumed_reader_sees_it_is_still_told(cluster: str) -> None:
    """What he saw last of it nobody here knows, so "nothing, and again nothing" is a change to him."""

    async def story() -> None:
        async with old_enough(cluster) as (ann, bob):
            m = ann.map("m", int)
            m["k"] = 1
            reader = Reader()
            await reader.read(m.watch(), lambda: {"k": 1})
            m["k"] = 2
            await agree(ann, bob)
            async with bob.map("m", int).watch(resume=reader.cursor) as changes:
                del bob.map("m", int)["k"]
                change = await anext(changes)
                assert (change.kind, change.key) == ("deleted", "k")

    asyncio.run(story())


def test_where_it_can_not_be_known_all_is_told_anew(cluster: str) -> None:
    async def story() -> None:
        async with old_enough(cluster, log_bytes=600) as (ann, bob):
            m = ann.map("m", int)
            m["gone"] = 1
            reader = Reader()
            await reader.read(m.watch(), lambda: {"gone": 1})
            del m["gone"]
            for number in range(20):
                m[f"k{number}"] = number
                await asyncio.sleep(0)
            await agree(ann, bob)
            for node in (ann, bob):
                again = Reader()
                again.state, again.cursor = dict(reader.state), reader.cursor
                await again.read(node.map("m", int).watch(resume=again.cursor), lambda: dict_of(ann))
                assert again.kinds == ["lagged", *["present"] * 20, "complete"] and "gone" not in again.state
        async with gossip.Node(cluster) as young, young.map("m", int).watch(resume=reader.cursor) as changes:
            assert (await anext(changes)).kind == "lagged", "it was not there"

    asyncio.run(story())


def test_a_cursor_is_the_beginning_until_the_state_was_read(cluster: str) -> None:
    async def story() -> None:
        async with old_enough(cluster) as (ann, _):
            m = ann.map("m", int)
            m.update({f"k{number}": number for number in range(10)})
            async with m.watch() as changes:
                for _ in range(10):
                    await anext(changes)
                    early = changes.cursor
                assert (await anext(changes)).kind == "complete"
                late = changes.cursor
            for cursor, kind in ((early, "lagged"), (late, "set")):
                async with m.watch(resume=cursor) as changes:
                    m["k0"] = m["k0"] + 1
                    assert (await anext(changes)).kind == kind

    asyncio.run(story())


@pytest.mark.parametrize("cursor", ["", "x", "AQ", "🎈", "A" * 100])
def test_what_is_no_cursor_is_refused_at_the_call(cluster: str, cursor: str) -> None:
    with gossip.Node(cluster) as node, gossip.Node("another") as other:
        with pytest.raises(ValueError, match="no cursor"):
            node.map("m").watch(resume=cursor)
        with pytest.raises(ValueError, match="no cursor"):
            node.map("m").watch(resume=node.token)
        other.map("m")["k"] = 1
        foreign = other._watches.text_of(other._watches.cursor())
        with pytest.raises(ValueError, match="of another cluster"):
            node.watch(node.map("m"), resume=foreign)
        with pytest.raises(TypeError, match="a cursor is a text"):
            node.map("m").watch(resume=7)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(6))
def test_a_reader_that_is_cut_off_again_and_again_has_everything_in_the_end(cluster: str, seed: int) -> None:
    """At random points of its reading, and resumed at random nodes while all of them write."""
    chance = Random(seed)

    def act(node: gossip.Node) -> None:
        m, key = node.map("m"), f"k{chance.randrange(30)}"
        match chance.randrange(8):
            case 0 | 1:
                m.pop(key, None)
            case 2:
                m.set(key, chance.random(), ttl=chance.choice((0.01, 0.05, 30)))
            case 3:
                m.set(key, chance.random(), owned=True)
            case 4:
                with node.batch():
                    m[key] = m["both"] = chance.random()
            case _:
                m[key] = chance.random()

    async def story() -> None:
        log = {"log_bytes": chance.choice((2_000, 64 << 20)), "watch_keys": chance.choice((5, 10_000))}
        async with old_enough(cluster, 3, **log) as members:
            reader = Reader()
            for _ in range(40):
                for _ in range(chance.randrange(20)):
                    act(chance.choice(members))
                    if chance.random() < 0.3:
                        await asyncio.sleep(0)
                node = chance.choice(members)
                async with node.map("m").watch(resume=reader.cursor) as changes:
                    for _ in range(chance.randrange(12)):
                        if chance.random() < 0.2:
                            act(chance.choice(members))
                        try:
                            async with asyncio.timeout(0.02):
                                change = await anext(changes)
                        except TimeoutError:
                            break
                        reader.take(change, changes.cursor)
            await agree(*members)
            # what ends in a moment has ended, or it would between the reading and the look whether it was right
            await until(lambda: not any(ends_soon(node) for node in members))
            await until(lambda: all(dict_of(node) == dict_of(members[0]) for node in members))
            await reader.read(members[0].map("m").watch(resume=reader.cursor), lambda: dict_of(members[0]))
            assert reader.state == dict_of(members[0])

    asyncio.run(story())


def test_what_a_reader_saw_of_a_worker_that_died_with_it_is_not_kept_for_ever(cluster: str) -> None:
    """The write never comes here, so nothing here will ever say that it is gone."""

    async def story() -> None:
        async with old_enough(cluster) as (ann, bob):
            ann.map("m", int)["kept"] = 1
            await agree(ann, bob)
            ann._running().transport.send = lambda *_, **__: None  # type: ignore[method-assign]  # it is cut off
            ann.map("m", int)["lost"] = 1
            reader = Reader()
            await reader.read(ann.map("m", int).watch(), lambda: {"kept": 1, "lost": 1})
            await reader.read(bob.map("m", int).watch(resume=reader.cursor), lambda: {"kept": 1})
            assert "lagged" in reader.kinds and reader.state == {"kept": 1}

    asyncio.run(story())


def test_what_was_deleted_before_it_came_here_is_told_to_who_saw_it_elsewhere(cluster: str) -> None:
    """A delete that names a write which is not here yet changes nothing that is to be seen, nor does the write then."""

    async def story() -> None:
        async with old_enough(cluster, 3) as (ann, bob, eve):
            held: list[Any] = []
            receive = eve._running().transport._received
            eve._running().transport._received = lambda packet, *rest: held.append(packet) or True
            ann.map("m", int)["k"] = 1
            await until(lambda: "k" in bob.map("m"))
            reader = Reader()
            await reader.read(ann.map("m", int).watch(), lambda: {"k": 1})
            del bob.map("m", int)["k"]
            await until(lambda: "k" not in ann.map("m"))
            resumed = asyncio.create_task(reader.read(eve.map("m", int).watch(resume=reader.cursor), dict))
            await until(lambda: len(held) >= 2)
            eve._running().transport._received = receive
            for packet in reversed(held):
                receive(packet, True, None, None)
            await resumed
            assert reader.state == {}

    asyncio.run(story())


def test_an_unreadable_change_in_a_step_does_not_lose_the_others(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            typed = bob.map("m", int)
            async with typed.watch(snapshot=False) as changes:
                with ann.batch():
                    ann.map("m")["bad"] = "text"
                    ann.map("m")["good"] = 1
                await until(lambda: "good" in typed)
                with pytest.raises(gossip.WrongType):
                    await anext(changes.steps())
                ann.map("m")["bad"] = 2
                await until(lambda: ann.map("m")["bad"] == bob.map("m")["bad"])
                step = await anext(changes.steps())
                assert [change.kind for change in step] == ["lagged", "present", "present", "complete"]

    asyncio.run(story())


def test_a_batch_of_a_thread_is_not_seen_in_part_by_the_watches_of_its_own_process(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            m, begun, done = node.map("m", int), threading.Event(), threading.Event()

            def work() -> None:
                with node.batch():
                    m["a"] = 1
                    begun.set()
                    done.wait(10)
                    m["b"] = 1

            async with m.watch(snapshot=False) as changes:
                thread = threading.Thread(target=work)
                thread.start()
                await asyncio.to_thread(begun.wait)
                assert dict(m) == {"a": 1} and not changes._unread, "it can be read, and is not told yet"
                done.set()
                assert [change.key for change in await anext(changes.steps())] == ["a", "b"]
            await asyncio.to_thread(thread.join)

    asyncio.run(story())


def test_a_change_can_be_copied_and_still_names_its_object(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            node.map("m")["k"] = 1
            async with node.map("m").watch() as changes:
                change = await anext(changes)
                assert asdict(change)["value"] == 1 and copy.deepcopy(change).source is change.source
                assert replace(change, value=2).source is copy.copy(change).source is change.source is not None

    asyncio.run(story())


def test_a_step_that_can_not_be_read_is_not_behind_the_cursor(cluster: str) -> None:
    """Who asked for a cursor while the step was unread, and again when it had raised, went on elsewhere without it."""

    async def story() -> None:
        async with old_enough(cluster, 1) as (node,):
            m = node.map("m")
            async with node.map("m", int).watch(snapshot=False) as changes:
                m.update({"a": 1, "bad": "text", "b": 2})
                await until(lambda: len(changes._unread) == 3)
                assert changes.cursor
                with pytest.raises(gossip.WrongType):
                    await anext(changes.steps())
                cursor = changes.cursor
            seen: set[Any] = set()
            async with asyncio.timeout(5), m.watch(resume=cursor) as changes:
                async for change in changes:
                    seen.add(change.key)
                    if seen >= {"a", "bad", "b"}:
                        break

    asyncio.run(story())


def test_a_step_has_the_mark_where_one_by_one_it_is(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node:
            m = node.map("m", int)
            m["a"] = 1
            async with m.watch() as changes:
                m["b"] = 2
                await until(lambda: len(changes._unread) == 2)
                assert [change.kind for change in await anext(changes.steps())] == ["present", "complete", "set"]

    asyncio.run(story())


def test_a_cursor_that_was_asked_for_is_reached_by_steps_too(cluster: str) -> None:
    """Though there is always more that is unread."""

    async def story() -> None:
        async with gossip.Node(cluster) as node, node.map("m", int).watch(snapshot=False) as changes:
            node.map("m")["a"] = 1
            await until(lambda: len(changes._unread) == 1)
            begin = changes.cursor
            await anext(changes.steps())
            node.map("m")["b"] = 2
            await until(lambda: len(changes._unread) == 1)
            assert changes.cursor != begin

    asyncio.run(story())


def test_a_key_that_changes_twice_does_not_count_for_another_that_is_unread(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as node, node.map("m", int).watch(snapshot=False) as changes:
            m = node.map("m", int)
            m.update(a=1, b=1)
            await until(lambda: len(changes._unread) == 2)
            begin = changes.cursor
            for number in (2, 3):
                m["a"] = number
                await node.sync(peers=0)
                assert changes.cursor == begin, "b was not read"

    asyncio.run(story())


def test_who_reads_by_steps_in_time_never_lags(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster, watch_keys=3) as node, node.map("m", int).watch(snapshot=False) as changes:
            for number in range(20):
                node.map("m").update(a=number, b=number)
                assert [change.kind for change in await anext(changes.steps())] == ["set", "set"]

    asyncio.run(story())
