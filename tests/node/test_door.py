"""Does everybody who may write get in, and nobody into the middle of somebody else's step?

Threads have test_batch; here are signal handlers, which interrupt a thread at any line, and batches that outstay.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import gossip
from tests.waiting import nodes, until, until_here


@contextmanager
def interrupted(handler: object, every: float = 0.0003) -> Iterator[None]:
    """Has a handler called again and again, at whatever line the main thread is."""
    before = signal.signal(signal.SIGALRM, lambda *_: handler())  # type: ignore[operator]
    signal.setitimer(signal.ITIMER_REAL, every, every)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_signal_handler_may_write_while_its_thread_writes(cluster: str) -> None:
    """It came between the merge of a write and its place in the batch: that batch was refused by every peer, and sent
    again for ever."""
    with gossip.Node(cluster) as ann, gossip.Node(cluster) as bob:
        m, hits = ann.map("m", int), ann.counter("hits")
        caught: list[BaseException] = []
        calls = 0

        def handler() -> None:
            nonlocal calls
            calls += 1
            number = calls
            try:
                hits.increment()
                m[f"handler {number % 50}"] = number
            except BaseException as error:
                caught.append(error)

        with interrupted(handler):
            number = 0
            while calls < 1_000:
                number += 1
                m[f"k{number % 100}"] = number
        assert not caught and hits.value == calls
        # of those that interrupt each other, hundreds where the machine is slow, the oldest sets its value last
        assert all(m[f"handler {number}"] % 50 == number for number in range(50))
        until_here(lambda: bob.counter("hits").value == calls, "nothing was lost on the way either")
        until_here(lambda: bob.map("m", int) == m)
        assert bob.status()["counters"].get("malformed", 0) == 0


def test_what_a_signal_handler_writes_while_the_loop_waits_leaves_at_once(cluster: str) -> None:
    """It had waited for the next timer: the handler ran in the loop's own thread, and woke nobody."""
    settings = {"probe_interval": 60.0, "discovery_interval": 60.0, "join_timeout": 1.0}

    def interrupt(bob: gossip.Node, main: int) -> None:
        for number in range(1, 4):  # the first comes while there are timers, from when the two met
            until_here(lambda: sys._current_frames()[main].f_code.co_name == "select", "the loop waits")
            os.kill(os.getpid(), signal.SIGUSR1)
            until_here(lambda number=number: bob.counter("c").value == number)

    async def story(bob: gossip.Node) -> None:
        async with gossip.Node(cluster, name="ann", **settings) as ann:
            await until(lambda: len(ann.members) == len(bob.members) == 2)
            before = signal.signal(signal.SIGUSR1, lambda *_: ann.counter("c").increment())
            try:
                await asyncio.to_thread(interrupt, bob, threading.get_ident())
            finally:
                signal.signal(signal.SIGUSR1, before)

    with gossip.Node(cluster, name="bob", **settings) as bob:
        asyncio.run(story(bob))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a destructor passes nothing on
def test_a_signal_handler_may_raise_at_any_line_and_the_node_goes_on(cluster: str) -> None:
    """Celery ends a task so that has run for too long, and Ctrl-C at a prompt everything. The lock stayed taken, or
    the flush that was due was never made, and nobody was told."""

    class TimeIsUp(Exception):
        pass

    armed: list[bool] = []  # or it would raise in what ends the alarms, too

    def handler() -> None:
        if armed:
            armed.clear()
            raise TimeIsUp

    with gossip.Node(cluster) as ann, gossip.Node(cluster) as bob:
        m, done, raised = ann.map("m", int), {}, 0
        number = 0
        with interrupted(handler, every=0.0002):
            while raised < 1_000:
                try:
                    armed.append(True)
                    while True:
                        if not armed:  # it was raised in a destructor, which passes nothing on
                            armed.append(True)
                        number += 1
                        m[f"k{number % 100}"] = number
                        done[f"k{number % 100}"] = number  # it was acknowledged
                except TimeIsUp:
                    raised += 1
        assert not ann._running().door.inside()
        m["after"] = number
        threading.Thread(target=lambda: m.__setitem__("of a thread", number)).start()
        until_here(lambda: bob.map("m", int).get("after") == bob.map("m", int).get("of a thread") == number)
        until_here(lambda: ann.status()["digest"] == bob.status()["digest"], "and both hold the same", timeout=20)
        held = bob.map("m", int)
        assert all(held[key] >= value for key, value in done.items())
        assert bob.status()["counters"].get("malformed", 0) == 0


