"""How do two who open a stream come to a key that nobody else has, nor they themselves for another stream, and who are
they?

    caller    hello     sealed with the cluster's key: a fresh public key
    listener  answer    sealed with the same key, and bound to that hello: a fresh public key of its own, and a proof by
                        its identity that it was made for this hello
    caller    proof     the first frame under the key that follows from both: it made the hello, and does not repeat it;
                        in it a proof by its identity that this stream is its own
    caller    frames    under that key, each with its number in the stream as nonce; and datagrams, under another one

A stranger is not answered, for his hello does not open. A hello that was recorded is answered by no more bytes than it
had, and then leads nowhere: the key follows from a secret of its first author. So of a recorded stream nothing opens
again, at once, later, or in another life of the listener; nor does a frame that was left out, moved or taken from
another stream. Who learns the cluster's key later can not read what he recorded before, for the fresh keys are gone;
he sees which instance answered, which is no secret.

Each end knows which instance is at the other one, and whoever passes on what two others say is at neither: the key
follows from all of the answer, the identity in it included, and what the caller signs follows from the key.

Invariants: `Opening` gives the packets that `Sealing` was given, in their order, from the first, or raises `Malformed`;
its `peer` has signed for this very stream, and for no other.
Source: the pattern NNpsk0 of the Noise protocol framework (an exchange of fresh keys, under a key that all have), with
X25519 of RFC 7748; that both sign what is fresh in it is the manner of SIGMA (Krawczyk 2003). The framing of Noise is
not used: the seal is there anyway, and tries the several keys of a rotation.
Not here: sockets, time and chance (`fresh` is 32 random bytes), and how an instance proves itself (`identity`).
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from crdt import Malformed
from gossip.datagrams import Posting, Receipt
from gossip.identity import proved
from gossip.protocol.identity import PROOF, Identity
from gossip.seal import OVERHEAD, Seal, cipher_of, unsealed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

FRESH: Final = 32
GREETING: Final = FRESH + PROOF + OVERHEAD
"""Bytes of a hello, and of an answer: who asks in another's name has nobody drowned in answers."""
TAG: Final = 16
"""Bytes that a frame is longer than its packet."""
FIRST: Final = PROOF + TAG
"""Bytes of the first frame, the caller's proof."""
_LISTENER = b"gossamesh listener\0"
_CALLER = b"gossamesh caller\0"


class Call:
    """The side of who opens a stream: `hello` is what to send first.

    >>> from gossip.identity import KeyPair
    >>> from gossip.keyring import Keyring
    >>> here, there = (Seal(Keyring([bytes(32)]), "shop", salt=salt * 16) for salt in (b"a", b"b"))
    >>> ann, bob = KeyPair("shop", b"a" * 32), KeyPair("shop", b"b" * 32)
    >>> call = Call(here, fresh=b"c" * 32)
    >>> answer, opening = answered(there, bob, call.hello, fresh=b"d" * 32)
    >>> sealing = call.accept(answer)
    >>> opening.prove(sealing.proof(ann))
    >>> opening.open(sealing.seal(b"hello"))
    b'hello'
    >>> sealing.peer == bob.instance, opening.peer == ann.instance
    (True, True)
    """

    def __init__(self, seal: Seal, fresh: bytes) -> None:
        self.seal = seal
        self._private = _private(fresh)
        self.key = seal.keyring.first
        """Which of the cluster's keys it is made with."""
        self.hello = seal.seal(_public(self._private) + bytes(PROOF), b"hello")  # as long as its answer

    def accept(self, answer: bytes) -> Sealing:
        """The key that follows from an answer to this hello. Raises `Malformed` for what is none."""
        said, key = self.seal.open(answer, b"answer" + self.hello)
        if key != self.key or len(answer) != GREETING:
            raise Malformed("an answer is made with the key of its question")
        theirs, proof = said[:FRESH], said[FRESH:]
        peer = proved(proof, _LISTENER + self.hello + theirs)
        return Sealing(_shared(key, self._private, theirs, self.hello + answer), peer)


def answered(seal: Seal, identity: Identity, hello: bytes, fresh: bytes) -> tuple[bytes, Opening]:
    """What to answer to a hello, and what opens all that follows it. Raises `Malformed` for a stranger's."""
    if len(hello) != GREETING:
        raise Malformed("a hello has its length")
    said, key = seal.open(hello, b"hello")
    private = _private(fresh)
    public = _public(private)
    answer = seal.seal(public + identity.prove(_LISTENER + hello + public), b"answer" + hello, key)
    return answer, Opening(_shared(key, private, said[:FRESH], hello + answer), key)


class Sealing:
    """Seals what leaves by one stream, to the instance `peer`; `posting` what leaves beside it."""

    def __init__(self, secret: bytes, peer: int) -> None:
        self.peer = peer
        self._claim = _CALLER + _part(secret, b"caller")
        self._cipher = cipher_of(_part(secret, b"frames"))
        self.posting = Posting(_part(secret, b"datagrams"))
        self._number = 0

    def proof(self, identity: Identity) -> bytes:
        """The first frame: that we could make it, and who we are."""
        return self.seal(identity.prove(self._claim))

    def seal(self, packet: bytes) -> bytes:
        """The next frame."""
        number, self._number = self._number, self._number + 1
        return self._cipher.encrypt(number.to_bytes(12, "big"), packet, b"frame")


class Opening:
    """Opens what comes by one stream, begun with this `key` of the cluster; `receipt` what comes beside it."""

    def __init__(self, secret: bytes, key: bytes) -> None:
        self.key = key
        self.peer: int | None = None
        """Which instance its caller is, once that is proved."""
        self._claim = _CALLER + _part(secret, b"caller")
        self._cipher = cipher_of(_part(secret, b"frames"))
        self.receipt = Receipt(_part(secret, b"datagrams"))
        self._number = 0

    @property
    def proved(self) -> bool:
        """Whether its caller has made his own hello, and said who he is."""
        return self.peer is not None

    def prove(self, frame: bytes) -> None:
        """Takes the first frame. Raises `Malformed` if it is no proof."""
        self.peer = proved(self.open(frame), self._claim)

    def open(self, frame: bytes) -> bytes:
        """The packet in the next frame. Raises `Malformed` for any other."""
        packet = unsealed(self._cipher, self._number.to_bytes(12, "big"), frame, b"frame")
        self._number += 1
        return packet


def _shared(key: bytes, private: X25519PrivateKey, theirs: bytes, transcript: bytes) -> bytes:
    """The secret of one stream. The seals in the transcript are bound to the cluster's name and to the version; and
    without the key of the cluster the exchange alone leads to nothing."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    try:
        exchanged = private.exchange(X25519PublicKey.from_public_bytes(theirs))
    except ValueError:
        raise Malformed("a greeting has a key to exchange") from None
    return blake2b(exchanged + transcript, key=key, person=b"gossamesh stream", digest_size=32).digest()


def _part(secret: bytes, use: bytes) -> bytes:
    """A secret for one use, from which no other follows."""
    return blake2b(use, key=secret, person=b"gossamesh part", digest_size=32).digest()


def _private(fresh: bytes) -> X25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(fresh)


def _public(private: X25519PrivateKey) -> bytes:
    return private.public_key().public_bytes_raw()
