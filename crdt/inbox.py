"""Which batches came too early?

Delivery is first-in-first-out per replica, and a transaction is delivered whole. The inbox holds what came before its
time: batches beyond a gap, and the parts of a transaction of which later parts are missing. It gives back, for one
replica, the run of batches that may be delivered now in one step.

Invariants: what it gives back continues the context without a gap and ends where a transaction ends; it holds at most
`limit` bytes, and what does not fit is refused (the sender still has it, so it is pulled later, never lost).

Not here: the delivery itself (`store`), and the asking for what is missing (the protocol's part).
"""

from __future__ import annotations

from bisect import bisect_right, insort

from crdt.write import Batch


class _Held:
    """What is held of one replica, with the firsts in order, so that nothing that is held need be walked to take more.

    `reach` is how far it continues what was delivered, `settled` where the last transaction up to there ends.
    """

    __slots__ = ("batches", "firsts", "reach", "settled")

    def __init__(self, delivered: int) -> None:
        self.batches: dict[int, tuple[Batch, bytes]] = {}
        self.firsts: list[int] = []
        self.reach = self.settled = delivered

    def put(self, batch: Batch, payload: bytes) -> None:
        if batch.first not in self.batches:
            insort(self.firsts, batch.first)
        self.batches[batch.first] = batch, payload
        if batch.first <= self.reach + 1:
            self._reaches(batch)

    def extend(self, delivered: int) -> None:
        """Counts what was delivered meanwhile, and what that leads on to."""
        place = bisect_right(self.firsts, self.reach + 1)
        self.reach = max(self.reach, delivered)
        self._walk(place)

    def restart(self, delivered: int) -> None:
        """Forgets how far it reaches, and looks again."""
        self.reach = self.settled = delivered
        self._walk(0)

    def _reaches(self, batch: Batch) -> None:
        place = bisect_right(self.firsts, self.reach + 1)
        self._count(batch)
        self._walk(place)

    def _walk(self, place: int) -> None:
        while place < len(self.firsts) and self.firsts[place] <= self.reach + 1:
            self._count(self.batches[self.firsts[place]][0])
            place += 1

    def _count(self, batch: Batch) -> None:
        self.reach = max(self.reach, batch.last)
        if not batch.open:
            self.settled = max(self.settled, batch.last)

    def pop(self, upto: int) -> list[bytes]:
        """Takes out what ends at `upto` or before; gives the bytes it came in."""
        place = bisect_right(self.firsts, upto)
        gone = [first for first in self.firsts[:place] if self.batches[first][0].last <= upto]
        self.firsts[:place] = [first for first in self.firsts[:place] if self.batches[first][0].last > upto]
        return [self.batches.pop(first)[1] for first in gone]


class Inbox:
    """Holds early batches with the bytes that they came in, by replica and first sequence.

    `limit` is bytes; each batch counts with `overhead` bytes beside its own, for a tiny one takes much memory too.

    >>> inbox = Inbox(limit=1_000)
    >>> early, late = Batch(7, 2, 2, ()), Batch(7, 1, 1, ())
    >>> inbox.add(early, b"two", delivered=0)  # 1 is missing
    []
    >>> inbox.gap(7, delivered=0)
    (1, 1)
    >>> inbox.add(late, b"one", delivered=0) == [(late, b"one"), (early, b"two")], inbox.size
    (True, 0)
    """

    __slots__ = ("_held", "_limit", "_overhead", "refused", "size")

    def __init__(self, limit: int, overhead: int = 0) -> None:
        self._limit = limit
        self._overhead = overhead
        self._held: dict[int, _Held] = {}
        self.size = 0
        """Bytes held: of each batch as it came, and the overhead."""
        self.refused = 0
        """How many batches found no place."""

    def add(self, batch: Batch, payload: bytes, delivered: int) -> list[tuple[Batch, bytes]]:
        """Takes a batch and the bytes it came in; gives back what may be delivered now, in order, in one step.

        `delivered` is the context's sequence for the batch's replica. A batch that is known already gives nothing.
        """
        if batch.last <= delivered:
            return []
        held = self._held.get(batch.replica)
        if held is None:
            if batch.first <= delivered + 1 and not batch.open:
                return [(batch, payload)]  # the common case: nothing held, nothing missing
            held = self._held[batch.replica] = _Held(delivered)
        held.extend(delivered)
        known = held.batches.get(batch.first)
        if known is None or known[0].last < batch.last:
            self._hold(held, batch, payload, delivered)
        return self.release(batch.replica, delivered)

    def _size(self, payload: bytes) -> int:
        return len(payload) + self._overhead

    def _hold(self, held: _Held, batch: Batch, payload: bytes, delivered: int) -> None:
        """Keeps a batch if there is room. One that continues what was delivered may take that of other replicas."""
        continues = batch.first <= held.reach + 1
        more = self._size(payload) - (self._size(held.batches[batch.first][1]) if batch.first in held.batches else 0)
        if continues and self.size + more > self._limit:
            for other in [replica for replica in self._held if replica != batch.replica]:
                self.forget(other)
        if continues and batch.open and self.size + more > self._limit:
            # What came too early would keep out for ever what it waits for.
            self._drop_beyond(held, batch.last + 1, delivered)
        if self.size + more > self._limit and (batch.open or not continues):
            self.refused += 1
            if not held.batches:
                del self._held[batch.replica]
            return
        held.put(batch, payload)
        self.size += more

    def forget(self, replica: int) -> None:
        """Drops all that is held of a replica."""
        dropped = self._held.pop(replica).batches.values()
        self.refused += len(dropped)
        self.size -= sum(self._size(payload) for _, payload in dropped)

    def _drop_beyond(self, held: _Held, last: int, delivered: int) -> None:
        """Drops what begins after `last`."""
        for first in held.firsts[bisect_right(held.firsts, last) :]:
            self.size -= self._size(held.batches.pop(first)[1])
            self.refused += 1
        del held.firsts[bisect_right(held.firsts, last) :]
        held.restart(delivered)

    def release(self, replica: int, delivered: int) -> list[tuple[Batch, bytes]]:
        """What of this replica may be delivered, now that the context stands at `delivered`."""
        held = self._held.get(replica)
        if held is None:
            return []
        held.extend(delivered)
        if held.settled <= delivered and held.firsts and held.firsts[0] > delivered:
            return []  # what is held is too early, or of a transaction that has no end yet
        ready: list[tuple[Batch, bytes]] = []
        run: list[tuple[Batch, bytes]] = []
        reach = settled = delivered
        for first in held.firsts[: bisect_right(held.firsts, held.reach + 1)]:
            batch = held.batches[first][0]
            if batch.last > reach:
                run.append(held.batches[first])
                reach = batch.last
                if not batch.open:
                    ready += run
                    settled, run = reach, []
        held.settled = settled
        self.size -= sum(map(self._size, held.pop(settled)))
        if not held.firsts:
            del self._held[replica]
        return ready

    def gap(self, replica: int, delivered: int) -> tuple[int, int] | None:
        """The first missing range `(from, to)` before what is held; None if nothing known is missing."""
        held = self._held.get(replica)
        if held is None:
            return None
        held.extend(delivered)
        place = bisect_right(held.firsts, held.reach + 1)
        return (held.reach + 1, held.firsts[place] - 1) if place < len(held.firsts) else None

    def waiting(self) -> list[int]:
        """The replicas of which something is held."""
        return list(self._held)
