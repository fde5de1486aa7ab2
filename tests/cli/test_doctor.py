"""Does `gossip doctor` find what is really wrong, say whose fault it is, and what to do? With real nodes and faults."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gossip.cli.diagnosis import Patient, findings
from tests.cli.shell import GOSSIP, Daemon, Process, Shell, until
from tests.integration.processes import free_port

KEY = base64.urlsafe_b64encode(b"a key that nobody else here has!").decode()
OTHER_KEY = base64.urlsafe_b64encode(b"another key, of thirty-two bytes").decode()
QUICK = {"GOSSAMESH_JOIN_TIMEOUT": "0.3", "GOSSAMESH_PROBE_INTERVAL": "0.2", "GOSSAMESH_DISCOVERY_INTERVAL": "0.5"}


class Diagnosis:
    """What the doctor said."""

    def __init__(self, shell: Shell, *arguments: str, **environment: str) -> None:
        result = shell.run("doctor", "--json", *arguments, **environment)
        assert result.err == "", result
        self.text = result.out
        self.all: list[dict[str, Any]] = json.loads(result.out)
        self.code = result.code
        for each in self.all:
            assert (each["level"] == "ok") == (each["next"] is None) == (each["fault"] is None), each
        assert self.code == any(each["level"] == "problem" for each in self.all)

    def of(self, level: str) -> list[dict[str, Any]]:
        return [each for each in self.all if each["level"] == level]

    def only(self, level: str, check: str) -> dict[str, Any]:
        """The one finding of this level and check, and there are no other problems."""
        found = [each for each in self.of(level) if each["check"] == check]
        assert len(found) == 1, self.all
        assert level != "problem" or len(self.of("problem")) == 1, self.of("problem")
        return found[0]


def place(shell: Shell, name: str) -> dict[str, str]:
    """A runtime directory of its own, as on another host."""
    path = shell.directory / name
    path.mkdir(mode=0o700, exist_ok=True)
    return {"GOSSAMESH_RUNTIME_DIR": str(path)}


def on_the_network(shell: Shell, name: str, port: int, *more: str, cluster: str = "shop", **environment: str) -> Daemon:
    return shell.daemon(name, cluster, "--bind", f"127.0.0.1:{port}", *more, **(QUICK | environment))


@contextmanager
def program(says: bytes) -> Iterator[int]:
    """Another program that listens, and says this to everybody; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        met = []

        def serve() -> None:
            try:
                while True:
                    met.append(server.accept()[0])
                    met[-1].sendall(says)
            except OSError:
                return

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for each in met:
            each.close()


# -- where no node runs ------------------------------------------------------------------------------------------------


def test_where_nobody_runs_it_says_what_to_start_and_makes_nothing(shell: Shell) -> None:
    diagnosis = Diagnosis(shell)
    assert "gossip run -c shop" in diagnosis.only("problem", "nodes")["next"]
    assert os.listdir(shell.directory) == []
    diagnosis = Diagnosis(shell, "-c", "bank")
    assert "in the cluster 'bank'" in diagnosis.only("problem", "nodes")["found"]


def test_of_another_cluster_it_says_so(shell: Shell) -> None:
    shell.daemon("ann")
    assert "there are nodes of 'shop'" in Diagnosis(shell, "-c", "bank").only("problem", "nodes")["found"]


def test_a_node_that_was_killed_is_told_from_one_that_left(shell: Shell) -> None:
    ann = shell.daemon("ann")
    ann.terminate()
    assert Diagnosis(shell).only("problem", "nodes")["fault"].startswith("nobody started one")
    bob = shell.daemon("bob")
    bob.process.signal(signal.SIGKILL)
    bob.process.wait()
    found = Diagnosis(shell).only("problem", "nodes")
    assert "1 ended without a goodbye" in found["found"] and "log" in found["fault"]


