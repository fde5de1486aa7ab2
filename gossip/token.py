"""How is "all that I wrote so far" said in a few characters, for a cookie or a header?

A token is a part of a context: replicas, and how far each of them has written. Whoever has delivered that much has seen
what the token's author had written when it was made.

    1 byte    version
    4 bytes   cluster     BLAKE2b of its name: a token of another cluster is refused
    then      replica (8 bytes) and sequence (as many bytes as it needs, 7 bits each), for each replica
    4 bytes   checksum    BLAKE2b of all before: cookies are cut, and people copy badly

in base64 for URLs, without padding: 23 characters for the first 127 writes of a node.

Invariant: `parse` gives what `make` was given, or raises `ValueError`. A token is no secret and no proof: it only says
what to wait for.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import blake2b

from crdt import Context

_VERSION = 1
_LONGEST = 1 << 20
"""Characters: all that a node has seen, with as many replicas as a context may have."""


def make(cluster: str, context: Context) -> str:
    """The token of this part of a context.

    >>> token = make("shop", Context({7: 300}))
    >>> len(token), parse("shop", token)
    (26, {7: 300})
    """
    content = bytearray([_VERSION]) + _mark(cluster)
    for replica, sequence in sorted(context.items()):
        content += replica.to_bytes(8, "big") + _varint(sequence)
    return base64.urlsafe_b64encode(content + _checksum(content)).rstrip(b"=").decode()


def parse(cluster: str, token: str) -> Context:
    """What a token says. Raises `TypeError` if it is no text, `ValueError` if it is none of this cluster."""
    if type(token) is not str:
        raise TypeError(f"a token is a text, not of type {type(token).__name__}")
    try:
        content = base64.b64decode(token[:_LONGEST] + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(_NONE) from None
    if len(content) < 9 or content[0] != _VERSION or content[-4:] != _checksum(content[:-4]):
        raise ValueError(_NONE)
    if content[1:5] != _mark(cluster):
        raise ValueError("this token is of another cluster: it was made by a node of another name")
    return _pairs(content[5:-4])


def _pairs(content: bytes) -> Context:
    context, place = Context(), 0
    while place < len(content):
        replica, place = int.from_bytes(content[place : place + 8], "big"), place + 8
        sequence = shift = 0
        while place < len(content):
            byte = content[place]
            sequence, shift, place = sequence | (byte & 0x7F) << shift, shift + 7, place + 1
            if byte < 0x80 or shift > 63:
                break
        context[replica] = sequence
    return context


_NONE = "this is no token, or only a part of one: give it as `node.token` gave it"


def _mark(cluster: str) -> bytes:
    return blake2b(cluster.encode(), digest_size=4).digest()


def _checksum(content: bytes | bytearray) -> bytes:
    return blake2b(content, digest_size=4, person=b"gossamesh token").digest()


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
