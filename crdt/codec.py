"""How do values, writes and states become bytes, and bytes only ever what was meant?

One format for wire and disk: msgpack arrays of fixed shape, no maps, no extension types. Values are encoded once, when
they are set, and forwarded, stored and compared as bytes: nobody who later changes what he passed in changes the store.
Elements (map keys, set members) have one canonical encoding: `1`, `True` and `1.0` are three elements.

Invariants: `decode(encode(x)) == x`; equal states have equal bytes; whatever the bytes, decoding gives a well-formed
value or raises `Malformed`, and never allocates more than a small multiple of what was received.

Source: the msgpack specification. Not here: messages, versions and seals (the protocol's codec wraps these bytes).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import msgpack

from crdt.causality import Context, Dot
from crdt.store import FOREVER, MAX_NAMES, WITH_AUTHOR, Batch, Key, Live, Object, State, Write, chain

MAX_ELEMENT: Final = 512
"""Bytes of a map key or set element. Keys are in every write and every log: they are labels, not documents."""
MAX_NAME: Final = 255
"""Bytes of an object's name."""
MAX_VALUE: Final = 1 << 20
"""Bytes of one value. A larger one would hold up all others on the same stream."""
MAX_DEPTH: Final = 32
"""Nesting of a value. Recursive programs die of deep data; no configuration or session is that deep."""
MAX_RANGE: Final = 1 << 16
"""Sequences of one batch, blanks included, so that no few bytes can claim a replica's whole future."""
MAX_REPLICAS: Final = 1 << 16
"""Replicas of a context."""
MAP: Final = 1
SET: Final = 2
COUNTER: Final = 3
REGISTER: Final = 4
"""The types of objects, as the format has them."""

_KEYED = frozenset({MAP, SET})
_MAX_64 = 2**64 - 1
_MAX_SEQUENCE = 2**63 - 1
_MAX_UNWALKED = 1200


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
        encoded: bytes = msgpack.packb(element if type(element) is str else _canonical(element))
    except UnicodeEncodeError:
        raise ValueError(
            f"{element!a} can not be a key: it has a lone surrogate, which UTF-8 can not express"
        ) from None
    except OverflowError:
        raise ValueError("an integer key must fit 64 bits") from None
    if len(encoded) > MAX_ELEMENT:
        raise ValueError(f"a key of {len(encoded)} bytes is too long: at most {MAX_ELEMENT} are allowed")
    return encoded


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
        f"a key must be a str, bytes, bool, int, float, None or a tuple of these, not {kind.__name__}: "
        "convert it, for example with str()"
    )


def decode_element(encoded: bytes) -> Any:
    """The element whose canonical bytes these are. Raises `Malformed`.

    >>> decode_element(encode_element(("cart", 7)))
    ('cart', 7)
    """
    return unpack(encoded)


def encode_value(value: object) -> bytes:
    """The bytes of a JSON-like value: None, bool, int, float, str, bytes, and lists, tuples and dicts of these.

    Tuples come back as lists. Raises `TypeError` for other types, `ValueError` for more than 1 MiB, nesting beyond 32
    (a value that contains itself is endless nesting), integers beyond 64 bits and lone surrogates.

    >>> decode_value(encode_value({"items": [1, 2.5, None]}))
    {'items': [1, 2.5, None]}
    >>> encode_value({1, 2})
    Traceback (most recent call last):
    TypeError: a set can not be a value: JSON-like types, dataclasses and a few more can (convert it first)
    """
    if type(value) not in _SCALARS:
        _check(value, 0)
    try:
        encoded: bytes = msgpack.packb(value)
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


_SCALARS = frozenset({type(None), bool, int, float, str, bytes})


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
            f"a {type(value).__name__} can not be a value: JSON-like types, dataclasses and a few more can "
            "(convert it first)"
        )


