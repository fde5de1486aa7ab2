"""What may a program do before, during and after a node's life, and what is left behind?"""

from __future__ import annotations

import asyncio
import copy
import gc
import importlib.metadata
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gossip
from discovery import HostDirectory, runtime_directory
from gossip.protocol.members import Claim
from gossip.roster import member_of
from tests.waiting import nodes, until, until_here

USES: dict[str, Callable[[gossip.Node], Any]] = {
    "map read": lambda node: node.map("x").get("k"),
    "map write": lambda node: node.map("x").update(k=1),
    "map delete": lambda node: node.map("x").pop("k"),
    "map iteration": lambda node: list(node.map("x")),
    "map values": lambda node: list(node.map("x").values()),
    "map length": lambda node: len(node.map("x")),
    "map membership": lambda node: "k" in node.map("x"),
    "map entry": lambda node: node.map("x").entry("k"),
    "map clear": lambda node: node.map("x").clear(),
    "set read": lambda node: "k" in node.set("x"),
    "set iteration": lambda node: list(node.set("x")),
    "set write": lambda node: node.set("x").add("k"),
    "set discard": lambda node: node.set("x").discard("k"),
    "counter read": lambda node: node.counter("x").value,
    "counter write": lambda node: node.counter("x").increment(),
    "register read": lambda node: node.register("x").value,
    "register conflicts": lambda node: node.register("x").conflicts,
    "register write": lambda node: node.register("x").set(1),
    "register delete": lambda node: node.register("x").delete(),
    "batch": lambda node: node.batch().__enter__(),
    "members": lambda node: len(node.members),
    "me": lambda node: node.me,
    "status": lambda node: node.status(),
}
each_use = pytest.mark.parametrize("use", USES.values(), ids=USES)


def left_behind(cluster: str) -> list[str]:
    return sorted(path.name for path in runtime_directory(cluster).iterdir())


@each_use
def test_use_before_the_start_says_how_to_start(cluster: str, use: Callable[[gossip.Node], Any]) -> None:
    with pytest.raises(gossip.NotRunning, match=r"not started yet: .*, `with node:` or `node.open\(\)`"):
        use(gossip.Node(cluster))


@each_use
def test_use_after_leave_says_that_it_left(cluster: str, use: Callable[[gossip.Node], Any]) -> None:
    with gossip.Node(cluster) as node:
        node.map("x")["k"] = 1
    with pytest.raises(gossip.NotRunning, match="it has left") as refused:
        use(node)
    assert isinstance(refused.value, gossip.GossipError) and isinstance(refused.value, RuntimeError)
    assert "not running" in repr(node)


def test_handles_made_before_the_start_work_after_it(cluster: str) -> None:
    node = gossip.Node(cluster)
    flags, hits = node.map("flags"), node.counter("hits")
    with node:
        flags["a"] = 1
        hits.increment()
        assert flags == {"a": 1} and hits.value == 1


def test_a_node_runs_once_at_a_time(cluster: str) -> None:
    async def story() -> None:
        node = gossip.Node(cluster)
        async with node:
            with pytest.raises(gossip.AlreadyStarted, match="another Node"):
                await node.start()
            with pytest.raises(gossip.AlreadyStarted):
                node.open()
            assert node.map("x") == {}, "the one that runs is unharmed"
        await node.leave()
        await node.leave()
        node.close()

    asyncio.run(story())


def test_a_node_that_left_can_be_started_again_and_knows_what_others_tell_it(cluster: str) -> None:
    """An application is started once for each test, and its node was made when it was imported."""
    node = gossip.Node(cluster)
    flags, hits = node.map("flags"), node.counter("hits")
    with gossip.Node(cluster) as other:
        with node:
            first = node.me.instance
            flags["a"] = 1
            hits.increment()
            until_here(lambda: other.map("flags").get("a") == 1)
        with node:
            assert node.me.instance != first and flags["a"] == 1
            hits.increment()
            until_here(lambda: other.counter("hits").value == 2)
    with node:
        assert dict(flags) == {} and hits.value == 0 and len(node.members) == 1, "nobody is there who would know"

    async def story() -> None:
        async with node:
            flags["b"] = 2
        async with node:
            assert not flags
            with pytest.raises(gossip.AlreadyStarted):
                node.open()

    asyncio.run(story())


