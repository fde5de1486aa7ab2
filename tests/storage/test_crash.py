"""Is everything that was acknowledged there after a real kill, at random and at each call that commits?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from crdt import Store
from gossip.errors import StartError
from gossip.storage import Storage
from tests.storage.processes import LONG, ROOT, Said, run, running, strace, why_no_strace
from tests.storage.story import CLUSTER, append, found_in, steps

SEED, COUNT = 4, 200
needs_strace = pytest.mark.skipif(bool(why_no_strace()), reason=why_no_strace())

COMPACTING: dict[str, Any] = {"compact": [5, 11], "checkpoint": 12, "small": True}


def check(said: Said, directory: Path, count: int) -> int:
    """What was stored is there, and no more than was appended. Gives how much."""
    found = found_in(directory, SEED, count)
    assert said.last("stored") <= found, f"{said.last('stored')} steps were stored, and {found} are there"
    return found


@pytest.mark.parametrize("durability", ["interval", "full"])
def test_killed_at_random(tmp_path: Path, durability: str) -> None:
    """Again and again, on one directory: each life goes on where the last one was cut off."""
    chance, start = Random(6), 0
    for life in range(100 if LONG else 6):
        pace = chance.choice(("stored", "burst"))
        compact = [start + 3, start + 9]
        with running(
            directory=tmp_path / "kept",
            seed=SEED,
            count=COUNT,
            start=start,
            durability=durability,
            pace=pace,
            compact=compact,
            checkpoint=15,
            small=True,
            end="hold",
        ) as process:
            assert process.stdout is not None
            heard = [process.stdout.readline()]
            for _ in range(chance.randrange(1, 30)):
                if not heard[-1].startswith("counters"):  # that is the last it says
                    heard.append(process.stdout.readline())
            process.kill()
            said = Said("".join(heard) + process.stdout.read(), process.wait())
        found = found_in(tmp_path / "kept", SEED, COUNT)
        assert start + said.last("stored") <= found, f"life {life}"
        start = found
        if start > COUNT - 30:
            break
    assert start > 0


@needs_strace
@pytest.mark.parametrize("call", ["fdatasync", "pwrite64", "ftruncate", "unlink"])
@pytest.mark.parametrize("durability", ["interval", "full"])
def test_killed_at_a_call(tmp_path: Path, durability: str, call: str) -> None:
    """Every write is tried on the record of a run, in test_power; here the kernel is asked at some of them."""
    settings = {"seed": SEED, "count": 14, "durability": durability, "pace": "stored", **COMPACTING}
    places = {"fdatasync": [1, 2, 5, 9], "pwrite64": [12, 40, 75, 110], "ftruncate": [1], "unlink": [5]}[call]
    killed = 0
    for number in range(1, 150) if LONG else places:
        directory = tmp_path / str(number)
        said = run(
            strace("-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}"),
            directory=directory,
            **settings,
        )
        killed += said.code in (-signal.SIGKILL, 128 + signal.SIGKILL)
        check(said, directory, 14)
        if said.code == 0:
            break
    assert killed


def test_the_end_of_a_program_that_forgot_to_close(tmp_path: Path) -> None:
    """It neither hangs nor loses what was stored."""
    for durability in ("interval", "full"):
        said = run(
            directory=tmp_path / durability, seed=SEED, count=20, durability=durability, pace="stored", end="exit"
        )
        assert said.code == 0 and said.last("stored") == 20
        assert (tmp_path / durability / "gossamesh.sqlite-wal").stat().st_size, "and SQLite did not tidy up"
        assert check(said, tmp_path / durability, 20) == 20


def test_two_processes_on_one_directory(tmp_path: Path) -> None:
    with running(directory=tmp_path, seed=SEED, count=5, end="hold") as process:
        assert process.stdout is not None
        while (line := process.stdout.readline()) != "synced 5\n":
            assert line, "it has ended"
        other = run(directory=tmp_path, seed=SEED, count=5)
        assert other.code == 3 and f"process {process.pid} " in other.of("refused")[0]
        process.kill()
        process.wait()
    assert found_in(tmp_path, SEED, 5) == 5


_LOOKS = """
import sqlite3, sys
try:
    print(sqlite3.connect(sys.argv[1], timeout=0).execute("SELECT count(*) FROM records").fetchall())
