"""How does a program read and write what all share?

Typed handles on a node: a `Map` is a `MutableMapping`, a `Set` a `MutableSet`; a `Counter` counts, a `Register` holds
one value. Reading is a look-up in this process's own memory; writing is local and leaves at the end of the loop's turn.
Neither waits, neither needs `await`, and both may be done from any thread.

Invariant: what a read gives is the reader's own. Changing it changes nothing that is shared; assign it back for that.
Not here: the rules of merging (`crdt`), the sending (`runtime`), the conversion of types (`schema`).
"""

from __future__ import annotations

import time
from collections.abc import ItemsView, Iterable, Iterator, MutableMapping, MutableSet, ValuesView
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from crdt import (
    FOREVER,
    WITH_AUTHOR,
    Key,
    Live,
    LWWMap,
    LWWRegister,
    ORSet,
    PNCounter,
    Write,
    decode_element,
    decode_value,
    encode_element,
    encode_value,
)
from crdt.timestamp import at
from gossip.errors import WrongType
from gossip.schema import Schema
from gossip.watch import Change, Kind, Watch, time_of

if TYPE_CHECKING:
    from gossip.node import Node

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")


_CONTAINERS = (dict, list, tuple)
_LONGEST = 100 * 366 * 24 * 3600
_STEP = 10_000
"""Keys cleared in one visible step: with the longest names, keys and conflicts of some, it fits a transaction."""


@dataclass(frozen=True, slots=True)
class Entry(Generic[V]):
    """A key of a map, with its story.

    `stamp` is the hybrid timestamp of the write that is shown (`time` shows when that was), `author` the instance that
    made it, and `conflicts` are the values of concurrent writes that are not shown; the next write of the key settles
    them. `expires` is when it ends, in UTC, or None; `owned` says that it ends with the instance that made it.
    """

    value: V
    stamp: int
    author: int
    conflicts: tuple[V, ...]
    expires: datetime | None = None
    owned: bool = False

    @property
    def time(self) -> datetime:
        """When it was written, by its author's clock, in UTC."""
        return time_of(self.stamp)


class _Handle:
    """What all handles have: a node, a name, and what is live under it."""

    __slots__ = ("__weakref__", "_node", "name")

    def __init__(self, node: Node, name: str) -> None:
        self._node = node
        self.name = name

    def _elements(self, view: LWWMap | ORSet | PNCounter) -> list[tuple[bytes, Live]]:
        """What is visible now, in one step even while another thread merges a batch."""
        with self._node._running().lock:
            return self._node._elements(view.name)

    def _shown(self, live: Live | None) -> Live | None:
        """What a reader sees of a key, given its live writes: most neither expire nor are owned."""
        return live if live is None or live[4] == FOREVER else next(self._node._visible(live), None)

    def _put(self, key: Key, value: bytes, expires: int) -> None:
        self._node._write(partial(self._node._store.write, key, value, expires=expires))

    def _keep(self, key: Key, expires: int) -> bool:
        """Writes anew what is shown under a key, with another end; False if nothing is."""
        store = self._node._store

        def ask(replica: int, stamp: int) -> Write | None:  # under the lock: nobody's newer value is overwritten
            live = self._shown(store.shown(key))
            return None if live is None else store.write(key, live[3], replica, stamp, expires)

        return self._node._write(ask)

    def _clear(self, view: LWWMap | ORSet) -> None:
        elements = [element for element, _ in self._elements(view)]
        for start in range(0, len(elements), _STEP):
            with self._node.batch():
                for element in elements[start : start + _STEP]:
                    self._node._write(self._end_of, (*view.name, element))

    def _end_of(self, key: Key, replica: int, stamp: int) -> Write | None:
        """The write that ends a key, if it is still there."""
        store = self._node._store
        return None if store.shown(key) is None else store.write(key, None, replica, stamp)

    def _encode_element(self, what: str, schema: Schema[T], element: T) -> bytes:
        """The bytes of a key or element to be written. What is wrong with it is told with the object's name."""
        try:
            return encode_element(schema.dump(element))
        except TypeError as error:
            raise WrongType(f"{what} of {self.name!r}: {error}") from None
        except ValueError as error:
            raise ValueError(f"{what} of {self.name!r}: {error}") from None

    def _encode_value(self, where: str, schema: Schema[T], value: T) -> bytes:
        """The bytes of a value to be written, made before the lock is taken: a megabyte takes its time. What is wrong
        with it is told with the place where it was to go."""
        try:
            return encode_value(schema.dump(value))
        except TypeError as error:
            untyped = schema.is_any and type(value) not in _CONTAINERS
            raise WrongType(f"{where}: {error}{self._remedy(type(value)) if untyped else ''}") from None
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None

    def _read_element(self, schema: Schema[T], element: bytes, live: Live) -> T:
        try:
            return schema.load(decode_element(element))
        except WrongType as error:
            raise WrongType(
                f"{self.name} has {decode_element(element)!r:.80}, written by {live[1]:016x}: {error}. Remove it, for "
                "example with `gossip`, or read with a type that takes it"
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

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} can not be pickled: it lives in its process. Make a Node in the other process "
            "too; they share by name"
        )


