"""What is there, given the writes that were delivered?

    live(key) = delivered writes with a value, less those that any delivered write names

A write names the live writes of its key that its author saw and replaces. So state is a function of the context
alone: *equal contexts, equal state*, whatever the order, loss, repetition or route. A delete is a write without a
value. Once delivered, nothing of it is left: there are no tombstones.

Invariants, which every test may check at any moment:
  - writes of one replica are delivered in sequence; `context` says how far;
  - a write may name a dot not delivered here yet: it waits in `named`, and that write will be born dead;
  - `named` holds no dot that the context covers;
  - `objects` has one dict for each object of which anything is live, and one that was ended is left empty;
  - `mortal` lists exactly the keys with a live write that expires or is owned;
  - `notes` has exactly the live writes whose batch had a note;
  - `sums` has, for each range, the fingerprints of exactly the live writes that lie in it (see `tally`);
  - whoever joins a context has applied everything that it covers, in the same step.

Source: DottedDB (Goncalves et al. 2017) and optimized OR-sets (Bieniusa et al. 2012), one rule for all types.
Not here: bytes (`codec`, `state`), writes that came early (`inbox`), the live writes of one key (`live`), what a type
makes of them (`maps`, `sets`, ...).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import islice

from crdt.causality import SPREAD, TO_RANGE, Context, Dot, fingerprint_of
from crdt.live import (
    FOREVER,
    WITH_AUTHOR,
    Link,
    Live,
    chain,
    dot_of,
    dots_in,
    find,
    head_of,
    is_mortal,
    is_one,
    is_over,
    linked,
    pack_head,
    packed,
    unpack_dot,
    unpacked,
    with_one,
    without,
)
from crdt.tally import Tally
from crdt.timestamp import Timestamp
from crdt.write import MAX_NAMES, Batch, Change, Key, Note, Object, Scope, State, Write

_MASK = 0xFFFF_FFFF_FFFF_FFFF


class Store:
    """The delivered writes of a replica, reduced to what still matters.

    >>> from crdt import LWWMap
    >>> store = Store()
    >>> write = LWWMap(store, "flags").set("beta", True, replica=7, stamp=1)  # asks, changes nothing
    >>> store.merge(write) is not None  # the one door, for us and others
    True
    >>> store.merge(write) is not None  # again: nothing new
    False
    >>> head_of(store.shown(write.key))
    (1, 7, 1)
    """

    __slots__ = ("_counted", "_delivered", "_moved", "_tally", "context", "mortal", "named", "notes", "objects")

    def __init__(self) -> None:
        self.context = Context()
        self.named: set[Dot] = set()
        self.objects: dict[Object, dict[bytes, Live]] = {}
        self.mortal: dict[Object, dict[bytes, None]] = {}
        """The keys with a live write that may end without another write, so that nobody looks for them among all."""
        self.notes: dict[Dot, Note] = {}
        """Beside the live writes and not in them: most have none, and a million would be larger by a word each."""
        self._tally = Tally()
        self._counted = self._delivered = 0
        """The fingerprint of the context, and the sum of its sequences, as they were when `_moved` was empty."""
        self._moved: dict[int, int] = {}
        """Replicas of which something was delivered since then, with how far they were."""

    def clear(self) -> None:
        """Forgets everything, as if it were new: views of it stay what they are."""
        self._let_go()
        self.__init__()  # type: ignore[misc]

    def _let_go(self) -> None:
        """Has no objects any more, and leaves nothing to whoever has one in hand."""
        for elements in self.objects.values():
            elements.clear()
        self.objects, self.mortal = {}, {}

    # -- asking ------------------------------------------------------------------------------------------------------

    def write(self, key: Key, value: bytes | None, replica: int, stamp: Timestamp, expires: int = FOREVER) -> Write:
        """The next write of `replica`, replacing all that is live here under this key. Changes nothing: merge it.

        Of more than `MAX_NAMES` concurrent ones it replaces the greatest; the next write replaces the rest. Raises
        `TypeError` or `ValueError` for what can not be: replica and stamp are numbers of 64 bits, and no replica is 0.
        """
        _check(key, value, replica, stamp, expires)
        names = tuple(_dots_of(self.shown(key)))
        return Write((replica, self.context[replica] + 1), key, stamp, value, names, expires)

    def shown(self, key: Key) -> Live | None:
        """What is live under this key, None if nothing is: `value_of`, `head_of` and `chain` read it."""
        elements = self.objects.get(key[:2])
        return None if elements is None else elements.get(key[2])

    def elements(self, name: Object) -> Mapping[bytes, Live]:
        """What is live of an object, by element; empty if nothing is. The store's own mapping: look, copy to keep."""
        return self.objects.get(name, _NOTHING)

    def state(self) -> State:
        """All of it, as of now, unaffected by later merges."""
        objects = {name: dict(elements) for name, elements in self.objects.items()}
        return State(Context(self.context), frozenset(self.named), objects, notes=dict(self.notes))

    def context_fingerprint(self) -> int:
        """`context.fingerprint()`, for what it costs to count what was delivered since it was asked for last.

        Of 60 000 replicas it took 64 ms to sum them all, at every ping.
        """
        delivered, counted = self._delivered, self._counted
        for replica, before in self._moved.items():
            delivered += self.context[replica] - before
            counted += fingerprint_of(replica, self.context[replica])
            if before:
                counted -= fingerprint_of(replica, before)
        # without a call in between, after which a signal handler may raise: no audit would find what is wrong here
        self._delivered, self._counted, self._moved = delivered, counted & _MASK, {}
        return self._counted

    @property
    def fingerprint(self) -> int:
        """Of the live writes that neither expire nor are owned: equal contexts must have equal ones (the audit)."""
        return self._tally.counted()[0]

    @property
    def sums(self) -> list[int]:
        """Of all live writes, range by range: an exclusive or, which adds and takes away alike."""
        return self._tally.counted()[1]

    def delivered(self) -> int:
        """How many writes were delivered, blanks included; less than 2**64, whatever anybody claims."""
        moved = sum(self.context[replica] - before for replica, before in self._moved.items())
        return (self._delivered + moved) & _MASK

    # -- merging -----------------------------------------------------------------------------------------------------

    def merge(self, write: Write, note: Note | None = None) -> Change | None:
        """Delivers a write, of a batch with this note. None if it was delivered before.

        Raises `ValueError` if writes before it are missing, or if another write with its dot is live under its key: two
        were asked for before the first was merged. Also what `write` raises, and `TypeError` for what is no write.
        """
        if type(write) is not Write:
            raise TypeError(f"merge takes a Write, not {type(write).__name__}: delete gives None where nothing is live")
        replica, sequence = write.dot
        _check(write.key, write.value, replica, write.stamp, write.expires)
        delivered = self.context[replica]
        if sequence <= delivered:
            self._check_same(write)
            return None
        if sequence != delivered + 1:
            raise ValueError(f"write {sequence} of replica {replica:016x} came after {delivered}: hold it in an Inbox")
        self._moved.setdefault(replica, delivered)
        self.context[replica] = sequence
        self._tally.bound()
        return self._apply(write, note)

    def _check_same(self, write: Write) -> None:
        link = find(unpacked(self.shown(write.key)), write.dot)
        if link is not None and link[:5] != (write.stamp, *write.dot, write.value, write.expires):
            raise ValueError(
                f"two writes are number {write.dot[1]} of replica {write.dot[0]:016x}, and this one came second: merge "
                "each write before you ask for the next, and give no two writers the same replica"
            )

    def put_all(
        self, drafts: Iterable[tuple[Key, Link]], replica: int, note: Note | None = None
    ) -> tuple[tuple[Write, ...], list[Change]]:
        """Makes and delivers the next writes of `replica`, one for each of these keys: of a `Link` its stamp, value and
        end count. It is `write` and `merge` of each, in line, so that a turn's writes are gone through once."""
        writes: list[Write] = []
        changes: list[Change] = []
        context, objects, sequence = self.context, self.objects, self.context[replica]
        born, died, usual = self._tally.born[replica], self._tally.died, note is None and not self.named
        new = tuple.__new__  # what a named tuple's own does, in half the time
        self._moved.setdefault(replica, sequence)
        elements: dict[bytes, Live] | None = None
        kind, name = -1, ""  # of the object whose `elements` these are: consecutive drafts mostly have the same
        for key, (stamp, _, _, value, expires, _) in drafts:
            sequence += 1
            its_kind, its_name, element = key
            if its_name != name or its_kind != kind:
                kind, name = its_kind, its_name
                elements = objects.get((kind, name))
            before = None if elements is None else elements.get(element)
            names: tuple[Dot, ...] = ()
            if before is not None:
                names = (unpack_dot(before),) if isinstance(before, bytes) else tuple(_dots_of(before))
            write = new(Write, ((replica, sequence), key, stamp, value, names, expires))
            context[replica] = sequence
            # a chain has conflicts or an end, and only `_apply` knows those
            if elements is not None and usual and expires == FOREVER and (isinstance(before, bytes) or not names):
                if names:
                    died[names[0][0]].append(names[0][1])
                    if self.notes:
                        self.notes.pop(names[0], None)
                born.append(sequence)
                live = elements[element] = pack_head(stamp, replica, sequence) + value
                changes.append((key, before, live))
            else:
                changes.append(self._apply(write, note))
                kind = -1  # that may have made the object, or ended it
            writes.append(write)
        self._tally.bound(len(writes))
        return tuple(writes), changes

    def merge_batch(self, batch: Batch) -> list[Change]:
        """Delivers what is new of a batch, in one step. Raises `ValueError` if what is before it is missing. Its writes
        are taken as they are: `decode_batch` has checked them, or `write` has."""
        replica, delivered = batch.replica, self.context[batch.replica]
        if batch.first > delivered + 1:
            raise ValueError(
                f"batch {batch.first}-{batch.last} of replica {replica:016x} came after {delivered}: use an Inbox"
            )
        if batch.last <= delivered:
            return []
        self._moved.setdefault(replica, delivered)
        changes = self._apply_all(batch, delivered)
        self._tally.bound(len(changes))
        self.context[replica] = batch.last
        if self.named and len(batch.writes) <= batch.last - batch.first:
            # a blank can be named only by mistake; it must not stay in `named` for ever all the same
            self.named = {dot for dot in self.named if not self.context.covers(dot)}
        return changes

    def _apply_all(self, batch: Batch, delivered: int) -> list[Change]:
        """What is new of a batch. In line is what most writes do, in three quarters of `_apply`'s instructions: last,
        and take the place of one other that would, or of none. `put_all` has the same in line."""
        changes: list[Change] = []
        context, objects, note, replica = self.context, self.objects, batch.note, batch.replica
        born, died = self._tally.born[replica], self._tally.died
        elements: dict[bytes, Live] | None = None
        kind, name = -1, ""  # of the object whose `elements` these are: consecutive writes mostly have the same
        for write in batch.writes:
            (_, sequence), (its_kind, its_name, element), stamp, value, names, expires = write
            if sequence <= delivered:
                continue
            context[replica] = sequence
            if its_name != name or its_kind != kind:
                kind, name = its_kind, its_name
                elements = objects.get((kind, name))
            if elements is not None and value is not None and expires == FOREVER and note is None and not self.named:
                before = elements.get(element)
                if not names if before is None else isinstance(before, bytes) and names == (unpack_dot(before),):
                    if names:
                        died[names[0][0]].append(names[0][1])
                        if self.notes:
                            self.notes.pop(names[0], None)
                    born.append(sequence)
                    live = elements[element] = pack_head(stamp, replica, sequence) + value
                    changes.append((write[1], before, live))
                    continue
            changes.append(self._apply(write, note))
            kind = -1  # that may have made the object, or ended it
        return changes

    def _apply(self, write: Write, note: Note | None) -> Change:
        """What a write does to its key."""
        dot, key, stamp, value, names, expires = write
        name, element = key[:2], key[2]
        elements = self.objects.get(name)
        before = None if elements is None else elements.get(element)
        link = was = unpacked(before)
        if names:
            link = self._without_all(link, names)
        if self.named and dot in self.named:
            self.named.discard(dot)
        elif value is not None:
            born: Link = (stamp, dot[0], dot[1], value, expires, None)
            self._tally.add(born)
            link = born if link is None else with_one(link, born)
            if note is not None:
                self.notes[dot] = note
        if link is was:
            return key, before, before
        after = packed(link)
        if elements is None or after is None:
            self._put(key, after)
        elif isinstance(after, bytes):
            if name in self.mortal:  # first: who writes it from then on goes the short way, which does not look there
                self._note_mortal(name, element, after)
            elements[element] = after
        else:
            elements[element] = after
            self._note_mortal(name, element, after)
        return key, before, after

    def _without_all(self, link: Link | None, names: Iterable[Dot]) -> Link | None:
        """The chain less what is named of it; what was not delivered yet is remembered as named early."""
        for named in names:
            dead = find(link, named)
            if dead is not None:
                link = without(link, dead)
                self._tally.remove(dead)
                if self.notes:
                    self.notes.pop(named, None)
            elif named[1] > self.context.get(named[0], 0):
                self.named.add(named)
        return link

    def _put(self, key: Key, live: Live | None) -> None:
        name = key[:2]
        self._note_mortal(name, key[2], live)
        elements = self.objects.get(name)
        if live is not None:
            if elements is None:
                elements = self.objects[name] = {}
            elements[key[2]] = live
        elif elements is not None:
            elements.pop(key[2], None)
            if not elements:
                elements.clear()  # of its table too: it stays as long as somebody has it in hand
                del self.objects[name]

    def _note_mortal(self, name: Object, element: bytes, live: Live | None) -> None:
        if is_mortal(live):
            self.mortal.setdefault(name, {})[element] = None
        elif name in self.mortal:
            keys = self.mortal[name]
            keys.pop(element, None)
            if not keys:
                del self.mortal[name]

    def drop(self, key: Key, now: Timestamp, gone: Container[int]) -> Change | None:
        """Forgets the live writes of a key that have expired by `now`, or whose author is `gone`; None if none has.

        This is no write: each node does it by itself, and nobody need be told. What was concurrent shows again.
        """
        before = self.shown(key)
        if isinstance(before, bytes):
            return None
        kept = []
        for link in chain(before):
            if is_over(link, now, gone):
                self._tally.remove(link)
                self.notes.pop((link[1], link[2]), None)
            else:
                kept.append(link)
        left = linked(kept, None)
        if left is before:
            return None
        after = packed(left)
        self._put(key, after)
        self._tally.bound()
        return key, before, after

    # -- full state --------------------------------------------------------------------------------------------------

    def merge_state(self, theirs: State) -> list[Change]:
        """Merges all that a peer holds, in one step: exactly as if every write they had delivered came here.

        One of mine that they delivered but no longer hold is dead there, so it dies here. One of theirs that I
        delivered but no longer hold is dead here, so it stays dead. Only then does the context join: it must
        never claim what was not applied, which is why half a state can not be merged at all (see `state.Stage`).
        A state with a scope is as whole: what it does not tell of is what was here when ranges were compared.
        """
        if not self.context and theirs.scope is None:
            return self._take_over(theirs)
        changes: list[Change] = []
        for name in {**theirs.objects, **self.objects}:
            mine, other = self.objects.get(name, _NOTHING), theirs.objects.get(name, _NOTHING)
            for element, there in other.items():
                before: Live | None = mine.get(element)
                if before == there if isinstance(before, bytes) else is_one(before, there):
                    continue  # the usual case between nodes that know each other: one write, the same here and there
                after = self._joined(before, there, theirs)
                if after is not before:  # a chain of the same links is the same chain, see `linked`
                    changes.append(((*name, element), before, after))
            for element, before in mine.items() if theirs.scope is None else _in_scope(mine, theirs.scope):
                if element in other:
                    continue
                after = self._joined(before, None, theirs)
                if after is not before:
                    changes.append(((*name, element), before, after))
        self._replace(changes, theirs.notes)
        self._join(theirs.context)
        self.named = {dot for dot in self.named | theirs.named if not self.context.covers(dot)}
        return changes

    def adopt(self, theirs: State) -> list[Change]:
        """Takes live writes that are missing here, though they were delivered, from a peer that has delivered all that
        was delivered here. What it has beyond that comes by itself.

        Equal contexts have equal states, so this is the repair of what can not be; it is left to the caller to cry out.
        Which of the two is wrong nobody knows. What is taken in vain can be deleted again, what is dropped is lost.
        """
        changes: list[Change] = []
        for name, elements in theirs.objects.items():
            for element, there in elements.items():
                before = self.shown((*name, element))
                mine = dots_in(before)
                lost = [link for link in chain(there) if self._has_lost(link, mine)]
                if lost:
                    after = packed(linked(sorted([*chain(before), *lost], key=head_of, reverse=True), None))
                    changes.append(((*name, element), before, after))
        self._replace(changes, theirs.notes)
        return changes

    def _has_lost(self, link: Link, mine: set[Dot]) -> bool:
        dot = (link[1], link[2])
        return link[4] == FOREVER and dot not in mine and self.context.covers(dot)

    def recount(self) -> None:
        """Counts the fingerprint and the sums anew, from what is here."""
        tally = Tally()
        for elements in self.objects.values():
            for live in elements.values():
                tally.add_all(live)
        self._tally = tally

    def _replace(self, changes: Iterable[Change], notes: Mapping[Dot, Note]) -> None:
        """Puts what is live after each change in the place of what was before; `notes` are those of what is new."""
        for key, before, after in changes:
            self._tally.remove_all(before)
            self._tally.add_all(after)
            self._put(key, after)
            if self.notes or notes:
                left = dots_in(after)
                for dot in dots_in(before) - left:
                    self.notes.pop(dot, None)
                self.notes |= {dot: notes[dot] for dot in left if dot in notes}
        self._tally.bound()

    def _join(self, context: Context) -> None:
        for replica, sequence in context.items():
            if sequence > self.context[replica]:
                self._moved.setdefault(replica, self.context[replica])
                self.context[replica] = sequence

    def _take_over(self, theirs: State) -> list[Change]:
        """The same for a newcomer: to whom nothing was delivered nothing can be dead, or concurrent with anything. The
        context comes last, or a newcomer who was cut short would never do the rest."""
        self._let_go()  # what is left of one that was cut short
        self.objects = {name: dict(elements) for name, elements in theirs.objects.items()}
        self.named = set(theirs.named)
        self.notes = dict(theirs.notes)
        self.recount()
        changes: list[Change] = []
        for name, elements in self.objects.items():
            changes += [((*name, element), None, live) for element, live in elements.items()]
            for element, live in elements.items():
                if not isinstance(live, bytes):
                    self._note_mortal(name, element, live)
        self._join(theirs.context)
        return changes

    def _joined(self, mine: Live | None, theirs: Live | None, state: State) -> Live | None:
        if not (isinstance(mine, tuple) or isinstance(theirs, tuple)):  # one write at most on each side: half the time
            if mine is not None and theirs is not None and dot_of(mine) == dot_of(theirs):
                return mine
            keeps = mine is not None and not state.buries(dot_of(mine))
            takes = theirs is not None and not self._knows(dot_of(theirs))
            if not (keeps and takes):
                return mine if keeps else theirs if takes else None
        was = unpacked(mine)
        my_dots, their_dots = dots_in(was), dots_in(theirs)
        joined = []
        for link in chain(was):
            dot = (link[1], link[2])
            if dot in their_dots or not state.buries(dot):
                joined.append(link)
        for link in chain(theirs):
            dot = (link[1], link[2])
            if not (dot in my_dots or self._knows(dot)):
                joined.append(link)
        if len(joined) > 1:
            joined.sort(key=head_of, reverse=True)
        both = linked(joined, None)
        return mine if both is was else packed(both)

    def _knows(self, dot: Dot) -> bool:
        """Whether a write was delivered here, or was named by one that was: if it is not live, then it is dead."""
        return dot[1] <= self.context.get(dot[0], 0) or dot in self.named


