"""How does a program count what all count?

A `Counter` is a handle like those of `shared`: it is read in this process's own memory, counts at once, and loses
nothing that any worker counted. `Counters` are many of them, by name.

Not here: how parts become a sum (`crdt.counter`), maps, sets and registers (`shared`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from crdt import Key, Live, PNCounter, decode_value, value_of
from crdt.codec import COUNTER, object_name
from gossip.handle import Handle
from gossip.watch import Change, Kind, Source, Watch, change_of

if TYPE_CHECKING:
    from gossip.node import Node


class Counter(Handle):
    """A shared counter of integers. Nothing is lost, whoever counts at the same time."""

    __slots__ = ("_view",)

    def __init__(self, node: Node, name: str) -> None:
        super().__init__(node, name)
        self._view = PNCounter(node._store, name)

    @property
    def value(self) -> int:
        """The sum of what all have counted, as far as it is known here."""
        self._node._check_running()
        self._node._settled()
        return self._view.value

    def increment(self, amount: int = 1) -> None:
        """Adds `amount`; 0 changes nothing. Raises `ValueError` for less: that is what `decrement` is for."""
        self._add(_positive(amount))

    def decrement(self, amount: int = 1) -> None:
        """Takes `amount` away; 0 changes nothing."""
        self._add(-_positive(amount))

    def _add(self, amount: int) -> None:
        runtime = self._node._running()
        if amount:
            runtime.door.do(runtime.writing.count, partial(self._part, amount))

    def _part(self, amount: int, replica: int) -> tuple[Key, bytes]:
        """What this node's part will be, once it has counted this."""
        view, element = self._view, replica.to_bytes(8, "big")
        return (COUNTER, self.name, element), view.counted(self._live(view, element), amount)

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

    def watch(self, *, snapshot: bool = True, resume: str | None = None) -> Watch[None, int]:
        """The present total if anybody has counted, then every change of it: `value` and `previous` are totals.
        `resume` as in `Map.watch`."""
        return self._node._watch([self._source()], snapshot, resume)

    def _source(self) -> Source:
        seen: int | None = None

        def begin(anew: bool) -> None:
            nonlocal seen
            seen = None if anew and self._elements(self._view) else self._view.value

        def read(element: bytes, before: Live | None, after: Live | None, kind: Kind) -> Change[None, int] | None:
            nonlocal seen
            previous, seen = seen, self._view.value
            if seen == previous:  # which instance counted is an inner matter, and changes of several may come as one
                return None
            first = kind == "present" and previous is None
            return change_of(self, None, seen, previous, "present" if first else "set", before, after)

        return Source(self, self._view.name, read, begin)


class Counters(Mapping[str, Counter]):
    """Counters by name: `views["page"].increment()`. Each is the counter `"<name>/<key>"`, and made when first counted.

    Those that anybody has counted are in it; any other can be had all the same, and shows 0.
    """

    def __init__(self, node: Node, name: str) -> None:
        self._node = node
        self.name = object_name(name)

    def __getitem__(self, key: str) -> Counter:
        return self._node.counter(f"{self.name}/{key}")

    def __iter__(self) -> Iterator[str]:
        """The names as of now."""
        prefix = f"{self.name}/"
        store = self._node._settled()
        with self._node._running().lock:
            names = [name for kind, name in store.objects if kind == COUNTER and name.startswith(prefix)]
        return iter([name.removeprefix(prefix) for name in names])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        self._node._check_running()
        return type(key) is str and bool(self._node._settled().elements((COUNTER, f"{self.name}/{key}")))

    def totals(self) -> dict[str, int]:
        """What each of them shows, as a plain dict."""
        return {key: counter.value for key, counter in self.items()}

    def __repr__(self) -> str:
        content = f": {len(self)} counters" if self._node._is_running else ""
        return f"<Counters {self.name!r} of cluster {self._node.config.cluster!r}{content}>"


def _part(live: Live | None) -> int:
    if live is None:
        return 0
    up, down = decode_value(value_of(live))
    return int(up - down)


def _positive(amount: int) -> int:
    if type(amount) is not int:
        raise TypeError(f"a counter counts in integers, not in {type(amount).__name__}")
    if amount < 0:
        raise ValueError(f"a counter is incremented or decremented by 0 or more, not by {amount}")
    return amount
