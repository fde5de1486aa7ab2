"""Who may speak in this cluster, if the network may not be trusted?

With a key, all is sealed with AES-256-GCM. A stream begins with what is sealed here, with a key of the cluster; one
that begins otherwise is closed, unread and unanswered. All that follows is sealed for that stream alone (`handshake`).

Each process seals under a key of its own, derived from the cluster's and 16 random bytes that stand at the head of what
it seals, with a counter as nonce: so a nonce never repeats, however much a cluster says, and none needs to be random.

    16 bytes  salt       drawn once a process
    8 bytes   counter    of this process, going on when another key seals
    the rest  AES-256-GCM of the packet; bound to it are the version, the cluster's name, and what kind of packet it is

Invariant: `open` gives back what `seal` was given by a holder of a key of ours in the same cluster, or raises
`Malformed`.
Source: SP 800-38D (a 96-bit nonce must never repeat under a key; random ones are good for 2^32 packets only).
Not here: which keys there are (`keyring`), protection from replay (`handshake`, `datagrams`), and who of the cluster
somebody is (`identity`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING

from crdt import Malformed
from gossip.keyring import Keyring
from gossip.protocol.codec import VERSION

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_SALT = 16
_COUNTER = 8
_TAG = 16
OVERHEAD = _SALT + _COUNTER + _TAG
"""Bytes that sealing adds to a packet."""
_MOST_SENDERS = 1024
"""Derived keys remembered. Only of those who had a key: a stranger who invents salts pushes nobody out."""


class Seal:
    """Seals and opens the packets of one cluster. `salt` is 16 bytes that no other process has.

    >>> seal = Seal(Keyring([bytes(32)]), "shop", salt=b"a" * 16)
    >>> Seal(Keyring([b"n" * 32, bytes(32)]), "shop", salt=b"b" * 16).open(seal.seal(b"hello", b"kind"), b"kind")[0]
    b'hello'
    >>> Seal(Keyring([bytes(32)]), "other shop", salt=b"c" * 16).open(seal.seal(b"hello", b"kind"), b"kind")
    Traceback (most recent call last):
    crdt.codec.Malformed: not sealed with a key of this cluster
    """

    def __init__(self, keyring: Keyring, cluster: str, salt: bytes) -> None:
        self.keyring = keyring
        self._label = b"gossamesh\0" + bytes([VERSION]) + cluster.encode() + b"\0"
        self._salt = salt
        self._counter = 0
        self._own = keyring.first, _cipher(keyring.first, salt)
        self._known: OrderedDict[bytes, tuple[bytes, AESGCM]] = OrderedDict()
        """Of each salt the key that it is used with, and the cipher of both."""

    def seal(self, packet: bytes, kind: bytes, key: bytes | None = None) -> bytes:
        """The packet, unreadable to who has no key; with the key that seals, or a certain one."""
        key = key or self.keyring.first
        if key != self._own[0]:
            self._own = key, _cipher(key, self._salt)
        self._counter += 1
        counter = self._counter.to_bytes(_COUNTER, "big")
        return self._salt + counter + self._own[1].encrypt(bytes(4) + counter, packet, self._label + kind)

    def open(self, sealed: bytes, kind: bytes) -> tuple[bytes, bytes]:
        """What was sealed as such a packet, and with which key of the cluster. Raises `Malformed`."""
        if len(sealed) < OVERHEAD:
            raise Malformed("too short to be sealed")
        salt, nonce, body = sealed[:_SALT], bytes(4) + sealed[_SALT : _SALT + _COUNTER], sealed[_SALT + _COUNTER :]
        for key, cipher in self._ciphers(salt):
            try:
                packet = unsealed(cipher, nonce, body, self._label + kind)
            except Malformed:
                continue
            self._known[salt] = key, cipher
            self._known.move_to_end(salt)
            if len(self._known) > _MOST_SENDERS:
                self._known.popitem(last=False)
            return packet, key
        raise Malformed("not sealed with a key of this cluster")

    def _ciphers(self, salt: bytes) -> Iterator[tuple[bytes, AESGCM]]:
        """What may open packets of this salt: that which did, then the others, for its sender may have changed keys."""
        likely, cipher = self._known.get(salt, (b"", None))
        if cipher is not None and likely in self.keyring:
            yield likely, cipher
        for key in self.keyring:
            if key != likely:
                yield key, _cipher(key, salt)


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    return cipher_of(blake2b(salt, key=key, person=b"gossamesh seal", digest_size=32).digest())


def cipher_of(secret: bytes) -> AESGCM:
    """The cipher of 32 secret bytes."""
    # imported where a key is in use: it takes 20 ms that a node without one need not spend
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(secret)


def unsealed(cipher: AESGCM, nonce: bytes, body: bytes, bound: bytes) -> bytes:
    """What a cipher has sealed with this nonce and bound to this. Raises `Malformed`."""
    from cryptography.exceptions import InvalidTag

    try:
        return cipher.decrypt(nonce, body, bound)
    except (InvalidTag, ValueError):  # it is not, or it is too short to be
        raise Malformed("not sealed by who has this secret") from None