_NOTHING: Mapping[bytes, Live] = {}


def _check(key: Key, value: bytes | None, replica: int, stamp: Timestamp, expires: int) -> None:
    """Raises `TypeError` or `ValueError` for what nobody could have asked for, before anything has changed."""
    if type(key) is not tuple or (*map(type, key),) != (int, str, bytes):
        raise TypeError(
            f"key {key!r:.80} is not allowed: it is (type, name, element), and crdt.encode_element makes those"
        )
    if value is not None and type(value) is not bytes:
        raise TypeError(f"a value of type {type(value).__name__} is not allowed: crdt.encode_value makes them, bytes")
    for what, number, least in (("replica", replica, 1), ("stamp", stamp, 0), ("expires", expires, WITH_AUTHOR)):
        if type(number) is not int or not least <= number <= _MASK:
            wrong = TypeError if type(number) is not int else ValueError
            raise wrong(f"{what} {number!r:.40} is not allowed: it is a number from {least} to 2**64 - 1")


def _dots_of(live: Live | None) -> Iterator[Dot]:
    """What a write names that replaces these: as many as it may."""
    if isinstance(live, bytes):
        return iter((unpack_dot(live),))
    return ((each[1], each[2]) for each in islice(chain(live), MAX_NAMES))


def _in_scope(elements: Mapping[bytes, Live], scope: Scope) -> Iterator[tuple[bytes, Live]]:
    """The elements with a live write of which a state of this scope tells.

    Most have none, and all are looked at: so `range_of` and `covers` stand in line here, which takes a third off it.
    """
    ranges, compared = scope
    for element, live in elements.items():
        dots = (unpack_dot(live),) if isinstance(live, bytes) else dots_in(live)
        for replica, sequence in dots:
            if ((replica + sequence * SPREAD) & _MASK) >> TO_RANGE in ranges or sequence > compared.get(replica, 0):
                yield element, live
                break