def test_leaving_what_never_started_is_nothing(cluster: str) -> None:
    node = gossip.Node(cluster)
    asyncio.run(node.leave())
    node.close()


def test_two_nodes_of_one_cluster_in_one_process(cluster: str) -> None:
    async def story() -> None:
        async with gossip.Node(cluster) as one, gossip.Node(cluster) as two:
            await until(lambda: len(one.members) == len(two.members) == 2)
            assert one.me.name != two.me.name and one.me.instance != two.me.instance
            one.map("m")["k"] = 1
            await until(lambda: two.map("m") == {"k": 1})

    asyncio.run(story())


def test_a_leave_is_known_as_a_leave_and_hands_over_the_last_write(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster, 3) as (ann, bob, eve):
            ann.map("m")["last"] = 1
            begun = time.monotonic()
            await ann.leave()
            assert time.monotonic() - begun < 1.0
            for node in (bob, eve):
                await until(lambda node=node: len(node.members) == 2)
                (gone,) = [member for member in node.members.all if member.name == "node-0"]
                assert gone.status == "left" and node.map("m") == {"last": 1}

    asyncio.run(story())


def test_a_leave_is_known_also_where_the_stream_is_seen_to_end_first(cluster: str) -> None:
    async def story() -> None:
        for _ in range(5):
            async with nodes(cluster, 2) as (ann, bob):
                await ann.leave()
                await until(lambda bob=bob: len(bob.members) == 1)
                assert {member.status for member in bob.members.all} == {"alive", "left"}

    asyncio.run(story())