def test_nodes_that_meet_elsewhere_are_found_by_what_the_kernel_knows(shell: Shell) -> None:
    """A cron job or a service has not the shell's environment: the commonest reason why nobody is found."""
    elsewhere = place(shell, "elsewhere")
    shell.daemon("ann", **elsewhere)
    found = Diagnosis(shell).only("problem", "nodes")
    assert f"1 node of yours meets elsewhere, below {elsewhere['GOSSAMESH_RUNTIME_DIR']}" in found["found"]
    assert "GOSSAMESH_RUNTIME_DIR" in found["next"] and "environment" in found["fault"]
    assert elsewhere["GOSSAMESH_RUNTIME_DIR"] not in Diagnosis(shell, "-c", "bank").text, "those are of another cluster"
    assert Diagnosis(shell, **elsewhere).code == 0
    other = place(shell, "other")
    shell.daemon("bob", **other)
    found = Diagnosis(shell).only("problem", "nodes")
    assert all(each["GOSSAMESH_RUNTIME_DIR"] in found["found"] for each in (elsewhere, other))
    assert found["fault"].count("environment") == found["next"].count("look there") == 1, "it is said once"
    shell.daemon("cat", **elsewhere)  # each is connected to the other, and a connection is no node
    assert "2 nodes of yours meet elsewhere" in Diagnosis(shell).only("problem", "nodes")["found"]


@pytest.mark.parametrize(
    ("environment", "level", "words"),
    [
        ({"GOSSAMESH_BIND": "0.0.0.0:7946"}, "problem", "without a key"),
        ({"GOSSAMESH_BIND": "0.0.0.0:7946", "GOSSAMESH_INSECURE": "1"}, "warning", "whoever reaches it"),
        ({"GOSSAMESH_BIND": "127.0.0.1:7946", "GOSSAMESH_ADVERTISE": "0.0.0.0:7946"}, "problem", "every interface"),
        ({"GOSSAMESH_KEY": "too short"}, "problem", "key"),
        ({"GOSSAMESH_SEED": "10.0.0.1:7946"}, "warning", "GOSSAMESH_SEEDS"),
        ({"GOSSAMESH_PROBE_INTERVAL": "often"}, "problem", "GOSSAMESH_PROBE_INTERVAL"),
        ({"GOSSAMESH_CONFIG": "/no/such.toml"}, "problem", "/no/such.toml"),
        ({"GOSSAMESH_DATA_DIR": "/dev/null/data"}, "problem", "data_dir"),
        ({"GOSSAMESH_BIND": "127.0.0.1:0", "GOSSAMESH_SEEDS_FILE": "/no/seeds"}, "problem", "seeds"),
    ],
    ids=lambda each: "-".join(each) if isinstance(each, dict) else str(each)[:12],
)
def test_settings_that_no_node_could_start_with_are_told(
    shell: Shell, environment: dict[str, str], level: str, words: str
) -> None:
    found = [each for each in Diagnosis(shell, **environment).of(level) if each["check"] == "settings"]
    assert len(found) == 1 and words in found[0]["found"], found


def test_the_file_is_looked_at_and_a_key_in_it_that_others_can_read(shell: Shell) -> None:
    file = shell.directory / "node.toml"
    file.write_text(f'[bank]\nkey = "{KEY}"\nbind = "127.0.0.1:0"\n')
    file.chmod(0o644)
    diagnosis = Diagnosis(shell, "--config", str(file))
    assert "chmod 600" in diagnosis.only("warning", "settings")["next"]
    assert KEY not in diagnosis.text
    file.chmod(0o600)
    assert "settings" in [each["check"] for each in Diagnosis(shell, "--config", str(file)).of("ok")]
    file.write_text("[bank\n")
    assert str(file) in Diagnosis(shell, "--config", str(file)).of("problem")[0]["found"]


def test_the_seeds_are_tried_though_no_node_runs(shell: Shell) -> None:
    port = free_port()
    settings = {"GOSSAMESH_BIND": "127.0.0.1:0", "GOSSAMESH_SEEDS": f"127.0.0.1:{port}"}
    problems = Diagnosis(shell, **settings).of("problem")
    assert [each["check"] for each in problems] == ["nodes", "seeds"] and "nobody listens" in problems[1]["found"]
    on_the_network(shell, "ann", port, **place(shell, "there"))

    def at_the_seed(level: str, *arguments: str) -> str:
        told = [each for each in Diagnosis(shell, *arguments, **settings).of(level) if each["check"] == "seeds"]
        assert len(told) == 1, told
        return str(told[0]["found"])

    assert "takes what we say" in at_the_seed("ok", "-c", "shop")
    assert "with -c CLUSTER" in at_the_seed("ok")
    assert "hung up at once" in at_the_seed("problem", "-c", "bank")


