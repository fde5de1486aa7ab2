"""Does what was appended come back, in every mode, and does the loop never wait for it?"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from crdt import Store, encode_state, head_of, state_parts
from gossip import records as module
from gossip.errors import StartError
from gossip.storage import Durability, Storage
from tests.storage.story import CLUSTER, after, append, apply, found_in, steps
from tests.waiting import until_here

SEED, COUNT = 2, 40


class Kept:
    """A storage, and what it said."""

    def __init__(self, directory: Path, durability: Durability, **settings: Any) -> None:
        self.stored: list[int] = []
        self.synced: list[int] = []
        self.failed: list[OSError] = []
        self.storage = Storage(
            directory,
            CLUSTER,
            durability=durability,
            stored=self.stored.append,
            synced=self.synced.append,
            failed=self.failed.append,
            **settings,
        )

    def until_synced(self, ticket: int) -> None:
        until_here(lambda: self.synced and self.synced[-1] >= ticket, f"{ticket} is synced")

    def due(self) -> bool:
        return self.storage.due


Make = Callable[..., Kept]


@pytest.fixture(params=["interval", "full"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes storages of one directory; all are closed in the end."""
    made: list[Kept] = []

    def make(**settings: Any) -> Kept:
        made.append(Kept(tmp_path / "kept", request.param, **settings))
        return made[-1]

    yield make
    for kept in made:
        kept.storage.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def opened(kept: Kept) -> Store:
    kept.storage.open(store := Store())
    return store


def test_what_was_appended_comes_back(make: Make, directory: Path) -> None:
    kept = make()
    assert kept.storage.open(Store()) == (0, 0, 0, 0)
    tickets = [append(kept.storage, step) for step in steps(SEED, COUNT)]
    assert tickets == list(range(1, COUNT + 1))
    assert kept.storage.close() and kept.storage.close()
    assert kept.stored[-1] == kept.synced[-1] == COUNT and not kept.failed
    assert kept.stored == sorted(set(kept.stored)) and kept.synced == sorted(set(kept.synced))

    story: list[tuple[int, int]] = []
    again, store = make(), Store()
    loaded = again.storage.open(store, None, lambda records, size: story.append((records, size)))
    assert loaded.steps == COUNT and story[-1] == (loaded.records, loaded.size)
    assert loaded.newest >= max(_stamps(store)), "a delete has a stamp, and is not in the store"
    expected = after(steps(SEED, COUNT))
    assert encode_state(store.state()) == encode_state(expected.state()) and store.fingerprint == expected.fingerprint


def _stamps(store: Store) -> Iterator[int]:
    for elements in store.objects.values():
        yield from (head_of(live)[0] for live in elements.values())


def test_a_new_life_goes_on_where_the_last_one_ended(make: Make, directory: Path) -> None:
    """Its tickets begin anew; its steps follow those of the lives before."""
    for life in range(4):
        kept = make()
        opened(kept)
        tickets = [append(kept.storage, step) for step in steps(SEED, COUNT)[life * 10 : life * 10 + 10]]
        assert tickets == list(range(1, 11))
        assert kept.storage.close() and kept.synced[-1] == 10
        assert found_in(directory, SEED, COUNT) == life * 10 + 10


def test_a_state_replaces_what_was_before_it(make: Make, directory: Path) -> None:
    kept = make(compact_bytes=20_000)
    store = opened(kept)
    for _ in range(3):  # the same writes again and again would be nothing new: so three times the story of one seed
        for step in steps(SEED, COUNT):
            apply(store, step)
            append(kept.storage, step)
            if kept.storage.due:
                kept.storage.compact(store.state(), 0)
                assert not kept.storage.due
        until_here(lambda: not kept.storage.compacting, "the state is written")
    assert kept.storage.compactions >= 2
    assert kept.storage.close()
    assert found_in(directory, SEED, COUNT) == COUNT
    with closing(sqlite3.connect(directory / "gossamesh.sqlite")) as connection:
        (records,) = connection.execute("SELECT count(*) FROM records").fetchone()
    assert records < 3 * COUNT, "what was replaced is gone"


class Hesitant(SimpleQueue[Any]):
    """The thread is quicker than whoever gave it something: all is done before `put` returns."""

    done: Callable[[], object]

    def put(self, *arguments: Any) -> None:
        super().put(*arguments)
        until_here(self.done)