def test_no_stream_is_kept_to_who_is_gone(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            runtime = ann._runtime
            assert runtime is not None
            transport, instance = runtime.transport, bob.me.instance
            await until(lambda: transport._links.keys() == {instance} and len(transport._inbound) == 1)
            held = len(transport.descriptors())
            for _ in range(2):
                async with gossip.Node(cluster) as one, gossip.Node(cluster) as other:
                    await until(lambda: {one.me.instance, other.me.instance} < transport._links.keys())
                await until(lambda: transport._links.keys() == {instance} and len(transport.descriptors()) == held)
            # one whose process goes on, and keeps the stream open, as a stopped one would
            stream = transport._links[instance]
            with runtime.lock:
                runtime.perform(runtime.engine.exited(instance, runtime.now()))
            assert instance not in transport._links
            await until(lambda: stream not in transport._leaving and stream.ending, timeout=2.0)

    asyncio.run(story())


def test_what_is_written_while_a_leave_hands_over_the_rest_is_refused(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would follow the goodbye, and reach nobody."""

    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            refused = []

            async def drain(self: object) -> None:
                for use in ("map write", "counter write", "register write", "set write", "batch"):
                    for attempt in (lambda use: USES[use](ann), lambda use: asyncio.to_thread(USES[use], ann)):
                        with pytest.raises(gossip.NotRunning):
                            if (waiting := attempt(use)) is not None:
                                await waiting
                        refused.append(use)

            ann.map("m")["last"] = 1
            with monkeypatch.context() as patched:
                patched.setattr("gossip.transport.Transport.drain", drain)
                await ann.leave()
            assert len(refused) == 10
            await until(lambda: len(bob.members) == 1)
            assert bob.map("m") == {"last": 1} and bob.map("x") == {}

    asyncio.run(story())


def test_nothing_is_left_after_leave(cluster: str) -> None:
    async def story() -> set[str]:
        tasks = asyncio.all_tasks()
        before = descriptors()
        async with nodes(cluster, 3) as made:
            made[0].map("m")["k"] = 1
            assert len(left_behind(cluster)) == 9
        assert asyncio.all_tasks() == tasks
        return descriptors() - before

    assert asyncio.run(story()) == set()
    assert left_behind(cluster) == []
    assert threading.active_count() == 1
    gc.collect()  # an unclosed socket or transport would warn, and warnings are errors


def test_nothing_is_left_of_the_thread_form(cluster: str) -> None:
    before, threads = descriptors(), threading.active_count()
    for _ in range(5):
        with gossip.Node(cluster) as node:
            node.map("m")["k"] = 1
    assert (descriptors(), threading.active_count(), left_behind(cluster)) == (before, threads, [])


def descriptors() -> set[str]:
    """What is open in this process, as the kernel calls it."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            pass  # that of the listing itself
    return {each for each in found if not each.startswith("/proc/")}


def test_a_start_that_fails_leaves_nothing_and_says_why(cluster: str) -> None:
    async def story(port: int) -> None:
        before, tasks = descriptors(), asyncio.all_tasks()
        node = gossip.Node(cluster, bind=f"127.0.0.1:{port}")
        with pytest.raises(gossip.StartError, match=str(port)) as failed:
            await node.start()
        assert failed.value.errno and isinstance(failed.value, OSError)
        with pytest.raises(gossip.NotRunning, match="could not start"):
            node.map("x")["k"] = 1
        await node.leave()
        assert descriptors() == before and asyncio.all_tasks() == tasks and left_behind(cluster) == []

    with socket.create_server(("127.0.0.1", 0)) as taken:
        asyncio.run(story(taken.getsockname()[1]))
        with pytest.raises(gossip.StartError):
            gossip.Node(cluster, bind=f"127.0.0.1:{taken.getsockname()[1]}").open()


def test_a_control_socket_that_can_not_be_had_is_a_start_that_fails(cluster: str, monkeypatch: Any) -> None:
    async def refuse(self: Any, path: Path) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr("gossip.control.Control.start", refuse)
    with pytest.raises(gossip.StartError):
        gossip.Node(cluster).open()
    assert left_behind(cluster) == [] and threading.active_count() == 1


@pytest.mark.parametrize("base", ["relative", "x" * 120])
def test_a_runtime_directory_that_can_not_be_is_said_at_the_start(cluster: str, base: str, tmp_path: Path) -> None:
    where = base if base == "relative" else str(tmp_path / base)
    with pytest.raises((gossip.ConfigError, gossip.StartError), match="director"):
        gossip.Node(cluster, runtime_dir=where).open()


def test_without_a_descriptor_for_a_loop_the_thread_form_fails_and_does_not_hang(
    cluster: str, monkeypatch: Any
) -> None:
    def refuse() -> None:
        raise OSError(24, "too many open files")

    node = gossip.Node(cluster)
    monkeypatch.setattr(asyncio, "new_event_loop", refuse)
    monkeypatch.setattr(asyncio.events, "new_event_loop", refuse)
    with pytest.raises(OSError, match="too many open files"):
        node.open()


def test_a_node_in_a_plain_program(cluster: str) -> None:
    with gossip.Node(cluster, name="plain") as node:
        node.counter("runs").increment()
        assert node.counter("runs").value == 1 and "plain" in node.members
        assert [member.name for member in node.members.where()] == ["plain"]
    with pytest.raises(KeyError), gossip.Node(cluster) as node:
        node.map("m")["missing"]
    with pytest.raises(gossip.NotRunning):
        node.counter("runs").increment()


def test_nodes_and_handles_can_not_be_pickled_or_copied(cluster: str) -> None:
    node = gossip.Node(cluster)
    for each in (node, node.map("x"), node.set("x"), node.counter("x"), node.register("x")):
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            if attempt is copy.deepcopy and each is not node:
                assert attempt(each) is each, "what holds a handle, as a change does, can be copied"
                continue
            with pytest.raises(TypeError, match=r"can not be pickled: .* other process"):
                attempt(each)


def test_a_loop_closed_under_a_node_is_told_to_who_writes(cluster: str) -> None:
    node = gossip.Node(cluster)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(node.start())
    node.map("m")["k"] = 1
    stray = list(asyncio.all_tasks(loop))
    loop.close()
    for write in (
        lambda: node.map("m").update(k=2),
        lambda: node.counter("c").increment(),
        lambda: node.map("m").clear(),
    ):
        with pytest.raises(gossip.NotRunning, match="loop"):
            write()
    assert node.map("m")["k"] == 1, "what was refused changed nothing"
    for task in stray:  # the program's fault, and here this test's: do not have them complain at the end
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    release(node)


def test_who_found_the_node_running_and_gets_in_when_it_has_left_is_told(cluster: str) -> None:
    """A thread may wait for the lock meanwhile; that there is a flush to come does not mean that anybody will flush."""

    async def story() -> None:
        async with gossip.Node(cluster) as node:
            node.map("m")["k"] = 1
            runtime = node._running()
        runtime.writing.flush_due = True
        with pytest.raises(gossip.NotRunning, match="has just left"):
            runtime.door.do(runtime.writing.put, ((1, "m", b"\xa1k"), b"\x02", 0))

    asyncio.run(story())


def release(node: gossip.Node) -> None:
    """What the kernel does when such a program ends."""
    assert node._runtime is not None and node._runtime.whereabouts.place is not None
    for transport in [node._runtime.transport, node._control]:
        servers = getattr(transport, "_servers", None) or [transport._server]
        for server in servers:
            for listener in server.sockets:
                os.close(listener._sock.detach())
    node._runtime.whereabouts.place.release()


EXIT = """
import asyncio, sys, threading
import gossip

def thread_form():
    node = gossip.Node(sys.argv[1], name="exiting").open()
    node.map("m")["last"] = 1

async def started():
    node = gossip.Node(sys.argv[1], name="exiting")
    await node.start()
    node.map("m")["last"] = 1
    return node

def async_form():
    asyncio.run(started())

def async_form_that_raises():
    async def main():
        node = await started()
        raise SystemExit(3)
    asyncio.run(main())

def thread_form_that_raises():
    thread_form()
    raise SystemExit(3)

def thread_form_with_a_thread_that_writes():
    node = gossip.Node(sys.argv[1], name="exiting").open()
    node.map("m")["last"] = 1
    def write():
        try:
            while True:
                node.counter("busy").increment()
        except gossip.NotRunning:
            pass
    threading.Thread(target=write, daemon=True).start()

globals()[sys.argv[2]]()
"""


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ("thread_form", 0), ("async_form", 0), ("async_form_that_raises", 3), ("thread_form_that_raises", 3),
        ("thread_form_with_a_thread_that_writes", 0),
    ],
)  # fmt: skip
def test_a_program_that_ends_with_its_node_running_leaves(cluster: str, form: str, code: int) -> None:
    with gossip.Node(cluster) as witness:
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", EXIT, cluster, form],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        took = time.monotonic() - begun
        assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
        until_here(lambda: len(witness.members) == 1 and len(witness.members.all) == 2)
        (gone,) = [member for member in witness.members.all if member.name == "exiting"]
        print(f"{form}: {took:.2f} s, {gone.status}: {gone.evidence}")
        assert gone.status == "left" and witness.map("m") == {"last": 1}
        assert took < 5 and len(left_behind(cluster)) == 3, "only the witness's files are there"


