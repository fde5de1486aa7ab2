"""How does a node live in a program that has no event loop?

In a thread that runs one. The node's reads and writes may be made from any thread, so nothing else is needed.

Invariant: at interpreter exit the node leaves like any other, within its `leave_timeout`, and never hangs the exit. Who
is interrupted while it waits for the start leaves no thread behind.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress

log = logging.getLogger("gossip")


def warn_in_loop() -> None:
    """Says so in the log if an event loop runs in this thread: it would stand still until the node is ready."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    log.warning("node.open() and `with node:` block the running event loop: use `async with node:` there")


class LoopThread:
    """A daemon thread with an event loop of its own, for one node."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._end: asyncio.Event | None = None
        self._starting: asyncio.Task[None] | None = None
        self._given_up = False

    def run(self, start: Coroutine[None, None, None], at_end: Callable[[], Coroutine[None, None, None]]) -> None:
        """Starts the thread, runs `start` in it and returns when that is done; raises what it raised.

        When `stop` is called, or the interpreter exits, `at_end()` is run, and the thread ends.
        """
        started: list[BaseException | None] = []
        ready = threading.Event()

        async def live() -> None:
            self._end, self._starting = asyncio.Event(), asyncio.current_task()
            self._loop = asyncio.get_running_loop()
            try:
                if self._given_up:
                    start.close()
                    raise asyncio.CancelledError
                await start
                self._starting = None
            except BaseException as error:
                started.append(error)
                return
            finally:
                ready.set()
            await self._end.wait()
            await at_end()

        def run() -> None:
            try:
                with asyncio.Runner() as runner:
                    runner.run(live())
            except BaseException as error:
                if ready.is_set():
                    raise
                started.append(error)  # not even a loop could be had, for want of descriptors for example
                start.close()
                ready.set()

        self._thread = threading.Thread(target=run, name=self._name, daemon=True)
        try:
            self._thread.start()  # this waits for the thread too, which may be starting the node meanwhile
            ready.wait()
        except BaseException:  # Ctrl-C
            self._give_up()
            raise
        if started and started[0] is not None:
            self._thread.join()
            raise started[0]
        atexit.register(self.stop)  # after it, daemon threads are stopped dead, without a goodbye

    def _give_up(self) -> None:
        """Nobody waits for the start any more: cancels it, or ends what has started just now."""
        self._given_up = True
        if self._loop is not None and self._thread is not None:
            with suppress(RuntimeError):  # it ended just now by itself
                self._loop.call_soon_threadsafe(self._cancel)
            self._thread.join(timeout=5.0)

    def _cancel(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
        elif self._end is not None:
            self._end.set()

    def stop(self) -> None:
        """Runs `at_end` and ends the thread; does nothing the second time."""
        if self._loop is None or self._end is None or self._thread is None or not self._thread.is_alive():
            return
        with suppress(RuntimeError):  # somebody else stopped it just now
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(timeout=5.0)
        atexit.unregister(self.stop)