def decode_value(encoded: bytes) -> Any:
    """The value whose bytes these are; a fresh one at every call. Raises `Malformed`."""
    try:
        _walk(encoded)
        return msgpack.unpackb(encoded, strict_map_key=False, max_ext_len=0, ext_hook=_no_extension)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise Malformed(f"not a value: {error}") from error


def _no_extension(code: int, data: bytes) -> object:
    raise Malformed(f"extension type {code} is not part of the format")


def _no_map(fields: object) -> object:
    raise Malformed("maps are not part of the format")


def _walk(data: bytes) -> None:
    """Raises `ValueError` unless every length field is borne out by what follows it; allocates nothing but a copy.

    Room for an array is made when its length is read, so 8 KiB of nested, never finished arrays took 64 MB (and
    1 MiB took 8 GB with msgpack 1.1). What fits a datagram can not do much harm and is not walked twice.
    """
    if len(data) > _MAX_UNWALKED:
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
    replica, first, last, writes, more = batch
    return pack((replica, first, last, more, [_flat(write, first) for write in writes]))


def _flat(write: Write, first: int) -> tuple[object, ...]:
    (_, sequence), key, stamp, value, names, expires = write
    flat = (sequence - first, *key, stamp, value, [number for dot in names for number in dot])
    return flat if expires == FOREVER else (*flat, expires)


def decode_batch(data: bytes) -> Batch:
    """The batch whose bytes these are, every field checked. Raises `Malformed`.

    >>> batch = Batch(7, 1, 2, (Write((7, 2), (MAP, "flags", encode_element("beta")), 5, b"on", ((9, 4),)),))
    >>> decode_batch(encode_batch(batch)) == batch
    True
    """
    fields = unpack(data)
    _demand(type(fields) is tuple and len(fields) == 5, "a batch has five fields")
    replica, first, last, more, flats = fields
    _demand(_is_replica(replica) and type(more) is bool and type(flats) is tuple, "a batch's fields have their types")
    _demand(
        type(first) is int and type(last) is int and 1 <= first <= last <= _MAX_SEQUENCE and last - first < MAX_RANGE,
        "a batch's range is ordered and bounded",
    )
    writes = []
    previous = -1
    for flat in flats:
        write = _write(flat, replica, first)
        _demand(previous < write.dot[1] <= last, "a batch's writes are in sequence")
        previous = write.dot[1]
        writes.append(write)
    return Batch(replica, first, last, tuple(writes), more)


def _write(flat: Any, replica: int, first: int) -> Write:
    """One write of a batch. The checks stand in line: as calls they took longer than all the rest of the decoding."""
    _demand(type(flat) is tuple and len(flat) in (7, 8), "a write has seven or eight fields")
    offset, kind, name, element, stamp, value, names = flat[:7]
    expires = flat[7] if len(flat) == 8 else FOREVER
    if not (
        type(offset) is int
        and 0 <= offset < MAX_RANGE
        and _is_key(kind, name, element)
        and _is_content(stamp, value, expires)
        and (expires != FOREVER or len(flat) == 7)
    ):
        raise Malformed("broken rule of the format: a write's fields are of their types and within their bounds")
    _check_element(kind, element, value, replica)
    dots = () if names == () else _dots(names, MAX_NAMES)
    for named in dots:
        _demand(named[0] != replica or named[1] < first + offset, "a write names only what came before it")
    return Write((replica, first + offset), (kind, name, element), stamp, value, dots, expires)


def _is_key(kind: Any, name: Any, element: Any) -> bool:
    return (
        type(kind) is int
        and 0 <= kind <= 255
        and type(name) is str
        and len(name) <= MAX_NAME
        and type(element) is bytes
        and len(element) <= MAX_ELEMENT
    )


def _is_content(stamp: Any, value: Any, expires: Any) -> bool:
    return (
        type(stamp) is int
        and 0 <= stamp <= _MAX_64
        and (value is None or (type(value) is bytes and len(value) <= MAX_VALUE))
        and type(expires) is int
        and WITH_AUTHOR <= expires <= _MAX_64
    )


