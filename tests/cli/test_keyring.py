"""Is a cluster given another key while it runs, without a lost write, a death, or a key where it can be seen?"""

from __future__ import annotations

import base64
import secrets
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from gossip.keyring import fingerprint
from tests.cli.shell import Daemon, Line, Shell, until


class Keys:
    """Two keys in files, as `gossip keygen` makes them."""

    def __init__(self, directory: Path) -> None:
        self.old, self.new = directory / "old.key", directory / "new.key"
        for file in (self.old, self.new):
            file.touch(0o600)
            file.write_text(base64.urlsafe_b64encode(secrets.token_bytes(32)).decode() + "\n")

    @staticmethod
    def name(file: Path) -> str:
        return fingerprint(base64.urlsafe_b64decode(file.read_text()))


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


class Hosts:
    """Three daemons on loopback, each with a runtime directory of its own, as on three hosts."""

    def __init__(self, shell: Shell, key_file: Path) -> None:
        self.shell = shell
        self.daemons: list[Daemon] = []
        self.places = [str(shell.directory / name) for name in ("a", "b", "c")]
        seeds: tuple[str, ...] = ()
        for number, place in enumerate(self.places):
            options = ("--bind", "127.0.0.1:0", "--key-file", str(key_file), *seeds)
            self.daemons.append(shell.daemon(f"node-{number}", "shop", *options, GOSSAMESH_RUNTIME_DIR=place))
            seeds = ("--seed", self.daemons[0].ready["addresses"][1])

    def everywhere(self, *arguments: str) -> list[str]:
        """What a command prints at each host; it has to succeed."""
        results = [self.shell.run(*arguments, GOSSAMESH_RUNTIME_DIR=place) for place in self.places]
        assert [each.code for each in results] == [0] * 3, results
        return [each.out for each in results]


@pytest.fixture
def hosts(shell: Shell, keys: Keys) -> Hosts:
    return Hosts(shell, keys.old)


def members(line: Line) -> list[str]:
    return sorted(each["status"] for each in line.ask(do="members")["ok"])


class Writer(Thread):
    """Somebody who writes at a node all the time, and keeps what he wrote."""

    def __init__(self, daemon: Daemon, number: int) -> None:
        super().__init__(daemon=True)
        self.written: dict[str, int] = {}
        self.enough = Event()
        self.refused: list[Any] = []
        self._daemon, self._number = daemon, number

    def run(self) -> None:
        with self._daemon.connection() as line:
            while not self.enough.wait(0.001):
                count = len(self.written)
                answer = line.ask(do="set", object="m", key=f"{self._number}:{count}", value=count)
                if answer != {"ok": None}:
                    self.refused.append(answer)
                    return
                self.written[f"{self._number}:{count}"] = count


class Listener(Thread):
    """Somebody who hears what happens at a node."""

    def __init__(self, line: Line) -> None:
        super().__init__(daemon=True)
        self.heard: list[str] = []
        self._line = line
        line.send(b'{"do": "events"}\n')
        assert line.read() == {"ok": None}

    def run(self) -> None:
        with suppress(OSError, ValueError):  # closed under it, where the test has failed
            while event := self._line.read():
                self.heard.append(event["ok"]["kind"])

    def end(self) -> None:
        self._line.connection.shutdown(socket.SHUT_RDWR)
        self.join(20)


TROUBLE = {"suspected", "died", "reborn", "left", "lagging", "refuted"}
OF_A_KEY = ("unsealed", "unproved", "malformed", "foreign_streams", "dropped", "reborn", "refuted")


