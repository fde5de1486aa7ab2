"""What changed, for a program that looks when it has time?

A watch first gives the present state, then every visible change, in order per key. It is bounded by keeping, of each
key, only the newest change that was not read yet (with `previous` as the reader last saw it). If more keys than
`watch_keys` wait unread, it forgets them, gives one `lagged` mark, and then the present state anew: late, never wrong.

Invariants: a watcher never slows or breaks anybody: nothing waits for it, and what it raises is its own. A key's
last value is always given, unless the watch ends first.

Not here: which changes there are (`runtime` hands them over), and the types of objects (`shared` reads them).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Generic, Literal, NoReturn, Self, TypeVar

from crdt import Live

K = TypeVar("K")
V = TypeVar("V")

Kind = Literal["present", "set", "deleted", "lagged"]


@dataclass(frozen=True, slots=True)
class Change(Generic[K, V]):
    """One visible change of an object.

    `kind` is `present` for what was there when the watch began, `set`, `deleted`, or `lagged`: changes were lost, and
    the present state follows. `value` and `previous` are None where there is none. `author` is the instance that
    wrote it and `stamp` when, as a hybrid timestamp (milliseconds since 1970 shifted left by 16), which `time` shows.
    """

    key: K | None
    value: V | None
    previous: V | None
    kind: Kind
    author: int
    stamp: int

    @property
    def time(self) -> datetime:
        """When it was written, by its author's clock, in UTC."""
        return time_of(self.stamp)


def time_of(stamp: int) -> datetime:
    """The wall-clock time in a hybrid timestamp."""
    return datetime.fromtimestamp((stamp >> 16) / 1000, UTC)


_IN_LOOP = (
    "a watch is read in an event loop: async with flags.watch() as changes: async for change in changes: ... "
    "A program without one runs that with asyncio.run, in a thread of its own if it has other things to do"
)
_Unread = tuple[bool, Live | None, Live | None]
"""`(present, before, after)` of a key: whether it is from the snapshot, and what the reader saw last and will see."""


class Watch(Generic[K, V]):
    """The changes of one object: `async with flags.watch() as changes: async for change in changes: ...`.

    Made by an object's `watch()`. `enter` has the node tell this watch of changes from now on, and gives the lock under
    which it does; `snapshot` gives the live elements; `read` makes a change of what was live before and is now, or None
    if that is none to its reader. `present` says whether what is there at the beginning is given, `wants` which keys
    are: others cost nothing here, and can not make it lag.
    """

    def __init__(
        self,
        enter: Callable[[Watch[K, V]], AbstractContextManager[object]],
        leave: Callable[[Watch[K, V]], None],
        snapshot: Callable[[], Iterator[tuple[bytes, Live]]],
        read: Callable[[bytes, Live | None, Live | None, Kind], Change[K, V] | None],
        limit: int,
        present: bool,
        wants: Callable[[bytes], bool] | None = None,
    ) -> None:
        self._enter = enter
        self._leave = leave
        self._snapshot = snapshot
        self._read = read
        self._limit = limit
        self._present = present
        self._wants = wants
        # Not a dict: it looks for its first key past all that were deleted, which made 200 000 keys take a minute.
        self._unread: OrderedDict[bytes, _Unread] = OrderedDict()
        self._changes = 0
        """How many of the unread are changes; the rest is the present state, which bounds itself."""
        self._lagged = False
        self._ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._something = asyncio.Event()
        self._woken = False
        self._lock: AbstractContextManager[object] = nullcontext()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._lock = self._enter(self)
        if self._present:
            with self._lock:
                self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()
        self._leave(self)

    def __enter__(self) -> NoReturn:
        raise TypeError(_IN_LOOP)

    def __exit__(self, *error: object) -> None:
        """Is never come to; without it Python would tell of that, and not of what to do."""

    def __iter__(self) -> NoReturn:
        raise TypeError(_IN_LOOP)

    def __repr__(self) -> str:
        state = "ended" if self._ended else "not begun" if self._loop is None else f"{len(self._unread)} unread"
        return f"<Watch: {state}>"

    def __aiter__(self) -> Self:
        if self._loop is None:
            raise RuntimeError("a watch begins with its block: async with flags.watch() as changes: ...")
        return self

    async def __anext__(self) -> Change[K, V]:
        self.__aiter__()  # which says what is wrong if the block was not entered
        while True:
            unread = await self._next()
            if unread is None:
                return Change(None, None, None, "lagged", 0, 0)
            element, (present, before, after) = unread
            change = self._read(element, before, after, _kind(present, after))
            if change is not None:
                return change

    async def _next(self) -> tuple[bytes, _Unread] | None:
        """What is unread of one key, or None if this watch lagged."""
        while True:
            with self._lock:  # changes may come from any thread
                if self._lagged:
                    self._lagged = False
                    self._begin()
                    return None
                if self._unread:
                    element = next(iter(self._unread))
                    return element, self._take(element)
                if self._ended:
                    raise StopAsyncIteration
                self._something.clear()
                self._woken = False
            await self._something.wait()

    def _begin(self) -> None:
        """Takes the present state as unread."""
        wants = self._wants
        self._unread = OrderedDict(
            (element, (True, None, live)) for element, live in self._snapshot() if wants is None or wants(element)
        )
        self._changes = 0

    def _take(self, element: bytes) -> _Unread:
        unread = self._unread.pop(element)
        self._changes -= not unread[0]
        return unread

    # -- told by the node, with its lock held -----------------------------------------------------------------------

    def _changed(self, element: bytes, before: Live | None, after: Live | None) -> None:
        """A key changed; what of it was unread is replaced."""
        if (
            self._ended
            or self._lagged
            or _head(before) == _head(after)
            or (self._wants is not None and not self._wants(element))
        ):
            return
        present, seen, _ = self._take(element) if element in self._unread else (False, before, None)
        if present and after is None:
            return  # it was there when the watch began and is gone before anybody saw it
        if self._changes >= self._limit and not present:
            self._unread.clear()
            self._lagged = True
        elif _head(seen) != _head(after):
            self._unread[element] = (present, seen, after)
            self._changes += not present
        self._wake()

    def _end(self) -> None:
        """There will be no more: what is unread can still be read."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._loop is None or self._woken:
            return
        self._woken = True  # once, however much changes before the watcher's loop gets to it
        try:
            running: Any = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            self._something.set()
            return
        with suppress(RuntimeError):  # the watcher's loop was closed: it reads no more
            self._loop.call_soon_threadsafe(self._something.set)


def _head(live: Live | None) -> tuple[int, int, int] | None:
    """Which write is shown. Conflicts hang below it in a chain, and comparing chains recurses as deep as they are."""
    return None if live is None else live[:3]


def _kind(present: bool, after: Live | None) -> Kind:
    if present:
        return "present"
    return "deleted" if after is None else "set"
