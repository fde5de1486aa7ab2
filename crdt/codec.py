"""How do values, writes and contexts become bytes, and bytes only ever what was meant?

One format for wire and disk: msgpack arrays of fixed shape, no maps, no extension types. Values are encoded once, when
they are set, and forwarded, stored and compared as bytes: nobody who later changes what he passed in changes the store.
Elements (map keys, set members) have one canonical encoding: `1`, `True` and `1.0` are three elements.

Invariants: `decode(encode(x)) == x`; equal contexts have equal bytes; whatever the bytes, decoding gives a well-formed
value or raises `Malformed`, and never allocates more than a small multiple of what was received.

Source: the msgpack specification. Not here: states (`state`), and messages, versions and seals (the protocol's codec
wraps these bytes).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import msgpack

from crdt.causality import Context, Dot
from crdt.live import FOREVER, WITH_AUTHOR
from crdt.write import MAX_NAMES, Batch, Note, Write

MAX_ELEMENT: Final = 512
"""Bytes of a map key or set element. Keys are in every write and every log: they are labels, not documents."""
MAX_NAME: Final = 255
"""Bytes of an object's name."""
MAX_VALUE: Final = 1 << 20
"""Bytes of one value. A larger one would hold up all others on the same stream."""
MAX_DEPTH: Final = 32
"""Nesting of a value. Recursive programs die of deep data; no configuration or session is that deep."""
MAX_BY: Final = 128
"""Bytes of who wrote something, in a note."""
MAX_TEXT: Final = 1024
"""Bytes of why, in a note: a sentence, since it is kept with every write of its batch that lives."""
MAX_RANGE: Final = 1 << 16
"""Sequences of one batch, blanks included, so that no few bytes can claim a replica's whole future."""
MAX_REPLICAS: Final = 1 << 16
"""Replicas of a context."""
MAX_64: Final = 2**64 - 1
"""The greatest stamp, and the greatest id of a replica."""
MAP: Final = 1
SET: Final = 2
COUNTER: Final = 3
REGISTER: Final = 4
"""The types of objects, as the format has them."""

_KEYED = frozenset({MAP, SET})
_VALUED = frozenset({MAP, REGISTER})
_MAX_SEQUENCE = 2**63 - 1
_SIZES = bytes(
    {0xC0: 1, 0xC2: 1, 0xC3: 1, 0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}.get(
        kind, {0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}.get(kind, 1 if kind < 0x80 or kind >= 0xE0 else 0)
    )
    for kind in range(256)
)
"""How long a number, None or a bool is that begins with this byte; 0 for all else."""
_MAX_UNWALKED = 1200
_MAX_SHORT = 1200
SHORT_TEXT = 127
"""Characters of a text that can not be too long an element, whatever they are: four bytes each, and three before."""


class Malformed(ValueError):
    """Bytes that are not what they should be: damaged, forged, or of a newer version. Nothing was changed by them."""


# -- elements and values ---------------------------------------------------------------------------------------------


def encode_element(element: object) -> bytes:
    """The canonical bytes of a map key or set element: str, bytes, bool, int, float, None, or a tuple of these.

    Raises `TypeError` for other types, `ValueError` for `nan` (it equals nothing, so it could never be found again),
    lone surrogates (no UTF-8 has them), integers beyond 64 bits, and more than 512 bytes.

    >>> len({encode_element(1), encode_element(True), encode_element(1.0), encode_element("1")})
    4
    >>> encode_element(float("nan"))
    Traceback (most recent call last):
    ValueError: nan can not be a key: it equals nothing, not even itself
    """
    try:
        # the usual key; to keep the bytes of texts saved 30 ns of 110 where they were found, and cost 400 where not
        if type(element) is str and len(element) <= SHORT_TEXT:
            return pack_small(element)
        encoded = _packed(_canonical(element))
    except UnicodeEncodeError:
        raise ValueError(
            f"{element!a} can not be a key: it has a lone surrogate, which UTF-8 can not express"
        ) from None
    except OverflowError:
        raise ValueError("an integer key must fit 64 bits") from None
    if len(encoded) > MAX_ELEMENT:
        raise ValueError(f"a key of {len(encoded)} bytes is too long: at most {MAX_ELEMENT} are allowed")
    return encoded


def _packed(value: object) -> bytes:
    """The bytes of anything; of a small scalar in a third of the time, since no packer is made for it.

    One packer for all threads is safe for just these: no Python code runs while one of them is packed in C. Its buffer
    stays as large as it once had to be, so what is long does not go through it.
    """
    kind = type(value)
    if kind in _NUMBERS or (kind in _TEXTS and len(value) <= _MAX_SHORT):  # type: ignore[arg-type]
        return pack_small(value)
    packed: bytes = msgpack.packb(value)
    return packed


