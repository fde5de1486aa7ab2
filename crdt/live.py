"""Which writes are live under one key, and which of them does a reader see?

They hang in a chain, the greatest by (stamp, replica) first: that is what a map shows, and the rest are its conflicts.
Links never change, so whoever was given a chain may keep it.

Invariant: what comes out of `without`, `with_one` and `linked` is in that order, and the very same chain where its
links are. No recursion anywhere: a thousand workers may write one key at once.
Not here: which writes are live (`store`).
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Optional, TypeAlias

from crdt.causality import Dot
from crdt.timestamp import Timestamp

Live: TypeAlias = tuple[Timestamp, int, int, bytes, int, Optional["Live"]]
"""`(stamp, replica, sequence, value, expires, next)`: a live write, linked to the next lesser one of the same key.

So the head of the chain is the greatest by (stamp, replica): what a map shows. The rest are its conflicts.
A plain tuple because a million objects with slots cost 226 ms at each full garbage collection, a million tuples 3.
"""

FOREVER = 0
"""`expires` of a write that does not."""
WITH_AUTHOR = -1
"""`expires` of an *owned* write: it lives as long as the replica that made it is a living member."""


def chain(live: Live | None) -> Iterator[Live]:
    """The live writes of a key, greatest (stamp, replica) first.

    >>> [live[3] for live in chain((9, 1, 1, b"shown", 0, (5, 2, 1, b"conflict", 0, None)))]
    [b'shown', b'conflict']
    """
    while live is not None:
        yield live
        live = live[5]


def visible(live: Live | None, now: Timestamp, living: Container[int]) -> Iterator[Live]:
    """The live writes of a key that a reader may see at `now`, while these replicas are living members.

    Expiry and ownership belong to the reading: what was concurrent with an expired write shows again, for every reader.
    The four types know no clock and no members, so they do not offer either: who writes with `expires` reads with this.

    >>> kept, expired, owned = (
    ...     (5, 2, 1, b"kept", 0, None),
    ...     (9, 1, 1, b"expired", 70, None),
    ...     (9, 3, 1, b"owned", -1, None),
    ... )
    >>> [live[3] for live in visible((*expired[:5], kept), now=69, living=())]
    [b'expired', b'kept']
    >>> [live[3] for live in visible((*expired[:5], kept), now=70, living=())]
    [b'kept']
    >>> [live[3] for live in visible(owned, now=70, living={3})], [live[3] for live in visible(owned, 70, living={1})]
    ([b'owned'], [])
    """
    for candidate in chain(live):
        expires = candidate[4]
        if expires == FOREVER or (candidate[1] in living if expires == WITH_AUTHOR else now < expires):
            yield candidate


def is_mortal(live: Live) -> bool:
    """Whether any of them may end without another write."""
    return any(link[4] != FOREVER for link in chain(live))


def is_over(live: Live, now: Timestamp, gone: Container[int]) -> bool:
    """Whether nobody may see it any more. An owned write of an author who is not known yet is only not visible yet."""
    expires = live[4]
    return expires != FOREVER and (live[1] in gone if expires == WITH_AUTHOR else expires <= now)


def find(live: Live | None, dot: Dot) -> Live | None:
    """The link that is this write; None if it is not live."""
    replica, sequence = dot
    while live is not None and (live[2] != sequence or live[1] != replica):
        live = live[5]
    return live


def without(live: Live | None, dead: Live) -> Live | None:
    """The chain less one of its links, which is found by identity."""
    above = []
    while live is not None and live is not dead:
        above.append(live)
        live = live[5]
    return linked(above, dead[5])


def with_one(live: Live | None, added: Live) -> Live | None:
    """The chain with one link more, at its place in the order of (stamp, replica, sequence)."""
    above = []
    while live is not None and added[:3] <= live[:3]:
        above.append(live)
        live = live[5]
    return linked(above, (*added[:5], live))


def linked(above: list[Live], rest: Live | None) -> Live | None:
    """The chain of these, greatest first, and the rest: the same one, if they are all of it. No recursion: a thousand
    workers may write one key at once."""
    for live in reversed(above):
        rest = live if live[5] is rest else (*live[:5], rest)
    return rest


def place_of(live: Live) -> tuple[Timestamp, int, int]:
    """By what they are in order."""
    return live[:3]


def dots_in(live: Live | None) -> set[Dot]:
    """The dots of all of them."""
    return {(link[1], link[2]) for link in chain(live)}
