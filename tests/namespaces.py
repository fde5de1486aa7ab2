"""How does a test have hosts of its own? Each is a network namespace with one interface, all on one bridge.

They exist on this machine alone, and are removed with the block. What runs inside sees the resolv.conf and the hosts
file that the test gives, and nothing of the machine's own network.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

WITH_FILES = (
    "unshare", "--mount", "sh", "-c",
    'mount --bind "$0/resolv.conf" /etc/resolv.conf && mount --bind "$0/hosts" /etc/hosts && exec "$@"',
)  # fmt: skip


def no_namespaces() -> str:
    """Why this machine lets us make none; empty if it does."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        return "network namespaces need the commands ip and unshare"
    name = f"gm-{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespace can be made here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


class Place:
    """One of these hosts: `address` on the link, `files` with its resolv.conf and hosts."""

    def __init__(self, hub: str, name: str, number: int, files: Path) -> None:
        self.name, self.files = name, files
        self.address, self.address6 = f"10.93.0.{number}", f"fd93::{number}"
        self.hub, self.port = hub, f"p{number}"

    @property
    def before(self) -> tuple[str, ...]:
        """What stands before a command that is to run there."""
        return ("ip", "netns", "exec", self.name, *WITH_FILES, str(self.files))

    def run(self, *command: str) -> str:
        return subprocess.run([*self.before, *command], capture_output=True, text=True, check=True, timeout=30).stdout

    def plug(self, plugged: bool) -> None:
        """Puts the cable in, or pulls it out."""
        subprocess.run(["ip", "-n", self.hub, "link", "set", self.port, "up" if plugged else "down"], check=True)


@contextmanager
def link(count: int) -> Iterator[list[Place]]:
    """So many hosts on one link: 10.93.0.1, fd93::1 and so on, with a default route that leads nowhere."""
    mark = secrets.token_hex(2)
    hub, places = f"gm{mark}hub", []
    with tempfile.TemporaryDirectory(prefix="gm-") as folder:
        try:
            _ip("netns", "add", hub)
            _ip("-n", hub, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
            _ip("-n", hub, "link", "set", "br0", "up")
            for number in range(1, count + 1):
                files = Path(folder, str(number))
                files.mkdir()
                (files / "resolv.conf").write_text("nameserver 127.0.0.1\n")
                (files / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
                places.append(Place(hub, f"gm{mark}n{number}", number, files))
                _join(places[-1])
            yield places
        finally:
            for name in [*(place.name for place in places), hub]:
                subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _join(place: Place) -> None:
    _ip("netns", "add", place.name)
    _ip("-n", place.name, "link", "add", "eth0", "type", "veth", "peer", "name", place.port, "netns", place.hub)
    _ip("-n", place.hub, "link", "set", place.port, "master", "br0", "up")
    _ip("-n", place.name, "link", "set", "lo", "up")
    _ip("-n", place.name, "addr", "add", f"{place.address}/24", "dev", "eth0")
    _ip("-n", place.name, "addr", "add", f"{place.address6}/64", "dev", "eth0", "nodad")
    _ip("-n", place.name, "link", "set", "eth0", "up")
    _ip("-n", place.name, "route", "add", "default", "via", "10.93.0.254")
    _ip("-n", place.name, "route", "add", "default", "via", "fd93::ff")


def _ip(*words: str) -> None:
    done: subprocess.CompletedProcess[str] = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def started(place: Place, command: Sequence[str], folder: Path, stderr: int | None = None) -> subprocess.Popen[str]:
    """A process on one of these hosts, that can be spoken to by its input and output."""
    return subprocess.Popen(
        [*place.before, *command], cwd=folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
    )