def test_a_signal_handler_may_write_while_its_thread_reads(cluster: str) -> None:
    """A dict must not change while it is copied; what the handler writes is done when the reader is out."""
    with gossip.Node(cluster) as node:
        m = node.map("m", int)
        for number in range(2_000):
            m.set(f"k{number}", number, ttl=1_000)  # what may end is looked at one by one
        calls = 0

        def handler() -> None:
            nonlocal calls
            calls += 1
            m[f"new {calls}"] = calls

        with interrupted(handler):
            while calls < 1_000:
                assert len(list(m)) >= 2_000
                assert len(dict(m.items())) >= 2_000
                node.status()
        until_here(lambda: sum(key.startswith("new") for key in m) == calls)


def test_a_signal_handler_may_write_while_the_loop_receives(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            calls = 0

            def handler() -> None:
                nonlocal calls
                calls += 1
                ann.counter("hits").increment()

            with interrupted(handler, every=0.0005):
                number = 0
                while calls < 500:
                    number += 1
                    bob.map("m", int)[f"k{number % 50}"] = number
                    await asyncio.sleep(0)
            await until(lambda: bob.counter("hits").value == ann.counter("hits").value == calls)
            await until(lambda: ann.map("m", int) == bob.map("m", int))
            assert [node.status()["counters"].get("malformed", 0) for node in (ann, bob)] == [0, 0]

    asyncio.run(story())


def test_a_batch_of_a_thread_that_takes_too_long_ends_and_says_so(cluster: str) -> None:
    """What the loop wrote beside it waited for its end, and so did whoever started elsewhere meanwhile."""

    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            done, told = threading.Event(), []

            def work() -> None:
                try:
                    with ann.batch():
                        ann.map("m", int)["a"] = 1
                        done.wait(20)
                        ann.map("m", int)["b"] = 1
                except RuntimeError as error:
                    told.append(str(error))

            thread = threading.Thread(target=work)
            thread.start()
            await until(lambda: "a" in ann.map("m"))
            ann.map("m", int)["plain"] = 1
            async with gossip.Node(cluster) as late:
                await until(lambda: late.map("m", int) == {"a": 1, "plain": 1}, "while the batch is still open")
            done.set()
            await until(lambda: bob.map("m", int) == {"a": 1, "plain": 1, "b": 1})
            await asyncio.to_thread(thread.join)
            assert len(told) == 1 and "a batch of a thread may take 1 s" in told[0]

    asyncio.run(story())


def test_a_plain_write_is_not_refused_for_the_size_of_a_threads_batch(cluster: str) -> None:
    async def story() -> None:
        room = {"max_transaction": 1 << 20}
        async with nodes(cluster, **room) as (ann, bob):
            full, done, told = threading.Event(), threading.Event(), []
            sizes = {"large": 900_000, "plain": 900_000}

            def work() -> None:
                try:
                    with ann.batch():
                        ann.map("m")["large"] = "x" * 900_000
                        full.set()
                        done.wait(20)
                except RuntimeError as error:
                    told.append(str(error))

            thread = threading.Thread(target=work)
            thread.start()
            await asyncio.to_thread(full.wait)
            ann.map("m")["plain"] = "y" * 900_000
            done.set()
            await asyncio.to_thread(thread.join)
            await until(lambda: {key: len(value) for key, value in bob.map("m").items()} == sizes)
            assert len(told) == 1 and "max_transaction" in told[0]

    asyncio.run(story())


def test_what_the_loop_wrote_beside_a_threads_batch_is_there_though_it_left(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            begun, done = threading.Event(), threading.Event()

            def work() -> None:
                with ann.batch():
                    begun.set()
                    done.wait(20)

            thread = threading.Thread(target=work)
            thread.start()
            await asyncio.to_thread(begun.wait)
            ann.map("m")["plain"] = 1
            leaving = asyncio.create_task(ann.leave())
            await asyncio.sleep(0)
            done.set()
            await leaving
            await until(lambda: dict(bob.map("m")) == {"plain": 1})
            await asyncio.to_thread(thread.join)

    asyncio.run(story())


def test_a_batch_in_a_signal_handler_that_came_upon_a_write_is_refused(cluster: str) -> None:
    with gossip.Node(cluster) as node:
        runtime = node._runtime
        assert runtime is not None
        with runtime.lock, pytest.raises(RuntimeError, match="set a flag"), node.batch():
            raise AssertionError("it was let in")
        with node.batch():
            node.map("m")["k"] = 1


def test_a_batch_in_a_signal_handler_that_came_upon_one_who_waits_for_his_is_refused(cluster: str) -> None:
    """Ours: it stood in line behind its own thread, and everybody else behind it, for ever."""
    with gossip.Node(cluster) as node:
        begun, end, refused = threading.Event(), threading.Event(), []

        def work() -> None:
            with node.batch():
                begun.set()
                end.wait(10)

        def handler(number: int, frame: object) -> None:
            try:
                with node.batch():
                    raise AssertionError("it began")
            except RuntimeError as error:
                refused.append(str(error))
            end.set()

        thread = threading.Thread(target=work)
        thread.start()
        begun.wait(10)
        before = signal.signal(signal.SIGALRM, handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with node.batch():
                node.map("m")["k"] = 1
        finally:
            signal.signal(signal.SIGALRM, before)
        thread.join()
        assert len(refused) == 1 and "set a flag" in refused[0] and node.map("m")["k"] == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a destructor passes nothing on
def test_a_signal_handler_may_raise_around_batches_and_their_end_is_never_lost(cluster: str) -> None:
    """Ours: a batch was counted as open that had ended, or was counted out twice, and nothing left any more."""

    class TimeIsUp(Exception):
        pass

    armed: list[bool] = []

    def handler() -> None:
        if armed:
            armed.clear()
            raise TimeIsUp

    with gossip.Node(cluster) as ann, gossip.Node(cluster) as bob:
        m, raised, number = ann.map("m", int), 0, 0
        with interrupted(handler, every=0.0002):
            while raised < 1_000:
                try:
                    armed.append(True)
                    while armed:  # Python ignores what is raised when a weak reference ends: then once more
                        number += 1
                        with ann.batch():
                            m["a"] = number
                            m["b"] = number
                except TimeIsUp:
                    raised += 1
        with ann.batch():
            m["after"] = number
        until_here(lambda: bob.map("m", int).get("after") == number)
        until_here(lambda: not ann._running().engine.open, "a thread's batch takes a second at most")
        m["plain"] = number
        until_here(lambda: bob.map("m", int).get("plain") == number)
        until_here(lambda: ann.status()["digest"] == bob.status()["digest"], "and both hold the same", timeout=20)


INTERRUPTED = """
import asyncio, logging, os, random, signal, sys, time
import gossip

class TimeIsUp(Exception): pass

def handler(*_):
    raise TimeIsUp

logging.disable(50)
signal.signal(signal.SIGALRM, handler)
chance, loop = random.Random(1), asyncio.new_event_loop()
node = gossip.Node(sys.argv[1], data_dir=sys.argv[2], durability=sys.argv[3])
loop.run_until_complete(node.start())
loop.set_exception_handler(lambda loop, context: None)
number = 0
for _ in range(150):
    stop = loop.call_later(0.05, loop.stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0005, 0.01))
        loop.run_forever()
    except TimeIsUp:
        pass
    signal.setitimer(signal.ITIMER_REAL, 0)
    stop.cancel()
    number += 1
    node.map("own")[str(number % 7)] = number
until = time.monotonic() + 20
while len(node.map("m")) < 50 and time.monotonic() < until:  # a busy machine may have heard nothing so far
    loop.run_until_complete(asyncio.sleep(0.01))
done = asyncio.ensure_future(node.sync(peers=0, durable=True, timeout=20), loop=loop)
loop.run_until_complete(done)
print("durable", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("durability", ["interval", "full"])
def test_a_handler_that_raises_while_the_loop_receives_leaves_the_data_directory_whole(
    cluster: str, tmp_path: Path, durability: str
) -> None:
    """Ours: a step was merged and did not reach the disk. What followed it did, and nothing could be read any more."""
    with gossip.Node(cluster) as peer:
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED, cluster, str(tmp_path), durability], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        number = 0
        while process.poll() is None:
            number += 1
            with peer.batch():
                peer.map("m")[f"k{number % 50}"] = number
        with process:
            assert process.stdout.read() == "durable\n"
    with gossip.Node(cluster, data_dir=tmp_path, durability=durability) as again:
        assert len(again.map("own")) == 7 and max(again.map("own").values()) == 150
        assert len(again.map("m")) == 50
