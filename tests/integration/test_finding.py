"""Do nodes on hosts of their own find each other by a name, by SRV records, by a command and on the link?

Each host is a network namespace with its own name server; all are on one link. Nobody is told an address.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.processes import ROOT, Host, Worker, agree
from tests.namespaces import Machine, link, needs_namespaces
from tests.waiting import until_here

pytestmark = needs_namespaces

KEY = "Y2FuYXJ5LW9mLXRoaXJ0eS10d28tYnl0ZXMtMDEyMzQ="
QUICK: dict[str, Any] = {"key": KEY, "discovery_interval": 0.5}
ZONE = {
    "shop.example.": {"A": ["10.77.0.1", "10.77.0.2", "10.77.0.3"]},
    "_gossamesh._tcp.shop.example.": {"SRV": [f"0 0 7946 n{number}.shop.example." for number in (1, 2, 3)]},
    **{f"n{number}.shop.example.": {"AAAA": [f"fd77::{number}"]} for number in (1, 2, 3)},
}


@pytest.fixture
def places() -> Iterator[list[Machine]]:
    with link(3) as made:
        yield made


class NameServer:
    """The name server of one of these hosts."""

    def __init__(self, place: Machine) -> None:
        program = [sys.executable, "-m", "tests.discovery.nameserver", "127.0.0.1", "53"]
        self.process: subprocess.Popen[str] = place.started(program, ROOT)
        self._hear("ready")

    def serve(self, zone: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(zone) + "\n")
        self.process.stdin.flush()
        self._hear("served")

    def _hear(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == word + "\n"

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def name_servers(places: list[Machine], zone: dict[str, Any]) -> Iterator[list[NameServer]]:
    servers = [NameServer(place) for place in places]
    try:
        for server in servers:
            server.serve(zone)
        yield servers
    finally:
        for server in servers:
            server.end()


def meet(workers: list[Worker], timeout: float = 20.0) -> None:
    for worker in workers:
        worker.until(lambda worker: len(worker.living()) == len(workers), "all know each other", timeout)


@pytest.mark.parametrize("how", ["name", "srv", "environment", "file", "command"])
def test_nodes_find_each_other_by_name(here: Host, places: list[Machine], how: str) -> None:
    """As pods do behind a headless Service: each node's own address is among the answers."""
    seed = "srv:_gossamesh._tcp.shop.example" if how == "srv" else "shop.example:7946"
    settings: dict[str, Any] = {"seeds": [seed]}
    environment = {}
    if how == "environment":
        settings, environment = {}, {"GOSSAMESH_SEEDS": f"192.0.2.1:7946, {seed}"}
    if how == "file":
        settings = {"seeds_file": str(places[0].files / "seeds")}
        (places[0].files / "seeds").write_text(f"# everybody\n{seed}\n")
    if how == "command":
        settings = {"seeds_command": f"echo {seed}"}
    bind = "[::]:7946" if how == "srv" else "0.0.0.0:7946"
    with name_servers(places, ZONE):
        workers = []
        for place in places:
            common: dict[str, Any] = {"bind": bind, "mdns": False, "environment": environment, **QUICK, **settings}
            workers.append(here.start(place=place, **common))
        meet(workers)
        workers[0].ask("set", key="k", value=how)
        agree(workers, "map", {"k": how})
        for worker in workers:
            status = worker.ask("status")
            assert status["counters"].get("malformed", 0) == 0
            assert len(status["members"]) == 3, "nobody met himself"


def test_a_name_that_does_not_exist_yet_is_told_once_and_asked_for_until_it_does(
    here: Host, places: list[Machine]
) -> None:
    with name_servers(places[:2], {}) as servers:
        begun = time.monotonic()
        settings: dict[str, Any] = {"bind": "0.0.0.0:7946", "seeds": "shop.example:7946", "mdns": False, **QUICK}
        workers = [here.start(place=place, **settings) for place in places[:2]]
        assert time.monotonic() - begun < 15, "nobody waits for it"
        for worker in workers:
            worker.until(lambda worker: "shop.example" in worker.errors, "it is told")
        for server in servers:
            server.serve(ZONE)
        meet(workers)
        for worker in workers:
            assert worker.errors.count("can not be used") == 1, worker.errors


def test_a_name_server_that_says_nothing_delays_neither_start_nor_end(here: Host, places: list[Machine]) -> None:
    """The start by `join_timeout`, and the end of the process not at all: it took ten seconds once."""
    (places[0].files / "resolv.conf").write_text("nameserver 10.77.0.99\noptions timeout:15 attempts:2\n")
    settings: dict[str, Any] = {"bind": "0.0.0.0:7946", "mdns": False, "key": KEY}
    quick = here.start(place=places[0], **settings)
    usual = quick.terminated()
    seeds = ["silent.example:7946", "srv:_gossamesh._tcp.silent.example"]
    begun = time.monotonic()
    worker = here.start(place=places[0], seeds=seeds, seeds_command="sleep 60", join_timeout=1.0, **settings)
    started_in = time.monotonic() - begun
    ended_in = worker.terminated()
    print(f"start {started_in:.2f} s, end {ended_in:.2f} s, without a name {usual:.2f} s")
    assert started_in < 6 and ended_in < usual + 1.5