class Map(_Handle, MutableMapping[K, V]):
    """A shared map. The last write of a key wins, by hybrid timestamp; concurrent ones stay readable as conflicts."""

    __slots__ = ("_keys", "_values", "_view")

    def __init__(self, node: Node, name: str, keys: Schema[K], values: Schema[V]) -> None:
        super().__init__(node, name)
        self._keys = keys
        self._values = values
        self._view = LWWMap(node._store, name)

    @property
    def _is_untyped(self) -> bool:
        return self._keys.is_any and self._values.is_any

    def _check(self, key: Any, value: Any) -> None:
        """Raises `WrongType` if this program could not read these."""
        try:
            self._keys.load(key)
        except WrongType as error:
            raise WrongType(f"a key of {self.name!r}: {error}") from None
        try:
            self._values.load(value)
        except WrongType as error:
            raise WrongType(f"{self.name}[{key!r:.80}]: {error}") from None

    def __getitem__(self, key: K) -> V:
        live = self._find(key)
        if live is None:
            raise KeyError(key)
        return self._load(key, live)

    def __setitem__(self, key: K, value: V) -> None:
        self.set(key, value)

    def set(self, key: K, value: V, *, ttl: float | None = None, owned: bool = False) -> None:
        """Sets a key, as `[]` does. With `ttl` it ends everywhere after so many seconds; with `owned` it lives as long
        as this node: it is gone everywhere when the node has died or left.

        What has ended is as if it had never been; a concurrent value that it outshone shows again. Clocks decide: where
        two differ by a second, so do the ends that they see.
        """
        element = self._encode_element("a key", self._keys, key)
        encoded = self._encode_value(f"{self.name}[{key!r:.80}]", self._values, value)
        self._put((*self._view.name, element), encoded, _end(ttl, owned))

    def touch(self, key: K, ttl: float) -> None:
        """Gives what is there another `ttl` seconds from now. Raises `KeyError` if nothing is, or it has ended."""
        element = self._encode_element("a key", self._keys, key)
        if not self._keep((*self._view.name, element), _end(ttl)):
            raise KeyError(key)

    def __delitem__(self, key: K) -> None:
        if not self._node._write(self._view.delete, self._keys.dump(key)):
            raise KeyError(key)

    def __iter__(self) -> Iterator[K]:
        """The keys as of now: writing while iterating is safe."""
        return iter([self._read_element(self._keys, *each) for each in self._elements(self._view)])

    def items(self) -> ItemsView[K, V]:
        """The keys and values; each iteration gives those as of its beginning, whatever is written meanwhile."""
        return _Items(self)

    def values(self) -> ValuesView[V]:
        """The values; each iteration gives those as of its beginning, whatever is written meanwhile."""
        return _Values(self)

    def _now(self) -> Iterator[tuple[K, V]]:
        for element, live in self._elements(self._view):
            key = self._read_element(self._keys, element, live)
            yield key, self._load(key, live)

    def __len__(self) -> int:
        return self._node._count(self._view.name)

    def __contains__(self, key: object) -> bool:
        return self._find(key) is not None

    def _find(self, key: object) -> Live | None:
        self._node._check_running()
        try:
            return self._shown(self._view.live(self._keys.dump(key)))  # type: ignore[arg-type]
        except (WrongType, ValueError):
            return None  # what can not be a key is not here; only who writes it is told

    def clear(self) -> None:
        """Deletes every key that is here now, whatever its type, in visible steps of 10 000 keys."""
        self._clear(self._view)

    def entry(self, key: K) -> Entry[V]:
        """The value with its stamp, author and conflicts. Raises `KeyError`."""
        live = self._find(key)
        if live is None:
            raise KeyError(key)
        value, *conflicts = (self._load(key, each) for each in self._node._visible(live))
        expires = datetime.fromtimestamp((live[4] >> 16) / 1000, UTC) if live[4] > FOREVER else None
        return Entry(value, live[0], live[1], tuple(conflicts), expires, live[4] == WITH_AUTHOR)

    def _content(self) -> str:
        return f"{len(self)} keys" if len(self) != 1 else "1 key"

    def watch(self, *, snapshot: bool = True) -> Watch[K, V]:
        """The present state, then every change: `async with flags.watch() as changes: async for change in changes`.

        With `snapshot=False` only what changes from here on.
        """
        return self._node._watch(self._view.name, self._read, snapshot)

    def _read(self, element: bytes, before: Live | None, after: Live | None, kind: Kind) -> Change[K, V]:
        key = self._read_element(self._keys, element, after or before or _NOBODY)
        value = None if after is None else self._load(key, after)
        previous = None if before is None else self._load(key, before)
        return _change(key, value, previous, kind, before, after)

    def _load(self, key: object, live: Live) -> V:
        try:
            return self._values.load(decode_value(live[3]))
        except WrongType as error:
            raise WrongType(f"{self.name}[{key!r}], written by {live[1]:016x}: {error}") from None


