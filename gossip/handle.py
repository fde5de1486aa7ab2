"""What do all handles on shared objects have in common?

A node, a name, and the way in and out: types become bytes before the lock is taken, what is wrong with them is told
with the place where they were to go, and what is read of a key is what its reader may see now.

Invariant: nothing that a program passes in or gets out is shared with the store.
Not here: what maps, sets, counters and registers make of it (`shared`, `counting`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import TYPE_CHECKING, Generic, NoReturn, Self, TypeVar

from crdt import (
    FOREVER,
    WITH_AUTHOR,
    Key,
    Link,
    Live,
    LWWMap,
    LWWRegister,
    Note,
    ORSet,
    PNCounter,
    Write,
    decode_element,
    dot_of,
    encode_element,
    encode_value,
    value_of,
)
from crdt.codec import SHORT_TEXT, pack_small
from crdt.timestamp import at
from gossip.errors import WrongType
from gossip.schema import Schema
from gossip.watch import time_of

if TYPE_CHECKING:
    from gossip.node import Node

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

_CONTAINERS = (dict, list, tuple)
_LONGEST = 100 * 366 * 24 * 3600
STEP = 2_000
"""Keys written in one visible step: with the longest names and keys it fits a transaction, and even on a slow machine
it takes less than the second that a thread's batch may."""


@dataclass(frozen=True, slots=True)
class Entry(Generic[V]):
    """What is under a key of a map, in a register, or in a set, with its story.

    `stamp` is the hybrid timestamp of the write that is shown (`time` shows when that was), `author` the instance that
    made it, and `conflicts` are the values of concurrent writes that are not shown; the next write of the key settles
    them. `expires` is when it ends, in UTC, or None; `owned` says that it ends with the instance that made it. `by` and
    `note` are the author and the note that were given to its batch, or None.
    """

    value: V
    stamp: int
    author: int
    conflicts: tuple[V, ...]
    expires: datetime | None = None
    owned: bool = False
    by: str | None = None
    note: str | None = None

    @property
    def time(self) -> datetime:
        """When it was written, by its author's clock, in UTC."""
        return time_of(self.stamp)


