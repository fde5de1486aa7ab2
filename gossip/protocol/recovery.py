"""What do we miss, what do others miss, and how does it get here and there?

Three parts know one thing each: `repair` whom to ask and whether all is here, `replication` what the log has,
`transfer` which states are under way. Here the answer of one is handed to the next: a digest becomes a pull, a pull the
batches from the log, or the ranges that differ, or the whole state. What has arrived is given to the engine, which has
it merged, shown and kept.

Invariants: nobody is told of a state that may still change (`Replication.settled`); equal contexts with unequal states
are cried out, and repaired by comparing ranges.
Source: anti-entropy of Demers et al. (1987).
Not here: the parts' own rules, and members (`membership`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import inf
from random import Random

from crdt import ClockSkew, Context, Malformed, decode_context, state_parts
from crdt.ranges import Telling
from crdt.timestamp import at, observe
from gossip.protocol.effects import Effect, Send, Warned
from gossip.protocol.members import Members
from gossip.protocol.messages import Busy, Digest, Message, Pull, Push, StateNext, StatePart, Sums
from gossip.protocol.repair import Repair
from gossip.protocol.replication import Replication
from gossip.protocol.settings import Settings
from gossip.protocol.transfer import Arrived, Transfers

_SKEW_PATIENCE = 10.0
"""Seconds after which what had stamps from the future is asked for again at the latest: clocks may be put right."""
_AUDIT_AGAIN = 1.0
_AUDIT_PATIENCE = 600.0
"""Seconds until a peer with which states still differ is compared with again, first and at most; doubled each time."""


class Recovery:
    """What one node asks others for, and answers them."""

    def __init__(
        self, settings: Settings, rng: Random, replication: Replication, members: Members, counters: Counter[str]
    ) -> None:
        self.repair = Repair(settings, rng.getrandbits(32))
        self.transfers = Transfers(settings)
        self._settings = settings
        self._rng = rng
        self.replication = replication
        self._members = members
        self._counters = counters
        self._diverged: dict[int, tuple[float, float]] = {}
        """With whom states differ: when they are to be compared again, and how long to wait after that."""
        self._stored_first: list[tuple[int, Effect]] = []
        """What may leave when so many own batches have: states that have them."""

    @property
    def digest(self) -> Digest:
        """How far this node is."""
        return self.replication.digest(self.repair.sure)

    @property
    def deadline(self) -> float:
        """When `tick` is to be called next."""
        return min(self.repair.deadline, self.transfers.deadline)

    def tick(self, now: float) -> list[Effect]:
        """Time passed: asks again for what did not come, and for what lies before something held back."""
        again = self.transfers.tick(now)
        effects: list[Effect] = [Send((again[0],), again[1])] if again is not None else []
        for peer in self.repair.looks_due(self.digest, now):
            effects += self.pull(peer, now)
        if self.repair.gap_is_due(now, held=bool(self.replication.inbox.waiting())):
            if self._members.peers():
                effects += self.pull(self._rng.choice(self._members.peers()), now)
        elif self.repair.gave_up:
            self.replication.forget_held(self._members)
        return effects

    def gone(self, peer: int) -> None:
        """Forgets all about a peer."""
        self.transfers.gone(peer)
        self.repair.gone(peer)
        self._diverged.pop(peer, None)

    def has_come(self, now: float) -> bool:
        """Whether all that the others share has come just now."""
        return not self.repair.sure and self.repair.is_ready(self.digest, self._members.peers(), now)

    # -- asking -------------------------------------------------------------------------------------------------------

    def compare(self, peer: int, theirs: Digest, now: float) -> list[Effect]:
        """A digest came: pull, if contexts stay different; cry out, if equal contexts have unequal states."""
        if peer not in self._members:
            return []  # who says nothing of itself, or can not be a member, is not kept in mind
        self.repair.heard(peer, theirs)
        self.repair.reached(self._members.table[peer].addresses)
        mine = self.digest
        if self.repair.differs(peer, theirs, mine, now):
            return self.pull(peer, now)
        if mine.context == theirs.context and None not in (mine.state, theirs.state):
            if mine.state != theirs.state:
                return self._audit(peer, now)
            self._diverged.pop(peer, None)
        return []

    def _audit(self, peer: int, now: float) -> list[Effect]:
        """Our states differ, which can not be: asks for what we lack. The peer finds the same, and asks us.

        Again and again, for what is written meanwhile may come between; less and less often, for it costs.
        """
        self._counters["diverged"] += 1
        due, patience = self._diverged.get(peer, (-inf, _AUDIT_AGAIN))
        if now < due or not (effects := self.pull(peer, now, audit=True)):
            return []
        self.replication.store.recount()  # it may be the counting that went wrong
        if peer not in self._diverged:
            why = "equal contexts with unequal states, which are compared and repaired now: please report this as a bug"
            effects.append(Warned("diverged", peer, why))
        self._diverged[peer] = (now + patience, min(2 * patience, _AUDIT_PATIENCE))
        return effects

    def pull(self, peer: int, now: float, audit: bool = False) -> list[Effect]:
        """Asks a peer for what is missing, unless it was asked just now or a state is coming in."""
        number = None if self.transfers.receiving is not None else self.repair.ask(peer, now)
        if number is None:
            return []
        self._counters["pulls_sent"] += 1
        return [Send((peer,), Pull(number, self.replication.encoded_context(), audit))]

    def busy(self, peer: int, transfer: int, now: float) -> list[Effect]:
        """A peer can not give us its state; or, with the number of a transfer, does not take ours."""
        if transfer:
            self.transfers.refused(peer, transfer)
            return []
        other = self.repair.busy(peer, self._members.peers(), self.digest, now)
        return self.pull(other, now) if other is not None else []

    def refused(self, peer: int, skews: Iterable[ClockSkew], now: float) -> None:
        """What a peer has is from the future: it is asked again when some of it may not be."""
        ahead = min(skew.ahead / 1000 for skew in skews) - self._settings.max_clock_skew
        self.repair.refused(peer, now + min(max(ahead, self._settings.pull_timeout), _SKEW_PATIENCE))

    # -- answering ----------------------------------------------------------------------------------------------------

    def answer(self, peer: int, pull: Pull, now: float, wall: int) -> list[Effect]:
        """A peer told what it has: send what it misses from the log, or start on what differs, or on everything."""
        try:
            theirs = decode_context(pull.context)
        except Malformed:
            self._counters["malformed"] += 1
            return []
        if pull.audit:
            return self._state_for(peer, theirs, True, now, wall)
        if theirs.dominates(self.replication.context()):
            return [Send((peer,), Push((), pull.number, parts=1))]
        batches = self.replication.missing(theirs)
        if batches is None:
            return self._state_for(peer, theirs, False, now, wall)
        run = self.replication.first_run(batches)
        pushes = self.replication.pushes([entry.payload for entry in run])
        more = len(run) < len(batches)
        return [Send((peer,), Push(push.batches, pull.number, len(pushes), more)) for push in pushes]

    def _state_for(self, peer: int, theirs: Context, audit: bool, now: float, wall: int) -> list[Effect]:
        if self.transfers.busy or not self.replication.settled:  # or a transaction is open
            self._counters["states_refused"] += 1
            return [Send((peer,), Busy())]
        store = self.replication.store
        message: Message
        if self.replication.shares_nothing(theirs):
            self._counters["states_sent"] += 1
            message = self.transfers.offer(peer, state_parts(store.state(), self._settings.part_bytes), now, wall)
        else:
            self._counters["differences_sent"] += 1
            message = self.transfers.compare(peer, Telling(store.state(), store.sums), audit, now, wall)
        send = Send((peer,), message)
        if self.replication.exposable:
            return [send]
        self._stored_first.append((self.replication.handed, send))
        return []

    def published(self) -> list[Effect]:
        """Own writes have left: what had to wait for them may leave as well."""
        ready = [effect for handed, effect in self._stored_first if handed <= self.replication.released]
        self._stored_first = [each for each in self._stored_first if each[0] > self.replication.released]
        return ready

    def next_part(self, peer: int, ask: StateNext, now: float) -> list[Effect]:
        """A peer asks for the next part of a state."""
        try:
            message = self.transfers.asked(peer, ask, now)
        except Malformed:
            self._counters["malformed"] += 1
            return []
        return [Send((peer,), message)] if message is not None else []

    # -- taking in ----------------------------------------------------------------------------------------------------

    def arrived(self, peer: int, message: Sums | StatePart, now: float, wall: int) -> list[Effect] | Arrived:
        """A message of a state came: what to say to it, or the state, when it is all here.

        Raises `ClockSkew` for the state of a peer whose clock is ahead: it lacks what has not ended yet.
        """
        if self.transfers.receiving is None and not self.repair.asked(peer):
            self._counters["unasked"] += 1
            return []
        if self.transfers.receiving not in (None, peer):
            return [Send((peer,), Busy(message.transfer))]
        if isinstance(message, Sums) and message.number == 0 and not self.replication.settled:
            # no disk has what an open transaction has written, and a difference from that is kept as one from the disk
            return [Send((peer,), Busy(message.transfer))]
        observe(0, at(message.clock), wall, int(self._settings.max_clock_skew * 1000))
        result: Arrived | StateNext | None
        try:
            if isinstance(message, Sums):
                result = self.transfers.compared(peer, message, self.replication.store, now)
            else:
                result = self.transfers.receive(peer, message, now)
        except Malformed:
            self._counters["malformed"] += 1
            return []
        return result if isinstance(result, Arrived) else [Send((peer,), result)] if result is not None else []
