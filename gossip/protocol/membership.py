"""What follows from what is said of whom, and from who does not answer?

Three parts know one thing each: `members` what is said, `detector` who answers, `broadcast` who was told. Here their
answers are handed from one to the next. It says what is to be done as effects, and knows nothing of data: what a death
or a rebirth means for that is for the engine, which sees it in the effects.

A living member of whom others only tell is *hearsay* until it was heard itself, or somebody who lives vouches for it:
it is told of, probed and sent to like any other, and no program is shown it. For a list of one who has slept brings up
the long dead; and who lives has spoken within a round trip, or is asked.

Invariants: every change of the table is told, here (`MemberChanged`, but for hearsay) and to others; whoever is called
dead and is not hears of it; the dead are never listened to, except that they call us dead in turn; what a member is
said to have said itself is believed with its proof only, where there are proofs.

Source: SWIM (Das, Gupta, Motivala 2002).
Not here: the lattice of claims (`members`), times and rounds (`detector`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import inf
from random import Random
from typing import NamedTuple

from gossip.protocol.broadcast import Broadcast, size_of
from gossip.protocol.codec import MAX_CLAIMS
from gossip.protocol.detector import Ask, Detector, Verdict
from gossip.protocol.effects import Effect, MemberChanged, Send
from gossip.protocol.identity import Identity
from gossip.protocol.members import Claim, Members, Status, nobody
from gossip.protocol.messages import Ack, Digest, Gossip, Join, Message, Nack, Ping, PingReq
from gossip.protocol.settings import Settings

_LIST_BYTES = 1 << 20
"""Of claims in one message."""
_LARGE_BYTES = 64 << 10
"""Of large claims that go to a member when it is probed."""
_AROUND = 113
"""Bytes of a probe beside its claims: the message's other fields take 81 at most, and sealing it 32."""
_FANOUT = 4
"""How many are told of news at once in a cluster of more than `full_fanout`."""
_UNREFUTABLE = 1 << 63
"""An incarnation from which there is no room to go on raising it."""
_HEARSAY = 0.25
"""Seconds in which a member of whom others told may speak by itself, as newcomers do, before it is asked; and between
two lots of them that are asked."""
_MOST_ASKED = 64
"""Of hearsay that are asked at once: a thousand who come with a healed partition are known after four seconds."""


class Buried(NamedTuple):
    """Others call this node dead, which can not be refuted: it has to go on as a new instance. For the engine."""


