"""Is a node that is cancelled at any await left whole or gone, and never in between?

Start and leave are cancelled at their first await, at their second, and so on, until one gets through. After each there
must be no task, no socket, no file and no lock left, whoever else is in the cluster.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

import gossip
from discovery import runtime_directory
from tests.waiting import nodes, until

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
each_loop = pytest.mark.parametrize("loop", LOOPS)


class CancelledAt:
    """Runs a coroutine, and cancels the task it runs in when it waits for the n-th time."""

    def __init__(self, work: Coroutine[Any, Any, None], at: int) -> None:
        self._work = work
        self._left = at

    def __await__(self) -> Generator[Any, None, bool]:
        """Gives whether it was cancelled at all."""
        task = asyncio.current_task()
        assert task is not None
        step: Callable[[], Any] = lambda: self._work.send(None)  # noqa: E731
        while True:
            try:
                future = step()
            except StopIteration:
                return self._left < 0
            if self._left == 0:
                task.cancel()
            self._left -= 1
            try:
                yield future
                step = lambda: self._work.send(None)  # noqa: E731
            except BaseException as raised:
                error = raised
                step = lambda error=error: self._work.throw(error)  # type: ignore[misc]  # noqa: E731


async def cancelled(work: Coroutine[Any, Any, None], at: int) -> bool:
    """Whether the work had an n-th await. It was cancelled there, and must have said so."""

    async def run() -> bool:
        return await CancelledAt(work, at)

    task = asyncio.create_task(run())
    try:
        assert not await task, "it was cancelled, and went on as if it was not"
    except asyncio.CancelledError:
        return True
    return False


def sockets() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return {each for each in found if each.startswith("socket:") or each.endswith(".lock")}


def files(cluster: str) -> list[str]:
    return sorted(path.name for path in runtime_directory(cluster).iterdir())


async def nothing_left(cluster: str, before: tuple[set[asyncio.Task[Any]], set[str], list[str]], when: str) -> None:
    tasks, open_before, there = before
    for _ in range(3):  # what was closed is closed in the loop's next turns
        await asyncio.sleep(0)
    assert asyncio.all_tasks() - tasks == set(), when
    assert sockets() - open_before == set(), when
    assert files(cluster) == there, when


def play(loop: str, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(story())


@each_loop
@pytest.mark.parametrize(
    "settings", [{}, {"bind": "127.0.0.1:0"}, {"bind": "localhost:0"}], ids=["unix", "tcp", "name"]
)
def test_a_start_alone_cancelled_at_every_await_leaves_nothing(
    cluster: str, loop: str, settings: dict[str, Any]
) -> None:
    async def story() -> None:
        await asyncio.get_running_loop().getaddrinfo("localhost", 0)  # its thread stays, and is not ours
        before = asyncio.all_tasks(), sockets(), []
        at = 0
        while True:
            node = gossip.Node(cluster, **settings)
            if not await cancelled(node.start(), at):
                break
            await nothing_left(cluster, before, f"cancelled at await {at}")
            with pytest.raises(gossip.NotRunning, match="could not start"):
                node.map("m").get("k")
            await node.leave()
            at += 1
        print(f"{at} awaits")
        node.map("m")["k"] = 1  # the one that got through is whole
        await node.leave()
        await nothing_left(cluster, before, "at the end")

    play(loop, story)


@each_loop
def test_a_start_among_others_cancelled_at_every_await_leaves_nothing(cluster: str, loop: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            ann.map("m", int).update({str(number): number for number in range(100)})
            await until(lambda: bob.map("m") == ann.map("m"))
            before = asyncio.all_tasks(), sockets(), files(cluster)
            at = 0
            while True:
                node = gossip.Node(cluster)
                if not await cancelled(node.start(), at):
                    break
                # the streams that others opened to it end a turn later, at their side
                await until(lambda: sockets() <= before[1] and asyncio.all_tasks() <= before[0], f"at await {at}")
                await until(lambda: len(ann.members) == len(bob.members) == 2, f"gone after await {at}")
                assert files(cluster) == before[2]
                at += 1
            assert len(node.map("m")) == 100
            await node.leave()
            await until(lambda: len(ann.members) == len(bob.members) == 2)
            assert {member.status for member in ann.members.all} <= {"alive", "left"}, (
                "each said goodbye, cancelled or not"
            )
            print(f"{at} awaits")

    play(loop, story)


@each_loop
@pytest.mark.parametrize("settings", [{}, {"bind": "127.0.0.1:0"}], ids=["unix", "tcp"])
def test_a_leave_cancelled_at_every_await_leaves_nothing(cluster: str, loop: str, settings: dict[str, Any]) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as peer:
            before = asyncio.all_tasks(), sockets(), files(cluster)
            at = 0
            while True:
                node = gossip.Node(cluster, **settings)
                await node.start()
                node.map("m")["k"] = at
                reader, writer = await asyncio.open_unix_connection(str(node._runtime.whereabouts.place.control_path))  # type: ignore[union-attr]
                writer.write(b'{"do": "watch", "object": "m"}\n')
                await reader.readline()
                done = not await cancelled(node.leave(), at)
                with pytest.raises(gossip.NotRunning, match="left"):
                    node.map("m")["k"] = 1
                await node.leave()
                await asyncio.wait_for(reader.read(), 5)
                writer.close()
                await until(lambda: len(peer.members) == 1, f"gone after await {at}")
                await until(lambda: sockets() <= before[1] and asyncio.all_tasks() <= before[0], f"at await {at}")
                assert files(cluster) == before[2]
                if done:
                    break
                at += 1
            print(f"{at} awaits")

    play(loop, story)


@each_loop
def test_a_directory_is_free_again_wherever_a_start_or_a_leave_was_cancelled(
    cluster: str, loop: str, tmp_path: Path
) -> None:
    async def story() -> None:
        at, whole = 0, 0
        while whole < 2:
            whole = 0
            node = gossip.Node(cluster, data_dir=tmp_path)
            whole += not await cancelled(node.start(), at)
            await node.leave()
            await until(lambda: free(tmp_path), f"after a start cancelled at await {at}")
            node = gossip.Node(cluster, data_dir=tmp_path)
            await node.start()
            node.counter("starts").increment()
            whole += not await cancelled(node.leave(), at)
            await until(lambda: free(tmp_path), f"after a leave cancelled at await {at}")
            at += 1
        print(f"{at} awaits")
        async with gossip.Node(cluster, data_dir=tmp_path) as node:
            assert node.counter("starts").value == at, "and nothing was lost"

    play(loop, story)


def free(directory: Path) -> bool:
    """Whether nobody has a data directory."""
    try:
        with open(directory / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):
        return not (directory / "lock").exists()
    return True


@each_loop
def test_the_lock_of_a_node_is_free_whatever_was_cancelled(cluster: str, loop: str) -> None:
    async def story() -> None:
        for at in range(6):
            node = gossip.Node(cluster)
            await node.start()
            await cancelled(node.leave(), at)
            assert node._runtime is not None
            assert await asyncio.to_thread(node._runtime.lock.acquire, timeout=1.0)

    play(loop, story)


def test_everything_cancelled_at_once_ends_with_a_leave(cluster: str) -> None:
    """What `asyncio.run` does at its end, and what frameworks do that cancel all there is."""

    async def program() -> None:
        node = gossip.Node(cluster, name="program")
        await node.start()
        node.map("m")["last"] = 1

    with gossip.Node(cluster) as witness:
        asyncio.run(program())
        before = [member for member in witness.members.all if member.name == "program"]

        async def see() -> None:
            await until(lambda: len(witness.members) == 1 and len(witness.members.all) == 2)

        asyncio.run(see())
        (gone,) = [member for member in witness.members.all if member.name == "program"]
        assert gone.status == "left" and witness.map("m") == {"last": 1}, before
        assert len(files(cluster)) == 3
