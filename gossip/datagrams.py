"""Is a datagram from whom a stream was begun by, and did it come before?

Datagrams have no handshake of their own: what a stream's handshake led to seals them too, so they are bound to its two
ends, and end with it. A receiver that was restarted knows no stream from before, and so believes no datagram from then.

    8 bytes   stream   which one's caller it is from
    8 bytes   number   1, 2, ... of that caller on that stream
    the rest  AES-256-GCM of the packet, with both bound to it

Invariants: no number is sealed twice, and none opens twice; a number too old to remember opens not at all. A datagram
that does not open changes nothing.
Source: the window is that of RFC 4303 (section 3.4.3), of 1 024 numbers.
Not here: how many streams there may be, which is how many windows there are (`transport`).
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from crdt import Malformed
from gossip.seal import cipher_of, unsealed

NAME: Final = 8
_NUMBER = 8
_HEAD = NAME + _NUMBER
POSTAGE: Final = _HEAD + 16
"""Bytes that a datagram is longer than its packet."""
_WINDOW = 1024
"""Numbers back to which it is known which have come: a path that mixes up more than that is no path for probes."""


class Posting:
    """Seals the datagrams of a stream's caller. `secret` is 32 bytes that only its two ends have.

    >>> posting, receipt = Posting(bytes(32)), Receipt(bytes(32))
    >>> datagram = posting.seal(b"ping")
    >>> receipt.open(datagram)
    b'ping'
    >>> receipt.open(datagram)
    Traceback (most recent call last):
    gossip.datagrams.Repeated: a datagram that has come before
    """

    def __init__(self, secret: bytes) -> None:
        self._cipher, self._name = cipher_of(secret), _name(secret)
        self._number = 0

    def seal(self, packet: bytes) -> bytes:
        """The next datagram."""
        self._number += 1
        head = self._name + self._number.to_bytes(_NUMBER, "big")
        return head + self._cipher.encrypt(bytes(4) + head[NAME:], packet, head)


class Repeated(Malformed):
    """It came before, or so long ago that nobody knows."""


class Receipt:
    """Opens the datagrams of a stream's caller, each once. `name` is what they begin with."""

    def __init__(self, secret: bytes) -> None:
        self._cipher, self.name = cipher_of(secret), _name(secret)
        self._newest = 0
        self._came = 0
        """A bit for each number that came: the lowest for the newest."""

    def open(self, datagram: bytes) -> bytes:
        """The packet in a datagram. Raises `Malformed`, and `Repeated` if it was opened before."""
        head = datagram[:_HEAD]
        packet = unsealed(self._cipher, bytes(4) + head[NAME:], datagram[_HEAD:], head)
        number = int.from_bytes(head[NAME:], "big")
        ahead = number - self._newest
        if ahead > 0:
            self._came = (self._came << min(ahead, _WINDOW) | 1) & ((1 << _WINDOW) - 1)
            self._newest = number
            return packet
        if -ahead >= _WINDOW or self._came >> -ahead & 1:
            raise Repeated("a datagram that has come before")
        self._came |= 1 << -ahead
        return packet


def _name(secret: bytes) -> bytes:
    """A name that gives nothing away, and that no two streams have."""
    return blake2b(secret, person=b"gossamesh name", digest_size=NAME).digest()
