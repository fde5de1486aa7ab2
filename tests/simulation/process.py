"""What is one start of one node, in the simulated world?

An engine, and what surrounds it: a clock that may be wrong, a disk, a host that may stop it, and what waits meanwhile.
What its replication does is told to the watch, which knows all that was ever written.

Not here: what happens to it (`world`, `faults`), and whether that is right (`checks`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import groupby
from math import inf

from crdt import Change, Note, Store, Write, decode_batch
from gossip.protocol.effects import Effect
from gossip.protocol.engine import Engine
from gossip.protocol.log import Log
from gossip.protocol.replication import Replication
from gossip.protocol.settings import Settings
from tests.simulation.checks import Watch
from tests.simulation.disk import Disk

Act = Callable[[float, int], list[Effect]]
"""What happens to a node, given the time and what its clock shows."""


class Observed(Replication):
    """The real thing, which tells the model what leaves."""

    def __init__(self, store: Store, settings: Settings, replica: int, recent: Log) -> None:
        super().__init__(store, settings, replica, recent)
        self.watch: Watch | None = None
        self._unkept: deque[bytes] = deque()
        """What it has forgotten, and others find by comparing ranges."""

    def update(self, write: Write, note: Note | None = None) -> Change:
        change = super().update(write, note)
        assert self.watch is not None
        if note is not None:
            self.watch.history.notes[write.dot] = note
        if not self.watch.program:
            self.watch.wrote_anew(write)
        return change

    def flush(self) -> list[bytes]:
        payloads = super().flush()
        if self._settings.durability != "full":
            assert self.watch is not None
            self.watch.published(self.replica, payloads)
        elif not payloads:
            self.stored(self.released)  # nothing leaves, and nothing else was to
        return payloads

    def _bound_storing(self) -> None:
        before = list(self._storing)
        super()._bound_storing()
        self._unkept += (entry.payload for entry in before[: len(before) - len(self._storing)])

    def stored(self, upto: int) -> list[bytes]:
        forgotten = len(self._forgotten)
        payloads = super().stored(upto)
        gone = [self._unkept.popleft() for _ in range(forgotten - len(self._forgotten))]
        assert self.watch is not None
        for replica, of_replica in groupby([*gone, *payloads], key=lambda payload: decode_batch(payload).replica):
            self.watch.published(replica, list(of_replica))
        if not payloads:
            self.watch.published(self.replica, payloads)
        return payloads


class Process:
    """One start of one node."""

    def __init__(self, number: int, address: str, engine: Engine, watch: Watch, offset: float) -> None:
        self.number = number
        self.address = address
        self.engine = engine
        self.speaker = engine.me.instance
        """In whose name its packets leave."""
        self.watch = watch
        self._offset, self._rate, self._set_at = offset, 0.0, 0.0
        self.disk: Disk | None = None
        self.paused = False
        self.deaf = False
        """Whether its host sleeps: nothing reaches it."""
        self.behind = 0.0
        """For how many seconds its monotonic clock stood still, with its host."""
        self.gray = 0.0
        """Seconds that each packet and each timer takes it; 0 for a node that is well."""
        self.busy = 0.0
        """Until when its loop is."""
        self.ill = False
        """Whether it ever was slow, stopped or asleep, and may be called dead."""
        self.waiting: deque[tuple[str, Act, bytes, bool]] = deque()
        """What happened while it was stopped or busy."""
        self.armed = inf
        self.stamp = 0
        self.seeds: list[str] = []

    def wrong(self, now: float) -> float:
        """By how many seconds its clock is wrong."""
        return self._offset + self._rate * (now - self._set_at)

    def set_clock(self, offset: float, now: float, rate: float = 0.0) -> None:
        """From now on its clock is wrong by this, and by so much more each second."""
        self._offset, self._rate, self._set_at = offset, rate, now

    def free(self, now: float) -> bool:
        """Whether its program can do something now."""
        return not self.paused and self.busy <= now and not self.waiting
