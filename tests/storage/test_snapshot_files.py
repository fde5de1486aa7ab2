"""Is what a snapshot's file gives what was saved, or nothing, whatever happened to the file or while it was written?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from random import Random

import pytest
import zstandard

from crdt import LWWMap, Note, ORSet, PNCounter, State, Store, encode_state
from gossip import Snapshot, SnapshotError
from gossip.snapshot import read_head
from tests.storage.processes import ROOT, strace, why_no_strace

MAGIC = b"gossamesh snapshot 1\n"


def state(seed: int, count: int) -> State:
    """One with all types, conflicts, notes, and what ends."""
    chance, store, note = Random(seed), Store(), Note("ann", "because")
    for number in range(count):
        replica = 1 + number % 3
        store.merge(LWWMap(store, "m").set(f"k{chance.randrange(count)}", chance.random(), replica, stamp=number), note)
        store.merge(ORSet(store, "s").add(chance.randrange(count), replica, number))
        store.merge(PNCounter(store, "c").add(chance.randrange(-5, 5), replica, number))
        store.merge(store.write((1, "mortal", b"\xa1k"), b"\x01", replica, number, expires=1 << 60))
    return store.state()


def snapshot(seed: int = 1, count: int = 20) -> Snapshot:
    at = datetime(2026, 5, 1, 12, tzinfo=UTC)
    return Snapshot._of("shop", "ann", state(seed, count), {}, round(at.timestamp() * 1000))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return snapshot().save(tmp_path / "a.gossamesh")


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    for count in (0, 1, 300, 20_000):
        made = snapshot(count=count)
        path = made.save(tmp_path / f"{count}.gossamesh")
        loaded = Snapshot.load(path)
        assert loaded.head == read_head(path) == made.head and loaded.at == made.at
        assert encode_state(loaded._state) == encode_state(made._state) and loaded.diff(made) == []
        assert loaded._state.notes == made._state.notes
        assert path.stat().st_mode & 0o777 == 0o600, "it may hold what nobody else may read"
    assert path.stat().st_size < len(encode_state(made._state)), "it is compressed"
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "0.gossamesh",
        "1.gossamesh",
        "20000.gossamesh",
        "300.gossamesh",
    ]


def test_no_file_is_replaced(saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(FileExistsError, match="is not replaced"):
        snapshot(seed=2).save(saved)
    assert saved.read_bytes() == before and len(list(saved.parent.iterdir())) == 1


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(SnapshotError) as error:
        Snapshot.load(path)
    return str(error.value)


def test_a_file_that_was_cut_anywhere_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    for length in range(len(content)):
        assert str(saved) in refused(saved, content[:length])


def test_a_file_with_any_bit_flipped_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        refused(saved, bytes(damaged))


def frames(content: bytes) -> list[bytes]:
    """The frames, with their heads."""
    found, place = [], len(MAGIC)
    while place < len(content):
        length = 20 + int.from_bytes(content[place : place + 4], "big")
        found.append(content[place : place + length])
        place += length
    return found


def test_frames_that_are_missing_repeated_moved_or_of_another_file_are_refused(saved: Path, tmp_path: Path) -> None:
    mine = frames(saved.read_bytes())
    other = frames(snapshot(seed=2).save(tmp_path / "b.gossamesh").read_bytes())
    assert len(mine) == len(other) >= 6 and mine[-1][:4] == bytes(4)
    spoiled = [[*mine, b"x"], [*mine, *mine], [*mine[:-1], *mine[1:]]]
    for place in range(len(mine)):
        spoiled.append(mine[:place] + mine[place + 1 :])
        spoiled.append([*mine[:place], mine[place], *mine[place:]])
        if mine[place] != other[place]:
            spoiled.append([*mine[:place], other[place], *mine[place + 1 :]])
        if 0 < place < len(mine) - 1:
            spoiled.append([*mine[: place - 1], mine[place], mine[place - 1], *mine[place + 1 :]])
    for each in spoiled:
        refused(saved, MAGIC + b"".join(each))


def forged(*contents: bytes) -> bytes:
    """A file with these frames, whose checksums are right."""
    made, before = MAGIC, b""
    for content in [*contents, b""]:
        length = len(content).to_bytes(4, "big")
        before = blake2b(before + length + content, digest_size=16).digest()
        made += length + before + content
    return made


def compressed(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


def test_a_small_file_that_unpacks_to_much_is_refused_before_it_does(saved: Path) -> None:
    head = frames(saved.read_bytes())[0][20:]
    unknown = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 30))
    bombs = [compressed(bytes(1 << 30)), unknown, compressed(bytes((4 << 20) + 1))]
    tracemalloc.start()
    try:
        for bomb in bombs:
            assert "unpacks to more than any may have" in refused(saved, forged(head, bomb))
            assert "unpacks to more than any may have" in refused(saved, forged(bomb))
        for length in (b"\xff\xff\xff\xff", (4 << 20).to_bytes(4, "big")):
            refused(saved, MAGIC + length + bytes(16))
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is no snapshot"),
        (b"PK\x03\x04" + bytes(100), "is no snapshot"),
        (b"gossamesh snapshot 2\n" + bytes(100), "newer format"),
        (forged(), "does not say what it is of"),
        (forged(compressed(b"\xc1")), "does not say what it is of"),
        (forged(compressed(b"\x95\xa1a\xa1b\xa1c\x01\x01")), "does not say what it is of"),
        (forged(compressed(b"\x95\xa1a\xa1b\xcf" + b"\xff" * 8 + b"\x01\x01")), "does not say what it is of"),
        (forged(compressed(b"\x95\xa1a\xa1b\x01\x01\x01")), "part is missing"),
        (forged(b"no frame of zstd"), "unpacks|damaged"),
    ],
)
def test_what_is_none_is_told_from_what_is_newer_and_what_is_damaged(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "x.gossamesh"
    path.write_bytes(content)
    with pytest.raises(SnapshotError, match=why):
        Snapshot.load(path)


# -- while it is written ---------------------------------------------------------------------------------------------

SAVER = """
import resource, signal, sys
from pathlib import Path
from tests.storage.test_snapshot_files import snapshot
made, directory = snapshot(count=3_000), Path(sys.argv[1])
if sys.argv[2:]:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
for number in range(1_000):
    print(number, flush=True)
    try:
        made.save(directory / f"{number}.gossamesh")
    except OSError as error:
        print("refused", error, flush=True)
        break
