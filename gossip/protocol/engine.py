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
    Context,
    Key,
    Link,
    Malformed,
    Note,
    State,
    Store,
    Timestamp,
    Write,
    decode_batch,
    decode_context,
    encode_context,
)
from crdt.timestamp import at
from gossip.protocol.codec import Codec, Unknown
from gossip.protocol.confirm import Confirm, Question
from gossip.protocol.effects import (
    Appeared,
    Changed,
    Confirmed,
    Dial,
    Effect,
    MemberChanged,
    Persist,
    Ready,
    Reborn,
    Rewrite,
    Send,
    Warned,
)
from gossip.protocol.expiry import Expiry
from gossip.protocol.identity import Identity, Unproved
from gossip.protocol.log import Log
from gossip.protocol.members import Claim, Status, nobody
from gossip.protocol.membership import Buried, Membership
from gossip.protocol.messages import (
    Ack,
    Busy,
    Digest,
    Gossip,
    Join,
    Message,
    Nack,
    Ping,
    PingReq,
    Pull,
    Push,
    StateNext,
    StatePart,
    Sums,
    Sync,
    Synced,
    Welcome,
)
from gossip.protocol.recovery import Recovery
from gossip.protocol.relay import Part, Recent, handed
from gossip.protocol.replication import Replication
from gossip.protocol.settings import Settings
from gossip.protocol.transfer import Arrived

_MOST_SKEWED = 1024
"""Replicas remembered as skewed."""
_TAIL = 1 << 16
"""Bytes of its last writes that a node sends again when it goes on as another instance."""
_MOST_NAMES = 8
"""Objects named in one warning."""