def test_a_state_that_is_written_at_once_is_not_waited_for(make: Make, directory: Path) -> None:
    """Ours: the thread had written it before the loop noted that it was on its way. So it was on its way for ever, and
    after the next step that found no room nothing was kept any more."""
    kept = make()
    store = opened(kept)
    before, kept.storage._queue = kept.storage._queue, (queue := Hesitant())
    before.put(None)  # the thread may wait there
    queue.done = lambda: kept.storage.steps
    append(kept.storage, first := steps(SEED, COUNT)[0])
    apply(store, first)
    for number in (1, 2):
        queue.done = lambda number=number: kept.storage.compactions == number  # type: ignore[misc]
        kept.storage.compact(store.state(), 0)
        assert not kept.storage.compacting
    read: list[module.Kept] = []
    queue.done = lambda: read
    assert kept.storage.read(read.append) and not kept.storage.compacting
    queue.done = lambda: True
    assert kept.storage.close()


class Interrupted(SimpleQueue[Any]):
    """A signal handler raises before anything is put, until `over`."""

    over = False

    def put(self, *arguments: Any) -> None:
        if not self.over:
            raise TimeoutError
        super().put(*arguments)


def test_who_was_interrupted_while_he_asked_for_a_state_may_ask_again(make: Make, directory: Path) -> None:
    """It would be on its way for ever if that were noted first."""
    kept = make()
    store = opened(kept)
    append(kept.storage, first := steps(SEED, COUNT)[0])
    apply(store, first)
    kept.until_synced(1)
    before, kept.storage._queue = kept.storage._queue, (queue := Interrupted())
    before.put(None)  # the thread may wait there
    read: list[module.Kept] = []
    with pytest.raises(TimeoutError):
        kept.storage.read(read.append)
    assert not kept.storage.compacting
    kept.storage.lost()
    with pytest.raises(TimeoutError):
        kept.storage.compact(store.state(), 0)
    assert not kept.storage.compacting and kept.storage.due
    queue.over = True
    kept.storage.compact(store.state(), 0)
    until_here(lambda: not kept.storage.compacting, "the state is written")
    assert kept.storage.read(read.append)
    until_here(lambda: read)
    assert kept.storage.close() and kept.storage.compactions == 1


def test_what_was_lost_on_its_way_is_safe_when_a_state_covers_it(make: Make, directory: Path) -> None:
    """It counts as dropped, and so does what follows it: what comes first of all is the state."""
    kept = make()
    store = opened(kept)
    first, second, third = steps(SEED, COUNT)[:3]
    apply(store, first)
    append(kept.storage, first)
    kept.until_synced(1)
    apply(store, second)
    assert kept.storage.lost() == 2 and kept.storage.due
    apply(store, third)
    assert append(kept.storage, third) == 3
    assert kept.storage.dropped == 2 and kept.storage.synced == 1
    kept.storage.compact(store.state(), 0)
    kept.until_synced(3)
    assert kept.storage.close() and found_in(directory, SEED, COUNT) == 3