# -- where all is well -------------------------------------------------------------------------------------------------


def test_a_healthy_cluster_has_nothing_to_complain_of(shell: Shell) -> None:
    ports = [free_port(), free_port()]
    one = on_the_network(shell, "ann", ports[0], GOSSAMESH_KEY=KEY)
    on_the_network(
        shell, "bob", ports[1], "--seed", f"127.0.0.1:{ports[0]}", "--data-dir", str(shell.directory / "data"),
        GOSSAMESH_KEY=KEY, **place(shell, "there"),
    )  # fmt: skip
    shell.daemon("cat", GOSSAMESH_KEY=KEY)
    members_of(one, "ann", "bob", "cat")
    for environment in ({}, place(shell, "there")):
        diagnosis = Diagnosis(shell, **environment)
        assert diagnosis.code == 0 and [each for each in diagnosis.all if each["level"] != "ok"] == []
    checks = {each["check"] for each in diagnosis.all}
    assert checks >= {
        "settings", "advertise", "seeds", "members", "this host", "clocks", "datagrams", "versions", "mdns",
        "directory", "open files", "disk", "refused",
    }  # fmt: skip
    assert shell.run("doctor").out.startswith("ok\tsettings\t")
    assert KEY not in diagnosis.text


def members_of(daemon: Daemon, *names: str) -> None:
    """Waits until these are its living members."""

    def living() -> bool:
        with daemon.connection() as line:
            members = line.ask(do="members")["ok"]
        return sorted(each["name"] for each in members if each["status"] == "alive") == sorted(names)

    until(f"all of {names} are there", living)


# -- what is at an address ---------------------------------------------------------------------------------------------


def test_another_cluster_at_the_seed_is_named(shell: Shell) -> None:
    ports = [free_port(), free_port()]
    on_the_network(shell, "bob", ports[1], cluster="bank")
    on_the_network(shell, "ann", ports[0], "--seed", f"localhost:{ports[1]}")
    found = Diagnosis(shell, "-c", "shop").only("problem", "seeds")
    assert f"localhost:{ports[1]}" in found["found"] and "the node 'bob' of the cluster 'bank'" in found["found"]
    until("bob has counted", lambda: "malformed" in Diagnosis(shell, "-c", "bank").text)
    diagnosis = Diagnosis(shell, "-c", "bank")
    assert diagnosis.code == 0, "he can not help it"
    refused = [each for each in diagnosis.of("warning") if each["check"] == "refused"]
    assert [each["found"].split("=")[0] for each in refused] == ["malformed", "foreign_streams"]


@pytest.mark.parametrize("key", ["", OTHER_KEY], ids=["none", "another"])
def test_another_key_at_the_seed_is_what_it_looks_like(shell: Shell, key: str) -> None:
    ports = [free_port(), free_port()]
    there = place(shell, "there") | ({"GOSSAMESH_KEY": key} if key else {})
    on_the_network(shell, "bob", ports[1], **there)
    on_the_network(shell, "ann", ports[0], "--seed", f"127.0.0.1:{ports[1]}", GOSSAMESH_KEY=KEY)
    found = Diagnosis(shell).only("problem", "seeds")
    assert "hung up at once" in found["found"] and "another key than ours, or none" in found["fault"]
    assert "GOSSAMESH_KEY" in found["next"]
    name = "unsealed" if key else "malformed"
    there.pop("GOSSAMESH_KEY", None)
    until("bob has counted", lambda: name in Diagnosis(shell, **there).text)


def test_another_key_in_the_same_directory_is_known_for_sure(shell: Shell) -> None:
    shell.daemon("ann", GOSSAMESH_KEY=KEY)
    shell.daemon("bob", **QUICK)
    found = Diagnosis(shell).only("problem", "this host")
    assert "bob (pid " in found["found"] and "has no key, and ann has one" in found["fault"]
    shell.daemon("cat", **QUICK, GOSSAMESH_KEY=OTHER_KEY)
    assert "cat" in Diagnosis(shell).only("problem", "this host")["fault"]