def _check_element(kind: int, element: bytes, value: bytes | None, replica: int) -> None:
    """Whether the element is one that a call could name: another one could never be deleted, nor a map be read.

    Types of a later version pass: who does not read them only keeps and forwards them.
    """
    if kind in _KEYED:
        if element[:1] and 0xA0 <= element[0] <= 0xBF and len(element) == element[0] - 0x9F:
            canonical = _is_text(element[1:])  # short text, the usual case, without taking it apart
        else:
            canonical = _is_canonical(element)
        _demand(canonical, "an element is in its one canonical encoding")
    elif kind == COUNTER:
        _check_counter(element, value, replica)
    elif kind == REGISTER:
        _demand(element == b"", "a register has no elements")


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
    _demand(element == replica.to_bytes(8, "big"), "a counter's part is written by its own replica")
    parts = None if value is None else unpack(value)
    _demand(
        type(parts) is tuple and len(parts) == 2 and all(type(part) is int and 0 <= part <= _MAX_64 for part in parts),
        "a counter's part is (increments, decrements)",
    )


def _dots(numbers: Any, limit: int) -> tuple[Dot, ...]:
    """Dots from a flat run of numbers: replica, sequence, replica, sequence, ..."""
    _demand(
        type(numbers) is tuple and len(numbers) % 2 == 0 and len(numbers) <= 2 * limit, "dots come in bounded pairs"
    )
    dots = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    for replica, sequence in dots:
        if not (_is_replica(replica) and type(sequence) is int and 1 <= sequence <= _MAX_SEQUENCE):
            raise Malformed("broken rule of the format: a dot is a replica and a sequence")
    return dots


def _is_replica(replica: Any) -> bool:
    return type(replica) is int and 0 < replica <= _MAX_64


def _demand(condition: bool, what: str) -> None:
    if not condition:
        raise Malformed(f"broken rule of the format: {what}")


# -- contexts and states ---------------------------------------------------------------------------------------------


def encode_context(context: Context) -> bytes:
    """The bytes of a context, in the order of replicas, so that equal ones have equal bytes."""
    return pack([number for pair in sorted(context.items()) for number in pair])


def decode_context(data: bytes) -> Context:
    """The context whose bytes these are. Raises `Malformed`.

    >>> decode_context(encode_context(Context({9: 4, 7: 2})))
    {7: 2, 9: 4}
    """
    pairs = _dots(unpack(data), MAX_REPLICAS)
    context = Context(pairs)
    _demand(len(context) == len(pairs), "a context has each replica once")
    return context


def state_parts(state: State, limit: int = 1 << 18) -> Iterator[bytes]:
    """A state as parts of about `limit` bytes: first what was delivered, then the live writes, object by object.

    The first part also says how many live writes there are, so that nobody takes a state for whole that lacks a part.

    Lazy, so that a large state can be sent a part a time; `Stage` puts it together again at the other side.
    """
    named = [number for dot in sorted(state.named) for number in dot]
    yield pack((encode_context(state.context), named, _count(state)))
    for (kind, name), elements in state.objects.items():
        flats: list[tuple[object, ...]] = []
        size = 0
        for element, head in elements.items():
            for live in chain(head):
                flats.append((element, *live[:5]))
                size += len(element) + len(live[3]) + 32
                if size >= limit:  # between two conflicts too: a key may have many, and each of a megabyte
                    yield pack((kind, name, flats))
                    flats, size = [], 0
        if flats:
            yield pack((kind, name, flats))


def _count(state: State) -> int:
    """How many live writes there are; most keys have one."""
    conflicts = [head for elements in state.objects.values() for head in elements.values() if head[5] is not None]
    return sum(map(len, state.objects.values())) + sum(len(list(chain(head))) - 1 for head in conflicts)


