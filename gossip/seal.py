"""Who may speak in this cluster, if the network may not be trusted?

With a key, every packet is sealed with AES-256-GCM, and one that was not sealed with the same key is dropped unread
and unanswered. Each process seals under a key of its own, derived from the cluster's and 16 random bytes that stand at
the head of each of its packets, with a counter as nonce: so a nonce never repeats, however many packets a cluster
sends, and none of them needs to be random.

    16 bytes  salt       drawn once a process
    8 bytes   counter    of this process
    the rest  AES-256-GCM of the packet, with the cluster's name bound to it

Invariant: `open` gives back what `seal` was given by a holder of the same key in the same cluster, or raises
`Malformed`.
Source: SP 800-38D (a 96-bit nonce must never repeat under a key; random ones are good for 2^32 packets only).
Not here: protection from replay, and identities of single members. What is replayed is a message that was true once;
claims and writes are lattices, so it changes nothing that is newer. It does where all have forgotten: SECURITY.md.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING

from crdt import Malformed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_SALT = 16
_COUNTER = 8
_TAG = 16
OVERHEAD = _SALT + _COUNTER + _TAG
"""Bytes that sealing adds to a packet."""
_MOST_SENDERS = 1024
"""Derived keys remembered; a stranger who invents salts only makes us derive again."""


class Seal:
    """Seals and opens the packets of one cluster. `salt` is 16 bytes that no other process has.

    >>> seal, other = Seal(bytes(32), "shop", salt=b"a" * 16), Seal(bytes(32), "shop", salt=b"b" * 16)
    >>> other.open(seal.seal(b"hello"))
    b'hello'
    >>> Seal(bytes(32), "other shop", salt=b"c" * 16).open(seal.seal(b"hello"))
    Traceback (most recent call last):
    crdt.codec.Malformed: not sealed with this cluster's key
    """

    def __init__(self, key: bytes, cluster: str, salt: bytes) -> None:
        self._key = key
        self._label = b"gossamesh\0" + cluster.encode()
        self._salt = salt
        self._counter = 0
        self._ciphers: OrderedDict[bytes, AESGCM] = OrderedDict()
        self._own = self._cipher(salt)

    def seal(self, packet: bytes) -> bytes:
        """The packet, unreadable to who has no key."""
        self._counter += 1
        counter = self._counter.to_bytes(_COUNTER, "big")
        return self._salt + counter + self._own.encrypt(bytes(4) + counter, packet, self._label)

    def open(self, sealed: bytes) -> bytes:
        """What was sealed. Raises `Malformed`."""
        from cryptography.exceptions import InvalidTag

        if len(sealed) < OVERHEAD:
            raise Malformed("too short to be sealed")
        salt, counter = sealed[:_SALT], sealed[_SALT : _SALT + _COUNTER]
        try:
            return self._cipher(salt).decrypt(bytes(4) + counter, sealed[_SALT + _COUNTER :], self._label)
        except InvalidTag:
            raise Malformed("not sealed with this cluster's key") from None

    def _cipher(self, salt: bytes) -> AESGCM:
        # imported where a key is in use: it takes 20 ms that a node without one need not spend
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        cipher = self._ciphers.get(salt)
        if cipher is None:
            derived = blake2b(salt, key=self._key, person=b"gossamesh seal", digest_size=32).digest()
            cipher = self._ciphers[salt] = AESGCM(derived)
            if len(self._ciphers) > _MOST_SENDERS:
                self._ciphers.popitem(last=False)
        else:
            self._ciphers.move_to_end(salt)
        return cipher
