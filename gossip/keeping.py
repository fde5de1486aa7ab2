"""How does what the engine wants kept get to the disk, and what does the engine hear of it?

Between the engine, which gives steps away as effects, and the storage, which has a thread of its own: tickets become
sequences again, the thread's word comes to the loop, and a state is taken when one is due.

Invariant: without a directory, or after the disk has refused, everything counts as kept at once, and the node goes on
in memory; it says so.
Not here: files and transactions (`storage`), and what must be kept when (`protocol`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from crdt import State, Store, Timestamp
from gossip.config import Config
from gossip.errors import StorageFailed
from gossip.protocol.effects import Persist
from gossip.protocol.log import Log
from gossip.pulse import LOST

if TYPE_CHECKING:
    from gossip.records import Kept

log = logging.getLogger("gossip")
T = TypeVar("T")

_LOOK = 0.01
"""Seconds between two looks whether the disk is free to be read."""


class Keeping:
    """The data directory of one running node, if it has one.

    `stored` is called in the loop with how many own batches are kept, as durably as was asked for; `stamp` gives
    one that is greater than those of all that was delivered; `refused` is told why, when the disk has, and `wanted`
    when a state that had to wait can be taken.
    """

    def __init__(
        self,
        config: Config,
        stored: Callable[[int], None],
        stamp: Callable[[], Timestamp],
        refused: Callable[[str], None],
        wanted: Callable[[], None],
    ) -> None:
        self.failed = ""
        """What the disk refused with, for people."""
        self._config = config
        self._stored_own = stored
        self._stamp = stamp
        self._tell_refused = refused
        self._tell_wanted = wanted
        self._storage: Any = None
        self._opening: asyncio.Future[int] | None = None
        self._opened = self._given_up = False
        self._own: deque[tuple[int, int]] = deque()
        """`(ticket, number of own batches)` of steps with own writes that are not kept yet."""
        self._appended = self._safe = 0
        """The last ticket, and the last one that is safe."""
        self._waiting: deque[tuple[int, asyncio.Future[bool]]] = deque()
        self._readers: set[asyncio.Future[Kept | None]] = set()
        self._stale = False
        """Whether the steps that were kept do not lead to what the store holds."""
        self._lost = False
        """Whether a step of own batches may be among those that are missing."""

    async def open(self, store: Store, recent: Log) -> int:
        """Fills the store with what was kept, and the log with what came last; gives the greatest stamp in it. Raises
        `StartError`."""
        if not self._config.data_dir:
            return 0
        from gossip.storage import Storage  # here, since most nodes have no directory and need no SQLite

        loop = asyncio.get_running_loop()

        def heard(call: Callable[[Any], None]) -> Callable[[Any], None]:
            def tell(said: Any) -> None:
                loop.call_soon_threadsafe(call, said)

            return tell

        self._storage = Storage(
            Path(self._config.data_dir),
            self._config.cluster,
            durability="full" if self._config.durability == "full" else "interval",
            stored=heard(self._stored),
            synced=heard(self._synced),
            failed=heard(self._refused),
        )
        self._opening = asyncio.ensure_future(asyncio.to_thread(self._open, store, recent))
        return await asyncio.shield(self._opening)

    def _open(self, store: Store, recent: Log) -> int:
        """In a thread, and to its end. Who is cancelled meanwhile says to `close` that he does not want it."""
        newest = int(self._storage.open(store, recent).newest)
        self._opened = True
        if self._given_up:
            self._storage.close(0.0)
        return newest

    def keep(self, effect: Persist) -> None:
        """Appends a step; never waits."""
        if self._storage is None or self.failed:
            if effect.own:
                self._stored_own(effect.own)
            return
        if effect.state:
            self._appended = self._storage.append_state(effect.payloads, self._stamp())
        else:
            self._appended = self._storage.append_batches(effect.payloads)
        if effect.own:
            self._own.append((self._appended, effect.own))

    def compact(self, state: Callable[[], State], own: int) -> None:
        """Has a state replace what was kept so far, if that has grown too much, or is not what it should be. `state` is
        what all steps led to, and `own` how many own batches are in it."""
        if self._storage is None or not (self._storage.due or (self._stale and not self._storage.compacting)):
            return
        self._storage.compact(state(), self._stamp())
        if self._lost:  # what was to say so of a step never came here: whoever waits for the state hears of it
            self._own.append((self._appended, own))
        self._stale = self._lost = False  # last: if a signal handler raises before, there is a state too many

    def lost(self) -> bool:
        """A step may have been lost on its way here: it is not on the disk until a state covers it. Says whether none
        is wanted yet."""
        if self._storage is None or self.failed:
            return False
        news, self._stale, self._lost = not self._lost, True, True
        self._appended = self._storage.lost()
        return news

    def rewrite(self) -> None:
        """What was kept does not lead to what the store holds: a state replaces it as soon as one can be taken."""
        self._stale = True

    def _stored(self, ticket: int) -> None:
        own = 0
        for kept, number in self._own:
            if kept > ticket:
                break
            own = number
        if own:
            self._stored_own(own)
        while self._own and self._own[0][0] <= ticket:  # last: if a signal handler raises before, it is told once more
            self._own.popleft()
        self._look()

    def _look(self) -> None:
        """Asks for a state that had to wait until another was written, or all was read: a node alone has no timer."""
        if self._storage.due or (self._stale and not self._storage.compacting):
            self._tell_wanted()

    def _synced(self, ticket: int) -> None:
        self._stored(ticket)  # what is safe is stored; the word of that may have been lost
        while self._waiting and self._waiting[0][0] <= ticket:
            _settle(self._waiting[0][1], True)
            self._waiting.popleft()
        self._safe = max(self._safe, ticket)  # last: if a signal handler raises before, `catch_up` does it again

    def catch_up(self) -> None:
        """Hears what the thread has said and the loop did not pass on: a signal handler may have raised just there."""
        if self.has_disk and self._storage.synced > self._safe:
            self._synced(self._storage.synced)

    @property
    def has_disk(self) -> bool:
        """Whether there is a directory, and it takes what it is given."""
        return self._storage is not None and not self.failed

    async def hard(self) -> bool:
        """Waits until all that was appended so far is safe on the disk; False if there is none, or it has refused."""
        if self._storage is None or self.failed:
            return False
        self.catch_up()
        if self._safe >= self._appended:
            return True
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._appended, future))
        while not (await asyncio.wait({future}, timeout=LOST))[0]:
            self.catch_up()
        return future.result()

    async def read(self) -> Kept:
        """All that is kept by now. Raises `StorageFailed` if there is no directory, or none any more."""
        if self._storage is None:
            raise StorageFailed("this node has no data_dir, so nothing is known of what was: give it one")
        loop = asyncio.get_running_loop()
        reader: asyncio.Future[Kept | None] = loop.create_future()

        def then(kept: Kept) -> None:
            loop.call_soon_threadsafe(_settle, reader, kept)

        self._readers.add(reader)
        try:
            while not reader.done() and not self._storage.read(then):
                await asyncio.sleep(_LOOK)  # until a state that is on its way is written, or another has read
            kept = await reader
        finally:
            self._readers.discard(reader)
        self._look()
        if kept is None:
            raise StorageFailed(self.failed or "the node has left, and its data directory is closed")
        return kept

    def _refused(self, error: OSError) -> None:
        self.failed = str(error)
        log.error("%s", error)
        self._tell_refused(self.failed)
        if self._own:
            self._stored_own(self._own[-1][1])  # it goes on in memory, and its peers may have what it has
            self._own.clear()
        self._give_up()

    def _give_up(self) -> None:
        """Nobody will hear of the disk any more."""
        while self._waiting:
            _settle(self._waiting.popleft()[1], False)
        for reader in self._readers:
            _settle(reader, None)

    async def close(self, seconds: float) -> None:
        """Writes what waits, for so many seconds at most, and lets go of the directory."""
        self._given_up = True
        if self._opening is not None and not self._opening.done():
            await asyncio.wait({self._opening}, timeout=seconds)
        if self._opened:
            self._storage.end(seconds)  # before the first await: who is cancelled there waits no more, but it ends
            if not await asyncio.to_thread(self._storage.close, seconds) and not self.failed:
                log.warning("left before everything was safe in %s: the disk took too long", self._config.data_dir)
        self._give_up()

    def status(self) -> dict[str, Any] | None:
        """For a status: None without a directory."""
        if self._storage is None:
            return None
        return {"directory": self._config.data_dir, "failed": self.failed or None, **self._storage.counters}


def _settle(future: asyncio.Future[T], result: T) -> None:
    if not future.done():  # whoever waited may have been cancelled
        future.set_result(result)
