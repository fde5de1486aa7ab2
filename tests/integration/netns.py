"""What is a network that a test may break? Machines with addresses of their own on one switch, gone when it ends.

Each machine is a network namespace of the kernel, and so is the switch, a bridge: nothing of the real network is
touched, and nothing of it is reached. What a machine does not hear is dropped where it comes in, as by a firewall or a
broken link: its sender gets no error and goes on to send it again. Each has a runtime directory that is seen from
nowhere else: it would not do that their paths differ, for who sees another's socket speaks to it past any network.

Invariant: no namespace outlives the block in which it was made.
Not here: delay (`slowline`), and what runs on the machines (`processes`).
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.processes import OWN_PLACE, ROOT, Host, Worker
from tests.namespaces import no_namespaces

PORT = 7946
FAST: dict[str, Any] = {
    "probe_interval": 0.2,
    "probe_timeout": 0.1,
    "heal_interval": 0.5,
    "discovery_interval": 1.0,
}
"""A fifth of the usual times, so that what takes seconds takes one."""
LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
TROUBLE = ("suspected", "died", "reborn")
"""Events that tell of somebody who may be dead."""
_GOSSIP = Path(sys.executable).parent / "gossip"


def _missing() -> str:
    """Why there can be no such network here; empty if there can be one."""
    if shutil.which("nft") is None:
        return "needs the command nft: apt-get install nftables"
    if none := no_namespaces():
        return none
    name = f"gm-{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        commands = (["ip", "-n", name, "link", "add", "v", "type", "veth", "peer", "name", "w"],)
        for command in (*commands, ["ip", "netns", "exec", name, "nft", "add", "table", "inet", "t"]):
            tried = subprocess.run(command, capture_output=True, text=True, check=False)
            if tried.returncode:
                return f"{' '.join(command)} fails here: {tried.stderr.strip()}"
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)
    return ""


_why_not = _missing()
needs_netns = pytest.mark.skipif(bool(_why_not), reason=_why_not or "there are network namespaces here")


class Machine:
    """One of them: `ipv4` and `ipv6` are its addresses, if it has such."""

    def __init__(self, number: int, netns: str, ipv4: str, ipv6: str) -> None:
        self.number, self.netns = number, netns
        self.ipv4, self.ipv6 = ipv4, ipv6

    @property
    def inside(self) -> tuple[str, ...]:
        """What to put before a command that is to run there."""
        return ("ip", "netns", "exec", self.netns)

    def run(self, *command: str) -> str:
        return _run(*self.inside, *command)

    def refuse(self, *rules: str) -> None:
        """Drops what comes in and matches one of these rules of nft, and nothing else from here on."""
        chain = "".join(f"    {rule} counter drop\n" for rule in rules)
        table = "flush ruleset\ntable inet broken {{\n  chain in {{\n    {hook}\n{chain}  }}\n}}\n".format(
            hook="type filter hook input priority 0; policy accept;", chain=chain
        )
        subprocess.run([*self.inside, "nft", "-f", "-"], input=table, text=True, check=True)

    def refused(self) -> int:
        """How many packets were dropped, since `refuse`: a network that was to be broken and dropped none was whole."""
        return sum(map(int, re.findall(r"counter packets (\d+)", self.run("nft", "list", "ruleset"))))

    def give_up_streams(self) -> None:
        """Has the kernel end all streams, as it does after minutes without an answer: what it has left to send over
        them would else be there as soon as the network is whole again."""
        self.run("ss", "--kill", "--tcp", "--numeric", "state", "connected")

    def deaf_to(self, *others: Machine) -> None:
        """Hears nothing of these any more, and all of the others."""
        self.refuse(*(f"ip saddr {other.ipv4}" for other in others))


class Lan:
    """Machines on one switch, and the workers on them. Machine n has 10.77.0.n, or fd77::n."""

    def __init__(self, here: Host, place: str) -> None:
        self.here = here
        self.place = place
        """The path of the runtime directory of each, and on each another one."""
        self.key = base64.b64encode(secrets.token_bytes(32)).decode()
        self.machines: list[Machine] = []
        self._tag = f"gm-{secrets.token_hex(3)}"
        self._namespaces: list[str] = []
        self._switch = self._namespace("switch")
        _run("ip", "-n", self._switch, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", self._switch, "link", "set", "bridge", "up")

    def _namespace(self, name: str) -> str:
        name = f"{self._tag}-{name}"
        _run("ip", "netns", "add", name)
        self._namespaces.append(name)
        _run("ip", "-n", name, "link", "set", "lo", "up")
        return name

    def machine(self, ipv4: bool = True, ipv6: bool = False, gateway: bool = True) -> Machine:
        """Another one. Without `gateway` it knows no way to anywhere but its own network."""
        number = len(self.machines) + 1
        name = self._namespace(str(number))
        port = f"port{number}"
        _run("ip", "-n", self._switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
        _run("ip", "-n", self._switch, "link", "set", port, "master", "bridge", "up")
        if not ipv6:
            _run("ip", "netns", "exec", name, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6")
        _run("ip", "-n", name, "link", "set", "eth0", "up")
        made = Machine(number, name, f"10.77.0.{number}" if ipv4 else "", f"fd77::{number:x}" if ipv6 else "")
        if ipv4:
            _run("ip", "-n", name, "address", "add", f"{made.ipv4}/24", "dev", "eth0")
        if ipv6:
            _run("ip", "-n", name, "address", "add", f"{made.ipv6}/64", "dev", "eth0", "nodad")
        if gateway:
            for gate in ("10.77.0.254",) * ipv4 + ("fd77::ffff",) * ipv6:
                _run("ip", "-n", name, "route", "add", "default", "via", gate)
        self.machines.append(made)
        return made

    def begin(self, machine: Machine, **settings: Any) -> Worker:
        """Starts a worker on a machine; unless told otherwise at its address, with the first machine as its seed."""
        first = self.machines[0]
        address = machine.ipv4 or f"[{machine.ipv6}]"
        settings.setdefault("bind", f"{address}:{PORT}")
        settings.setdefault("seeds", [f"{first.ipv4 or f'[{first.ipv6}]'}:{PORT}"])
        before = (*machine.inside, *OWN_PLACE, self.place)
        return self.here.begin(f"m{machine.number}", before=before, runtime_dir=self.place, key=self.key, **settings)

    def several(self, count: int, **settings: Any) -> list[Worker]:
        """Machines with a worker each, that all know each other."""
        workers = [self.begin(self.machine(), **settings) for _ in range(count)]
        return acquainted(workers)

    def partition(self, *sides: Sequence[int]) -> None:
        """No machine hears one of another side; the sides are the numbers of their machines."""
        by_number = {machine.number: machine for machine in self.machines}
        for side in sides:
            others = [by_number[number] for other in sides if other is not side for number in other]
            for number in side:
                by_number[number].deaf_to(*others)

    def heal(self) -> None:
        for machine in self.machines:
            machine.refuse()

    def gossip(self, worker: Worker, *arguments: str) -> Any:
        """What the command `gossip` says on the machine of a worker, which it asks through its unix socket."""
        inside = ("nsenter", "--target", str(worker.pid), "--mount", "--net")
        said = subprocess.run(
            [*inside, str(_GOSSIP), *arguments, "--json", "--cluster", self.here.cluster],
            env={**os.environ, "GOSSAMESH_RUNTIME_DIR": self.place},
            cwd=ROOT,
            capture_output=True,
            check=True,
            timeout=20,
        )
        return json.loads(said.stdout)

    def over(self) -> None:
        for name in self._namespaces:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def acquainted(workers: list[Worker]) -> list[Worker]:
    """Waits until these have started and all know each other."""
    for worker in workers:
        worker.ready()
    everybody = sorted(worker.settings["name"] for worker in workers)
    for worker in workers:
        worker.until(lambda worker: worker.living() == everybody, "all know each other")
    return workers


def heard(worker: Worker, *kinds: str) -> list[str]:
    """Of whom a worker was told one of these, since it started."""
    return [name for kind, name in worker.ask("heard") if kind in kinds]


class Ears:
    """What each of these workers is told from here on."""

    def __init__(self, workers: list[Worker]) -> None:
        self._since = [(worker, len(worker.ask("heard"))) for worker in workers]

    def heard(self, *kinds: str) -> dict[str, list[tuple[str, str]]]:
        """What of these kinds happened, and to whom: by those who were told of any."""
        told = {
            worker.settings["name"]: [(kind, name) for kind, name in worker.ask("heard")[since:] if kind in kinds]
            for worker, since in self._since
        }
        return {name: each for name, each in told.items() if each}


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


@contextmanager
def lan_of(here: Host) -> Iterator[Lan]:
    """A network for the workers of a host. The workers end before it does."""
    with tempfile.TemporaryDirectory(prefix="gm-") as place:
        lan = Lan(here, place)
        try:
            yield lan
        finally:
            for worker in here.workers:
                worker.over()
            lan.over()
