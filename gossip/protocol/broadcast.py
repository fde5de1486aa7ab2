"""Who still needs telling, and of what?

News of members is passed on a bounded number of times by everybody who hears it, so that all hear it with
overwhelming probability, and nobody keeps on talking of what is old. What was told least often goes first.

Invariant: of an instance only the newest claim is passed on.
Source: SWIM section 4.1, with memberlist's multiplier of 4.
Not here: writes. They go to every living peer at once, and are repaired by digests, not by repetition.
"""

from __future__ import annotations

from math import ceil, log10

from gossip.protocol.members import Claim

_REPEAT = 4
"""Each claim is told 4 x ceil(log10(n + 1)) times."""


class Broadcast:
    """The news of one node.

    >>> news = Broadcast()
    >>> claim = Claim(7, "a", ("unix:/x",), 0)
    >>> news.add(claim)
    >>> [news.take(members=3, limit=1_200) == (claim,) for _ in range(5)]  # four times, then it is old
    [True, True, True, True, False]
    """

    def __init__(self) -> None:
        self._told: dict[int, tuple[int, Claim]] = {}

    def add(self, claim: Claim) -> None:
        """There is news of an instance; it replaces what was passed on about it before."""
        self._told.pop(claim.instance, None)
        self._told[claim.instance] = (0, claim)

    def drop(self, instance: int) -> None:
        """Nobody is told of this instance any more."""
        self._told.pop(instance, None)

    def take(self, members: int, limit: int) -> tuple[Claim, ...]:
        """Claims to tell now, of at most `limit` bytes together, least told and newest first; counts them as told.

        One that would not fit by itself counts as told as well, or it would stay for ever and never go.
        """
        taken = []
        room = limit
        news = list(self._told.values())
        news.reverse()  # newest first, and the sort keeps that order among those told equally often
        news.sort(key=lambda item: item[0])
        for told, claim in news:
            size = size_of(claim)
            if size > limit:
                if size > room and told:
                    self._count(claim, members)  # what nobody was told of yet is left to `take_fresh`, which has room
                continue
            limit -= size
            taken.append(claim)
            self._count(claim, members)
        return tuple(taken)

    @property
    def fresh(self) -> bool:
        """Whether there is news that nobody was told of yet."""
        return any(told == 0 for told, _ in self._told.values())

    def take_fresh(self, members: int) -> tuple[Claim, ...]:
        """The news that nobody was told of yet; counts it as told."""
        claims = tuple(claim for told, claim in self._told.values() if told == 0)
        for claim in claims:
            self._count(claim, members)
        return claims

    def _count(self, claim: Claim, members: int) -> None:
        told = self._told[claim.instance][0] + 1
        if told >= _REPEAT * ceil(log10(members + 1)):
            del self._told[claim.instance]
        else:
            self._told[claim.instance] = (told, claim)

    def __len__(self) -> int:
        return len(self._told)


def size_of(claim: Claim) -> int:
    """At most so many bytes a claim takes in a message."""
    text = len(claim.name.encode()) + sum(len(address.encode()) + 5 for address in claim.addresses)
    tags = sum(len(key.encode()) + len(value.encode()) + 10 for key, value in claim.tags)
    return 48 + text + tags + 9 * len(claim.by) + len(claim.proof)
