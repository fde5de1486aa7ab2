"""How is "all that I wrote so far" said in a few characters, for a cookie or a header?

A token is a part of a context: replicas, and how far each of them has written. Whoever has delivered that much has seen
what the token's author had written when it was made.

    1 byte    1, a token; or 2, the cursor of a watch: with 6 bytes after the cluster that say when it was made
    4 bytes   cluster     BLAKE2b of its name: a token of another cluster is refused
    then      replica (8 bytes) and sequence (as many bytes as it needs, 7 bits each), for each replica
    4 bytes   checksum    BLAKE2b of all before: cookies are cut, and people copy badly

in base64 for URLs, without padding: 24 characters for the first 127 writes of a node.

Invariant: `parse` gives what `make` was given, or raises `ValueError`. A token is no secret and no proof: it only says
what to wait for.
"""

from __future__ import annotations

import base64
import binascii

from crdt import Context

_TOKEN = 1
_CURSOR = 2
"""A token with 6 bytes more after the cluster, for when it was made."""
_AT = 6
_LEAST = {_TOKEN: 9, _CURSOR: 9 + _AT}
_LONGEST = 1 << 20
"""Characters: all that a node has seen, with as many replicas as a context may have."""


def make(cluster: str, context: Context, at: int | None = None) -> str:
    """The token of this part of a context; with `at`, milliseconds since 1970, a cursor.

    >>> token = make("shop", Context({7: 300}))
    >>> len(token), parse("shop", token)
    (26, {7: 300})
    """
    content = bytearray([_TOKEN if at is None else _CURSOR]) + _mark(cluster)
    if at is not None:
        content += at.to_bytes(_AT, "big")
    for replica, sequence in sorted(context.items()):
        content += replica.to_bytes(8, "big") + _varint(sequence)
    return base64.urlsafe_b64encode(content + _checksum(content)).rstrip(b"=").decode()


def parse(cluster: str, token: str) -> Context:
    """What a token says. Raises `TypeError` if it is no text, `ValueError` if it is none of this cluster."""
    return _pairs(_content(cluster, token, _TOKEN, "token"))


def parse_cursor(cluster: str, cursor: str) -> tuple[Context, int]:
    """What a cursor says: what its reader had seen, and when it was made. Raises as `parse` does.

    >>> parse_cursor("shop", make("shop", Context({7: 300}), at=1_000))
    ({7: 300}, 1000)
    """
    content = _content(cluster, cursor, _CURSOR, "cursor")
    return _pairs(content[_AT:]), int.from_bytes(content[:_AT], "big")


def _content(cluster: str, token: str, kind: int, what: str) -> bytes:
    """What is between head and checksum."""
    if type(token) is not str:
        raise TypeError(f"a {what} is a text, not of type {type(token).__name__}")
    try:
        content = base64.b64decode(token[:_LONGEST] + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(_none(what)) from None
    if len(content) < _LEAST[kind] or content[0] != kind or content[-4:] != _checksum(content[:-4]):
        raise ValueError(_none(what))
    if content[1:5] != _mark(cluster):
        raise ValueError(f"this {what} is of another cluster: it was made by a node of another name")
    return content[5:-4]


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


def _none(what: str) -> str:
    return f"this is no {what}, or only a part of one: give it as the node gave it"


# `hashlib` is asked for here, since it comes with all of OpenSSL, and a program may have no token.


def _mark(cluster: str) -> bytes:
    from hashlib import blake2b

    return blake2b(cluster.encode(), digest_size=4).digest()


def _checksum(content: bytes | bytearray) -> bytes:
    from hashlib import blake2b

    return blake2b(content, digest_size=4, person=b"gossamesh token").digest()


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