def test_what_a_host_calls_itself_is_not_taken_for_another(here: Host, places: list[Machine]) -> None:
    """M12: the name of this host is 127.0.1.1 here, and its address to the others."""
    (places[0].files / "hosts").write_text("127.0.0.1 localhost\n127.0.1.1 one\n10.77.0.2 two\n")
    (places[1].files / "hosts").write_text("127.0.0.1 localhost\n10.77.0.1 one\n127.0.1.1 two\n")
    settings: dict[str, Any] = {"bind": "0.0.0.0:7946", "seeds": "one:7946 two:7946", "mdns": False, **QUICK}
    one = here.start(place=places[0], join_timeout=5.0, **settings)
    two = here.start(place=places[1], **settings)
    meet([one, two])
    for worker in (one, two):
        assert worker.ask("status")["counters"].get("connect_failed", 0) == 0
    alone = here.start(place=places[2], bind="0.0.0.0:7946", seeds="localhost:7946", mdns=False, key=KEY)
    assert "none of the seeds answered" not in alone.errors, "there was nobody to wait for but itself"


# -- the link ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0"])
def test_nodes_on_one_link_find_each_other_without_being_told_anything(
    here: Host, places: list[Machine], bind: str
) -> None:
    workers = [here.start(place=place, bind=bind, **QUICK) for place in places]
    meet(workers)
    workers[0].ask("set", key="k", value=1)
    agree(workers, "map", {"k": 1})
    assert workers[2].terminated() < 1.5, "a leave takes no longer for it"
    workers[0].until(lambda worker: worker.statuses("w3") == ["left"])


def test_other_clusters_on_the_link_are_left_alone(here: Host, places: list[Machine]) -> None:
    ours = [here.start(place=place, bind="0.0.0.0:7946", **QUICK) for place in places[:2]]
    other = here.start(place=places[2], bind="0.0.0.0:7946", cluster=here.cluster + "-other", **QUICK)
    meet(ours)
    again = here.start(place=places[2], bind="0.0.0.0:0", **QUICK)  # by now all have heard of the other one
    meet([*ours, again])
    for worker in [*ours, again, other]:
        assert worker.ask("status")["counters"].get("unsealed", 0) == 0
    assert other.living() == [other.settings["name"]]


def test_in_kubernetes_and_on_loopback_nothing_is_said_on_the_link(here: Host, places: list[Machine]) -> None:
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    silent = [
        here.start(place=places[0], bind="0.0.0.0:7946", environment=pod, **QUICK),
        here.start(place=places[1], bind="127.0.0.1:7946", **QUICK),
        here.start(place=places[2], bind="0.0.0.0:7946", mdns=False, **QUICK),
    ]
    for place, worker in zip(places, silent, strict=True):
        assert ":5353 " not in place.run("ss", "-lun"), worker.errors
    asked = here.start(place=places[0], bind="0.0.0.0:0", environment=pod, mdns=True, **QUICK)
    assert ":5353 " in places[0].run("ss", "-lun")
    asked.terminated()


def test_a_link_that_was_cut_heals(here: Host, places: list[Machine]) -> None:
    """And one that was not there at the start: whoever comes up first hears of the others when it is."""
    quick: dict[str, Any] = {**QUICK, "probe_interval": 0.2, "probe_timeout": 0.1}
    places[0].plug(False)
    one = here.start(place=places[0], bind="10.77.0.1:7946", **quick)
    two = here.start(place=places[1], bind="0.0.0.0:7946", **quick)
    assert one.living() == ["w1"] and two.living() == ["w2"]
    places[0].plug(True)
    meet([one, two], timeout=40)
    one.kill(signal.SIGSTOP)
    until_here(lambda: two.living() == ["w2"], "it is taken for dead", 30)
    one.kill(signal.SIGCONT)
    meet([one, two], timeout=40)


def test_a_forked_child_holds_nothing_of_the_link(here: Host, places: list[Machine]) -> None:
    program = (
        "import asyncio, gossip, os, sys\n"
        "async def main():\n"
        "    async with gossip.Node('forks', bind='0.0.0.0:0', key=bytes(32), runtime_dir=sys.argv[1]) as node:\n"
        "        while len(node._runtime._search.descriptors()) < 3:\n"
        "            await asyncio.sleep(0.01)\n"
        "        if (child := os.fork()) == 0:\n"
        "            links = [os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')\n"
        "                     if os.path.lexists(f'/proc/self/fd/{fd}')]\n"
        "            mine = [each[8:-1] for each in links if each.startswith('socket:')]\n"
        "            held = [line for line in open('/proc/self/net/udp') if line.split()[9] in mine]\n"
        "            assert ':14E9' in open('/proc/self/net/udp').read()\n"
        "            os.write(1, f'held {len(held)}\\n'.encode())\n"
        "            os._exit(0)\n"
        "        os.waitpid(child, 0)\n"
        "asyncio.run(main())\n"
    )
    folder = places[0].files / "run"
    folder.mkdir(mode=0o700)
    assert places[0].run(sys.executable, "-c", program, str(folder)) == "held 0\n"
