"""Which neighbours' processes have ended, and how soon do we know?

Two proofs. Of each neighbour to whom a stream was opened there is a pidfd, which the loop watches: its end is known at
once, even where a forked child holds its streams and its lock. And when a stream ends, the lock is looked at: it tells
of a node that ended while its process goes on, and of all on systems without pidfds.

Invariants: the end of a neighbour is told to the engine once, and never of one who said goodbye before; no descriptor
is closed while the loop still watches it.
Not here: where neighbours are, and what is kept open of them (`neighbours`), and what an end means (the engine's part).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gossip.runtime import Runtime

_LOOKS = 20
_LOOK_AGAIN = 0.01
"""Seconds between two looks whether a lost neighbour's process has ended; much memory takes its time to die."""


class Endings:
    """The watch that one running node keeps over the processes of its neighbours."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._examined: set[int] = set()
        """Lost neighbours that are being looked at."""

    def met(self, peer: int, stream: int) -> None:
        """A stream (a descriptor) was opened to a member of this host: from here on its process is watched."""
        runtime = self._runtime
        if not runtime.running or peer not in runtime.engine.members:
            return
        pidfd = runtime.neighbours.process(peer, stream)
        if pidfd is not None:
            # a turn later, when what came in together with the end, a goodbye perhaps, has been read
            runtime.loop.add_reader(pidfd, runtime.loop.call_soon, self._process_ended, peer, pidfd)
            runtime.watching(peer)

    def _process_ended(self, peer: int, pidfd: int) -> None:
        if self._runtime.neighbours.processes.get(peer) == pidfd:  # else it has said goodbye
            self._runtime.loop.remove_reader(pidfd)
            self._runtime.exited(peer)

    def lost(self, peer: int) -> None:
        """A stream to this member ended, or could not be opened."""
        if self._runtime.neighbours.knows(peer) and peer not in self._examined:
            self._examined.add(peer)
            self._runtime.loop.call_soon(self._examine, peer, _LOOKS)  # a turn later, as above

    def _examine(self, peer: int, looks: int) -> None:
        """Looks whether the lock of a lost neighbour is free.

        Several times, since a process that dies closes its files one after the other, streams and lock among them.
        """
        runtime = self._runtime
        ended = runtime.running and runtime.neighbours.has_ended(peer)
        if runtime.running and not ended and looks > 1 and runtime.neighbours.knows(peer):
            runtime.loop.call_later(_LOOK_AGAIN, self._examine, peer, looks - 1)
            return
        self._examined.discard(peer)
        if ended:
            runtime.exited(peer)

    def forget(self, peer: int) -> None:
        """The member is gone."""
        if (pidfd := self._runtime.neighbours.processes.get(peer)) is not None:
            self._runtime.loop.remove_reader(pidfd)
        self._runtime.neighbours.forget(peer)

    def close(self) -> None:
        """The node has left: watches nobody any more."""
        for pidfd in self._runtime.neighbours.processes.values():
            self._runtime.loop.remove_reader(pidfd)
