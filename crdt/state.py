"""How does a whole state become bytes, a part at a time, and how does it become a whole state again, or nothing?

Invariants: equal states have equal bytes (of `encode_state`); what a `Stage` gives is a state that some store could
have; it gives it whole or not at all, since half a state with a full context silently deletes what the other half has.

Not here: the encoding of what a state is made of (`codec`), and the asking for parts (the protocol's part).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crdt.causality import Context, Dot
from crdt.codec import (
    MAX_REPLICAS,
    Malformed,
    check_element,
    decode_context,
    demand,
    dots_of,
    encode_context,
    is_content,
    is_key,
    is_replica,
    pack,
    unpack,
)
from crdt.store import Live, Object, State, chain


def state_parts(state: State, limit: int = 1 << 18) -> Iterator[bytes]:
    """A state as parts of about `limit` bytes: first what was delivered, then the live writes, object by object.

    The live writes of a key come least first. The first part also says how many live writes there are, so that nobody
    takes a state for whole that lacks a part.

    Lazy, so that a large state can be sent a part a time; `Stage` puts it together again at the other side.
    """
    named = [number for dot in sorted(state.named) for number in dot]
    yield pack((encode_context(state.context), named, _count(state)))
    for (kind, name), elements in state.objects.items():
        flats: list[tuple[object, ...]] = []
        size = 0
        for element, head in elements.items():
            for live in _least_first(head):
                flats.append((element, *live[:5]))
                size += len(element) + len(live[3]) + 32
                if size >= limit:  # between two conflicts too: a key may have many, and each of a megabyte
                    yield pack((kind, name, flats))
                    flats, size = [], 0
        if flats:
            yield pack((kind, name, flats))


def _least_first(head: Live) -> Iterator[Live]:
    """The live writes of a key as they are sent: whoever takes them in links each to the one before it."""
    return iter((head,)) if head[5] is None else reversed(list(chain(head)))


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
        self._objects: dict[Object, dict[bytes, Live]] = {}
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
        if self._context is None:
            demand(
                type(fields) is tuple and len(fields) == 3 and type(fields[0]) is bytes, "a state starts with its head"
            )
            demand(type(fields[2]) is int and fields[2] >= 0, "a state tells how many live writes it has")
            self._context = decode_context(fields[0])
            self._named = frozenset(dots_of(fields[1], MAX_REPLICAS))
            demand(not any(map(self._context.covers, self._named)), "a named dot was not delivered")
            self._missing = fields[2]
            return
        demand(type(fields) is tuple and len(fields) == 3 and type(fields[2]) is tuple, "a part has three fields")
        kind, name, flats = fields
        demand(flats != (), "a part has live writes")
        demand(is_key(kind, name, b""), "a part names its object")
        elements = self._objects.setdefault((kind, name), {})
        self._missing -= len(flats)
        for flat in flats:
            demand(type(flat) is tuple and len(flat) == 6, "a live write has six fields")
            self._add(kind, name, elements, flat)

    def _add(self, kind: int, name: str, elements: dict[bytes, Live], flat: tuple[Any, ...]) -> None:
        """Adds one live write. They come least first, so each is the new head of the chain of its element."""
        element, stamp, replica, sequence, value, expires = flat
        demand(is_key(kind, name, element), "a live write has a key")
        demand(is_content(stamp, value, expires) and value is not None, "a live write has a value")
        demand(is_replica(replica) and type(sequence) is int, "a live write has a dot")
        assert self._context is not None
        demand(1 <= sequence <= self._context[replica], "a live write was delivered")
        check_element(kind, element, value, replica)
        lesser = elements.get(element)
        demand(lesser is None or (stamp, replica, sequence) > lesser[:3], "live writes come least first")
        elements[element] = (stamp, replica, sequence, value, expires, lesser)
        self.newest = max(self.newest, stamp)

    def state(self) -> State:
        """All that was added. Raises `Malformed` if a part is missing, or was malformed."""
        if self._context is None or self._broken or self._missing != 0:
            raise Malformed("a state of which a part is missing, or was refused")
        return State(self._context, self._named, self._objects)


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
