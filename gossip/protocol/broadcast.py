"""Who still needs telling, and of what?

News of members is passed on a bounded number of times by everybody who hears it, so that all hear it with
overwhelming probability, and nobody keeps on talking of what is old. What was told least often goes first. Small claims
ride on probes. A large one, for which a datagram has no room beside others, goes by streams as often: it would keep the
small ones from going, or never go.

Invariant: of an instance only the newest claim is passed on.
Source: SWIM section 4.1, with memberlist's multiplier of 4.
Not here: writes. They go to every living peer at once, and are repaired by digests, not by repetition.
"""

from __future__ import annotations

from math import ceil, log10
from operator import attrgetter
from typing import NamedTuple

from gossip.protocol.codec import MAX_CLAIMS
from gossip.protocol.members import Claim

_REPEAT = 4
"""Each claim is told 4 x ceil(log10(n + 1)) times."""


class _News(NamedTuple):
    told: int
    size: int
    """Reckoned once: for a claim with all tags it takes 20 us, and each probe looks through all news."""
    claim: Claim


class Broadcast:
    """The news of one node.

    >>> news = Broadcast()
    >>> claim = Claim(7, "a", ("unix:/x",), 0)
    >>> news.add(claim)
    >>> [news.take(members=3, limit=1_200) == (claim,) for _ in range(5)]  # four times, then it is old
    [True, True, True, True, False]
    """

    def __init__(self, largest: int = 1 << 30) -> None:
        self._largest = largest
        """Bytes of a claim that is small."""
        self._told: dict[int, _News] = {}
        self.fresh: set[int] = set()
        """Of which instances nobody was told yet: that is asked at each packet, and there may be hundreds."""

    def add(self, claim: Claim) -> None:
        """There is news of an instance; it replaces what was passed on about it before."""
        self._told.pop(claim.instance, None)
        self._told[claim.instance] = _News(0, size_of(claim), claim)
        self.fresh.add(claim.instance)

    def small(self, claim: Claim) -> bool:
        """Whether it may ride on a probe."""
        return size_of(claim) <= self._largest

    def drop(self, instance: int) -> None:
        """Nobody is told of this instance any more."""
        self._told.pop(instance, None)
        self.fresh.discard(instance)

    def take(self, members: int, limit: int) -> tuple[Claim, ...]:
        """Small claims to tell now, of at most `limit` bytes together, least told and newest first; counts them."""
        return self._take([news for news in self._told.values() if news.size <= self._largest], members, limit)

    def take_large(self, members: int, limit: int) -> tuple[Claim, ...]:
        """Large ones likewise."""
        return self._take([news for news in self._told.values() if news.size > self._largest], members, limit)

    def take_fresh(self, members: int, limit: int = 1 << 30) -> tuple[Claim, ...]:
        """The news that nobody was told of yet, as much as fits a message and `limit` bytes, newest first; counts it as
        told."""
        return self._take([news for news in self._told.values() if news.told == 0], members, limit)

    def _take(self, news: list[_News], members: int, limit: int) -> tuple[Claim, ...]:
        taken: list[Claim] = []
        news.reverse()  # newest first, and the sort keeps that order among those told equally often
        news.sort(key=attrgetter("told"))
        for each in news:
            if len(taken) == MAX_CLAIMS:
                break  # nobody would take a longer list, though more of the smallest fit the bytes of one
            if each.size > limit:
                continue
            limit -= each.size
            taken.append(each.claim)
            self.fresh.discard(each.claim.instance)
            if each.told + 1 >= _REPEAT * ceil(log10(members + 1)):
                del self._told[each.claim.instance]
            else:
                self._told[each.claim.instance] = each._replace(told=each.told + 1)
        return tuple(taken)

    def __len__(self) -> int:
        return len(self._told)


def size_of(claim: Claim) -> int:
    """At most so many bytes a claim takes in a message."""
    text = len(claim.name.encode()) + sum(len(address.encode()) + 5 for address in claim.addresses)
    tags = sum(len(key.encode()) + len(value.encode()) + 10 for key, value in claim.tags)
    return 48 + text + tags + 9 * len(claim.by) + len(claim.proof)