def test_another_program_at_the_seed_is_quoted_and_a_silent_one_is_a_warning(shell: Shell) -> None:
    with program(b"SSH-2.0-Door\r\n\x1b[2J") as talks, program(b"") as silent:
        gone = free_port()
        seeds = [f"127.0.0.1:{port}" for port in (talks, silent, gone)] + ["no-such.invalid:7946"]
        ann = on_the_network(shell, "ann", free_port(), *(part for seed in seeds for part in ("--seed", seed)))
        diagnosis = Diagnosis(shell)
        told = {each["found"].split(": ")[0]: each for each in diagnosis.all if each["check"] == "seeds"}
        assert "SSH-2.0-Door" in told[seeds[0]]["found"] and "another program" in told[seeds[0]]["fault"]
        assert told[seeds[1]]["level"] == "warning" and "says nothing" in told[seeds[1]]["fault"]
        assert "does not run" in told[seeds[2]]["fault"]
        assert "name" in told[seeds[3]]["fault"]
        assert [each["check"] for each in diagnosis.of("problem")] == ["advertise", "seeds", "seeds", "seeds"]
        assert "\x1b" not in shell.run("doctor").out
        ann.terminate()


# -- where it says it is -----------------------------------------------------------------------------------------------


def test_an_address_that_leads_others_to_themselves(shell: Shell) -> None:
    port = free_port()
    shell.daemon("ann", "shop", "--bind", f"0.0.0.0:{port}", "--advertise", f"127.0.0.1:{port}", GOSSAMESH_KEY=KEY)
    found = Diagnosis(shell).only("problem", "advertise")
    assert f"127.0.0.1:{port}" in found["found"] and "GOSSAMESH_ADVERTISE" in found["next"]


def test_an_address_of_another_machine(shell: Shell) -> None:
    port = free_port()
    shell.daemon("ann", "shop", "--bind", f"127.0.0.1:{port}", "--advertise", f"192.0.2.1:{port}")
    assert "is no address of this machine" in Diagnosis(shell).only("problem", "advertise")["found"]


def test_a_port_at_which_it_does_not_listen(shell: Shell) -> None:
    port, other = free_port(), free_port()
    shell.daemon("ann", "shop", "--bind", f"127.0.0.1:{port}", "--advertise", f"127.0.0.1:{other}")
    found = Diagnosis(shell).only("problem", "advertise")
    assert "nobody listens" in found["found"] and f"listens at 127.0.0.1:{port}" in found["fault"]


# -- this host ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o777, 0o730])
def test_a_directory_that_others_can_write_to(shell: Shell, mode: int) -> None:
    shell.daemon("ann")
    directory = next((shell.directory / "gossamesh").iterdir())
    for path in (directory, directory.parent):
        path.chmod(mode)
        problems = Diagnosis(shell).of("problem")
        assert problems[0]["check"] == "directory" and f"({mode:o})" in problems[0]["found"]
        assert "chmod 700" in problems[0]["next"]
        path.chmod(0o700)
    assert Diagnosis(shell).code == 0


def test_a_directory_in_which_no_node_would_start_is_told_before_one_does(shell: Shell) -> None:
    elsewhere = place(shell, "elsewhere")
    path = Path(elsewhere["GOSSAMESH_RUNTIME_DIR"])
    path.chmod(0o777)
    problems = Diagnosis(shell, **elsewhere).of("problem")
    assert [each["check"] for each in problems] == ["directory", "nodes"]
    assert f"{path}: can be written to by others (777)" in problems[0]["found"]
    assert "GOSSAMESH_RUNTIME_DIR" in problems[0]["next"]
    path.rmdir()
    assert [each["check"] for each in Diagnosis(shell, **elsewhere).of("problem")] == ["nodes"], "a node makes it"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user(shell: Shell) -> None:
    shell.daemon("ann")
    directory = next((shell.directory / "gossamesh").iterdir())
    os.chown(directory, 12_345, -1)
    assert "belongs to uid 12345" in Diagnosis(shell).of("problem")[0]["found"]
    os.chown(directory, 0, -1)


def test_files_that_somebody_removed(shell: Shell) -> None:
    shell.daemon("ann", GOSSAMESH_DISCOVERY_INTERVAL="3600")
    assert Diagnosis(shell).code == 0
    shutil.rmtree(next((shell.directory / "gossamesh").iterdir()))
    found = Diagnosis(shell).only("problem", "nodes")
    assert "1 nodes that listen" in found["found"] and "temporary files" in found["fault"]


