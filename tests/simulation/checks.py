"""Does a node keep its promises, after every single event?

One `Watch` a node. It holds what a program that only reads effects would know (values by `Changed`, members by
`MemberChanged`), and the model's `Shadow`. After each event it compares: the store with the shadow whenever the context
moved, effects with the store, every message that leaves with what may be known outside, every claim with the lattice.

Invariant: looks only, and changes nothing of the node. Not here: what holds only after a while (`ending`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from crdt import (
    WITH_AUTHOR,
    Change,
    Context,
    Dot,
    Key,
    Live,
    LWWMap,
    LWWRegister,
    ORSet,
    PNCounter,
    Write,
    chain,
    decode_context,
)
from crdt.causality import RANGES, fingerprint_of, range_of
from crdt.codec import unpack
from crdt.timestamp import milliseconds
from gossip.protocol.effects import Changed, Confirmed, Dial, Effect, MemberChanged, Ready, Reborn, Send, Warned
from gossip.protocol.engine import Engine
from gossip.protocol.members import Claim
from gossip.protocol.messages import Ack, Digest, Join, Message, Ping, Pull, Push, StatePart, Welcome
from gossip.protocol.settings import Settings
from tests.simulation.model import History, Local, Shadow, demand

MAPS, SETS, COUNTERS, REGISTERS = ("flags", "jobs"), ("online",), ("hits", "errors"), ("motd",)
"""The objects that the programs of this world share."""
FULL_EVERY = 16
"""Between two full comparisons of a node; those in between look at the keys that changed, and at totals."""


class Watch:
    """All that is demanded of one node while it runs."""

    def __init__(self, engine: Engine, settings: Settings, history: History) -> None:
        self.engine = engine
        self.settings = settings
        self.history = history
        self.shadow = Shadow(history)
        self.tail: list[Local] = []
        """Own writes that have not left yet."""
        self.depth = 0
        """Of transactions that are open, one in another."""
        self.program = False
        """Whether it is the program that writes just now."""
        self.questions: dict[int, dict[int, int]] = {}
        """What peers were asked to confirm, by question."""
        self.confirmed = 0
        self.segment = 0
        """Raised at each beginning and each end of a transaction, so it is odd inside of one."""
        self.ready = False
        self.news = 0
        """How often something changed in what is said of others."""
        self.delivered = 0
        """How many writes of others came here."""
        self._store = engine.replication.store
        self._view: dict[Key, Live] = {
            (*name, element): live
            for name, elements in self._store.objects.items()
            for element, live in elements.items()
        }
        self._restored()
        self._dead: set[Dot] = set()
        self._latest = 0
        """The latest that its clock ever showed: what was let in then may be held back until later."""
        self._steps: set[tuple[int, int]] = set()
        """Transactions of others that became visible."""
        self._members: dict[int, Claim] = {}
        self._selves = {engine.me.instance}
        self._changes = 0
        self._may_tell = Context()
        self._exposed = self._before = Digest(0, 0, ready=False)
        """The digests that may be told now, and that might have been told before this event."""

    def _restored(self) -> None:
        """What a disk has kept is what was delivered, less what was dropped of it since.

        And what had been dropped is there again, for a disk is not told of that: even if it was replaced, by a write of
        which only a state told that did not tell of its range. It is over, and nobody sees it.
        """
        self.shadow.advance(self._store.context)
        for key in self._view:
            self._take_what_is_over(key)
        for key in list(self.shadow.live):
            self._key(key)

    # -- what happens ----------------------------------------------------------------------------------------------

    def published(self, replica: int, payloads: Sequence[bytes]) -> None:
        """Own batches leave."""
        self.tail = self.history.publish(replica, payloads, self.tail)
        stays = all(local.segment == self.segment for local in self.tail) and self.depth > 0
        stays = stays or self.settings.durability == "full"  # until the disk has them
        demand(stays or not self.tail, "own writes did not leave", f"{replica:x}", self.tail)

    def wrote_anew(self, write: Write) -> None:
        """The node itself wrote something: what it owned under the instance that it was."""
        live = self.shadow.live[write.key]
        mine = [dot for dot in write.names if live[dot].value == write.value and live[dot].expires == WITH_AUTHOR]
        demand(bool(mine) and write.expires == WITH_AUTHOR, "a node wrote by itself what it did not own", write)
        self.shadow.local(write, self.history.meaning[mine[0]], anew=True)
        self.tail.append(Local(write, self.segment))

    def after(self, effects: Sequence[Effect], wall: int) -> None:
        """An event is over: everything must be right again."""
        self._latest = max(self._latest, wall)
        self.history.clock = max(self.history.clock, wall)
        self.history.holding |= dict.fromkeys(self._selves, self.shadow.context)
        self._selves |= {effect.claim.instance for effect in effects if isinstance(effect, Reborn)}
        self.history.buried |= {
            each.claim.instance for each in effects if isinstance(each, MemberChanged) and each.claim.gone
        }
        touched = self._data(effects)
        self._expose()
        for effect in effects:
            match effect:
                case Send(_, message) | Dial(_, message):
                    self._message(message)
                case MemberChanged(claim, before, _):
                    self._member(claim, before)
                case Ready():
                    demand(not self.ready, "ready twice")
                    self.ready = True
                case Confirmed(number, peer, durable) if number in self.questions:  # or it was for who was here before
                    there = self.history.safe.get(peer, {}) if durable else self.history.holding[peer]
                    held = all(there.get(replica, 0) >= upto for replica, upto in self.questions[number].items())
                    demand(held, "a peer confirmed what it has not", f"{peer:x}", self.questions[number], there)
                    self.confirmed += 1
                case Warned("diverged", peer, message):
                    demand(False, "a node says that it diverged", f"{peer:x}", message)
        demand(not self.engine.counters["diverged"], "diverged")
        if touched:
            self._changes += 1
        if touched and self._changes % FULL_EVERY == 0:
            self.everything()

    # -- data ------------------------------------------------------------------------------------------------------

    def _data(self, effects: Sequence[Effect]) -> set[Key]:
        store, shadow = self._store, self.shadow
        before = sum(shadow.context.values())
        touched = shadow.advance(store.context) if store.context != shadow.context else set()
        self.delivered += sum(shadow.context.values()) - before
        for effect in effects:
            if isinstance(effect, Changed):
                self._step(effect.changes)
                touched.update(change[0] for change in effect.changes)
        for key in touched:
            self._key(key)
        if touched:
            held = sum(map(len, store.objects.values()))
            demand(held == len(shadow.live), "keys are live that should not be, or lost", held, len(shadow.live))
            demand(store.fingerprint == shadow.fingerprint, "the state's fingerprint is not that of its context")
            demand(store.named == shadow.early, "what is named early", store.named, shadow.early)
        return touched

    def _step(self, changes: Sequence[Change]) -> None:
        """One visible step, as a program sees it."""
        seen: set[tuple[int, int]] = set()
        for key, before, after in changes:
            demand(self._view.get(key) == before, "a change starts from what was never told", key, before)
            old, new = _dots(before), _dots(after)
            demand(new.keys().isdisjoint(self._dead), "back from the dead", key, new)
            self._dead.update(dot for dot in old if dot not in new)
            for dot in new.keys() - old.keys():
                if dot[0] in self._selves:
                    continue
                ahead = milliseconds(new[dot]) - self._latest
                demand(ahead <= self.settings.max_clock_skew * 1000, "a write from the future came in", dot, ahead)
                segment = self.history.segments[dot[0]][dot[1] - 1]
                if segment % 2:
                    seen.add((dot[0], segment))
            if after is None:
                self._view.pop(key, None)
            else:
                self._view[key] = after
        demand(seen.isdisjoint(self._steps), "a transaction became visible in two steps", seen & self._steps)
        self._steps |= seen

    def _take_what_is_over(self, key: Key) -> None:
        """A disk may bring back what is dead, if nobody can see it any more: who dropped it did not write that. It may
        come with a state from there, too."""
        for link in chain(self._store.shown(key)):
            dot = (link[1], link[2])
            if dot in self.shadow.live.get(key, ()):
                continue
            written = self.history.writes.get(dot[0], ())
            write = written[dot[1] - 1] if dot[1] <= len(written) else None
            if write is not None and self.history.is_over(write):
                self.shadow.live.setdefault(key, {})[dot] = write

    def _key(self, key: Key) -> None:
        self._take_what_is_over(key)
        held = {(link[1], link[2]) for link in chain(self._store.shown(key))}
        for dot in [dot for dot in self.shadow.live.get(key, ()) if dot not in held]:
            self.shadow.forget(key, dot)
        got = [link[:5] for link in chain(self._store.shown(key))]
        due = [(write.stamp, *write.dot, write.value, write.expires) for write in self.shadow.chain(key)]
        demand(got == due, "a key is not what was delivered", key, [link[:3] for link in got], [w[:3] for w in due])
        demand(self._view.get(key) == self._store.shown(key), "a change was not told", key)

    def everything(self) -> None:
        """Compares all of it, and reads it through the types."""
        for key in list(self.shadow.live):
            self._key(key)
        demand(self._view.keys() == self.shadow.live.keys(), "keys were told of that are not there, or not told of")
        store, shadow = self._store, self.shadow
        sums = [0] * RANGES
        for writes in shadow.live.values():
            for replica, sequence in writes:
                sums[range_of(replica, sequence)] ^= fingerprint_of(replica, sequence)
        demand(store.sums == sums, "the sums of the ranges are not those of what is live")
        dots = (dot for writes in shadow.live.values() for dot in writes)
        noted = {dot: self.history.notes[dot] for dot in dots if dot in self.history.notes}
        demand(store.notes == noted, "the notes are not those of what is live", store.notes, noted)
        for name in MAPS:
            table = LWWMap(store, name)
            keys = list(table.keys())
            read = [(key, [table.get(key), *table.conflicts(key)]) for key in keys]
            demand(_plain(read) == _plain(shadow.shown(*table.name)), "a map reads wrong", read)
            demand(_plain(table.items()) == _plain((key, values[0]) for key, values in read), "a map's items")
        for name in SETS:
            group = ORSet(store, name)
            due = [element for element, _ in shadow.shown(*group.name)]
            demand(_plain(group) == _plain(due) and all(element in group for element in due), "a set reads wrong", due)
        for name in COUNTERS:
            value = PNCounter(store, name).value
            demand(value == shadow.sums[name], "a counter miscounts", name, value, shadow.sums[name])
        for name in REGISTERS:
            register = LWWRegister(store, name)
            values = [] if register.live is None else [register.value, *register.conflicts]
            due = [value for _, values in shadow.shown(4, name) for value in values]
            demand(values == due, "a register reads wrong", values, due)
        untold = self._selves | self.engine.membership.hearsay.keys()
        others = {instance: claim for instance, claim in self.engine.members.table.items() if instance not in untold}
        demand(others == self._members, "the table is not what was told of members", others, self._members)

    # -- what is told to others ------------------------------------------------------------------------------------

    def _expose(self) -> None:
        """The digest that may be told: of what has left, and nothing else."""
        context = Context(self.shadow.context)
        unpublished = Counter(local.write.dot[0] for local in self.tail)
        for replica, count in unpublished.items():
            context[replica] -= count
            if not context[replica]:
                del context[replica]
        self._may_tell = context
        self._before, self._exposed = (
            self._exposed,
            Digest(context.fingerprint(), self.shadow.fingerprint, ready=False, writes=sum(context.values())),
        )
        if unpublished:
            self._exposed = self._exposed._replace(state=None)
        else:
            known = self.history.states.setdefault(self._exposed.context, self.shadow.fingerprint)
            demand(known == self.shadow.fingerprint, "equal contexts, unequal states")

    def _message(self, message: Message) -> None:
        match message:
            case Ping(_, digest, _) | Ack(_, digest, _, _) | Join(_, digest) | Welcome(_, digest):
                demand(
                    digest._replace(ready=False) in (self._exposed, self._before),
                    "a digest of what has not left",
                    digest,
                    self._exposed,
                )
            case Push(batches):
                demand(self.history.payloads.issuperset(batches), "a batch that nobody published")
            case Pull(_, context):
                self._context(context)
            case StatePart(_, _, _, payload, _) if type((head := unpack(payload))[0]) is bytes:
                told = decode_context(head[0])  # with `full` it has waited for the disk, and more has left meanwhile
                demand(self._may_tell.dominates(told), "a state of what has not left", told)

    def _context(self, encoded: bytes) -> None:
        fingerprint = decode_context(encoded).fingerprint()
        demand(fingerprint == self._exposed.context, "a context of what has not left", decode_context(encoded))

    def _member(self, claim: Claim, before: Claim | None) -> None:
        if claim.instance in self._selves:
            return  # what others say of who one was before: one knows that one is dead
        demand(self._members.get(claim.instance) == before, "a member changed from what was never told", claim, before)
        demand(before is None or not before.gone or claim.gone, "a dead member came back", before, claim)
        demand(before is None or before.joined(claim) == claim != before, "a claim sank", before, claim)
        self._members[claim.instance] = claim
        self.news += 1


def _dots(head: Live | None) -> dict[Dot, int]:
    return {(link[1], link[2]): link[0] for link in chain(head)}


def _plain(things: Any) -> list[str]:
    """In one order, with `1`, `True` and `1.0` apart."""
    return sorted(map(repr, things))
