"""What happens when the disk refuses, is full, or takes its time?

It is told once, nothing is acknowledged from then on, the program goes on, and what was acknowledged before is there.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.storage.processes import LONG, ROOT, Said, run, strace, why_no_strace
from tests.storage.story import found_in

SEED, COUNT = 8, 20
needs_strace = pytest.mark.skipif(bool(why_no_strace()), reason=why_no_strace())


def check(said: Said, directory: Path, start: int = 0) -> None:
    """It failed, said so once and as its last word, and lost nothing that it had spoken of."""
    (error,) = said.of("failed")
    assert "can not be written any more" in error and str(directory) in error and "start the node again" in error
    heard = [line.split()[0] for line in said.lines]
    assert not {"stored", "synced"} & {*heard[heard.index("failed") :]}, "acknowledged after it had failed"
    assert said.code == 0 and said.of("closed")[-1] == "False", "the program goes on to its end, and is told"
    assert said.counters["dropped"] > 0 or said.last("stored") >= COUNT - 1, "what came after it went nowhere"
    stored, synced = said.last("stored"), said.last("synced")
    assert synced < COUNT
    found = found_in(directory, SEED, COUNT)
    assert start + max(stored, synced) <= found


@needs_strace
@pytest.mark.parametrize("durability", ["interval", "full"])
@pytest.mark.parametrize(
    ("call", "error", "places"),
    [
        ("fdatasync", "EIO", [3, 2, 6]),  # the second is of the directory, which SQLite does not look at
        ("pwrite64", "EIO", [6]),
        ("pwrite64", "ENOSPC", [5, 9, 30]),
        ("pwrite64", "EDQUOT", [7]),
        ("pwrite64", "EBADF", [8]),
    ],
)
def test_a_call_that_fails(tmp_path: Path, durability: str, call: str, error: str, places: list[int]) -> None:
    run(
        directory=tmp_path, seed=SEED, count=COUNT, start=COUNT
    )  # makes the directory, so that the calls are the story's
    failed = 0
    for number in range(2, 40) if LONG else places[: 1 if durability == "full" else None]:
        directory = tmp_path / str(number)
        run(directory=directory, seed=SEED, count=0)  # makes it, so that the calls are those of the story
        inject = f"inject={call}:error={error}:when={number}{'+' if number % 2 else ''}"  # once, or from then on
        settings: dict[str, Any] = {"pace": "stored", "checkpoint": 12, "small": True, "compact": [6]}
        said = run(
            strace("-e", f"trace={call}", "-e", inject),
            directory=directory,
            seed=SEED,
            count=COUNT,
            durability=durability,
            **settings,
        )
        if said.of("failed"):
            check(said, directory)
            failed += 1
        elif said.code == 3:
            assert directory.name in said.of("refused")[0], "it did not even start, and says why"
        else:
            assert said.last("synced") == found_in(directory, SEED, COUNT) == COUNT, "it was never called so often"
    assert failed


@needs_strace
@pytest.mark.parametrize("durability", ["interval", "full"])
def test_after_a_failed_fsync_nothing_is_moved_into_the_database(tmp_path: Path, durability: str) -> None:
    """The WAL may lack on the disk what the kernel still shows of it. SQLite would move it over when it closes."""
    run(directory=tmp_path, seed=SEED, count=5)
    before = (tmp_path / "gossamesh.sqlite").read_bytes()
    inject = strace("-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=6")
    said = run(inject, directory=tmp_path, seed=SEED, count=COUNT, start=5, durability=durability)
    assert (tmp_path / "gossamesh.sqlite").read_bytes() == before
    assert (tmp_path / "gossamesh.sqlite-wal").stat().st_size
    check(said, tmp_path, 5)


@pytest.mark.parametrize("durability", ["interval", "full"])
def test_a_short_write(tmp_path: Path, durability: str) -> None:
    """The kernel writes as far as it may, in the middle of a page, and refuses the rest."""
    said = run(directory=tmp_path, seed=SEED, count=COUNT, durability=durability, pace="stored", file_limit=50_001)
    check(said, tmp_path)


@needs_strace
def test_a_slow_fsync_holds_up_nobody(tmp_path: Path) -> None:
    """Two seconds each, from the second on. Appending goes on; a close that will not wait says so, and is made good."""
    delay = "inject=fdatasync:delay_enter=2000000:when=3"
    said = run(
        strace("-e", "trace=fdatasync", "-e", delay),
        directory=tmp_path / "kept",
        seed=SEED,
        count=COUNT,
        pace="burst",
        close_timeout=0.1,
    )
    assert said.code == 0 and not said.of("failed")
    assert float(said.of("slowest")[0]) < 0.5, "no append waited for the disk"
    first = said.of("closed")[0].split()
    assert first[0] == "False" and float(first[1]) < 1.5
    assert found_in(tmp_path / "kept", SEED, COUNT) >= said.last("stored")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """One of 200 KiB, made by the kernel."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()[:100]}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("durability", ["interval", "full"])
def test_a_full_disk(small_disk: Path, durability: str) -> None:
    said = run(directory=small_disk / "kept", seed=SEED, count=COUNT * 3, durability=durability, pace="stored")
    (error,) = said.of("failed")
    assert "full" in error.lower(), error
    assert said.code == 0 and said.counters["dropped"] > 0 and said.last("stored") >= 1
    subprocess.run(["mount", "-o", "remount,size=10m", small_disk], check=True)
    assert said.last("stored") <= found_in(small_disk / "kept", SEED, COUNT * 3) < COUNT * 3


_NO_DESCRIPTOR = """
import os, resource, sys
from pathlib import Path
from crdt import Store
from gossip.errors import StartError
from gossip.storage import Storage
from tests.storage.story import CLUSTER, append, steps
from tests.storage.writer import Acknowledged

def none_free():
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/dev/fd"))), hard))
    held = []
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        return held

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
told = Acknowledged()
kept = Storage(Path(sys.argv[1]), CLUSTER, stored=told.on_stored, synced=told.on_synced, failed=told.on_failed)
kept.open(Store())
held = none_free()
for step in steps(8, 20):
    told.wait("synced", append(kept, step))
try:
    Storage(Path(sys.argv[1] + "-other"), CLUSTER).open(Store())
except StartError as error:
    os.write(1, f"refused {error}\\n".encode())
assert kept.close()
"""


def test_no_descriptor_left(tmp_path: Path) -> None:
    """What is open goes on; what would open is refused, and says why."""
    done = subprocess.run(
        [sys.executable, "-c", _NO_DESCRIPTOR, tmp_path / "kept"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = Said(done.stdout, done.returncode)
    assert said.last("synced") == COUNT
    assert "Too many open files" in said.of("refused")[0]
    assert found_in(tmp_path / "kept", SEED, COUNT) == COUNT