def test_steps_that_come_while_a_state_is_written_follow_it(
    make: Make, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state is taken at the tenth step, and all others are appended before its first part is on the disk."""
    monkeypatch.setattr(module.Records, "transaction", _slow(module.Records.transaction, gate := threading.Event()))
    kept = make()
    gate.set()
    store = opened(kept)
    gate.clear()
    for number, step in enumerate(steps(SEED, COUNT), 1):
        apply(store, step)
        append(kept.storage, step)
        if number == 10:
            kept.storage.compact(store.state(), 0)
    gate.set()
    kept.until_synced(COUNT)
    until_here(lambda: kept.storage.compactions == 1, "the state is written")
    assert kept.storage.close()
    assert found_in(directory, SEED, COUNT) == COUNT


def _slow(real: Callable[..., Any], gate: threading.Event) -> Callable[..., Any]:
    def transaction(self: Any) -> Any:
        assert gate.wait(30)
        return real(self)

    return transaction


def test_a_full_queue_drops_until_a_state_covers_it(
    make: Make, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow disk costs neither memory nor the node: what found no room is in the next state, and acknowledged then."""
    monkeypatch.setattr(module.Records, "transaction", _slow(module.Records.transaction, gate := threading.Event()))
    kept = make(queue_bytes=20_000)
    gate.set()
    store = opened(kept)
    gate.clear()
    story = steps(SEED, COUNT)
    for step in story[:30]:
        apply(store, step)
        append(kept.storage, step)
        assert kept.storage.waiting <= 20_000
    assert kept.storage.overflows == 1 and kept.storage.dropped > 0 and kept.due()
    kept.storage.compact(store.state(), 0)
    for step in story[30:36]:
        apply(store, step)
        append(kept.storage, step)
    assert (kept.storage.overflows, kept.due()) == (2, False), "one state at a time"
    gate.set()
    kept.until_synced(30)
    until_here(kept.due, "another state is wanted")
    kept.storage.compact(store.state(), 0)
    kept.until_synced(36)
    for step in story[36:]:
        kept.until_synced(append(kept.storage, step))
    assert (kept.storage.waiting, kept.due()) == (0, False)
    assert kept.storage.close()
    assert found_in(directory, SEED, COUNT) == COUNT


def test_what_was_dropped_is_never_skipped_over(make: Make, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed before the state could be written: what came after it must not be there without what was before it."""
    monkeypatch.setattr(module.Records, "transaction", _slow(module.Records.transaction, gate := threading.Event()))
    kept = make(queue_bytes=20_000)
    gate.set()
    store = opened(kept)
    gate.clear()
    for step in steps(SEED, COUNT)[:30]:
        apply(store, step)
        append(kept.storage, step)
    kept.storage.compact(store.state(), 0)
    append(kept.storage, steps(SEED, COUNT)[30])
    assert not kept.storage.close(timeout=0)
    gate.set()
    until_here(lambda: not any("storage" in thread.name for thread in threading.enumerate()), "the thread has ended")
    assert not kept.storage.close(), "not all of it is there, and it says so"
    assert found_in(directory, SEED, COUNT) <= 30
    assert kept.storage.dropped >= 1


def test_the_files_stay_as_small_as_what_is_in_them(
    make: Make, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The WAL is used again from its start, and what a state has replaced gives room for the next."""
    monkeypatch.setattr("gossip.storage._CHECKPOINT", 32)
    kept, ticket = make(), 0
    store = opened(kept)
    for _ in range(15):
        for step in steps(SEED, COUNT):
            apply(store, step)
            ticket = append(kept.storage, step)
        kept.until_synced(ticket)
        kept.storage.compact(store.state(), 0)
        until_here(lambda: not kept.storage.compacting, "the state is written")
    sizes = {path.name: path.stat().st_size for path in directory.iterdir()}
    assert sizes["gossamesh.sqlite-wal"] < 1 << 20 and sizes["gossamesh.sqlite"] < 1 << 20, "15 times 200 KB went in"


def test_a_large_state_is_one_step(make: Make, directory: Path) -> None:
    store = after(steps(SEED, COUNT))
    kept = make()
    opened(kept)
    assert kept.storage.append_state(list(state_parts(store.state(), limit=100)), 0) == 1
    assert kept.storage.close()
    assert found_in(directory, SEED, COUNT) == COUNT


def test_a_callback_that_raises_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A closed loop raises RuntimeError at `call_soon_threadsafe`; whatever else is a mistake, and is told."""
    loop = asyncio.new_event_loop()
    loop.close()
    storage = Storage(
        tmp_path / "kept",
        CLUSTER,
        stored=lambda ticket: [loop.call_soon_threadsafe(print, ticket)].clear(),
        synced=[].__delitem__,
    )
    storage.open(Store())
    for step in steps(SEED, COUNT):
        append(storage, step)
    assert storage.close()
    assert found_in(tmp_path / "kept", SEED, COUNT) == COUNT
    assert {record.exc_info[0] for record in caplog.records if record.exc_info} == {IndexError}


def test_who_waits_for_a_close_may_be_cancelled(make: Make, directory: Path) -> None:
    kept = make()
    opened(kept)
    for step in steps(SEED, COUNT):
        append(kept.storage, step)

    async def leave() -> None:
        closing = asyncio.create_task(asyncio.to_thread(kept.storage.close))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert await asyncio.to_thread(kept.storage.close)

    asyncio.run(leave())
    assert found_in(directory, SEED, COUNT) == COUNT


def test_what_is_appended_after_a_close_goes_nowhere(make: Make, directory: Path) -> None:
    kept = make()
    opened(kept)
    append(kept.storage, steps(SEED, COUNT)[0])
    assert kept.storage.close()
    append(kept.storage, steps(SEED, COUNT)[1])
    kept.storage.compact(Store().state(), 0)
    assert kept.storage.counters["dropped"] == 1 and not kept.storage.due
    assert found_in(directory, SEED, COUNT) == 1


def test_nothing_of_it_is_left_open(make: Make) -> None:
    def descriptors() -> int:
        return len(os.listdir("/dev/fd"))

    before, threads = descriptors(), threading.active_count()
    for _ in range(3):
        kept = make()
        opened(kept)
        append(kept.storage, steps(SEED, COUNT)[0])
        assert kept.storage.close()
    with pytest.raises(StartError):
        Storage(kept.storage.path, "other").open(Store())
    assert descriptors() == before and threading.active_count() == threads


# --- whose directory is it ----------------------------------------------------------------------------------------


def test_the_directory_is_for_its_user_alone(make: Make, directory: Path) -> None:
    kept = make()
    opened(kept)
    append(kept.storage, steps(SEED, COUNT)[0])
    kept.until_synced(1)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [directory, *directory.iterdir()]}
    assert modes == {"kept": 0o700, "gossamesh.sqlite": 0o600, "gossamesh.sqlite-wal": 0o600, "lock": 0o600}


def refused(directory: Path, cluster: str = CLUSTER) -> str:
    """What a start there says; and it changed nothing."""
    before = {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "lock"}
    with pytest.raises(StartError) as error:
        Storage(directory, cluster).open(Store())
    assert before == {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "lock"}
    return str(error.value)


def test_a_second_one_is_told_who_is_there(make: Make, directory: Path) -> None:
    kept = make()
    opened(kept)
    said = refused(directory)
    assert f"process {os.getpid()}" in said and str(directory) in said and "each node needs one of its own" in said
    assert kept.storage.close()
    assert found_in(directory, SEED, COUNT) == 0


def closed(make: Make) -> None:
    kept = make()
    opened(kept)
    append(kept.storage, steps(SEED, COUNT)[0])
    assert kept.storage.close()


def test_another_cluster_s_directory(make: Make, directory: Path) -> None:
    closed(make)
    said = refused(directory, "bank")
    assert "of the cluster 'shop'" in said and "'bank'" in said
    assert found_in(directory, SEED, COUNT) == 1


def test_a_newer_version_s_directory(make: Make, directory: Path) -> None:
    closed(make)
    with closing(sqlite3.connect(directory / "gossamesh.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 2")
    said = refused(directory)
    assert "newer version" in said and "update" in said


@pytest.mark.parametrize("what", ["sqlite", "text", "empty", "folder", "tables", "pipe"])
def test_somebody_else_s_file(make: Make, directory: Path, what: str) -> None:
    path = directory / "gossamesh.sqlite"
    closed(make)
    if what != "tables":
        path.unlink()
    match what:
        case "sqlite" | "tables":
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("CREATE TABLE guests (name)")
        case "text":
            path.write_text("of all things, a text file; but one that is longer than a header is: " * 9)
        case "empty":
            path.touch()
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
    before = {path.name for path in directory.iterdir()}
    with pytest.raises(StartError) as error:
        Storage(directory, CLUSTER).open(Store())
    assert str(directory) in str(error.value)
    assert before == {path.name for path in directory.iterdir()}


def test_a_directory_that_can_not_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "under"):
        with pytest.raises(StartError) as error:
            Storage(path, CLUSTER).open(Store())
        assert str(path) in str(error.value)


def test_a_refused_directory_gets_no_lock(tmp_path: Path) -> None:
    """Somebody gave the wrong path: nothing of ours is left there."""
    (tmp_path / "gossamesh.sqlite").write_text("not a database " * 20)
    assert "not of gossamesh" in refused(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["gossamesh.sqlite"]


def test_a_program_that_looks_into_the_database(make: Make, directory: Path) -> None:
    """A shell with the database open keeps us out, and says so; once it runs here, it keeps others out."""
    closed(make)
    with closing(sqlite3.connect(directory / "gossamesh.sqlite", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        assert "another program" in refused(directory)
        connection.execute("ROLLBACK")
    opened(make())
    other = sqlite3.connect(directory / "gossamesh.sqlite", timeout=0)
    with closing(other), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("SELECT count(*) FROM records").fetchone()