_NUMBERS = frozenset({type(None), bool, int, float})
_TEXTS = frozenset({str, bytes})
_SCALARS = _NUMBERS | _TEXTS
pack_small: Callable[[object], bytes] = (
    msgpack.packb if msgpack.Packer.__module__ == "msgpack.fallback" else msgpack.Packer(autoreset=True).pack
)
"""The bytes of a number, None, a bool, or short text or bytes, of which nothing is checked: see `_packed`."""


def _canonical(element: object, depth: int = 0) -> object:
    kind = type(element)
    if kind is float:
        assert isinstance(element, float)
        if math.isnan(element):
            raise ValueError("nan can not be a key: it equals nothing, not even itself")
        return element + 0.0  # -0.0 becomes 0.0: they are equal, so they are one key
    if kind is tuple and depth < MAX_DEPTH:
        assert isinstance(element, tuple)
        return tuple(_canonical(part, depth + 1) for part in element)
    if element is None or kind in (str, bytes, bool, int):
        return element
    raise TypeError(
        f"a key or element can be str, bytes, bool, int, float, None or a tuple of these, not {kind.__name__}: "
        "convert it, for example with str()"
    )


def decode_element(encoded: bytes) -> Any:
    """The element whose canonical bytes these are. Raises `Malformed`.

    >>> decode_element(encode_element(("cart", 7)))
    ('cart', 7)
    """
    if encoded and encoded[0] == 0x9F + len(encoded) <= 0xBF:  # text of up to 31 bytes, the usual key: msgpack took
        try:  # 0.7 us of each change that a watch gives, and this takes 0.2
            return encoded[1:].decode()
        except UnicodeDecodeError:
            pass  # which is told below
    return unpack(encoded)


def encode_value(value: object) -> bytes:
    """The bytes of a JSON-like value: None, bool, int, float, str, bytes, and lists, tuples and dicts of these.

    Tuples come back as lists. Raises `TypeError` for other types, `ValueError` for more than 1 MiB, nesting beyond 32
    (a value that contains itself is endless nesting), integers beyond 64 bits and lone surrogates.

    >>> decode_value(encode_value({"items": [1, 2.5, None]}))
    {'items': [1, 2.5, None]}
    >>> encode_value({1, 2})
    Traceback (most recent call last):
    TypeError: a value can be None, bool, int, float, str, bytes, or lists and dicts of these, not set
    """
    kind = type(value)
    try:
        if kind in _NUMBERS or (kind in _TEXTS and len(value) <= _MAX_SHORT):  # type: ignore[arg-type]
            return pack_small(value)  # as in `_packed`, which is called for nothing here
        if kind not in _TEXTS:
            _check(value, 0)
        encoded = _packed(value)
    except UnicodeEncodeError:
        raise ValueError("a value's text has a lone surrogate, which UTF-8 can not express") from None
    except OverflowError:
        raise ValueError("an integer in a value must fit 64 bits: keep larger ones as text") from None
    if len(encoded) > MAX_VALUE:
        raise ValueError(
            f"a value of {len(encoded)} bytes is too large: at most {MAX_VALUE} are allowed. "
            "Keep large data in files and share where it is"
        )
    return encoded


def encode_part(up: int, down: int) -> bytes:
    """The bytes of a counter's part: of the value `(up, down)`, whose numbers fit 64 bits, in a third of the time. The
    one packer is safe for these too.

    >>> encode_part(3, 1) == encode_value((3, 1))
    True
    """
    return pack_small((up, down))


def _check(value: object, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"a value is nested deeper than {MAX_DEPTH}, or contains itself")
    if isinstance(value, dict):
        for key, part in value.items():
            if type(key) not in _SCALARS:
                raise TypeError(f"a dict in a value has a key of type {type(key).__name__}: use str")
            _check(part, depth + 1)
    elif isinstance(value, (list, tuple)):
        for part in value:
            _check(part, depth + 1)
    elif value is not None and not isinstance(value, (bool, int, float, str, bytes)):
        raise TypeError(
            "a value can be None, bool, int, float, str, bytes, or lists and dicts of these, "
            f"not {type(value).__name__}"
        )


