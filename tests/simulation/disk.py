"""What does a disk keep of a node that crashes?

Steps go in, and become safe some time later, in their order. A crash keeps what was safe, and of the rest a beginning
that chance decides: the kernel may have written some of it. What is kept is played back through the store's own doors.

Invariant: what was safe is never lost, unless the disk itself is.
Not here: files, torn pages and bits (tests/storage has a real disk's every mistake).
"""

from __future__ import annotations

from random import Random

from crdt import Context, Stage, Store, decode_batch
from gossip.protocol.effects import Persist
from gossip.protocol.log import Entry, Log
from tests.simulation.model import History, demand

SLOW = 3.0
"""Seconds that the slowest of all fsyncs takes."""


class Disk:
    """The disk of one address."""

    def __init__(self) -> None:
        self._steps: list[Persist] = []
        self.safe = 0
        """How many of the steps would survive."""
        self.due = 0.0
        """When the last of them will be safe: they are so in their order."""
        self._promised = Context()
        """What somebody was told is on this disk."""

    def append(self, step: Persist) -> int:
        """Takes a step; gives how many there are."""
        self._steps.append(step)
        return len(self._steps)

    @property
    def size(self) -> int:
        return len(self._steps)

    def unheard_of(self, replica: int, history: History) -> list[bytes]:
        """The batches of a replica that are here and never left it."""
        left = len(history.writes.get(replica, ()))
        payloads = [payload for step in self._steps if not step.state for payload in step.payloads]
        batches = [(payload, decode_batch(payload)) for payload in payloads]
        return [payload for payload, batch in batches if batch.replica == replica and batch.first > left]

    def promise(self, context: Context) -> None:
        """Somebody is told that all of this is here for good."""
        self._promised.join(context)

    def has(self, payload: bytes) -> bool:
        """Whether this batch would survive."""
        return any(payload in step.payloads for step in self._steps[: self.safe])

    def crash(self, rng: Random) -> None:
        """Its node is gone; a beginning of what was not safe is kept."""
        del self._steps[rng.randint(self.safe, len(self._steps)) :]
        self.safe = len(self._steps)

    def restore(self, recent: Log) -> Store:
        """What is there; the log gets what came last."""
        store = Store()
        for step in self._steps:
            if step.state:
                stage = Stage()
                for part in step.payloads:
                    stage.add(part)
                before = Context(store.context)
                store.merge_state(stage.state())
                for replica in store.context.beyond(before):
                    recent.drop(replica)
            else:
                for payload in step.payloads:
                    batch = decode_batch(payload)
                    store.merge_batch(batch)
                    recent.append(Entry(batch.replica, batch.first, batch.last, payload, batch.open))
        demand(store.context.dominates(self._promised), "a disk lost what it had confirmed", store.context)
        return store
