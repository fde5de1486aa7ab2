"""How is a reader in one event loop woken by what happens in any thread, and only once however much that is?

Invariant: whoever rings never waits, and rings in vain if the reader's loop is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Literal


class Bell:
    """What one reader sleeps by. `ring` and `quiet` are to be called with one lock held."""

    __slots__ = ("_loop", "_rung", "_something")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._something = asyncio.Event()
        self._rung = False

    def begin(self) -> None:
        """The reader is in the running loop."""
        self._loop = asyncio.get_running_loop()

    @property
    def begun(self) -> bool:
        """Whether there is a reader."""
        return self._loop is not None

    def ring(self) -> None:
        """There is something to read."""
        if self._loop is None or self._rung:
            return
        self._rung = True  # once, however much comes before the reader's loop gets to it
        try:
            running: Any = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            self._something.set()
            return
        with suppress(RuntimeError):  # the reader's loop was closed: it reads no more
            self._loop.call_soon_threadsafe(self._something.set)

    def quiet(self) -> None:
        """All was read."""
        self._something.clear()
        self._rung = False

    def wait(self) -> Coroutine[Any, Any, Literal[True]]:
        """Until it rings."""
        return self._something.wait()
