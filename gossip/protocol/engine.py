"""What does a node do, given what happened?

The engine routes. It is told of local writes, of packets and of time, asks its parts, hands the answer of one to the
next, and gives back effects for somebody else to do. It has no clock, no chance and no connection of its own: `now` is
monotonic seconds, `wall` is wall-clock milliseconds, chance is a `Random` given at the start. So the same engine runs
on asyncio in a worker and, a thousand of them, in a simulated world that is reproducible from one seed.

Invariants: its parts never call each other; whatever the packet, a malformed one changes nothing but a counter; own
writes have left (`flush`) before anything is answered, so that no peer hears of a state that may still change.

Source: the manner is h11's and foca's. Not here: any decision that fits into one of the parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import inf
from random import Random

from crdt import (
    Batch,
    Change,
    ClockSkew,
    Malformed,
    Stage,
    Store,
    Timestamp,
    Write,
    decode_batch,
    decode_context,
    state_parts,
)
from gossip.protocol.broadcast import Broadcast, size_of
from gossip.protocol.codec import MAX_CLAIMS, Codec
from gossip.protocol.detector import Ask, Detector, Verdict
from gossip.protocol.effects import Changed, Dial, Effect, MemberChanged, Ready, Reborn, Send, Warned
from gossip.protocol.members import Claim, Members, Status
from gossip.protocol.messages import (
    Ack,
    Busy,
    Digest,
    Gossip,
    Join,
    Message,
    Ping,
    PingReq,
    Pull,
    Push,
    StateNext,
    StatePart,
    Welcome,
)
from gossip.protocol.repair import Repair
from gossip.protocol.replication import Replication
from gossip.protocol.settings import Settings
from gossip.protocol.transfer import Transfers

_LIST_BYTES = 1 << 20
"""Of claims in a `Join` or `Welcome`."""
_FANOUT = 4
"""How many are told of news at once in a cluster of more than `full_fanout`."""
_UNREFUTABLE = 1 << 63
"""An incarnation from which there is no room to go on raising it."""


class Engine:
    """One node of a cluster, as a value machine: things happen, effects come out.

    >>> ann = Engine("shop", Claim(1, "ann", ("unix:/ann",), 0), Settings(), Random(1), Store())
    >>> ann.join(["unix:/bob"], now=0.0)[0].address
    'unix:/bob'
    """

    def __init__(self, cluster: str, me: Claim, settings: Settings, rng: Random, store: Store) -> None:
        self.codec = Codec(cluster)
        self.members = Members(me)
        self.detector = Detector(settings)
        self.broadcast = Broadcast()
        self.replication = Replication(store, settings, me.instance)
        self.transfers = Transfers(settings)
        self.repair = Repair(settings)
        self.counters: Counter[str] = Counter()
        """What happened how often; for people, never read by the protocol."""
        self._settings = settings
        self._rng = rng
        self._skewed: set[int] = set()
        """Replicas whose writes wait because of a clock: told once, when it begins."""
        self._heal_due = inf
        self._born_at = -inf
        """When this node took a new instance last."""

    @property
    def me(self) -> Claim:
        """What this node says of itself."""
        return self.members.me

    @property
    def digest(self) -> Digest:
        """How far this node is."""
        return self.replication.digest(self.repair.ready)

    @property
    def deadline(self) -> float:
        """When to call `tick` next; infinite if nothing is due."""
        return min(self.detector.deadline, self.transfers.deadline, self.repair.deadline, self._heal_due)

    # -- what a program does --------------------------------------------------------------------------------------

    def stamp(self, wall: int) -> Timestamp:
        """The stamp for a write made now."""
        return self.replication.stamp(wall)

    def update(self, write: Write, now: float) -> list[Effect]:
        """A local write: delivered here at once, sent with the next `flush`."""
        change = self.replication.update(write)
        self.repair.delivered(now)
        return [Changed((change,))]

    def begin(self) -> None:
        """Writes from here to `end` become visible in one step at every peer."""
        self.replication.begin()

    def end(self) -> None:
        """Ends what `begin` began."""
        self.replication.end()

    def flush(self) -> list[Effect]:
        """Sends what was written since the last time. To be called at the end of each turn of writing."""
        batches = self.replication.flush()
        if not batches:
            return []
        self.counters["batches_sent"] += len(batches)
        peers = tuple(self.members.peers())
        return [Send(peers, push) for push in self.replication.pushes(batches)] if peers else []

    def join(self, addresses: Iterable[str], now: float) -> list[Effect]:
        """Introduces this node at addresses where others may be; those of living members are passed over."""
        known = {address for claim in self.members.table.values() if not claim.gone for address in claim.addresses}
        unknown = [address for address in addresses if address not in known]
        self.repair.dialled(unknown, now)
        message = Join(self._all_claims(now), self.digest)
        return [*self.flush(), *(Dial(address, message) for address in unknown), *self._readiness(now)]

    def leave(self, now: float) -> list[Effect]:
        """Says goodbye: what was written leaves first, then the claim that this instance has left."""
        effects = self.flush()
        left = self.me._replace(status=Status.LEFT)
        self.members.become(left)
        peers = tuple(self.members.peers())
        return [*effects, Send(peers, Gossip((left,)))] if peers else effects

    # -- what the world does --------------------------------------------------------------------------------------

    def receive(self, payload: bytes, now: float, wall: int) -> list[Effect]:
        """A packet came."""
        try:
            sender, message = self.codec.decode(payload)
            content = self._content(message)
        except Malformed:
            self.counters["malformed"] += 1
            return []
        if sender == self.me.instance or self.me.gone:
            return []
        known = self.members.table.get(sender)
        if known is not None and known.gone:
            self.counters["from_the_dead"] += 1
            effects = self._from_the_dead(known, message, now)
            if isinstance(message, Push):  # its writes are as good as any: the news of its end may have overtaken them
                effects += self._receive(sender, content, message, now, wall)
            return effects
        effects = self.flush()
        effects += self._route(sender, message, content, now, wall)
        return [*effects, *self._readiness(now), *self._news()]

    def lost(self, instance: int, now: float) -> list[Effect]:
        """A stream to this member ended, or could not be opened. A hint: look at once, through others too."""
        claim = self.members.table.get(instance)
        if claim is None or claim.gone:
            return []
        return self._ask(self.detector.probe(instance, now, hint="its stream ended without a leave"), now)

    def exited(self, instance: int, now: float) -> list[Effect]:
        """The process of this member is gone: proof, so it is dead at once, and all are told."""
        claim = self.members.table.get(instance)
        if claim is None or claim.gone:
            return []
        return [*self._hear((claim._replace(status=Status.DEAD),), now, "its process has ended"), *self._news()]

    def tick(self, now: float, wall: int) -> list[Effect]:
        """Time passed: does all that is due."""
        late = now - self.deadline
        if late > self._settings.probe_interval / 2:
            self.counters["late"] += 1
            self.detector.late(late, now)
        effects = self.flush()
        verdicts, asks = self.detector.tick(now)
        for verdict in verdicts:
            effects += self._judge(verdict, now)
        for ask in asks:
            effects += self._ask(ask, now)
        if self.detector.next_round <= now:
            effects += self._next_round(now)
        if self._heal_due <= now:
            effects += self._heal(now)
        again = self.transfers.tick(now)
        if again is not None:
            effects.append(Send((again[0],), again[1]))
        if self.repair.gap_is_due(now, held=bool(self.replication.inbox.waiting())) and self.members.peers():
            effects += self._pull(self._rng.choice(self.members.peers()), now)
        return [*effects, *self._readiness(now), *self._news()]

    # -- routing --------------------------------------------------------------------------------------------------

    def _content(self, message: Message) -> list[Batch]:
        """The batches of a message, decoded before anything is changed by any of them. Raises `Malformed`."""
        return [decode_batch(payload) for payload in message.batches] if isinstance(message, Push) else []

    def _route(self, sender: int, message: Message, batches: list[Batch], now: float, wall: int) -> list[Effect]:
        if isinstance(message, Join | Welcome | Ping | Ack):
            self.repair.heard(sender, message.digest)
        match message:
            case Join(claims, digest):
                effects = self._hear(claims, now, "it joined")
                welcome = Welcome(self._all_claims(now), self.digest)
                return [*effects, Send((sender,), welcome), *self._compare(sender, digest, now)]
            case Welcome(claims, digest):
                effects = self._hear(claims, now, self._told_by(sender))
                self.repair.reached(claims[0].addresses if claims else ())
                return [*effects, *self._compare(sender, digest, now)]
            case Ping(number, digest, claims):
                effects = self._hear(claims, now, self._told_by(sender))
                ack = Ack(number, self.digest, self._riding(sender))
                return [*effects, Send((sender,), ack), *self._compare(sender, digest, now)]
            case Ack(number, digest, claims):
                effects = self._hear(claims, now, self._told_by(sender))
                return [*effects, *self._acked(number, sender, now), *self._compare(sender, digest, now)]
            case PingReq(number, target):
                return self._relay(sender, number, target, now)
            case Gossip(claims):
                return self._hear(claims, now, self._told_by(sender))
            case Push():
                return self._receive(sender, batches, message, now, wall)
            case Pull(context):
                return self._answer(sender, context, now)
            case Busy():
                return self._busy(sender, now)
            case StatePart():
                return self._part(sender, message, now, wall)
            case StateNext():
                part = self.transfers.asked(sender, message, now)
                return [Send((sender,), part)] if part else []

    # -- members --------------------------------------------------------------------------------------------------

    def _hear(self, claims: Sequence[Claim], now: float, why: str) -> list[Effect]:
        effects: list[Effect] = []
        for claim in claims:
            if claim.instance == self.me.instance:
                effects += self._refute(claim, now)
                continue
            before = self.members.hear(claim, now)
            if before is None:
                continue
            self.broadcast.add(claim)
            effects.append(MemberChanged(claim, None if before is claim else before, why))
            effects += self._follow(claim, before, now)
        return effects

    def _follow(self, claim: Claim, before: Claim, now: float) -> list[Effect]:
        """What a changed claim means for the probes."""
        if claim.gone:
            self.detector.gone(claim.instance)
            self.transfers.gone(claim.instance)
            self.repair.gone(claim.instance)
            self._heal_due = min(self._heal_due, now + self._settings.heal_interval)
            self.members.forget(-inf, self._settings.max_remembered)
            return []
        self.detector.wake(now)
        if claim.status == Status.SUSPECT:
            if before.incarnation < claim.incarnation:
                self.detector.clear(claim.instance)  # it refuted in between, unheard: it has all its time again
            self.detector.suspect(claim.instance, len(self.members.peers()) + 1, now)
            return []
        self.detector.clear(claim.instance)
        if self.members.replaced(claim):
            return self._hear((claim._replace(status=Status.DEAD),), now, "somebody else listens at its address now")
        replaced = [old._replace(status=Status.DEAD) for old in self.members.replaced_by(claim)]
        effects = self._hear(replaced, now, f"{claim.name} listens at its address now")
        if self.repair.wonders(claim.instance):
            effects.append(Send((claim.instance,), Join(self._all_claims(now), self.digest)))
        return effects

    def _from_the_dead(self, known: Claim, message: Message, now: float) -> list[Effect]:
        """One that is gone speaks: it is told so, and nothing it says counts, except that it calls us dead in turn, or
        that it has left: the news of its end may have overtaken its goodbye.

        Two that buried each other would otherwise never listen again. `Gossip` is not answered: it is the answer, and
        two that answer it to each other never stop.
        """
        effects: list[Effect] = []
        if isinstance(message, Join | Gossip):
            for claim in message.claims:
                if claim.instance == self.me.instance and claim.gone:
                    effects += self._refute(claim, now)
                elif claim.instance == known.instance and claim.status == Status.LEFT:
                    effects += self._hear((claim,), now, "it said so")
        if not isinstance(message, Gossip) and known.status == Status.DEAD:  # who has left knows that
            effects.append(Send((known.instance,), Gossip((known,))))
        return effects + self._news()

    def _refute(self, claim: Claim, now: float) -> list[Effect]:
        raised = self.members.refutation(claim)
        if raised is None:
            return []
        if claim.gone or raised.incarnation >= _UNREFUTABLE:
            return self._reborn(now)
        self.counters["refuted"] += 1
        self.members.become(raised)
        self.broadcast.add(raised)
        return []

    def _reborn(self, now: float) -> list[Effect]:
        """Dead is final for an instance: go on as a new one, with the same data."""
        effects = self.flush()
        if self.replication.unfinished or now < self._born_at + self._settings.probe_interval:
            return effects  # in a transaction, or a storm of deaths: whoever called us dead will say so again
        self._born_at = now
        old = self.me
        born = old._replace(instance=self._rng.getrandbits(64) | 1, incarnation=0, started=old.started + 1)
        self.counters["reborn"] += 1
        self.detector.reborn()
        self.members.become(born)
        self.members.hear(old._replace(status=Status.DEAD), now)
        self.replication.become(born.instance)
        self.broadcast.add(born)
        why = "others called it dead; it went on as a new instance"
        return [*effects, MemberChanged(self.members.table[old.instance], old, why), Reborn(born)]

    def _told_by(self, sender: int) -> str:
        """Where news came from, for people."""
        claim = self.members.table.get(sender)
        return f"{claim.name if claim else 'a stranger'} said so"

    def _all_claims(self, now: float) -> tuple[Claim, ...]:
        """All that is known of whom, the living first, as much as fits into one message.

        Of the dead only the younger half: two that forget at different times would remind each other for ever.
        """
        old = now - self._settings.remember_dead / 2
        gone_at = self.members.gone_at
        rest = [
            claim
            for claim in self.members.table.values()
            if claim.instance != self.me.instance and gone_at.get(claim.instance, now) >= old
        ]
        claims, size = [self.me], size_of(self.me)
        for claim in sorted(rest, key=lambda claim: claim.gone):
            size += size_of(claim)
            if size > _LIST_BYTES or len(claims) == MAX_CLAIMS:
                break
            claims.append(claim)
        return tuple(claims)

    def _news(self) -> list[Effect]:
        """Tells others at once of what was heard for the first time."""
        if not self.broadcast.fresh:
            return []
        peers = self.members.peers()
        if len(peers) > self._settings.full_fanout:
            peers = self._rng.sample(peers, min(_FANOUT, len(peers)))
        claims = self.broadcast.take_fresh(len(peers) + 1)
        return [Send(tuple(peers), Gossip(claims))] if peers else []

    def _riding(self, target: int) -> tuple[Claim, ...]:
        """Claims for a ping or ack: my own, the target's if it should refute it, then news while there is room."""
        first = [self.me]
        claim = self.members.table.get(target)
        if claim is not None and claim.status != Status.ALIVE:
            first.append(claim)  # the buddy system: the suspected hears of it in the very ping that tests it
        room = self._settings.datagram - 64 - sum(map(size_of, first))
        told = self.broadcast.take(len(self.members.table), room)
        return (*first, *(claim for claim in told if claim not in first))

    # -- probing --------------------------------------------------------------------------------------------------

    def _next_round(self, now: float) -> list[Effect]:
        target = self.members.next_probe(self._rng)
        if target is None:
            self.detector.next_round = inf
            return []
        self.detector.next_round = now + self._settings.probe_interval
        return self._ask(self.detector.probe(target, now), now)

    def _ask(self, ask: Ask | None, now: float) -> list[Effect]:
        if ask is None:
            return []
        ping = Ping(ask.number, self.digest, self._riding(ask.instance))
        effects: list[Effect] = [*self.flush(), Send((ask.instance,), ping)]
        witnesses = [peer for peer in self.members.peers() if peer != ask.instance] if ask.others else []
        if witnesses:
            chosen = self._rng.sample(witnesses, min(self._settings.indirect_probes, len(witnesses)))
            effects.append(Send(tuple(chosen), PingReq(ask.number, ask.instance)))
        return effects

    def _relay(self, asker: int, number: int, target: int, now: float) -> list[Effect]:
        claim = self.members.table.get(target)
        if claim is None or claim.gone:
            return []
        mine = self.detector.relay(asker, number, target, now)
        return [Send((target,), Ping(mine, self.digest, self._riding(target)))]

    def _acked(self, number: int, sender: int, now: float) -> list[Effect]:
        relayed = self.detector.acked(number, sender, now)
        if relayed is None:
            return []
        asker, theirs = relayed
        return [Send((asker,), Ack(theirs, self.digest, self._riding(asker)))]

    def _judge(self, verdict: Verdict, now: float) -> list[Effect]:
        claim = self.members.table.get(verdict.instance)
        if claim is None or claim.gone:
            return []
        if not verdict.hinted:
            status = Status.DEAD if verdict.dead else Status.SUSPECT
            return self._hear((claim._replace(status=status),), now, verdict.why)
        self.detector.suspect(claim.instance, len(self.members.peers()) + 1, now, hinted=True)
        effects = self._hear((claim._replace(status=Status.SUSPECT),), now, verdict.why)
        effects += self._news()
        return [*effects, *self._ask(self.detector.probe(claim.instance, now), now)]  # so that it hears, and refutes

    def _heal(self, now: float) -> list[Effect]:
        """Tries two of the dead: a partition ends without telling anybody. Addresses at which somebody lives by now are
        no longer theirs."""
        self.members.forget(now - self._settings.remember_dead, self._settings.max_remembered)
        self._heal_due = now + self._settings.heal_interval if self.members.gone_at else inf
        table = self.members.table
        dead = [table[instance] for instance in self.members.gone_at if table[instance].status == Status.DEAD]
        living = {address for claim in table.values() if not claim.gone for address in claim.addresses}
        addresses = sorted({address for claim in dead for address in claim.addresses} - living)
        return self.join(self._rng.sample(addresses, min(2, len(addresses))), now)

    # -- writes ---------------------------------------------------------------------------------------------------

    def _receive(self, sender: int, batches: list[Batch], push: Push, now: float, wall: int) -> list[Effect]:
        delivered = self.replication.receive(list(zip(batches, push.batches, strict=True)), wall)
        self.counters["batches_received"] += len(batches)
        effects = self._show(delivered.steps, now)
        self._skewed -= {batch.replica for batch in batches} - {replica for replica, _ in delivered.skewed}
        effects += self._warn_of_skew(delivered.skewed)
        if delivered.gap:
            self.counters["gaps"] += 1
            self.repair.gap(now)
            effects += self._pull(sender, now)
        if push.more and delivered.steps:
            self.repair.more(sender)
            effects += self._pull(sender, now)
        elif push.answer and not delivered.gap and self.repair.asked(sender):
            self.repair.served(sender, self.digest)
        return effects

    def _show(self, steps: Iterable[tuple[Change, ...]], now: float) -> list[Effect]:
        effects: list[Effect] = [Changed(step) for step in steps if step]
        if effects:
            self.repair.delivered(now)
        return effects

    def _warn_of_skew(self, skewed: Sequence[tuple[int, ClockSkew]]) -> list[Effect]:
        self.counters["skewed"] += len(skewed)
        effects: list[Effect] = []
        for replica, skew in skewed:
            if replica not in self._skewed:
                effects.append(Warned("skewed", replica, f"writes of {replica:016x} wait: {skew}"))
                self._skewed.add(replica)
        return effects

    def _compare(self, peer: int, theirs: Digest, now: float) -> list[Effect]:
        """A digest came: pull, if contexts stay different; cry out, if equal contexts have unequal states."""
        mine = self.digest
        if self.repair.differs(peer, theirs, mine, now):
            return self._pull(peer, now)
        if mine.context == theirs.context and mine.state != theirs.state and None not in (mine.state, theirs.state):
            self.counters["diverged"] += 1
            return [Warned("diverged", peer, "equal contexts with unequal states: please report this as a bug")]
        return []

    def _readiness(self, now: float) -> list[Effect]:
        if self.repair.ready or not self.repair.is_ready(self.digest, self.members.peers(), now):
            return []
        return [Ready()]

    def _pull(self, peer: int, now: float) -> list[Effect]:
        """Asks a peer for what is missing, unless it was asked just now or a full state is coming in."""
        if self.transfers.receiving is not None or not self.repair.ask(peer, now):
            return []
        self.counters["pulls_sent"] += 1
        return [Send((peer,), Pull(self.replication.encoded_context()))]

    def _busy(self, peer: int, now: float) -> list[Effect]:
        """A peer can not give us its state, or does not take ours."""
        self.transfers.gone(peer)
        other = self.repair.busy(peer, self.members.peers(), self.digest, now)
        return self._pull(other, now) if other is not None else []

    def _answer(self, peer: int, encoded: bytes, now: float) -> list[Effect]:
        """A peer told what it has: send what it misses, or start on the full state."""
        try:
            theirs = decode_context(encoded)
        except Malformed:
            self.counters["malformed"] += 1
            return []
        if theirs.dominates(self.replication.context()):
            return [Send((peer,), Push((), answer=True))]
        batches = self.replication.missing(theirs)
        if batches is not None:
            run = self.replication.first_run(batches)
            pushes = self.replication.pushes([entry.payload for entry in run])
            pushes[-1] = pushes[-1]._replace(more=len(run) < len(batches), answer=len(run) == len(batches))
            return [Send((peer,), push) for push in pushes]
        if self.transfers.busy or not self.replication.exposable:  # or a transaction is open
            self.counters["states_refused"] += 1
            return [Send((peer,), Busy())]
        parts = state_parts(self.replication.store.state(), self._settings.part_bytes)
        self.counters["states_sent"] += 1
        return [Send((peer,), self.transfers.offer(peer, parts, now))]

    def _part(self, sender: int, part: StatePart, now: float, wall: int) -> list[Effect]:
        if self.transfers.receiving is None and not self.repair.asked(sender):
            self.counters["unasked"] += 1
            return []
        if self.transfers.receiving not in (None, sender):
            return [Send((sender,), Busy())]
        try:
            result = self.transfers.receive(sender, part, now)
        except Malformed:
            self.counters["malformed"] += 1
            return []
        match result:
            case StateNext():
                return [Send((sender,), result)]
            case Stage():
                return self._commit(sender, result, now, wall)
        return []

    def _commit(self, sender: int, stage: Stage, now: float, wall: int) -> list[Effect]:
        try:
            steps = self.replication.merge_state(stage.state(), stage.newest, wall)
        except Malformed:
            self.counters["malformed"] += 1
            return []
        except ClockSkew as skew:
            return self._warn_of_skew([(sender, skew)])
        self.counters["states_received"] += 1
        effects = self._show(steps, now)
        self.repair.served(sender, self.digest)
        return effects