def decode_value(encoded: bytes) -> Any:
    """The value whose bytes these are; a fresh one at every call. Raises `Malformed`."""
    size = len(encoded)
    if size == 1 and encoded in _ONE_BYTE:
        return _ONE_BYTE[encoded]
    try:
        if size > _MAX_UNWALKED:
            _walk(encoded)
        return _UNPACK(encoded, strict_map_key=False, max_ext_len=0, ext_hook=_no_extension)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise Malformed(f"not a value: {error}") from error


_ONE_BYTE: dict[bytes, object] = {pack_small(value): value for value in (None, False, True, *range(-32, 128))}
"""What nobody can change is the same at every read: flags and small numbers take half of the time, all else 15 ns."""
_UNPACK: Callable[..., Any] = msgpack.unpackb


def _no_extension(code: int, data: bytes) -> object:
    raise Malformed(f"extension type {code} is not part of the format")


def _no_map(fields: object) -> object:
    raise Malformed("maps are not part of the format")


def _walk(data: bytes) -> None:
    """Raises `ValueError` unless every length field is borne out by what follows it; allocates nothing but a copy.

    Room for an array is made when its length is read: 8 KiB of nested, never finished arrays took 64 MB, and 1 MiB more
    than 3 GB with msgpack 1.1.0 (75 MB with 1.2.4). What fits a datagram can not do much harm and is not walked twice.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=len(data))
    unpacker.feed(data)
    unpacker.skip()


def pack(fields: object) -> bytes:
    """The bytes of nested tuples and lists of scalars: what every record of the format is made of."""
    packed: bytes = msgpack.packb(fields)
    return packed


def unpack(data: bytes) -> Any:
    """The tuples and scalars whose bytes these are: no maps, no extensions. Raises `Malformed`.

    Lengths are checked against the bytes that are there, so nothing is allocated on the word of a length field.

    >>> unpack(pack((1, b"two", [3])))
    (1, b'two', (3,))
    >>> unpack(bytes.fromhex("ddffffffff"))
    Traceback (most recent call last):
    crdt.codec.Malformed: not msgpack of the expected kind: 4294967295 exceeds max_array_len(5)
    """
    try:
        if len(data) > _MAX_UNWALKED:
            _walk(data)
        return msgpack.unpackb(
            data, use_list=False, max_map_len=0, max_ext_len=0, object_hook=_no_map, ext_hook=_no_extension
        )
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise Malformed(f"not msgpack of the expected kind: {error}") from error


def object_name(name: str) -> str:
    """The name of an object, if it can be one. Raises `TypeError` or `ValueError`.

    >>> object_name("flags")
    'flags'
    """
    if type(name) is not str:
        raise TypeError(f"an object's name is a str, not {type(name).__name__}")
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{name!a} can not be a name: it has a lone surrogate, which UTF-8 can not express") from None
    if not 0 < length <= MAX_NAME:
        raise ValueError(f"an object's name has 1 to {MAX_NAME} bytes, and this one {length}: {name[:60]!r}")
    return name


# -- writes and batches ----------------------------------------------------------------------------------------------


def encode_batch(batch: Batch) -> bytes:
    """The bytes of a batch: encoded once by its author, then forwarded and logged as they are."""
    replica, first, last, writes, more, note = batch
    flats: list[tuple[object, ...]] = []
    for (_, sequence), (kind, name, element), stamp, value, names, expires in writes:
        numbers = names and (names[0] if len(names) == 1 else [number for dot in names for number in dot])
        flat = (sequence - first, kind, name, element, stamp, value, numbers)
        flats.append(flat if expires == FOREVER else (*flat, expires))
    fields = (replica, first, last, more, flats)
    return pack(fields if note is None else (*fields, note))


def decode_batch(data: bytes) -> Batch:
    """The batch whose bytes these are, every field checked. Raises `Malformed`.

    >>> key = (MAP, "flags", encode_element("beta"))
    >>> batch = Batch(7, 1, 2, (Write((7, 2), key, 5, encode_value(True), ((9, 4),)),))
    >>> decode_batch(encode_batch(batch)) == batch
    True
    """
    fields = unpack(data)
    demand(type(fields) is tuple and len(fields) in (5, 6), "a batch has five fields or six")
    note = note_of(fields[5]) if len(fields) == 6 else None
    replica, first, last, more, flats = fields[:5]
    if not (
        (*map(type, fields[:5]),) == (int, int, int, bool, tuple)
        and replica > 0
        and 1 <= first <= last <= _MAX_SEQUENCE
        and last - first < MAX_RANGE
    ):
        raise Malformed("broken rule of the format: a batch's fields have their types, and its range is bounded")
    return Batch(replica, first, last, _writes(flats, replica, first, last), more, note)


def _writes(flats: tuple[Any, ...], replica: int, first: int, last: int) -> tuple[Write, ...]:
    """The writes of a batch. The usual one (for ever, of a map or set, short text its element, a small plain value, at
    most one name) is checked in line, by the rules of `_write`, which judges all others: 1.1 us a write, not 2.9.
    """
    writes = []
    previous = first - 1
    shown, shown_kind = "", 0  # the object that was checked last: of no name yet, which none has
    for flat in flats:
        if type(flat) is tuple and len(flat) == 7:
            offset, kind, name, element, stamp, value, names = flat
            if (
                type(offset) is type(stamp) is type(kind) is int
                and stamp >= 0
                and ((name == shown and kind == shown_kind) or (kind in _KEYED and is_key(kind, name, b"")))
                and type(element) is bytes
                and element
                and element[0] == 0x9F + len(element) <= 0xBF
                and element[1:].isascii()
                and (value is None or (type(value) is bytes and (is_plain(value) or (kind == SET and value == b""))))
                and (names == () or _is_name_before(names, replica, first + offset))
            ):
                sequence, shown, shown_kind = first + offset, name, kind
                if not previous < sequence <= last:
                    raise Malformed(_DISORDER)
                previous = sequence
                dots = () if names == () else (names,)
                # as `Write` does it, less the call in Python: 0.1 us of 0.25
                writes.append(_NEW(Write, ((replica, sequence), (kind, name, element), stamp, value, dots, FOREVER)))
                continue
        write = _write(flat, replica, first)
        if not previous < write.dot[1] <= last:
            raise Malformed(_DISORDER)
        previous = write.dot[1]
        writes.append(write)
    return tuple(writes)


_NEW = tuple.__new__
_DISORDER = "broken rule of the format: a batch's writes are in sequence"


def _is_name_before(names: Any, replica: int, sequence: int) -> bool:
    """Whether this is the run of one dot, of a write that may have come before that one."""
    if type(names) is not tuple or len(names) != 2:
        return False
    named, number = names
    return (
        type(named) is type(number) is int
        and named > 0
        and 1 <= number <= _MAX_SEQUENCE
        and (named != replica or number < sequence)
    )


def _write(flat: Any, replica: int, first: int) -> Write:
    """One write of a batch. The checks stand in line: as calls they took longer than all the rest of the decoding."""
    demand(type(flat) is tuple and len(flat) in (7, 8), "a write has seven or eight fields")
    offset, kind, name, element, stamp, value, names = flat[:7]
    expires = flat[7] if len(flat) == 8 else FOREVER
    if not (
        type(offset) is int
        and 0 <= offset < MAX_RANGE
        and is_key(kind, name, element)
        and type(stamp) is type(expires) is int
        and 0 <= stamp <= MAX_64
        and (value is None or (type(value) is bytes and len(value) <= MAX_VALUE))
        and WITH_AUTHOR <= expires <= MAX_64
        and (expires != FOREVER or len(flat) == 7)
    ):
        raise Malformed("broken rule of the format: a write's fields are of their types and within their bounds")
    check_element(kind, element, value, replica)
    dots = () if names == () else dots_of(names, MAX_NAMES)
    for named in dots:
        demand(named[0] != replica or named[1] < first + offset, "a write names only what came before it")
    return Write((replica, first + offset), (kind, name, element), stamp, value, dots, expires)


def is_key(kind: Any, name: Any, element: Any) -> bool:
    """Whether these are the parts of a key, each within its bounds."""
    return (
        type(kind) is int
        and 0 <= kind <= 255
        and type(name) is str
        and 0 < len(name) <= MAX_NAME
        and (name.isascii() or len(name.encode()) <= MAX_NAME)
        and type(element) is bytes
        and len(element) <= MAX_ELEMENT
    )


def check_element(kind: int, element: bytes, value: bytes | None, replica: int) -> None:
    """Whether element and value are such as a call could make: others could never be deleted, nor a map be read.

    Types of a later version pass: who does not read them only keeps and forwards them.
    """
    if kind in _KEYED:
        size = len(element)
        if 0 < size <= 32 and element[0] == 0x9F + size:  # short text, the usual case, without taking it apart
            canonical = _is_text(element[1:])
        else:
            canonical = _is_canonical(element)
        if not canonical:
            raise Malformed("broken rule of the format: an element is in its one canonical encoding")
    elif kind == COUNTER:
        _check_counter(element, value, replica)
    elif kind == REGISTER:
        demand(element == b"", "a register has no elements")
    if kind in _VALUED and value is not None and not is_plain(value):
        decode_value(value)  # one that can not be read would spoil every walk through its map, at everybody's


def is_plain(value: bytes) -> bool:
    """Whether these are, as their first byte shows, the bytes of a number, None, a bool, bytes or short ASCII text:
    most values are, and this takes a third of what decoding them does. Others may be values as well.

    >>> [is_plain(encode_value(value)) for value in (True, 2.5, b"bytes", "text", [])]
    [True, True, True, True, False]
    """
    size = len(value)
    if size == 0:
        return False
    kind = value[0]
    if kind == 0xC4:
        return size > 1 and size == 2 + value[1]
    if 0xA0 <= kind <= 0xBF:
        return size == kind - 0x9F and value[1:].isascii()
    return size == _SIZES[kind]


def _is_text(encoded: bytes) -> bool:
    try:
        encoded.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_canonical(element: bytes) -> bool:
    try:
        return encode_element(decode_element(element)) == element
    except (ValueError, TypeError, RecursionError):
        return False


def _check_counter(element: bytes, value: bytes | None, replica: int) -> None:
    """A counter's value is summed over all authors at every read: one bad part would spoil it for everybody."""
    demand(element == replica.to_bytes(8, "big"), "a counter's part is written by its own replica")
    parts = None if value is None else unpack(value)
    demand(
        type(parts) is tuple and len(parts) == 2 and all(type(part) is int and 0 <= part <= MAX_64 for part in parts),
        "a counter's part is (increments, decrements)",
    )


