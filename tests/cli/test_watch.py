"""Does `gossip watch` show what changes as it changes, and end when it should and not before?"""

import json
import signal
import time

import pytest

from tests.cli.shell import Daemon, Process, Result, Shell, until


def watching(daemon: Daemon, number: int = 1) -> None:
    """Waits until there are so many watches at the node."""

    def is_watched() -> bool:
        with daemon.connection() as line:
            return bool(line.ask(do="status")["ok"]["watches"] == number)

    until("it is being watched", is_watched)


def lines(process: Process, number: int) -> list[str]:
    return [process.line() for _ in range(number)]


def test_it_shows_what_is_there_and_what_another_process_changes(shell: Shell, daemon: Daemon) -> None:
    bob = shell.daemon("bob")
    shell.ok("set", "flags", "beta", "true")
    text, documents = shell.start("watch", "flags"), shell.start("watch", "flags", "--json")
    assert text.line() == "present\tbeta\ttrue"
    assert [json.loads(documents.line())["kind"] for _ in range(2)] == ["present", "complete"]
    shell.ok("set", "flags", "beta", "hello", "--node", "bob")
    assert text.line() == "set\tbeta\thello"
    change = json.loads(documents.line())
    assert change.pop("at") > 1_600_000_000
    assert change.pop("author") == bob.instance
    told = {"object": "flags", "type": "map", "kind": "set", "key": "beta", "value": "hello", "previous": True}
    assert change == told
    shell.ok("delete", "flags", "beta")
    assert text.line() == "deleted\tbeta"
    assert json.loads(documents.line())["kind"] == "deleted"


def test_objects_of_every_type_need_not_exist_yet(shell: Shell, daemon: Daemon) -> None:
    processes = {name: shell.start("watch", name) for name in ("online", "hits", "motd")}
    watching(daemon, 3)
    for arguments in (
        ("add", "online", "ann"), ("remove", "online", "ann"), ("incr", "hits", "5"), ("incr", "hits", "-2"),
        ("set", "motd", "hello"), ("delete", "motd"),
    ):  # fmt: skip
        shell.ok(*arguments)
    assert lines(processes["online"], 2) == ["added\tann", "removed\tann"]
    assert lines(processes["hits"], 2) == ["set\t5", "set\t3"]
    assert lines(processes["motd"], 2) == ["set\thello", "deleted"]


def test_count_and_no_snapshot(shell: Shell, daemon: Daemon) -> None:
    shell.ok("set", "flags", "old", "1")
    one, new = (
        shell.start("watch", "flags", "--count", "1"),
        shell.start("watch", "flags", "--count", "2", "--no-snapshot"),
    )
    watching(daemon, 2)
    shell.ok("set", "flags", "new", "2")
    shell.ok("delete", "flags", "old")
    assert one.wait().out == "present\told\t1\nset\tnew\t2\n"
    result = new.wait()
    assert (result.code, result.out, result.err) == (0, "set\tnew\t2\ndeleted\told\n", "")
    watching(daemon, 0)


def test_a_set_speaks_the_same_words_to_programs(shell: Shell, daemon: Daemon) -> None:
    process = shell.start("watch", "online", "--json", "--count", "2")
    watching(daemon)
    shell.ok("add", "online", "ann")
    shell.ok("remove", "online", "ann")
    assert [json.loads(line)["kind"] for line in process.wait().out.splitlines()] == ["complete", "added", "removed"]


def test_a_watch_of_several_objects_goes_on_where_it_was_left_at_another_node(shell: Shell, daemon: Daemon) -> None:
    skew = 0.3
    bob = shell.daemon("bob", GOSSAMESH_MAX_CLOCK_SKEW=str(skew))
    began = time.monotonic()
    until("what ends from here on ends after it began, by any clock", lambda: time.monotonic() - began > skew)
    shell.ok("set", "flags", "a", "1")
    process = shell.start("watch", "flags", "online", "--json", "--cursors", "--count", "1")
    assert [json.loads(process.line())["kind"] for _ in range(2)] == ["present", "complete"]
    shell.ok("add", "online", "ann")
    change = json.loads(process.line())
    assert (change["object"], change["key"], process.wait().code) == ("online", "ann", 0)
    shell.ok("delete", "flags", "a")
    shell.ok("set", "flags", "b", "2")
    shell.ok("set", "other", "c", "3")
    until("bob has it", lambda: shell.run("get", "other", "c", "--node", bob.instance).code == 0)
    again = shell.start(
        "watch", "flags", "online", "--resume", change["cursor"], "--count", "2", "--node", bob.instance
    ).wait()
    assert again.code == 0 and sorted(again.out.splitlines()) == ["flags\tdeleted\ta", "flags\tset\tb\t2"], again
    refused = shell.run("watch", "flags", "--resume", "nonsense")
    assert refused.code == 4 and "this is no cursor" in refused.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_cleanly(shell: Shell, daemon: Daemon, number: int, code: int) -> None:
    process = shell.start("watch", "flags")
    watching(daemon)
    process.signal(number)
    result = process.wait()
    assert (result.code, result.out, result.err) == (code, "", "")
    watching(daemon, 0)


def test_a_reader_that_stops_ends_it_silently(shell: Shell, daemon: Daemon) -> None:
    shell.ok("set", "flags", "beta", "true")
    process = shell.start("watch", "flags")
    process.line()
    process.stop_reading()  # and nothing changes: it has to notice by itself
    watching(daemon, 0)
    assert until("it ended", lambda: process.ended) == Result(0, "", "")


def test_it_says_when_the_node_left_and_when_it_died(shell: Shell, daemon: Daemon) -> None:
    process, documents = shell.start("watch", "flags"), shell.start("watch", "flags", "--json")
    watching(daemon, 2)
    seconds, _ = daemon.terminate()
    assert seconds < 1
    result = process.wait()
    assert (result.code, result.out, result.err) == (3, "", "gossip: the node 'ann' has left\n")
    assert json.loads(documents.wait().err) == {"error": "the node 'ann' has left", "kind": "no node"}
    bob = shell.daemon("bob")
    process = shell.start("watch", "flags")
    watching(bob)
    bob.process.signal(signal.SIGKILL)
    result = process.wait()
    assert (result.code, result.err) == (3, "gossip: the node 'bob' is gone, without having left\n")


FORKS = """
import gossip, os, signal
node = gossip.Node("shop", name="parent").open()
watched = node.set("watched")
reader, writer = os.pipe()
if os.fork() == 0:
    signal.alarm(60)  # whatever becomes of the test
    os.read(reader, 1)  # ends with the test's hold on the pipe
    os._exit(0)
print("ready", flush=True)
signal.pause()
"""


def test_a_child_of_the_node_s_process_does_not_hide_its_end(shell: Shell) -> None:
    """A forked child has copies of all sockets: unless it lets go, nobody sees the parent's end."""
    program = FORKS.replace(
        "if os.fork()", "watched.watch\nimport time\nwhile not node.status()['watches']: time.sleep(0.01)\nif os.fork()"
    )
    parent = shell.start_python(program)
    until("the node is there", lambda: shell.run("keys").code == 0)
    process = shell.start("watch", "flags")
    assert parent.line() == "ready"
    parent.signal(signal.SIGKILL)
    result = process.wait()
    assert (result.code, result.err) == (3, "gossip: the node 'parent' is gone, without having left\n")
