"""Who hands a write on to whom, where there are too many to tell them all oneself?

Members stand on a ring, in the order of their instance ids. The author covers all of it, from itself around to itself.
Whoever covers a part hands the further half of it to the member in its middle, then the further half of what is left,
and so on; a part of few members it tells by itself. So n members take n - 1 messages, and about log2(n / few) + 1 hops;
nobody gets it twice while all have the same list, and no tree is kept anywhere.

A member that is lost may not have handed on what it got last: who handed it to him cuts his part anew.

Invariant: a part that is handed on is truly inside the one that it is taken from, whoever cut it and whatever lists he
has: lists that differ cost messages twice or not at all, never without an end. What was lost is found by digests.
Source: El-Ansary, Alima, Brand, Haridi: Efficient broadcast in structured peer-to-peer networks (2003).
Not here: what is sent (`replication`), and who lives (`members`).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple, TypeAlias

_RING = 1 << 64
_MOST = 256
"""Pushes of a second that are kept to be handed on once more; of who writes more some go by repair."""
_LARGEST = 16 << 10
"""Bytes of such a push: with `_MOST` of them twice, 8 MiB at most."""


class Part(NamedTuple):
    """The members between these two ids, going up around the ring, without the two; all others if they are the same."""

    after: int
    before: int


Handed: TypeAlias = tuple[int, Part | None]
"""`(peer, part)`: who is told, and which part it hands on to, if any."""


def handed(part: Part, peers: Iterable[int], few: int, doubtful: Container[int] = ()) -> list[Handed]:
    """Who is told by whoever covers this part, given all peers that he knows.

    Parts of more than `few` are handed on, to nobody `doubtful` where another one is.

    >>> handed(Part(0, 0), peers=[10, 20, 30, 40, 50, 60, 70], few=1)
    [(40, Part(after=40, before=0)), (20, Part(after=20, before=40)), (10, None)]
    >>> handed(Part(40, 0), peers=[10, 20, 30, 50, 60, 70], few=1)
    [(60, Part(after=60, before=0)), (50, None)]
    """
    ring = _between(part, peers)
    before = part.before
    told: list[Handed] = []
    while len(ring) > few:
        middle = len(ring) // 2
        further, ring = ring[middle:], ring[:middle]
        hop = next((place for place, peer in enumerate(further) if peer not in doubtful), None)
        if hop is None:
            told += [(peer, None) for peer in further]
        else:
            told += [(peer, None) for peer in further[:hop]]
            told.append((further[hop], Part(further[hop], before) if hop + 1 < len(further) else None))
        before = further[0]
    return told + [(peer, None) for peer in ring]


def _between(part: Part, peers: Iterable[int]) -> Sequence[int]:
    """The peers in a part, in its order."""
    length = (part.before - part.after) % _RING or _RING
    places = sorted((peer - part.after) % _RING for peer in peers)
    return [(part.after + place) % _RING for place in places if 0 < place < length]


class Recent:
    """What was handed on in the last second or two, and to whom; bounded, for what is forgotten is found by digests."""

    def __init__(self) -> None:
        self._new: list[tuple[int, Part, tuple[bytes, ...]]] = []
        self._old: list[tuple[int, Part, tuple[bytes, ...]]] = []
        self._turned = 0.0

    def add(self, peer: int, part: Part, batches: tuple[bytes, ...]) -> None:
        """These batches were handed to a peer, for a part of the ring."""
        if len(self._new) < _MOST and sum(map(len, batches)) <= _LARGEST:
            self._new.append((peer, part, batches))

    def turn(self, now: float) -> None:
        """Time passed: forgets what is older than a second."""
        if now - self._turned >= 1.0:
            self._old, self._new, self._turned = self._new, [], now

    def lost(self, peer: int) -> list[tuple[Part, tuple[bytes, ...]]]:
        """What this peer was to hand on; it is forgotten."""
        everything = [*self._old, *self._new]
        self._old, self._new = [each for each in everything if each[0] != peer], []
        return [(part, batches) for hop, part, batches in everything if hop == peer]