def test_three_hosts_change_their_key_while_all_write_all_the_time(hosts: Hosts, keys: Keys) -> None:
    """Between any two changes some nodes have gone on and some have not. Nothing is lost, refused or dropped for its
    key, and nobody is suspected."""
    old, new = keys.name(keys.old), keys.name(keys.new)
    with ExitStack() as stack:
        lines = [stack.enter_context(each.connection()) for each in hosts.daemons]
        until("all know each other", lambda: all(members(line) == ["alive"] * 3 for line in lines))
        listeners = [Listener(stack.enter_context(each.connection())) for each in hosts.daemons]
        writers = [Writer(each, number) for number, each in enumerate(hosts.daemons)]
        for thread in (*listeners, *writers):
            thread.start()
        seen: dict[str, Any] = {}
        try:
            for arguments in (("add", str(keys.new)), ("use", new), ("remove", old)):
                for place in hosts.places:
                    before = [len(writer.written) for writer in writers]
                    result = hosts.shell.run("keyring", *arguments, GOSSAMESH_RUNTIME_DIR=place)
                    assert result.code == 0, result
                    assert "configuration" in result.err, "what is left to do is said"
                    seen[arguments[0]] = result.out
                    until(
                        "all go on writing",
                        lambda before=before: all(len(w.written) > b for w, b in zip(writers, before, strict=True)),
                    )
        finally:
            for writer in writers:
                writer.enough.set()
                writer.join(20)
        written = {key: value for writer in writers for key, value in writer.written.items()}
        assert not any(writer.refused for writer in writers)
        for line in lines:
            got = until(
                "all writes are here", lambda line=line: (have := values(line)) and len(have) >= len(written) and have
            )
            assert got == written
            counters = line.ask(do="status")["ok"]["counters"]
            assert {name: counters[name] for name in OF_A_KEY if counters.get(name)} == {}
            assert members(line) == ["alive"] * 3
        for listener in listeners:
            listener.end()
            assert TROUBLE.isdisjoint(listener.heard), listener.heard
        assert [seen[each].split("\t")[2:] for each in ("add", "use", "remove")] == [
            [old, new + "\n"], [new, old + "\n"], [new, "-\n"],
        ]  # fmt: skip
    assert all(new in row and old not in row for row in hosts.everywhere("keyring", "list"))


def values(line: Line) -> dict[str, int]:
    line.send(b'{"do": "get", "object": "m"}\n')
    found: dict[str, int] = {}
    while "ok" not in (answer := line.read()):
        found |= dict(answer["part"])
    return found


def test_after_a_rotation_who_has_the_old_key_only_is_a_stranger(hosts: Hosts, keys: Keys) -> None:
    shell, seed = hosts.shell, hosts.daemons[0].ready["addresses"][1]
    hosts.everywhere("keyring", "add", str(keys.new))
    hosts.everywhere("keyring", "use", keys.name(keys.new))
    place = str(shell.directory / "late")
    options = ("--bind", "127.0.0.1:0", "--seed", seed, "--key-file")
    both = shell.directory / "both.key"
    both.touch(0o600)
    both.write_text(keys.old.read_text() + keys.new.read_text())
    shell.daemon("late", "shop", *options, str(both), GOSSAMESH_RUNTIME_DIR=place)
    with hosts.daemons[1].connection() as line:
        until("it is restarted in the middle, and joins", lambda: members(line) == ["alive"] * 4)
    hosts.everywhere("keyring", "remove", keys.name(keys.old))
    stranger = shell.daemon("old", "shop", *options, str(keys.old), GOSSAMESH_RUNTIME_DIR=str(shell.directory / "old"))
    with hosts.daemons[0].connection() as line, stranger.connection() as lonely:
        until("it knocks", lambda: line.ask(do="status")["ok"]["counters"].get("unsealed"))
        assert members(lonely) == ["alive"] and len(members(line)) == 4


def test_what_would_part_the_nodes_of_a_host_is_refused_before_any_is_changed(shell: Shell, keys: Keys) -> None:
    ann = shell.daemon("ann", "shop", "--key-file", str(keys.old))
    shell.daemon("bob", "shop", "--key-file", str(keys.old))
    old, new = keys.name(keys.old), keys.name(keys.new)
    with ann.connection() as line:
        assert line.ask(do="keyring", change="add", key=keys.new.read_text()) == {"ok": [old, new]}
    for arguments in (("use", new), ("use", "12345678"), ("remove", old)):
        result = shell.run("keyring", *arguments, "--json")
        assert (result.code, result.error["kind"]) == (4, "refused"), arguments
    assert [each["keys"] for each in shell.json("keyring", "list")] == [[old, new], [old]]
    assert [each["keys"] for each in shell.json("keyring", "add", str(keys.new))] == [[old, new]] * 2
    assert [each["keys"] for each in shell.json("keyring", "add", str(keys.new))] == [[old, new]] * 2, "once is enough"
    assert [each["keys"] for each in shell.json("keyring", "use", new)] == [[new, old]] * 2
    assert [each["keys"] for each in shell.json("keyring", "remove", old)] == [[new]] * 2
    assert [each["keys"] for each in shell.json("keyring", "remove", old)] == [[new]] * 2
    assert "no node here had the key 1234abcd" in shell.run("keyring", "remove", "1234abcd").err


