"""What must be there? The same question as crdt.store's, answered by somebody who sees everything and is in no hurry.

The model keeps every write ever made, what its author had delivered by then, and which dots each replica was given.
It derives everything from these, from scratch, at every question. It shares no shortcut with the store: no context is
kept up, nothing is dropped, nothing is patched.

It knows two answers and holds them against each other:
  by the rule     live = delivered writes with a value, less those that any delivered write names;
  by knowledge    live = delivered writes with a value, less those that the author of a delivered write of the key had
                  seen. It does not look at names at all, so it catches authors that name the wrong thing. It holds
                  where whatever a delivered write's author knew was delivered too: after all agree, for one.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from crdt import FOREVER, Batch, Dot, Key, Write
from crdt.causality import fingerprint_of

Reach = dict[int, int]  # replica -> the last sequence delivered


@dataclass
class Model:
    writes: dict[Dot, Write] = field(default_factory=dict)
    known: dict[Dot, Reach] = field(default_factory=dict)  # what the author had delivered when it wrote this
    meant: dict[Dot, object] = field(default_factory=dict)  # the Python value of it; None for a delete
    ends: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))  # where each transaction ends
    given: dict[int, set[Dot]] = field(default_factory=lambda: defaultdict(set))  # dots that came, blanks too
    dead: dict[int, set[Dot]] = field(default_factory=lambda: defaultdict(set))  # dots once seen dead by a replica

    # -- what happens --------------------------------------------------------------------------------------------

    def transaction(self, author: int, first: int, last: int, writes: list[tuple[Write, object]]) -> None:
        before = self.reach(author)
        for write, meaning in writes:
            self.writes[write.dot] = write
            self.meant[write.dot] = meaning
            self.known[write.dot] = {**before, author: write.dot[1] - 1}
        self.ends[author].append(last)
        self.given[author] |= {(author, sequence) for sequence in range(first, last + 1)}

    def batch(self, author: int, first: int, last: int) -> Batch:
        """The author's sequences `first` to `last`, as he or anybody who passes them on may cut them."""
        writes = [self.writes[author, n] for n in range(first, last + 1) if (author, n) in self.writes]
        return Batch(author, first, last, tuple(writes), last not in self.ends[author])

    # -- what follows from it ------------------------------------------------------------------------------------

    def reach(self, replica: int, given: set[Dot] | None = None) -> Reach:
        """How far a replica delivered: no gap, and whole transactions only."""
        given = self.given[replica] if given is None else given
        reach = {}
        for author, ends in self.ends.items():
            without_gap = 0
            while (author, without_gap + 1) in given:
                without_gap += 1
            reach[author] = max((end for end in ends if end <= without_gap), default=0)
        return {author: end for author, end in reach.items() if end}

    def delivered(self, reach: Reach) -> list[Write]:
        return [write for dot, write in self.writes.items() if dot[1] <= reach.get(dot[0], 0)]

    def live(self, reach: Reach) -> dict[Key, list[Write]]:
        """The live writes of every key that has any, the one to be shown first."""
        delivered = self.delivered(reach)
        named = {dot for write in delivered for dot in write.names}
        return _by_key([write for write in delivered if write.value is not None and write.dot not in named])

    def live_by_knowledge(self, reach: Reach) -> dict[Key, list[Write]]:
        delivered = self.delivered(reach)
        return _by_key(
            [
                write
                for write in delivered
                if write.value is not None
                and not any(
                    other.key == write.key and write.dot[1] <= self.known[other.dot].get(write.dot[0], 0)
                    for other in delivered
                )
            ]
        )

    def closed(self, reach: Reach) -> bool:
        """Whether everything that the authors of the delivered writes knew was delivered too."""
        return all(
            sequence <= reach.get(replica, 0)
            for write in self.delivered(reach)
            for replica, sequence in self.known[write.dot].items()
        )

    def named(self, reach: Reach) -> set[Dot]:
        """What was named before it came."""
        return {dot for write in self.delivered(reach) for dot in write.names if dot[1] > reach.get(dot[0], 0)}

    def fingerprint(self, reach: Reach) -> int:
        lasting = [write.dot for writes in self.live(reach).values() for write in writes if write.expires == FOREVER]
        return sum(fingerprint_of(*dot) for dot in lasting) % 2**64

    def counted(self, reach: Reach, name: str) -> int:
        """The value of a counter: simply every amount ever added, as far as it was delivered."""
        return sum(
            amount
            for write in self.delivered(reach)
            if write.key[:2] == (3, name) and isinstance(amount := self.meant[write.dot], int)
        )


def _by_key(writes: list[Write]) -> dict[Key, list[Write]]:
    keys: dict[Key, list[Write]] = {}
    for write in sorted(writes, key=lambda write: (write.stamp, *write.dot), reverse=True):
        keys.setdefault(write.key, []).append(write)
    return keys
