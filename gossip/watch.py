"""What changed, for a program that looks when it has time?

A watch first gives the present state of one object or of several, a mark that it is complete, and then every visible
change, in order per key. It is bounded by keeping, of each key, only the newest change that was not read yet (with
`previous` as the reader last saw it). If more keys wait unread than `watch_keys`, and than there are to be read anew,
or than ten times as many, it forgets them, gives one `lagged` mark, and then the present state anew: late, never wrong.

A `cursor` says how far its reader is. Whoever resumes there, at any node, is told of the keys that were touched since;
or, if the node can not know which these are, of everything, after a `lagged` mark.

Invariants: a watcher never slows or breaks anybody: nothing waits for it, and what it raises is its own. A key's
last value is always given, unless the watch ends first. A cursor may lag behind what was read, but is never ahead.

Not here: which changes there are (`runtime` hands them over), and the types of objects (`shared` and `counting` read
them).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, NoReturn, Self, TypeAlias, TypeVar

import crdt
from crdt import FOREVER, Context, Link, Live, dot_of, head_of
from crdt.write import Object
from gossip.errors import NotRunning

if TYPE_CHECKING:
    from gossip.watches import Watches

K = TypeVar("K")
V = TypeVar("V")

Kind = Literal["present", "complete", "set", "deleted", "lagged"]


@dataclass(frozen=True, slots=True)
class Change(Generic[K, V]):
    """One visible change of an object, or a mark.

    `kind` is `present` for what was there when the watch began, `set` or `deleted`. Two are marks, with no key:
    `complete`, after all that was there, and `lagged`: changes were lost, and the present state follows, with its own
    `complete`. `value` and `previous` are None where there is none. `author` is the instance that wrote it and `stamp`
    when, as a hybrid timestamp (milliseconds since 1970 shifted left by 16), which `time` shows.
    """

    key: K | None
    value: V | None
    previous: V | None
    kind: Kind
    author: int
    stamp: int
    source: Any = field(default=None, compare=False, repr=False)
    """The object that it is about: `change.source is flags`; None for a mark."""

    @property
    def time(self) -> datetime:
        """When it was written, by its author's clock, in UTC."""
        return time_of(self.stamp)


class _Making(Generic[K, V]):
    """A change that is being made: a frozen one sets each of its fields by a call, and takes 1.2 us for what takes 0.4
    so, of the 8 that a change takes from the socket to its reader."""

    __slots__ = Change.__slots__


def change_of(
    source: object, key: K | None, value: V | None, previous: V | None, kind: Kind, before: Live | None,
    after: Live | None,
) -> Change[K, V]:  # fmt: skip
    """A change of an object, told of by what is shown now, or was."""
    told = after or before
    made: Any = _Making()
    made.key, made.value, made.previous, made.kind, made.source = key, value, previous, kind, source
    made.stamp, made.author, _ = head_of(told) if told else (0, 0, 0)
    made.__class__ = Change  # the same slots, and nobody else has it yet
    return made  # type: ignore[no-any-return]


def time_of(stamp: int) -> datetime:
    """The wall-clock time in a hybrid timestamp."""
    return datetime.fromtimestamp((stamp >> 16) / 1000, UTC)


class Source(NamedTuple):
    """An object that is watched: how it is called in the store, and what its handle makes of a change.

    `read` gives a change, or None for what is none to a reader; `begin` is told when the reader begins to see it, and
    whether he knows nothing of it yet; `wants` says which keys are told of: others cost nothing, and can not make a
    watch lag.
    """

    handle: Any
    name: Object
    read: Callable[[bytes, Live | None, Live | None, Kind], Change[Any, Any] | None]
    begin: Callable[[bool], None] = lambda anew: None
    wants: Callable[[bytes], bool] | None = None


class Cursor(NamedTuple):
    """How far a reader is: what was delivered, and at which time, in milliseconds of the wall clock."""

    context: Context
    at: int


_IN_LOOP = (
    "a watch is read in an event loop: async with flags.watch() as changes: async for change in changes: ... "
    "A program without one runs that with asyncio.run, in a thread of its own if it has other things to do"
)
_NOWHERE = Cursor(Context(), 0)
_FAR = 10
"""So many times `watch_keys` may be unread where there is more to be read anew: 30 MB, each watch."""


_Key: TypeAlias = tuple[int, bytes]
"""By the place of the source and the element: what is told of."""

_Unread: TypeAlias = tuple[bool, Live | None, Live | None, int]
"""`(present, before, after, serial)`: a key that was not read: whether it is of the state at the beginning, what the
reader saw last and will see, and the number of the step in which it changed. All that was unread when a cursor was
asked for has none that is higher, and all that came since has. A plain tuple: a named one takes 0.25 us to make, of the
1 that a change takes until it is here."""

_UNKNOWN: Link = (0, 0, 0, b"", 0, None)
"""What a reader saw last of a key that was touched while nobody watched for him. Its replica is 0, which nobody is: not
even "nothing" is the same."""


