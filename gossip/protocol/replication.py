"""How do writes get in and out, and what does a peer miss?

The door of the store. Own writes gather until the end of the turn, then leave as batches; those of others come in as
batches, are held back while something before them is missing, and are logged as they came. A peer's context
tells what it misses: batches from the log, or, where the log does not reach back, what differs in the state.

Invariants:
  - nothing of an unfinished transaction, and no write that may still be coalesced away, is ever visible outside:
    contexts, digests and states that leave are those of what has left (`published`);
  - a batch is delivered once, in its replica's order, and a transaction in one step;
  - whatever is refused (too early and no room, a stamp from the future) leaves no trace, so it is pulled again.

Source: push and pull of Demers et al. (1987); Enes et al. (2019) for not sending again what was not new.
Not here: whom to send to (`engine`), and when to ask (`recovery`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Sequence
from operator import attrgetter, itemgetter
from typing import NamedTuple

from crdt import (
    Batch,
    Change,
    ClockSkew,
    Context,
    Inbox,
    Key,
    Link,
    Malformed,
    Note,
    State,
    Store,
    Timestamp,
    Write,
    decode_batch,
    encode_batch,
    encode_context,
)
from crdt.causality import fingerprint_of
from crdt.codec import MAX_BY, MAX_ELEMENT, MAX_NAME, MAX_RANGE, MAX_REPLICAS, MAX_TEXT, size_of_note
from crdt.timestamp import at, observe, tick
from crdt.write import MAX_NAMES
from gossip.protocol.log import OVERHEAD, Entry, Log
from gossip.protocol.messages import Digest, Push
from gossip.protocol.settings import Settings

_STAMP, _PAYLOAD = attrgetter("stamp"), itemgetter(1)
_OVERHEAD = 64
"""Bytes of a write beside its name, element, value and names, at most."""
MOST_BESIDE = _OVERHEAD + MAX_NAME + MAX_ELEMENT + 20
"""Bytes of a write that replaces one other at most, beside its value."""
_MOST_AT_ONCE = 1024
"""Writes of one batch of which none replaces another."""
_MOST_GATHERED = MAX_RANGE // 2
"""Writes of one batch. The other half is for such as were cut short, see `_close`."""
_MOST_TOUCHED = 1 << 20
"""Bytes of log that are decoded at once for who goes on elsewhere: some 50 ms."""
_HELD_OVERHEAD = 500
"""Bytes of memory that a batch held back takes beside its payload: 32 MiB of small payloads were 800 MiB."""
_MOST_OF_NOTE = _HELD_OVERHEAD + 16 + MAX_BY + MAX_TEXT
"""Bytes that another note adds to a transaction, at most."""


class Delivered(NamedTuple):
    """What came of batches: visible changes in one step each, whether all were in order, and who is skewed."""

    steps: list[tuple[Change, ...]]
    payloads: list[tuple[bytes, ...]]
    """The batches of each step, as they came."""
    gap: bool
    skewed: list[tuple[int, ClockSkew]]


class Replication:
    """The writes of one node: its store, what has not left yet, what is held back, and the log."""

    def __init__(self, store: Store, settings: Settings, replica: int, recent: Log | None = None) -> None:
        self.store = store
        self.replica = replica
        self.log = Log(settings.log_bytes) if recent is None else recent
        self.inbox = Inbox(settings.held_bytes, _HELD_OVERHEAD)
        self._settings = settings
        self._max_skew = int(settings.max_clock_skew * 1000)
        self._stamp: Timestamp = 0
        self._gathered: list[Write | None] = []
        """Own writes since the last closed batch, by sequence; None is a blank."""
        self._note: Note | None = None
        """That of all that was gathered."""
        self._newest: dict[Key, int] | None = None
        """Where the newest gathered write of a key stands, whose place the next one may take; None if nobody has asked,
        for the drafts of a turn are all of different keys, and mostly all that it writes."""
        self._size = 0
        """Bytes of what was gathered; counted with `_newest`, and of no meaning while that is None."""
        self._closed: list[Entry] = []
        """Own batches that leave with the next flush."""
        self._transaction = 0
        self._transaction_size = 0
        self._storing: deque[Entry] = deque()
        """Own batches that leave when they are on the disk."""
        self._storing_size = 0
        self._forgotten: deque[tuple[int, int]] = deque()
        """Replica and last sequence of those that were before them, and are not in memory any more."""
        self.handed = self.released = 0
        """How many own batches were handed over, to leave or to be stored first, and how many of them have left."""
        self._before = 0
        """How many of the closed batches are older than the open transaction, and may leave during it."""
        self.own = Context()
        """What this node wrote as who it was before, by replica."""
        self.flushed = self.published = 0
        """The last own sequence that was handed over, and the last that has left."""
        self._past: dict[int, int] = {}
        """The same of who this node was before, as long as not all has left."""
        self._turn = 0
        self.refused = 0
        """Batches for which there was no room for ever: too many replicas, or named writes that nobody sent."""
        self.coalesced = 0
        """How many own writes became blanks."""

    # -- own writes -----------------------------------------------------------------------------------------------

    def stamp(self, wall: int) -> Timestamp:
        """The stamp of a write made now; `wall` is wall-clock milliseconds."""
        self._stamp = tick(self._stamp, wall)
        return self._stamp

    def remember(self, stamp: Timestamp, wall: int) -> None:
        """What was read from a disk has stamps up to this one. One from the far future is not gone by: some clock was
        wrong once, and all that is written from here on would be refused by everybody."""
        self._stamp = max(self._stamp, min(stamp, at(wall + self._max_skew)))

    def has_room_for(self, write: Write, note: Note | None = None) -> bool:
        """Whether the open transaction, if there is one, may have this write as well."""
        return (
            not self._transaction or self._transaction_size + self._cost(write, note) <= self._settings.max_transaction
        )

    def _cost(self, write: Write, note: Note | None) -> int:
        """Bytes that a write adds to a transaction, as its peers hold it back: another note begins another batch."""
        if note == self._note:
            return _size_of(write)
        return _size_of(write) + _HELD_OVERHEAD + (0 if note is None else size_of_note(note))

    def update(self, write: Write, note: Note | None = None) -> Change:
        """Delivers an own write here, and gathers it for the others, in a batch with this note.

        Raises `ValueError`, before anything happened, if it would make the open transaction larger than
        `max_transaction`.
        """
        if not self.has_room_for(write, note):
            raise ValueError(
                f"this batch would become larger than {self._settings.max_transaction} bytes, and peers must hold all "
                "of it back until its end has come: make several smaller ones"
            )
        if self._transaction:
            self._transaction_size += self._cost(write, note)
        change = self.store.merge(write, note)
        assert change is not None, "an own write is always new"
        if note != self._note:
            self._close(write.dot[1] - 1, more=bool(self._transaction))
            self._note = note
        self._gather(write)
        return change

    @property
    def room(self) -> int:
        """Bytes that the open transaction may still have, whatever its next note."""
        return self._settings.max_transaction - self._transaction_size - _MOST_OF_NOTE

    def put(self, drafts: Iterable[tuple[Key, Link]], note: Note | None = None) -> tuple[Change, ...]:
        """Delivers own writes of a turn here, given their stamps, values and ends, and gathers them for the others, in
        a batch with this note: as `update` does, at a third of its cost. A transaction must have `room` for them.
        """
        writes, changes = self.store.put_all(drafts, self.replica, note)
        before = writes[0].dot[1] - 1
        if self._transaction:
            self._transaction_size += self._cost(writes[0], note) + sum(map(_size_of, writes[1:]))
        if note != self._note:
            self._close(before, more=bool(self._transaction))
            self._note = note
        if len(self._gathered) + len(writes) > _MOST_AT_ONCE:
            self._close(before, more=bool(self._transaction))
        if self._gathered:
            for write in writes:
                self._gather(write)
        else:
            self._newest = None
            self._gathered = list(writes)  # in one step: whoever is cut short before has left blanks, see `_close`
        return tuple(changes)

    def _gather(self, write: Write) -> None:
        """Gathers a write after others, one of which it may replace."""
        if self._newest is None:
            self._newest = {each.key: place for place, each in enumerate(self._gathered) if each is not None}
            self._size = sum(_size_of(each) for each in self._gathered if each is not None)
        if self._size >= self._settings.batch_bytes or len(self._gathered) >= _MOST_GATHERED:
            self._close(write.dot[1] - 1, more=bool(self._transaction))
            self._newest, self._size = {}, 0
        earlier = self._newest.get(write.key)
        superseded = None if earlier is None else self._gathered[earlier]
        if superseded is not None and len(write.names) + len(superseded.names) <= MAX_NAMES:
            assert earlier is not None
            names = [dot for dot in write.names if dot != superseded.dot]
            names += [dot for dot in superseded.names if dot not in names]
            write = write._replace(names=tuple(names))
            self._gathered[earlier] = None
            self._size -= _size_of(superseded)
            self.coalesced += 1
        self._gathered.append(write)
        self._newest[write.key] = len(self._gathered) - 1  # last: whoever is cut short finds no place of another's
        self._size += _size_of(write)

    @property
    def open(self) -> bool:
        """Whether a transaction is."""
        return self._transaction > 0

    def begin(self) -> None:
        """A transaction begins; one inside another is a part of it."""
        if not self._transaction:
            self._close(self.store.context[self.replica], more=False)
            self._note = None
            self._transaction_size = 0
            self._before = len(self._closed)
        self._transaction += 1  # last: what is cut short before has not begun

    def end(self) -> None:
        """The transaction ends; its writes leave together with the next flush."""
        if self._transaction == 1:
            self._close(self.store.context[self.replica], more=False)
        self._transaction -= 1

    def _close(self, last: int, more: bool) -> None:
        """Makes a batch of what was gathered, up to this sequence. `more` says that the transaction goes on in the next
        one.

        What is missing is a blank: a write was merged and not gathered, since a signal handler raised in between.
        Others find it by the audit; a batch that is numbered wrongly they would refuse, and all that follows it.
        """
        first = (self._closed[-1].last if self._closed else self.flushed) + 1
        if first > last:
            return
        writes = tuple(filter(None, self._gathered))
        payload = encode_batch(Batch(self.replica, first, last, writes, more, self._note if writes else None))
        pieces = min(-(-len(payload) // self._settings.batch_bytes), len(writes))
        entries = [Entry(self.replica, first, last, payload, more)]
        if pieces > 1:
            entries = self._cut(writes, first, last, more, pieces)
        # without a call in between, after which a signal handler may raise: what was in a batch would be gathered again
        self._closed, self._newest, self._gathered = [*self._closed, *entries], None, []

    def _cut(self, writes: Sequence[Write], first: int, last: int, more: bool, pieces: int) -> list[Entry]:
        """What was gathered as so many batches: a large one is sent again as a whole if a part of it is missed."""
        entries = []
        for piece in range(pieces):
            part = writes[piece * len(writes) // pieces : (piece + 1) * len(writes) // pieces]
            is_last = piece == pieces - 1
            end, goes_on = last if is_last else part[-1].dot[1], more if is_last else bool(self._transaction)
            payload = encode_batch(Batch(self.replica, first, end, tuple(part), goes_on, self._note))
            entries.append(Entry(self.replica, first, end, payload, goes_on))
            first = end + 1
        return entries

    def flush(self) -> list[bytes]:
        """The batches that leave now; while a transaction is open, those made before it."""
        if not self._transaction:
            self._close(self.store.context[self.replica], more=False)
            closed, self._closed = self._closed, []
        else:
            closed, self._closed, self._before = self._closed[: self._before], self._closed[self._before :], 0
        if not closed:
            return []
        self.flushed = closed[-1].last
        self.handed += len(closed)
        if self._settings.durability == "full":
            self._storing += closed
            self._storing_size += sum(len(entry.payload) for entry in closed)
            self._bound_storing()
        else:
            self.released = self.handed
            for entry in closed:
                self.log.append(entry)
            self.published = self.flushed
        return [entry.payload for entry in closed]

    def _bound_storing(self) -> None:
        """If the disk is slower than the program, the oldest batches are forgotten: peers find what was in them by
        comparing ranges, as if the log did not reach back so far."""
        while self._storing_size > self._settings.log_bytes and len(self._storing) > 1:
            entry = self._storing.popleft()
            self._storing_size -= len(entry.payload)
            self._forgotten.append((entry.replica, entry.last))

    def stored(self, upto: int) -> list[bytes]:
        """So many own batches, of all that were handed over, may leave; gives those that were not forgotten."""
        leaving = []
        while self.released < min(upto, self.handed):
            self.released += 1
            if self._forgotten:
                replica, last = self._forgotten.popleft()
                self.log.drop(replica)
            else:
                entry = self._storing.popleft()
                replica, last = entry.replica, entry.last
                self._storing_size -= len(entry.payload)
                self.log.append(entry)
                leaving.append(entry.payload)
            self._publish(replica, last)
        return leaving

    def _publish(self, replica: int, last: int) -> None:
        if replica == self.replica:
            self.published = last
        elif last < self.store.context[replica]:
            self._past[replica] = last
        else:
            self._past.pop(replica, None)

    @property
    def written(self) -> Context:
        """All that this node has written so far, whoever it was."""
        written = Context(self.own)
        if self.store.context[self.replica]:
            written[self.replica] = self.store.context[self.replica]
        return written

    @property
    def settled(self) -> bool:
        """Whether nothing waits for the end of a turn or of a transaction: the store is what was handed over."""
        return self.flushed == self.store.context[self.replica]

    def become(self, replica: int) -> None:
        """Goes on under a new replica id. What was written under the old one stays as any other replica's; what of it
        still waits for the disk leaves when that has it."""
        assert not self._gathered and not self._closed, "flush before: a replica's writes end where it ends"
        if self.flushed:
            self.own[self.replica] = self.flushed
        if self.published < self.flushed:
            self._past[self.replica] = self.published
        self.replica, self.published, self.flushed = replica, 0, 0

    # -- others' writes -------------------------------------------------------------------------------------------

    def receive(self, payloads: Sequence[tuple[Batch, bytes]], wall: int) -> Delivered:
        """Delivers batches (decoded, and as they came) as far as they are in order."""
        steps: list[tuple[Change, ...]] = []
        delivered: list[tuple[bytes, ...]] = []
        skewed: list[tuple[int, ClockSkew]] = []
        gap = False
        for batch, payload in payloads:
            if batch.replica == self.replica:
                continue  # my own, come back: whatever it says, I am the one who knows
            if (self.store.named or len(self.store.context) >= MAX_REPLICAS) and not self._has_room(batch):
                self.refused += 1
                continue
            skew = self._observe(batch, wall)
            if skew is not None:
                skewed.append((batch.replica, skew))
                continue
            before, refused = self.store.context[batch.replica], self.inbox.refused
            ready = self.inbox.add(batch, payload, before)
            if ready:
                steps.append(self._deliver(ready))
                delivered.append(tuple(map(_PAYLOAD, ready)))
            elif batch.last > before:
                gap = gap or self.inbox.refused > refused or self.inbox.gap(batch.replica, before) is not None
        return Delivered(steps, delivered, gap, skewed)

    def forget_held(self, living: Container[int]) -> None:
        """Drops what is held back of replicas that are no more: what lies before it died with them."""
        for replica in self.inbox.waiting():
            if replica not in living:
                self.inbox.forget(replica)

    def _has_room(self, batch: Batch) -> bool:
        """Whether a context, and what is named early, would still fit a message with this batch: states are sent whole,
        and who could not tell what it has would be given nothing any more."""
        if batch.replica not in self.store.context and len(self.store.context) >= MAX_REPLICAS:
            return False
        if len(self.store.named) < MAX_REPLICAS // 2:
            return True
        return len(self.store.named) + sum(len(write.names) for write in batch.writes) <= MAX_REPLICAS

    def _deliver(self, batches: list[tuple[Batch, bytes]]) -> tuple[Change, ...]:
        changes: list[Change] = []
        for batch, payload in batches:
            changes += self.store.merge_batch(batch)
            self.log.append(Entry(batch.replica, batch.first, batch.last, payload, batch.open))
        return tuple(changes)

    def _observe(self, batch: Batch, wall: int) -> ClockSkew | None:
        newest = max(map(_STAMP, batch.writes), default=0)
        try:
            self._stamp = observe(self._stamp, newest, wall, self._max_skew)
        except ClockSkew as skew:
            return skew
        return None

    def merge_state(self, state: State, newest: Timestamp, wall: int) -> Delivered:
        """Merges a peer's full state in one step, then what was held back for it.

        Raises `ClockSkew`; and `Malformed` if it tells of writes of this very replica that were never made, which
        would be numbered over and never leave again.
        """
        if state.context[self.replica] > self.published:
            raise Malformed("a state with writes of this replica that it has not made")
        self._stamp = observe(self._stamp, newest, wall, self._max_skew)
        before = Context(self.store.context)
        delivered = Delivered([tuple(self.store.merge_state(state))], [], False, [])
        for replica in self.store.context.beyond(before):
            self.log.drop(replica)
        for replica in self.inbox.waiting():
            ready = self.inbox.release(replica, self.store.context[replica])
            if ready:
                delivered.steps.append(self._deliver(ready))
                delivered.payloads.append(tuple(payload for _, payload in ready))
        return delivered

    # -- what peers miss ------------------------------------------------------------------------------------------

    @property
    def exposable(self) -> bool:
        """Whether the store is what has left: not while a transaction is open."""
        return self.published == self.store.context[self.replica] and not self._past

    def context(self) -> Context:
        """What was delivered here, own writes only as far as they have left."""
        context = Context(self.store.context)
        for replica, published in self._partly():
            if published:
                context[replica] = published
            else:
                context.pop(replica, None)
        return context

    def _partly(self) -> list[tuple[int, int]]:
        """Who this node is and was, and what of that has left; of all others everything here has."""
        return [(self.replica, self.published), *self._past.items()]

    def encoded_context(self) -> bytes:
        """`context`, for a pull."""
        return encode_context(self.context())

    def digest(self, ready: bool) -> Digest:
        """The fingerprints of what has left; no state's while a transaction is open."""
        context, state = self.store.context_fingerprint(), self.store.fingerprint
        writes = self.store.delivered()
        if self.exposable:
            return Digest(context, state, ready, writes)
        for replica, published in self._partly():
            delivered = self.store.context[replica]
            context -= fingerprint_of(replica, delivered) if delivered else 0
            context += fingerprint_of(replica, published) if published else 0
            writes -= delivered - published
        return Digest(context % 2**64, None, ready, writes % 2**64)

    def shares_nothing(self, theirs: Context) -> bool:
        """Whether a peer has delivered nothing of what we have: a newcomer, that takes all there is."""
        return self.store.context.keys().isdisjoint(theirs)

    def missing(self, theirs: Context) -> list[Entry] | None:
        """The batches that complete a peer's context; None if the log does not reach back so far.

        One that shares nothing with ours gets None as well: a newcomer is better served with what is live now than
        with how it came about. Another replica's come first each time: of whose writes the peer refuses (a clock is
        wrong) may be more than fit an answer, and they would keep all others back.
        """
        mine = self.context()
        if self.shares_nothing(theirs):
            return None
        batches: list[Entry] = []
        self._turn += 1
        first = self._turn % len(mine)
        replicas = list(mine)
        for replica in replicas[first:] + replicas[:first]:
            sequence = mine[replica]
            if sequence > theirs[replica]:
                run = self.log.since(replica, theirs[replica], sequence)
                if run is None:
                    return None
                batches += run
        return batches

    def touched(self, theirs: Context) -> set[Key] | None:
        """The keys of all writes that this context lacks, own ones too that have not left yet; None if the log does not
        reach back so far, or there are more than is soon looked through."""
        if self.shares_nothing(theirs) or self._forgotten:
            return None
        seen = theirs[self.replica]
        keys: set[Key] = {write.key for write in self._gathered if write is not None and write.dot[1] > seen}
        pending = [*self._storing, *self._closed]
        for replica, sequence in self.context().items():
            if sequence > theirs[replica]:
                run = self.log.since(replica, theirs[replica], sequence)
                if run is None:
                    return None
                pending += run
        if sum(len(entry.payload) + OVERHEAD for entry in pending) > _MOST_TOUCHED:
            return None
        for entry in pending:
            keys.update(
                write.key for write in decode_batch(entry.payload).writes if write.dot[1] > theirs[entry.replica]
            )
        return keys

    def first_run(self, batches: Sequence[Entry]) -> Sequence[Entry]:
        """About `push_bytes` of batches, and never a part of a transaction.

        A context tells nothing of what is held back, so a peer that was sent the first part only would be sent just
        that at every pull.
        """
        size = 0
        for place, entry in enumerate(batches):
            size += len(entry.payload)
            if size >= self._settings.push_bytes and not entry.open:
                return batches[: place + 1]
        return batches

    def pushes(self, batches: Sequence[bytes]) -> list[Push]:
        """Batches as messages of about `push_bytes`."""
        if len(batches) == 1:
            return [Push(tuple(batches))]
        pushes: list[Push] = []
        run: list[bytes] = []
        size = 0
        for batch in batches:
            if run and size + len(batch) > self._settings.push_bytes:
                pushes.append(Push(tuple(run)))
                run, size = [], 0
            run.append(batch)
            size += len(batch)
        return [*pushes, Push(tuple(run))]


def _size_of(write: Write) -> int:
    """At least so many bytes as the write takes in a batch: bounds on transactions are bounds on what is sent."""
    _, (_, name, element), _, value, names, _ = write
    length = len(name) if name.isascii() else len(name.encode())
    return _OVERHEAD + length + len(element) + (0 if value is None else len(value)) + 20 * len(names)
