"""Which full states are under way, out of here and in?

The receiver asks for each part, so a transfer goes as fast as it can take and no queue grows. A part that got lost is
asked for again; parts are idempotent. Nothing of a state counts before its last part is there.

Invariant: at most one state comes in at a time, and at most `max_transfers` go out; all of them end by themselves.
Not here: what a part holds (`crdt.state`), and when to ask for a state at all (`engine`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from crdt import Malformed, Stage
from gossip.protocol.messages import StateNext, StatePart
from gossip.protocol.settings import Settings

_TRIES = 5


@dataclass(slots=True)
class _Outgoing:
    parts: Iterator[bytes]
    coming: bytes | None
    """The part after `current`, so that `last` is known; None at the end."""
    current: StatePart
    due: float


@dataclass(slots=True)
class _Incoming:
    peer: int
    transfer: int
    stage: Stage
    index: int
    size: int
    due: float
    tries: int = 0


class Transfers:
    """The full states that a node is sending and receiving."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._outgoing: dict[int, _Outgoing] = {}
        self._incoming: _Incoming | None = None
        self._number = 0

    @property
    def deadline(self) -> float:
        """When `tick` is to be called next."""
        due = [outgoing.due for outgoing in self._outgoing.values()]
        return min(self._incoming.due if self._incoming else inf, *due, inf)

    @property
    def receiving(self) -> int | None:
        """The peer whose state is coming in."""
        return None if self._incoming is None else self._incoming.peer

    # -- sending --------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether as many states go out as may; one that was sent to its end counts no more."""
        going = sum(outgoing.coming is not None for outgoing in self._outgoing.values())
        return going >= self._settings.max_transfers

    def offer(self, peer: int, parts: Iterator[bytes], now: float) -> StatePart:
        """Starts to send a state to a peer, in place of an earlier one to it. Look first whether we are `busy`."""
        self._outgoing.pop(peer, None)
        self._number += 1
        first, second = next(parts), next(parts, None)
        part = StatePart(self._number, 0, second is None, first)
        self._outgoing[peer] = _Outgoing(parts, second, part, now + self._settings.transfer_timeout)
        return part

    def asked(self, peer: int, ask: StateNext, now: float) -> StatePart | None:
        """The part that a peer asks for: the next, or the current one again; None if there is no such transfer."""
        outgoing = self._outgoing.get(peer)
        if outgoing is None or outgoing.current.transfer != ask.transfer:
            return None
        if ask.number == outgoing.current.number + 1 and outgoing.coming is not None:
            payload, outgoing.coming = outgoing.coming, next(outgoing.parts, None)
            outgoing.current = StatePart(ask.transfer, ask.number, outgoing.coming is None, payload)
        if ask.number != outgoing.current.number:
            return None
        outgoing.due = now + self._settings.transfer_timeout
        return outgoing.current

    # -- receiving ------------------------------------------------------------------------------------------------

    def receive(self, peer: int, part: StatePart, now: float) -> Stage | StateNext | None:
        """Takes a part: gives what to ask for next, or the whole once it is complete; None for a part out of place.

        Raises `Malformed`; the transfer is given up then.
        """
        coming = self._incoming
        anew = coming is not None and coming.peer == peer and coming.transfer < part.transfer  # it was asked again
        if part.number == 0 and (coming is None or anew):
            self._incoming = _Incoming(peer, part.transfer, Stage(), 0, 0, inf)
        coming = self._incoming
        if coming is None or (coming.peer, coming.transfer, coming.index) != (peer, part.transfer, part.number):
            return None
        coming.size += len(part.payload)
        try:
            if coming.size > self._settings.max_state:
                raise Malformed(f"a state larger than {self._settings.max_state} bytes")
            coming.stage.add(part.payload)
        except Malformed:
            self._incoming = None
            raise
        if part.last:
            self._incoming = None
            return coming.stage
        coming.index, coming.tries = coming.index + 1, 0
        coming.due = now + self._settings.pull_timeout
        return StateNext(coming.transfer, coming.index)

    def reborn(self) -> None:
        """We are somebody else now: the next part would be sent to whom we were."""
        self._incoming = None

    def gone(self, peer: int) -> None:
        """The peer is gone, and with it what it sent or was sent."""
        self._outgoing.pop(peer, None)
        if self._incoming is not None and self._incoming.peer == peer:
            self._incoming = None

    def tick(self, now: float) -> tuple[int, StateNext] | None:
        """Gives up what nobody asks for any more; asks again for a part that does not come."""
        for peer in [peer for peer, outgoing in self._outgoing.items() if outgoing.due <= now]:
            del self._outgoing[peer]
        coming = self._incoming
        if coming is None or coming.due > now:
            return None
        coming.tries += 1
        if coming.tries > _TRIES:
            self._incoming = None
            return None
        coming.due = now + self._settings.pull_timeout
        return coming.peer, StateNext(coming.transfer, coming.index)
