"""Which live writes end without another write, and when does somebody have to look?

A write that expires, or that its author owns, is visible or not by the reading (`crdt.visible`), exactly on time. What
is here only tidies up after it: what nobody may see any more is dropped from memory, and its readers are told of it.

Invariants: every mortal key of the store is looked at no later than its time has come; what is dropped is not visible
to any reader here; of an owned write whose author nobody knows, the author is called dead in the end, so that it either
speaks up (and writes what it owns anew) or is no more.
Not here: reading (`crdt.store`), and who lives (`members`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from heapq import heappop, heappush
from math import inf

from crdt import FOREVER, WITH_AUTHOR, Change, Key, Note, Store, Timestamp, Write, chain
from crdt.timestamp import milliseconds
from gossip.protocol.members import Claim

_PATIENCE = 60.0
"""Seconds in which the author of an owned write may become known: claims of members travel apart from writes."""
_REMEMBERED = 4096
"""Keys that ended lately, for watches that go on elsewhere: 400 KB, and minutes of many sessions."""
_LATE = 300.0
"""Seconds by which two nodes may hear of one death apart."""
_SPARE = 64
"""Places that the queue may have beside twice those that it had when it was made anew, before it is again."""


class Expiry:
    """The mortal writes of one store, by the time at which they end."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: list[tuple[Timestamp, Key]] = []
        self._due = inf
        self._orphans_due = inf
        self._most = _SPARE
        """Places in the queue at which it is made anew."""
        self._ended: deque[tuple[float, bool, Key]] = deque()
        """Keys of which something ended, or came into sight, without a write, when, and whether it was owned: of a
        death two nodes may hear at very different times."""
        self._since: float | None = None
        """Since when they are all in there: since the node began, or since the last that had to go."""

    def since(self, time: float) -> set[Key] | None:
        """The keys of which something ended without a write since then; None if that is longer ago than is known."""
        if self._since is None or time < self._since:
            return None
        return {key for at, owned, key in self._ended if owned or at >= time}

    def begin(self, now: float) -> None:
        """The node begins, or is given a state: what ended before that, it does not know."""
        self._since = now

    def remember(self, keys: Iterable[Key], now: float, owned: bool) -> None:
        """Something of these keys ended, or came into sight, without a write."""
        self._ended += ((now, owned, key) for key in keys)
        while len(self._ended) > _REMEMBERED:
            at, owned, _ = self._ended.popleft()
            self._since = max(at + _LATE * owned, self._since or 0.0)

    @property
    def deadline(self) -> float:
        """When `tick` is to be called next, in the engine's seconds."""
        return min(self._due, self._orphans_due)

    def note(self, changes: Iterable[Change], table: Mapping[int, Claim], now: float) -> list[Change]:
        """Keys changed: those that have become mortal will be looked at. Gives what changes by it at once, where the
        owner of a write is no more.

        What the wall clock shows is not known here, so an earlier end than any before has the next tick look at once.
        """
        dropped = []
        for key, _, after in changes:
            if after is None or isinstance(after, bytes):
                continue
            for link in chain(after):
                if link[4] > FOREVER:
                    if not self._queue or link[4] < self._queue[0][0]:
                        self._due = now
                    heappush(self._queue, (link[4], key))
                elif link[4] == WITH_AUTHOR and link[1] not in table:
                    self._orphans_due = min(self._orphans_due, now + _PATIENCE)
                elif link[4] == WITH_AUTHOR and table[link[1]].gone:
                    change = self._store.drop(key, 0, (link[1],))
                    dropped += [change] if change else []
        if dropped:
            self.remember((change[0] for change in dropped), now, owned=True)
        if len(self._queue) > self._most:
            self._tidy()
        return dropped

    def _tidy(self) -> None:
        """Forgets the ends of writes that were replaced since: a session leaves one each time that it is touched."""
        ends = {
            (link[4], (*name, element))
            for name, elements in self._store.mortal.items()
            for element in elements
            for link in chain(self._store.shown((*name, element)))
            if link[4] > FOREVER
        }
        self._queue = sorted(ends)
        self._most = 2 * len(self._queue) + _SPARE

    def tick(self, now: float, clock: Timestamp) -> list[Change]:
        """Drops what has expired by the wall `clock`; gives what changed by it."""
        changes = []
        while self._queue and self._queue[0][0] <= clock:
            change = self._store.drop(heappop(self._queue)[1], clock, ())
            if change is not None:
                changes.append(change)
        self.remember((change[0] for change in changes), now, owned=False)
        ahead = (
            milliseconds(self._queue[0][0]) + 1 - milliseconds(clock) if self._queue else inf
        )  # all of its millisecond
        self._due = now + ahead / 1000
        return changes

    def owned(self, author: int) -> list[Key]:
        """The keys that have a write owned by this instance."""
        return [
            (*name, element)
            for name, elements in self._store.mortal.items()
            for element in elements
            if any(link[1] == author and link[4] == WITH_AUTHOR for link in chain(self._store.shown((*name, element))))
        ]

    def anew(self, old: int, new: int) -> Iterator[tuple[Write, Note | None]]:
        """The writes, each to be merged before the next is asked for, by which one instance owns what another owned."""
        for key in self.owned(old):
            mine = [link for link in chain(self._store.shown(key)) if link[1] == old and link[4] == WITH_AUTHOR]
            stamp, _, sequence, value, _, _ = mine[0]  # as old as it was: what was written since goes on being shown
            write = self._store.write(key, value, new, stamp, WITH_AUTHOR)
            names = tuple((link[1], link[2]) for link in mine)
            yield write._replace(names=names), self._store.notes.get((old, sequence))

    def gone(self, author: int, now: float) -> list[Change]:
        """An instance is no more: drops what it owned; gives what changed by it."""
        dropped = [self._store.drop(key, 0, (author,)) for key in self.owned(author)]
        changes = [change for change in dropped if change is not None]
        self.remember((change[0] for change in changes), now, owned=True)
        return changes

    def orphans(self, table: Mapping[int, Claim], now: float) -> list[int]:
        """The authors of owned writes of whom nobody here has heard for a minute."""
        if self._orphans_due > now:
            return []
        self._orphans_due = inf
        found = {
            link[1]: None
            for name, elements in self._store.mortal.items()
            for element in elements
            for link in chain(self._store.shown((*name, element)))
            if link[4] == WITH_AUTHOR and link[1] not in table
        }
        return list(found)
