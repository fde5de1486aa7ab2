"""Which recent batches can be sent again?

The batches as their authors encoded them, own and others', within a budget of bytes. Oldest in, oldest out. A peer that
misses only what is here gets just that; who misses more gets what differs in the state.

Invariant: of each replica the log holds one run of batches without a gap, up to its newest; so it can tell exactly
whether it can complete what a peer has. Not here: what was delivered (the store's context says).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import Final, NamedTuple, TypeAlias

OVERHEAD: Final = 200
"""Bytes of memory that an entry takes beside its payload: 64 MiB of payloads of 70 bytes alone were 295 MiB."""

_SPARE = 64
"""Places of dropped entries that `_oldest` may have beside one for each that is kept, before it is made anew."""

_Kept: TypeAlias = tuple[int, int, bytes, bool]
"""`(first, last, payload, open)`. A plain tuple, since the collector stops tracking those of numbers and bytes, and no
named one: a million of these cost 205 ms at each full collection."""


class Entry(NamedTuple):
    """An encoded batch, the sequences that it completes, and whether its transaction goes on in the next one."""

    replica: int
    first: int
    last: int
    payload: bytes
    open: bool = False


class Log:
    """Recent batches of all replicas.

    >>> log = Log(budget=1_000)
    >>> for entry in (Entry(7, 1, 2, b"..."), Entry(7, 3, 3, b"...")):
    ...     log.append(entry)
    >>> [entry.last for entry in log.since(7, delivered=1, upto=3)], log.since(8, delivered=0, upto=1) is None
    ([2, 3], True)
    """

    __slots__ = ("_budget", "_entries", "_oldest", "_runs", "cut", "size")

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._runs: dict[int, deque[_Kept]] = {}
        self._entries = 0
        self._oldest: deque[tuple[int, int]] = deque()
        """`(replica, last)` of every entry in order of arrival; what left its run since is passed over."""
        self.size = 0
        """Bytes of memory that the entries take, roughly."""
        self.cut = 0
        """How many entries had to go for newer ones."""

    def append(self, entry: Entry) -> None:
        """Keeps a batch. One that does not continue its replica's run starts it anew."""
        replica, first, last, payload, more = entry
        run = self._runs.get(replica)
        if run is not None and first != run[-1][1] + 1:
            self.drop(replica)
            run = None
        if run is None:
            run = self._runs[replica] = deque()
        run.append((first, last, payload, more))
        self._oldest.append((replica, last))
        self._entries += 1
        self.size += len(payload) + OVERHEAD
        while self.size > self._budget:
            self._cut_oldest()

    def since(self, replica: int, delivered: int, upto: int) -> list[Entry] | None:
        """The batches that complete `delivered` to `upto`; None if they are not all here."""
        run = self._runs.get(replica)
        if run is None or run[0][0] > delivered + 1 or run[-1][1] < upto:
            return None
        missing = []
        for first, last, payload, more in reversed(run):  # from the new end: a peer mostly misses the newest only
            if last <= delivered:
                break
            missing.append(Entry(replica, first, last, payload, more))
        missing.reverse()
        return missing

    def tail(self, replica: int, size: int) -> list[Entry]:
        """The newest batches of a replica, of about so many bytes."""
        found: list[Entry] = []
        for first, last, payload, more in reversed(self._runs.get(replica, ())):
            if size < 0:
                break
            size -= len(payload)
            found.append(Entry(replica, first, last, payload, more))
        found.reverse()
        return found

    def find(self, replica: int, sequence: int) -> bytes | None:
        """The batch in which this write is, if it is still here."""
        run = self._runs.get(replica, ())
        place = bisect_left(run, sequence, key=lambda kept: kept[1])
        return run[place][2] if place < len(run) and run[place][0] <= sequence else None

    def drop(self, replica: int) -> None:
        """Forgets a replica's run: after a full state, what comes next does not continue it."""
        run = self._runs.pop(replica, ())
        self._entries -= len(run)
        self.size -= sum(len(payload) + OVERHEAD for _, _, payload, _ in run)
        if len(self._oldest) > 2 * self._entries + _SPARE:
            self._oldest = deque(place for place in self._oldest if self._holds(*place))

    def _holds(self, replica: int, last: int) -> bool:
        run = self._runs.get(replica)
        return run is not None and run[0][1] <= last

    def _cut_oldest(self) -> None:
        replica, last = self._oldest.popleft()
        if self._holds(replica, last):
            run = self._runs[replica]
            self.size -= len(run.popleft()[2]) + OVERHEAD
            self._entries -= 1
            self.cut += 1
            if not run:
                del self._runs[replica]
