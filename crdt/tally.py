"""Which few numbers stand for all that is live?

A fingerprint of the writes that do not end by themselves: equal contexts must have equal ones, which is the audit. And
a sum for each range of dots, by which two stores find out where they differ (see `ranges`).

What is born and what dies is only noted down, and counted when somebody asks, which is once a ping: one by one, with
each write, it took a quarter of the time of a merge. Noted is the dot and when it ends, not the write: that would keep
values that are gone, of which a few make a hundred megabytes.

Invariant: counted, the numbers are those of exactly the live writes.
Not here: what is live (`store`).
"""

from __future__ import annotations

from crdt.causality import MIX, RANGES, SPREAD, TO_RANGE

_MOST = 1024
"""Writes that are not counted yet: 1 ms of work, for which everybody waits; of 4096 it was 5. With fewer the copy of
the sums would count: 50 us, each time."""
_MASK = 0xFFFF_FFFF_FFFF_FFFF


class Tally:
    """The count of one store.

    >>> tally, replica, sequence, expires = Tally(), 7, 1, 0
    >>> tally.born.append((replica, sequence, expires))
    >>> tally.counted()[0] != 0
    True
    >>> tally.died.append((replica, sequence, expires))
    >>> tally.counted() == Tally().counted()
    True
    """

    __slots__ = ("_fingerprint", "_sums", "born", "died")

    def __init__(self) -> None:
        self.born: list[tuple[int, int, int]] = []
        self.died: list[tuple[int, int, int]] = []
        """`(replica, sequence, expires)` of what became live and what was, since they were counted last."""
        self._fingerprint = 0
        self._sums = [0] * RANGES

    def bound(self) -> None:
        """Counts if much waits for that."""
        if len(self.born) >= _MOST or len(self.died) >= _MOST:
            self.counted()

    def counted(self) -> tuple[int, list[int]]:
        """The fingerprint, and the sums of the ranges: an exclusive or, which adds and takes away alike.

        `range_of` and `fingerprint_of` stand in line, and share their first step. A million take 1 s, and took 2.5.
        """
        if not (self.born or self.died):
            return self._fingerprint, self._sums
        fingerprint, sums = self._fingerprint, list(self._sums)  # a copy: who is cut short has counted nothing
        for lives, sign in ((self.born, +1), (self.died, -1)):
            for replica, sequence, expires in lives:
                x = (replica + sequence * SPREAD) & _MASK
                place = x >> TO_RANGE
                x = ((x ^ x >> 30) * MIX) & _MASK
                x ^= x >> 29
                sums[place] ^= x
                if expires == 0:  # it does not end by itself
                    fingerprint += sign * x
        self._fingerprint, self._sums, self.born, self.died = fingerprint & _MASK, sums, [], []
        return self._fingerprint, self._sums
