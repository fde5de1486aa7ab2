"""Do the workers of a real `uvicorn --workers 3` share state with nothing but a lifespan of one line?"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from discovery import runtime_directory
from tests.integration.processes import ROOT, free_port, network_ports
from tests.waiting import until_here


@contextmanager
def uvicorn(cluster: str, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "uvicorn", "tests.integration.app:app", "--workers", "3", "--port", str(port)]
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "--log-level", "warning"],
            cwd=ROOT, env={**os.environ, "TEST_CLUSTER": cluster}, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        yield server
    finally:
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait(10)


def ask(port: int, path: str = "/", method: str = "GET") -> Any:
    """The answer of whichever worker the kernel gives the connection to; None while none listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        try:
            connection.request(method, path, headers={"Connection": "close"})
            return json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException):
            return None


def every_worker(port: int, count: int, condition: Any) -> dict[int, Any]:
    """Asks until so many different workers have answered, and each of them what was waited for."""
    answers: dict[int, Any] = {}

    def enough() -> bool:
        answer = ask(port)
        if answer is not None:
            answers[answer["pid"]] = answer
            if not condition(answer):
                del answers[answer["pid"]]
        return len(answers) == count

    until_here(enough, "every worker has it", timeout=30.0)
    return answers


def test_uvicorn_workers_share_state_and_one_that_is_killed_is_replaced(cluster: str, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "uvicorn.log"
    with uvicorn(cluster, port, log) as server:
        begun = time.monotonic()
        first = every_worker(port, 3, lambda answer: len(answer["members"]) == 3)
        print(f"three workers know each other after {time.monotonic() - begun:.2f} s")
        for number in range(10):
            assert until_here(lambda number=number: ask(port, f"/k{number}/v", "POST"))
        expected = {f"k{number}": "v" for number in range(10)}
        every_worker(port, 3, lambda answer: answer["flags"] == expected and answer["hits"] == 10)
        victim = next(iter(first))
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        now = every_worker(
            port,
            3,
            lambda answer: answer["pid"] != victim and answer["flags"] == expected and len(answer["members"]) == 3,
        )
        print(f"replaced, with all state, after {time.monotonic() - killed:.2f} s")
        assert victim not in now and len(set(now) - set(first)) == 1
        assert ask(port)["hits"] == 10
        for pid in now:
            assert all(f":{port:04X}" in line for line in network_ports(pid)), "no port but the web server's own"
        stopped = time.monotonic()
        server.send_signal(signal.SIGTERM)
        server.wait(15)
        print(f"all ended {time.monotonic() - stopped:.2f} s after SIGTERM")
    assert list(runtime_directory(cluster).iterdir()) == []
    assert "Traceback" not in log.read_text()
