"""Does `gossip run` start with what it is told, say that it is ready, and leave within a second whatever happens?"""

import base64
import json
import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from gossip.keyring import fingerprint
from tests.cli.shell import Daemon, Shell, status_of, until

SECOND = 1.0


def test_it_says_one_line_when_it_is_ready(shell: Shell) -> None:
    process = shell.start("run", "-c", "shop", "--name", "ann", "--bind", "127.0.0.1:0")
    line = process.line()
    assert line.startswith("ready: ann in cluster shop at unix:")
    assert " 127.0.0.1:" in line
    process.signal(signal.SIGTERM)
    assert process.wait().out == ""
    assert [path for path in shell.directory.rglob("*") if not path.is_dir()] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_within_a_second_with_a_leave(shell: Shell, number: int) -> None:
    ann, bob = shell.daemon("ann"), shell.daemon("bob")
    until("bob knows ann", lambda: status_of(shell, bob, ann) == "alive")
    seconds, result = ann.terminate(number)
    assert (result.code, result.err) == (0, "")
    assert seconds < SECOND
    until("bob heard the goodbye", lambda: status_of(shell, bob, ann) != "alive")
    assert status_of(shell, bob, ann) == "left"


def test_a_signal_ends_it_under_load(shell: Shell) -> None:
    ann, bob = shell.daemon("ann"), shell.daemon("bob")
    until("bob knows ann", lambda: status_of(shell, bob, ann) == "alive")

    def write_on() -> None:
        with ann.connection() as line:
            try:
                for number in range(1_000_000):
                    if line.ask(do="set", object="load", key=str(number % 100), value="x" * 1000) is None:
                        return
            except OSError:
                return

    writers = [threading.Thread(target=write_on) for _ in range(2)]
    watcher = shell.start("watch", "load")
    for writer in writers:
        writer.start()
    watcher.line()
    seconds, result = ann.terminate()
    for writer in writers:
        writer.join()
    assert result.code == 0
    assert seconds < SECOND
    until("bob heard the goodbye", lambda: status_of(shell, bob, ann) != "alive")
    assert status_of(shell, bob, ann) == "left"
    ended = watcher.wait()
    assert ended.code == 3


def test_a_peer_that_takes_nothing_does_not_keep_it(shell: Shell) -> None:
    ann, bob = shell.daemon("ann"), shell.daemon("bob")
    until("ann knows bob", lambda: status_of(shell, ann, bob) == "alive")
    bob.process.signal(signal.SIGSTOP)
    with ann.connection() as line:
        for number in range(8):
            assert line.ask(do="set", object="heavy", key=str(number), value="x" * 900_000) == {"ok": None}
    seconds, result = ann.terminate()
    assert seconds < SECOND
    assert result.code == 0


NO_ANSWER = """
import socket, sys, threading
sys.modules["uvloop"] = None  # it looks names up by itself
socket.getaddrinfo = lambda *asked, **more: threading.Event().wait(25)
sys.argv = ["gossip", "run", "-c", "shop", "--bind", "127.0.0.1:0", "--seed", "host.invalid:7946"]
from gossip.cli import main
main()
"""


def test_a_name_that_is_still_looked_up_does_not_keep_it(shell: Shell) -> None:
    """Threads wait for the resolver, and Python would wait for its threads."""
    process = shell.start_python(NO_ANSWER)
    assert process.line().startswith("ready")
    seconds, result = Daemon(process, {}).terminate()
    assert seconds < SECOND
    assert result.code == 0


def test_settings_come_from_option_then_environment_then_file(shell: Shell) -> None:
    file = shell.directory / "gossip.toml"
    file.write_text('name = "of-file"\n[tags]\nrole = "of-file"\n')
    config = ("--config", str(file), "--json")
    process = shell.start("run", *config, GOSSAMESH_CLUSTER="shop", GOSSAMESH_NAME="of-environment")
    assert json.loads(process.line())["name"] == "of-environment"
    process = shell.start("run", *config, "-c", "shop", "--name", "of-option", GOSSAMESH_NAME="of-environment")
    assert json.loads(process.line())["name"] == "of-option"
    process = shell.start("run", "--json", "-c", "shop", "--tag", "zone=a", GOSSAMESH_CONFIG=str(file))
    assert json.loads(process.line())["name"] == "of-file"
    tags = {member["name"]: member["tags"] for member in shell.json("members")}
    assert tags == {
        "of-environment": {"role": "of-file"},
        "of-option": {"role": "of-file"},
        "of-file": {"zone": "a"},
    }


def test_two_hosts_share_over_a_sealed_network_and_hear_the_leave(shell: Shell, tmp_path: Path) -> None:
    key_file = tmp_path / "shop.key"
    made = shell.run("keygen", str(key_file))
    called = fingerprint(base64.urlsafe_b64decode(key_file.read_text()))
    assert (made.code, made.out, made.err) == (0, "", f"gossip: {key_file} has the key {called}\n")
    here, there = shell.directory / "here", shell.directory / "there"
    sealed = ("--bind", "127.0.0.1:0", "--key-file", str(key_file))
    ann = shell.daemon("ann", "shop", *sealed, GOSSAMESH_RUNTIME_DIR=str(here))
    seed = ("--bind", "127.0.0.1:0", "--seed", ann.ready["addresses"][1])
    bob = shell.daemon("bob", "shop", *seed, GOSSAMESH_KEY=key_file.read_text(), GOSSAMESH_RUNTIME_DIR=str(there))
    assert shell.run("set", "flags", "beta", "true", GOSSAMESH_RUNTIME_DIR=str(here)).code == 0
    until("bob has it", lambda: shell.run("get", "flags", "beta", GOSSAMESH_RUNTIME_DIR=str(there)).out == "true\n")
    seconds, _ = ann.terminate()
    assert seconds < SECOND
    until("bob heard the goodbye", lambda: status_of(shell, bob, ann) != "alive")
    assert status_of(shell, bob, ann) == "left"


