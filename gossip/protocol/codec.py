"""How does a message become bytes, and only ever bytes of this cluster a message?

    2 bytes   "gm"            what this is
    1 byte    version         a newer one is refused, and counted
    8 bytes   cluster         BLAKE2b of its name: another cluster's packets end here
    the rest  msgpack array   [kind, sender, fields ...]

A later version may add kinds of messages, and fields at the end of those there are: an older one passes over both. What
it can not pass over takes another version number.

Invariant: `decode` gives a well-formed message, every field within its bound, or raises `Malformed`; it neither
allocates more than a small multiple of what came nor changes anything.
Not here: secrecy (`gossip.seal` wraps all of it).
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final

from crdt import Malformed
from crdt.codec import pack, unpack
from gossip.protocol.identity import PROOF
from gossip.protocol.members import MOST_BY, Claim, Status
from gossip.protocol.messages import (
    Ack,
    Busy,
    Digest,
    Gossip,
    Join,
    Message,
    Nack,
    Ping,
    PingReq,
    Pull,
    Push,
    StateNext,
    StatePart,
    Sums,
    Sync,
    Synced,
    Welcome,
)
from gossip.protocol.relay import Part

VERSION: Final = 2
MAX_MESSAGE: Final = 4 << 20
"""Bytes of a message: a megabyte of batches beside one largest value fits twice."""
MAX_CLAIMS: Final = 4096
MAX_NAME: Final = 128
MAX_ADDRESSES: Final = 8
MAX_ADDRESS: Final = 300
MAX_TAGS: Final = 64
MAX_TAG_NAME: Final = 128
MAX_TAG_BYTES: Final = 4096
"""Of all tags of a member, names and values: everybody keeps those of everybody."""

_MAX_64 = 2**64 - 1
_ONLY_BYTES = {bytes}
_HEADER = 11


class Unknown(Malformed):
    """A message of a later version: it is passed over, and nobody is judged by it."""


class Codec:
    """Encodes and decodes the messages of one cluster.

    >>> codec = Codec("shop")
    >>> codec.decode(codec.encode(7, PingReq(1, 9)))
    (7, PingReq(number=1, target=9))
    >>> Codec("other shop").decode(codec.encode(7, PingReq(1, 9)))
    Traceback (most recent call last):
    crdt.codec.Malformed: a packet of another cluster
    """

    def __init__(self, cluster: str) -> None:
        self._header = b"gm" + bytes([VERSION]) + blake2b(cluster.encode(), digest_size=8).digest()

    def encode(self, sender: int, message: Message) -> bytes:
        """The bytes of a message from the instance `sender`."""
        return self._header + pack((_NUMBERS[type(message)], sender, *message))

    def decode(self, payload: bytes) -> tuple[int, Message]:
        """`(sender, message)`. Raises `Malformed`, saying which rule was broken."""
        if payload[:_HEADER] != self._header:
            raise Malformed(self._stranger(payload))
        if len(payload) > MAX_MESSAGE:
            raise Malformed("a message is too long")
        fields = unpack(payload[_HEADER:])
        if not (type(fields) is tuple and len(fields) >= 2 and type(fields[0]) is int and fields[0] >= 0):
            raise Malformed("broken rule of the protocol: a message is of a kind, and has a sender")
        kind, sender = fields[:2]
        if kind >= len(_KINDS):
            raise Unknown(f"a message of kind {kind}, which a later version may have")
        message_type, checks = _KINDS[kind]
        if not (type(sender) is int and 0 < sender <= _MAX_64 and len(fields) >= 2 + len(checks)):
            raise Malformed("broken rule of the protocol: a message has a sender and all its fields")
        if message_type is Push and fields[3:7] == _UNASKED and (*map(type, fields[3:7]),) == _TYPES_OF_THAT:
            return sender, Push(_batches(fields[2]))
        return sender, message_type(*[check(field) for check, field in zip(checks, fields[2:], strict=False)])

    def _stranger(self, payload: bytes) -> str:
        if len(payload) < _HEADER or payload[:2] != self._header[:2]:
            return "not a packet of this protocol"
        if payload[2] != VERSION:
            return f"a packet of version {payload[2]}, this is {VERSION}"
        return "a packet of another cluster"


def _demand(condition: bool, what: str) -> None:
    if not condition:
        raise Malformed(f"broken rule of the protocol: {what}")


def _is_instance(field: Any) -> bool:
    return type(field) is int and 0 < field <= _MAX_64


def _instance(field: Any) -> int:
    _demand(_is_instance(field), "an instance is 64 bits and not 0")
    return int(field)


def _number(field: Any) -> int:
    if not (type(field) is int and 0 <= field <= _MAX_64):
        raise Malformed("broken rule of the protocol: a number fits 64 bits")
    return field


def _flag(field: Any) -> bool:
    _demand(type(field) is bool, "a flag is true or false")
    return bool(field)


def _bytes(field: Any) -> bytes:
    _demand(type(field) is bytes, "a payload is bytes")
    return bytes(field)


def _batches(field: Any) -> tuple[bytes, ...]:
    if not (type(field) is tuple and {*map(type, field)} <= _ONLY_BYTES):
        raise Malformed("broken rule of the protocol: batches are bytes")
    return field


def _digest(field: Any) -> Digest:
    _demand(type(field) is tuple and len(field) == 4, "a digest is two fingerprints, a flag and a number")
    state = None if field[1] is None else _number(field[1])
    return Digest(_number(field[0]), state, _flag(field[2]), _number(field[3]))


def _part(field: Any) -> Part | None:
    if field is None:
        return None
    _demand(type(field) is tuple and len(field) == 2, "a part of the ring lies between two instances")
    return Part(_number(field[0]), _number(field[1]))


def _text(field: Any, limit: int, what: str) -> str:
    _demand(type(field) is str and 0 < len(field) <= limit and field.isprintable(), what)
    return str(field)


def _claims(field: Any) -> tuple[Claim, ...]:
    _demand(type(field) is tuple and len(field) <= MAX_CLAIMS, "claims come in a bounded list")
    return tuple(map(_claim, field))


def _claim(field: Any) -> Claim:
    _demand(type(field) is tuple and len(field) == 9, "a claim has nine fields")
    instance, name, addresses, started, tags, incarnation, status, by, proof = field
    _demand(type(addresses) is tuple and len(addresses) <= MAX_ADDRESSES, "a member has few addresses")
    _demand(type(tags) is tuple and len(tags) <= MAX_TAGS, "a member has few tags")
    _demand(type(status) is int and 0 <= status < len(Status), "a status is a known one")
    _demand(type(by) is tuple and len(by) <= MOST_BY, "few say one thing of a member")
    _demand(type(proof) is bytes and len(proof) in (0, PROOF), "a proof has its length, where there is one")
    sayers = tuple(map(_instance, by))
    _demand(sayers == tuple(sorted(set(sayers))), "who says it says it once, in order")
    return Claim(
        _instance(instance),
        _text(name, MAX_NAME, "a name is short and printable"),
        tuple(_text(address, MAX_ADDRESS, "an address is short and printable") for address in addresses),
        _number(started),
        _tags(tags),
        _number(incarnation),
        Status(status),
        sayers,
        proof,
    )


def _tags(field: tuple[Any, ...]) -> tuple[tuple[str, str], ...]:
    for tag in field:
        _demand(
            type(tag) is tuple and len(tag) == 2 and all(type(part) is str and part.isprintable() for part in tag),
            "a tag is a pair of printable texts",
        )
        _demand(0 < len(tag[0].encode()) <= MAX_TAG_NAME, "the name of a tag is short")
    _demand(sum(len((key + value).encode()) for key, value in field) <= MAX_TAG_BYTES, "tags are small")
    return field


_Check = Callable[[Any], Any]
_KINDS: Final[tuple[tuple[type[Any], tuple[_Check, ...]], ...]] = (
    (Join, (_claims, _digest)),
    (Welcome, (_claims, _digest)),
    (Ping, (_number, _digest, _claims, _number)),
    (Ack, (_number, _digest, _claims, _number, _number)),
    (PingReq, (_number, _instance)),
    (Gossip, (_claims,)),
    (Push, (_batches, _number, _number, _flag, _part)),
    (Pull, (_number, _bytes, _flag)),
    (StatePart, (_number, _number, _flag, _bytes, _number)),
    (StateNext, (_number, _number, _bytes)),
    (Busy, (_number,)),
    (Sync, (_number, _bytes, _flag)),
    (Synced, (_number, _flag)),
    (Sums, (_number, _number, _bytes, _number, _flag)),
    (Nack, (_number,)),
)
"""Every kind of message, in the order of their numbers on the wire, with the check of each field."""
_UNASKED = (0, 0, False, None)
"""What follows the batches in a push that nobody asked for, nor hands on: nearly all that comes."""
_TYPES_OF_THAT = (*map(type, _UNASKED),)
_NUMBERS = {message_type: number for number, (message_type, _) in enumerate(_KINDS)}