class Engine:
    """One node of a cluster, as a value machine: things happen, effects come out.

    >>> ann = Engine("shop", Claim(1, "ann", ("unix:/ann",), 0), Settings(), Random(1), Store())
    >>> ann.join(["unix:/bob"], now=0.0)[0].address
    'unix:/bob'
    """

    def __init__(
        self, cluster: str, me: Claim, settings: Settings, rng: Random, store: Store, recent: Log | None = None,
        identity: Identity | None = None,
    ) -> None:  # fmt: skip
        self.codec = Codec(cluster)
        self.counters: Counter[str] = Counter()
        """What happened how often; for people, never read by the protocol."""
        self.membership = Membership(me, settings, rng, self.counters, identity or Unproved(me.instance))
        self.members = self.membership.members
        self.replication = Replication(store, settings, me.instance, recent)
        self.recovery = Recovery(settings, rng, self.replication, self.members, self.counters)
        self.repair = self.recovery.repair
        self.transfers = self.recovery.transfers
        self.expiry = Expiry(store)
        self.confirm = Confirm(rng.getrandbits(32))
        self._settings = settings
        self._recent = Recent()
        self._slow: set[int] = set()
        """Members that take less than is sent to them."""
        self._skewed: set[int] = set()
        """Replicas whose writes wait because of a clock: told once, when it begins."""
        self._ready_by = inf
        """Until when `Ready` waits for those of whom others told: a program that starts is shown all who answer."""
        self._woken = False
        self._born_at = -inf
        """When this node took a new instance last."""

    @property
    def me(self) -> Claim:
        """What this node says of itself."""
        return self.members.me

    @property
    def digest(self) -> Digest:
        """How far this node is."""
        return self.recovery.digest

    @property
    def deadline(self) -> float:
        """When to call `tick` next; infinite if nothing is due."""
        return min(self._ready_by, self.membership.deadline, self.recovery.deadline, self.expiry.deadline)

    # -- what a program does --------------------------------------------------------------------------------------

    def stamp(self, wall: int) -> Timestamp:
        """The stamp for a write made now."""
        return self.replication.stamp(wall)

    def update(self, write: Write, now: float, note: Note | None = None) -> list[Effect]:
        """A local write: delivered here at once, sent with the next `flush`, with this note."""
        return self._show([(self.replication.update(write, note),)], now)

    def put(self, drafts: Iterable[tuple[Key, Link]], now: float, note: Note | None = None) -> list[Effect]:
        """Local writes of one turn, each of another key, given as they will be live but for their numbers."""
        return self._show([self.replication.put(drafts, note)], now)

    def sync(self, peers: Sequence[int], wanted: Context, durable: bool, number: int = 0) -> tuple[int, list[Effect]]:
        """Asks peers whether they hold these writes; answers come as `Confirmed`, under the number that this gives.
        With a `number` it asks again."""
        number = number or self.confirm.ask()
        question = Sync(number, encode_context(wanted), durable)
        return number, [*self.flush(), Send(tuple(peers), question)] if peers else self.flush()

    def hardened(self, peer: int, number: int, durable: bool) -> list[Effect]:
        """What a `Harden` asked for is done; or can not be, and the peer hears that it is held in memory."""
        return [Send((peer,), Synced(number, durable))] if peer in self.members else []

    @property
    def open(self) -> bool:
        """Whether a transaction is."""
        return self.replication.open

    def begin(self) -> None:
        """Writes from here to `end` become visible in one step at every peer."""
        self.replication.begin()

    def end(self) -> None:
        """Ends what `begin` began."""
        self.replication.end()

    def flush(self) -> list[Effect]:
        """Sends what was written since the last time. To be called at the end of each turn of writing."""
        if not (batches := self.replication.flush()):
            return []
        effects: list[Effect] = [Persist(tuple(batches), own=self.replication.handed)]
        return effects if self._settings.durability == "full" else effects + self._pushed(batches)

    def stored(self, own: int) -> list[Effect]:
        """So many of all own batches are on the disk (or never will be): with `full` durability they leave now."""
        return self._pushed(self.replication.stored(own)) + self.recovery.published()

    def _pushed(self, batches: Sequence[bytes]) -> list[Effect]:
        if not batches:
            return []
        self.counters["batches_sent"] += len(batches)
        pushes, peers = self.replication.pushes(batches), tuple(self.members.peers())
        if len(peers) <= self._settings.full_fanout:
            return [Send(peers, push) for push in pushes] if peers else []
        around = Part(self.me.instance, self.me.instance)
        return [effect for push in pushes for effect in self._handed(push.batches, around)]

    def _handed(self, batches: tuple[bytes, ...], part: Part, lost: int = 0) -> list[Effect]:
        """Tells the members in this part of the ring of writes, or has them told; not by one that was just lost."""
        doubtful = {*self.members.doubtful, *self.membership.hearsay, *self._slow, lost}
        told = handed(part, self.members.peers(), self._settings.full_fanout, doubtful)
        effects: list[Effect] = []
        for peer, further in told:
            if further is not None:
                self._recent.add(peer, further, batches)
                effects.append(Send((peer,), Push(batches, part=further)))
        direct = tuple(peer for peer, further in told if further is None)
        return [*effects, Send(direct, Push(batches))] if direct else effects

    def _handed_anew(self, lost: int) -> list[Effect]:
        """Somebody is lost: what he was to hand on lately goes another way."""
        return [effect for part, batches in self._recent.lost(lost) for effect in self._handed(batches, part, lost)]

    def join(self, addresses: Iterable[str], now: float) -> list[Effect]:
        """Introduces this node at addresses where others may be; those of living members are passed over."""
        effects = self._wake(now)
        known = {address for claim in self.members.table.values() if not claim.gone for address in claim.addresses}
        unknown = [address for address in addresses if address not in known]
        self.repair.dialled(unknown, now)
        message = Join(self.membership.lists(now)[0], self.digest)
        effects += self.flush()
        return [*effects, *(Dial(address, message) for address in unknown), *self._readiness(now)]

    def _wake(self, now: float) -> list[Effect]:
        """The first time: what the store was given from a disk may expire, or be owned by who is no more."""
        if self._woken:
            return []
        self._woken = True
        self.expiry.begin(now)
        store = self.replication.store
        mortal = [(*name, element) for name, elements in store.mortal.items() for element in elements]
        return _changed(self.expiry.note([(key, None, store.shown(key)) for key in mortal], self.members.table, now))

    def retagged(self, tags: tuple[tuple[str, str], ...]) -> list[Effect]:
        """This node has these tags from here on. Others are told with the next `news`."""
        return self._restate(self.me._replace(tags=tags))

    def moved(self, addresses: tuple[str, ...], wall: int) -> list[Effect]:
        """This node listens here from `wall` on, and whoever listened here before is gone. Others are told likewise."""
        if addresses == self.me.addresses:
            return []
        return self._restate(self.me._replace(addresses=addresses, started=max(wall, self.me.started + 1)))

    def _restate(self, me: Claim) -> list[Effect]:
        before = self.me
        if me == before or before.gone:
            return []
        self.membership.restate(me._replace(incarnation=before.incarnation + 1))
        return [MemberChanged(self.me, before, "this node itself says so")]

    def news(self) -> list[Effect]:
        """Tells others of what this node says of itself since the last time. To be called at the end of that turn."""
        return self.membership.news()

    def leave(self, now: float) -> list[Effect]:
        """Says goodbye: what was written leaves first, then the claim that this instance has left."""
        effects = self.flush()
        left = self.membership.say(self.me.ended(Status.LEFT))
        peers = tuple(self.members.peers())
        return [*effects, Send(peers, Gossip((left,)))] if peers else effects

    # -- what the world does --------------------------------------------------------------------------------------

    def receive(
        self, payload: bytes, now: float, wall: int, peer: int | None = None, ago: float | None = 0.0
    ) -> list[Effect]:
        """A packet came, from the instance `peer` if that is proved: then it counts in no other's name. It came so many
        seconds `ago`; None if it may have waited for us for a while, and nobody knows."""
        try:
            sender, message = self.codec.decode(payload)
            content = [*map(decode_batch, message.batches)] if type(message) is Push else []  # before any change
        except Unknown:
            self.counters["unknown"] += 1
            return []
        except Malformed:
            self.counters["malformed"] += 1
            return []
        if peer not in (None, sender):
            self.counters["impersonated"] += 1
            return []
        me = self.members.me
        if sender == me.instance or me.gone:
            return []
        known = self.members.table.get(sender)
        if known is not None and known.gone:
            self.counters["from_the_dead"] += 1
            effects = self._follow(self.membership.from_the_dead(known, message, now), now) + self.membership.news()
            if isinstance(message, Push):  # its writes are as good as any: the news of its end may have overtaken them
                effects += self._receive(sender, content, message, now, wall)
            return effects
        # who has nothing to say is not asked: each call takes a node that was at rest 4 us
        effects = [] if self.replication.settled else self.flush()
        self.membership.detector.alive(sender, now)
        if sender in self.membership.hearsay:
            effects += self.membership.spoke(sender, "it spoke to us")
        effects += self._route(sender, message, content, now, wall, ago)
        if self.confirm.waiting:
            effects += self.confirm.answers(self.replication.store.context)
        if self._ready_by < inf or not self.repair.sure:
            effects += self._readiness(now)
        if self.membership.broadcast.fresh:
            effects += self.membership.news()
        return effects

    def lost(self, instance: int, now: float) -> list[Effect]:
        """A stream to this member ended, or could not be opened. A hint: look at once, through others too."""
        return [*self.flush(), *self._handed_anew(instance), *self.membership.lost(instance, now, self.digest)]

    def exited(self, instance: int, now: float) -> list[Effect]:
        """The process of this member is gone: proof, so it is dead at once, and all are told.

        Of many, more are told by who has seen it than by who was told: where few watched it, who is told by nobody
        hears of it with a ping only, seconds later.
        """
        effects = self._follow(self.membership.exited(instance, now), now)
        return [*effects, *self.membership.news(self._settings.full_fanout)]

    def watching(self, instance: int, now: float) -> list[Effect]:
        """The process of this member is watched from here on: it exists, until `exited` says otherwise."""
        effects = self._follow(self.membership.watching(instance, now), now)
        return [*effects, *self.membership.news()]

    def unwatched(self, instance: int) -> None:
        """The process of this member is not watched any more, by us."""
        self.membership.watched.discard(instance)

    def greet(self, instance: int) -> list[Effect]:
        """Says to a member who we are, by a ping whose ack nobody waits for."""
        return [*self.flush(), self.membership.introduction((instance,), self.digest)]

    def lags(self, instance: int, behind: bool) -> list[Effect]:
        """What is sent to this member finds no room on its way, or finds it again: it hands nothing on meanwhile."""
        if not behind:
            self._slow.discard(instance)
            return []
        self._slow.add(instance)
        return self._handed_anew(instance)

    def tick(self, now: float, wall: int) -> list[Effect]:
        """Time passed: does all that is due."""
        late = now - self.deadline
        if late > self._settings.probe_interval / 2:
            self.counters["late"] += 1
            self.membership.detector.late(late, now)
        effects = self.flush()
        self._recent.turn(now)
        effects += self._follow(self.membership.tick(now, self.digest), now)
        if self.membership.heal_due <= now:
            effects += self.join(self.membership.heal(now), now)
        if self.expiry.deadline <= now:
            effects += self._expire(now, wall)
        effects += self.recovery.tick(now)
        return [*effects, *self._readiness(now), *self.membership.news()]

    def _readiness(self, now: float) -> list[Effect]:
        """Whether all that the others share has come by now, and all of whom they told have spoken, or had the time."""
        if self.recovery.has_come(now):
            self._ready_by = now + self._settings.settle
        if self._ready_by == inf or (now < self._ready_by and self.membership.introducing):
            return []
        self._ready_by = inf
        return [Ready()]

    # -- routing --------------------------------------------------------------------------------------------------

    def _route(
        self, sender: int, message: Message, batches: list[Batch], now: float, wall: int, ago: float | None
    ) -> list[Effect]:
        match message:
            case Push():  # nearly all that comes: each kind that is looked at before it takes its time
                return self._receive(sender, batches, message, now, wall)
            case Join(claims, digest):
                effects = self._told(sender, claims, now)
                first, *more = self.membership.lists(now)
                welcome = Send((sender,), Welcome(first, self.digest))
                return [*effects, welcome, *_told_more(sender, more), *self.recovery.compare(sender, digest, now)]
            case Welcome(claims, digest):
                _, *more = self.membership.lists(now)  # what our `Join` had no room for
                effects = self._told(sender, claims, now)
                return [*effects, *_told_more(sender, more), *self.recovery.compare(sender, digest, now)]
            case Ping(_, digest, claims):
                effects = self._told(sender, claims, now)
                effects += self.membership.answer(sender, message, now, wall, self.digest)
                return [*effects, *self.recovery.compare(sender, digest, now)]
            case Ack(_, digest, claims):
                effects = self._told(sender, claims, now)
                return [
                    *effects,
                    *self.membership.acked(message, sender, now, wall, ago, self.digest),
                    *self.recovery.compare(sender, digest, now),
                ]
            case Nack(number):
                self.membership.detector.nacked(number, sender)
                return []
            case PingReq(number, target):
                return self.membership.relay(sender, number, target, now, self.digest)
            case Gossip(claims):
                return self._told(sender, claims, now)
            case Pull():
                return self.recovery.answer(sender, message, now, wall)
            case Busy(transfer):
                return self.recovery.busy(sender, transfer, now)
            case Sync():
                return self._asked(sender, message)
            case Synced(number, durable):
                return [Confirmed(number, sender, durable)]
            case StatePart() | Sums():
                return self._arrived(sender, message, now, wall)
            case StateNext():
                return self.recovery.next_part(sender, message, now)

    # -- members --------------------------------------------------------------------------------------------------

    def _told(self, sender: int, claims: Sequence[Claim], now: float) -> list[Effect]:
        """A member tells of itself, and of others. A newcomer asks those how far they are: one of whom it was only told
        may have everything."""
        effects = self._follow(self.membership.told(sender, claims, now), now)
        unasked = tuple(
            claim.instance
            for claim in claims
            if claim.instance not in (sender, self.me.instance)
            and claim.instance in self.members
            and self.repair.wonders(claim.instance)
        )
        if unasked:
            effects.append(self.membership.introduction(unasked, self.digest))
        return effects

    def _follow(self, effects: Sequence[Effect | Buried], now: float) -> list[Effect]:
        """What became of members, and what it means for data."""
        done: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Buried):
                done += self._reborn(now)
                continue
            if not isinstance(effect, MemberChanged) or effect.heard:
                done.append(effect)
            if isinstance(effect, MemberChanged) and effect.claim.status != Status.ALIVE:
                done += self._handed_anew(effect.claim.instance)  # its last words may have crossed ours
            if isinstance(effect, MemberChanged) and effect.claim.gone:
                self._slow.discard(effect.claim.instance)
                self.recovery.gone(effect.claim.instance)
                self.confirm.gone(effect.claim.instance)
                done += _changed(self.expiry.gone(effect.claim.instance, now))
            elif isinstance(effect, MemberChanged) and effect.before is None and not effect.heard:
                owned = self.expiry.owned(effect.claim.instance)
                self.expiry.remember(owned, now, owned=True)
                done += [Appeared(tuple(owned))] if owned else []
        return done

    def _reborn(self, now: float) -> list[Effect]:
        """Dead is final for an instance: go on as a new one, with the same data."""
        effects = self.flush()
        if self.replication.open or now < self._born_at + self._settings.probe_interval:
            return effects  # in a transaction, or a storm of deaths: whoever called us dead will say so again
        self._born_at = now
        self.counters["reborn"] += 1
        old, (born, vouched) = self.me, self.membership.reborn(now)
        self.transfers.reborn()
        self.replication.become(born.instance)
        why = "others called it dead; it went on as a new instance"
        effects += [MemberChanged(self.members.table[old.instance], old, why), Reborn(born)]
        # what it wrote last may be lost, and what it writes from here on is of another replica, and waits for nobody
        effects += self._pushed([entry.payload for entry in self.replication.log.tail(old.instance, _TAIL)])
        return effects + self._follow(vouched, now) + self._own_anew(old.instance, now)

    def _own_anew(self, old: int, now: float) -> list[Effect]:
        """Writes again what this node owned: everybody else has dropped it, or will."""
        anew = self.expiry.anew(old, self.me.instance)
        return [effect for write, note in anew for effect in self.update(write, now, note)]

    def _expire(self, now: float, wall: int) -> list[Effect]:
        """Drops what has ended, and calls those dead whom nobody knows though they own something."""
        effects = _changed(self.expiry.tick(now, at(wall)))
        orphans = self.expiry.orphans(self.members.table, now)
        unknown = [nobody(author) for author in orphans]
        return effects + self._follow(self.membership.hear(unknown, now, "it owns entries, and nobody knows it"), now)

    # -- writes ---------------------------------------------------------------------------------------------------

    def _receive(self, sender: int, batches: list[Batch], push: Push, now: float, wall: int) -> list[Effect]:
        # at once, and whether or not it is new or can be taken in here: those beyond have it from nobody else
        effects: list[Effect] = []
        if push.part is not None:
            effects += self._handed(push.batches, push.part)
            self.counters["relayed"] += bool(effects)
        delivered = self.replication.receive(list(zip(batches, push.batches, strict=True)), wall)
        self.counters["batches_received"] += len(batches)
        effects += map(Persist, delivered.payloads)
        effects += self._show(delivered.steps, now)
        if self._skewed or delivered.skewed:
            self._skewed -= {batch.replica for batch in batches} - {replica for replica, _ in delivered.skewed}
            effects += self._warn_of_skew(delivered.skewed)
        if delivered.gap:
            self.counters["gaps"] += 1
            self.repair.gap(now)
            effects += self.recovery.pull(sender, now)
        if push.parts == 0 or not self.repair.answered(sender, push):
            return effects
        if push.more and delivered.steps:
            self.repair.more(sender)
            effects += self.recovery.pull(sender, now)
        elif delivered.skewed and not delivered.steps:  # it has nothing else that we miss
            self.recovery.refused(sender, (skew for _, skew in delivered.skewed), now)
        elif not push.more and not delivered.gap and not delivered.skewed:
            self.repair.served(sender, self.digest)
        return effects

    def _asked(self, peer: int, sync: Sync) -> list[Effect]:
        try:
            wanted = decode_context(sync.context)
        except Malformed:
            self.counters["malformed"] += 1
            return []
        self.confirm.asked(Question(peer, sync.number, wanted, sync.durable))
        return []

    def _show(self, steps: Sequence[tuple[Change, ...]], now: float) -> list[Effect]:
        effects: list[Effect] = [Changed(step) for step in steps if step]
        if effects:
            self.repair.delivered(now)
        if self.replication.store.mortal:  # all of them are merged already, so what is dropped comes after all of them
            for step in steps:
                effects += _changed(self.expiry.note(step, self.members.table, now))
        return effects

    def _warn_of_skew(
        self, skewed: Sequence[tuple[int, ClockSkew]], what: str = "the writes of this replica"
    ) -> list[Effect]:
        self.counters["skewed"] += len(skewed)
        effects: list[Effect] = []
        for replica, skew in skewed:
            if replica not in self._skewed and len(self._skewed) < _MOST_SKEWED:
                effects.append(Warned("skewed", replica, f"{what} ({replica:016x}) must wait: {skew}"))
                self._skewed.add(replica)
        return effects

    # -- states -----------------------------------------------------------------------------------------------------

    def _arrived(self, sender: int, message: StatePart | Sums, now: float, wall: int) -> list[Effect]:
        try:
            result = self.recovery.arrived(sender, message, now, wall)
            return self._commit(sender, result, now, wall) if isinstance(result, Arrived) else result
        except ClockSkew as skew:
            self.recovery.refused(sender, (skew,), now)
            return self._warn_of_skew([(sender, skew)], "all that this member has")

    def _commit(self, sender: int, arrived: Arrived, now: float, wall: int) -> list[Effect]:
        """All parts of a state are here: merges it in one step. Raises `ClockSkew`."""
        state, store = arrived.state, self.replication.store
        if arrived.audit:
            return self._adopt(sender, state, now)
        before = Context(store.context)
        try:
            delivered = self.replication.merge_state(state, arrived.newest, wall)
        except Malformed:
            self.counters["malformed"] += 1
            return []
        self.counters["states_received" if state.scope is None else "differences_received"] += 1
        effects: list[Effect] = []
        if before != store.context:
            effects.append(Persist(arrived.parts, state=True))
            self.expiry.begin(now)
        effects += map(Persist, delivered.payloads)
        effects += self._show(delivered.steps, now)
        self.repair.served(sender, self.digest)
        return effects

    def _adopt(self, sender: int, state: State, now: float) -> list[Effect]:
        """Contexts were equal, and states were not: takes what the peer still has, and nothing else.

        What it has not got may be what is wrong with it, so such a state is never merged: that would drop here what was
        lost there. If something was delivered here since ranges were compared, what is missing may have been deleted by
        that, and all is left: the next digests that are equal tell of it again.
        """
        store = self.replication.store
        self.repair.served(sender, self.digest)
        assert state.scope is not None
        if store.context != state.scope.compared or not state.context.dominates(store.context):
            return []
        changes = store.adopt(state)
        if not changes:
            return []
        self.counters["repaired"] += len(changes)
        self.expiry.remember((key for key, _, _ in changes), now, owned=True)  # no log tells of them either
        names = sorted({key[1] for key, _, _ in changes})
        what = f"{len(changes)} entries that were missing here were taken from it, of {', '.join(names[:_MOST_NAMES])}"
        return [Warned("repaired", sender, what), Rewrite(), *self._show([tuple(changes)], now)]


def _told_more(peer: int, lists: Sequence[tuple[Claim, ...]]) -> list[Effect]:
    return [Send((peer,), Gossip(claims)) for claims in lists]


def _changed(changes: Sequence[Change]) -> list[Effect]:
    return [Changed(tuple(changes))] if changes else []