def test_a_lock_that_somebody_removed(shell: Shell) -> None:
    """Its control socket is found by nobody then; where another node has it among its members, that one is well."""
    ann = shell.daemon("ann", GOSSAMESH_DISCOVERY_INTERVAL="3600")
    bob = shell.daemon("bob", GOSSAMESH_DISCOVERY_INTERVAL="3600")
    members_of(bob, "ann", "bob")
    Path(ann.control).with_suffix(".lock").unlink()
    with ann.connection() as line:
        line.send(b'{"do": "checkup"}\n')
        answer = line.read()
        while "progress" in answer:
            answer = line.read()
    assert answer["ok"]["listed"] is False
    assert Diagnosis(shell).code == 0


def test_a_node_that_stands_still(shell: Shell) -> None:
    ann = shell.daemon("ann")
    ann.process.signal(signal.SIGSTOP)
    problems = Diagnosis(shell).of("problem")
    assert problems[0]["check"] == "nodes" and "has not answered" in problems[0]["found"]
    assert "stopped" in problems[0]["fault"]


def limited(shell: Shell, limit: str, *arguments: str) -> Daemon:
    """A node whose process may have no more than this."""
    command = [
        "sh",
        "-c",
        f'ulimit {limit}; exec "$0" "$@"',
        str(GOSSIP),
        "run",
        "-c",
        "shop",
        "--name",
        "ann",
        "--json",
    ]
    process = Process([*command, *arguments], shell.environment)
    shell._started.append(process)
    return Daemon(process, json.loads(process.line()))


def test_fewer_files_than_streams(shell: Shell) -> None:
    limited(shell, "-n 100")
    found = Diagnosis(shell).only("warning", "open files")
    assert "100 may be open" in found["found"] and "ulimit -n" in found["next"]


def test_a_disk_that_refuses(shell: Shell) -> None:
    """No file may grow beyond 512 KiB, as on a disk that is full."""
    ann = limited(shell, "-f 512", "--data-dir", str(shell.directory / "data"))
    with ann.connection() as line:

        def failed() -> bool:
            line.ask(do="set", object="m", key="k", value=os.urandom(100_000).hex())
            return line.ask(do="status")["ok"]["storage"]["failed"] is not None

        until("the disk has refused", failed)
    found = Diagnosis(shell).only("problem", "disk")
    assert str(shell.directory / "data") in found["found"] and "restart" in found["next"]


# -- what only members can tell ----------------------------------------------------------------------------------------


def examined(shell: Shell, port: int) -> Patient:
    """A real node with a real peer, as the doctor sees it."""
    ann = on_the_network(shell, "ann", port)
    on_the_network(shell, "bob", free_port(), "--seed", f"127.0.0.1:{port}", **place(shell, "there"))
    members_of(ann, "ann", "bob")
    with ann.connection() as line:
        status, members, hello = (line.ask(do=do)["ok"] for do in ("status", "members", "hello"))
        line.send(b'{"do": "checkup"}\n')
        answer = line.read()
        while "progress" in answer:
            answer = line.read()
    return Patient(status, members, answer["ok"], [hello], {})


def told(patient: Patient, check: str, **of_bob: Any) -> list[tuple[str, str]]:
    members = [each if each["me"] else {**each, **of_bob} for each in patient.members]
    found = findings(patient._replace(members=members))
    return [(each.level, each.found) for each in found if each.check == check]


def test_clocks_datagrams_versions_and_lies_are_judged_by_what_members_tell_if_they_do(shell: Shell) -> None:
    patient = examined(shell, free_port())
    assert told(patient, "clocks", skew=None) == [("ok", "0 of 1 members compared; none differs by more than 1 s")]
    assert told(patient, "clocks", skew=-0.2) == [("ok", "1 of 1 members compared; none differs by more than 1 s")]
    ((level, found),) = told(patient, "clocks", skew=34.0)
    assert level == "problem" and "bob's clock is 34.0 s ahead" in found and "bob's writes wait here" in found
    ((level, found),) = told(patient, "clocks", skew=-34.0)
    assert level == "problem" and "our writes wait at bob" in found
    assert told(patient, "clocks", skew=2.0)[0][0] == "warning"
    assert told(patient, "datagrams", datagrams=None)[0][0] == "ok"
    assert told(patient, "datagrams", datagrams=True)[0] == ("ok", "1 members answer them; none is known not to")
    ((level, found),) = told(patient, "datagrams", datagrams=False)
    assert level == "warning" and "bob" in found
    assert told(patient, "versions")[0][0] == "ok"
    assert told(patient, "versions", version="9.9")[0][0] == "warning"
    assert told(patient, "refused") == [("ok", "nothing was turned away")]
    for counter in ("forged", "impersonated"):
        lied = patient._replace(status={**patient.status, "counters": {counter: 3}})
        ((level, found),) = told(lied, "refused")
        assert level == "warning" and f"{counter}=3" in found and "in the name of" in found


