"""Who is there, by what is said of whom?

A member is an *instance*: one start of one node, named by 64 bits that are its replica id as well. What is
said of an instance is a `Claim`, and claims of one instance form a lattice: dead and left beat everything, else
the greater (incarnation, status) wins; of two that are equal in that, those who say so are put together. So claims may
be lost, repeated and reordered, and all tables agree in the end.

Invariants: a table's claim of an instance only rises; an instance that is dead or has left never comes back (it takes a
new instance id); only an instance itself raises its incarnation.

Source: SWIM (Das, Gupta, Motivala 2002), section 4.2; for counting accusers, Lifeguard (Dadgar et al. 2017).
Not here: when to suspect (`detector`), whom to tell (`broadcast`), and who said what (`identity`).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from random import Random

NOBODY = "!"
"""The name of an instance of which nothing is known but that it is dead: less than any name that a node would have, so
that what is heard of it later holds."""
MOST_BY = 3
"""Who say one thing of an instance, at most: a suspicion that two others confirm has the least time that there is."""


class Status(IntEnum):
    """What an instance is said to be. The order is the lattice's.

    `STALLED`: it does not answer, and somebody on its host sees that its process exists. That is stronger than any
    silence, so nobody calls it dead for that; what others wait for is not handed on to it.
    """

    ALIVE = 0
    SUSPECT = 1
    STALLED = 2
    DEAD = 3
    LEFT = 4


class Claim(NamedTuple):
    """What is said of one instance.

    `addresses` are where it listens, best first; `started` is since when, in wall-clock milliseconds: since its start,
    or since it moved there; `tags` are sorted pairs. `incarnation` is raised by the instance itself to overrule what
    others say of it. `by` are those who suspect it, or see its process: the `MOST_BY` least of them, in order. `proof`
    is the instance's own, where there is a key, of what it says itself; it stays with that, whatever others say.
    """

    instance: int
    name: str
    addresses: tuple[str, ...]
    started: int
    tags: tuple[tuple[str, str], ...] = ()
    incarnation: int = 0
    status: Status = Status.ALIVE
    by: tuple[int, ...] = ()
    proof: bytes = b""

    @property
    def own(self) -> tuple[object, ...]:
        """What only the instance itself may say."""
        left = self.status == Status.LEFT
        return (self.instance, self.name, self.addresses, self.started, self.tags, self.incarnation, left)

    def by_whom(self, status: Status, by: int) -> Claim:
        """The same instance, of which somebody says this."""
        return self._replace(status=status, by=(by,))

    def ended(self, status: Status = Status.DEAD) -> Claim:
        """The same instance, for ever dead, or left."""
        return self._replace(status=status, by=())

    def joined(self, other: Claim) -> Claim:
        """What holds of two claims of one instance.

        >>> alive = Claim(1, "a", (), 0)
        >>> alive.by_whom(Status.SUSPECT, 9).joined(alive.by_whom(Status.SUSPECT, 7)).by
        (7, 9)
        """
        greater = self if self.rank >= other.rank else other
        if self.rank[:3] != other.rank[:3]:
            return greater
        return greater._replace(by=tuple(sorted({*self.by, *other.by})[:MOST_BY]))

    @property
    def gone(self) -> bool:
        """Whether the instance is dead or has left: for ever."""
        return self.status >= Status.DEAD

    @property
    def rank(self) -> tuple[bool, int, int, tuple[object, ...]]:
        """The place in the lattice; of two claims of one instance, the greater rank holds.

        >>> alive = Claim(1, "a", (), 0)
        >>> alive._replace(status=Status.SUSPECT).rank > alive.rank
        True
        >>> alive._replace(incarnation=1).rank > alive._replace(status=Status.SUSPECT).rank
        True
        >>> alive._replace(status=Status.DEAD).rank > alive._replace(incarnation=9).rank
        True
        """
        first, second = (self.status, self.incarnation) if self.gone else (self.incarnation, self.status)
        # with the proof, for nothing forbids an instance to say two things, or to sign one thing twice
        return (self.gone, first, second, (self.name, self.addresses, self.started, self.tags, self.proof))


def nobody(instance: int) -> Claim:
    """That an instance is dead of which nothing is known: anybody may say that."""
    return Claim(instance, NOBODY, (), 0, status=Status.DEAD)


class Members:
    """The table of one node: the greatest claim heard of every instance, itself included."""

    def __init__(self, me: Claim) -> None:
        self.me = me
        self.table: dict[int, Claim] = {}
        self._at: dict[str, dict[int, None]] = {}
        """The living instances at each address: looking through the table for each claim heard took 16 s for 4 096."""
        self._living: dict[int, None] = {}
        """The living others: with 1 024 remembered dead, looking through the table at each flush took 132 us."""
        self.doubtful: dict[int, None] = {}
        """Those of them that are suspected or stalled: nothing that others wait for is handed on to these."""
        self._put(me)
        self.gone_at: dict[int, float] = {}
        """When each dead or left instance was found so, oldest first."""
        self._round: list[int] = []

    def hear(self, claim: Claim, now: float) -> Claim | None:
        """Takes a claim in; gives the claim that held before if this one changed it (itself, where there was none).

        Claims about this node itself are not for the table to judge: ask `refutation` first.
        """
        before = self.table.get(claim.instance)
        if before is not None:
            claim = before.joined(claim)
            if claim == before:
                return None
        self._put(claim)
        if claim.gone and (before is None or not before.gone):
            self.gone_at[claim.instance] = now
        return before or claim

    def refutation(self, claim: Claim) -> Claim | None:
        """My answer to a claim about me; None if there is nothing to refute.

        A suspicion is overruled by a greater incarnation. What can not be overruled (dead, left, an incarnation beyond
        63 bits, which only damage or malice makes) is for the engine: it takes a new instance.
        """
        if claim.rank <= self.me.rank:
            return None
        return self.me._replace(incarnation=claim.incarnation + 1)

    def become(self, me: Claim) -> None:
        """Takes a new claim of my own: raised, or of a new instance."""
        self.me = me
        self._put(me)

    def _put(self, claim: Claim) -> None:
        before = self.table.get(claim.instance)
        for address in before.addresses if before else ():
            at = self._at.get(address, {})
            at.pop(claim.instance, None)
            if not at:
                self._at.pop(address, None)
        self.table[claim.instance] = claim
        if claim.gone or claim.instance == self.me.instance:
            self._living.pop(claim.instance, None)
        else:
            self._living[claim.instance] = None
        if claim.status in (Status.SUSPECT, Status.STALLED) and claim.instance in self._living:
            self.doubtful[claim.instance] = None
        else:
            self.doubtful.pop(claim.instance, None)
        for address in () if claim.gone else claim.addresses:
            self._at.setdefault(address, {})[claim.instance] = None

    def forget(self, before: float, most: int) -> list[int]:
        """Drops the dead that were found so before this time, or are more than `most`; gives who was dropped."""
        dropped = []
        while self.gone_at:
            instance, found = next(iter(self.gone_at.items()))
            if found >= before and len(self.gone_at) <= most:
                break
            dropped.append(instance)
            del self.gone_at[instance], self.table[instance]
        return dropped

    def __contains__(self, instance: object) -> bool:
        """Whether this is a living member, suspects and this node included."""
        return instance in self._living or instance == self.me.instance

    def peers(self) -> list[int]:
        """The living others, suspects included."""
        return list(self._living)

    def supersedes(self, claim: Claim) -> Iterable[Claim]:
        """Living instances that the same address proves gone: only one can listen there, and this one came later.

        >>> members = Members(Claim(1, "a", (), 0))
        >>> old, new = Claim(2, "b", ("10.0.0.2:7946",), started=5), Claim(3, "b", ("10.0.0.2:7946",), started=9)
        >>> _ = members.hear(old, now=0.0)
        >>> list(members.supersedes(new)) == [old]
        True
        """
        for other in self._neighbours(claim):
            if other is not self.me and (other.started, other.instance) < (claim.started, claim.instance):
                yield other

    def superseded(self, claim: Claim) -> bool:
        """Whether a living member that came later listens at an address of this one; or this node does."""
        return any(
            other is self.me or (other.started, other.instance) > (claim.started, claim.instance)
            for other in self._neighbours(claim)
        )

    def _neighbours(self, claim: Claim) -> list[Claim]:
        """Living instances other than this one that listen where it does."""
        found = {instance: None for address in claim.addresses for instance in self._at.get(address, ())}
        return [self.table[instance] for instance in found if instance != claim.instance]

    def next_probe(self, rng: Random) -> int | None:
        """Whom to probe next: everybody once a round, in a new random order each round (SWIM, section 4.3)."""
        while True:
            while self._round:
                claim = self.table.get(self._round.pop())
                if claim is not None and not claim.gone and claim is not self.me:
                    return claim.instance
            self._round = self.peers()
            if not self._round:
                return None
            rng.shuffle(self._round)
