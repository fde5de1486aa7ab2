"""Which writes are live under one key, and which of them does a reader see?

Nearly always it is one, and it lasts: it neither expires nor is owned. That one is *packed*, as bytes, at which the
garbage collector never looks. All else is a *chain* of links, the greatest by (stamp, replica) first: that is what a
map shows, and the rest are its conflicts.

An entry of 100 bytes, with its key, takes 253 bytes, and took 397 as a tuple (in a dict of bytes: 240). Tuples of
numbers and bytes the collector stops tracking, and up to Python 3.13 the dict that they are in. But each new one makes
it go through that dict three times more: at 50 000 writes a second one in a hundred waited 10 to 20 ms for that, and
now 3.

Invariants: in a store one lasting write is packed and all else is not, so what is equal is the same value; drafts, and
what `visible` gives, are links; links and bytes never change, so whoever was given them may keep them; what comes out
of `without`, `with_one` and `linked` is in order, and the very same chain where its links are. No recursion anywhere: a
thousand workers may write one key at once.
Not here: which writes are live (`store`).
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from struct import Struct
from typing import Final, Optional, TypeAlias

from crdt.causality import Dot
from crdt.timestamp import Timestamp

Link: TypeAlias = tuple[Timestamp, int, int, bytes, int, Optional["Link"]]
"""`(stamp, replica, sequence, value, expires, next)`: a live write, linked to the next lesser one of the same key."""

Live: TypeAlias = bytes | Link
"""What is live under a key: one write that lasts, packed, or a chain of links. Which of the two is nobody's business:
`value_of`, `dot_of` and `head_of` read the write that is shown, `chain` and `visible` give all as links."""

_HEAD = Struct(">QQQ")
_DOT = Struct(">8xQQ")
AT_VALUE: Final = _HEAD.size
"""Where the value of a packed write begins. Before it stands its head: stamp, replica and sequence."""

FOREVER = 0
"""`expires` of a write that does not."""
WITH_AUTHOR = -1
"""`expires` of an *owned* write: it lives as long as the replica that made it is a living member."""

pack_head = _HEAD.pack
"""`pack_head(stamp, replica, sequence) + value` is a packed write. In line where writes are many: `packed` takes twice
as long."""
unpack_head, unpack_dot = _HEAD.unpack_from, _DOT.unpack_from
"""Of a packed write `(stamp, replica, sequence)`, and its dot; in line likewise, since `dot_of` takes half as long
again."""


def packed(link: Link | None) -> Live | None:
    """What is live under a key of these links, as it is kept.

    >>> packed((9, 1, 1, b"shown", 0, (5, 2, 1, b"conflict", 0, None)))
    (9, 1, 1, b'shown', 0, (5, 2, 1, b'conflict', 0, None))
    >>> packed((9, 1, 1, b"alone", 0, None))[AT_VALUE:]
    b'alone'
    """
    if link is None or link[5] is not None or link[4] != FOREVER:
        return link
    return pack_head(link[0], link[1], link[2]) + link[3]


def unpacked(live: Live | None) -> Link | None:
    """The links of what is live under a key.

    >>> unpacked(packed((9, 1, 1, b"alone", 0, None)))
    (9, 1, 1, b'alone', 0, None)
    """
    return (*unpack_head(live), live[AT_VALUE:], FOREVER, None) if isinstance(live, bytes) else live


def head_of(live: Live) -> tuple[Timestamp, int, int]:
    """Stamp, replica and sequence of the write that is shown: of two writes of a key it is that with the greater ones.

    >>> link = (9, 7, 1, b"on", FOREVER, None)
    >>> head_of(link) == head_of(packed(link)) == (9, 7, 1)
    True
    """
    return unpack_head(live) if isinstance(live, bytes) else live[:3]


def dot_of(live: Live) -> Dot:
    """The dot of the write that is shown.

    >>> link = (9, 7, 1, b"on", FOREVER, None)
    >>> dot_of(link) == dot_of(packed(link)) == (7, 1)
    True
    """
    return unpack_dot(live) if isinstance(live, bytes) else live[1:3]


def value_of(live: Live) -> bytes:
    """The value that is shown, encoded: `decode_value` reads it. Of an element of a set it is empty.

    >>> link = (9, 7, 1, b"on", FOREVER, None)
    >>> value_of(link) == value_of(packed(link)) == b"on"
    True
    """
    return live[AT_VALUE:] if isinstance(live, bytes) else live[3]


def chain(live: Live | None) -> Iterator[Link]:
    """The live writes of a key, greatest (stamp, replica) first.

    >>> [link[3] for link in chain((9, 1, 1, b"shown", 0, (5, 2, 1, b"conflict", 0, None)))]
    [b'shown', b'conflict']
    """
    link = unpacked(live)
    while link is not None:
        yield link
        link = link[5]


def visible(live: Live | None, now: Timestamp, living: Container[int]) -> Iterator[Link]:
    """The live writes of a key that a reader may see at `now`, while these replicas are living members.

    Expiry and ownership belong to the reading: what was concurrent with an expired write shows again, for every reader.
    The four types know no clock and no members, so they do not offer either: who writes with `expires` reads with this.

    >>> kept, expired, owned = (
    ...     (5, 2, 1, b"kept", 0, None),
    ...     (9, 1, 1, b"expired", 70, None),
    ...     (9, 3, 1, b"owned", -1, None),
    ... )
    >>> [link[3] for link in visible((*expired[:5], kept), now=69, living=())]
    [b'expired', b'kept']
    >>> [link[3] for link in visible((*expired[:5], kept), now=70, living=())]
    [b'kept']
    >>> [link[3] for link in visible(owned, now=70, living={3})], [link[3] for link in visible(owned, 70, living={1})]
    ([b'owned'], [])
    """
    for candidate in chain(live):
        expires = candidate[4]
        if expires == FOREVER or (candidate[1] in living if expires == WITH_AUTHOR else now < expires):
            yield candidate


def is_mortal(live: Live | None) -> bool:
    """Whether any of them may end without another write."""
    return not isinstance(live, bytes) and any(link[4] != FOREVER for link in chain(live))


def is_over(link: Link, now: Timestamp, gone: Container[int]) -> bool:
    """Whether nobody may see it any more. An owned write of an author who is not known yet is only not visible yet."""
    expires = link[4]
    return expires != FOREVER and (link[1] in gone if expires == WITH_AUTHOR else expires <= now)


def is_one(mine: Link | None, theirs: Live) -> bool:
    """Whether it is one write, the same here and there. Chains are never compared whole: that recurses as deep as they
    are."""
    if mine is None or isinstance(theirs, bytes):
        return False
    return mine[5] is theirs[5] is None and mine[:3] == theirs[:3]


def find(link: Link | None, dot: Dot) -> Link | None:
    """The link that is this write; None if it is not live."""
    replica, sequence = dot
    while link is not None and (link[2] != sequence or link[1] != replica):
        link = link[5]
    return link


def without(link: Link | None, dead: Link) -> Link | None:
    """The chain less one of its links, which is found by identity."""
    above = []
    while link is not None and link is not dead:
        above.append(link)
        link = link[5]
    return linked(above, dead[5])


def with_one(link: Link | None, added: Link) -> Link:
    """The chain with one link more, at its place in the order of (stamp, replica, sequence)."""
    above = []
    while link is not None and added[:3] <= link[:3]:
        above.append(link)
        link = link[5]
    whole = linked(above, (*added[:5], link))
    assert whole is not None
    return whole


def linked(above: list[Link], rest: Link | None) -> Link | None:
    """The chain of these, greatest first, and the rest: the same one, if they are all of it."""
    for link in reversed(above):
        rest = link if link[5] is rest else (*link[:5], rest)
    return rest


def dots_in(live: Live | None) -> set[Dot]:
    """The dots of all of them."""
    if isinstance(live, bytes):
        return {unpack_dot(live)}  # not by `chain`, which copies the value: 45 us of a megabyte
    return {(link[1], link[2]) for link in chain(live)}
