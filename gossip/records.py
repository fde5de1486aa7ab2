"""What do the records in the database say, and is it what was written?

A step is one record or several, one after another in one transaction; a state that replaced what was before stands
apart, in parts. Each record has a checksum that takes in that of the one before it, from a link drawn when the
directory was made:

    base (link) <- record 1 <- record 2 <- record 3 ...         base (link, seal) = part 1 <- part 2; <- record 4 ...

Invariants:
  - what is played back is a beginning of what was written: a record that is missing, changed, or was left from another
    life of the file breaks the chain, and then nothing is taken;
  - a base is put in place in one transaction, when all its parts are there; what it replaced, and parts of a state that
    was never finished, are read by nobody and cleared away later.

Not here: the file itself (`datadir`), and when what is written, synced and acknowledged (`storage`).
"""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Final, NamedTuple, TypeAlias

from crdt import Context, Malformed, Stage, State, Store, Timestamp, decode_batch, state_parts
from crdt.codec import pack, unpack
from gossip.protocol.log import Entry, Log

Progress: TypeAlias = Callable[[int, int], None]
"""Is told so far how many records and bytes were read."""

BATCH: Final = 0
STATE: Final = 1
MORE: Final = 2
"""Added to a record's kind if its step goes on in the next."""
PART: Final = 8

CHECKSUM: Final = 16
"""Bytes of a record's checksum."""
RECORD: Final = 256
"""Bytes that a record counts for beside its own: small ones cost by the record, in memory and when they are read."""
_PART_BYTES = 1 << 16
"""Of a state's part: encoding one holds the interpreter for half a millisecond."""
_SLICE = 1 << 20
"""Bytes of a state that go into one transaction, so that steps need not wait for the whole of it."""
_CLEARED = 4096
"""Records deleted in one transaction; of parts a 256th."""
_PAGE = 4096
_TELLS = 10_000
"""Records between two reports of progress."""

TABLES = (
    "CREATE TABLE meta (name TEXT NOT NULL, value TEXT NOT NULL)",
    "CREATE TABLE base (id INTEGER PRIMARY KEY, content BLOB NOT NULL, checksum BLOB NOT NULL)",
    "CREATE TABLE parts (number INTEGER PRIMARY KEY, payload BLOB NOT NULL, checksum BLOB NOT NULL)",
    "CREATE TABLE records "
    "(number INTEGER PRIMARY KEY, kind INTEGER NOT NULL, payload BLOB NOT NULL, checksum BLOB NOT NULL)",
)


class Damaged(Exception):
    """What was read is not what was written. The message says what; `DataDirectory.refusal` says the rest."""


class Loaded(NamedTuple):
    """What was there: steps since the state that they start from, records and bytes of both, the greatest stamp."""

    steps: int
    records: int
    size: int
    newest: Timestamp


class Step(NamedTuple):
    """What was delivered at once, on its way to the disk; `size` counts `RECORD` more for each record."""

    ticket: int
    kind: int
    payloads: tuple[bytes, ...]
    size: int


class Base(NamedTuple):
    """What the steps start from: the state after record `number`, as the parts from `first` to `last`.

    `link` is the checksum of that record, which that of the next one takes in; `seal` that of the last part. A fresh
    directory starts from nothing, and from a link drawn by chance: no record of another directory fits.
    """

    number: int
    link: bytes
    first: int = 1
    last: int = 0
    seal: bytes = b""
    size: int = 0
    stamp: Timestamp = 0
    """All that led to it was written before this, deletes included, whose own stamps are gone."""


def checksum_of(link: bytes, number: int, kind: int, payload: bytes) -> bytes:
    """A record's checksum. It takes in that of the record before, so that none can be missing, old, or of another."""
    return blake2b(
        b"%b%b%b%b" % (link, number.to_bytes(8, "big"), kind.to_bytes(1, "big"), payload), digest_size=16
    ).digest()


def write_base(connection: sqlite3.Connection, base: Base) -> None:
    """Puts a base in the place of the one before."""
    content = pack(base)
    connection.execute("INSERT OR REPLACE INTO base VALUES (1, ?, ?)", (content, checksum_of(b"base", 0, 0, content)))


