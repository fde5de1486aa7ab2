"""How do the workers of a test live on machines of their own, and what are they told?

Each machine has a runtime directory that is seen from nowhere else: it would not do that their paths differ, for who
sees another's socket speaks to it past any network.

Invariant: the workers end before their network does.
Not here: the machines and the network between them (`tests.namespaces`), and what a worker is (`processes`).
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.integration.processes import OWN_PLACE, ROOT, Host, Worker
from tests.namespaces import Machine, Switch

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


class Lan(Switch):
    """Machines on one switch, and the workers on them."""

    def __init__(self, here: Host, files: Path) -> None:
        super().__init__(files)
        self.here = here
        self.place = str(files / "runtime")
        """The path of the runtime directory of each, and on each another one."""
        Path(self.place).mkdir()
        self.key = base64.b64encode(secrets.token_bytes(32)).decode()

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


@contextmanager
def lan_of(here: Host) -> Iterator[Lan]:
    """A network for the workers of a host. The workers end before it does."""
    with tempfile.TemporaryDirectory(prefix="gm-") as files:
        lan = Lan(here, Path(files))
        try:
            yield lan
        finally:
            for worker in here.workers:
                worker.over()
            lan.over()
