"""Can anything that somebody wrote into the cluster act on the terminal of who looks at it?"""

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable

from tests.cli.shell import DEADLINE, GOSSIP, Daemon, Shell

HOSTILE = [
    "<script>alert(1)</script>",
    "%s %d %(name)s",
    "{0.__class__} {}",
    "\x1b[31mred\x1b]0;title\x07",
    "two\nlines\r\tand\x0bmore\x7f\x9b31m",
    "[red]rich[/red] [link=file:///etc] :smile:",
    "\u202egnp.exe\u2066\u200b\u2028",
    "\\x1b[31m",
    "--json",
    "Ärger 山 🎉",
]


def write_all(daemon: Daemon) -> None:
    with daemon.connection() as line:
        for text in HOSTILE:
            assert line.ask(do="set", object="m", key=text, value=text) == {"ok": None}
            assert line.ask(do="add", object="s", element=text) == {"ok": None}
            assert line.ask(do="incr", object=text) == {"ok": 1}
            assert line.ask(do="set", object="m", key=f"deep {text}", value={text: [text]}) == {"ok": None}


def is_safe(output: str) -> bool:
    """Whether nothing in it is more than shown."""
    return not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2060-\u206f]", output)


def on_a_terminal(
    shell: Shell, *arguments: str, width: int = 200, when: str = "", then: Callable[[], object] = lambda: None
) -> str:
    """What a person sees. `then` is done when they have seen `when`."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, width, 0, 0))
    environment = shell.environment | {"TERM": "xterm", "NO_COLOR": "1"}
    with subprocess.Popen([GOSSIP, *arguments], env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        output, deadline = b"", time.monotonic() + DEADLINE
        while True:
            ready, _, _ = select.select([ours], [], [], deadline - time.monotonic())
            assert ready, output
            try:
                data = os.read(ours, 1 << 16)
            except OSError:  # how Linux says that the other side has closed
                break
            if not data:
                break
            output += data
            if when and when.encode() in output:
                when = ""
                then()
        os.close(ours)
        assert process.wait(DEADLINE) == 0
    return re.sub("\x1b\\[[01]m", "", output.decode()).replace("\r\n", "\n")  # our own: the heads of columns are bold


def test_nothing_acts_on_a_terminal_and_nothing_is_lost(shell: Shell, daemon: Daemon) -> None:
    write_all(daemon)
    for arguments in (("get", "m"), ("get", "s"), ("keys", "m"), ("keys",)):
        piped, seen = shell.ok(*arguments), on_a_terminal(shell, *arguments)
        assert is_safe(piped.replace("\t", "").replace("\n", ""))
        assert is_safe(seen.replace("\n", ""))
        for output in (piped, seen):
            assert "[red]rich[/red] [link=file:///etc] :smile:" in output
            assert "{0.__class__}" in output
            assert "\\x1b[31mred\\x1b]0;title\\x07" in output
            assert "Ärger 山 🎉" in output
    assert len(shell.ok("get", "s").splitlines()) == len(HOSTILE)
    documents = shell.ok("get", "m", "--json")
    assert is_safe(documents.strip())
    assert {text: text for text in HOSTILE}.items() <= json.loads(documents).items()
    assert set(shell.json("get", "s")) == set(HOSTILE)


def test_a_watch_and_an_error_are_as_safe(shell: Shell, daemon: Daemon) -> None:
    write_all(daemon)
    process = shell.start("watch", "m")
    assert all(is_safe(process.line().replace("\t", "")) for _ in range(2 * len(HOSTILE)))
    for text in HOSTILE:
        if text.startswith("-"):
            continue
        missing = shell.run("get", "m", f"no {text}")
        assert missing.code == 1
        assert is_safe(missing.err.strip())
        assert len(missing.err.splitlines()) == 1
    assert is_safe(shell.run("frob \x1b[31m").err.replace("\n", ""))


def test_hostile_text_goes_in_and_out_by_the_command_line(shell: Shell, daemon: Daemon) -> None:
    for text in HOSTILE:
        shell.ok("set", "typed", "--text", "--", text, text)
    assert shell.json("get", "typed") == {text: text for text in HOSTILE}
    no_text = shell.run_script("set", "typed", b"\xff\xfe", "1")
    assert no_text.code == 4
    assert "surrogate" in no_text.err


def test_names_of_nodes_and_tables(shell: Shell) -> None:
    shell.daemon("[bold]ann[/bold]", "shop", "--tag", "role=[red]%s")
    table = on_a_terminal(shell, "members")
    assert "[bold]ann[/bold]" in table
    assert "role=[red]%s" in table
    assert "name" in table.splitlines()[0]
    assert "cluster" in on_a_terminal(shell, "status")


def test_in_a_narrow_terminal_the_members_are_still_told_by_their_names(shell: Shell) -> None:
    shell.daemon("worker-number-17", "shop", "--tag", "role=web")
    narrow, wide = on_a_terminal(shell, "members", width=80), on_a_terminal(shell, "members")
    assert narrow.splitlines()[0].split() == ["name", "status", "rtt", "for", "tags", "evidence"]
    assert "worker-number-17" in narrow and "this node itself" in narrow and "instance" in wide
    port = shell.daemon("worker-number-17", "shop", "--bind", "127.0.0.1:0").ready["addresses"][1].split(":")[1]
    assert on_a_terminal(shell, "members", width=80).count("instance") == 1, "one name tells them no more apart"
    assert port in on_a_terminal(shell, "members", width=110)


def test_a_watch_of_nothing_says_that_it_waits(shell: Shell, daemon: Daemon) -> None:
    """A name that was mistyped was waited for in silence."""
    shell.ok("set", "flags", "beta", "true")
    shell.ok("set", "motd", "hello")
    names = ("flags", "motd", "flgas")
    seen = on_a_terminal(
        shell, "watch", *names, "--count", "1", when="present", then=lambda: shell.ok("set", "flgas", "beta", "1")
    )
    assert seen.count("gossip: nothing is called 'flgas' now: waiting\n") == 1
    assert seen.count("waiting") == 1
    shell.ok("add", "online", "ann")
    seen = on_a_terminal(
        shell, "watch", "flags", "online", "--type", "set", "--count", "1",
        when="present", then=lambda: shell.ok("add", "online", "bob"),
    )  # fmt: skip
    assert seen.count("gossip: no set is called 'flags' now: waiting\n") == 1
    assert seen.count("waiting") == 1


def test_a_long_value_is_cut_on_a_terminal_alone(shell: Shell, daemon: Daemon) -> None:
    shell.ok("set", "long", "k", "x" * 12_000)
    for arguments in (("get", "long", "k"), ("get", "long")):
        seen = on_a_terminal(shell, *arguments)
        assert 400 <= seen.count("x") < 500
        assert "12 000 characters" in " ".join(seen.split())
        assert shell.ok(*arguments).count("x") == 12_000


def test_what_was_made_is_said_to_a_person(shell: Shell, daemon: Daemon) -> None:
    assert (
        on_a_terminal(shell, "set", "motd", "hello", "world") == "gossip: made the map 'motd', with the key 'hello'\n"
    )
    assert on_a_terminal(shell, "set", "motd", "hello", "again") == ""
