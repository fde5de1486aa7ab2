"""How does a test run a writer in a process of its own, alone or under strace, and read what it said?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

# The word for it that the repository has; variables of our own are taken away from every test (tests/conftest.py).
LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
ROOT = Path(__file__).resolve().parents[2]


class Said:
    """What a writer said."""

    def __init__(self, text: str, code: int) -> None:
        self.lines = text.splitlines()
        self.code = code

    def of(self, word: str) -> list[str]:
        return [line.partition(" ")[2] for line in self.lines if line.startswith(word + " ")]

    def last(self, word: str) -> int:
        """The last ticket that was stored or synced; 0 if none was."""
        return int(([*self.of(word)] or ["0"])[-1])

    @property
    def counters(self) -> dict[str, int]:
        counters: dict[str, int] = json.loads(self.of("counters")[0])
        return counters


def command(**options: Any) -> list[str]:
    return [sys.executable, "-m", "tests.storage.writer", json.dumps(options, default=str)]


def run(before: Sequence[str] = (), **options: Any) -> Said:
    """Runs a writer to its end, whatever that is."""
    done = subprocess.run([*before, *command(**options)], cwd=ROOT, capture_output=True, text=True, timeout=90)
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    return Said(done.stdout, done.returncode)


@contextmanager
def running(**options: Any) -> Iterator[subprocess.Popen[str]]:
    """A writer that runs, and is killed in the end."""
    with subprocess.Popen(command(**options), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def strace(*arguments: str) -> list[str]:
    return ["strace", "-f", "-qq", "-o", os.devnull, *arguments]


@cache
def why_no_strace() -> str:
    """Why strace can not be used here; empty if it can."""
    if not shutil.which("strace"):
        return "strace is not installed"
    tried = subprocess.run([*strace("-e", "trace=fsync"), "true"], capture_output=True, text=True)
    return "" if tried.returncode == 0 else f"strace may not trace here: {tried.stderr.strip()[:100]}"


@contextmanager
def in_memory() -> Iterator[Path]:
    """A directory where nothing waits for a disk, if there is such a place: for images that are only read."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as directory:
        yield Path(directory)