def test_where_most_clocks_differ_alike_it_is_ours(shell: Shell) -> None:
    patient = examined(shell, free_port())
    (bob,) = patient.others
    several = [{**bob, "name": name, "instance": name, "skew": -60.0} for name in ("bob", "cat", "dan")]
    found = [each for each in findings(patient._replace(members=several)) if each.check == "clocks"]
    assert {each.fault for each in found} == {"this host's clock: most others differ from it alike"}


def test_a_peer_whose_port_takes_no_stream(shell: Shell) -> None:
    """Its listening sockets are closed while it lives on, as by a firewall for TCP."""
    port, other = free_port(), free_port()
    ann = on_the_network(shell, "ann", port)
    program = f"""
import asyncio, gossip
async def live():
    node = gossip.Node("shop", name="bob", bind="127.0.0.1:{other}", seeds=["127.0.0.1:{port}"],
                       runtime_dir="{place(shell, "there")["GOSSAMESH_RUNTIME_DIR"]}")
    async with node:
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, input)
        for server in node._runtime.transport._servers:
            if server.sockets and server.sockets[0].family.name == "AF_INET":
                server.close()
        print("closed", flush=True)
        await asyncio.sleep(60)
asyncio.run(live())
"""
    bob = Process([sys.executable, "-c", program], shell.environment, stdin=subprocess.PIPE)
    shell._started.append(bob)
    assert bob.line() == "ready"
    members_of(ann, "ann", "bob")
    bob.tell("")
    assert bob.line() == "closed"
    found = Diagnosis(shell).only("problem", "members")
    assert f"bob at 127.0.0.1:{other}: nobody listens" in found["found"] and "TCP" in found["fault"]


# -- a firewall --------------------------------------------------------------------------------------------------------

NO_UDP = (
    "ip link set lo up && ip rule add pref 5 ipproto udp blackhole && ip rule add pref 10 lookup local && "
    "ip rule del pref 0 && echo ready && exec cat"
)
"""In a network of its own, in which no datagram goes anywhere."""


@contextmanager
def without_udp() -> Iterator[list[str]]:
    """What to put before a command so that it runs where datagrams are dropped; skips where that can not be had."""
    try:
        holder = Process(["unshare", "--net", "sh", "-c", NO_UDP], dict(os.environ), stdin=subprocess.PIPE)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    try:
        try:
            assert holder.line() == "ready"
        except AssertionError as error:
            pytest.skip(f"needs the right to make a network namespace, and ip rules in it: {error}")
        yield ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
    finally:
        holder.end()


def test_datagrams_that_a_firewall_drops(shell: Shell) -> None:
    ports = [free_port(), free_port()]
    with without_udp() as inside:

        def start(name: str, port: int, *more: str, **environment: str) -> Daemon:
            run = [str(GOSSIP), "run", "-c", "shop", "--name", name, "--json", "--bind", f"127.0.0.1:{port}", *more]
            process = Process([*inside, *run], shell.environment | QUICK | environment)
            shell._started.append(process)
            return Daemon(process, json.loads(process.line()))

        ann = start("ann", ports[0])
        start("bob", ports[1], "--seed", f"127.0.0.1:{ports[0]}", **place(shell, "there"))
        members_of(ann, "ann", "bob")
        with ann.connection() as line:
            (bob,) = (each for each in line.ask(do="members")["ok"] if not each["me"])
        if "datagrams" not in bob:
            pytest.skip("nodes of this version do not tell whether a member answers datagrams")
        until("it is known", lambda: "no datagram was answered" in Diagnosis(shell).text)
        found = Diagnosis(shell).only("warning", "datagrams")
        assert "bob" in found["found"] and "firewall" in found["fault"] and "UDP" in found["next"]
