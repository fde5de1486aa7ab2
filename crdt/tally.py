"""Which few numbers stand for all that is live?

A fingerprint of the writes that do not end by themselves: equal contexts must have equal ones, which is the audit. And
a sum for each range of dots, by which two stores find out where they differ (see `ranges`).

What is born and what dies is only noted down, and counted when somebody asks, which is once a ping: one by one, with
each write, it took a quarter of the time of a merge. Noted are dots and not the writes, which would keep values that
are gone: a few make a hundred megabytes. And dots by replica, so that no tuple is made for one.

Invariant: counted, the numbers are those of exactly the live writes.
Not here: what is live (`store`).
"""

from __future__ import annotations

from collections import defaultdict

from crdt.causality import MIX, RANGES, SPREAD, TO_RANGE
from crdt.live import FOREVER, Link, Live, chain, unpack_dot

_MOST = 1024
"""What is not counted yet, about: 1 ms of work, for which everybody waits; of 4096 it was 5. With fewer the copy of
the sums would count: 50 us, each time."""
_MASK = 0xFFFF_FFFF_FFFF_FFFF


class Tally:
    """The count of one store.

    >>> tally, link = Tally(), (5, 7, 1, b"value", FOREVER, None)
    >>> tally.add(link)
    >>> tally.counted()[0] != 0
    True
    >>> tally.remove(link)
    >>> tally.counted() == Tally().counted()
    True
    """

    __slots__ = ("_fingerprint", "_sums", "_waiting", "born", "died", "mortal")

    def __init__(self) -> None:
        self._fingerprint = 0
        self._sums = [0] * RANGES
        self.born, self.died, self.mortal = _nothing(), _nothing(), _nothing()
        """By replica, the sequences of what became live and what was, since they were counted last; and of both, of
        what ends by itself: it is in the sums alone, an exclusive or, to which adding and taking away are the same."""
        self._waiting = 0

    def add(self, link: Link) -> None:
        """This is live from here on."""
        (self.born if link[4] == FOREVER else self.mortal)[link[1]].append(link[2])
        self._waiting += 1

    def remove(self, link: Link) -> None:
        """This is live no more."""
        (self.died if link[4] == FOREVER else self.mortal)[link[1]].append(link[2])
        self._waiting += 1

    def add_all(self, live: Live | None) -> None:
        """All that is live under a key. A packed write is not unpacked for it: that took three times as long."""
        if isinstance(live, bytes):
            replica, sequence = unpack_dot(live)
            self.born[replica].append(sequence)
            self._waiting += 1
        else:
            for link in chain(live):
                self.add(link)

    def remove_all(self, live: Live | None) -> None:
        """All that was live under a key, likewise."""
        if isinstance(live, bytes):
            replica, sequence = unpack_dot(live)
            self.died[replica].append(sequence)
            self._waiting += 1
        else:
            for link in chain(live):
                self.remove(link)

    def bound(self, noted: int = 0) -> None:
        """Counts if much waits for that; so much was noted without `add` and `remove`."""
        self._waiting += noted
        if self._waiting >= _MOST:
            self.counted()

    def counted(self) -> tuple[int, list[int]]:
        """The fingerprint, and the sums of the ranges: an exclusive or, which adds and takes away alike.

        `range_of` and `fingerprint_of` stand in line, and share their first step. A million take 1 s, and took 2.5.
        """
        if not (self.born or self.died or self.mortal):
            return self._fingerprint, self._sums
        fingerprint, sums = self._fingerprint, list(self._sums)  # a copy: who is cut short has counted nothing
        born, died, mortal = _nothing(), _nothing(), _nothing()
        for noted, sign in ((self.born, +1), (self.died, -1), (self.mortal, 0)):
            for replica, sequences in noted.items():
                total = 0
                for sequence in sequences:
                    x = (replica + sequence * SPREAD) & _MASK
                    place = x >> TO_RANGE
                    x = ((x ^ x >> 30) * MIX) & _MASK
                    x ^= x >> 29
                    sums[place] ^= x
                    total += x
                fingerprint += sign * total
        # without a call in between, after which a signal handler may raise: all would be counted once more
        counted, nothing = (fingerprint & _MASK, sums, 0), (born, died, mortal)
        (self._fingerprint, self._sums, self._waiting), (self.born, self.died, self.mortal) = counted, nothing
        return self._fingerprint, self._sums


def _nothing() -> defaultdict[int, list[int]]:
    return defaultdict(list)