class _Items(ItemsView[K, V]):
    _mapping: Map[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return self._mapping._now()


class _Values(ValuesView[V]):
    _mapping: Map[Any, V]

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in self._mapping._now())

    def __contains__(self, value: object) -> bool:
        return any(each is value or each == value for each in self)


class Set(_Handle, MutableSet[T]):
    """A shared set. An add wins over a concurrent remove."""

    __slots__ = ("_schema", "_view")

    def __init__(self, node: Node, name: str, elements: Schema[T]) -> None:
        super().__init__(node, name)
        self._schema = elements
        self._view = ORSet(node._store, name)

    @property
    def _is_untyped(self) -> bool:
        return self._schema.is_any

    def _check(self, element: Any) -> None:
        """Raises `WrongType` if this program could not read it."""
        try:
            self._schema.load(element)
        except WrongType as error:
            raise WrongType(f"an element of {self.name!r}: {error}") from None

    def add(self, value: T, *, ttl: float | None = None, owned: bool = False) -> None:
        """Adds an element; one that is there already will survive a remove made elsewhere at the same time.

        `ttl` and `owned` as in `Map.set`: presence that nobody has to clear up is `online.add(name, owned=True)`.
        """
        element = self._encode_element("an element", self._schema, value)
        self._put((*self._view.name, element), b"", _end(ttl, owned))

    def discard(self, value: T) -> None:
        """Removes an element if it is there."""
        if value in self:
            self._node._write(self._view.remove, self._schema.dump(value))

    def clear(self) -> None:
        """Removes every element that is here now, whatever its type, in visible steps of 10 000 elements."""
        self._clear(self._view)

    def update(self, *others: Iterable[T]) -> None:
        """Adds all of these, in visible steps of 10 000 elements."""
        elements = [element for other in others for element in other]
        for start in range(0, len(elements), _STEP):
            with self._node.batch():
                for element in elements[start : start + _STEP]:
                    self.add(element)

    def __contains__(self, element: object) -> bool:
        self._node._check_running()
        try:
            return self._shown(self._view.live(self._schema.dump(element))) is not None  # type: ignore[arg-type]
        except (WrongType, ValueError):
            return False  # as in a map

    def __iter__(self) -> Iterator[T]:
        """The elements as of now: writing while iterating is safe."""
        return iter([self._read_element(self._schema, *each) for each in self._elements(self._view)])

    def __len__(self) -> int:
        return self._node._count(self._view.name)

    @classmethod
    def _from_iterable(cls, iterable: Any) -> Any:
        return set(iterable)  # what `online & {"ann"}` gives is a plain set

    def _content(self) -> str:
        return f"{len(self)} elements" if len(self) != 1 else "1 element"

    def watch(self, *, snapshot: bool = True) -> Watch[T, bool]:
        """The present elements, then every change. `value` is True while the element is in the set."""
        return self._node._watch(self._view.name, self._read, snapshot)

    def _read(self, element: bytes, before: Live | None, after: Live | None, kind: Kind) -> Change[T, bool]:
        value = self._read_element(self._schema, element, after or before or _NOBODY)
        return _change(value, after is not None, before is not None, kind, before, after)


