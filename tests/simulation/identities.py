"""How does a member of the simulated world prove who it is, and how does the world know what it said?

A stand-in for pairs of keys: a proof is a hash under a secret that the world keeps for each instance, as long as a real
one. It costs a hundredth, and everything about a cluster is the same.

Invariant: only who has the secret of an instance makes a proof of it; all that was ever said so is remembered.
Not here: real signatures (tests/protocol/test_identity.py, tests/node/test_identities.py).
"""

from __future__ import annotations

from hashlib import blake2b

from gossip.protocol.identity import PROOF, statement
from gossip.protocol.members import Claim, nobody


class Notary:
    """Knows the secrets of all instances of a world, and what each of them has said of itself."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.secrets: dict[bytes, bytes] = {}
        self.said: set[tuple[tuple[object, ...], bytes]] = set()

    def vouches(self, claim: Claim) -> bool:
        """Whether the instance said itself what a claim says in its name, or the claim says nothing in it."""
        return claim == nobody(claim.instance) or (claim.own, claim.proof) in self.said


class Secret:
    """The identity of one instance."""

    def __init__(self, notary: Notary, secret: bytes) -> None:
        self._notary = notary
        self._secret = secret
        self._public = blake2b(secret, digest_size=32).digest()
        self.instance = _instance_of(self._public)
        notary.secrets[self._public] = secret

    def prove(self, what: bytes) -> bytes:
        return self._public + _signature(self._secret, what)

    def sign(self, claim: Claim) -> Claim:
        assert claim.instance == self.instance, "nobody signs for another"
        signed = claim._replace(proof=self.prove(statement(self._notary.cluster, claim)))
        self._notary.said.add((signed.own, signed.proof))
        return signed

    def verify(self, claim: Claim) -> bool:
        public, signature = claim.proof[:32], claim.proof[32:]
        secret = self._notary.secrets.get(public)
        if secret is None or len(claim.proof) != PROOF or _instance_of(public) != claim.instance:
            return False
        return signature == _signature(secret, statement(self._notary.cluster, claim))

    def another(self, seed: bytes) -> Secret:
        return Secret(self._notary, blake2b(seed, key=self._secret, digest_size=32).digest())


def _instance_of(public: bytes) -> int:
    return int.from_bytes(public[:8], "big") | 1


def _signature(secret: bytes, what: bytes) -> bytes:
    return blake2b(what, key=secret, digest_size=64).digest()
