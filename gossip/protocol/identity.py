"""Did an instance say itself what is said to be its own words?

In a cluster with a key every node can prove who it is, and what a claim says of a member in the member's own name bears
that proof: name, addresses, tags, incarnation, and that it has left. Whoever has the key may still say what others may
say of a member: that it is suspect, stalled or dead.

Invariant: of one instance nobody but itself makes a proof, and every node can check it without having been told of
anything before.
Not here: how it is proved (`gossip.identity`), and where it is checked (`membership`).
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from crdt.codec import pack
from gossip.protocol.members import Claim

PROOF: Final = 96
"""Bytes of a proof: a public key of 32, and a signature of 64."""


class Identity(Protocol):
    """How one instance proves itself, and others to it."""

    @property
    def instance(self) -> int:
        """Who it is."""
        ...

    def prove(self, what: bytes) -> bytes:
        """A proof that this instance says this; `what` begins with what it is for."""
        ...

    def sign(self, claim: Claim) -> Claim:
        """A claim of this instance about itself, with the proof of it."""
        ...

    def verify(self, claim: Claim) -> bool:
        """Whether the instance of a claim has said itself what is its own in it."""
        ...

    def another(self, seed: bytes) -> Identity:
        """Another one for the same node; `seed` is 32 bytes of chance, which need not be secret."""
        ...


class Unproved(NamedTuple):
    """Where there is no key: an instance is 64 random bits, nothing is proved, and everybody is believed."""

    instance: int

    def prove(self, what: bytes) -> bytes:
        """There is none."""
        return b""

    def sign(self, claim: Claim) -> Claim:
        """The claim as it is."""
        return claim

    def verify(self, claim: Claim) -> bool:
        """Always."""
        return True

    def another(self, seed: bytes) -> Unproved:
        """One of other random bits."""
        return Unproved(int.from_bytes(seed[:8], "big") | 1)


def statement(cluster: str, claim: Claim) -> bytes:
    """What an instance signs of a claim about itself.

    >>> from gossip.protocol.members import Status
    >>> alive = Claim(1, "ann", (), 0)
    >>> statement("shop", alive) == statement("shop", alive.by_whom(Status.SUSPECT, 9))
    True
    >>> statement("shop", alive) == statement("shop", alive._replace(incarnation=1))
    False
    """
    return b"gossamesh claim\0" + pack((cluster, *claim.own))
