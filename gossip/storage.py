"""How does what a node holds outlive its process, and the power, without anybody waiting for a disk?

What is delivered at once is a *step*: encoded batches as they came, or a peer's full state in its parts. Steps go into
a queue, from which one thread writes all that waits in one transaction: whole or not at all, in their order. Opening
plays them back through the store's own doors, so it gives the same context, and therefore the same state. Now and then
a state taken at a known point of the sequence replaces all steps before it.

Invariants:
  - what is on the disk is always a beginning of the sequence of steps, in whole steps;
  - `stored` and `synced` are said of what is so, and after the first refusal of the disk of nothing more: a page that
    an fsync failed to write counts as clean in the kernel, so a second one proves nothing;
  - appending never waits and never raises. What the queue has no room for is dropped, and with it all that follows,
    until a new state covers it;
  - the connection is known to frames of its thread alone. So it is closed there or never: neither a forked child,
    where that thread is not, nor the end of the interpreter can have SQLite tidy up files that are not its own.

A power cut: SQLite's commits reach the kernel at once (synchronous=NORMAL), and the thread has the kernel write the WAL
out through a descriptor of its own. SQLite syncs the WAL itself before it moves any of it into the database, the
database before it uses the WAL again, and the WAL's new header before it overwrites the first frame.

Source: SQLite's "Write-Ahead Logging" and "WAL-mode File Format"; Rebello et al., "Can applications recover from fsync
failures?" (2020). Not here: the directory (`datadir`), the records in it (`records`), and when to take a state
(whoever drives this asks `due`).
"""

from __future__ import annotations

import fcntl
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final, Literal, NamedTuple, TypeAlias

from crdt import State, Store, Timestamp
from gossip import forks
from gossip.datadir import DataDirectory
from gossip.errors import StartError
from gossip.protocol.log import Log
from gossip.records import BATCH, RECORD, STATE, Kept, Loaded, Progress, Records, Step, uncollected

log = logging.getLogger("gossip")

Durability: TypeAlias = Literal["interval", "full"]

INTERVAL: Final = 0.010
"""Seconds at most from a commit to the fsync that makes it safe, where the disk is not the one to wait for."""
_LONGEST_PAUSE = 0.05
"""Seconds. While a state is written, the thread rests as long as it worked: the loop needs the interpreter too."""
_CHECKPOINT = 4096
"""Pages that a WAL has before they are moved into the database, about: 16 MiB are read again in no time."""


class _Compact(NamedTuple):
    number: int
    ticket: int
    state: State
    stamp: Timestamp
    alone: bool
    """Whether steps before it were dropped: what comes after it must not be there before it is."""


class _Read(NamedTuple):
    number: int
    then: Callable[[Kept], None]


