"""How is something that was meant bent into something that nobody meant?

Bytes are flipped, cut, doubled and spliced; and what can be read as msgpack is taken apart, changed in one place, and
put together again, for most of what lies deep is never reached by bytes that do not even parse.

Invariant: the same seed bends the same way, so what was found once is found again.
Not here: what is done with it (`targets`).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import msgpack

LONGEST = 1 << 13
_MARKS = tuple(
    bytes.fromhex(text)
    for text in (
        "ddffffffff", "dfffffffff", "c6ffffffff", "dbffffffff", "c9ffffffff01", "dcffff", "deffff", "c70a01ff",
        "d6ff00000000", "a2c328", "c1", "c0", "c2", "c3", "90", "80", "cb7ff8000000000000", "cb7ff0000000000000",
        "cfffffffffffffffff", "cf8000000000000000", "cf7fffffffffffffff", "d38000000000000000", "ff", "e0", "d9ff",
        "da0fff", "c4ff", "9191919191919191", "8101810181018101", "eda080",
    )
)  # fmt: skip
"""Beginnings of what is larger, deeper, stranger or shorter than it says."""
_SCALARS: tuple[Any, ...] = (
    0, 1, -1, 127, 128, 255, 65_535, 65_536, 2**31, 2**32 - 1, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -(2**63),
    None, True, False, 0.0, -0.0, float("nan"), float("inf"), 1e308, b"", b"\x00", b"\xff" * 40, b"x" * 600, "", "a",
    "x" * 300, "../../x", "<script>", "two\nlines", "%s%n", "{0.__class__}", "\x1b[31m", "\u202e", "\x00", "unix:/x",
    "0.0.0.0:1", "224.0.0.251:5353", "127.0.0.1:65536", "[::1]:0", (), (()), ((),) * 40, (1, 2), (b"", b""),
)  # fmt: skip


def bent(data: bytes, chance: Random, others: Sequence[bytes] = ()) -> bytes:
    """The data, changed in one place or a few; spliced with one of the others now and then."""
    if data and chance.random() < 0.4:
        data = _bent_inside(data, chance)
    else:
        for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
            data = _bent_bytes(data, chance, others)
    return data[:LONGEST]


def _bent_bytes(data: bytes, chance: Random, others: Sequence[bytes]) -> bytes:
    place = chance.randrange(len(data) + 1)
    size = chance.choice((1, 1, 2, 4, 8, 32, 200))
    match chance.randrange(9):
        case 0 if data:  # a bit
            place = chance.randrange(len(data))
            return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]
        case 1 if data:  # a byte
            place = chance.randrange(len(data))
            return data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]
        case 2:  # cut off
            return data[:place]
        case 3:  # a hole
            return data[:place] + data[place + size :]
        case 4:  # doubled
            return data[: place + size] + data[place:]
        case 5:  # noise
            return data[:place] + chance.randbytes(size) + data[place:]
        case 6 if others:  # the end of another
            other = chance.choice(others)
            return data[:place] + other[chance.randrange(len(other) + 1) :]
        case 7:  # over what stands there
            mark = chance.choice(_MARKS)
            return data[:place] + mark + data[place + len(mark) :]
    return data[:place] + chance.choice(_MARKS) + data[place:]


def _bent_inside(data: bytes, chance: Random) -> bytes:
    """As msgpack, if it is that: one part of it changed."""
    try:
        value = msgpack.unpackb(data, use_list=False, strict_map_key=False)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException):
        return _bent_bytes(data, chance, ())
    return _packed(_bent_value(value, chance))


def _bent_value(value: Any, chance: Random, depth: int = 0) -> Any:
    if isinstance(value, tuple) and value and depth < 12 and chance.random() < 0.85:
        place = chance.randrange(len(value))
        match chance.randrange(12):
            case 0:
                return value[:place] + value[place + 1 :]
            case 1:
                return value[:place] + (value[place],) * chance.choice((2, 3, 70)) + value[place + 1 :]
            case 2:
                return (*value[:place], chance.choice(_SCALARS), *value[place:])
            case 3:
                return tuple(chance.sample(value, len(value)))
        return (*value[:place], _bent_value(value[place], chance, depth + 1), *value[place + 1 :])
    if isinstance(value, bytes) and value and chance.random() < 0.7:
        return _bent_inside(value, chance)[:LONGEST]  # much of what is bytes is msgpack again: batches, keys, contexts
    if type(value) is int and chance.random() < 0.6:
        return min(max(value + chance.choice((-256, -2, -1, 1, 2, 256)), -(2**63)), 2**64 - 1)
    return chance.choice(_SCALARS)


def _packed(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed
