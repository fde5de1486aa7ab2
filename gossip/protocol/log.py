"""Which recent batches can be sent again?

The batches as their authors encoded them, own and others', within a budget of bytes. Oldest in, oldest out. A peer that
misses only what is here gets just that; who misses more needs the full state.

Invariant: of each replica the log holds one run of batches without a gap, up to its newest; so it can tell exactly
whether it can complete what a peer has. Not here: what was delivered (the store's context says).
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple


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

    __slots__ = ("_budget", "_oldest", "_runs", "cut", "size")

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._runs: dict[int, deque[Entry]] = {}
        self._oldest: deque[tuple[int, int]] = deque()
        """`(replica, last)` of every entry in order of arrival; what left its run since is passed over."""
        self.size = 0
        self.cut = 0
        """How many entries had to go for newer ones."""

    def append(self, entry: Entry) -> None:
        """Keeps a batch. One that does not continue its replica's run starts it anew."""
        run = self._runs.setdefault(entry.replica, deque())
        if run and entry.first != run[-1].last + 1:
            self.drop(entry.replica)
            run = self._runs.setdefault(entry.replica, deque())
        run.append(entry)
        self._oldest.append((entry.replica, entry.last))
        self.size += len(entry.payload)
        while self.size > self._budget:
            self._cut_oldest()

    def since(self, replica: int, delivered: int, upto: int) -> list[Entry] | None:
        """The batches that complete `delivered` to `upto`; None if they are not all here."""
        run = self._runs.get(replica)
        if run is None or run[0].first > delivered + 1 or run[-1].last < upto:
            return None
        return [entry for entry in run if entry.last > delivered]

    def drop(self, replica: int) -> None:
        """Forgets a replica's run: after a full state, what comes next does not continue it."""
        for entry in self._runs.pop(replica, ()):
            self.size -= len(entry.payload)

    def _cut_oldest(self) -> None:
        replica, last = self._oldest.popleft()
        run = self._runs.get(replica)
        if run and run[0].last <= last:
            self.size -= len(run.popleft().payload)
            self.cut += 1
            if not run:
                del self._runs[replica]
