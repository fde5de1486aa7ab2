"""Who else is there, now and later?

Asks every source for addresses (the neighbours of this host, the seeds) and has the engine join whom it finds: first
until what the others share is here, and then again and again for as long as the node lives, since others come, and
partitions heal, without telling anybody.

Invariant: a start waits for somebody who has what the others share, and never for anybody else; no source that fails
stops the search.
Not here: what an address is and where it comes from (`discovery`), and who becomes a member of it (the protocol).
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from discovery import read_seeds
from gossip.errors import StartError

if TYPE_CHECKING:
    from gossip.runtime import Runtime

log = logging.getLogger("gossip")

_MUCH = 60.0
"""Seconds that a start waits at most for a state that somebody has."""
_WATCHFUL = 0.2
"""Seconds between two looks for neighbours while a start waits for the first of them."""


class Search:
    """The search of one running node. `ready` is set when what the others share is here."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._config = runtime.config
        self.ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def join(self) -> None:
        """Joins all that can be found; waits until the state of one of them is here: for `join_timeout` if nobody is
        there who has it, else for a minute at most. Raises `StartError` if no source can be asked."""
        runtime = self._runtime
        deadline = runtime.loop.time() + self._config.join_timeout
        while self._offer(await self._first_candidates()) and runtime.loop.time() < deadline and runtime.running:
            if await self._is_ready(min(_WATCHFUL, deadline - runtime.loop.time())):
                return
        patience = runtime.loop.time() + _MUCH
        while not runtime.engine.repair.ready and runtime.loop.time() < patience and runtime.running:
            await self._is_ready(_WATCHFUL)  # somebody has everything, or it is coming in: much takes its time

    def warn_of_silence(self) -> None:
        """Says so if seeds were given and nobody at all was found: a wrong address, or a firewall."""
        engine = self._runtime.engine
        silent = [seed for seed in self._config.seeds if seed in engine.repair.unanswered]
        if silent and not engine.members.peers():
            log.warning("none of the seeds answered (%s): going on alone, and looking for them", ", ".join(silent))

    def go_on(self) -> None:
        """Asks every source again and again from here on, until `cancel`."""
        self._task = self._runtime.loop.create_task(self._search())

    def cancel(self) -> asyncio.Task[None] | None:
        """Ends the search; gives what is to be waited for, unless that is the caller."""
        task = self._task
        if task is None or task is asyncio.current_task():
            return None
        task.cancel()
        return task

    async def _search(self) -> None:
        try:
            while True:
                await asyncio.sleep(self._config.discovery_interval)
                try:
                    await self._runtime.check_place()
                    self._offer(await self._candidates())
                except OSError as error:
                    log.warning("looking for other nodes failed, and will be tried again: %s", error)
        except asyncio.CancelledError:
            if self._runtime.running:  # `asyncio.run` cancels what still runs before it ends: the last moment for it
                await self._runtime.leave()
            raise

    async def _is_ready(self, seconds: float) -> bool:
        """Whether what the others share is here, within so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self.ready.wait()
        except TimeoutError:
            return False
        return True

    async def _first_candidates(self) -> list[str]:
        try:
            return await self._candidates()
        except OSError as error:
            raise StartError(error.errno, f"can not look for other nodes: {error}") from error

    async def _candidates(self) -> list[str]:
        candidates = [*self._runtime.neighbours.others(), *self._config.seeds]
        if self._config.seeds_file:
            try:
                candidates += [str(address) for address in read_seeds(Path(self._config.seeds_file))]
            except (OSError, ValueError) as error:
                log.warning("the file of seeds can not be used, and will be tried again: %s", error)
        return candidates

    def _offer(self, candidates: list[str]) -> bool:
        """Has the engine join these; says whether there was any."""
        own = self._runtime.engine.me.addresses
        candidates = [address for address in candidates if address not in own]
        self._runtime.join(candidates)
        return bool(candidates)
