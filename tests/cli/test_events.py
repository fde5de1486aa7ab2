"""Does a shell hear what happens to members?"""

from __future__ import annotations

import json
import signal

from tests.cli.shell import Shell, until


def test_events_are_printed_as_they_happen_until_so_many_came(shell: Shell) -> None:
    ann = shell.daemon()
    people, programs = shell.start("events", "--count", "2"), shell.start("events", "--json")
    with ann.connection() as line:
        until("both listen", lambda: line.ask(do="status")["ok"]["listeners"] == 2)
    bob = shell.daemon("bob")
    joined = json.loads(programs.line())
    assert (joined["kind"], joined["member"], joined["instance"]) == ("joined", "bob", bob.instance)
    bob.terminate()
    left = json.loads(programs.line())
    assert (left["kind"], left["member"]) == ("left", "bob") and left["evidence"] and left["at"] > joined["at"]
    result = people.wait()
    assert result.code == 0
    assert [line.split("\t")[1:3] for line in result.out.splitlines()] == [
        ["joined", f"bob ({bob.instance})"], ["left", f"bob ({bob.instance})"]
    ]  # fmt: skip
    ann.terminate()
    ended = programs.wait()
    assert ended.code == 3 and "has left" in ended.err


def test_events_end_by_a_signal(shell: Shell) -> None:
    ann = shell.daemon()
    listening = shell.start("events")
    with ann.connection() as line:
        until("it listens", lambda: line.ask(do="status")["ok"]["listeners"] == 1)
        listening.signal(signal.SIGTERM)
        assert listening.wait().code == 143
        until("it listens no more", lambda: line.ask(do="status")["ok"]["listeners"] == 0)
