"""How does a whole state become bytes, a part at a time, and how does it become a whole state again, or nothing?

Invariants: equal states have equal bytes (of `encode_state`); what a `Stage` gives is a state that some store could
have; it gives it whole or not at all, since half a state with a full context silently deletes what the other half has.

Not here: the encoding of what a state is made of (`codec`), and the asking for parts (the protocol's part).
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import Any, Final, TypeAlias

from crdt.causality import RANGES, Context, Dot, range_of
from crdt.codec import (
    MAX_64,
    MAX_ELEMENT,
    MAX_REPLICAS,
    MAX_VALUE,
    Malformed,
    check_element,
    decode_context,
    demand,
    dots_of,
    encode_context,
    is_key,
    note_of,
    pack,
    size_of_note,
    unpack,
)
from crdt.live import AT_VALUE, FOREVER, WITH_AUTHOR, Live, chain, head_of, pack_head, unpack_head, unpacked
from crdt.timestamp import Timestamp
from crdt.write import Note, Object, Scope, State

_LOOKED: Final = 1 << 14
"""Live writes looked at for one part: some 5 ms."""
_Flat: TypeAlias = tuple[object, ...]
"""A live write as it is packed: `(element, stamp, replica, sequence, value, expires)`, and if it has a note the place
of that among those of its part: a batch of a thousand writes has one."""
_Body: TypeAlias = tuple[int, str, list[_Flat]] | tuple[int, str, list[_Flat], list[Note]]
"""`(type, name, live writes)`, and their notes if they have any."""


def state_parts(state: State, limit: int = 1 << 18, ranges: Container[int] | None = None) -> Iterator[bytes]:
    """A state as parts of about `limit` bytes: first what was delivered, then the live writes, object by object.

    The live writes of a key come least first. The first part also says how many live writes there are, so that nobody
    takes a state for whole that lacks a part. With `ranges` only what lies in these is told; how much that is says a
    last part, since nobody knows before, and there are empty ones where long nothing was found: each is soon made.

    Lazy, so that a large state can be sent a part a time; `Stage` puts it together again at the other side.
    """
    named = [number for dot in sorted(state.named) for number in dot]
    if ranges is None and state.scope is None:
        yield pack((encode_context(state.context), named, _count(state)))
        yield from map(pack, _bodies(state, limit, None))
        return
    yield pack((encode_context(state.context), named, ())) if state.scope is None else scoped_head(state)
    told = 0
    for body in _bodies(state, limit, ranges):
        told += len(body[2])
        yield pack(body)
    yield pack((told,))


def scoped_head(state: State) -> bytes:
    """The first part of a state with a scope; of what was sent to who asked for ranges it says what only he knows."""
    assert state.scope is not None
    named = [number for dot in sorted(state.named) for number in dot]
    scope = (sorted(state.scope.ranges), encode_context(state.scope.compared))
    return pack((encode_context(state.context), named, scope))


def _bodies(state: State, limit: int, ranges: Container[int] | None) -> Iterator[_Body]:
    """Live writes of about `limit` bytes together; with `ranges` those that lie in these."""
    looked, notes = 0, state.notes
    for (kind, name), elements in state.objects.items():
        flats: list[_Flat] = []
        noted: dict[Note, int] = {}
        size = 0
        for element, live in elements.items():
            for fields in _least_first(live):
                looked += 1
                if ranges is None or range_of(fields[1], fields[2]) in ranges:
                    note = notes.get((fields[1], fields[2])) if notes else None
                    if note is None:
                        flats.append((element, *fields))
                    else:
                        size += 0 if note in noted else size_of_note(note)
                        flats.append((element, *fields, noted.setdefault(note, len(noted))))
                    size += len(element) + len(fields[3]) + 32
                # between two conflicts too: a key may have many, and each of a megabyte
                if size >= limit or (looked >= _LOOKED and ranges is not None):
                    yield (kind, name, flats, list(noted)) if noted else (kind, name, flats)
                    flats, noted, size, looked = [], {}, 0, 0
        if flats:
            yield (kind, name, flats, list(noted)) if noted else (kind, name, flats)


def _least_first(live: Live) -> Sequence[tuple[Timestamp, int, int, bytes, int]]:
    """The live writes of a key as they are sent, without their links: whoever takes them in links each to the one
    before it."""
    if isinstance(live, bytes):
        return ((*unpack_head(live), live[AT_VALUE:], FOREVER),)
    return [link[:5] for link in chain(live)][::-1]


def _count(state: State) -> int:
    """How many live writes there are; most keys have one."""
    chains = [live for elements in state.objects.values() for live in elements.values() if not isinstance(live, bytes)]
    return sum(map(len, state.objects.values())) + sum(len(list(chain(live))) - 1 for live in chains)


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
        self._scope: Scope | None = None
        self._is_answer = False
        """Whether it is of the ranges that its receiver asked for."""
        self._counted: int | None = None
        """How many live writes there should be: the first part says it, or the last."""
        self._count = 0
        self._objects: dict[Object, dict[bytes, Live]] = {}
        self._notes: dict[Dot, Note] = {}
        self._broken = False
        self.newest = 0
        """The greatest stamp of the live writes so far."""
        self.parts: list[bytes] = []
        """The parts, as they came."""

    def add(self, part: bytes) -> None:
        """Takes the next part. Raises `Malformed`; the stage gives nothing any more then."""
        try:
            self._take(part)
        except Malformed:
            self._broken = True
            raise
        self.parts.append(part)

    def _take(self, part: bytes) -> None:
        fields = unpack(part)
        demand(type(fields) is tuple, "a part has fields")
        if self._context is None:
            self._begin(fields)
            return
        if len(fields) == 1 and self._counted is None:
            demand(type(fields[0]) is int, "the last part says how many live writes there were")
            self._counted = fields[0]
            return
        demand(len(fields) in (3, 4) and type(fields[2]) is tuple, "a part has three fields, and its notes if any")
        kind, name, flats = fields[:3]
        demand(is_key(kind, name, b""), "a part names its object")
        notes = _notes_of(fields[3]) if len(fields) == 4 else []
        if not flats:
            demand(self._counted is None, "a part of a whole state has live writes")
            return
        elements = self._objects.setdefault((kind, name), {})
        self._count += len(flats)
        self._add(kind, elements, flats, notes)

    def _begin(self, fields: tuple[Any, ...]) -> None:
        demand(len(fields) == 3 and type(fields[0]) is bytes, "a state starts with its head")
        context, named, last = fields
        self._context = decode_context(context)
        self._named = frozenset(dots_of(named, MAX_REPLICAS))
        demand(not any(map(self._context.covers, self._named)), "a named dot was not delivered")
        if type(last) is int:
            demand(last >= 0, "a state tells how many live writes it has")
            self._counted = last
            return
        demand(type(last) is tuple and len(last) in (0, 2), "a state tells how many live writes it has, or its scope")
        self._is_answer = last == ()
        if last:
            self._scope = _scope(*last)

    def _add(self, kind: int, elements: dict[bytes, Live], flats: tuple[Any, ...], notes: list[Note]) -> None:
        """Adds live writes of an object. They come least first, so each is put before what its element has.

        One loop with all checks in it: a newcomer waits for a million of them, and each call more for each of them is a
        tenth of a second.
        """
        assert self._context is not None
        delivered, newest = self._context.get, self.newest
        for flat in flats:
            demand(type(flat) is tuple and len(flat) in (6, 7), "a live write has six fields or seven")
            element, stamp, replica, sequence, value, expires = flat[:6]
            if not (
                type(element) is type(value) is bytes
                and len(element) <= MAX_ELEMENT
                and len(value) <= MAX_VALUE
                and type(stamp) is type(expires) is type(replica) is type(sequence) is int
                and 0 <= stamp <= MAX_64
                and WITH_AUTHOR <= expires <= MAX_64
                and 1 <= sequence <= delivered(replica, 0)
            ):
                raise Malformed("broken rule of the format: a live write has a key, a value, and a delivered dot")
            check_element(kind, element, value, replica)
            lesser = elements.get(element)
            if lesser is not None and (stamp, replica, sequence) <= head_of(lesser):
                raise Malformed("broken rule of the format: live writes come least first")
            if lesser is None and expires == FOREVER:
                elements[element] = pack_head(stamp, replica, sequence) + value
            else:
                elements[element] = (stamp, replica, sequence, value, expires, unpacked(lesser))
            if stamp > newest:
                newest = stamp
            if len(flat) == 7:
                demand(type(flat[6]) is int and 0 <= flat[6] < len(notes), "a live write has a note of its part")
                self._notes[replica, sequence] = notes[flat[6]]
        self.newest = newest

    def state(self, scope: Scope | None = None) -> State:
        """All that was added; `scope` is what was asked for, if that was not all.

        Raises `Malformed` if a part is missing, or was malformed, or if this is not what was asked for: a part of a
        state that is taken for all of it deletes the rest.
        """
        if self._context is None or self._broken or self._counted != self._count:
            raise Malformed("a state of which a part is missing, or was refused")
        demand(self._is_answer == (scope is not None), "a state is of what was asked for")
        return State(self._context, self._named, self._objects, scope or self._scope, self._notes)


def _notes_of(field: Any) -> list[Note]:
    demand(type(field) is tuple and field != (), "a part has notes, or none")
    return list(map(note_of, field))


def _scope(ranges: Any, compared: Any) -> Scope:
    demand(type(ranges) is tuple and len(ranges) <= RANGES and type(compared) is bytes, "a scope has its fields")
    demand(all(type(each) is int and 0 <= each < RANGES for each in ranges), "a scope is of ranges that there are")
    return Scope(frozenset(ranges), decode_context(compared))


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
    demand(type(parts) is tuple and all(type(part) is bytes for part in parts), "a state is a list of parts")
    stage = Stage()
    for part in parts:
        stage.add(part)
    return stage.state()
