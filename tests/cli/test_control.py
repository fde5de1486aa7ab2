"""Does a node stay sound, whatever is said on its control socket, by however many, and whether anybody listens?"""

import contextlib
import json
import os
from pathlib import Path

import pytest

from tests.cli.shell import Daemon, Shell, until

BAD = [
    b"not json",
    b"\xff\xfe",
    b"[1, 2]",
    b'"get"',
    b"{}",
    b'{"do": null}',
    b'{"do": ["get"]}',
    b'{"do": "get"}',
    b'{"do": "get", "object": ["x"]}',
    b'{"do": "get", "object": "x", "key": {"a": 1}}',
    b'{"do": "get", "object": "x", "type": []}',
    b'{"do": "watch", "object": ""}',
    b'{"do": "watch", "object": "x", "type": {}}',
    b'{"do": "set", "object": "x", "key": "k"}',
    b'{"do": "set", "object": "x", "key": "k", "value": "\\ud800"}',
    b'{"do": "set", "object": "\\ud800", "value": 1}',
    b'{"do": "set", "object": "x", "key": NaN, "value": 1}',
    b'{"do": "set", "object": "x", "value": 1' + b"0" * 5000 + b"}",
    b'{"do": "set", "object": "x", "value": ' + b"[" * 40 + b"]" * 40 + b"}",
    b"[" * 100_000,
    b'{"do": "incr", "object": "x", "amount": true}',
    b'{"do": "incr", "object": "x", "amount": 1.5}',
    b'{"do": "add", "object": "x"}',
    b'{"do": "__class__", "object": "x"}',
]


def test_what_is_not_understood_is_answered_and_changes_nothing(daemon: Daemon) -> None:
    with daemon.connection() as line:
        before = line.ask(do="status")["ok"]
        for request in BAD:
            line.send(request + b"\n")
            answer = line.read()
            assert answer["kind"] == "bad", (request[:80], answer)
            assert answer["error"]
        after = line.ask(do="status")["ok"]
    assert after["objects"] == before["objects"] == []
    assert after["writes_delivered"] == before["writes_delivered"] == 0


def test_a_line_without_end_is_refused(shell: Shell, daemon: Daemon) -> None:
    with daemon.connection() as line:
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                line.send(b"x" * (1 << 18))
        assert line.read()["kind"] == "bad"
    assert shell.json("status")["counters"]["control_overlong"] == 1


def test_the_largest_value_fits_even_where_json_is_longest(daemon: Daemon) -> None:
    value = "\x01" * ((1 << 20) - 100)
    with daemon.connection() as line:
        assert line.ask(do="set", object="x", key="k", value=value) == {"ok": None}
        assert line.ask(do="get", object="x", key="k") == {"ok": value}


def test_a_hundred_silent_connections_keep_nobody_out(shell: Shell, daemon: Daemon) -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(daemon.connection()) for _ in range(100)]
        assert shell.json("incr", "hits") == 1
        assert silent[0].read() is None  # the one that was silent for longest gave way
        assert silent[-1].ask(do="hello")["ok"]["name"] == "ann"
        assert shell.json("status")["counters"]["control_silent"] >= 36


def test_where_all_are_busy_the_next_node_is_asked(shell: Shell, daemon: Daemon) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(64):
            line = stack.enter_context(daemon.connection())
            line.send(b'{"do": "watch", "object": "flags", "type": "map"}\n')
        until("all are watching", lambda: shell.run("keys").code == 3)
        assert "too many connections" in shell.run("keys").err
        bob = shell.daemon("bob")
        assert shell.json("status")["instance"] == bob.instance
    assert until("they were closed", lambda: shell.json("status")["name"] == "ann")


def test_watchers_that_went_away_leave_nothing(daemon: Daemon) -> None:
    for _ in range(100):
        with daemon.connection() as line:
            line.send(b'{"do": "watch", "object": "quiet"}\n')
    with daemon.connection() as line:
        until("their watches are over", lambda: line.ask(do="status")["ok"]["watches"] == 0)


def memory_of(daemon: Daemon) -> int:
    """Bytes in memory."""
    pages = int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory of a process is asked of Linux")
def test_a_watcher_that_never_reads_costs_little_and_blocks_nobody(shell: Shell) -> None:
    """A hundred megabytes go by; it is owed the newest value of each key, and no more."""
    daemon = shell.daemon("ann", "shop", GOSSAMESH_LOG_BYTES="1000000")
    value = "x" * 100_000
    with contextlib.ExitStack() as stack:
        line = stack.enter_context(daemon.connection())
        for _ in range(10):
            deaf = stack.enter_context(daemon.connection())
            deaf.send(b'{"do": "watch", "object": "news", "type": "map"}\n')
        until("they watch", lambda: line.ask(do="status")["ok"]["watches"] == 10)
        for number in range(40):
            assert line.ask(do="set", object="news", key=str(number % 4), value=value) == {"ok": None}
        before = memory_of(daemon)
        for number in range(1000):
            assert line.ask(do="set", object="news", key=str(number % 4), value=value) == {"ok": None}
        assert memory_of(daemon) - before < 30_000_000
        seconds, _ = daemon.terminate()
        assert seconds < 1


def test_a_large_map_comes_in_parts(shell: Shell, daemon: Daemon) -> None:
    with daemon.connection() as line:
        requests = [json.dumps({"do": "set", "object": "m", "key": str(n), "value": n}) + "\n" for n in range(2000)]
        line.send("".join(requests).encode())
        assert [line.read() for _ in requests] == [{"ok": None}] * 2000
        answer, sizes = line.ask(do="get", object="m"), []
        while "part" in answer:
            sizes.append(len(answer["part"]))
            answer = line.read()
        assert (sum(sizes), answer) == (2000, {"ok": "map"})
        assert max(sizes) <= 256
    assert len(shell.json("get", "m")) == 2000


BYTES = """
import gossip
with gossip.Node("shop", name="ann") as node:
    node.map("odd", key=object)[b"key"] = {b"in": b"out", 7: float("inf")}
    print("ready", flush=True)
    input()
"""


def test_what_json_has_no_word_for_is_still_shown(shell: Shell) -> None:
    program = shell.start_python(BYTES.replace("input()", "import signal; signal.pause()"))
    assert program.line() == "ready"
    assert shell.ok("get", "odd") == '{"base64": "a2V5"}\t{"aW4=": {"base64": "b3V0"}, "7": Infinity}\n'
    assert shell.json("get", "odd") == {'{"base64": "a2V5"}': {"aW4=": {"base64": "b3V0"}, "7": None}}
    assert json.loads(shell.start("watch", "odd", "--json").line())["value"]["7"] is None