class Handle:
    """What all handles have: a node, a name, and what is live under it."""

    __slots__ = ("__weakref__", "_node", "name")

    def __init__(self, node: Node, name: str) -> None:
        self._node = node
        self.name = name

    def _elements(self, view: LWWMap | ORSet | PNCounter) -> list[tuple[bytes, Live]]:
        """What is visible now, in one step even while another thread merges a batch."""
        self._node._settled()
        with self._node._running().lock:
            return self._node._elements(view.name)

    def _find(self, schema: Schema[T], view: LWWMap | ORSet, key: object) -> Live | None:
        """What a reader sees of a key of a map, or of an element of a set. All in line: a look-up took 0.6 us more by
        calls."""
        node = self._node
        runtime = node._runtime
        if runtime is None or not runtime.running:
            node._check_running()
        kind = type(key)
        try:
            if kind is str and len(key) <= SHORT_TEXT and kind in schema.plain:  # type: ignore[arg-type]
                element = pack_small(key)  # as `encode_element` does it, a tenth of a look-up sooner
            else:
                element = encode_element(key if kind in schema.plain else schema.dump(key))  # type: ignore[arg-type]
        except (WrongType, ValueError):
            return None  # what can not be a key is not here; only who writes it is told
        drafts = node._drafts  # first: a draft is there until its write is in the store
        live: Live | None = drafts.get((*view.name, element)) if drafts else None
        if live is None:
            elements = view.store.objects.get(view.name)
            if elements is None or (live := elements.get(element)) is None:
                return None
        return live if isinstance(live, bytes) else self._shown(live)

    def _live(self, view: LWWMap | ORSet | LWWRegister | PNCounter, element: bytes) -> Live | None:
        """What is live under one element, or a draft of it: the only reading that does not have drafts settled."""
        drafts = self._node._drafts
        draft = drafts.get((*view.name, element)) if drafts else None
        return view.store.elements(view.name).get(element) if draft is None else draft

    def _shown(self, live: Live | None) -> Live | None:
        """What a reader sees of a key, given its live writes: most neither expire nor are owned."""
        if live is None or isinstance(live, bytes) or live[4] == FOREVER:
            return live
        return next(self._node._visible(live), None)

    def _story(self, live: Live | None) -> tuple[list[Link], Note]:
        """What a reader sees of a key, greatest first, and the note of that. The lock is held: whoever replaces a write
        takes its note away."""
        node, shown = self._node, list(self._node._visible(live))
        if not shown:
            return shown, NO_NOTE
        _, replica, sequence, *_ = shown[0]  # 0 is that of a draft, of another thread or of whom a handler interrupted
        return shown, (node._store.notes.get((replica, sequence)) if sequence else node._drafts.note) or NO_NOTE

    def _entry(self, values: list[V], link: Link, note: Note) -> Entry[V]:
        """The story of a write, given the values of it and of those it outshines."""
        expires = time_of(link[4]) if link[4] > FOREVER else None
        return Entry(values[0], link[0], link[1], tuple(values[1:]), expires, link[4] == WITH_AUTHOR, *note)

    def _keep(self, key: Key, expires: int) -> bool:
        """Writes anew what is shown under a key, with another end; False if nothing is."""
        store = self._node._store

        def ask(replica: int, stamp: int) -> Write | None:  # under the lock: nobody's newer value is overwritten
            live = self._shown(store.shown(key))
            return None if live is None else store.write(key, value_of(live), replica, stamp, expires)

        return self._node._write(ask)

    def _clear(self, view: LWWMap | ORSet) -> None:
        elements = [element for element, _ in self._elements(view)]
        for start in range(0, len(elements), STEP):
            with self._node.batch():
                for element in elements[start : start + STEP]:
                    self._node._write(self._end_of, (*view.name, element))

    def _end_of(self, key: Key, replica: int, stamp: int) -> Write | None:
        """The write that ends a key, if it is still there."""
        store = self._node._store
        return None if store.shown(key) is None else store.write(key, None, replica, stamp)

    def _encode_element(self, what: str, schema: Schema[T], element: T) -> bytes:
        """The bytes of a key or element to be written. What is wrong with it is told with the object's name."""
        try:
            return encode_element(element if type(element) in schema.plain else schema.dump(element))
        except TypeError as error:
            raise WrongType(f"{what} of {self.name!r}: {error}") from None
        except ValueError as error:
            raise ValueError(f"{what} of {self.name!r}: {error}") from None

    def _encode_value(self, schema: Schema[T], value: T, *key: object) -> bytes:
        """The bytes of a value to be written, made before the lock is taken: a megabyte takes its time. What is wrong
        with it is told with the place where it was to go: under this key, if there is one."""
        try:
            return encode_value(value if type(value) in schema.plain else schema.dump(value))
        except TypeError as error:
            untyped = schema.is_any and type(value) not in _CONTAINERS
            raise WrongType(f"{self._place(*key)}: {error}{self._remedy(type(value)) if untyped else ''}") from None
        except ValueError as error:
            raise ValueError(f"{self._place(*key)}: {error}") from None

    def _place(self, *key: object) -> str:
        return f"{self.name}[{key[0]!r:.80}]" if key else self.name

    def _read_element(self, schema: Schema[T], element: bytes, live: Live) -> T:
        try:
            return schema.load(decode_element(element))
        except WrongType as error:
            raise WrongType(
                f"{self.name} has {decode_element(element)!r:.80}, written by {dot_of(live)[0]:016x}: {error}. Remove "
                "it, for example with `gossip`, or read with a type that takes it"
            ) from None

    def _remedy(self, kind: type) -> str:
        """How the object is got with a type, if values of that can be shared."""
        if kind is object:
            return ""
        try:
            Schema(kind)
        except WrongType:
            return ""
        return f"; give the type: node.{type(self).__name__.lower()}({self.name!r}, {kind.__name__})"

    def _content(self) -> str:
        """What is in it, in few words: values may be secret, and a repr gets into logs."""
        raise NotImplementedError

    def __repr__(self) -> str:
        content = f": {self._content()}" if self._node._is_running else ""
        return f"<{type(self).__name__} {self.name!r} of cluster {self._node.config.cluster!r}{content}>"

    def __deepcopy__(self, memo: object) -> Self:
        return self  # as `dataclasses.asdict` copies what is in a change

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} can not be pickled: it lives in its process. Make a Node in the other process "
            "too; they share by name"
        )


NO_NOTE = Note(None, None)
NOBODY: Link = (0, 0, 0, b"", 0, None)
"""A live write of nobody, where there is none to tell of."""


def end_of(ttl: float | None, owned: bool = False) -> int:
    """`expires` of a write that is made now. Raises `TypeError` or `ValueError` for a time that can not be."""
    if ttl is None:
        return WITH_AUTHOR if owned else FOREVER
    if owned:
        raise ValueError("an entry is owned or has a ttl: it can not end in two ways")
    if type(ttl) not in (int, float):
        raise TypeError(f"ttl is a number of seconds, not of type {type(ttl).__name__}")
    if not (isfinite(ttl) and 0 < ttl < _LONGEST):
        raise ValueError(f"ttl={ttl} can not be: it is more than 0 seconds, and less than 100 years")
    return at(int((time.time() + ttl) * 1000))
