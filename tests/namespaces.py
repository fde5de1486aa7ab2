"""How does a test have hosts of its own, on a network that it may break? Each is a network namespace, on one switch.

The switch is a bridge in a namespace too: nothing of the real network is touched, and nothing of it is reached. What
runs on a machine sees the resolv.conf and the hosts file that the test gives it. What a machine does not hear is
dropped where it comes in, as by a firewall or a broken link: its sender gets no error and goes on to send it again.

Invariant: no namespace outlives the block in which it was made.
Not here: delay (`integration.slowline`), and workers on the machines (`integration.lan`).
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

_WITH_FILES = (
    "unshare", "--mount", "sh", "-c",
    'mount --bind "$0/resolv.conf" /etc/resolv.conf && mount --bind "$0/hosts" /etc/hosts && exec "$@"',
)  # fmt: skip


def _missing() -> str:
    """Why there can be no such network here; empty if there can be one."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for command, package in {"ip": "iproute2", "nft": "nftables", "unshare": "util-linux"}.items():
        if shutil.which(command) is None:
            return f"needs the command {command}: apt-get install {package}"
    name = f"gm-{secrets.token_hex(4)}"
    tries = (
        ["ip", "netns", "add", name],
        ["ip", "-n", name, "link", "add", "v", "type", "veth", "peer", "name", "w"],
        ["ip", "netns", "exec", name, "nft", "add", "table", "inet", "t"],
    )
    try:
        for command in tries:
            tried = subprocess.run(command, capture_output=True, text=True, check=False)
            if tried.returncode:
                return f"{' '.join(command)} fails here: {tried.stderr.strip()}"
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return ""


_why_not = _missing()
needs_namespaces = pytest.mark.skipif(bool(_why_not), reason=_why_not or "there are network namespaces here")


class Machine:
    """One of them: `ipv4` and `ipv6` are its addresses, if it has such, `files` has its resolv.conf and hosts, and
    whatever a test puts there."""

    def __init__(self, number: int, netns: str, ipv4: str, ipv6: str, files: Path, switch: str) -> None:
        self.number, self.netns = number, netns
        self.ipv4, self.ipv6 = ipv4, ipv6
        self.files = files
        self.switch, self.port = switch, f"port{number}"

    @property
    def inside(self) -> tuple[str, ...]:
        """What to put before a command that is to run there."""
        return ("ip", "netns", "exec", self.netns, *_WITH_FILES, str(self.files))

    def run(self, *command: str) -> str:
        return _run(*self.inside, *command)

    def started(self, command: Sequence[str], folder: Path, stderr: int | None = None) -> subprocess.Popen[str]:
        """A process there, that can be spoken to by its input and output."""
        return subprocess.Popen(
            [*self.inside, *command],
            cwd=folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
        )  # fmt: skip

    def plug(self, plugged: bool) -> None:
        """Puts the cable in, or pulls it out."""
        _run("ip", "-n", self.switch, "link", "set", self.port, "up" if plugged else "down")

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


class Switch:
    """Machines on one switch, with a default route that leads nowhere. Machine n has 10.77.0.n, or fd77::n."""

    def __init__(self, files: Path) -> None:
        self.machines: list[Machine] = []
        self._files = files
        self._tag = f"gm-{secrets.token_hex(3)}"
        self._namespaces: list[str] = []
        self._name = self._namespace("switch")
        _run("ip", "-n", self._name, "link", "add", "bridge", "type", "bridge", "mcast_snooping", "0")
        _run("ip", "-n", self._name, "link", "set", "bridge", "up")

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
        files = self._files / str(number)
        files.mkdir()
        (files / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        (files / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        addresses = f"10.77.0.{number}" if ipv4 else "", f"fd77::{number:x}" if ipv6 else ""
        made = Machine(number, name, *addresses, files, self._name)
        _run("ip", "-n", self._name, "link", "add", made.port, "type", "veth", "peer", "name", "eth0", "netns", name)
        _run("ip", "-n", self._name, "link", "set", made.port, "master", "bridge", "up")
        if not ipv6:
            _run("ip", "netns", "exec", name, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6")
        _run("ip", "-n", name, "link", "set", "eth0", "up")
        if ipv4:
            _run("ip", "-n", name, "address", "add", f"{made.ipv4}/24", "dev", "eth0")
        if ipv6:
            _run("ip", "-n", name, "address", "add", f"{made.ipv6}/64", "dev", "eth0", "nodad")
        if gateway:
            for gate in ("10.77.0.254",) * ipv4 + ("fd77::ffff",) * ipv6:
                _run("ip", "-n", name, "route", "add", "default", "via", gate)
        self.machines.append(made)
        return made

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

    def over(self) -> None:
        for name in self._namespaces:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@contextmanager
def link(count: int) -> Iterator[list[Machine]]:
    """So many machines, with addresses of both kinds."""
    with tempfile.TemporaryDirectory(prefix="gm-") as files:
        switch = Switch(Path(files))
        try:
            yield [switch.machine(ipv6=True) for _ in range(count)]
        finally:
            switch.over()


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