def test_a_command_names_its_seeds_and_mdns_is_asked_for(shell: Shell) -> None:
    here, there = shell.directory / "here", shell.directory / "there"
    ann = shell.daemon("ann", "shop", "--bind", "127.0.0.1:0", "--no-mdns", GOSSAMESH_RUNTIME_DIR=str(here))
    command = f"echo {ann.ready['addresses'][1]} '# ann'"
    told = ("--bind", "127.0.0.1:0", "--seeds-command", command, "--mdns")
    bob = shell.daemon("bob", "shop", *told, GOSSAMESH_RUNTIME_DIR=str(there))
    until("bob has it", lambda: shell.run("get", "flags", "beta", GOSSAMESH_RUNTIME_DIR=str(there)).code == 1)
    assert shell.run("set", "flags", "beta", "true", GOSSAMESH_RUNTIME_DIR=str(here)).code == 0
    until("bob has it", lambda: shell.run("get", "flags", "beta", GOSSAMESH_RUNTIME_DIR=str(there)).out == "true\n")
    seconds, _ = bob.terminate()
    assert seconds < SECOND
    for options, part in (
        (("--bind", "127.0.0.1:0", "--seeds-command", "echo '"), "seeds_command"),
        (("--mdns",), "bind"),
        (("--bind", "127.0.0.1:0", "--seed", "srv:shop"), "srv:_gossamesh._tcp.shop.example"),
    ):
        result = shell.run("run", "-c", "shop", *options)
        assert (result.code, result.out) == (2, "")
        assert part in result.err


def test_what_it_can_not_use_is_said(shell: Shell, tmp_path: Path) -> None:
    empty = tmp_path / "empty.key"
    empty.touch()
    no_key = tmp_path / "no.key"
    no_key.touch(0o600)
    no_key.write_text("hello\n")
    for arguments, part in (
        (("run",), "which cluster"),
        (("run", "-c", "shop", "--bind", "0.0.0.0:0"), "gossip keygen"),
        (("run", "-c", "shop", "--tag", "role"), "KEY=VALUE"),
        (("run", "-c", "shop", "--profile", "moon"), "wan"),
        (("run", "-c", "shop", "--key-file", str(tmp_path / "none")), "can not be read"),
        (("run", "-c", "shop", "--key-file", str(empty)), "is empty"),
        (("run", "-c", "shop", "--key-file", str(no_key)), f"the key file {no_key}: "),
        (("run", "-c", "shop", "--config", str(tmp_path / "none")), "can not be read"),
    ):
        result = shell.run(*arguments)
        assert (result.code, result.out) == (2, "")
        assert part in result.err
    assert shell.run("run", "-c", "shop", "--key", "abc").code == 2  # nothing takes a key where others see it


def test_a_port_that_is_taken_is_code_4(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = shell.run("run", "-c", "shop", "--bind", f"127.0.0.1:{port}", "--json")
    assert (result.code, result.error["kind"]) == (4, "refused")
    assert str(port) in result.error["error"]


def test_an_address_that_can_not_be_had_is_told_with_what_can(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "shop.key"
    shell.run("keygen", str(file))
    for bind, part in (("192.0.2.1:0", "has no such address"), ("no-such-host.invalid:0", "0.0.0.0 for all")):
        result = shell.run("run", "-c", "shop", "--bind", bind, "--key-file", str(file))
        assert result.code == 4 and part in result.err


def test_keygen_makes_keys_and_overwrites_none(shell: Shell, tmp_path: Path) -> None:
    first, second = shell.ok("keygen").strip(), shell.json("keygen")["key"]
    assert first != second
    assert len(base64.urlsafe_b64decode(first)) == len(base64.urlsafe_b64decode(second)) == 32
    file = tmp_path / "shop.key"
    before = os.umask(0)
    try:
        told = shell.json("keygen", str(file))
    finally:
        os.umask(before)
    written = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(base64.urlsafe_b64decode(written)) == 32
    assert told == {"file": str(file), "fingerprint": fingerprint(base64.urlsafe_b64decode(written))}
    again = shell.run("keygen", str(file), "--json")
    assert (again.code, again.error["kind"]) == (4, "refused")
    assert file.read_text() == written
    assert shell.run("keygen", str(tmp_path / "none" / "key")).code == 4


def test_who_is_told_twice_to_end_leaves_all_the_same(shell: Shell) -> None:
    """Ours: the second signal, a moment after the first, killed it, and the others saw it die."""
    bob = shell.daemon("bob")
    for number in range(5):
        ann = shell.daemon(f"ann-{number}")
        until("they know each other", lambda ann=ann: status_of(shell, bob, ann) == "alive")
        ann.process.signal(signal.SIGTERM)
        ann.process.signal(signal.SIGTERM)
        ann.process.signal(signal.SIGINT)
        assert ann.process.wait().code == 0
        until("it has left", lambda ann=ann: status_of(shell, bob, ann) == "left")
