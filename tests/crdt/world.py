"""What can happen to a few replicas that share a lossy network? Everything that gossip may do to a store, and faster.

A world is 3 to 5 replicas, each a Store, an Inbox and a clock. A step is one thing that happens: somebody writes
through the public types, a cut of somebody's sequence arrives somewhere (early, late, again, as another grouping, in
`open` parts, or never), a whole state is merged, directly, part by part or as far as it differs, fresh or long
outdated. After each step the world compares the replica that it touched with the model, and its bytes with those of
everyone who ever had the same context.

A history is bytes, five for each step: it is drawn in one piece, shrinks well, and a zero is a step in which nothing
happens. Not here: what must hold between states (test_laws), how long a transport takes (there is no time but clocks).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from crdt import (
    FOREVER,
    WITH_AUTHOR,
    Inbox,
    Key,
    LWWMap,
    LWWRegister,
    Note,
    ORSet,
    PNCounter,
    Stage,
    State,
    Store,
    Timestamp,
    Write,
    chain,
    decode_batch,
    decode_element,
    decode_state,
    encode_batch,
    encode_element,
    encode_state,
    state_parts,
)
from crdt.counter import COUNTER
from crdt.live import packed, unpacked
from crdt.maps import MAP
from crdt.ranges import Comparison, Telling
from crdt.register import REGISTER
from crdt.sets import SET
from crdt.timestamp import at, observe, tick
from crdt.write import Scope
from tests.crdt.model import Model, Reach

KINDS = ("map", "set", "counter", "register")
STEP = 5
IDS = (0xA11CE, 2**64 - 1, 3, 0xB0B << 40, 17)
NAMES = ("x", "y")
ELEMENTS = ("ann", "ann", "ann", "ann", 1, True, ("cart", 7), b"")  # mostly one, so that they meet
VALUES = ("tea", 0, None, [1, {"two": 2.5}], False)

Meant = tuple[Write, object]


@dataclass
class Replica:
    id: int
    clock: int  # milliseconds by its own, wrong, wall clock
    store: Store = field(default_factory=Store)
    inbox: Inbox = field(default_factory=lambda: Inbox(limit=1 << 30))
    last: Timestamp = 0

    def stamp(self) -> Timestamp:
        self.last = tick(self.last, self.clock)
        return self.last


class Compared(NamedTuple):
    """What differed between two replicas when they compared their ranges, on its way."""

    to: Replica
    scope: Scope
    parts: list[bytes]
    given: frozenset[tuple[int, int]]


class World:
    """Replicas, and what they do to each other; `kinds` says which types they write."""

    def __init__(
        self, kinds: tuple[str, ...] = KINDS, ids: tuple[int, ...] = IDS, size: int = 3, ties: bool = True
    ) -> None:
        self.kinds = kinds
        self.ties = ties
        self.model = Model()
        self.replicas = [Replica(id, clock=1_000 + 7 * place) for place, id in enumerate(ids[:size])]
        self.snapshots: list[tuple[State, frozenset[tuple[int, int]]]] = []
        self.compared: list[Compared] = []
        self.bytes_of: dict[tuple[tuple[int, int], ...], tuple[bytes, int]] = {}  # context -> state and fingerprint
        self.steps = 0

    # -- histories -------------------------------------------------------------------------------------------------

    def play(self, history: bytes) -> World:
        for start in range(0, len(history) - STEP + 1, STEP):
            self.step(*history[start : start + STEP])
        return self

    def step(self, what: int, who: int, a: int, b: int, c: int) -> None:
        me, other = self.replicas[who % len(self.replicas)], self.replicas[a % len(self.replicas)]
        match what % 18:
            case 0:
                pass
            case 1 | 2 | 3 | 4:
                self.write(me, [(a, b, c)])
            case 5:
                self.write(me, [(a + i, b, c + i) for i in range(2 + c % 3)])
            case 6:
                self.write_twice(me, a, b, c)
            case 7:
                me.clock += (b - 100) * (1 if self.ties else 0)  # now and then an hour, or rather a step, back
            case 8:
                self.snapshots.append((me.store.state(), frozenset(self.model.given[me.id])))
            case 9 if self.snapshots:
                self.merge(me, *self.snapshots[b % len(self.snapshots)], parts=c % 2 == 1)
            case 10:
                self.merge(me, other.store.state(), frozenset(self.model.given[other.id]), parts=c % 2 == 1)
            case 11:
                self.compare(me, other)
            case 12 if self.compared:
                self.finish(b % len(self.compared))
            case _:
                self.send(me, other.id, b, c)

    def write(self, me: Replica, orders: list[tuple[int, int, int]]) -> None:
        """One transaction."""
        first = me.store.context[me.id] + 1
        meant = [made for a, b, c in orders if (made := self._merged(me, a, b, c)) is not None]
        if meant:
            self.model.transaction(me.id, first, me.store.context[me.id], meant)
        self.check(me)

    def write_twice(self, me: Replica, a: int, b: int, c: int) -> None:
        """Two writes of one key before anything left: the first becomes a blank, the second names in its place."""
        first = self._merged(me, a, b, c)
        second = self._merged(me, a, b, c + 1)
        if first is not None and second is not None and first[0].key == second[0].key:
            names = (*first[0].names, *(dot for dot in second[0].names if dot != first[0].dot))
            amounts = [meaning for _, meaning in (first, second) if type(meaning) is int]
            meaning = sum(amounts) if second[0].key[0] == COUNTER else second[1]
            dot = second[0].dot
            self.model.transaction(me.id, dot[1] - 1, dot[1] - 1, [])
            self.model.transaction(me.id, dot[1], dot[1], [(second[0]._replace(names=names), meaning)])
        else:
            for write, meaning in filter(None, (first, second)):
                self.model.transaction(me.id, write.dot[1], write.dot[1], [(write, meaning)])
        self.check(me)

    def _merged(self, me: Replica, a: int, b: int, c: int) -> Meant | None:
        if not self.ties:
            me.clock = 10_000 + self.steps  # nobody ever has the same stamp
        self.steps += 1
        made = order(self.kinds[a % len(self.kinds)], me, NAMES[a // 64 == 3], b, c)
        if made is not None:
            assert me.store.merge(made[0], note_of(me.id)) is not None
            assert me.store.merge(made[0]) is None  # the same again is nothing new
        return made

    def restart(self, place: int) -> None:
        """A new process with the data of an old one is a new replica: what the old one held back is lost."""
        old = self.replicas[place]
        new = Replica(old.id ^ self.steps << 8 | 1 << 50, old.clock)
        self.steps += 1
        if not any(new.id == replica.id for replica in self.replicas) and new.id not in self.model.given:
            self.replicas[place] = new
            self.merge(new, old.store.state(), frozenset(self.model.given[old.id]), parts=True)

    # -- the network -----------------------------------------------------------------------------------------------

    def send(self, to: Replica, author: int, b: int, c: int) -> None:
        """Some cut of an author's sequence arrives; whoever forwards it, it is the same bytes."""
        end = self.model.ends[author][-1] if self.model.ends[author] else 0
        if end:
            expected = to.store.context[author] + 1
            first = 1 + b % end if b < 64 else min(end, expected + (b % 8 == 0))
            self.deliver(to, author, *self._cut(author, first, min(end, first + c % 5)))

    def _cut(self, author: int, first: int, last: int) -> tuple[int, int]:
        """A batch that is open holds a part of one transaction and nothing before it: so authors make them."""
        ends = self.model.ends[author]
        begins = 1 + max((end for end in ends if end < last), default=0)
        return (first if last in ends else max(first, begins)), last

    def deliver(self, to: Replica, author: int, first: int, last: int) -> None:
        self.arrive(to, author, first, last)
        self.check(to)

    def arrive(self, to: Replica, author: int, first: int, last: int) -> None:
        batch = self.model.batch(author, first, last)._replace(note=note_of(author))
        encoded = encode_batch(batch)
        received = decode_batch(encoded)
        assert received == batch
        assert encode_batch(received) == encoded
        self.model.given[to.id] |= {(author, n) for n in range(first, last + 1)}
        for write in batch.writes:
            to.last = observe(to.last, write.stamp, to.clock, max_skew=10**9)
        for ready, came_as in to.inbox.add(received, encoded, to.store.context[author]):
            assert decode_batch(came_as) == ready
            to.store.merge_batch(ready)

    def merge(self, to: Replica, state: State, given: frozenset[tuple[int, int]], parts: bool) -> None:
        """A whole state arrives, and what was waiting for it goes through."""
        if parts:
            stage = Stage()
            for part in state_parts(state, limit=64):
                stage.add(part)
            assert stage.state() == state
            to.last = max(to.last, stage.newest)
            state = stage.state()
        to.store.merge_state(state)
        for author in to.inbox.waiting():
            for ready, _ in to.inbox.release(author, to.store.context[author]):
                to.store.merge_batch(ready)
        self.model.given[to.id] |= self._settled(given)
        self.check(to)

    def compare(self, me: Replica, other: Replica) -> None:
        """Two compare their ranges now, and what differs arrives later: both go on meanwhile."""
        telling, comparison = Telling(other.store.state(), other.store.sums), Comparison(me.store)
        wanted = comparison.ranges(telling.ranges(comparison.groups(telling.groups())))
        parts = list(telling.parts(wanted, limit=64))
        self.compared.append(Compared(me, comparison.scope, parts, frozenset(self.model.given[other.id])))

    def finish(self, place: int) -> None:
        """What differed arrives."""
        to, scope, parts, given = self.compared.pop(place)
        if to not in self.replicas or not to.store.context:
            return  # it is no more, or had nothing when it asked and has nothing now: it takes whole states
        stage = Stage()
        for part in parts:
            stage.add(part)
        state = stage.state(scope)
        again = Stage()
        for part in state_parts(state, limit=64):
            again.add(part)
        assert again.state() == state, "a disk keeps the scope as well"
        self.merge(to, state, given, parts=False)

    def _settled(self, given: frozenset[tuple[int, int]]) -> set[tuple[int, int]]:
        """A state carries what was delivered, not what was still held in the other's inbox."""
        reach = self.model.reach(0, set(given))
        return {dot for dot in given if dot[1] <= reach.get(dot[0], 0)}

    def agree(self) -> None:
        """Everybody gets everything, last to first, so that most of it comes too early."""
        for replica in self.replicas:
            for author, ends in list(self.model.ends.items()):
                for n in reversed(range(1, max(ends, default=0) + 1)):
                    self.arrive(replica, author, n, n)
                self.check(replica)

    # -- the invariants --------------------------------------------------------------------------------------------

    def check(self, replica: Replica) -> None:
        """Everything that is true of a replica at any moment, whatever happened."""
        reach = self.model.reach(replica.id)
        store = replica.store
        assert store.context == reach, "delivered is what came without a gap, in whole transactions"
        live = self.model.live(reach)
        found = {(*name, element): head for name, heads in store.objects.items() for element, head in heads.items()}
        assert {key: [_flat(link) for link in chain(head)] for key, head in found.items()} == {
            key: [(write.stamp, *write.dot, write.value, write.expires) for write in writes]
            for key, writes in live.items()
        }, "live = delivered - named"
        dots = {write.dot for writes in live.values() for write in writes}
        noted = {dot: note for dot in dots if (note := note_of(dot[0])) is not None}
        assert store.notes == noted, "what is live has its note, and nothing else has"
        assert all(store.objects.values()), "no empty object is kept"
        assert all(head == packed(unpacked(head)) for head in found.values()), "one write that lasts is packed"
        assert store.named == self.model.named(reach), "what is named early waits, and nothing else does"
        assert store.fingerprint == self.model.fingerprint(reach), "the fingerprint is kept up"
        assert store.context_fingerprint() == store.context.fingerprint(), "that of the context as well"
        sums = list(store.sums)
        store.recount()
        assert sums == store.sums, "and the sums of the ranges"
        if self.model.closed(reach):
            assert live == self.model.live_by_knowledge(reach), "a write replaces exactly what its author had seen"
        self._check_that_the_dead_stay_dead(replica, reach)
        self._check_bytes(store)
        self._check_readings(store, reach, live)

    def _check_that_the_dead_stay_dead(self, replica: Replica, reach: Reach) -> None:
        alive = {(live[1], live[2]) for _, live in lives(replica.store.state())}
        dead = {write.dot for write in self.model.delivered(reach)} - alive
        assert not alive & self.model.dead[replica.id], "nothing deleted comes back"
        self.model.dead[replica.id] |= dead

    def _check_bytes(self, store: Store) -> None:
        state = store.state()
        encoded = encode_state(state)
        known = self.bytes_of.setdefault(tuple(sorted(store.context.items())), (encoded, store.fingerprint))
        assert known == (encoded, store.fingerprint), "equal contexts, equal bytes and equal fingerprint"
        assert decode_state(encoded) == state

    def _check_readings(self, store: Store, reach: Reach, live: dict[Key, list[Write]]) -> None:
        for name in NAMES:
            meant: dict[int, dict[bytes, list[object]]] = {MAP: {}, SET: {}, COUNTER: {}, REGISTER: {}}
            for kind, object_name, element in live:
                if object_name == name:
                    writes = live[kind, name, element]
                    meant[kind][element] = [self.model.meant[write.dot] for write in writes]
            entries = LWWMap(store, name)
            assert {encode_element(key): value for key, value in entries.items()} == {
                element: values[0] for element, values in meant[MAP].items()
            }
            for element, values in meant[MAP].items():
                key = decode_element(element)
                assert [entries.get(key), *entries.conflicts(key)] == values
                assert key in entries
            assert len(entries) == len(list(entries.keys())) == len(meant[MAP])
            members = ORSet(store, name)
            assert {(type(m), m) for m in members} == {(type(m), m) for [m, *_] in meant[SET].values()}
            assert len(members) == len(meant[SET])
            assert PNCounter(store, name).value == self.model.counted(reach, name)
            register = LWWRegister(store, name)
            assert [register.value, *register.conflicts] == meant[REGISTER].get(b"", [None])


