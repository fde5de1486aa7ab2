"""How does a node prove who of the cluster it is?

By a pair of Ed25519 keys of its own, made anew at every start and whenever it goes on as another instance, and never
stored. Its instance id is 64 bits of the hash of the public key. So whoever is shown a proof can check it by the id
alone, and was to be told of no key before: there is no list of members, and nobody who would have to keep one.

    proof     32 bytes of public key, 64 of signature

What is signed says first what it is for, and with it the cluster, or the stream: a proof is good for nothing else.

Invariants: who has not the private key of an instance makes no proof of it; that key is never stored and never sent.
To come to another pair with the same id takes 2^64 tries. (A few public keys have no private one, and anybody can
speak for them: who chooses one of those has nobody harmed but himself.)
Source: RFC 8032.
Not here: what is proved (claims: `protocol.identity`, streams: `handshake`).
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from crdt import Malformed
from gossip.protocol.identity import statement
from gossip.protocol.members import Claim

SECRET: Final = 32
"""Bytes of chance that a pair is made of."""
_PUBLIC = 32
_VERIFIED = 4096
"""Proofs remembered as good, by 32 bytes each: four times the dead that are, so that old claims of those who were
forgotten, sent again and again by one who has the key, cost a hash each and not a signature. With 16 bytes two
statements of one hash, a good one and a forged one, would be found with less work than a signature is worth."""


class KeyPair:
    """The identity of one instance of a node; `secret` is 32 bytes that nobody else has.

    >>> ann, eve = KeyPair("shop", b"a" * 32), KeyPair("shop", b"e" * 32)
    >>> claim = ann.sign(Claim(ann.instance, "ann", ("unix:/ann",), 0))
    >>> eve.verify(claim), eve.verify(claim._replace(incarnation=1))
    (True, False)
    >>> eve.verify(eve.sign(claim))
    False
    """

    def __init__(self, cluster: str, secret: bytes) -> None:
        # imported where a key is in use, as in `seal`
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._cluster = cluster
        self._private = Ed25519PrivateKey.from_private_bytes(secret)
        self._public = self._private.public_key().public_bytes_raw()
        self._instance = _instance_of(self._public)
        self._verified: dict[bytes, None] = {}
        """The last that were found good, oldest first."""

    @property
    def instance(self) -> int:
        """Who it is."""
        return self._instance

    def prove(self, what: bytes) -> bytes:
        """A proof that this instance says this; `what` begins with what it is for."""
        return self._public + self._private.sign(what)

    def sign(self, claim: Claim) -> Claim:
        """A claim of this instance about itself, with the proof of it."""
        return claim._replace(proof=self.prove(statement(self._cluster, claim)))

    def verify(self, claim: Claim) -> bool:
        """Whether the instance of a claim has said itself what is its own in it."""
        said = statement(self._cluster, claim)
        seen = blake2b(len(said).to_bytes(8, "big") + said + claim.proof, digest_size=32).digest()
        if seen in self._verified:  # the instance is in the statement
            return True
        try:
            good = proved(claim.proof, said) == claim.instance
        except Malformed:
            return False
        if good:
            self._verified[seen] = None
            if len(self._verified) > _VERIFIED:
                del self._verified[next(iter(self._verified))]
        return good

    def another(self, seed: bytes) -> KeyPair:
        """Another one for the same node. The seed alone says nothing of it: chance that is good for a protocol may be
        told from what it gave before."""
        secret = blake2b(seed, key=self._private.private_bytes_raw(), person=b"gossamesh reborn", digest_size=SECRET)
        return KeyPair(self._cluster, secret.digest())


def proved(proof: bytes, what: bytes) -> int:
    """Which instance says this. Raises `Malformed` if none does."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    public, signature = proof[:_PUBLIC], proof[_PUBLIC:]
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, what)
    except (InvalidSignature, ValueError):
        raise Malformed("a proof is not that of its key") from None
    return _instance_of(public)


def _instance_of(public: bytes) -> int:
    digest = blake2b(public, person=b"gossamesh member", digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1  # 0 is nobody's
