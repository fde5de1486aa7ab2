"""Who else is there, now and later?

Asks every source for addresses (the neighbours of this host, the seeds, names, a file, a command, the link) and has the
engine join whom it finds: first until what the others share is here, and then again and again for as long as the node
lives, since others come, and partitions heal, without telling anybody. Every second while nobody is known, then every
`discovery_interval`.

Invariant: a start waits for somebody who has what the others share, and never for anybody else; a source that is slow
holds up no other, and the start for `join_timeout` at most; one that fails is told once, and asked again all the same.
Not here: what an address is and where it comes from (`discovery`, `sources`), and who becomes a member of it (the
protocol).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn

from discovery import MOST_SEEDS, Address, parse_peer
from gossip.errors import StartError
from gossip.protocol.codec import VERSION
from gossip.reach import is_of_this_host
from gossip.sources import Answer, Source, known, sources, speaks_mdns

if TYPE_CHECKING:
    from discovery.mdns import Mdns
    from gossip.runtime import Runtime

log = logging.getLogger("gossip")

_MUCH = 60.0
"""Seconds that a start waits at most for a state that somebody has."""
_WATCHFUL = 0.2
"""Seconds between two looks for neighbours while a start waits for the first of them."""
_ALONE = 1.0
"""Seconds between two looks at every source while nobody is known."""
_LINK_PACE = 1.0
"""Seconds between two offers of what was heard on the link: anybody there can say that thousands have come."""
_LINK, _SEEDS = "mDNS", "the seeds"
_MOST_NAMED = 8
"""Addresses named in one warning."""


class Search:
    """The search of one running node. `ready` is set when what the others share is here. `zeroconf` is an
    `AsyncZeroconf` of the program to announce it by, instead of one of its own."""

    def __init__(self, runtime: Runtime, zeroconf: Any = None) -> None:
        self._runtime = runtime
        self._config = runtime.config
        self._zeroconf = zeroconf
        self.ready = asyncio.Event()
        self._found: dict[str, list[str]] = {_SEEDS: known(self._config)}
        """What each source gave last, if it gave anything."""
        self._told: dict[str, str] = {}
        """What is wrong with a source, as it was told."""
        self._unheard: set[str] = set()
        """Sources that have not answered yet, well or badly: a start waits for them."""
        self._asking: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._mdns: Mdns | None = None

    # -- starting and ending ------------------------------------------------------------------------------------------

    async def join(self) -> None:
        """Joins all that can be found; waits until the state of one of them is here: for `join_timeout` if nobody is
        there who has it, else for a minute at most. Raises `StartError` if no source can be asked."""
        runtime = self._runtime
        deadline = runtime.loop.time() + self._config.join_timeout
        self._ask_all()
        while self._first_offer() and runtime.loop.time() < deadline and runtime.running:
            if await self._is_ready(min(_WATCHFUL, deadline - runtime.loop.time())):
                return
        patience = runtime.loop.time() + _MUCH
        while not runtime.engine.repair.ready and runtime.loop.time() < patience and runtime.running:
            await self._is_ready(_WATCHFUL)  # somebody has everything, or it is coming in: much takes its time

    def warn_of_silence(self) -> None:
        """Says so if seeds were given and nobody at all was found: a wrong address, or a firewall."""
        engine = self._runtime.engine
        given = [each for source, found in self._found.items() if source != _LINK for each in found]
        silent = [each for each in dict.fromkeys(given) if each in engine.repair.unanswered]
        if silent and not engine.members.peers():
            named = ", ".join(silent[:_MOST_NAMED]) + ("" if len(silent) <= _MOST_NAMED else ", ...")
            log.warning(
                "none of the seeds answered (%s): going on alone, and looking for them; `gossip doctor` tells a wrong "
                "key from a wrong address",
                named,
            )

    def go_on(self) -> None:
        """Looks for neighbours, and tries the seeds, again and again from here on, until `cancel`. The other sources
        are asked already."""
        self._task = self._runtime.loop.create_task(self._search())

    def hush(self) -> None:
        """The node leaves: has the sources end, which takes a moment, while the rest says goodbye."""
        for task in self._asking:
            task.cancel()

    def cancel(self) -> list[asyncio.Task[None]]:
        """Ends the search; gives what is to be waited for, less the caller."""
        ending = list(self._asking)
        for task in ending:
            if not task.cancelling():  # else it is closing something just now
                task.cancel()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            ending.append(self._task)
        return ending

    def descriptors(self) -> list[int]:
        """The file descriptors held, for a forked child to close."""
        return [] if self._mdns is None else self._mdns.descriptors()

    async def _search(self) -> None:
        try:
            while True:
                await asyncio.sleep(self._pace)
                try:
                    await self._runtime.check_place()
                    self._runtime.check_address()
                    self._offer([*self._runtime.whereabouts.neighbours.others(), *self._found[_SEEDS]])
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

    @property
    def _pace(self) -> float:
        interval = self._config.discovery_interval
        return interval if self._runtime.engine.members.peers() else min(_ALONE, interval)

    # -- asking -------------------------------------------------------------------------------------------------------

    def _ask_all(self) -> None:
        """Has every source asked for as long as the node lives, each at its own pace."""
        asked = sources(self._config)
        self._unheard = {source.name for source in asked}
        # Somebody may be there: nobody is ready, with nothing, before the first answer, or in vain for `join_timeout`.
        with self._runtime.lock:
            self._runtime.engine.repair.dialled(self._unheard, time.monotonic())
        for source in asked:
            self._spawn(self._ask_on(source))
        if speaks_mdns(self._config) or (self._zeroconf is not None and self._config.mdns is None):
            self._spawn(self._listen_on())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._runtime.loop.create_task(work)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask_on(self, source: Source) -> NoReturn:
        while True:
            try:
                answer = await source.ask()
            except (OSError, ValueError) as error:
                answer = Answer((), str(error))
                detail = getattr(error, "detail", "")
            else:
                detail = ""
            self._tell(source.name, answer.wrong, detail)
            if answer.found or not answer.wrong:  # else what it gave before is better than nothing
                self._found[source.name] = [str(address) for address in answer.found]
            self._heard(source.name)
            self._offer(self._found.get(source.name, []))
            await asyncio.sleep(self._pace)

    def _heard(self, name: str) -> None:
        if name in self._unheard:
            self._unheard.discard(name)
            with self._runtime.lock:
                self._runtime.engine.repair.reached([name])

    def _tell(self, name: str, wrong: str, detail: str = "") -> None:
        """Says what is wrong with a source, and that it is not any more: when that changes, not each time."""
        if wrong == self._told.get(name, ""):
            return
        self._told[name] = wrong
        if wrong:
            said = f"{wrong}: {detail}" if detail else wrong
            log.warning("%s can not be used, and will be tried again: %s", name, said)
        else:
            log.info("%s can be used again", name)

    # -- offering -----------------------------------------------------------------------------------------------------

    def _first_offer(self) -> bool:
        """Offers all that is known so far; says whether there is somebody to wait for."""
        try:
            neighbours = self._runtime.whereabouts.neighbours.others()
        except OSError as error:
            raise StartError(error.errno, f"can not look for other nodes: {error}") from error
        found = [each for source in self._found.values() for each in source]
        return self._offer([*neighbours, *found]) or bool(self._unheard)

    def _offer(self, candidates: list[str]) -> bool:
        """Has the engine join these; says whether there was any."""
        if not self._runtime.running:
            return False
        others = [each for each in islice(dict.fromkeys(candidates), 2 * MOST_SEEDS) if not self._is_ours(each)]
        self._runtime.join(others)
        return bool(others)

    def _is_ours(self, text: str) -> bool:
        """Whether it is ourselves who listen there. A name, or the link, may give any address of this host: the one of
        another interface, or 127.0.1.1, which Debian has its own name stand for."""
        if text in self._runtime.engine.me.addresses:
            return True
        bound, address = self._runtime.whereabouts.bound, parse_peer(text)
        if bound is None or address.is_unix or address.port != bound.port:
            return False
        if not bound.is_unspecified:
            return address.host == bound.host
        return is_of_this_host(address)

    # -- the link -----------------------------------------------------------------------------------------------------

    async def _listen_on(self) -> None:
        """Announces this node on its links, and offers who else is announced there."""
        try:
            from discovery.mdns import Mdns
        except ImportError:
            level = logging.INFO if self._config.mdns is None else logging.WARNING
            log.log(level, "nodes on this link are not looked for by mDNS: pip install 'gossamesh[mdns]' for that")
            return
        runtime, bound = self._runtime, self._runtime.whereabouts.bound
        assert bound is not None, "Config asks for bind"
        instance = f"{runtime.engine.me.instance:016x}"
        while True:
            announced = runtime.whereabouts.announced
            mdns = self._mdns = Mdns(self._config.cluster, VERSION, instance, announced, bound, lent=self._zeroconf)
            try:
                await mdns.open()
                self._tell(_LINK, "")
                await self._hear(mdns, announced)
            except OSError as error:
                self._tell(_LINK, str(error))
            finally:
                await mdns.close()
            await asyncio.sleep(self._config.discovery_interval)

    async def _hear(self, mdns: Mdns, announced: Address | None) -> None:
        """Until this node is announced elsewhere: then its sockets are of interfaces that may be no more."""
        while announced == self._runtime.whereabouts.announced:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pace):
                    await mdns.found.wait()
            if not mdns.found.is_set():
                await mdns.look_again()
            mdns.found.clear()
            self._found[_LINK] = [str(address) for address in mdns.candidates]
            self._offer(self._found[_LINK])
            await asyncio.sleep(min(_LINK_PACE, self._config.discovery_interval))