def make_note(by: str | None, text: str | None) -> Note | None:
    """The note with these, if they can be one; None if there is nothing in it. Raises `TypeError` or `ValueError`.

    >>> make_note("ann", "prices of May")
    Note(by='ann', text='prices of May')
    """
    for what, value, limit in (("an author", by, MAX_BY), ("a note", text, MAX_TEXT)):
        if value is None:
            continue
        if type(value) is not str:
            raise TypeError(f"{what} is a str, not {type(value).__name__}")
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise ValueError(f"{what} has a lone surrogate, which UTF-8 can not express: {value!a:.80}") from None
        if not 0 < size <= limit:
            raise ValueError(f"{what} has 1 to {limit} bytes, and this one {size}")
    return None if by is None and text is None else Note(by, text)


def note_of(field: Any) -> Note:
    """A note that was packed. Raises `Malformed`."""
    demand(type(field) is tuple and len(field) == 2, "a note has two fields")
    for value, limit in zip(field, (MAX_BY, MAX_TEXT), strict=True):
        demand(value is None or (type(value) is str and 0 < len(value.encode()) <= limit), "a note is short text")
    demand(field != (None, None), "a note says something")
    return Note(*field)


def size_of_note(note: Note) -> int:
    """At most so many bytes it takes when it is packed."""
    return 16 + sum(len(part.encode()) for part in note if part)