"""


def saver(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SAVER, *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ
    )


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    return iter(process.stdout.readline, "")


def test_whoever_is_killed_while_he_saves_leaves_no_half_file(tmp_path: Path) -> None:
    whole = 0
    for number in range(6):
        directory = tmp_path / str(number)
        directory.mkdir()
        with saver(str(directory)) as process:
            for line in lines(process):
                if line == f"{number + 2}\n":
                    process.send_signal(signal.SIGKILL)
                    break
        for path in directory.glob("*.gossamesh"):
            Snapshot.load(path)
            whole += 1
    assert whole >= 6


def test_a_disk_that_refuses_leaves_no_file_and_is_told(tmp_path: Path) -> None:
    with saver(str(tmp_path), "20000") as process:
        said = list(lines(process))
    assert said[0] == "0\n" and said[1].startswith("refused") and len(said) == 2, said
    assert list(tmp_path.iterdir()) == [], "neither one of its name nor what was begun"


@pytest.mark.skipif(bool(why_no_strace()), reason=why_no_strace())
def test_it_is_on_the_disk_before_it_has_its_name_and_then_its_name_is(tmp_path: Path) -> None:
    code = "from tests.storage.test_snapshot_files import snapshot; import sys; snapshot().save(sys.argv[1])"
    trace, kept = tmp_path / "trace", tmp_path / "kept"
    kept.mkdir()
    command = [*strace("-y", "-e", "trace=fsync,link,linkat,rename", "-o", str(trace)), sys.executable, "-c", code]
    subprocess.run([*command, str(kept / "a.gossamesh")], cwd=ROOT, check=True)
    calls = [line for line in trace.read_text().splitlines() if str(kept) in line]
    assert ["fsync" in call for call in calls] == [True, False, True], calls
    assert "link" in calls[1] and calls[2].endswith("= 0") and f"<{kept}>" in calls[2]