class Storage:
    """The data directory of one node, as its loop sees it.

    `stored(ticket)`: this step and all before it are with the kernel, and survive the end of this process, however it
    comes. `synced(ticket)`: they survive a power cut. `failed(error)`: the disk refused, once and for all; nothing is
    acknowledged any more, and what is appended is dropped and counted. All three are called from the writer's thread.

    With `durability="interval"` a step is stored at once, and synced 10 ms later plus what the disk takes; with "full"
    each commit waits for the disk, and a step is stored when it is synced.

    Everything else is for one thread, the loop's; nothing but `open` and `close` ever waits.

    >>> import tempfile
    >>> from crdt import Batch, LWWMap, encode_batch
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     storage = Storage(Path(directory), "shop")
    ...     storage.open(store := Store()).steps
    ...     write = LWWMap(store, "flags").set("beta", True, replica=7, stamp=1)
    ...     storage.append_batches([encode_batch(Batch(7, 1, 1, (write,)))])
    ...     storage.close()
    ...     again = Storage(Path(directory), "shop")
    ...     again.open(store).steps, LWWMap(store, "flags").get("beta"), again.close()
    0
    1
    True
    (1, True, True)
    """

    def __init__(
        self,
        directory: Path,
        cluster: str,
        *,
        durability: Durability = "interval",
        stored: Callable[[int], None] = lambda ticket: None,
        synced: Callable[[int], None] = lambda ticket: None,
        failed: Callable[[OSError], None] = lambda error: None,
        queue_bytes: int = 64 << 20,
        compact_bytes: int = 64 << 20,
    ) -> None:
        self.path = directory
        self.steps = self.groups = self.syncs = self.compactions = 0
        """Steps written, transactions that wrote them, fsyncs of the WAL, states that replaced what was before."""
        self.dropped = 0
        """Steps that were not written, or may not have been: the queue had no room, the disk had refused, the storage
        was closed, or a signal handler raised on their way here."""
        self.overflows = 0
        """How often the queue was full: a state was asked for each time, to cover what was dropped."""
        self._directory = DataDirectory(directory, cluster)
        self._durability: Durability = durability
        self._stored, self._synced, self._failed = stored, synced, failed
        self._queue_bytes, self._compact_bytes = queue_bytes, compact_bytes
        self._queue: SimpleQueue[Step | _Compact | _Read | None] = SimpleQueue()  # its `put` takes no lock
        self._thread: threading.Thread | None = None
        self._log = -1
        """Our own descriptor of the WAL. SQLite has no POSIX locks on that file that closing it could drop."""
        self._ticket = 0
        self._queued = 0
        """Bytes ever queued; written by the loop alone, as `_written` by the thread alone."""
        self._written = 0
        self._since = 0
        """Bytes of the steps since the last state."""
        self._base_size = 0
        self._behind = False
        self._numbers = count(1)
        self._asked = self._answered = 0
        """The last state that was asked to be written, or the last reading, and the last of them that is done. Numbers,
        since the thread may be done before `put` has returned: what is noted of it then must not undo that. None comes
        twice, though a signal handler raised before it was noted."""
        self._deaf = True
        """Whether what is appended goes nowhere."""
        self._deadline: float | None = None
        """By when to be done, once it is to be closed."""
        self._last = 0
        """The last ticket before that."""
        self._safe = 0
        """The last ticket that was synced, when the thread ended."""
        self.synced = 0
        """The last ticket that is synced by now: for whom the word of it did not reach."""

    # -- the loop's side -----------------------------------------------------------------------------------------------

    def open(self, store: Store, recent: Log | None = None, progress: Progress | None = None) -> Loaded:
        """Takes the directory, and fills an empty store with what is there, and a log with what came last. Waits;
        `progress` is told from the thread.

        Raises `StartError` if the directory is in use, not ours, of a newer version or damaged; then nothing in it was
        changed. The store may have been filled in part: it is of no use.
        """
        assert self._thread is None, "a storage is opened once"
        assert not store.context, "what is read goes into an empty store"
        forks.enter(self)
        outcome: SimpleQueue[Loaded | StartError] = SimpleQueue()
        name = f"gossamesh-storage-{self.path.name}"
        # A daemon: neither a slow disk nor a forgotten close keeps a program from ending.
        loading = (store, Log(0) if recent is None else recent, progress, outcome)
        self._thread = threading.Thread(target=self._run, args=loading, name=name, daemon=True)
        self._thread.start()
        result = outcome.get()
        if isinstance(result, StartError):
            self._thread.join()
            raise result
        return result

    def append_batches(self, payloads: Sequence[bytes]) -> int:
        """Appends batches that were delivered in one step, as `encode_batch` made them. Gives the step's ticket."""
        return self._append(BATCH, tuple(payloads))

    def append_state(self, parts: Sequence[bytes], stamp: Timestamp) -> int:
        """Appends a state that was merged, as `state_parts` made its parts; all that led to it was written before
        `stamp`. Gives the step's ticket."""
        return self._append(STATE, (*parts, stamp.to_bytes(8, "big")))

    def _append(self, kind: int, payloads: tuple[bytes, ...]) -> int:
        assert payloads, "a step has something in it"
        self._ticket += 1
        size = sum(map(len, payloads)) + RECORD * len(payloads)
        if not (self._deaf or self._behind) and self.waiting + size > self._queue_bytes:
            self._behind = True
            self.overflows += 1
        if self._deaf or self._behind:
            self.dropped += 1
        else:
            self._queued += size
            self._since += size
            self._queue.put(Step(self._ticket, kind, payloads, size))
        return self._ticket

    @property
    def due(self) -> bool:
        """Whether a state is wanted: because of all the steps since the last one, or of one that found no room."""
        if self._deaf or self.compacting:
            return False
        return self._behind or self._since > max(self._compact_bytes, self._base_size)

    @property
    def compacting(self) -> bool:
        """Whether a state is on its way to the disk, or all is being read: another state has to wait."""
        return self._asked > self._answered

    def compact(self, state: State, stamp: Timestamp) -> None:
        """Has this state replace all steps before it; all that led to it was written before `stamp`.

        It must be what the steps appended so far lead to, and nothing beyond: taken in the same turn of the loop, while
        no write waits here to leave.
        """
        if self._deaf or self.compacting:
            return
        number = next(self._numbers)
        self._queue.put(_Compact(number, self._ticket, state, stamp, self._behind))
        self._asked, self._behind, self._since = number, False, 0

    def lost(self) -> int:
        """A step may have been lost on its way here: it counts as one that was dropped, and what follows it goes
        nowhere until a state covers it. Gives its ticket."""
        self._behind = True
        self._ticket += 1
        self.dropped += 1
        return self._ticket

    def read(self, then: Callable[[Kept], None]) -> bool:
        """Has all that is kept read, up to what was appended so far, and given to `then`, from the thread.

        False if that can not be now: a state is on its way to the disk or wanted there, or something else is read; or
        the storage is closed, or has failed.
        """
        if self._deaf or self.compacting or self._behind:
            return False
        number = next(self._numbers)
        self._queue.put(_Read(number, then))
        self._asked = number
        return True

    @property
    def waiting(self) -> int:
        """Bytes that are not written yet, with `RECORD` more for each record."""
        return self._queued - self._written

    @property
    def counters(self) -> dict[str, int]:
        """For a status: what was done, what waits, and what was not done."""
        names = ("steps", "groups", "syncs", "compactions", "dropped", "overflows", "waiting")
        return {name: getattr(self, name) for name in names}

    def close(self, timeout: float = 5.0) -> bool:
        """Writes what waits, makes it safe, and lets go of the directory; says whether all that was within the time.

        When the time is up the thread goes on to the end of its transaction, drops what waits still, and lets go then.
        May be called again, to wait longer for that. False as well if the disk has refused.
        """
        thread = self._thread
        if thread is None:
            return True
        self.end(timeout)
        thread.join(timeout)
        return not thread.is_alive() and self._safe >= self._last

    def end(self, timeout: float) -> None:
        """Has the thread do what `close` waits for."""
        if self._deadline is None:
            self._deadline = time.monotonic() + timeout
            self._last, self._deaf = self._ticket, True
            self._queue.put(None)

    def abandon(self) -> None:
        """In a forked child: lets go of all that is the parent's, which alone writes. What is appended goes nowhere."""
        self._deaf = True
        self._thread = None
        self._directory.abandon()
        self._unlog()

    # -- the thread's side ---------------------------------------------------------------------------------------------

    def _run(
        self, store: Store, recent: Log, progress: Progress | None, outcome: SimpleQueue[Loaded | StartError]
    ) -> None:
        """The thread: opens, says what came of it, serves until it is told to end, and lets go."""
        try:
            opened = self._open(store, recent, progress)
            if isinstance(opened, StartError):
                outcome.put(opened)
                return
            records, loaded = opened
            self._deaf = False
            outcome.put(loaded)
            del store, recent, progress, outcome
            self._serve(records)
        finally:
            self._deaf = True
            forks.leave(self)
            self._directory.release()

    def _open(self, store: Store, recent: Log, progress: Progress | None) -> tuple[Records, Loaded] | StartError:
        directory, connection = self._directory, None
        try:
            directory.claim()
            connection = directory.connect("FULL" if self._durability == "full" else "NORMAL")
            self._log = os.open(directory.log, os.O_RDONLY | os.O_CLOEXEC)
            records = Records(connection)
            with uncollected():
                loaded = records.replay(store, recent, progress)
            _sync(self._log)  # whoever wrote it may have been killed before it did, and we vouch for what was read
        except Exception as error:  # whatever reading comes upon in bytes that are not what we wrote
            if connection is not None:
                self._unlog()
                directory.drop(connection, error)
            directory.release(refused=True)
            return directory.refusal(error)
        self._base_size = records.base.size
        self._since = loaded.size - self._base_size
        return records, loaded

    def _unlog(self) -> None:
        descriptor, self._log = self._log, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _serve(self, records: Records) -> None:
        writer = _Writer(self, records)
        try:
            writer.serve()
        except Exception as error:
            self._deaf = True
            refused = OSError(
                f"the data directory {self._directory.path} can not be written any more ({_said(error)}): what this "
                "node holds is in its memory and with its peers, and nothing of it is stored from here on. See to the "
                "disk, then start the node again"
            )
            self._unlog()
            self._directory.drop(records.connection, error)
            self._drain()
            self._tell(self._failed, refused)
        else:
            self._safe = writer.synced
            self._unlog()
            self._directory.close(records.connection)

    def _drain(self) -> None:
        """Drops what waits, and counts it."""
        while not self._queue.empty():
            item = self._queue.get_nowait()
            if isinstance(item, Step):
                self.dropped += 1
                self._written += item.size

    def _tell(self, callback: Callable[..., None], said: object) -> None:
        try:
            callback(said)
        except RuntimeError:
            pass  # the loop that it was for is closed
        except Exception:
            log.exception("a callback of the storage raised")


