"""Which writes were delivered here?

Every write has a *dot*: the replica that made it, and its place in that replica's sequence 1, 2, 3, ...
A *context* says for each replica up to which sequence everything was delivered. Since delivery is first-in-
first-out per replica, one number a replica is enough: a version vector.

Invariant: a context means *delivered*, and never "known to be dead". A context that claims what was never
delivered is never repaired, since nobody asks again for what he says he has.

Source: Lamport (1978) for the order, DottedDB (Goncalves et al. 2017) for dots beside a node-wide context.
Not here: what the writes say (`store`), and writes that came too early (`inbox`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

Dot: TypeAlias = tuple[int, int]
"""`(replica, sequence)`: names one write. A plain tuple, since the collector stops tracking tuples of integers."""

_MASK = 0xFFFF_FFFF_FFFF_FFFF
SPREAD = 0x9E37_79B9_7F4A_7C15
MIX = 0xBF58_476D_1CE4_E5B9
RANGES = 1 << 14
"""Into so many ranges dots are divided (see `ranges`): 60 in each of a million, and 128 KiB of sums a store."""
TO_RANGE = 50


def range_of(replica: int, sequence: int) -> int:
    """The range in which a dot lies: consecutive ones lie far apart, so that all ranges fill alike.

    >>> [range_of(7, sequence) for sequence in (1, 2, 3)]
    [10125, 3867, 13993]
    """
    return ((replica + sequence * SPREAD) & _MASK) >> TO_RANGE


def fingerprint_of(replica: int, sequence: int) -> int:
    """64 bits that stand for a dot in a sum: the same in every process, on every machine.

    Python's own `hash` is no promise across versions. The two odd multipliers are those of splitmix64 (Steele et al.
    2014); one round instead of its two halves the cost, and a sum needs well-spread terms, not secrecy.

    >>> hex(fingerprint_of(1, 1))
    '0xad70fc67c511bb8e'
    """
    x = (replica + sequence * SPREAD) & _MASK
    x = ((x ^ x >> 30) * MIX) & _MASK
    return x ^ x >> 29


class Context(dict[int, int]):
    """For each replica, the highest sequence delivered without a gap. A replica never heard of counts as 0.

    >>> context = Context({7: 3})
    >>> context.covers((7, 3)), context.covers((7, 4)), context[8]
    (True, False, 0)
    """

    __slots__ = ()

    def __missing__(self, replica: int) -> int:
        return 0

    def covers(self, dot: Dot) -> bool:
        """Whether this write was delivered."""
        return dot[1] <= self.get(dot[0], 0)

    def join(self, other: Mapping[int, int]) -> None:
        """Takes the greater of both for every replica.

        >>> context = Context({1: 3, 2: 1})
        >>> context.join({2: 4, 3: 1})
        >>> context
        {1: 3, 2: 4, 3: 1}
        """
        for replica, sequence in other.items():
            if sequence > self.get(replica, 0):
                self[replica] = sequence

    def dominates(self, other: Mapping[int, int]) -> bool:
        """Whether everything delivered there was delivered here too."""
        return all(sequence <= self.get(replica, 0) for replica, sequence in other.items())

    def beyond(self, other: Mapping[int, int]) -> list[int]:
        """The replicas of which more was delivered here than there.

        >>> Context({1: 3, 2: 1, 3: 7}).beyond({1: 2, 2: 1})
        [1, 3]
        """
        return [replica for replica, sequence in self.items() if sequence > other.get(replica, 0)]

    def fingerprint(self) -> int:
        """64 bits that are equal for equal contexts, and for unequal ones only by accident.

        Computed when asked (0.3 us a replica) rather than kept up with each write: it is needed once a ping.
        """
        return sum(fingerprint_of(replica, sequence) for replica, sequence in self.items()) & _MASK
