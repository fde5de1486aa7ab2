"""How does a test hold real workers? It starts them, asks them, stops and kills them by pid, and leaves none behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from discovery import runtime_directory
from tests.namespaces import Machine
from tests.waiting import TooLate, until_here

ROOT = Path(__file__).resolve().parent.parent.parent


PROGRAM = "tests.integration.worker"


class Gone(Exception):
    """A worker ended where it should have answered."""


class Worker:
    """One process of tests/integration/worker.py."""

    def __init__(
        self, cluster: str, environment: dict[str, str], output: Path, before: Sequence[str] = (), **settings: Any
    ) -> None:
        self.settings = settings
        self.said = ""
        """All that it wrote to its standard output."""
        self._errors = output
        with output.open("ab") as errors:
            self.process = subprocess.Popen(
                [
                    *before,
                    sys.executable,
                    "-W",
                    "error",
                    "-m",
                    "tests.integration.worker",
                    cluster,
                    json.dumps(settings),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env={**os.environ, **environment},
            )
        self._buffer = b""
        self.me: dict[str, Any] = {}

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def errors(self) -> str:
        return self._errors.read_text(errors="replace")

    def ready(self) -> Worker:
        """Waits until its node has started."""
        self.me = self._line(20.0)["ready"]
        return self

    def ask(self, do: str, timeout: float = 20.0, **request: Any) -> Any:
        """What it answers."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"do": do, **request}).encode() + b"\n")
            self.process.stdin.flush()
        answer = self._line(timeout)
        assert "error" not in answer, answer
        return answer["answer"]

    def until(self, condition: Callable[[Worker], Any], what: str = "", timeout: float = 20.0) -> Any:
        """Asks until the condition is true of this worker."""
        return until_here(lambda: condition(self), what, timeout)

    def living(self) -> list[str]:
        """The names of the members that it takes for living, itself included."""
        return sorted(each["name"] for each in self.ask("members") if each["status"] in ("alive", "suspect"))

    def statuses(self, name: str) -> list[str]:
        return [each["status"] for each in self.ask("members") if each["name"] == name]

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(number)

    def killed(self) -> None:
        """Kills it as a crash would, and takes note of it as init would."""
        self.kill()
        self.process.wait(10)

    def terminated(self, timeout: float = 10.0) -> float:
        """Sends SIGTERM; gives the seconds until it had ended, which it must have done well."""
        begun = time.monotonic()
        self.kill(signal.SIGTERM)
        assert self.process.wait(timeout) == 0, self.errors
        return time.monotonic() - begun

    def over(self) -> None:
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()

    def _line(self, timeout: float) -> Any:
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise TooLate(f"{self.settings} did not answer within {timeout} s: {self.errors}")
            part = os.read(self.process.stdout.fileno(), 1 << 16)
            if not part:
                raise Gone(f"{self.settings} ended: {self.errors}")
            self.said += part.decode(errors="replace")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)


OWN_PLACE = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o mode=700 tmpfs "$0" && exec "$@"')
"""Starts a program for which the directory that is named next is another, empty one: as in a container."""


def can_be_elsewhere() -> bool:
    """Whether this machine lets us make namespaces."""
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return tried.returncode == 0


class Host:
    """Workers of one cluster. They share a runtime directory, as on one host, or with `apart` have one each; one for
    which there is another directory at `elsewhere` is as in a container; one at a `place` is on a host of its own."""

    def __init__(self, cluster: str, directory: Path) -> None:
        self.cluster = cluster
        self.workers: list[Worker] = []
        self._directory = directory
        self._number = 0

    def begin(
        self,
        name: str = "",
        *,
        apart: bool = False,
        elsewhere: str = "",
        before: Sequence[str] = (),
        place: Machine | None = None,
        environment: Mapping[str, str] | None = None,
        cluster: str = "",
        key: str = "",
        **settings: Any,
    ) -> Worker:
        """Starts a worker and does not wait for it. `before` is a command that starts it, in a place of its own."""
        self._number += 1
        environment = dict(environment or {}) | ({"GOSSAMESH_KEY": key} if key else {})
        if apart or place is not None:
            own = self._directory / f"{self._number}"
            own.mkdir(mode=0o700)
            environment["GOSSAMESH_RUNTIME_DIR"] = str(own)
        settings["name"] = name or f"w{self._number}"
        errors, before = self._directory / f"{self._number}.err", (*OWN_PLACE, elsewhere) if elsewhere else before
        before = place.inside if place is not None else before
        worker = Worker(cluster or self.cluster, environment, errors, before, **settings)
        self.workers.append(worker)
        return worker

    def start(self, name: str = "", **settings: Any) -> Worker:
        return self.begin(name, **settings).ready()

    def several(self, count: int, **settings: Any) -> list[Worker]:
        """Workers that start at once, and all know each other."""
        workers = [self.begin(**settings) for _ in range(count)]
        for worker in workers:
            worker.ready()
        for worker in workers:
            worker.until(lambda worker: len(worker.living()) == count, "all know each other")
        return workers

    def files(self) -> list[str]:
        """What lies in the runtime directory of the cluster."""
        return sorted(path.name for path in runtime_directory(self.cluster).iterdir())

    def output(self) -> str:
        """All that any worker ever wrote."""
        return "".join(worker.said + worker.errors for worker in self.workers)


@contextmanager
def host(cluster: str) -> Iterator[Host]:
    """A place for workers. None of them outlives the block."""
    with tempfile.TemporaryDirectory(prefix="gm-") as directory:
        made = Host(cluster, Path(directory))
        try:
            yield made
        except BaseException:
            print(made.output()[-4000:])
            raise
        finally:
            for worker in made.workers:
                worker.over()


def together(workers: list[Worker], question: str, **request: Any) -> list[Any]:
    """The answers of all to one question."""
    return [worker.ask(question, **request) for worker in workers]


def agree(workers: list[Worker], question: str, expected: Any, timeout: float = 20.0, **request: Any) -> None:
    """Waits until all give this answer."""
    for worker in workers:
        worker.until(
            lambda worker: worker.ask(question, **request) == expected, f"{question} is {expected!r:.80}", timeout
        )


def sockets_of(pid: int) -> set[str]:
    """The inodes of the sockets of a process."""
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if target.startswith("socket:["):
                found.add(target[8:-1])
    return found


def network_ports(pid: int) -> list[str]:
    """The lines of the kernel's tables of TCP and UDP that belong to a process."""
    mine = sockets_of(pid)
    lines = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        with suppress(FileNotFoundError), open(f"/proc/{pid}/net/{table}") as file:
            lines += [f"{table} {line}" for line in list(file)[1:] if line.split()[9] in mine]
    return lines


def free_port() -> int:
    """A port of loopback that was free just now."""
    import socket

    with socket.socket() as stream, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        stream.bind(("127.0.0.1", 0))
        port = int(stream.getsockname()[1])
        datagrams.bind(("127.0.0.1", port))
        return port
