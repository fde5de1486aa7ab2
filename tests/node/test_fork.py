"""What is a started node in a forked child? Nothing but a clear refusal, and to its parent, nothing at all.

The child has copies of the parent's sockets, lock and memory, and none of its threads. It must not speak, leave,
or keep a dead parent looking alive; and it may have a node of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import gossip
from discovery import HostDirectory, runtime_directory
from tests.waiting import nodes, until, until_here


@contextmanager
def forked(work: Callable[[], Any]) -> Iterator[Callable[[], Any]]:
    """A child that does the work; calling what is given waits for its result. It is killed at the end of the block."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(20)
            os.close(reading)
            os.write(writing, json.dumps(work()).encode())
        except BaseException:
            os.write(writing, json.dumps(traceback.format_exc()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    ended: list[bool] = []

    def result() -> Any:
        with os.fdopen(reading, "rb") as pipe:
            told = json.loads(pipe.read())
        os.waitpid(child, 0)
        ended.append(True)
        return told

    try:
        yield result
    finally:
        if not ended:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reading)


def refusals(node: gossip.Node) -> list[str]:
    """What each use says."""
    told = []
    for use in (
        lambda: node.map("m").get("k"),
        lambda: node.map("m").update(k=2),
        lambda: node.set("s").add("x"),
        lambda: node.counter("c").increment(),
        lambda: node.register("r").value,
        lambda: node.members.alive,
        lambda: node.status(),
        lambda: node.batch().__enter__(),
    ):
        try:
            use()
            told.append("not refused")
        except gossip.NotRunning as error:
            told.append(str(error))
    return told


def parents_sockets(addresses: list[str]) -> list[str]:
    """Which of these open files this process still has."""
    mine = []
    for name in os.listdir("/proc/self/fd"):
        try:
            mine.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            pass
    return [each for each in addresses if each in mine]


def sockets_of(node: gossip.Node) -> list[str]:
    assert node._runtime is not None
    return [os.readlink(f"/proc/self/fd/{number}") for number in node._runtime.transport.descriptors()]


def test_a_child_is_refused_with_the_remedy_and_its_parent_stays_a_healthy_member(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (parent, peer):
            peer.map("m")["k"] = 1
            await until(lambda: "k" in parent.map("m") and parent.me.rtt is None)
            held = sockets_of(parent) + sockets_of(peer)
            assert len(held) >= 4

            def work() -> Any:
                told = refusals(parent)
                asyncio.run(parent.leave())
                parent.close()
                return told, parents_sockets(held), repr(parent)

            with forked(work) as result:
                told, still_open, shown = await asyncio.to_thread(result)
            assert all("forked" in each and "make and start a Node here" in each for each in told), told
            assert still_open == [] and "not running" in shown
            for number in range(5):
                parent.map("m")["k"] = number
                await until(lambda number=number: peer.map("m").get("k") == number)
                peer.counter("c").increment()
                await until(lambda number=number: parent.counter("c").value == number + 1)
            assert [member.status for member in peer.members.all] == ["alive", "alive"]

    asyncio.run(story())


def test_a_child_of_the_thread_form_is_refused_and_can_exit_as_programs_do(cluster: str) -> None:
    with gossip.Node(cluster) as witness, gossip.Node(cluster) as parent:
        until_here(lambda: len(witness.members) == 2)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.alarm(20)
                told = refusals(parent)
                parent.close()
                code = 0 if all("forked" in each for each in told) else 2
            finally:
                sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
                # as after `sys.exit`: threads and `atexit` have their turn, and the parent's node is not to leave then
                import atexit
                import threading

                threading._shutdown()  # type: ignore[attr-defined]
                atexit._run_exitfuncs()
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        parent.map("m")["k"] = 1
        until_here(lambda: witness.map("m") == {"k": 1})
        assert [member.status for member in witness.members.all] == ["alive", "alive"]


def test_a_child_can_have_a_node_of_its_own(cluster: str) -> None:
    """Its own files may get the numbers of the parent's sockets: whatever is collected late must not close them."""

    async def story() -> None:
        async with nodes(cluster) as (parent, peer):
            parent.map("m")["k"] = 1

            def work() -> Any:
                import gc

                async def child() -> Any:
                    async with gossip.Node(cluster, name="child") as node:
                        gc.collect()
                        node.map("m")["from the child"] = 1
                        await until(lambda: "go" in node.map("m"))
                        return dict(node.map("m")), sorted(member.name for member in node.members)

                return asyncio.run(child())

            with forked(work) as result:
                for node in (parent, peer):
                    await until(lambda node=node: "from the child" in node.map("m") and "child" in node.members)
                peer.map("m")["go"] = 1
                shared, names = await asyncio.to_thread(result)
            assert shared == {"k": 1, "from the child": 1, "go": 1} and names == ["child", "node-0", "node-1"]
            await until(lambda: len(peer.members) == 2)
            assert {member.name: member.status for member in peer.members.all} == {
                "node-0": "alive", "node-1": "alive", "child": "left"
            }  # fmt: skip

    asyncio.run(story())


@contextmanager
def parent_of_a_sleeper(cluster: str) -> Iterator[Callable[[], None]]:
    """A process with a started node and a forked child that sleeps; calling what is given kills the parent alone."""
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        signal.alarm(20)
        node = gossip.Node(cluster, name="parent").open()
        node.map("m")["k"] = 1
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os.write(writing, f"{os.getpid()} ".encode())
        signal.pause()
        os._exit(0)
    child = int(os.read(reading, 20))
    killed: list[bool] = []

    def kill() -> None:
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        killed.append(True)

    try:
        yield kill
        os.kill(child, 0)  # it slept all the time
    finally:
        os.kill(child, signal.SIGKILL)
        if not killed:
            kill()
        os.close(reading)
        os.close(writing)


def test_a_child_does_not_keep_a_dead_parent_looking_alive(cluster: str) -> None:
    """The parent is killed, its child lives on: the kernel must free the lock and end the streams all the same."""
    with gossip.Node(cluster) as witness, parent_of_a_sleeper(cluster) as kill:
        until_here(lambda: "k" in witness.map("m"))
        kill()
        until_here(lambda: len(witness.members) == 1, timeout=2.0)
        with gossip.Node(cluster) as newcomer:
            until_here(lambda: len(newcomer.members) == 2 and newcomer.map("m") == {"k": 1})
            assert {member.status for member in newcomer.members} == {"alive"}


def test_a_child_does_not_hold_the_place_of_a_dead_parent(cluster: str) -> None:
    """Nobody has a stream to it here: the lock alone says whether it lives."""
    directory = HostDirectory(runtime_directory(cluster))
    with parent_of_a_sleeper(cluster) as kill:
        assert len(directory.others()) == len(directory.controls()) == 1
        kill()
        assert directory.others() == directory.controls() == []
        assert list(runtime_directory(cluster).iterdir()) == [], "what it left was swept"


def test_a_child_does_not_answer_the_command_line_for_a_dead_parent(cluster: str) -> None:
    """Nor does it leave it waiting: a socket that still listens, and that nobody serves, takes whoever comes."""
    with parent_of_a_sleeper(cluster) as kill:
        (control,) = HostDirectory(runtime_directory(cluster)).controls()
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(control.path)
        kill()
        with socket.socket(socket.AF_UNIX) as asking, pytest.raises(ConnectionRefusedError):
            asking.connect(control.path)


def test_a_node_made_before_the_fork_and_started_after_it_in_each_child(cluster: str) -> None:
    """As under gunicorn with --preload: the module that makes the node is imported once, before the workers."""
    node = gossip.Node(cluster)
    flags = node.map("flags")

    def work() -> Any:
        with node:
            flags[str(os.getpid())] = True
            until_here(lambda: len(flags) >= 3)
            names = {member.name for member in node.members.all}
            flags[f"{os.getpid()} saw all"] = True
            until_here(lambda: len(flags) == 6)
            return sorted(names)

    with forked(work) as one, forked(work) as two, forked(work) as three:
        assert [len(result()) for result in (one, two, three)] == [3, 3, 3]
    with pytest.raises(gossip.NotRunning, match="not started"):
        flags.get("k")