class _Writer:
    """What the thread does, a transaction at a time: the steps that wait, and a slice of the state being written."""

    def __init__(self, storage: Storage, records: Records) -> None:
        self._storage = storage
        self._records = records
        self._beside: Iterator[bool] | None = records.clearing()  # what a crash has left
        """What is done a slice at a time, beside the steps: a state is written, or all is read."""
        self._covers = self._number = 0
        """The ticket that the state being written covers, 0 if none is; and the number of that state."""
        self._alone = False
        self._pause = 0.0
        self._stored = self.synced = 0
        self._sync_at: float | None = None
        """When the oldest commit that is not safe has to be."""

    def serve(self) -> None:
        """Until the storage is closed. Raises whatever the disk refuses with."""
        while not self._done():
            steps, asked = ([], None) if self._alone else self._take()
            before = time.monotonic()
            if steps or asked or self._beside:
                self._commit(steps, asked)
            if self._sync_at is not None and time.monotonic() >= self._sync_at:
                self._sync()
            if self._records.pages >= _CHECKPOINT:
                self._checkpoint()
            self._pause = min(time.monotonic() - before, _LONGEST_PAUSE)
        if self._sync_at is not None:
            self._sync()

    def _done(self) -> bool:
        deadline = self._storage._deadline
        if deadline is None:
            return False
        if time.monotonic() < deadline and (self._covers or not self._storage._queue.empty()):
            return False
        self._storage._drain()
        return True

    def _take(self) -> tuple[list[Step], _Compact | _Read | None]:
        """All that waits, up to a state or a read: what comes after that belongs behind it."""
        steps: list[Step] = []
        queue, patience = self._storage._queue, self._patience()
        try:
            item = queue.get_nowait() if patience == 0 else queue.get(timeout=patience)
            while True:
                if isinstance(item, _Compact | _Read):
                    return steps, item
                if item is not None:
                    steps.append(item)
                item = queue.get_nowait()
        except Empty:
            return steps, None

    def _patience(self) -> float | None:
        if self._storage._deadline is not None:
            return 0
        if self._beside is not None:
            return self._pause
        return None if self._sync_at is None else max(0.0, self._sync_at - time.monotonic())

    def _commit(self, steps: list[Step], asked: _Compact | _Read | None) -> None:
        storage, records = self._storage, self._records
        replaced = False
        with records.transaction():
            records.write(steps)
            if isinstance(asked, _Compact):
                self._beside = records.rewriting(asked.state, asked.stamp)
                self._number, self._covers, self._alone = asked.number, asked.ticket, asked.alone
            elif asked is not None:
                self._beside = chain(self._beside or (), self._reading(asked))
            if self._beside is not None:
                step = next(self._beside, None)
                replaced = step is True
                if step is None:
                    self._beside = None
        storage._written += sum(step.size for step in steps)
        storage.steps += len(steps)
        storage.groups += bool(steps)
        reached = steps[-1].ticket if steps else 0
        if replaced:
            reached = max(reached, self._covers)
            self._covers, self._alone = 0, False
            storage.compactions += 1
            storage._base_size, storage._answered = records.base.size, self._number
        if reached > self._stored:
            self._acknowledge(reached)
        elif replaced:  # all the same: another state may have had to wait for this one
            storage._tell(storage._stored, self._stored)

    def _reading(self, asked: _Read) -> Iterator[bool]:
        kept = Kept(self._records.base, [], [])
        yield from self._records.reading(kept)
        self._storage._answered = asked.number
        self._storage._tell(asked.then, kept)

    def _acknowledge(self, ticket: int) -> None:
        self._stored = ticket
        self._storage._tell(self._storage._stored, ticket)
        if self._storage._durability == "full":
            self._say_synced(ticket)
        elif self._sync_at is None:
            self._sync_at = time.monotonic() + INTERVAL

    def _say_synced(self, ticket: int) -> None:
        self.synced = self._storage.synced = ticket
        self._storage._tell(self._storage._synced, ticket)

    def _sync(self) -> None:
        _sync(self._storage._log)
        self._sync_at = None
        self._storage.syncs += 1
        if self._stored > self.synced:
            self._say_synced(self._stored)

    def _checkpoint(self) -> None:
        if self._sync_at is not None:
            self._sync()  # SQLite does it as well; so it is acknowledged before the long part
        self._records.checkpoint()


def _sync(descriptor: int) -> None:
    """Has the kernel write a file out, and the disk what it had in its cache."""
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def _said(error: Exception) -> str:
    """What an error says, with SQLite's own name for it."""
    name = getattr(error, "sqlite_errorname", None)
    return f"{error}, {name}" if name else str(error) or repr(error)