class Counter(_Handle):
    """A shared counter of integers. Nothing is lost, whoever counts at the same time."""

    __slots__ = ("_view",)

    def __init__(self, node: Node, name: str) -> None:
        super().__init__(node, name)
        self._view = PNCounter(node._store, name)

    @property
    def value(self) -> int:
        """The sum of what all have counted, as far as it is known here."""
        self._node._check_running()
        return self._view.value

    def increment(self, amount: int = 1) -> None:
        """Adds `amount`; 0 changes nothing. Raises `ValueError` for less: that is what `decrement` is for."""
        self._add(_positive(amount))

    def decrement(self, amount: int = 1) -> None:
        """Takes `amount` away; 0 changes nothing."""
        self._add(-_positive(amount))

    def _add(self, amount: int) -> None:
        self._node._check_running()
        if amount:
            self._node._write(self._view.add, amount)

    def __int__(self) -> int:
        return self.value

    def __bool__(self) -> NoReturn:
        raise TypeError(f"a Counter is no number: {self.name}.value is")

    def __iadd__(self, amount: object) -> NoReturn:
        raise TypeError(f"a Counter is no number: {self.name}.increment({amount!r:.20}) counts")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, int | float):
            raise TypeError(f"a Counter is no number: compare {self.name}.value")
        return self is other

    __hash__ = object.__hash__

    def parts(self) -> dict[int, int]:
        """What each instance has counted. One that is long gone has still counted what it has."""
        return {int.from_bytes(element, "big"): _part(live) for element, live in self._elements(self._view)}

    def _content(self) -> str:
        return str(self.value)

    def watch(self, *, snapshot: bool = True) -> Watch[None, int]:
        """The present total if anybody has counted, then every change of it: `value` and `previous` are totals."""
        seen, told = 0, False

        def begin() -> None:
            nonlocal seen
            seen = self._view.value

        def read(element: bytes, before: Live | None, after: Live | None, kind: Kind) -> Change[None, int] | None:
            nonlocal seen, told
            previous, seen = seen, self._view.value
            if kind == "present" and not told:
                told = True
                return _change(None, seen, None, kind, before, after)
            # which instance counted is an inner matter, and changes of several may have been read as one
            return None if seen == previous else _change(None, seen, previous, "set", before, after)

        return self._node._watch(self._view.name, read, snapshot, begin)


class Register(_Handle, Generic[V]):
    """A shared value. The last write wins; concurrent ones stay readable as conflicts."""

    __slots__ = ("_values", "_view")

    def __init__(self, node: Node, name: str, values: Schema[V]) -> None:
        super().__init__(node, name)
        self._values = values
        self._view = LWWRegister(node._store, name)

    @property
    def _is_untyped(self) -> bool:
        return self._values.is_any

    def _check(self, value: Any) -> None:
        """Raises `WrongType` if this program could not read it."""
        try:
            self._values.load(value)
        except WrongType as error:
            raise WrongType(f"{self.name}: {error}") from None

    @property
    def value(self) -> V | None:
        """The value; None if it was never set, or deleted."""
        self._node._check_running()
        live = self._shown(self._view.live)
        return None if live is None else self._load(live)

    def set(self, value: V, *, ttl: float | None = None, owned: bool = False) -> None:
        """Sets the value. `ttl` and `owned` as in `Map.set`."""
        encoded = self._encode_value(self.name, self._values, value)
        self._put((*self._view.name, b""), encoded, _end(ttl, owned))

    def delete(self) -> None:
        """Empties the register."""
        self._node._write(self._view.delete)

    @property
    def conflicts(self) -> tuple[V, ...]:
        """The values of concurrent writes that are not shown; the next `set` settles them."""
        self._node._check_running()
        return tuple(self._load(live) for live in self._node._visible(self._view.live))[1:]

    def _content(self) -> str:
        return "empty" if self._shown(self._view.live) is None else "has a value"

    def watch(self, *, snapshot: bool = True) -> Watch[None, V]:
        """The present value if there is one, then every change."""
        return self._node._watch(self._view.name, self._read, snapshot)

    def _read(self, element: bytes, before: Live | None, after: Live | None, kind: Kind) -> Change[None, V]:
        value = None if after is None else self._load(after)
        previous = None if before is None else self._load(before)
        return _change(None, value, previous, kind, before, after)

    def _load(self, live: Live) -> V:
        try:
            return self._values.load(decode_value(live[3]))
        except WrongType as error:
            raise WrongType(f"{self.name}, written by {live[1]:016x}: {error}") from None


_NOBODY: Live = (0, 0, 0, b"", 0, None)


def _change(
    key: K | None, value: V | None, previous: V | None, kind: Kind, before: Live | None, after: Live | None
) -> Change[K, V]:
    told = after or before
    return Change(key, value, previous, kind, told[1] if told else 0, told[0] if told else 0)


def _end(ttl: float | None, owned: bool = False) -> int:
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


def _part(live: Live | None) -> int:
    if live is None:
        return 0
    up, down = decode_value(live[3])
    return int(up - down)


def _positive(amount: int) -> int:
    if type(amount) is not int:
        raise TypeError(f"a counter counts in integers, not in {type(amount).__name__}")
    if amount < 0:
        raise ValueError(f"a counter is incremented or decremented by 0 or more, not by {amount}")
    return amount