def order(kind: str, me: Replica, name: str, b: int, c: int) -> Meant | None:
    """What a user of the public types asks for: the write, and what was meant by it. None if there is nothing to do."""
    make: dict[str, Callable[[Replica, str, int, int], Meant | None]] = {
        "map": _order_map,
        "set": _order_set,
        "counter": _order_counter,
        "register": _order_register,
    }
    return make[kind](me, name, b, c)


def note_of(author: int) -> Note | None:
    """The note of all that a replica writes: a batch has one, however it is cut."""
    return (None, Note("bob", "for the test"), Note(None, "for the test"))[author % 3]


def expiry(c: int) -> int:
    return (FOREVER, FOREVER, FOREVER, at(5_000), WITH_AUTHOR)[c // 16 % 5]


def _order_map(me: Replica, name: str, b: int, c: int) -> Meant | None:
    entries, key = LWWMap(me.store, name), ELEMENTS[b % 8]
    if c % 3 == 0:
        write = entries.delete(key, me.id, me.stamp())
        assert (write is None) == (key not in entries)
        return write and (write, None)
    value = VALUES[c % 5]
    return entries.set(key, value, me.id, me.stamp())._replace(expires=expiry(c)), value


def _order_set(me: Replica, name: str, b: int, c: int) -> Meant | None:
    members, element = ORSet(me.store, name), ELEMENTS[b % 8]
    if c % 2 == 0:
        write = members.remove(element, me.id, me.stamp())
        assert (write is None) == (element not in members)
        return write and (write, None)
    return members.add(element, me.id, me.stamp())._replace(expires=expiry(c)), element


def _order_counter(me: Replica, name: str, b: int, c: int) -> Meant | None:
    amount = b - 128
    return PNCounter(me.store, name).add(amount, me.id, me.stamp()), amount


def _order_register(me: Replica, name: str, b: int, c: int) -> Meant | None:
    register = LWWRegister(me.store, name)
    if c % 4 == 0:
        write = register.delete(me.id, me.stamp())
        return write and (write, None)
    value = VALUES[b % 5]
    return register.set(value, me.id, me.stamp())._replace(expires=expiry(c)), value


# -- looking at states -----------------------------------------------------------------------------------------------


def store_of(*states: State) -> Store:
    """A store that merged these, one after the other."""
    store = Store()
    for state in states:
        store.merge_state(state)
    return store


def lives(state: State) -> list[tuple[tuple[int, str, bytes], tuple[Timestamp, int, int, bytes, int]]]:
    """Every live write with its key."""
    return [
        ((*name, element), _flat(link))
        for name, elements in state.objects.items()
        for element, head in elements.items()
        for link in chain(head)
    ]


def anonymous(state: State, ids: tuple[int, ...]) -> tuple[object, ...]:
    """A state in which replicas are called by their place in `ids`: equal for histories that differ in names only."""
    place = {id: number for number, id in enumerate(ids)}
    keyed = {}
    for (kind, name, element), (stamp, replica, sequence, value, expires) in lives(state):
        part = place[int.from_bytes(element, "big")] if kind == COUNTER else element
        chained = keyed.setdefault((kind, name, part), [])
        chained.append((stamp, place[replica], sequence, value, expires))
    return (
        {place[replica]: sequence for replica, sequence in state.context.items()},
        {(place[replica], sequence) for replica, sequence in state.named},
        keyed,
    )


def _flat(link: tuple[object, ...]) -> tuple[object, ...]:
    return link[:5]