class Watch(Generic[K, V]):
    """The changes of some objects: `async with flags.watch() as changes: async for change in changes: ...`.

    Made by an object's `watch()`, or by `Node.watch` for several. `present` says whether what is there at the beginning
    is given; `resume` is where another watch was left.
    """

    def __init__(
        self, node: Watches, sources: Sequence[Source], limit: int, present: bool, resume: Cursor | None = None
    ) -> None:
        from gossip.bell import Bell  # here, since it needs asyncio: there is a node now, which has it anyway

        self._node = node
        self._sources = sources
        self._reads = [source.read for source in sources]
        self._limit = limit
        self._present = present
        self._resume = resume
        # Not a dict: it looks for its first key past all that were deleted, which made 200 000 keys take a minute.
        self._unread: OrderedDict[_Key, _Unread] = OrderedDict()
        self._serial = 0
        self._changes = 0
        """How many of the unread are changes; the rest is the present state, which bounds itself."""
        self._unseen: dict[_Key, Live | None] = {}
        """What the reader sees of keys whose greatest write had ended when it came, and goes without having been seen:
        as many as wait to be dropped."""
        self._lagged = False
        self._completing = False
        """Whether the mark is due, after what there is of the present state."""
        self._entered = self._ended = False
        self._safe = _NOWHERE
        """The reader has seen all up to here."""
        self._next_safe: tuple[Cursor, int, int] | None = None
        """Where that will be when so many of the unread, with serials up to this one, are read or replaced."""
        self._bell = Bell()
        self._lock: AbstractContextManager[object] = nullcontext()

    async def __aenter__(self) -> Self:
        self._bell.begin()
        self._lock = self._node.lock()
        if self._resume is not None:
            await self._node.arrival(self._resume)
        with self._lock:
            if self._node.is_whole(self):
                self._enter()
        while not self._entered:
            await self._bell.wait()
            with self._lock:
                if self._ended:
                    raise NotRunning("the node has just left: there is nothing to watch")
                self._bell.quiet()
        return self

    def _enter(self) -> None:
        self._entered = True
        self._node.enter(self, self._sources)
        if self._resume is not None:
            self._go_on(self._resume)
        elif self._present:
            self._begin()
        else:
            self._safe = self._node.cursor()
            for source in self._sources:
                source.begin(False)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._end()
            self._node.leave(self, self._sources)

    def __enter__(self) -> NoReturn:
        raise TypeError(_IN_LOOP)

    def __exit__(self, *error: object) -> None:
        """Is never come to; without it Python would tell of that, and not of what to do."""

    def __iter__(self) -> NoReturn:
        raise TypeError(_IN_LOOP)

    def __repr__(self) -> str:
        state = "ended" if self._ended else "not begun" if not self._bell.begun else f"{len(self._unread)} unread"
        return f"<Watch: {state}>"

    def __aiter__(self) -> Self:
        if not self._bell.begun:
            raise RuntimeError("a watch begins with its block: async with flags.watch() as changes: ...")
        return self

    async def __anext__(self) -> Change[K, V]:
        while True:
            with self._lock:  # changes may come from any thread
                told = self._pop()
                if told is None:
                    self._rest()
            if told is None:
                await self._bell.wait()
            elif (change := self._change(told)) is not None:
                return change

    async def steps(self) -> AsyncIterator[list[Change[K, V]]]:
        """All that is unread, each time: so what was written in one batch is never seen in part.

        async for step in changes.steps():
            for change in step: ...
        """
        self.__aiter__()
        while True:
            with self._lock:
                safe, told = self._safe, self._pop_all()
                if not told:
                    try:
                        self._rest()
                    except StopAsyncIteration:
                        return
            try:
                changes = [change for item in told if (change := self._change(item)) is not None]
            except BaseException:
                with self._lock:
                    # the rest of the step is lost to whoever goes on: he gets everything anew, elsewhere as well
                    self._lagged, self._safe, self._next_safe = True, safe, None
                raise
            if changes:
                yield changes
            elif not told:
                await self._bell.wait()

    @property
    def cursor(self) -> str:
        """How far this reader is, as text: `watch(resume=...)` goes on there, at this node or another of the cluster.

        It may lag behind what was read, so that some of it is told again, and is never ahead of it. Before the present
        state was read to its end it is the beginning. 20 characters, and 12 to 14 more for each node that ever wrote.
        """
        with self._lock:
            if not self._ended:  # what changes from its end on, it is not told
                self._mark()
            return self._node.text_of(self._safe)

    def _mark(self) -> None:
        """All that is told by now will be safe when it is read."""
        if self._lagged or self._completing:
            return
        if not self._unread:
            self._safe, self._next_safe = self._node.cursor(), None
        elif self._next_safe is None:
            self._next_safe = (self._node.cursor(), self._serial, len(self._unread))

    # -- reading, with the lock held ---------------------------------------------------------------------------------

    def _pop(self) -> tuple[_Key, _Unread] | Kind | None:
        """What is to be told next: a change or a mark; None if there is nothing."""
        if self._lagged:
            if not self._node.is_whole(self):
                return None
            self._lagged = False
            self._begin()
            return "lagged"
        if self._completing and not (self._unread and next(iter(self._unread.values()))[0]):
            self._completing = False
            return "complete"
        if not self._unread:
            return None
        key, unread = self._unread.popitem(last=False)
        if unread[0] or self._next_safe is not None:
            self._taken(unread)
        else:
            self._changes -= 1
        return key, unread

    def _pop_all(self) -> Sequence[tuple[_Key, _Unread] | Kind]:
        """All that is to be told by now."""
        if not (self._lagged or self._completing or self._next_safe is not None):  # changes alone, and nobody counts
            unread, self._unread, self._changes = self._unread, OrderedDict(), 0
            return list(unread.items())
        told: list[tuple[_Key, _Unread] | Kind] = []
        while (each := self._pop()) is not None:
            told.append(each)
        return told

    def _rest(self) -> None:
        """There is nothing to be told, now or ever."""
        self.__aiter__()  # which says what is wrong if the block was not entered
        if self._ended:
            raise StopAsyncIteration
        self._bell.quiet()

    def _begin(self) -> None:
        """Takes the present state as unread."""
        self._unread.clear()
        self._unseen.clear()
        self._changes, self._completing = 0, True
        self._safe, self._next_safe = _NOWHERE, None
        for place, source in enumerate(self._sources):
            source.begin(True)
            for element, live in self._node.present(source.name):
                if source.wants is None or source.wants(element):
                    self._unread[place, element] = (True, None, live, self._serial)

    def _go_on(self, cursor: Cursor) -> None:
        """Takes what was touched since a cursor as unread; or begins anew, and says so."""
        touched = self._node.touched(cursor)
        if touched is None:
            self._lagged = True
            return
        self._safe = cursor
        for place, source in enumerate(self._sources):
            source.begin(True)
            for key in touched:
                if key[:2] == source.name and (source.wants is None or source.wants(key[2])):
                    self._unread[place, key[2]] = (False, _UNKNOWN, self._node.shown(key), self._serial)
                    self._changes += 1

    def _taken(self, unread: _Unread) -> None:
        """This is read, or replaced."""
        if not unread[0]:
            self._changes -= 1
        if self._next_safe is not None and unread[3] <= self._next_safe[1]:
            cursor, serial, left = self._next_safe
            self._next_safe = (cursor, serial, left - 1)
            if left == 1:
                self._safe, self._next_safe = cursor, None

    def _change(self, told: tuple[_Key, _Unread] | Kind) -> Change[K, V] | None:
        if isinstance(told, str):
            return Change(None, None, None, told, 0, 0)
        (place, element), (present, before, after, _) = told
        if before is _UNKNOWN:
            before = None
        kind: Kind = "present" if present else "deleted" if after is None else "set"
        return self._reads[place](element, before, after, kind)

    # -- told by the node, with its lock held -----------------------------------------------------------------------

    def _changed(self, place: int, changes: Sequence[crdt.Change]) -> None:
        """Keys of a source changed, in one step. What of them was unread is replaced."""
        if self._ended:
            return
        wants, unread, limit, news = self._sources[place].wants, self._unread, self._limit, False
        self._serial = serial = self._serial + 1
        unseen = self._unseen
        for (_, _, element), before, after in changes:
            if self._lagged:
                break
            if wants is not None and not wants(element):
                continue
            if unseen and (place, element) in unseen:
                before = unseen.pop((place, element))
            if isinstance(after, tuple) and after[4] != FOREVER and (seen := self._node.seen(after)) is not after:
                unseen[place, element] = after = seen
            if before is None:
                if after is None:
                    continue
            elif before == after if isinstance(before, bytes) and isinstance(after, bytes) else _is_same(before, after):
                continue  # a dot has one write; packed ones in line, since by the call a change took 0.25 us more
            news, key = True, (place, element)
            if key in unread:
                self._replace(key, unread[key], after)
            elif self._changes < limit or self._changes < min(self._node.size(self._sources), _FAR * limit):
                unread[key] = (False, before, after, serial)
                self._changes += 1
            else:
                unread.clear()
                self._lagged, self._next_safe = True, None
        if news:
            self._bell.ring()

    def _replace(self, key: _Key, earlier: _Unread, after: Live | None) -> None:
        """A key changed again before it was read."""
        present, seen, _, serial = earlier
        if present and after is not None:
            self._unread[key] = (True, seen, after, serial)  # in its place: changes come after all that was there
            return
        del self._unread[key]
        self._taken(earlier)
        # of what was there when the watch began and is gone before anybody saw it, nobody need be told
        if not present and not _is_same(seen, after):
            self._unread[key] = (False, seen, after, self._serial)
            self._changes += 1

    def _whole(self) -> None:
        """No batch is open any more."""
        if not (self._entered or self._ended):
            self._enter()
        self._bell.ring()

    def _end(self) -> None:
        """There will be no more: what is unread can still be read."""
        if not self._ended and self._entered:
            self._mark()
        self._ended = True
        self._bell.ring()


def _is_same(one: Live | None, other: Live | None) -> bool:
    """Whether they show the same write. Never are chains compared whole: that recurses as deep as they are."""
    if one is None or other is None:
        return one is other
    return dot_of(one) == dot_of(other)