def test_close_names_what_ends_a_node_in_the_program_s_own_loop(cluster: str) -> None:
    async def story() -> None:
        node = gossip.Node(cluster)
        node.close()  # it never began
        assert "not running" in repr(node.members)
        await node.start()
        with pytest.raises(RuntimeError, match=r"await node\.leave\(\)"):
            node.close()
        assert node.members["x"].id if "x" in node.members else node.me.id == node.status()["instance"]
        await node.leave()
        node.close()
        assert "not running" in repr(node.members)

    asyncio.run(story())


def test_an_address_is_that_at_which_a_member_can_be_reached() -> None:
    for addresses, shown in (
        (("unix:/nowhere/x", "10.0.0.1:7"), "10.0.0.1:7"),
        (("unix:/nowhere/x",), "unix:/nowhere/x"),
        ((), ""),
    ):
        assert member_of(Claim(1, "x", addresses, 0), 0.0, "", None).address == shown


def test_a_leave_takes_less_than_a_second_though_nobody_reads_and_somebody_converses(cluster: str) -> None:
    async def story() -> None:
        async with nodes(cluster) as (ann, bob):
            assert ann._runtime is not None and ann._runtime.whereabouts.place is not None
            _, writer = await asyncio.open_unix_connection(str(ann._runtime.whereabouts.place.control_path))
            for number in range(200):
                ann.map("m", str)[str(number)] = "x" * 50_000
            writer.write(b'{"do": "get", "object": "m"}\n')  # and never reads
            await asyncio.sleep(0)
            for inbound in bob._runtime.transport._inbound:  # type: ignore[union-attr]
                inbound.transport.pause_reading()  # type: ignore[union-attr]
            for number in range(200):
                ann.map("m", str)[str(number)] = "y" * 50_000
            await until(lambda: ann.status()["counters"].get("batches_sent", 0) > 1)
            before = time.monotonic()
            await ann.leave()
            assert time.monotonic() - before < 1
            writer.close()

    asyncio.run(story())


