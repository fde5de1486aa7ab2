"""Is a batch one visible step at every peer, and do writes from many threads lose nothing?"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

import gossip
from tests.waiting import nodes, until, until_here


def test_nobody_ever_sees_half_a_batch(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            mine, theirs = ann.map("pair", int), bob.map("pair", int)
            other = bob.register("copy", int)
            torn = []

            async def look() -> None:
                while theirs.get("a") != 200:
                    if not theirs.get("a") == theirs.get("b") == other.value:
                        torn.append((dict(theirs), other.value))
                    await asyncio.sleep(0)

            looking = asyncio.create_task(look())
            for number in range(201):
                with ann.batch():
                    mine["a"] = number
                    ann.register("copy", int).set(number)
                    mine["b"] = number
                await asyncio.sleep(0)
            async with asyncio.timeout(10):
                await looking
            assert torn == []

    asyncio.run(story())


def test_a_batch_of_three_megabytes_is_one_step(cluster: str) -> None:
    """It goes as some fifty encoded batches in several messages, of which the last one makes all of it visible."""

    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            mine, theirs = ann.map("m", str), bob.map("m", str)
            sizes = set()
            with ann.batch():
                for number in range(300):
                    mine[str(number)] = "x" * 10_000
                    assert len(mine) == number + 1
            await until(lambda: sizes.add(len(theirs)) or len(theirs) == 300)
            assert sizes <= {0, 300}

    asyncio.run(story())


def test_a_reader_in_a_thread_sees_no_half_of_a_batch(cluster: str) -> None:
    with gossip.Node(cluster) as ann, gossip.Node(cluster) as bob:
        mine, theirs = ann.map("m", int), bob.map("m", int)
        keys = [str(number) for number in range(200)]
        torn: list[object] = []
        stop = threading.Event()

        def look() -> None:
            while not stop.is_set():
                for values in (set(theirs.values()), {value for _, value in theirs.items()}, {len(set(theirs)) % 200}):
                    if len(values - {0}) > 1 or (len(values) > 1):
                        torn.append(values)

        reader = threading.Thread(target=look)
        reader.start()
        for number in range(1, 40):
            with ann.batch():
                mine.update(dict.fromkeys(keys, number))
        until_here(lambda: theirs.get("199") == 39)
        stop.set()
        reader.join()
        assert torn == []


def test_what_was_written_before_an_exception_stays(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            with pytest.raises(ZeroDivisionError), ann.batch():
                ann.map("m")["before"] = 1
                ann.map("m")["never"] = 1 // 0
            assert dict(ann.map("m")) == {"before": 1}
            await until(lambda: bob.map("m") == {"before": 1})
            ann.map("m")["after"] = 1  # and the batch is over
            await until(lambda: "after" in bob.map("m"))

    asyncio.run(story())


def test_a_batch_in_a_batch_is_a_part_of_it(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            with ann.batch():
                with ann.batch():
                    ann.map("m")["inner"] = 1
                ann.map("m")["outer"] = 1
            seen = await until(lambda: dict(bob.map("m")))
            assert seen == {"inner": 1, "outer": 1}
            with ann.batch():
                pass  # an empty one harms nobody

    asyncio.run(story())


def test_adding_and_removing_in_one_batch_ends_as_it_should(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            with ann.batch():
                for _ in range(3):
                    ann.set("s").add("e")
                    ann.set("s").remove("e")
                ann.set("s").add("e")
                ann.map("m")["k"] = 1
                del ann.map("m")["k"]
            await until(lambda: "e" in bob.set("s"))
            assert bob.map("m") == {} and ann.status()["writes_delivered"] == bob.status()["writes_delivered"]

    asyncio.run(story())


def test_a_batch_too_large_to_hold_back_is_refused_where_it_grows(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster, max_transaction=100_000) as (ann, bob):
            m = ann.map("m", str)
            with pytest.raises(ValueError, match="several smaller ones"), ann.batch():
                for number in range(100):
                    m[str(number)] = "x" * 10_000
            assert 0 < len(m) < 11
            await until(lambda: bob.map("m", str) == m)

    asyncio.run(story())


def test_a_batch_that_is_open_when_the_node_leaves_is_not_there_at_all(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            ann.map("m")["before"] = 1
            open_, left = threading.Event(), threading.Event()

            def half() -> None:
                with ann.batch():
                    ann.map("m")["half"] = 1
                    open_.set()
                    left.wait(10)
                    with pytest.raises(gossip.NotRunning):
                        ann.map("m")["other half"] = 1

            work = asyncio.create_task(asyncio.to_thread(half))
            await until(open_.is_set)
            await ann.leave()
            left.set()
            await work
            await until(lambda: len(bob.members) == 1)
            assert dict(bob.map("m")) == {"before": 1}

    asyncio.run(story())


def test_an_await_inside_a_batch_is_told_at_its_end_and_holds_up_nobody(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            with pytest.raises(RuntimeError, match="no await inside a batch"), ann.batch():
                ann.map("m")["a"] = 1
                ann.map("m")["b"] = 2
                await until(lambda: bob.map("m") == {"a": 1, "b": 2})  # it is over with its turn, and leaves
                ann.map("m")["c"] = 3
                await until(lambda: "c" in bob.map("m"))
            with ann.batch():
                ann.map("m")["a"] = 2  # and the next one is as any other
            await until(lambda: bob.map("m")["a"] == 2)

    asyncio.run(story())


def test_a_batch_over_an_await_hides_no_other_error(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster, 1) as (ann,):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    with ann.batch():
                        await asyncio.sleep(30)  # waits: to be interrupted, inside of a batch

    asyncio.run(story())


def test_a_second_task_is_refused_while_a_batch_is_open(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            told: list[str] = []

            async def write(number: int) -> None:
                for turn in range(20):
                    try:
                        with ann.batch():
                            ann.map("m", int)[f"{number} a"] = turn
                            await asyncio.sleep(0)
                            ann.map("m", int)[f"{number} b"] = turn
                    except RuntimeError as error:
                        told.append(str(error))
                        await asyncio.sleep(0)

            await asyncio.gather(*map(write, range(4)))
            assert len(told) == 80 and all("Await first" in each for each in told)
            ann.map("m", int)["plain"] = 1
            await until(lambda: bob.map("m", int) == ann.map("m", int))

    asyncio.run(story())


def test_threads_that_batch_without_a_pause_take_turns_and_hold_up_nobody(cluster: str) -> None:
    """Neither each other, nor the loop, nor what it writes: each batch leaves soon after its end."""

    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            stop = threading.Event()
            m = ann.map("m", int)

            def work(number: int) -> int:
                turn = 0
                while not stop.is_set():
                    turn += 1
                    with ann.batch(), ann.batch():
                        m[f"{number} a"] = turn
                        m[f"{number} b"] = turn
                return turn

            working = [asyncio.create_task(asyncio.to_thread(work, number)) for number in range(3)]
            try:
                for number in range(20):
                    with ann.batch():
                        m["loop a"] = number
                        m["loop b"] = number
                    m["plain"] = number
                    await until(lambda number=number: bob.map("m", int).get("plain") == number, timeout=5)
                    assert bob.map("m", int)["loop a"] == bob.map("m", int)["loop b"] == number
                await until(lambda: all(f"{number} b" in bob.map("m", int) for number in range(3)))
            finally:
                stop.set()
            turns = await asyncio.gather(*working)
            assert min(turns) >= 10, f"nobody starves; how even it is, the machine decides: {turns}"
            await until(lambda: bob.map("m", int) == m)

    asyncio.run(story())


def test_a_thread_that_waits_for_its_batch_is_told_when_the_node_leaves(cluster: str) -> None:
    with gossip.Node(cluster) as node:
        told: list[BaseException] = []

        def work() -> None:
            try:
                with node.batch():
                    raise AssertionError("it was given a batch beside another")
            except gossip.NotRunning as error:
                told.append(error)

        with node.batch():
            waiting = threading.Thread(target=work)
            waiting.start()
            until_here(lambda: node._runtime is not None and node._runtime.door._waiting)
            node.close()
            waiting.join(10)
        assert told


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Does the work in so many threads at once; raises what one of them raised."""
    failed: list[BaseException] = []
    together = threading.Barrier(count)

    def run(number: int) -> None:
        together.wait()
        try:
            work(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def test_eight_threads_write_and_nothing_is_lost(cluster: str) -> None:
    with gossip.Node(cluster) as ann, gossip.Node(cluster) as bob:

        def work(number: int) -> None:
            node = (ann, bob)[number % 2]
            m, hits, s = node.map("m", int), node.counter("hits"), node.set("s", str)
            for turn in range(300):
                m[f"{number}-{turn}"] = turn
                hits.increment()
                s.add(f"{number}")
                if turn % 3 == 0:
                    del m[f"{number}-{turn}"]
                list(m.items())

        in_threads(8, work)
        expected = {f"{number}-{turn}": turn for number in range(8) for turn in range(300) if turn % 3}
        for node in (ann, bob):
            until_here(lambda node=node: node.counter("hits").value == 2400)
            until_here(lambda node=node: node.map("m") == expected and len(node.set("s")) == 8)
            assert node.status()["counters"].get("diverged", 0) == 0


def test_batches_of_two_threads_both_arrive_whole(cluster: str) -> None:
    with gossip.Node(cluster) as ann, gossip.Node(cluster) as bob:
        theirs = bob.map("m", int)

        def work(number: int) -> None:
            for turn in range(100):
                with ann.batch():
                    ann.map("m", int)[f"{number} a"] = turn
                    ann.map("m", int)[f"{number} b"] = turn

        in_threads(2, work)
        expected = dict.fromkeys(("0 a", "0 b", "1 a", "1 b"), 99)
        until_here(lambda: theirs == expected)


def test_a_write_from_a_thread_arrives_though_nothing_else_happens(cluster: str) -> None:
    """It must wake the loop itself: the next ping would carry it too, a second late."""
    with gossip.Node(cluster, probe_interval=30.0) as ann, gossip.Node(cluster, probe_interval=30.0) as bob:
        for number in range(20):
            ann.map("m", int)["k"] = number
            until_here(lambda number=number: bob.map("m", int).get("k") == number, timeout=0.9)


def test_a_batch_of_a_thread_leaves_at_its_end_though_nothing_else_happens(cluster: str) -> None:
    """The turn in which it was written is over long before, and nothing of it could leave then."""
    with gossip.Node(cluster, probe_interval=30.0) as ann, gossip.Node(cluster, probe_interval=30.0) as bob:
        until_here(lambda: len(ann.members) == len(bob.members) == 2)
        for number in range(5):
            with ann.batch():
                ann.map("m", int)["k"] = number
                until_here(lambda: not ann._runtime.writing.flush_due)  # type: ignore[union-attr]
            until_here(lambda number=number: bob.map("m", int).get("k") == number, timeout=0.9)


def test_a_write_inside_the_loop_arrives_at_once(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster, probe_interval=30.0) as (ann, bob):
            for number in range(20):
                ann.map("m", int)["k"] = number
                await until(lambda number=number: bob.map("m", int).get("k") == number, timeout=0.9)
            ann.map("m", int)["j"] = 1
            await asyncio.to_thread(ann.map("m", int).__setitem__, "from a thread", 1)
            await until(lambda: "from a thread" in bob.map("m"), timeout=0.9)

    asyncio.run(story())
