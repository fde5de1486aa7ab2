"""Which watches does a node tell of what, and what can it say of what they missed?

Invariant: a change is told to whoever watches its object, in the step in which it became visible.
Not here: what a watch makes of it (`watch`).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from itertools import groupby
from typing import TYPE_CHECKING, Any

from crdt import Change, Context, Key, Live
from crdt.write import Object
from gossip import token
from gossip.watch import Cursor, Source, Watch

if TYPE_CHECKING:
    from gossip.node import Node


_MOMENT = 1.0
"""Seconds that a resumed watch waits for what its reader saw elsewhere."""


class Watches:
    """The watches of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._watching: dict[Object, list[tuple[Watch[Any, Any], int]]] = {}
        """By object: who watches it, and at which place in his list it is."""
        self._held: list[Change] = []
        """What changed in batches that are open: it is told when they end, or a thread's would be seen in part."""
        self._open = False
        """Whether batches are open."""
        self._before: Cursor | None = None
        """Up to where everything was told when the first of them began, if anybody watched."""
        self._waiting: set[Watch[Any, Any]] = set()
        """Those that wait for the end of these batches."""

    def clear(self) -> None:
        """The node begins anew: what it had not told, it has not got."""
        self._held, self._open, self._before = [], False, None

    def __iter__(self) -> Iterator[Watch[Any, Any]]:
        return iter({id(watch): watch for watching in self._watching.values() for watch, _ in watching}.values())

    def changed(self, changes: tuple[Change, ...]) -> None:
        """Keys changed, all in one step."""
        if not self._watching:
            return
        if self._open:
            self._held += changes
        else:
            self._tell(changes)

    def batch_began(self) -> None:
        """A batch is open, and none was before."""
        if not self._open:
            self._open, self._before = True, self._now() if self._watching else None

    def batch_ended(self) -> None:
        """No batch is open any more."""
        if not self._open:
            return
        held, self._held, self._open, self._before = self._held, [], False, None
        self._tell(held)
        waiting, self._waiting = self._waiting, set()
        for watch in waiting:
            watch._whole()

    def end(self) -> None:
        """The node leaves: there will be no more than was written by now. The lock is held."""
        self._node._running().writing.settle()
        for watch in {*self, *self._waiting}:
            watch._end()
        self._waiting.clear()

    def _tell(self, changes: Iterable[Change]) -> None:
        for name, run in groupby(changes, _object_of):
            if name in self._watching:
                of_it = list(run)
                for watch, place in self._watching[name]:
                    watch._changed(place, of_it)

    # -- what a watch needs --------------------------------------------------------------------------------------------

    def lock(self) -> AbstractContextManager[object]:
        """The lock under which changes are told."""
        return self._node._running().lock

    def is_whole(self, watch: Watch[Any, Any]) -> bool:
        """Whether no batch is open, of which a part could be seen; if not, the watch is told when that is so."""
        if not self._open:
            return True
        self._waiting.add(watch)
        return False

    def enter(self, watch: Watch[Any, Any], sources: Sequence[Source]) -> None:
        """Tells this watch of changes from now on; what was written before is no change to it."""
        self._node._running().writing.settle()
        for place, source in enumerate(sources):
            self._watching.setdefault(source.name, []).append((watch, place))

    def leave(self, watch: Watch[Any, Any], sources: Sequence[Source]) -> None:
        """Tells it no more."""
        for place, source in enumerate(sources):
            watching = self._watching[source.name]
            watching.remove((watch, place))
            if not watching:
                del self._watching[source.name]

    def size(self, sources: Sequence[Source]) -> int:
        """How many elements these objects have, and so how many at most a watch of them would begin with."""
        return sum(len(self._node._store.elements(source.name)) for source in sources)

    def present(self, name: Object) -> Iterable[tuple[bytes, Live]]:
        """The elements of an object that a reader may see now."""
        return self._node._elements(name)

    def shown(self, key: Key) -> Live | None:
        """What a reader sees of a key."""
        return self.seen(self._node._store.shown(key))

    def seen(self, live: Live | None) -> Live | None:
        """What of the live writes of a key a reader sees now."""
        return next(self._node._visible(live), None)

    async def arrival(self, cursor: Cursor) -> None:
        """Waits, for a moment, until what its reader has seen is here.

        It would come by itself. But what was deleted meanwhile may be named by the delete before it comes, and then it
        is born dead: nothing changes here, and the reader would keep it for ever.
        """
        with suppress(TimeoutError):
            await self._node._in_its_loop(lambda runtime: runtime.waits.delivered(cursor.context, _MOMENT))

    def touched(self, cursor: Cursor) -> Collection[Key] | None:
        """The keys that may show something else than they did there; None if that can not be known.

        Those that were written are in the log, if that reaches back. What ended by itself is in no log: a node knows of
        it since it began. The clock of who made the cursor may be wrong, by as much as clocks may be; and of a death
        two nodes may hear at very different times.
        """
        runtime = self._node._running()
        if not self._node._store.context.dominates(cursor.context):
            return None  # what the reader has seen died with its author, it may be
        age = max(0.0, time.time() - cursor.at / 1000) + self._node.config.max_clock_skew
        ended = runtime.engine.expiry.since(time.monotonic() - age)
        written = runtime.engine.replication.touched(cursor.context)
        return None if ended is None or written is None else written | ended

    def cursor(self) -> Cursor:
        """Up to where everything was told by now: while a batch is open, up to its beginning."""
        return self._now() if self._before is None else self._before

    def _now(self) -> Cursor:
        return Cursor(Context(self._node._store.context), time.time_ns() // 1_000_000)

    def text_of(self, cursor: Cursor) -> str:
        """A cursor as text."""
        return token.make(self._node.config.cluster, cursor.context, cursor.at)


def _object_of(change: Change) -> Object:
    return change[0][:2]