def dots_of(numbers: Any, limit: int) -> tuple[Dot, ...]:
    """Dots from a flat run of numbers: replica, sequence, replica, sequence, ..."""
    demand(type(numbers) is tuple and len(numbers) % 2 == 0 and len(numbers) <= 2 * limit, "dots come in bounded pairs")
    dots = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    for replica, sequence in dots:
        if not (is_replica(replica) and type(sequence) is int and 1 <= sequence <= _MAX_SEQUENCE):
            raise Malformed("broken rule of the format: a dot is a replica and a sequence")
    return dots


def is_replica(replica: Any) -> bool:
    """Whether this is a replica's id."""
    return type(replica) is int and 0 < replica <= MAX_64


def demand(condition: bool, what: str) -> None:
    """Raises `Malformed`, unless a rule of the format was kept."""
    if not condition:
        raise Malformed(f"broken rule of the format: {what}")


# -- contexts --------------------------------------------------------------------------------------------------------


def encode_context(context: Context) -> bytes:
    """The bytes of a context, in the order of replicas, so that equal ones have equal bytes."""
    return pack([number for pair in sorted(context.items()) for number in pair])


def decode_context(data: bytes) -> Context:
    """The context whose bytes these are. Raises `Malformed`.

    >>> decode_context(encode_context(Context({9: 4, 7: 2})))
    {7: 2, 9: 4}
    """
    pairs = dots_of(unpack(data), MAX_REPLICAS)
    context = Context(pairs)
    demand(len(context) == len(pairs), "a context has each replica once")
    return context
