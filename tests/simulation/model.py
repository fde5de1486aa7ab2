"""What must a node hold, given which writes it has delivered?

The omniscient model. `History` knows every write that ever left a node, in the form in which it left, and what the
program meant by it. `Shadow` applies the one rule to what one node has delivered, in the plainest way there is:

    live = delivered - named

It keeps every named dot for ever and sorts where the store links, so that the two can hardly be wrong in the same way.

Invariant: nothing here asks a `Store`. Not here: when to compare (`checks`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from crdt import FOREVER, WITH_AUTHOR, Context, Dot, Key, Note, Write, decode_batch
from crdt.causality import fingerprint_of
from crdt.timestamp import at

MASK = 2**64 - 1


class Violation(Exception):
    """A promise was broken. Says which, and by whom."""


def demand(holds: bool, broken: str, *details: object) -> None:
    if not holds:
        raise Violation(" ".join([broken, *map(repr, details)])[:600])


class Local(NamedTuple):
    """A write as its author made it. Odd segments are transactions, even ones what lies between them."""

    write: Write
    segment: int


class Meaning(NamedTuple):
    """What the program meant by a write: the element and value it passed in, and by how much it counted."""

    element: Any
    value: Any
    amount: int


class History:
    """All writes that ever left a node, by replica and sequence."""

    def __init__(self) -> None:
        self.writes: dict[int, list[Write | None]] = {}
        self.segments: dict[int, list[int]] = {}
        self.meaning: dict[Dot, Meaning] = {}
        self.payloads: set[bytes] = set()
        self.notes: dict[Dot, Note] = {}
        self.holding: dict[int, Mapping[int, int]] = {}
        """What each instance has delivered; of the dead, what they had."""
        self.safe: dict[int, Context] = {}
        """What is on the disk of each instance that was asked for it."""
        self.clock = 0
        """The latest that any clock ever showed, in milliseconds."""
        self.buried: set[int] = set()
        """Instances that anybody ever called dead, or that left."""
        self.states: dict[int, int] = {}
        """The fingerprint of the state that belongs to each fingerprint of a context."""

    def is_over(self, write: Write) -> bool:
        """Whether some node may have dropped this write by itself: it had expired there, or its owner was gone."""
        if write.expires == WITH_AUTHOR:
            return write.dot[0] in self.buried
        return write.expires != FOREVER and write.expires <= at(self.clock)

    def publish(self, replica: int, payloads: Sequence[bytes], tail: Sequence[Local]) -> list[Local]:
        """Own writes leave, in sequence, transactions whole, and say what they said. Gives those that did not leave."""
        written, segments = self.writes.setdefault(replica, []), self.segments.setdefault(replica, [])
        start = len(written)
        for payload in payloads:
            batch = decode_batch(payload)
            demand(batch.replica == replica and batch.first == len(written) + 1, "a batch leaves out of turn", batch)
            made = sum(local.write.dot[0] == replica for local in tail)
            demand(batch.last - start <= made, "a batch claims writes that nobody made", batch)
            by_sequence = {write.dot[1]: write for write in batch.writes}
            for sequence in range(batch.first, batch.last + 1):
                written.append(by_sequence.get(sequence))
                segments.append(tail[sequence - start - 1].segment)
            rest = [local for local in tail[len(written) - start :] if local.write.dot[0] == replica]
            goes_on = bool(rest) and rest[0].segment % 2 == 1 and rest[0].segment == segments[-1]
            demand(batch.open == goes_on, "a batch is wrong about whether its transaction goes on", batch)
            self.payloads.add(payload)
        left = len(written) - start
        _says_the_same(tail[:left], written[start:])
        return list(tail[left:])

    def inside_transaction(self, replica: int, sequence: int) -> bool:
        """Whether a transaction goes on after this write."""
        segments = self.segments[replica]
        return sequence < len(segments) and segments[sequence] % 2 == 1 and segments[sequence] == segments[sequence - 1]


def _says_the_same(tail: Sequence[Local], published: Sequence[Write | None]) -> None:
    """A blank is allowed only where a later write of its key and segment takes over all that it named."""
    replaced: dict[tuple[Key, int], tuple[set[Dot], set[Dot]]] = {}
    for (made, segment), left in zip(tail, published, strict=True):
        blanks, names = replaced.pop((made.key, segment), (set(), set()))
        names = names | set(made.names)
        if left is None:
            replaced[made.key, segment] = (blanks | {made.dot}, names)
            continue
        demand(left._replace(names=()) == made._replace(names=()), "a write left as another one", made, left)
        demand(
            sorted(left.names) == sorted(names - blanks), "a write left with other names", made, left, names - blanks
        )
    demand(not replaced, "a write was blanked and nothing took its place", replaced)


class Shadow:
    """What one node must hold."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.context: dict[int, int] = {}
        self.live: dict[Key, dict[Dot, Write]] = {}
        self.early: set[Dot] = set()
        """Named, and not delivered yet."""
        self.sums: Counter[str] = Counter()
        self.fingerprint = 0
        self._named: set[Dot] = set()

    def local(self, write: Write, meaning: Meaning, anew: bool = False) -> None:
        """A write is made here: it must be the next, and name all that is live under its key, unless it only renews
        something."""
        replica, sequence = write.dot
        demand(sequence == self.context.get(replica, 0) + 1, "an own write is out of sequence", write)
        demand(
            anew or sorted(write.names) == sorted(self.live.get(write.key, ())),
            "an own write names not what is live",
            write,
        )
        self.history.meaning[write.dot] = meaning
        self.context[replica] = sequence
        self._apply(write)

    def advance(self, context: Mapping[int, int]) -> set[Key]:
        """The node's context moved on: applies what it says was delivered. Gives the keys that this may change."""
        touched: set[Key] = set()
        for replica, sequence in context.items():
            had = self.context.get(replica, 0)
            if sequence == had:
                continue
            written = self.history.writes.get(replica, ())
            demand(sequence > had, "a context went back", f"{replica:x}", had, sequence)
            demand(sequence <= len(written), "delivered what never left its author", f"{replica:x}", sequence)
            demand(
                not self.history.inside_transaction(replica, sequence), "half a transaction", f"{replica:x}", sequence
            )
            self.context[replica] = sequence
            for place in range(had, sequence):
                write = written[place]
                if write is None:
                    self._count((replica, place + 1))
                else:
                    self._apply(write)
                    touched.add(write.key)
        demand(self.context == context, "a replica vanished from a context", self.context, context)
        return touched

    def forget(self, key: Key, dot: Dot) -> None:
        """The node dropped a write by itself, which it may if that is over."""
        write = self.live[key].pop(dot)
        demand(self.history.is_over(write), "a write was dropped that is not over", write)
        if not self.live[key]:
            del self.live[key]

    def _apply(self, write: Write) -> None:
        live = self.live.setdefault(write.key, {})
        for dot in write.names:
            self._named.add(dot)
            dead = live.pop(dot, None)
            if dead is not None:
                self._tally(dead, -1)
            elif dot[1] > self.context.get(dot[0], 0):
                self.early.add(dot)
        self.early.discard(write.dot)
        self._count(write.dot)
        if write.value is not None and write.dot not in self._named:
            live[write.dot] = write
            self._tally(write, +1)
        if not live:
            del self.live[write.key]

    def _count(self, dot: Dot) -> None:
        """A blank of a counter counts as well: what it added is in the write that took its place."""
        meaning = self.history.meaning[dot]
        if meaning.amount:
            self.sums[meaning.element] += meaning.amount

    def _tally(self, write: Write, sign: int) -> None:
        if write.expires == FOREVER:
            self.fingerprint = (self.fingerprint + sign * fingerprint_of(*write.dot)) & MASK

    # -- what must be read -----------------------------------------------------------------------------------------

    def chain(self, key: Key) -> list[Write]:
        """The live writes of a key, the one to be shown first."""
        return sorted(self.live.get(key, {}).values(), key=lambda write: (write.stamp, *write.dot), reverse=True)

    def shown(self, kind: int, name: str) -> list[tuple[Any, list[Any]]]:
        """Every element of an object with its values, shown one first, as the program passed them in."""
        keys = sorted(key for key in self.live if key[:2] == (kind, name))
        meaning = self.history.meaning
        return [
            (meaning[chain[0].dot].element, [meaning[write.dot].value for write in chain])
            for chain in map(self.chain, keys)
        ]
