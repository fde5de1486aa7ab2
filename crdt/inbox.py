"""Which batches came too early?

Delivery is first-in-first-out per replica, and a transaction is delivered whole. The inbox holds what came before its
time: batches beyond a gap, and the parts of a transaction of which later parts are missing. It gives back, for one
replica, the run of batches that may be delivered now in one step.

Invariants: what it gives back continues the context without a gap and ends where a transaction ends; it holds at most
`limit` bytes, and what does not fit is refused (the sender still has it, so it is pulled later, never lost).

Not here: the delivery itself (`store`), and the asking for what is missing (the protocol's part).
"""

from __future__ import annotations

from crdt.store import Batch


class Inbox:
    """Holds early batches, by replica and first sequence.

    >>> inbox = Inbox(limit=1_000)
    >>> early, late = Batch(7, 2, 2, ()), Batch(7, 1, 1, ())
    >>> inbox.add(early, size=10, delivered=0)  # 1 is missing
    []
    >>> inbox.gap(7, delivered=0)
    (1, 1)
    >>> inbox.add(late, size=10, delivered=0) == [late, early], inbox.size
    (True, 0)
    """

    __slots__ = ("_held", "_limit", "refused", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[int, dict[int, tuple[Batch, int]]] = {}
        self.size = 0
        """Bytes held, as told by those who added them."""
        self.refused = 0
        """How many batches found no place."""

    def add(self, batch: Batch, size: int, delivered: int) -> list[Batch]:
        """Takes a batch of `size` bytes; gives back what may be delivered now, in order, in one step.

        `delivered` is the context's sequence for the batch's replica. A batch that is known already gives nothing.
        """
        if batch.last <= delivered:
            return []
        if batch.first <= delivered + 1 and not batch.open and batch.replica not in self._held:
            return [batch]  # the common case: nothing held, nothing missing
        held = self._held.setdefault(batch.replica, {})
        known = held.get(batch.first)
        if known is None or known[0].last < batch.last:
            self._hold(batch, size, continues=batch.first <= self._reach(batch.replica, delivered) + 1)
        return self.release(batch.replica, delivered)

    def _hold(self, batch: Batch, size: int, continues: bool) -> None:
        """Keeps a batch if there is room. One that continues what was delivered may take that of other replicas."""
        held = self._held[batch.replica]
        replaced = held[batch.first][1] if batch.first in held else 0
        if continues and self.size - replaced + size > self._limit:
            for other in [replica for replica in self._held if replica != batch.replica]:
                self._drop(other)
        if continues and batch.open and self.size - replaced + size > self._limit:
            self._drop_beyond(batch)  # what came too early would keep out for ever what it waits for
        if self.size - replaced + size > self._limit and (batch.open or not continues):
            self.refused += 1
            if not held:
                del self._held[batch.replica]
            return
        held[batch.first] = (batch, size)
        self.size += size - replaced

    def _drop(self, replica: int) -> None:
        dropped = self._held.pop(replica)
        self.refused += len(dropped)
        self.size -= sum(size for _, size in dropped.values())

    def _drop_beyond(self, batch: Batch) -> None:
        """Drops of the batch's replica what begins after it, but for what follows it without a gap."""
        held = self._held[batch.replica]
        for first in [first for first in held if first > batch.last + 1]:
            self.size -= held.pop(first)[1]
            self.refused += 1

    def release(self, replica: int, delivered: int) -> list[Batch]:
        """What of this replica may be delivered, now that the context stands at `delivered`."""
        held = self._held.get(replica)
        if held is None:
            return []
        ready: list[Batch] = []
        run: list[Batch] = []
        reach = settled = delivered
        for first in sorted(held):
            batch = held[first][0]
            if first > reach + 1:
                break
            if batch.last <= reach:
                continue
            run.append(batch)
            reach = batch.last
            if not batch.open:
                ready, settled, run = ready + run, reach, []
        for first in [first for first in held if held[first][0].last <= settled]:
            self.size -= held.pop(first)[1]
        if not held:
            del self._held[replica]
        return ready

    def gap(self, replica: int, delivered: int) -> tuple[int, int] | None:
        """The first missing range `(from, to)` before what is held; None if nothing known is missing."""
        reach = self._reach(replica, delivered)
        beyond = [first for first in self._held.get(replica, ()) if first > reach + 1]
        return (reach + 1, min(beyond) - 1) if beyond else None

    def _reach(self, replica: int, delivered: int) -> int:
        """How far what is held continues what was delivered."""
        reach, held = delivered, self._held.get(replica, {})
        for first in sorted(held):
            if first > reach + 1:
                break
            reach = max(reach, held[first][0].last)
        return reach

    def waiting(self) -> list[int]:
        """The replicas of which something is held."""
        return list(self._held)
