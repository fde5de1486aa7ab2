"""Who may write now, and as a part of what?

One lock guards the engine. Reads and writes come from any thread, and from signal handlers, which may interrupt a
thread at any line: what a handler writes while its own thread is inside is done when that comes out.

A *block* is an open batch of the program: it belongs to the thread and task that began it. Threads wait for each
other's blocks; the loop waits for nobody: what it writes while a thread has a block open is a part of that. A block of
the loop is over when its turn is, one of a thread after a second at most: every one ends, and what is written beside it
leaves.

Invariants: the engine is in one call at a time, in order, and never in a call inside a call; whatever a handler raises,
and wherever, the lock is free again when its holder is out. So it is only ever taken by `with`, which the interpreter
does in one step: Celery's soft time limits and Ctrl-C raise between any two others.
Not here: what is done inside (`runtime`), and how an engine goes on that was left in the middle of a step
(`protocol.replication`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from crdt import Note

T = TypeVar("T")

log = logging.getLogger("gossip")

_LONGEST = 1.0
"""Seconds that a thread's block may take. What others of this process write meanwhile waits for its end, and so does
whoever starts elsewhere and needs our state."""
_LOOK = 0.1
"""Seconds between two looks whether one does."""
_HANDLER = "a signal handler can not open a batch while the program writes: set a flag in it"
NO_AWAIT = (
    "no await inside a batch: what other tasks write meanwhile would become a part of it, and wait for its end. What "
    "was written before the await stays and is a batch, what came after it is none. Await first, and then write all in "
    "one `with node.batch():`"
)
TOO_LONG = (
    f"a batch of a thread may take {_LONGEST:.0f} s, or as many bytes as max_transaction with what others of this "
    "process write meanwhile: what they write waits for its end. What was written until then stays and is a batch, "
    "what came after it is none. Read and compute first, and then write all in one `with node.batch():`"
)


class Block:
    """A batch of the program that is open, or was."""

    __slots__ = ("began", "notes", "over", "task", "thread")

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.task = _current_task()
        self.began = 0.0
        self.notes: list[Note | None] = []
        """One for each block of its task that is open: one inside another is a part of it, and may say more."""
        self.over = False


class Door:
    """The one way to the engine.

    `check` raises if the node does not run; `settle` has the engine told of what was written before a block begins;
    `transaction` opens or ends the engine's, if it is not so already. `loop` is where it lives.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        check: Callable[[], None],
        settle: Callable[[], None],
        transaction: Callable[[bool], None],
    ) -> None:
        self.lock = threading.RLock()
        self.inside: Callable[[], bool] = self.lock._is_owned  # type: ignore[attr-defined]  # as threading.Condition asks
        """Whether the caller's thread has the lock: then the caller is a signal handler that interrupted it."""
        self._no_block = threading.Condition(self.lock)
        self._loop = loop
        self.closed: Callable[[], bool] = loop.is_closed
        """Whether the loop has ended: then nothing leaves any more."""
        self._thread = threading.get_ident()
        self._check = check
        self._settle = settle
        self._transaction = transaction
        self.interrupted: deque[Callable[[], object]] = deque()
        """What signal handlers wanted done while their thread was inside."""
        self.open: dict[int, Block] = {}
        """By thread: one of the loop's and one of another thread's at most."""
        self._guarded = self._begun = False
        """Whether somebody looks after the blocks of threads, and whether one began since the last look."""
        self._waiting: deque[Block] = deque()
        """Those of other threads that wait for their turn. In order: a thread that begins one after another would
        otherwise let nobody in."""

    # -- one at a time ----------------------------------------------------------------------------------------------

    def later(self, work: Callable[[], object]) -> None:
        """Has this done when the one that was interrupted comes out, at the latest in the loop's next turn."""
        self.interrupted.append(work)
        self._loop.call_soon_threadsafe(self.catch_up)

    def do(self, work: Callable[[T], bool], what: T) -> bool:
        """Has this done under the lock, and gives what it gives.

        What a signal handler wants done while its thread is inside is done when that comes out, and counts as done.
        `work` takes one argument: to hand on any number by star took a tenth of a write.
        """
        if self.inside():
            self.later(partial(work, what))
            return True
        with self.lock:
            done = work(what)
        if self.interrupted:
            self.catch_up()
        return done

    def catch_up(self) -> None:
        """Does what signal handlers wanted done. To be called by whoever comes out."""
        while self.interrupted:
            with self.lock:
                if not self.interrupted:
                    return
                work = self.interrupted.popleft()
                try:
                    work()
                except Exception:
                    log.exception("a write that a signal handler made could not be done")

    # -- blocks -----------------------------------------------------------------------------------------------------

    def begin(self, note: Note | None = None) -> Block:
        """Opens a block, or another one inside that which this task has open; `note` is of what is written in it.

        In a thread that is not the loop's, waits for the blocks of others to end. Raises `RuntimeError` if another task
        of this thread awaits inside of one.
        """
        if self.inside():
            raise RuntimeError(_HANDLER)
        with self.lock:
            self._check()
            block = self.open.get(threading.get_ident())
            if block is None:
                block = self._begin()
            elif block.task is not _current_task():
                raise RuntimeError(NO_AWAIT)
            outer = block.notes[-1] if block.notes else None
            block.notes.append(_within(outer, note))
            return block

    def _begin(self) -> Block:
        block = Block()
        if any(waiting.thread == block.thread for waiting in self._waiting):  # it would wait for whom it interrupted
            raise RuntimeError(_HANDLER)
        if block.thread == self._thread:
            self._loop.call_soon(self._expire, block)
        else:
            try:
                self._waiting.append(block)
                while self.open or self._waiting[0] is not block:
                    self._no_block.wait()
                    self._check()
            finally:
                self._waiting.remove(block)
                self._no_block.notify_all()
            if not self._guarded:  # one guard for all: with one for each block the loop had no time for anything else
                self._loop.call_soon_threadsafe(self._guard)
                self._guarded = True
        self._settle()
        block.began = time.monotonic()
        self.open[block.thread], self._begun = block, True
        self._transaction(True)
        return block

    def end(self, block: Block) -> str:
        """Closes a block, and with the outermost the batch. Gives what was wrong, if that was over long before."""
        with self.lock:
            block.notes.pop()
            if block.notes:
                return ""
            if block.over:
                return NO_AWAIT if block.thread == self._thread else TOO_LONG
            self._close(block)
            return ""

    def _guard(self) -> None:
        """Looks again and again whether the block of a thread takes too long, as long as threads have any."""
        try:
            with self.lock:
                now, blocks = time.monotonic(), [each for each in self.open.values() if each.thread != self._thread]
                for block in blocks:
                    if now - block.began >= _LONGEST:
                        self._close(block)
                self._guarded = bool(blocks) or self._begun
                self._begun = False
        finally:  # also where a signal handler raised
            if self._guarded:
                self._loop.call_later(_LOOK, self._guard)

    def _expire(self, block: Block) -> None:
        """Its turn of the loop is over."""
        try:
            self._close(block)
        except BaseException:  # a signal handler raised
            self._loop.call_soon(self._expire, block)
            raise

    def _close(self, block: Block) -> None:
        """It ends; and if that was cut short by a signal handler, it ends when its time is over."""
        with self.lock:
            if block.over:
                return
            if self.open.get(block.thread) is block:
                del self.open[block.thread]
            self._no_block.notify_all()
            if not self.open:
                self._transaction(False)
            block.over = True

    @property
    def note(self) -> Note | None:
        """That of what the caller writes now: of his own block, not of one that another thread has open beside."""
        block = self.open.get(threading.get_ident()) if self.open else None
        return block.notes[-1] if block is not None and block.notes else None

    @property
    def others(self) -> list[Block]:
        """The open blocks of other threads than the caller's."""
        return [block for block in self.open.values() if block.thread != threading.get_ident()]

    def cut(self) -> None:
        """Ends the blocks of other threads, which stand in the way of what this one writes."""
        for block in self.others:
            self._close(block)

    def wake(self) -> None:
        """Those that wait for their turn look again whether the node runs."""
        with self.lock:
            self._no_block.notify_all()


def _within(outer: Note | None, inner: Note | None) -> Note | None:
    """What an inner block leaves out it takes from the outer one."""
    if outer is None or inner is None:
        return inner or outer
    return Note(inner.by or outer.by, inner.text or outer.text)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        return None
