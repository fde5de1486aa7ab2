"""How does a program read and write what all share?

Typed handles on a node: a `Map` is a `MutableMapping`, a `Set` a `MutableSet`; a `Register` holds one value. Reading is
a look-up in this process's own memory; writing is local and leaves at the end of the loop's turn. Neither waits,
neither needs `await`, and both may be done from any thread.

Invariant: what a read gives is the reader's own. Changing it changes nothing that is shared; assign it back for that.
Not here: counters (`counting`), the rules of merging (`crdt`), the sending (`runtime`), the conversion of types
(`schema`).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import ItemsView, Iterable, Iterator, MutableMapping, MutableSet, ValuesView
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from crdt import (
    FOREVER,
    Key,
    Live,
    LWWMap,
    LWWRegister,
    ORSet,
    Write,
    decode_element,
    decode_value,
    dot_of,
    encode_element,
    encode_value,
    value_of,
)
from crdt.codec import MAP, SET
from crdt.live import AT_VALUE
from gossip.errors import WrongType
from gossip.handle import NOBODY, STEP, Entry, Handle, end_of
from gossip.memo import LONGEST, NOTHING, Memo
from gossip.schema import Schema
from gossip.watch import Change, Kind, Source, Watch, change_of

if TYPE_CHECKING:
    from gossip.node import Node

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")


class Map(Handle, MutableMapping[K, V]):
    """A shared map. The last write of a key wins, by hybrid timestamp; concurrent ones stay readable as conflicts."""

    __slots__ = ("_keys", "_memo", "_values", "_view")

    def __init__(self, node: Node, name: str, keys: Schema[K], values: Schema[V]) -> None:
        super().__init__(node, name)
        self._keys = keys
        self._values = values
        self._memo = Memo(values.plain)
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
        node, memo = self._node, self._memo
        known = memo.get(key) if type(key) is str else None
        if known is None or (runtime := node._runtime) is None or not runtime.running:
            return self._looked_up(key)
        element, was, value = known
        drafts = node._drafts  # first, as in `_find`
        if drafts and (*self._view.name, element) in drafts:
            return self._looked_up(key)
        live = memo.elements.get(element)
        if live is was:
            return value  # type: ignore[no-any-return]
        if not isinstance(live, bytes):
            return self._looked_up(key)
        value = decode_value(live[AT_VALUE:])
        # what lasts, as `Memo.keep` has it: packing the key anew made the first read since a write twice as long
        if len(live) <= LONGEST and type(value) in memo.lasting:
            memo[key] = element, live, value
        elif was:
            memo[key] = element, NOTHING, None
        return value if type(value) in self._values.plain else self._loaded(key, value, live)

    def _looked_up(self, key: K) -> V:
        """Looks a key up among the drafts and in the store, and has it remembered."""
        live = self._find(self._keys, self._view, key)
        if live is None:
            self._memo.forget(key)
            raise KeyError(key)
        value = decode_value(value_of(live))
        if isinstance(key, str) and type(key) in self._keys.plain and isinstance(live, bytes):
            self._memo.keep(key, live, value, self._view)
        return value if type(value) in self._values.plain else self._loaded(key, value, live)

    def __setitem__(self, key: K, value: V) -> None:
        full, encoded = self._encoded(key, value)
        self._node._put(full, encoded, FOREVER)

    def _pairs(self, other: Any) -> Iterator[tuple[K, V]]:
        """What a dict would take of this; what it raises itself is its own."""
        keys = getattr(other, "keys", None)
        if keys is not None:
            yield from ((key, other[key]) for key in keys())
            return
        if not isinstance(other, Iterable):
            raise TypeError(f"{self.name}.update takes a mapping, or pairs of key and value, not {other!r:.80}")
        for pair in other:
            try:
                key, value = pair
            except (TypeError, ValueError):
                raise TypeError(f"{self.name}.update takes pairs of key and value, not {pair!r:.80}") from None
            yield key, value

    def _encoded(self, key: K, value: V) -> tuple[Key, bytes]:
        """What is written, made before the lock is taken: a megabyte takes its time."""
        keys, values = self._keys, self._values
        try:
            element = encode_element(key if type(key) in keys.plain else keys.dump(key))
            encoded = encode_value(value if type(value) in values.plain else values.dump(value))
        except (TypeError, ValueError):  # once more, by those who tell where it was to go
            element = self._encode_element("a key", keys, key)
            encoded = self._encode_value(values, value, key)
        return (MAP, self.name, element), encoded

    def set(self, key: K, value: V, *, ttl: float | None = None, owned: bool = False) -> None:
        """Sets a key, as `[]` does. With `ttl` it ends everywhere after so many seconds; with `owned` it lives as long
        as this node: it is gone everywhere when the node has died or left.

        What has ended is as if it had never been; a concurrent value that it outshone shows again. Clocks decide: where
        two differ by a second, so do the ends that they see.
        """
        element = self._encode_element("a key", self._keys, key)
        encoded = self._encode_value(self._values, value, key)
        self._node._put((*self._view.name, element), encoded, end_of(ttl, owned))

    def update(self, other: Any = (), /, **named: V) -> None:
        """Sets all of these keys, as `[]` does one by one, in a fifth less time: what is asked for each is asked once.

        A mapping, or pairs; and keywords, each of which is a key (`ttl=5` as well). What can not be a key or a value is
        told before anything is written. It is no batch: write `with node.batch():` around it if it must be seen whole.
        """
        pairs: Iterable[tuple[Any, V]] = chain(self._pairs(other), named.items())
        writes = [self._encoded(key, value) for key, value in pairs]
        for start in range(0, len(writes), STEP):  # between two others may write
            self._node._put_all(writes[start : start + STEP])

    def touch(self, key: K, ttl: float) -> None:
        """Gives what is there another `ttl` seconds from now. Raises `KeyError` if nothing is, or it has ended."""
        element = self._encode_element("a key", self._keys, key)
        if not self._keep((*self._view.name, element), end_of(ttl)):
            raise KeyError(key)

    @contextmanager
    def edit(self, key: K, default: V | None = None) -> Iterator[V]:
        """A value to be changed in place; at the end of the block it is assigned back, if it is another one then.

            with carts.edit("ann", default=[]) as items:
                items.append(3)

        Raises `KeyError` if nothing is there and no default was given, or if it has ended meanwhile. What expires does
        so at the same time as before; what is owned is owned by whoever edited it last. An exception in the block
        leaves everything as it was. Two workers that edit one key at once lose one edit: the later one replaces the
        whole value.
        """
        live = self._find(self._keys, self._view, key)
        if live is None and default is None:
            raise KeyError(key)
        value: Any = self._load(key, live) if live is not None else default
        yield value
        expires = live[4] if isinstance(live, tuple) else FOREVER
        if expires > FOREVER and self._shown(live) is None:
            raise KeyError(key)
        encoded = self._encode_value(self._values, value, key)
        if live is None or encoded != value_of(live):
            element = self._encode_element("a key", self._keys, key)
            self._node._put((*self._view.name, element), encoded, expires)

    def __delitem__(self, key: K) -> None:
        if key not in self:
            raise KeyError(key)
        if not self._node._write(self._view.delete, self._keys.dump(key)):
            raise KeyError(key)
        self._memo.forget(key)

    def pop(self, key: K, *default: Any) -> Any:
        """Deletes a key and gives its value, or the default, if there is one and the key is not there."""
        try:
            value = self[key]
            del self[key]
        except KeyError:  # it may also have ended, or gone by another thread, after it was read
            if not default:
                raise
            return default[0]
        return value

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
        return self._find(self._keys, self._view, key) is not None

    def clear(self) -> None:
        """Deletes every key that is here now, whatever its type, in visible steps of 2 000 keys."""
        self._clear(self._view)
        self._memo.clear()

    def entry(self, key: K) -> Entry[V]:
        """The value with its stamp, author and conflicts. Raises `KeyError`."""
        self._node._settled()
        with self._node._running().lock:
            shown, note = self._story(self._find(self._keys, self._view, key))
        if not shown:
            raise KeyError(key)
        return self._entry([self._load(key, each) for each in shown], shown[0], note)

    def _content(self) -> str:
        return f"{len(self)} keys" if len(self) != 1 else "1 key"

    def watch(self, keys: str | None = None, *, snapshot: bool = True, resume: str | None = None) -> Watch[K, V]:
        """The present state, then every change: `async with flags.watch() as changes: async for change in changes`.

        `keys` is a pattern as of file names: with `"user/*"` only keys that begin so are told of, with `"*/cart"` those
        that end so. With `snapshot=False` only what changes from here on. With `resume`, the `cursor` of a watch that
        ended (here, or at another node), what was touched since; or a `lagged` mark, and the present state.
        """
        return self._node._watch([self._source(keys)], snapshot, resume)

    def _source(self, keys: str | None = None) -> Source:
        wanted = None if keys is None else re.compile(fnmatch.translate(keys))

        def wants(element: bytes) -> bool:
            key = decode_element(element)
            return wanted is None or (type(key) is str and wanted.match(key) is not None)

        return Source(self, self._view.name, self._read, wants=None if wanted is None else wants)

    def _read(self, element: bytes, before: Live | None, after: Live | None, kind: Kind) -> Change[K, V]:
        key = decode_element(element)
        if type(key) not in self._keys.plain:
            key = self._read_element(self._keys, element, after or before or NOBODY)
        value = previous = None
        if after is not None and type(value := decode_value(value_of(after))) not in self._values.plain:
            value = self._loaded(key, value, after)
        if before is not None and type(previous := decode_value(value_of(before))) not in self._values.plain:
            previous = self._loaded(key, previous, before)
        return change_of(self, key, value, previous, kind, before, after)

    def _load(self, key: object, live: Live) -> V:
        return self._loaded(key, decode_value(value_of(live)), live)

    def _loaded(self, key: object, value: Any, live: Live) -> V:
        try:
            return self._values.load(value)
        except WrongType as error:
            raise WrongType(f"{self.name}[{key!r}], written by {dot_of(live)[0]:016x}: {error}") from None


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


class Set(Handle, MutableSet[T]):
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
        key = (SET, self.name, self._encode_element("an element", self._schema, value))
        if owned:
            self._own(key, end_of(ttl, owned))
        else:
            self._node._put(key, b"", FOREVER if ttl is None else end_of(ttl))

    def _own(self, key: Key, expires: int) -> None:
        store = self._node._store

        def ask(replica: int, stamp: int) -> Write:
            write = store.write(key, b"", replica, stamp, expires)
            # others own the same element as well: it is there while any of them lives
            return write._replace(names=tuple(dot for dot in write.names if dot[0] == replica))

        self._node._write(ask)

    def discard(self, value: T) -> None:
        """Removes an element if it is there."""
        if value in self:
            self._node._write(self._view.remove, self._schema.dump(value))

    def clear(self) -> None:
        """Removes every element that is here now, whatever its type, in visible steps of 2 000 elements."""
        self._clear(self._view)

    def update(self, *others: Iterable[T]) -> None:
        """Adds all of these, in visible steps of 2 000 elements."""
        elements = [element for other in others for element in other]
        for start in range(0, len(elements), STEP):
            with self._node.batch():
                for element in elements[start : start + STEP]:
                    self.add(element)

    def __contains__(self, element: object) -> bool:
        return self._find(self._schema, self._view, element) is not None

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

    def entry(self, element: T) -> Entry[T]:
        """The element with the stamp and author of its newest add. Raises `KeyError`."""
        self._node._check_running()
        self._node._settled()
        encoded = encode_element(self._schema.dump(element))
        with self._node._running().lock:
            shown, note = self._story(self._live(self._view, encoded))
        if not shown:
            raise KeyError(element)
        return self._entry([element], shown[0], note)

    def watch(self, *, snapshot: bool = True, resume: str | None = None) -> Watch[T, bool]:
        """The present elements, then every change. `value` is True while the element is in the set. `resume` as in
        `Map.watch`."""
        return self._node._watch([self._source()], snapshot, resume)

    def _source(self) -> Source:
        return Source(self, self._view.name, self._read)

    def _read(self, element: bytes, before: Live | None, after: Live | None, kind: Kind) -> Change[T, bool]:
        value = self._read_element(self._schema, element, after or before or NOBODY)
        return change_of(self, value, after is not None, before is not None, kind, before, after)


class Register(Handle, Generic[V]):
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
        live = self._shown(self._live(self._view, b""))
        return None if live is None else self._load(live)

    def set(self, value: V, *, ttl: float | None = None, owned: bool = False) -> None:
        """Sets the value. `ttl` and `owned` as in `Map.set`."""
        encoded = self._encode_value(self._values, value)
        self._node._put((*self._view.name, b""), encoded, end_of(ttl, owned))

    def delete(self) -> None:
        """Empties the register."""
        self._node._write(self._view.delete)

    @property
    def conflicts(self) -> tuple[V, ...]:
        """The values of concurrent writes that are not shown; the next `set` settles them."""
        self._node._check_running()
        self._node._settled()
        return tuple(self._load(link) for link in self._node._visible(self._view.live))[1:]

    def entry(self) -> Entry[V] | None:
        """The value with its stamp, author and conflicts; None if there is none."""
        self._node._check_running()
        self._node._settled()
        with self._node._running().lock:
            shown, note = self._story(self._live(self._view, b""))
        return self._entry([self._load(each) for each in shown], shown[0], note) if shown else None

    def _content(self) -> str:
        return "empty" if self._shown(self._live(self._view, b"")) is None else "has a value"

    def watch(self, *, snapshot: bool = True, resume: str | None = None) -> Watch[None, V]:
        """The present value if there is one, then every change. `resume` as in `Map.watch`."""
        return self._node._watch([self._source()], snapshot, resume)

    def _source(self) -> Source:
        return Source(self, self._view.name, self._read)

    def _read(self, element: bytes, before: Live | None, after: Live | None, kind: Kind) -> Change[None, V]:
        value = None if after is None else self._load(after)
        previous = None if before is None else self._load(before)
        return change_of(self, None, value, previous, kind, before, after)

    def _load(self, live: Live) -> V:
        try:
            return self._values.load(decode_value(value_of(live)))
        except WrongType as error:
            raise WrongType(f"{self.name}, written by {dot_of(live)[0]:016x}: {error}") from None
