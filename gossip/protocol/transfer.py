"""Which states are under way, out of here and in?

Whole ones for who has nothing, and for all others what differs: then the first two messages compare ranges. The
receiver asks for each message, so a transfer goes as fast as it can take and no queue grows. One that got lost is asked
for again; they are idempotent. Nothing of a state counts before its last part is there. While the receiver takes one
part in, the next is made: a newcomer to a million entries waits a second less.

Invariant: at most one state comes in at a time, and at most `max_transfers` go out; all of them end by themselves.
Not here: what a part holds (`crdt.state`), how ranges are compared (`crdt.ranges`), and when to ask for a state at all
(`recovery`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from math import inf
from typing import NamedTuple

from crdt import Malformed, Stage, State, Store, Timestamp
from crdt.ranges import Comparison, Telling
from crdt.state import scoped_head
from gossip.protocol.messages import StateNext, StatePart, Sums
from gossip.protocol.settings import Settings

_TRIES = 5
"""How often a message is asked for again, `pull_timeout` apart: then its sender is gone, or does not want to."""
_AHEAD = 2
"""Parts made before they are asked for: the next, and the one after, without which nobody knows whether it is the last.
"""
_COMPARED = 2
"""Messages in which ranges are compared: the sums of the groups, and those of the ranges in some of them."""


class Arrived(NamedTuple):
    """A state that came in: itself, the greatest stamp in it, its parts, for the disk, and whether it was asked for to
    find what can not be."""

    state: State
    newest: Timestamp
    parts: tuple[bytes, ...]
    audit: bool


class _Outgoing:
    __slots__ = ("current", "due", "made", "make_due", "parts", "telling")

    def __init__(self, current: StatePart | Sums, due: float, telling: Telling | None, parts: Iterator[bytes]) -> None:
        self.current = current
        self.due = due
        self.telling = telling
        """Tells the sums; None once the parts are known."""
        self.parts = parts
        self.made: list[bytes] = []
        """The parts after `current`, as far as they are made."""
        self.make_due = inf
        """When to make what `made` lacks; infinite once all are."""

    @property
    def at_end(self) -> bool:
        return self.telling is None and not self.made

    def make(self) -> None:
        """Makes the parts that will be asked for next."""
        self.made += islice(self.parts, _AHEAD - len(self.made))
        self.make_due = inf

    def next(self, wanted: bytes, limit: int, now: float) -> StatePart | Sums:
        """The message after `current`. Raises `Malformed`."""
        transfer, number = self.current.transfer, self.current.number + 1
        if self.telling is not None and number < _COMPARED:
            return Sums(transfer, number, self.telling.ranges(wanted), self.current.clock)
        if self.telling is not None:
            self.parts, self.telling = self.telling.parts(wanted, limit), None
        self.make()
        payload = self.made.pop(0)
        if self.made:
            self.make_due = now
        return StatePart(transfer, number, not self.made, payload, self.current.clock)


class _Incoming:
    __slots__ = ("asks", "audit", "comparison", "due", "peer", "size", "stage", "tries")

    def __init__(self, peer: int, comparison: Comparison | None, audit: bool, asks: StateNext) -> None:
        self.peer = peer
        self.stage = Stage()
        self.comparison = comparison
        self.audit = audit
        self.asks = asks
        """For what comes next; before anything has come, for the first message."""
        self.size = 0
        self.due = inf
        self.tries = 0

    def is_next(self, peer: int, message: StatePart | Sums) -> bool:
        compares = self.comparison is not None and self.asks.number < _COMPARED
        place = (self.peer, self.asks.transfer, self.asks.number)
        return place == (peer, message.transfer, message.number) and compares == isinstance(message, Sums)


class Transfers:
    """The states that a node is sending and receiving."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._outgoing: dict[int, _Outgoing] = {}
        self._incoming: _Incoming | None = None
        self._number = 0

    @property
    def deadline(self) -> float:
        """When `tick` is to be called next."""
        due = [min(outgoing.due, outgoing.make_due) for outgoing in self._outgoing.values()] if self._outgoing else ()
        return min(self._incoming.due if self._incoming else inf, inf, *due)

    @property
    def receiving(self) -> int | None:
        """The peer whose state is coming in."""
        return None if self._incoming is None else self._incoming.peer

    # -- sending --------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether as many states go out as may; one that was sent to its end counts no more."""
        going = sum(not outgoing.at_end for outgoing in self._outgoing.values())
        return going >= self._settings.max_transfers

    def offer(self, peer: int, parts: Iterator[bytes], now: float, wall: int) -> StatePart:
        """Starts to send a state to a peer, in place of an earlier one to it. Look first whether we are `busy`."""
        self._number += 1
        part = StatePart(self._number, 0, False, next(parts), wall)
        outgoing = self._outgoing[peer] = _Outgoing(part, now + self._settings.transfer_timeout, None, parts)
        outgoing.make()
        outgoing.current = part = part._replace(last=not outgoing.made)
        return part

    def compare(self, peer: int, telling: Telling, audit: bool, now: float, wall: int) -> Sums:
        """Starts to send a peer that of a state in which it differs from what the peer has."""
        self._number += 1
        sums = Sums(self._number, 0, telling.groups(), wall, audit)
        self._outgoing[peer] = _Outgoing(sums, now + self._settings.transfer_timeout, telling, iter(()))
        return sums

    def asked(self, peer: int, ask: StateNext, now: float) -> StatePart | Sums | None:
        """What a peer asks for: the next message, or the current one again; None if there is no such transfer.

        Raises `Malformed` for a choice of ranges that is none.
        """
        outgoing = self._outgoing.get(peer)
        if outgoing is None or outgoing.current.transfer != ask.transfer:
            return None
        if ask.number == outgoing.current.number + 1 and not outgoing.at_end:
            outgoing.current = outgoing.next(ask.wanted, self._settings.part_bytes, now)
        if ask.number != outgoing.current.number:
            return None
        outgoing.due = now + self._settings.transfer_timeout
        return outgoing.current

    # -- receiving ------------------------------------------------------------------------------------------------

    def compared(self, peer: int, sums: Sums, store: Store, now: float) -> StateNext | None:
        """Compares sums with those of our store, as of the first of them: gives what to ask for next; None for a
        message out of place. Raises `Malformed`; the transfer is given up then."""
        coming = self._begin(peer, sums, store)
        if coming is None:
            return None
        assert coming.comparison is not None
        try:
            wanted = coming.comparison.ranges(sums.sums) if sums.number else coming.comparison.groups(sums.sums)
        except Malformed:
            self._incoming = None
            raise
        return self._ask_on(coming, wanted, now)

    def receive(self, peer: int, part: StatePart, now: float) -> Arrived | StateNext | None:
        """Takes a part: gives what to ask for next, or the whole once it is complete; None for a part out of place.

        Raises `Malformed`; the transfer is given up then.
        """
        coming = self._begin(peer, part, None)
        if coming is None:
            return None
        coming.size += len(part.payload)
        try:
            if coming.size > self._settings.max_state:
                raise Malformed(f"a state larger than {self._settings.max_state} bytes")
            coming.stage.add(part.payload)
            if part.last:
                self._incoming = None
                return _arrived(coming)
        except Malformed:
            self._incoming = None
            raise
        return self._ask_on(coming, b"", now)

    def _begin(self, peer: int, message: StatePart | Sums, store: Store | None) -> _Incoming | None:
        """The transfer to which a message belongs, begun by it if it is a first one; None if it is out of place."""
        coming = self._incoming
        anew = coming is not None and coming.peer == peer and coming.asks.transfer < message.transfer  # asked again
        if message.number == 0 and (coming is None or anew):
            comparison = None if store is None else Comparison(store)
            audit = isinstance(message, Sums) and message.audit
            coming = self._incoming = _Incoming(peer, comparison, audit, StateNext(message.transfer, 0))
        return coming if coming is not None and coming.is_next(peer, message) else None

    def _ask_on(self, coming: _Incoming, wanted: bytes, now: float) -> StateNext:
        coming.asks = StateNext(coming.asks.transfer, coming.asks.number + 1, wanted)
        coming.due, coming.tries = now + self._settings.pull_timeout, 0
        return coming.asks

    def reborn(self) -> None:
        """We are somebody else now: the next part would be sent to whom we were."""
        self._incoming = None

    def refused(self, peer: int, transfer: int) -> None:
        """The peer does not take what we send it under this number: somebody else sends it a state already."""
        if peer in self._outgoing and self._outgoing[peer].current.transfer == transfer:
            del self._outgoing[peer]

    def gone(self, peer: int) -> None:
        """The peer is gone, and with it what it sent or was sent."""
        self._outgoing.pop(peer, None)
        if self._incoming is not None and self._incoming.peer == peer:
            self._incoming = None

    def tick(self, now: float) -> tuple[int, StateNext] | None:
        """Makes the next parts; gives up what nobody asks for any more; asks again for what does not come."""
        for outgoing in self._outgoing.values():
            if outgoing.make_due <= now:
                outgoing.make()
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
        return coming.peer, coming.asks


def _arrived(coming: _Incoming) -> Arrived:
    """The state whose parts are all here. Raises `Malformed` if they are not, or if it is not what was asked for."""
    stage, comparison = coming.stage, coming.comparison
    state = stage.state(comparison.scope if comparison is not None else None)
    if comparison is not None:
        parts = (scoped_head(state), *stage.parts[1:])  # what was compared only we know, and the disk has to
        return Arrived(state, stage.newest, parts, coming.audit)
    if state.scope is not None:
        raise Malformed("a part of a state, where a whole one was asked for")
    return Arrived(state, stage.newest, tuple(stage.parts), coming.audit)
