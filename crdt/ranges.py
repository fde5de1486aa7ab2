"""Where do two stores differ, without either telling the other all that it holds?

Every live write lies in one of 16 384 *ranges*, by its dot; 128 ranges are a *group*. A store keeps a sum of the
fingerprints in each range (`Store.sums`). Whoever misses something goes down from the groups to what is in the ranges:

    behind (`Comparison`)                         ahead (`Telling`)
       |<-------- the sums of all groups ------------|     of its state at one moment
       |--------- which of them differ ------------->|
       |<-------- the sums of their ranges ----------|
       |--------- which of them differ ------------->|
       |<-------- the state, of these ranges --------|     and its whole context

So what is sent follows the difference, not the size: 1 KB, another for each group that differs, and then what is in
the ranges that do.

Invariants: each side compares what it was at one moment; of a range that was not told of, both held the same then.
Source: range-based set reconciliation (Meyer 2022), of a fixed depth, since sums that are kept up cost less than trees.
Not here: what is merged of it (`store`), and who asks whom when (the protocol's part).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import xor
from typing import Final

from crdt.causality import RANGES, Context
from crdt.codec import demand
from crdt.state import state_parts
from crdt.store import Store
from crdt.write import Scope, State

GROUPS: Final = 128
_IN_GROUP: Final = RANGES // GROUPS
_SUM: Final = 8
"""Bytes of a sum."""


class Telling:
    """The side that is ahead: what it tells of its state as of now, step by step."""

    def __init__(self, state: State, sums: Sequence[int]) -> None:
        self._state = state
        self._sums = list(sums)
        self._groups: list[int] = []

    def groups(self) -> bytes:
        """The sums of all groups."""
        return _packed(_group_sums(self._sums))

    def ranges(self, wanted: bytes) -> bytes:
        """The sums of the ranges of the groups that the other side `wanted`. Raises `Malformed`."""
        self._groups = _places(wanted, GROUPS)
        return _packed([self._sums[place] for place in _ranges_of(self._groups)])

    def parts(self, wanted: bytes, limit: int) -> Iterator[bytes]:
        """The parts of the state, as far as it lies in the ranges `wanted` of these groups. Raises `Malformed`."""
        ranges = _ranges_of(self._groups)
        chosen = _places(wanted, len(ranges))
        return state_parts(self._state, limit, frozenset(ranges[place] for place in chosen))


class Comparison:
    """The side that is behind: what it wants to be told, given the sums of the other.

    >>> ann, bob = Store(), Store()
    >>> write = ann.write((1, "flags", b"beta"), b"on", replica=7, stamp=1)
    >>> _ = ann.merge(write)
    >>> telling, comparison = Telling(ann.state(), ann.sums), Comparison(bob)
    >>> ranges = telling.ranges(comparison.groups(telling.groups()))
    >>> wanted = comparison.ranges(ranges)
    >>> len(comparison.scope.ranges)  # of 16 384
    1
    """

    def __init__(self, store: Store) -> None:
        self._sums = list(store.sums)
        self._compared = Context(store.context)
        self._groups: list[int] = []
        self._ranges: frozenset[int] = frozenset()

    def groups(self, theirs: bytes) -> bytes:
        """Which groups differ, given the sums of all. Raises `Malformed`."""
        self._groups = _differing(_group_sums(self._sums), theirs)
        return _chosen(self._groups, GROUPS)

    def ranges(self, theirs: bytes) -> bytes:
        """Which ranges differ, given the sums of those in the groups that do. Raises `Malformed`."""
        ranges = _ranges_of(self._groups)
        differing = _differing([self._sums[place] for place in ranges], theirs)
        self._ranges = frozenset(ranges[place] for place in differing)
        return _chosen(differing, len(ranges))

    @property
    def scope(self) -> Scope:
        """Of what the other will tell, and of what it need not."""
        return Scope(self._ranges, self._compared)


def _group_sums(sums: Sequence[int]) -> list[int]:
    return [reduce(xor, sums[first : first + _IN_GROUP]) for first in range(0, RANGES, _IN_GROUP)]


def _ranges_of(groups: Sequence[int]) -> list[int]:
    return [place for group in groups for place in range(group * _IN_GROUP, (group + 1) * _IN_GROUP)]


def _differing(mine: Sequence[int], theirs: bytes) -> list[int]:
    demand(len(theirs) == len(mine) * _SUM, "there is a sum for each range that was asked for")
    return [
        place for place, own in enumerate(mine)
        if own != int.from_bytes(theirs[place * _SUM : (place + 1) * _SUM], "big")
    ]  # fmt: skip


def _packed(sums: Sequence[int]) -> bytes:
    return b"".join(each.to_bytes(_SUM, "big") for each in sums)


def _chosen(places: Sequence[int], of: int) -> bytes:
    """Some places of so many, a bit each."""
    return sum(1 << place for place in places).to_bytes((of + 7) // 8, "big")


def _places(chosen: bytes, of: int) -> list[int]:
    demand(len(chosen) == (of + 7) // 8, "a choice has a bit for each place")
    bits = int.from_bytes(chosen, "big")
    demand(bits >> of == 0, "a choice is of places that there are")
    return [place for place in range(of) if bits >> place & 1]