def test_who_is_interrupted_while_it_waits_for_a_start_leaves_no_thread(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = threading.active_count()
    started = threading.Event()

    async def slow(self: gossip.Node) -> None:
        started.set()
        await asyncio.sleep(30)  # waits: to be interrupted

    def interrupt() -> None:
        started.wait(10)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    monkeypatch.setattr(gossip.Node, "start", slow)
    presses = threading.Thread(target=interrupt)
    presses.start()
    handled = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            gossip.Node(cluster).open()
    finally:
        signal.signal(signal.SIGINT, handled)
    presses.join()
    assert threading.active_count() == before, threading.enumerate()


def test_a_directory_that_can_not_be_read_is_a_start_error(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr("discovery.HostDirectory.others", refuse)
    with pytest.raises(gossip.StartError, match="look for other nodes"):
        gossip.Node(cluster).open()


def test_after_a_rebirth_it_is_known_since_when_this_node_is(cluster: str) -> None:
    with gossip.Node(cluster) as node:
        runtime = node._runtime
        assert runtime is not None
        with runtime.lock:
            runtime.perform(runtime.engine._reborn(runtime.now()))
        me = node.me
        time.sleep(0.01)  # waits: for a clock to show something else
        assert node.me.since == me.since and "declared it dead" in me.evidence


def test_a_node_of_a_thread_is_not_left_in_another_loop(cluster: str) -> None:
    """It waited for five seconds, and then told of a future attached to a different loop."""
    with gossip.Node(cluster) as node:
        with pytest.raises(RuntimeError, match=r"node\.close\(\)"):
            asyncio.run(node.leave())
        node.map("x")["k"] = 1
        assert len(node.members) == 1, "and it lives on"


def test_opening_in_a_running_loop_says_that_it_blocks(cluster: str, caplog: Any) -> None:
    async def open_here() -> None:
        gossip.Node(cluster).open().close()

    asyncio.run(open_here())
    assert "block the running event loop" in caplog.text
    caplog.clear()
    gossip.Node(cluster).open().close()
    assert not caplog.text


def test_files_that_somebody_removed_are_made_anew(cluster: str, caplog: Any) -> None:
    """A logout removed the runtime directory under the running nodes: who came later met a second cluster."""
    with tempfile.TemporaryDirectory() as base:
        here: dict[str, Any] = {"runtime_dir": Path(base), "discovery_interval": 0.05}
        with gossip.Node(cluster, **here) as ann, gossip.Node(cluster, **here) as bob:
            ann.map("m")["k"] = 1
            until_here(lambda: len(bob.members) == 2)
            shutil.rmtree(Path(base) / "gossamesh")
            with gossip.Node(cluster, **here) as late:
                until_here(lambda: [len(node.members) for node in (ann, bob, late)] == [3] * 3, "all find each other")
                until_here(lambda: late.map("m").get("k") == 1)
                path = runtime_directory(cluster, Path(base))
                until_here(lambda: len(HostDirectory(path).controls()) == 3, "and the command line finds them")
                assert {member.instance for member in late.members.all} == {n.me.instance for n in (ann, bob, late)}
        assert "somebody removed the files" in caplog.text
        assert not path.exists(), "nothing is left by those whose files were made twice"


def test_a_first_look_that_takes_its_time_does_not_hold_up_a_start_with_silent_seeds(cluster: str) -> None:
    """Found on a busy machine, where it happens by chance. Here the first look is slow because it sweeps up."""
    with tempfile.TemporaryDirectory() as base:
        directory = runtime_directory(cluster, Path(base))
        for number in range(1, 2000):
            (directory / f"{number:016x}.lock").touch(mode=0o600)  # of nodes that crashed
        node = gossip.Node(
            cluster,
            runtime_dir=base,
            bind="127.0.0.1:0",
            seeds=["127.0.0.1:1"],
            join_timeout=0.2,
            discovery_interval=60.0,
        )

        async def live() -> None:
            async with asyncio.timeout(5):
                await node.start()
            await node.leave()

        asyncio.run(live())


def test_the_version_is_the_distributions() -> None:
    assert gossip.__version__ == importlib.metadata.version("gossamesh")