class Stage:
    """A state on its way in: takes the parts in order, and gives the whole or nothing.

    >>> stage = Stage()
    >>> for part in state_parts(State(Context({7: 1}), frozenset(), {})):
    ...     stage.add(part)
    >>> stage.state().context
    {7: 1}
    """

    def __init__(self) -> None:
        self._context: Context | None = None
        self._named: frozenset[Dot] = frozenset()
        self._missing = 0
        self._objects: dict[Object, dict[bytes, Live]] = {}  # chains upside down, since they come greatest first
        self._conflicts: dict[Key, None] = {}
        self._broken = False
        self.newest = 0
        """The greatest stamp of the live writes so far."""

    def add(self, part: bytes) -> None:
        """Takes the next part. Raises `Malformed`; the stage gives nothing any more then."""
        try:
            self._take(part)
        except Malformed:
            self._broken = True
            raise

    def _take(self, part: bytes) -> None:
        fields = unpack(part)
        if self._context is None:
            _demand(
                type(fields) is tuple and len(fields) == 3 and type(fields[0]) is bytes, "a state starts with its head"
            )
            _demand(type(fields[2]) is int and fields[2] >= 0, "a state tells how many live writes it has")
            self._context = decode_context(fields[0])
            self._named = frozenset(_dots(fields[1], MAX_REPLICAS))
            _demand(not any(map(self._context.covers, self._named)), "a named dot was not delivered")
            self._missing = fields[2]
            return
        _demand(type(fields) is tuple and len(fields) == 3 and type(fields[2]) is tuple, "a part has three fields")
        kind, name, flats = fields
        _demand(flats != (), "a part has live writes")
        _demand(_is_key(kind, name, b""), "a part names its object")
        elements = self._objects.setdefault((kind, name), {})
        self._missing -= len(flats)
        for flat in flats:
            _demand(type(flat) is tuple and len(flat) == 6, "a live write has six fields")
            self._add(kind, name, elements, flat)

    def _add(self, kind: int, name: str, elements: dict[bytes, Live], flat: tuple[Any, ...]) -> None:
        """Adds one live write. They come greatest first, so each is appended to the chain of its element."""
        element, stamp, replica, sequence, value, expires = flat
        _demand(_is_key(kind, name, element), "a live write has a key")
        _demand(_is_content(stamp, value, expires) and value is not None, "a live write has a value")
        _demand(_is_replica(replica) and type(sequence) is int, "a live write has a dot")
        assert self._context is not None
        _demand(1 <= sequence <= self._context[replica], "a live write was delivered")
        _check_element(kind, element, value, replica)
        above = elements.get(element)
        if above is not None:
            _demand((stamp, replica, sequence) < above[:3], "live writes come greatest first")
            self._conflicts[kind, name, element] = None
        elements[element] = (stamp, replica, sequence, value, expires, above)
        self.newest = max(self.newest, stamp)

    def state(self) -> State:
        """All that was added. Raises `Malformed` if a part is missing, or was malformed."""
        if self._context is None or self._broken or self._missing != 0:
            raise Malformed("a state of which a part is missing, or was refused")
        for kind, name, element in self._conflicts:
            elements = self._objects[kind, name]
            elements[element] = _turned(elements[element])
        self._conflicts.clear()
        return State(self._context, self._named, self._objects)


def _turned(lowest: Live) -> Live:
    """The chain of an element the right way up: greatest first."""
    turned: Live | None = None
    for live in chain(lowest):
        turned = (*live[:5], turned)
    assert turned is not None
    return turned


def encode_state(state: State) -> bytes:
    """A whole state in one piece, in canonical order: equal states have equal bytes. For files and for comparing."""
    objects = {name: dict(sorted(state.objects[name].items())) for name in sorted(state.objects)}
    return pack(list(state_parts(state._replace(objects=objects))))


def decode_state(data: bytes) -> State:
    """The state whose bytes these are. Raises `Malformed`.

    >>> from crdt import Store
    >>> decode_state(encode_state(Store().state())) == Store().state()
    True
    """
    parts = unpack(data)
    _demand(type(parts) is tuple and all(type(part) is bytes for part in parts), "a state is a list of parts")
    stage = Stage()
    for part in parts:
        stage.add(part)
    return stage.state()