def test_who_was_not_asked_is_named(hosts: Hosts, keys: Keys) -> None:
    """A key that is used before all have it parts the cluster, and nobody on this host would see why."""
    here = {"GOSSAMESH_RUNTIME_DIR": hosts.places[0]}
    with hosts.daemons[0].connection() as line:
        until("all know each other", lambda: members(line) == ["alive"] * 3)
    added = hosts.shell.run("keyring", "add", str(keys.new), **here)
    assert "not asked, for they are on other hosts: node-1, node-2. Add the key there" in added.err
    removed = hosts.shell.run("keyring", "remove", "1234abcd", **here)
    assert "other hosts: node-1, node-2." in removed.err


def test_a_node_that_does_not_answer_keeps_all_from_being_changed(shell: Shell, keys: Keys) -> None:
    shell.daemon("ann", "shop", "--key-file", str(keys.old))
    bob = shell.daemon("bob", "shop", "--key-file", str(keys.old))
    silent = Path(bob.control)
    bob_answers = silent.with_suffix(".away")
    silent.rename(bob_answers)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(silent))
        listener.listen()
        result = shell.run("keyring", "add", str(keys.new), "--json")
        assert (result.code, result.error["kind"]) == (3, "no node")
    silent.unlink()
    bob_answers.rename(silent)
    assert [len(each["keys"]) for each in shell.json("keyring", "list")] == [1, 1]


def test_a_cluster_without_a_key_can_not_be_given_one(shell: Shell, keys: Keys) -> None:
    shell.daemon("ann")
    assert shell.json("keyring", "list")[0]["keys"] == []
    result = shell.run("keyring", "add", str(keys.new))
    assert result.code == 4 and "without a key" in result.err


def test_no_key_is_printed_logged_or_taken_from_the_command_line(shell: Shell, keys: Keys, tmp_path: Path) -> None:
    ann = shell.daemon("ann", "shop", "--key-file", str(keys.old))
    secret = keys.new.read_text().strip()
    said = [shell.run("keyring", "add", str(keys.new)), shell.run("keyring", "use", keys.name(keys.new))]
    said += [shell.run("keyring", "add", secret), shell.run("keyring", "list", "--json"), shell.run("status")]
    assert [each.code for each in said] == [0, 0, 2, 0, 0]
    broken = tmp_path / "broken.key"
    broken.touch(0o600)
    broken.write_text(secret[:-5])
    said += [shell.run("keyring", "add", str(broken)), shell.run("keyring", "add", str(tmp_path / "none"))]
    assert [each.code for each in said[-2:]] == [4, 2]
    with ann.connection() as line:
        said_to = repr([line.ask(do="keyring", change="add", key=secret[:-5]), line.ask(do="keyring", change="other")])
        assert said_to.count("error") == 2
    _, ended = ann.terminate()
    assert f"seals with the key {keys.name(keys.new)} now" in ended.err
    shown = "".join(each.out + each.err for each in [*said[:2], *said[3:], ended]) + said_to
    for file in (keys.old, keys.new):
        text = file.read_text().strip()
        for hidden in (text[:-5], base64.urlsafe_b64decode(text).hex(), repr(base64.urlsafe_b64decode(text))[2:-1]):
            assert hidden not in shown


def test_a_key_comes_from_stdin_too(shell: Shell, keys: Keys) -> None:
    shell.daemon("ann", "shop", "--key-file", str(keys.old))
    import subprocess

    from tests.cli.shell import GOSSIP

    done = subprocess.run(
        [GOSSIP, "keyring", "add", "-", "--json"],
        env=shell.environment, input=keys.new.read_bytes(), capture_output=True, timeout=30, check=True,
    )  # fmt: skip
    assert keys.name(keys.new).encode() in done.stdout