def read_base(connection: sqlite3.Connection) -> Base:
    """The base. Raises `Damaged`."""
    rows = connection.execute("SELECT content, checksum FROM base").fetchall()
    if len(rows) != 1 or type(rows[0][0]) is not bytes or rows[0][1] != checksum_of(b"base", 0, 0, rows[0][0]):
        raise Damaged("the record of what it starts from does not fit its checksum")
    return Base(*unpack(rows[0][0]))


class Chain:
    """The checksums of records, or of parts, followed one by one."""

    def __init__(self, number: int, link: bytes) -> None:
        self.number, self.link = number, link
        """Of the last one."""

    def follow(self, number: int, kind: int, payload: bytes, checksum: bytes) -> None:
        """The next one. Raises `Damaged` if it is another."""
        self.number += 1
        self.link = checksum_of(self.link, self.number, kind, payload)
        if number != self.number or checksum != self.link:
            what = "part" if kind == PART else "record"
            raise Damaged(f"{what} {self.number} is missing or does not fit its checksum")


class Kept(NamedTuple):
    """All that the database has: what the steps start from, and the rows of its parts and of the records since."""

    base: Base
    parts: list[tuple[int, bytes, bytes]]
    records: list[tuple[int, int, bytes, bytes]]


class Records:
    """The records in the database, in their order. Known to the thread's frames alone, as its connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.base = read_base(connection)
        self.number, self.link = self.base.number, self.base.link
        """Of the last record, and its checksum."""
        self.pages = 0
        """Of the WAL since the last checkpoint, about."""

    # -- reading -----------------------------------------------------------------------------------------------------

    def replay(self, store: Store, recent: Log, progress: Progress | None) -> Loaded:
        """Plays everything into an empty store, and batches into the log. Raises `Damaged`, or whatever else comes of
        bytes that are not ours."""
        parts, size, newest = self._replay_base(store, progress)
        rows = self.connection.execute(
            "SELECT number, kind, payload, checksum FROM records WHERE number > ? ORDER BY number", (self.number,)
        )
        steps = records = 0
        run: list[bytes] = []
        chain = Chain(self.number, self.link)
        for found, kind, payload, checksum in rows:
            chain.follow(found, kind, payload, checksum)
            size += len(payload) + RECORD
            records += 1
            if kind == BATCH and not run:
                newest = max(newest, _merge_batch(store, recent, payload))  # the usual step, in line
                steps += 1
            else:
                run.append(payload)
                if not kind & MORE:
                    newest = max(newest, _merge(store, recent, kind, run))
                    steps, run = steps + 1, []
            if progress is not None and records % _TELLS == 0:
                progress(parts + records, size)
        if run:
            raise Damaged(f"record {chain.number} is the last, and its step goes on")
        self.number, self.link = chain.number, chain.link
        if progress is not None:
            progress(parts + records, size)
        return Loaded(steps, parts + records, size, newest)

    def _replay_base(self, store: Store, progress: Progress | None) -> tuple[int, int, Timestamp]:
        base = self.base
        if base.last < base.first:
            return 0, 0, 0
        rows = self.connection.execute(
            "SELECT number, payload, checksum FROM parts WHERE number BETWEEN ? AND ? ORDER BY number",
            (base.first, base.last),
        )
        stage = stage_of(base, rows, progress)
        store.merge_state(stage.state())
        return len(stage.parts), sum(map(len, stage.parts)), stage.newest

    def reading(self, kept: Kept) -> Iterator[bool]:
        """Reads all rows that there are now, a slice at each turn. Nothing of them may be cleared away meanwhile."""
        for table, columns, number, last, rows in (
            ("parts", "number, payload, checksum", self.base.first - 1, self.base.last, kept.parts),
            ("records", "number, kind, payload, checksum", self.base.number, self.number, kept.records),
        ):
            query = f"SELECT {columns} FROM {table} WHERE number > ? AND number <= ? ORDER BY number LIMIT {_CLEARED}"
            while number < last and (found := self.connection.execute(query, (number, last)).fetchall()):
                rows += found
                number = found[-1][0]
                yield False

    # -- writing -----------------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All in it, or nothing. Whoever sees it fail uses this no more, so there is nothing to roll back."""
        self.connection.execute("BEGIN IMMEDIATE")
        yield
        self.connection.execute("COMMIT")
        self.pages += 2

    def write(self, steps: Sequence[Step]) -> None:
        """Writes steps behind what is there."""
        rows = []
        for step in steps:
            last = len(step.payloads) - 1
            for place, payload in enumerate(step.payloads):
                kind = step.kind if place == last else step.kind | MORE
                self.number += 1
                self.link = checksum_of(self.link, self.number, kind, payload)
                rows.append((self.number, kind, payload, self.link))
        self.pages += sum(step.size for step in steps) // _PAGE
        if rows:
            self.connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?)", rows)

    def rewriting(self, state: State, stamp: Timestamp) -> Iterator[bool]:
        """Writes a state that covers all that is written now: a slice at each turn, each in a transaction of its own.

        True when it has taken the place of what was before; what follows then clears that away. A crash leaves the old
        or the new, and parts that belong to neither.
        """
        number, link = self.number, self.link
        first = self.connection.execute("SELECT ifnull(max(number), 0) + 1 FROM parts").fetchone()[0]
        last, seal, size = first - 1, link, 0
        for part in state_parts(state, _PART_BYTES):
            last += 1
            seal = checksum_of(seal, last, PART, part)
            self.connection.execute("INSERT INTO parts VALUES (?, ?, ?)", (last, part, seal))
            self.pages += len(part) // _PAGE + 1
            if (size + len(part)) // _SLICE > size // _SLICE:
                yield False
            size += len(part)
        del state
        base = Base(number, link, first, last, seal, size, stamp)
        write_base(self.connection, base)
        self.base = base
        yield True
        yield from self.clearing()

    def clearing(self) -> Iterator[bool]:
        """Deletes what the base has replaced, and what is of a state that was never finished, a little at each turn."""
        base = self.base
        for table, which, bound, count in (
            ("records", "number <= ?", base.number, _CLEARED),
            ("parts", "number < ?", base.first, _CLEARED >> 8),
            ("parts", "number > ?", base.last, _CLEARED >> 8),
        ):
            clear = f"DELETE FROM {table} WHERE number IN (SELECT number FROM {table} WHERE {which} LIMIT {count})"
            while self.connection.execute(clear, (bound,)).rowcount:
                self.pages += 16
                yield False

    def checkpoint(self) -> None:
        """Moves the WAL into the database, so that it is used again from its start."""
        self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self.pages = 0