class Membership:
    """The members of a cluster, as one node sees them."""

    def __init__(self, me: Claim, settings: Settings, rng: Random, counters: Counter[str], identity: Identity) -> None:
        assert me.instance == identity.instance, "a node speaks for itself"
        self.identity = identity
        self.members = Members(identity.sign(me))
        self.detector = Detector(settings)
        self.broadcast = Broadcast(largest=(settings.datagram - _AROUND) // 2)
        """Two small claims must ride on every probe, so the others are large."""
        self.watched: set[int] = set()
        """Members of this host whose processes are watched: they live until their end is told."""
        self._brought: dict[int, float] = {}
        """When each member was last brought our own claim, since it had missed it."""
        self.skew: dict[int, float] = {}
        """By how many seconds the clock of a member is ahead of ours, as it answered last."""
        self.heal_due = inf
        self.hearsay: dict[int, float] = {}
        """Living members of whom others told, and who were not heard: when each is asked, infinite when it was."""
        self._ask_due = inf
        """When the next of them are."""
        self._settings = settings
        self._rng = rng
        self._counters = counters

    @property
    def deadline(self) -> float:
        """When `tick` is to be called next."""
        return min(self.detector.deadline, self.heal_due, self._ask_due)

    # -- hearing ------------------------------------------------------------------------------------------------------

    def told(self, sender: int, claims: Sequence[Claim], now: float) -> list[Effect | Buried]:
        """A member tells of itself, and of others."""
        effects = self.hear((claim for claim in claims if claim.instance == sender), now, "it said so itself")
        effects += self.spoke(sender, "it said so itself")
        teller = self.members.table.get(sender)
        why = f"{teller.name if teller else 'a stranger'} said so"
        return effects + self.hear((claim for claim in claims if claim.instance != sender), now, why)

    def hear(self, claims: Iterable[Claim], now: float, why: str) -> list[Effect | Buried]:
        """Takes claims in; `why` is a sentence for people."""
        effects: list[Effect | Buried] = []
        for claim in claims:
            if claim.instance == self.members.me.instance:
                effects += self._refute(claim)
                continue
            if claim.instance not in self.members.table and len(self.members.peers()) >= self._settings.max_members:
                self._counters["members_refused"] += not claim.gone
                continue
            if not self._is_proved(claim):
                continue
            before = self.members.hear(claim, now)
            if before is None:
                continue
            now_said = self.members.table[claim.instance]
            self.broadcast.add(now_said)
            effects.append(self._changed(now_said, None if before is claim else before, now, why))
            effects += self._follow(now_said, before, now)
        return effects

    def _is_proved(self, claim: Claim) -> bool:
        """Whether a member has said itself what a claim says in its name. It is looked at only where that is news.

        That somebody is dead of whom nothing is known has nothing in it of his own.
        """
        known = self.members.table.get(claim.instance)
        if claim == known:
            return True  # nearly always: what rides on pings is known
        if known is not None and (
            claim.rank[:3] < known.rank[:3] or (claim.own, claim.proof) == (known.own, known.proof)
        ):
            return True
        if claim == nobody(claim.instance) or self.identity.verify(claim):
            return True
        self._counters["forged"] += 1
        return False

    def say(self, claim: Claim) -> Claim:
        """Says this of this node itself from here on; gives it as it is said, with its proof."""
        said = self.identity.sign(claim)
        self.members.become(said)
        return said

    def _changed(self, claim: Claim, before: Claim | None, now: float, why: str) -> MemberChanged:
        if claim.gone:
            was_heard = self.hearsay.pop(claim.instance, None) is None
            return MemberChanged(claim, before if was_heard else None, why)  # who was never shown is not missed
        if before is None:
            self.hearsay[claim.instance] = now + _HEARSAY
            self._ask_due = min(self._ask_due, now + _HEARSAY)
        return MemberChanged(claim, before, why, heard=claim.instance not in self.hearsay)

    def heard(self, instance: int, now: float, why: str) -> list[Effect]:
        """This member spoke, to us or to somebody who says so now."""
        self.detector.alive(instance, now)
        return self.spoke(instance, why)

    def spoke(self, instance: int, why: str) -> list[Effect]:
        """This member was heard, or somebody who lives vouches for it: it is hearsay no more."""
        if self.hearsay.pop(instance, None) is None:
            return []
        if not self.hearsay:
            self._ask_due = inf
        return [MemberChanged(self.members.table[instance], None, why)]

    def _follow(self, claim: Claim, before: Claim, now: float) -> list[Effect | Buried]:
        """What a changed claim means for the probes."""
        if claim.gone:
            self.detector.gone(claim.instance)
            self.watched.discard(claim.instance)
            self.skew.pop(claim.instance, None)
            self._brought.pop(claim.instance, None)
            self.heal_due = min(self.heal_due, now + self._settings.heal_interval)
            self._forget(-inf)
            return self._unvouched(now)
        self.detector.wake(now)
        if claim.status == Status.SUSPECT:
            if before.incarnation < claim.incarnation:
                self.detector.clear(claim.instance)  # it refuted in between, unheard: it has all its time again
            self.detector.suspect(claim.instance, len(self.members.peers()) + 1, len(claim.by), now)
            return self._vouch(claim.instance, now)
        self.detector.clear(claim.instance)
        if claim.status == Status.STALLED:
            effects = self._unvouched(now)
            return [*effects, *self.spoke(claim.instance, "its process exists")] if self._is_vouched(claim) else effects
        if self.members.superseded(claim):
            return self.hear((claim.ended(),), now, "somebody else listens at its address now")
        older = [old.ended() for old in self.members.supersedes(claim)]
        return self.hear(older, now, f"{claim.name} listens at its address now")

    def _vouch(self, instance: int, now: float) -> list[Effect | Buried]:
        """Says of a suspect of this host that its process exists, if that is seen: it is slow, or stopped, not dead."""
        if instance not in self.watched:
            return []
        stalled = self.members.table[instance].by_whom(Status.STALLED, self.members.me.instance)
        return self.hear((stalled,), now, "it does not answer, and its process exists")

    def _unvouched(self, now: float) -> list[Effect | Buried]:
        """Of whom is stalled, and nobody is left of those who said that they see his process, only the silence is
        known. Unless we see it: said when the silence has lasted, it would be too late, for others judge then too."""
        effects: list[Effect | Buried] = []
        for instance in list(self.members.doubtful):
            claim = self.members.table[instance]
            if claim.status == Status.STALLED and not self._is_vouched(claim):
                self.detector.suspect(instance, len(self.members.peers()) + 1, len(claim.by), now)
                effects += self._vouch(instance, now)
        return effects

    def _is_vouched(self, claim: Claim) -> bool:
        return claim.status == Status.STALLED and any(by in self.members for by in claim.by)

    def watching(self, instance: int, now: float) -> list[Effect | Buried]:
        """The process of this member is watched from here on, until `exited` is called: it exists."""
        if instance not in self.members:
            return []
        self.watched.add(instance)
        suspected = self.members.table[instance].status == Status.SUSPECT
        return [*self.spoke(instance, "its process exists"), *(self._vouch(instance, now) if suspected else [])]

    def _forget(self, before: float) -> None:
        """Forgets the dead who were found so before this time, or are too many. Nobody is told of them any more: others
        have forgotten them as well, and would hear of somebody new."""
        for instance in self.members.forget(before, self._settings.max_remembered):
            self.broadcast.drop(instance)

    def from_the_dead(self, known: Claim, message: Message, now: float) -> list[Effect | Buried]:
        """One that is gone speaks: it is told so, and nothing it says counts, except that it calls us dead in turn, or
        that it has left: the news of its end may have overtaken its goodbye.

        Two that buried each other would otherwise never listen again. `Gossip` is not answered: it is the answer, and
        two that answer it to each other never stop.
        """
        effects: list[Effect | Buried] = []
        if known.status == Status.DEAD and isinstance(message, Join | Ping | Ack | Gossip):
            # so that it can be told: who called it dead knew nothing else of it, or it is somewhere else by now
            told = [claim for claim in message.claims if claim.instance == known.instance]
            own = [claim.ended(max(claim.status, known.status)) for claim in told]
            moved = [claim for claim in own if claim.addresses != known.addresses]
            effects += self.hear(moved, now, "it spoke, and is called dead")
            known = self.members.table[known.instance]
        if isinstance(message, Join | Gossip):
            for claim in message.claims:
                if claim.instance == self.members.me.instance and claim.gone:
                    effects += self._refute(claim)
                elif claim.instance == known.instance and claim.status == Status.LEFT:
                    effects += self.hear((claim,), now, "it said so itself")
        if not isinstance(message, Gossip) and known.status == Status.DEAD:  # who has left knows that
            effects.append(Send((known.instance,), Gossip((known,))))
        return effects

    def _refute(self, claim: Claim) -> list[Effect | Buried]:
        raised = self.members.refutation(claim)
        if raised is None or not self._is_proved(claim):
            return []
        if claim.gone or raised.incarnation >= _UNREFUTABLE:
            return [Buried()]
        self._counters["refuted"] += 1
        self.detector.ail(+1)  # they did not hear our acks: it may be our own fault
        self.restate(raised)
        return []

    def restate(self, me: Claim) -> Claim:
        """This is what the node says of itself from here on, and all are told: the one way in which that changes before
        its goodbye, for a greater incarnation, other tags or addresses, or another instance. Gives it as it is said,
        with its proof."""
        said = self.say(me)
        self.broadcast.add(said)
        return said

    def reborn(self, now: float) -> tuple[Claim, list[Effect | Buried]]:
        """Takes a new instance; the old one is as dead as others say, and what it said of others has to be said again.
        Gives what the new one says of itself, and what else follows."""
        old = self.members.me
        self.identity = self.identity.another(self._rng.randbytes(32))
        self.detector.reborn()
        born = self.restate(old._replace(instance=self.identity.instance, incarnation=0, started=old.started + 1))
        self.members.hear(old.ended(), now)
        for instance in self.members.doubtful:
            # nobody listened when the dead suspected it, so it could not refute: it hears of that now, and has its time
            self.broadcast.add(self.members.table[instance])
            self.detector.suspect(instance, len(self.members.peers()) + 1, 1, now)
        return born, self._unvouched(now)

    # -- telling ------------------------------------------------------------------------------------------------------

    def lists(self, now: float) -> list[tuple[Claim, ...]]:
        """All that is known of whom, in lists that fit a message each; my own claim first, then the living, and of the
        dead what fits into the last one.

        Of the dead only the younger half: two that forget at different times would remind each other for ever.
        """
        old = now - self._settings.remember_dead / 2
        me, gone_at = self.members.me, self.members.gone_at
        rest = [
            claim
            for claim in self.members.table.values()
            if claim.instance != me.instance and gone_at.get(claim.instance, now) >= old
        ]
        lists, room = [[me]], _LIST_BYTES - size_of(me)
        for claim in sorted(rest, key=lambda claim: claim.gone):
            size = size_of(claim)
            if size > room or len(lists[-1]) == MAX_CLAIMS:
                if claim.gone:
                    break
                lists.append([])
                room = _LIST_BYTES
            room -= size
            lists[-1].append(claim)
        return list(map(tuple, lists))

    def news(self, fanout: int = _FANOUT) -> list[Effect]:
        """Tells others at once of what was heard for the first time, as much as fits a message: all, or of many this
        number."""
        if not self.broadcast.fresh:
            return []
        peers = self.members.peers()
        if len(peers) > self._settings.full_fanout:
            peers = self._heard or peers  # of hundreds whom one who slept brings up none tells it on
            peers = self._rng.sample(peers, min(fanout, len(peers)))
        claims = self.broadcast.take_fresh(len(peers) + 1, _LIST_BYTES)
        return [Send(tuple(peers), Gossip(claims))] if peers else []

    def riding(self, target: int) -> tuple[Claim, ...]:
        """Claims for a ping or ack: my own, the target's if it should refute it, then news while there is room. Of
        these the small ones: `_beside` gives the others."""
        first = [claim for claim in self._due(target) if self.broadcast.small(claim)]
        room = self._settings.datagram - _AROUND - sum(map(size_of, first))
        told = self.broadcast.take(len(self.members.table), room)
        return (*first, *(claim for claim in told if claim not in first))

    def _beside(self, target: int) -> list[Effect]:
        """What goes by a stream beside a ping or ack, since it is too large to ride on it. My own claim is not among
        that: it would cost each probe 5 KB. `_behind` brings it to whom it got lost."""
        large = tuple(claim for claim in self._due(target)[1:] if not self.broadcast.small(claim))
        return [Send((target,), Gossip(large))] if large else []

    def _behind(self, peer: int, known: int, now: float) -> list[Effect]:
        """My own claim, for one that has heard of this incarnation of me, if no probe of mine brings it. Once in half
        an interval: whoever says so of a member, again and again in 60 bytes, draws 5 KB each time for it otherwise."""
        me = self.members.me
        missed = known < me.incarnation and not self.broadcast.small(me) and peer in self.members
        if not missed or now < self._brought.get(peer, -inf) + self._settings.probe_interval / 2:
            return []
        self._brought[peer] = now
        return [Send((peer,), Gossip((me,)))]

    def _due(self, target: int) -> list[Claim]:
        """What a member that is probed, or answered, must hear. By the buddy system: the suspected hears of it in the
        very ping that tests it."""
        claim = self.members.table.get(target)
        return [self.members.me, *([] if claim is None or claim.status == Status.ALIVE else [claim])]

    def _known(self, target: int) -> int:
        """The incarnation of a member that was heard of here."""
        claim = self.members.table.get(target)
        return 0 if claim is None else claim.incarnation

    def introduction(self, targets: tuple[int, ...], digest: Digest, number: int = 0) -> Send:
        """A ping with no news on board, that is not waited for if it has no number: this is me, and how far are you?"""
        me = self.members.me
        known = min(map(self._known, targets))
        return Send(targets, Ping(number, digest, (me,), known), stream=not self.broadcast.small(me))

    @property
    def _heard(self) -> list[int]:
        """The living others but hearsay: who can be expected to do something."""
        return [peer for peer in self.members.peers() if peer not in self.hearsay]

    # -- probing ------------------------------------------------------------------------------------------------------

    def tick(self, now: float, digest: Digest) -> list[Effect | Buried]:
        """Time passed: judges and probes what is due."""
        verdicts, asks = self.detector.tick(now)
        effects: list[Effect | Buried] = []
        for verdict in verdicts:
            effects += self._judge(verdict, now, digest)
        for ask in asks:
            effects += self._ask(ask, digest)
        effects += [Send((asker,), Nack(number), both=True) for asker, number in self.detector.nacks(now)]
        if self._ask_due <= now:
            effects += self._ask_hearsay(now, digest)
        if self.detector.next_round <= now:
            effects += self._next_round(now, digest)
        return effects

    def _next_round(self, now: float, digest: Digest) -> list[Effect]:
        target = self.members.next_probe(self._rng)
        if target is None:
            self.detector.next_round = inf
            return []
        self.detector.next_round = now + self.detector.interval
        effects = self._ask(self.detector.probe(target, now), digest)
        large = self.broadcast.take_large(len(self.members.table), _LARGE_BYTES)
        return [*effects, Send((target,), Gossip(large))] if large else effects

    def _ask_hearsay(self, now: float, digest: Digest) -> list[Effect]:
        """Probes those of whom others told, and who have not spoken since; who does not answer is suspected, as any."""
        due = [instance for instance, at in self.hearsay.items() if at <= now]
        effects: list[Effect] = []
        for instance in due[:_MOST_ASKED]:
            self.hearsay[instance] = inf
            ask = self.detector.probe(instance, now)
            if ask is not None:  # news on board might be wasted
                effects.append(self.introduction((instance,), digest, ask.number))
        self._ask_due = max(min(self.hearsay.values()), now + _HEARSAY) if self.hearsay else inf
        return effects

    @property
    def introducing(self) -> bool:
        """Whether some of whom others told were neither heard nor asked yet."""
        return any(at < inf for at in self.hearsay.values())

    def _ask(self, ask: Ask | None, digest: Digest) -> list[Effect]:
        if ask is None:
            return []
        target, me = ask.instance, self.members.me
        riding = self.riding(target)
        if ask.others and not self.broadcast.small(me):
            riding = (me, *riding)  # by a stream, so there is room; it may not know us, and answers no stranger
        effects = self._beside(target)
        effects.append(Send((target,), Ping(ask.number, digest, riding, self._known(target)), stream=ask.others))
        # of whom others only told none may be there: from such a one's silence we would learn to mistrust ourselves
        witnesses = [peer for peer in self._heard if peer != target] if ask.others else []
        if witnesses:
            chosen = self._rng.sample(witnesses, min(self._settings.indirect_probes, len(witnesses)))
            self.detector.widened(ask.number, chosen)
            effects.append(Send(tuple(chosen), PingReq(ask.number, target), both=True))
        return effects

    def lost(self, instance: int, now: float, digest: Digest) -> list[Effect]:
        """A stream to this member ended, or could not be opened: a hint to look at once, through others too."""
        if instance not in self.members:
            return []
        return self._ask(self.detector.probe(instance, now, hint="its stream ended without a leave"), digest)

    def exited(self, instance: int, now: float) -> list[Effect | Buried]:
        """The process of this member is gone: proof, so it is dead at once."""
        if instance not in self.members:
            return []
        return self.hear((self.members.table[instance].ended(),), now, "its process has ended")

    def relay(self, asker: int, number: int, target: int, now: float, digest: Digest) -> list[Effect]:
        """Somebody can not reach a member: pings it in his place."""
        if target not in self.members:
            return []
        mine = self.detector.relay(asker, number, target, now)
        if mine is None:
            return []
        ping = Ping(mine, digest, self.riding(target), self._known(target))
        return [*self._beside(target), Send((target,), ping)]

    def answer(self, asker: int, ping: Ping, now: float, wall: int, digest: Digest) -> list[Effect]:
        """A ping came."""
        return [*self._behind(asker, ping.known, now), *self._ack(asker, ping.number, wall, digest)]

    def _ack(self, asker: int, number: int, wall: int, digest: Digest) -> list[Effect]:
        ack = Ack(number, digest, self.riding(asker), wall, self._known(asker))
        return [*self._beside(asker), Send((asker,), ack)]

    def acked(self, ack: Ack, sender: int, now: float, wall: int, ago: float | None, digest: Digest) -> list[Effect]:
        """An ack came, so many seconds ago, if that is known; if the ping was in somebody's place, he gets it."""
        behind = self._behind(sender, ack.known, now)
        answered = self.detector.probed(ack.number, sender)
        relayed = self.detector.acked(ack.number, sender, now, ago)
        if sender in self.members and ago is not None:
            self.skew[sender] = (ack.clock - wall) / 1000 + ago + self.detector.rtt.get(sender, 0.0) / 2
        if relayed is None:
            return behind if answered is None else [*behind, *self.heard(answered, now, "it answered somebody else")]
        asker, theirs = relayed
        return [*behind, *self._ack(asker, theirs, wall, digest)]

    def _judge(self, verdict: Verdict, now: float, digest: Digest) -> list[Effect | Buried]:
        if verdict.instance not in self.members:
            return []
        claim = self.members.table[verdict.instance]
        if verdict.dead and claim.instance in self.watched:
            return self._vouch(claim.instance, now)
        if verdict.dead and self._is_vouched(claim):
            return []
        if verdict.dead:
            return self.hear((claim.ended(),), now, verdict.why)
        suspected = claim.by_whom(Status.SUSPECT, self.members.me.instance)
        if not verdict.hinted:
            return [*self.hear((suspected,), now, verdict.why), *self._accuse(claim.instance, digest)]
        if claim.status != Status.STALLED:
            self.detector.suspect(claim.instance, len(self.members.peers()) + 1, 1, now, hinted=True)
        effects = self.hear((suspected,), now, verdict.why)
        # at once, and with a ping, so that it hears of it and refutes
        return [*effects, *self.news(), *self._ask(self.detector.probe(claim.instance, now), digest)]

    def _accuse(self, instance: int, digest: Digest) -> list[Effect]:
        """A suspect hears of it now. When somebody's round comes to it, it may be too late for one who is far.

        By a ping, for its answer comes to us at once. (Rejected: as news to all, who pass it on to all, refutations
        too: a slow one drowned in it, and accused twice as many.)
        """
        told = tuple(claim for claim in self._due(instance) if self.broadcast.small(claim))
        return [*self._beside(instance), Send((instance,), Ping(0, digest, told, self._known(instance)))]

    def heal(self, now: float) -> list[str]:
        """Two addresses of the dead to be tried: a partition ends without telling anybody. Addresses at which somebody
        lives by now are no longer theirs."""
        self._forget(now - self._settings.remember_dead)
        self.heal_due = now + self._settings.heal_interval if self.members.gone_at else inf
        table = self.members.table
        dead = [table[instance] for instance in self.members.gone_at if table[instance].status == Status.DEAD]
        living = {address for claim in table.values() if not claim.gone for address in claim.addresses}
        addresses = sorted({address for claim in dead for address in claim.addresses} - living)
        return self._rng.sample(addresses, min(2, len(addresses)))
