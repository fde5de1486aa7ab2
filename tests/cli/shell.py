"""What does a person do at a prompt? Calls commands, leaves some running, reads what they say, ends them."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
GOSSIP = Path(sys.executable).parent / "gossip"
DEADLINE = 30.0


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def error(self) -> Any:
        """What went wrong, where --json was given."""
        assert self.out == ""
        return json.loads(self.err)


class Shell:
    """A prompt, in a world where nobody else runs a node."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            "PATH": os.environ.get("PATH", ""),
            "LANG": "C.UTF-8",
            "GOSSAMESH_RUNTIME_DIR": str(directory),
        }
        self._started: list[Process] = []
        self._prompt: Process | None = None

    def run(self, *arguments: str, **environment: str) -> Result:
        """How a command ended, in a process of its own."""
        if self._prompt is None:
            program = [sys.executable, "-m", "tests.cli.prompt"]
            self._prompt = Process(program, self.environment | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE)
            self._started.append(self._prompt)
        self._prompt.tell(json.dumps([arguments, self.environment | environment]))
        result = Result(*json.loads(self._prompt.line()))
        assert "Traceback" not in result.err, result.err
        return result

    def run_script(self, *arguments: str | bytes, **environment: str) -> Result:
        """The same by the installed script, which takes ten times as long."""
        done = subprocess.run(
            [GOSSIP, *arguments],
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DEADLINE,
            check=False,
        )
        result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in result.err, result.err
        return result

    def ok(self, *arguments: str) -> str:
        """What a command prints that has to succeed."""
        result = self.run(*arguments)
        assert (result.code, result.err) == (0, ""), result
        return result.out

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "--json"))

    def start(self, *arguments: str, **environment: str) -> Process:
        process = Process([str(GOSSIP), *arguments], self.environment | environment)
        self._started.append(process)
        return process

    def start_python(self, program: str) -> Process:
        process = Process([sys.executable, "-c", program], self.environment)
        self._started.append(process)
        return process

    def daemon(self, name: str = "ann", cluster: str = "shop", *more: str, **environment: str) -> Daemon:
        """A `gossip run` that is ready."""
        process = self.start("run", "-c", cluster, "--name", name, "--json", *more, **environment)
        return Daemon(process, json.loads(process.line()))

    def end(self) -> None:
        for process in self._started:
            process.end()


class Process:
    """A command that runs, read line by line."""

    def __init__(self, command: list[str], environment: dict[str, str], stdin: int = subprocess.DEVNULL) -> None:
        pipe = subprocess.PIPE
        self._popen = subprocess.Popen(command, env=environment, stdin=stdin, stdout=pipe, stderr=pipe, bufsize=0)
        self.pid = self._popen.pid
        self._read = b""

    def line(self) -> str:
        """The next line of stdout."""
        deadline = time.monotonic() + DEADLINE
        assert self._popen.stdout is not None
        while b"\n" not in self._read:
            ready, _, _ = select.select([self._popen.stdout], [], [], deadline - time.monotonic())
            assert ready, f"nothing more was said, after {self._read!r}"
            data = os.read(self._popen.stdout.fileno(), 1 << 16)
            assert data, f"it ended: {self.wait()}"
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()

    def tell(self, line: str) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(line.encode() + b"\n")

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def wait(self) -> Result:
        """How it ended, with what was not read of its output."""
        assert self._popen.stdout is not None
        if self._popen.stdout.closed:
            out, errors = b"", b""
        else:
            out, errors = self._popen.communicate(
                timeout=DEADLINE
            )  # reads on, or a full pipe would keep it from ending
        result = Result(self._popen.wait(DEADLINE), (self._read + out).decode(), errors.decode())
        self._read = b""
        assert "Traceback" not in result.err, result.err
        return result

    @property
    def ended(self) -> Result | None:
        """How it ended, if it has; where its output is no longer read."""
        code, errors = self._popen.poll(), self._popen.stderr
        assert errors is not None
        return None if code is None else Result(code, "", errors.read().decode())

    def stop_reading(self) -> None:
        assert self._popen.stdout is not None
        self._popen.stdout.close()

    def end(self) -> None:
        for number in (signal.SIGCONT, signal.SIGKILL):
            if self._popen.poll() is None:
                self._popen.send_signal(number)
        self._popen.wait(DEADLINE)
        for stream in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if stream is not None:
                stream.close()


@dataclass
class Daemon:
    process: Process
    ready: dict[str, Any]

    @property
    def instance(self) -> str:
        return str(self.ready["instance"])

    def terminate(self, number: int = signal.SIGTERM) -> tuple[float, Result]:
        """The seconds from the signal to the end."""
        begin = time.monotonic()
        self.process.signal(number)
        result = self.process.wait()
        return time.monotonic() - begin, result

    @property
    def control(self) -> str:
        return str(self.ready["addresses"][0]).removeprefix("unix:").removesuffix(".sock") + ".ctl"

    @contextmanager
    def connection(self) -> Iterator[Line]:
        """Its control socket, without the command line between."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE)
            connection.connect(self.control)
            with connection.makefile("rb") as answers:
                yield Line(connection, answers)


@dataclass
class Line:
    """A connection to a control socket."""

    connection: socket.socket
    answers: Any

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def read(self) -> Any:
        """The next answer; None where there will be none."""
        line = self.answers.readline()
        return json.loads(line) if line else None

    def ask(self, **request: Any) -> Any:
        self.send(json.dumps(request).encode() + b"\n")
        return self.read()


def until(what: str, condition: Callable[[], Any]) -> Any:
    """Waits for what another process is to do; gives what the condition gave."""
    deadline = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it never came: {what}"
        time.sleep(0.02)  # waits: for the next look at another process
    return found


def status_of(shell: Shell, observer: Daemon, other: Daemon) -> str:
    """What one node says of another."""
    with observer.connection() as line:
        members = line.ask(do="members")["ok"]
    return next((member["status"] for member in members if member["instance"] == other.instance), "unknown")
