"""How do the web server and the load start, and how do they surely end?

uvicorn runs as anybody would run it, with its own supervisor, which replaces a worker that died. Both run in a session
of their own: Ctrl-C in the terminal reaches only the demo, which then ends them in order.

Invariant: nothing that was started here outlives `stop`, and only what was started here is ever signalled: the session
of uvicorn is a process group of its own, known by the pid of its leader.

Not here: what is served (`app`), and when what happens (`story`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

from discovery import runtime_directory

HOST = "127.0.0.1"
_ROOT = Path(__file__).resolve().parent.parent.parent
_GRACE = 8.0
"""Seconds that uvicorn gets to end by itself; its workers get 3 of them for requests that are still open."""
_LONGEST_LINE = 1 << 28
_OTHERS = ("GOSSAMESH_", "UVICORN_", "WEB_CONCURRENCY")
"""Settings of the user's shell that would change the demo."""


class NoDemo(Exception):
    """It can not be shown; the message says why, and what to do."""


@contextlib.contextmanager
def private_directory(cluster: str) -> Iterator[Path]:
    """A directory where this demo's nodes meet, and nobody else; removed in the end.

    Sockets need short paths, and some systems have long temporary ones (macOS): then the next is tried.
    """
    problem: OSError | None = None
    for parent in (tempfile.gettempdir(), os.path.join(os.sep, "var", "tmp")):
        try:
            directory = tempfile.TemporaryDirectory(prefix="gossamesh-", dir=parent, ignore_cleanup_errors=True)
        except OSError as error:
            problem = problem or error
            continue
        with directory as path:
            try:
                runtime_directory(cluster, Path(path))
            except OSError as error:
                problem = problem or error
                continue
            yield Path(path)
            return
    raise NoDemo(
        f"no directory for the workers' sockets: {problem}. Point TMPDIR to a directory of yours with a short name"
    )


def clear_environment() -> None:
    """Forgets settings of the shell that are meant for other programs of the same kind."""
    for name in [name for name in os.environ if name.startswith(_OTHERS)]:
        del os.environ[name]


def usable_port(wanted: int) -> int:
    """The wanted port if it is free, or any free one for 0. Raises `NoDemo`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uvicorn will
        try:
            probe.bind((HOST, wanted))
            probe.listen()  # with the option set, only this tells of another listener everywhere
        except OSError as error:
            raise NoDemo(
                f"can not listen at {HOST}:{wanted}: {error.strerror}. Give another port with --port, or leave it out"
            ) from error
        port: int = probe.getsockname()[1]
        return port


class Server:
    """uvicorn with its workers."""

    def __init__(self, port: int, workers: int, cluster: str, directory: Path) -> None:
        self.url = f"http://{HOST}:{port}"
        self._port = port
        self._workers = workers
        self._settings = {"GOSSAMESH_DEMO_CLUSTER": cluster, "GOSSAMESH_RUNTIME_DIR": str(directory)}
        self._log = directory / "uvicorn.log"
        self._process: Process | None = None

    async def start(self) -> None:
        """Starts it; it serves some time later."""
        options = {
            "--host": HOST,
            "--port": str(self._port),
            "--workers": str(self._workers),
            "--timeout-graceful-shutdown": "3",
        }
        words = [word for option in options.items() for word in option]
        with self._log.open("wb") as log:
            self._process = await _start(
                "uvicorn", "examples.demo.app:app", "--no-access-log", *words, settings=self._settings, out=log
            )

    @property
    def ended(self) -> bool:
        """Whether it has ended, which it should not by itself."""
        return self._process is None or self._process.returncode is not None

    def last_words(self) -> str:
        """The end of its log, for a message."""
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return "\n".join(f"    {line}" for line in lines[-12:])

    def kill_worker(self, pid: int) -> None:
        """Kills one of its workers, as the kernel's out-of-memory killer would. Raises `NoDemo` if it is none."""
        assert self._process is not None
        try:
            if os.getpgid(pid) != self._process.pid:
                raise NoDemo(f"process {pid} is no worker of this demo, so it is left alone")
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            raise NoDemo(f"worker {pid} was to be killed, but died before by itself:\n{self.last_words()}") from None

    async def stop(self) -> None:
        """Ends it and all its workers: by asking, and after `_GRACE` by force."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _GRACE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # whoever is left of its group, the supervisor included
        await process.wait()


class Load:
    """The process of the visitors."""

    def __init__(self, url: str, seconds: float, visitors: int, rate: float) -> None:
        numbers = ("--seconds", str(seconds), "--visitors", str(visitors), "--rate", str(rate))
        self._command = ("examples.demo.load", url, *numbers)
        self._process: Process | None = None

    async def lines(self) -> AsyncIterator[dict[str, Any]]:
        """Starts it, and gives what it tells until it ends. Raises `NoDemo` if it ends badly."""
        self._process = await _start(*self._command, settings={}, out=PIPE)
        assert self._process.stdout is not None
        said = b""
        async for line in self._process.stdout:
            if line.startswith(b"{"):
                yield json.loads(line)
            else:
                said += line
        if await self._process.wait():
            raise NoDemo(f"the load generator failed:\n{said.decode(errors='replace')}")

    async def stop(self) -> None:
        """Ends it, if it runs."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()  # it holds nothing
            await self._process.wait()


async def _start(module: str, *arguments: str, settings: Mapping[str, str], out: Any) -> Process:
    command = (sys.executable, "-m", module, *arguments)
    return await asyncio.create_subprocess_exec(
        *command, cwd=_ROOT, env={**os.environ, **settings}, stdin=DEVNULL, stdout=out, stderr=STDOUT,
        start_new_session=True, limit=_LONGEST_LINE,
    )  # fmt: skip