def _merge_batch(store: Store, recent: Log, payload: bytes) -> Timestamp:
    """Delivers a batch; gives its greatest stamp."""
    batch = decode_batch(payload)
    store.merge_batch(batch)
    recent.append(Entry(batch.replica, batch.first, batch.last, payload, batch.open))
    writes = batch.writes
    return writes[0].stamp if len(writes) == 1 else max((write.stamp for write in writes), default=0)


def _merge(store: Store, recent: Log, kind: int, run: list[bytes]) -> Timestamp:
    """Delivers the records of one step; gives their greatest stamp."""
    if kind == BATCH:
        return max(_merge_batch(store, recent, payload) for payload in run)
    stage = merged_state(kind, run)[0]
    before = Context(store.context)
    store.merge_state(stage.state())
    for replica in store.context.beyond(before):
        recent.drop(replica)
    return stage.newest


def stage_of(base: Base, rows: Iterable[tuple[int, bytes, bytes]], progress: Progress | None = None) -> Stage:
    """The parts of a base. Raises `Damaged` if they are not what was written, `Malformed` if they are no state."""
    stage, chain, size = Stage(), Chain(base.first - 1, base.link), 0
    for found, payload, checksum in rows:
        chain.follow(found, PART, payload, checksum)
        stage.add(payload)
        size += len(payload)
        if progress is not None:
            progress(len(stage.parts), size)
    if chain.number != base.last or chain.link != base.seal:
        raise Damaged(f"part {chain.number} is the last, and should be part {base.last}")
    return stage


def merged_state(kind: int, run: Sequence[bytes]) -> tuple[Stage, Timestamp]:
    """The parts of a step that is a peer's state, and before when all that led to it was written."""
    if kind != STATE:
        raise Malformed(f"a record is of kind {kind}, which there is not")
    stage = Stage()
    *parts, stamp = run
    for part in parts:
        stage.add(part)
    return stage, int.from_bytes(stamp, "big")


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection meanwhile: there is none, and walking a million new tuples again and again takes as long as
    reading them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
