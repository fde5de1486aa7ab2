"""Which neighbours' processes have ended, and how soon do we know?

Two proofs. Of each neighbour to whom a stream was opened there is a pidfd, which the loop watches: its end is known at
once, even where a forked child holds its streams and its lock. And when a stream ends, the lock is looked at: it tells
of a node that ended while its process goes on, and of all on systems without pidfds.

Where too many live on a host for each to watch all (`neighbours.to_watch`), streams are opened to those who are to be
watched, and others rest: they are closed when they were of no use for a while.

Invariants: the end of a neighbour is told to the engine once, and never of one who said goodbye before; no descriptor
is closed while the loop still watches it.
Not here: where neighbours are, and what is kept open of them (`neighbours`), and what an end means (the engine's part).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gossip.neighbours import MESH, Neighbours, to_watch
from gossip.protocol.members import Claim, Status

if TYPE_CHECKING:
    from gossip.runtime import Runtime

_LOOKS = 20
_LOOK_AGAIN = 0.01
"""Seconds between two looks whether a lost neighbour's process has ended; much memory takes its time to die."""
_SETTLE = 0.1
"""Seconds until it is decided anew who is to be watched: the workers of a host start together."""
_REST = 5.0
"""Seconds between two looks at streams that are of no use."""


class Endings:
    """The watch that one running node keeps over the processes of its neighbours."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._examined: set[int] = set()
        """Lost neighbours that are being looked at."""
        self._here: set[int] = set()
        """The living neighbours."""
        self._watched: set[int] | None = None
        """Those of them who are watched by this node; None: all."""
        self._review: asyncio.TimerHandle | None = None
        self._soon = False
        """Whether that is because somebody came or went."""

    @property
    def _neighbours(self) -> Neighbours:
        return self._runtime.whereabouts.neighbours

    def met(self, peer: int, stream: int) -> None:
        """A stream (a descriptor) was opened to a member of this host: from here on its process is watched."""
        runtime = self._runtime
        if not runtime.running or peer not in runtime.engine.members:
            return
        if self._watched is not None and peer not in self._watched:
            return
        pidfd = self._neighbours.process(peer, stream)
        if pidfd is not None:
            # a turn later, when what came in together with the end, a goodbye perhaps, has been read
            runtime.loop.add_reader(pidfd, runtime.loop.call_soon, self._process_ended, peer, pidfd)
            runtime.watching(peer)

    def _process_ended(self, peer: int, pidfd: int) -> None:
        if self._neighbours.processes.get(peer) == pidfd:  # else it has said goodbye
            self._runtime.loop.remove_reader(pidfd)
            self._runtime.exited(peer)

    def lost(self, peer: int) -> None:
        """A stream to this member ended, or could not be opened."""
        if self._neighbours.knows(peer) and peer not in self._examined:
            self._examined.add(peer)
            self._runtime.loop.call_soon(self._examine, peer, _LOOKS)  # a turn later, as above

    def _examine(self, peer: int, looks: int) -> None:
        """Looks whether the lock of a lost neighbour is free.

        Several times, since a process that dies closes its files one after the other, streams and lock among them.
        """
        runtime = self._runtime
        ended = runtime.running and self._neighbours.has_ended(peer)
        if runtime.running and not ended and looks > 1 and self._neighbours.knows(peer):
            runtime.loop.call_later(_LOOK_AGAIN, self._examine, peer, looks - 1)
            return
        self._examined.discard(peer)
        if ended:
            runtime.exited(peer)

    def heard(self, claim: Claim) -> None:
        """A living member was heard of."""
        peer = claim.instance
        if peer not in self._here and self._neighbours.meet(peer, claim.addresses):
            self._here.add(peer)
            self._review_soon()

    def gone(self, peer: int) -> None:
        """The member is gone."""
        self._let_go(peer)
        if peer in self._here:
            self._here.discard(peer)
            self._review_soon()

    def _review_soon(self) -> None:
        many = self._watched is not None or len(self._here) >= MESH
        # once: put off by each who comes, it would wait until the last of hundreds has, with all of them kept open
        if many and self._runtime.running and not self._soon:
            if self._review is not None:
                self._review.cancel()
            self._soon = True
            self._review = self._runtime.loop.call_later(_SETTLE, self._choose)

    def _choose(self) -> None:
        """Decides who is watched, and sees to it that they are, and that the streams to others do not stay for ever."""
        runtime, table = self._runtime, self._runtime.engine.members.table
        self._review, self._soon = None, False
        if not runtime.running:
            return
        chosen = to_watch(runtime.engine.me.instance, self._here)
        self._watched = chosen if len(self._here) >= MESH else None
        for peer in chosen:
            self._neighbours.meet(peer, table[peer].addresses)
            stream = runtime.transport.stream_to(peer)
            if stream is not None:
                self.met(peer, stream)
            elif self._watched is not None:
                runtime.greet(peer)
        if self._watched is None:
            return
        with runtime.lock:
            for peer in self._here - chosen:
                if table[peer].status == Status.ALIVE:  # who is doubted is not left before that is over
                    self._let_go(peer)
                    runtime.engine.unwatched(peer)
        runtime.transport.rest(chosen)
        self._review = runtime.loop.call_later(_REST, self._choose)

    def _let_go(self, peer: int) -> None:
        if (pidfd := self._neighbours.processes.get(peer)) is not None:
            self._runtime.loop.remove_reader(pidfd)
        self._neighbours.forget(peer)

    def close(self) -> None:
        """The node has left: watches nobody any more."""
        if self._review is not None:
            self._review.cancel()
        for pidfd in self._neighbours.processes.values():
            self._runtime.loop.remove_reader(pidfd)