except sqlite3.OperationalError as error:
    print(error)
"""


def test_another_program_is_kept_out_however_often_we_synced(tmp_path: Path) -> None:
    """POSIX locks go with any descriptor of the file that is closed. Ours is of the WAL, which has none: see below."""
    with running(directory=tmp_path, seed=SEED, count=5, end="hold") as process:
        assert process.stdout is not None
        while (line := process.stdout.readline()) != "synced 5\n":
            assert line, "it has ended"
        database = str(tmp_path / "gossamesh.sqlite")
        looked = subprocess.run([sys.executable, "-c", _LOOKS, database], capture_output=True, text=True)
        assert looked.stdout == "database is locked\n"


@needs_strace
def test_sqlite_has_no_locks_on_the_wal(tmp_path: Path) -> None:
    """What the own descriptor of it relies on."""
    trace = ["strace", "-f", "-y", "-o", str(tmp_path / "trace"), "-e", "trace=fcntl"]
    run(trace, directory=tmp_path / "kept", seed=SEED, count=14, **COMPACTING)
    locks = [line for line in (tmp_path / "trace").read_text().splitlines() if "F_SETLK" in line]
    assert any("gossamesh.sqlite>" in line for line in locks)
    assert not any("-wal" in line for line in locks)


# --- a forked child -------------------------------------------------------------------------------------------------

_FORKING = """
import gc, os, sys, signal
from pathlib import Path
from crdt import Store
from tests.storage.story import CLUSTER, append, steps
from tests.storage.writer import Acknowledged
from gossip import storage
from gossip.storage import Storage

directory, what = sys.argv[1:]
storage._CHECKPOINT = 1  # all is in the database at the fork, so that nothing keeps SQLite from removing the WAL
told = Acknowledged()
kept = Storage(Path(directory), CLUSTER, stored=told.on_stored, synced=told.on_synced, failed=told.on_failed)
kept.open(Store())
story = steps(4, 200)
for step in story[:20]:
    told.wait("stored", append(kept, step))
child = os.fork()
if child == 0:
    append(kept, story[21])
    links = [Path("/dev/fd", number) for number in os.listdir("/dev/fd")]
    held = [os.readlink(link) for link in links if os.path.lexists(link)]
    assert kept.close() and kept.close(), "it closes nothing, at once"
    assert not any(directory in path for path in held), held
    del kept
    gc.collect()
    if what == "lives":
        os.write(1, b"child\\n")
        signal.pause()
    sys.exit(0)  # as any program ends, and not os._exit: everything is cleared away
if what == "lives":
    os.write(1, b"parent\\n")
    signal.pause()
assert os.waitpid(child, 0)[1] == 0
for step in story[20:40]:
    told.wait("synced", append(kept, step))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_forked_child_leaves_its_parent_s_files_alone(tmp_path: Path) -> None:
    """A child that closed SQLite's connection at its end would remove the WAL under the parent's hands."""
    done = subprocess.run([sys.executable, "-c", _FORKING, tmp_path, "ends"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert Said(done.stdout, 0).last("synced") == 40
    assert found_in(tmp_path, SEED, COUNT) == 40


def test_a_forked_child_does_not_keep_the_directory(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _FORKING, tmp_path, "lives"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        heard: set[str] = set()
        while not {"child\n", "parent\n"} <= heard:
            heard.add(line := parent.stdout.readline())
            assert line, "it has ended"
        (child,) = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        try:
            parent.kill()
            parent.wait()
            assert Path(f"/proc/{child}").exists()
            assert found_in(tmp_path, SEED, COUNT) == 20
        finally:
            os.kill(int(child), signal.SIGKILL)


def test_a_child_of_a_storage_that_was_closed_has_nothing_to_let_go(tmp_path: Path) -> None:
    storage = Storage(tmp_path, CLUSTER)
    storage.open(Store())
    append(storage, steps(SEED, COUNT)[0])
    assert storage.close()
    storage.abandon()
    assert storage.close()
    with pytest.raises(StartError):
        Storage(tmp_path, "bank").open(Store())
    assert found_in(tmp_path, SEED, COUNT) == 1
