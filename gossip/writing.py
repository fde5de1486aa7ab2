"""How does a program write?

What replaces whatever is there is a *draft* until the turn or the batch ends (see `drafts`): with all that becomes of
it that takes a quarter of the time. What depends on what is there asks the store, under the lock, and is numbered at
once. A write from the loop's own thread leaves at the end of the same turn; one from another thread wakes the loop
first.

All of it is done under the lock (`Door.do`).

Invariants: what is numbered is numbered in the order in which it was written; a write that was made leaves.
Not here: who may write now (`door`), and what leaves (`protocol.engine`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from crdt import FOREVER, Key, Store, Write
from gossip.drafts import MOST, MOST_BYTES, Drafts
from gossip.protocol.replication import MOST_BESIDE

if TYPE_CHECKING:
    from gossip.runtime import Runtime


class Writing:
    """All that a running node's program writes."""

    def __init__(self, runtime: Runtime, store: Store, drafts: Drafts) -> None:
        self._runtime = runtime
        self._store = store
        self.drafts = drafts
        self.flush_due = False
        """Whether the end of the turn will have something to send."""

    def put(self, what: tuple[Key, bytes, int]) -> bool:
        """Makes a local write of a key, value and end that replaces what is there, whatever that is: a draft until the
        turn ends."""
        key, value, expires = what
        runtime, drafts = self._runtime, self.drafts
        door = runtime.door
        # as long as there are drafts, what was asked for the first of them is so: whatever changes it settles them
        if (not drafts or door.open or not self.flush_due or door.closed()) and not self._may_draft(key, value):
            return self.write(partial(self._store.write, key, value, expires=expires))
        replication = runtime.engine.replication
        drafts.written += 1  # before it is there, or it might be taken for the first of its key
        drafts.size += len(value)
        stamp = replication.stamp(time.time_ns() // 1_000_000)
        drafts[key] = (stamp, replication.replica, 0, value, expires, None)
        if len(drafts) >= MOST or drafts.size >= MOST_BYTES:
            self.settle()
        return True

    def put_all(self, writes: Sequence[tuple[Key, bytes]]) -> bool:
        """The same for many that do not end: what each of them would ask is asked once."""
        runtime, drafts = self._runtime, self.drafts
        if runtime.door.open:  # in a batch each must have room
            for key, value in writes:
                self.put((key, value, FOREVER))
            return True
        self._may_draft(*writes[0])
        replication, wall = runtime.engine.replication, _wall()
        stamp, replica = replication.stamp, replication.replica
        for key, value in writes:
            drafts.written += 1  # before, as above
            drafts.size += len(value)
            drafts[key] = (stamp(wall), replica, 0, value, FOREVER, None)
            if len(drafts) >= MOST or drafts.size >= MOST_BYTES:
                self.settle()
        return True

    def _may_draft(self, key: Key, value: bytes) -> bool:
        """Whether this may be a draft; if so, a flush will come. Raises `NotRunning`."""
        self._runtime.check_loop()
        door = self._runtime.door
        if door.open and not self._fits(key, value):
            return False
        if not self.flush_due:
            self.flush_soon()
        self.drafts.note = door.note  # of all of them: those of another note were settled
        return True

    def _fits(self, key: Key, value: bytes) -> bool:
        """Whether this may be a draft in the batch that is open: that of this thread alone, with room for what it costs
        at most. All else is numbered at once, by those who count exactly."""
        door, drafts, live = self._runtime.door, self.drafts, self._store.shown(key)
        if door.others or (isinstance(live, tuple) and live[5] is not None):  # who replaces many names them all
            return False
        if door.note != drafts.note:
            self.settle()
        return drafts.size + len(value) + (len(drafts) + 1) * MOST_BESIDE <= self._runtime.engine.replication.room

    def count(self, part: Callable[[int], tuple[Key, bytes]]) -> bool:
        """The same for a counter, whose new part is `part(replica)`, and depends on what was counted before."""
        return self.put((*part(self._runtime.engine.replication.replica), FOREVER))

    def settle(self) -> None:
        """Has all drafts numbered and in the store."""
        drafts = self.drafts
        if drafts:
            self._runtime.perform(self._runtime.engine.put(drafts.in_order(), self._runtime.now(), drafts.note))
            drafts.clear()  # last: if a signal handler raises before, all are written once more

    def write(self, ask: Callable[[int, int], Write | None]) -> bool:
        """Makes a local write of what `ask(replica, stamp)` gives; False if it gave none."""
        self._runtime.check_loop()
        self.settle()
        engine = self._runtime.engine
        write = ask(engine.replication.replica, engine.stamp(_wall()))
        if write is None:
            return False
        note = self._runtime.door.note
        if self._runtime.door.others and not engine.replication.has_room_for(write, note):
            self._runtime.door.cut()
            write = ask(engine.replication.replica, engine.stamp(_wall()))
            assert write is not None
        self._runtime.perform(engine.update(write, self._runtime.now(), note))
        self.flush_soon()
        return True

    def flush_soon(self) -> None:
        """Has what was written leave at the end of the turn."""
        if not self.flush_due:
            self._runtime.soon(self._runtime.flush)
            self.flush_due = True  # last: if a signal handler raises before, there is a flush too many and not none


def _wall() -> int:
    return time.time_ns() // 1_000_000
