"""Who of my cluster says on this link that he is there?

Each node announces a service `<instance>._gossamesh._tcp.local.`: its address, a hash of the name of its cluster, and
the version of the protocol. Whoever asks the link for such services hears of all of them. What is said here everybody
on the link hears, and anybody can say: it is a hint where to knock, never a sign of life. The hash is not keyed on
purpose: nodes of one name that have different keys should meet, and say so.

Invariants: at most `MOST_REMEMBERED` services are remembered, the newest of them; nothing that comes in raises; `close`
takes `CLOSING` at most, and no longer than a turn where nothing is wrong.

Source: RFC 6762 (multicast DNS) and RFC 6763 (service discovery), which `zeroconf` speaks. It refuses loops of pointers
and packets too large, and keeps 10 000 records at most. It does not look where a question comes from (RFC 6762 section
11): so that nobody beyond the link is told anything, nor a victim flooded in whose name he asks, ours answers to the
group alone.

Deliberately not here: whether mDNS is wanted, and whether who was found is one of us (the handshake).
"""

from __future__ import annotations

import asyncio
import re
from hashlib import sha256
from typing import Any, Final

from zeroconf import DNSQuestionType, Error, InterfaceChoice, IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from discovery.address import Address, check_peer

__all__ = ["CLOSING", "MOST_REMEMBERED", "Mdns"]

MOST_REMEMBERED: Final = 256
"""Services remembered: one living node is enough to find the others, and who comes when it is full pushes out the
oldest, so that a flood of forged ones does not keep out who comes after it."""
CLOSING: Final = 0.25
"""Seconds that closing may take."""

_TYPE = "_gossamesh._tcp.local."
_NAME = re.compile(r"[0-9a-f]{16}\._gossamesh\._tcp\.local\.", re.ASCII)
_ASKED_AGAIN = 16
"""Services of which only the name is known that are asked for their place in one go."""
_ANSWER = 1000
"""Milliseconds that those are waited for."""
_CLOSED = "the zeroconf that was passed is closed: close it after the node has left"
_ALONE, _ASKED = 15.0, 60.0
"""Seconds until the whole link is asked again, while nobody is remembered and otherwise: zeroconf asks four times in
14 s and never again, and two whose link was cut meanwhile would never hear of each other."""
_LASTING = 4500
"""Seconds for which what we say of our place holds. The usual two minutes are for addresses that are lent; ours is gone
with its name. And where thousands of services are announced, the caches of all give up first what ends first."""


class Mdns:
    """One node on its links: announces it, unless it has no `address`, and remembers who else is announced.

    `instance` is 16 hexadecimal digits, another one for each node. `bind` is where it listens: the interfaces of that
    address are spoken on, and places on loopback are taken from others only if it is one. With `lent`, an
    `AsyncZeroconf` of the program that lives in the running loop, nothing is changed or closed but what was added here.
    """

    def __init__(
        self, cluster: str, version: int, instance: str, address: Address | None, bind: Address,
        lent: AsyncZeroconf | None = None,
    ) -> None:  # fmt: skip
        self._own = f"{instance}.{_TYPE}"
        self._properties = {b"c": sha256(b"gossamesh cluster " + cluster.encode()).hexdigest()[:32].encode()}
        self._properties[b"v"] = str(version).encode()
        self._address, self._bind = address, bind
        self._lent = lent
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._asked_at = 0.0
        self._info: AsyncServiceInfo | None = None
        self._announcing: asyncio.Future[Any] | None = None
        self._places: dict[str, Address] = {}
        """Where the services are, the one that was heard of first in front."""
        self._placeless: dict[str, None] = {}
        """Those of which only the name came: the rest was lost, or is on its way."""
        self.found = asyncio.Event()
        """Set when somebody new was heard of; whoever waits for it clears it."""

    # -- living -------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Announce, and listen to others from here on. Raises OSError where this host or network has no multicast."""
        try:
            if self._lent is not None and self._lent.zeroconf.loop is not asyncio.get_running_loop():
                raise OSError("the zeroconf that was passed lives in another event loop than this node")
            self._zeroconf = self._lent or AsyncZeroconf(zc=self._zeroconf_of_ours())
            zeroconf = self._zeroconf.zeroconf
            if zeroconf.done:
                raise OSError(_CLOSED)
            await zeroconf.async_wait_for_start()
            self._browse(zeroconf)
            if self._address is not None:
                self._info = self._announcement(self._address)
                # no probing for the name: it is 64 random bits, and probing takes most of a second
                announced = await self._zeroconf.async_register_service(self._info, cooperating_responders=True)
                self._announcing = asyncio.ensure_future(announced)
        except (OSError, RuntimeError, Error) as error:
            await self.close()
            raise OSError(str(error) or type(error).__name__) from error
        except BaseException:
            await self.close()
            raise

    def _zeroconf_of_ours(self) -> Zeroconf:
        version = IPVersion.V6Only if ":" in self._bind.host else IPVersion.V4Only
        if self._bind.is_name or self._bind.is_unspecified:
            return _ToTheGroupAlone(interfaces=InterfaceChoice.All, ip_version=version)
        return _ToTheGroupAlone(interfaces=[self._bind.host], ip_version=version)

    def _browse(self, zeroconf: Zeroconf) -> None:
        # asks the group, and to be answered so: what is sent to one alone, ours does not send
        self._browser = AsyncServiceBrowser(zeroconf, _TYPE, handlers=[self._changed], question_type=DNSQuestionType.QM)
        self._asked_at = asyncio.get_running_loop().time()

    def _announcement(self, address: Address) -> AsyncServiceInfo:
        host = self._own.removesuffix(_TYPE) + "local."  # not the name of this host, which is nobody's business
        return AsyncServiceInfo(
            _TYPE, self._own, address.port, server=host, parsed_addresses=[address.host.partition("%")[0]],
            properties=self._properties, host_ttl=_LASTING,
        )  # fmt: skip

    async def close(self) -> None:
        """Say goodbye, and close what is ours. Does nothing the second time."""
        zeroconf, self._zeroconf = self._zeroconf, None
        if zeroconf is None:
            return
        ours = zeroconf is not self._lent
        try:
            async with asyncio.timeout(CLOSING):
                await self._say_goodbye(zeroconf)
                if ours:
                    await zeroconf.async_close()
                    ours = False
        except (TimeoutError, OSError, RuntimeError, Error):
            pass  # nobody relies on a goodbye
        finally:
            if ours:
                zeroconf.zeroconf.close()

    async def _say_goodbye(self, zeroconf: AsyncZeroconf) -> None:
        if self._announcing is not None:
            self._announcing.cancel()
        if self._browser is not None and not self._browser.done:
            await self._browser.async_cancel()
        if self._info is not None and not zeroconf.zeroconf.done:
            goodbye = asyncio.ensure_future(await zeroconf.async_unregister_service(self._info))
            await asyncio.sleep(0)  # it says it three times in 250 ms, the first time in this turn: that has to do
            goodbye.cancel()

    def descriptors(self) -> list[int]:
        """The file descriptors that are ours, for a forked child to close."""
        if self._zeroconf is None or self._zeroconf is self._lent:
            return []
        return [each.sock.fileno() for each in self._zeroconf.zeroconf.engine.readers if each.sock.fileno() >= 0]

    # -- who is there -------------------------------------------------------------------------------------------------

    @property
    def candidates(self) -> list[Address]:
        """Where those are that were heard of, the newest last."""
        return list(self._places.values())

    async def look_again(self) -> None:
        """Ask again: now and then for everybody, each time for what is missing of some, and on the interfaces that
        there are now. Takes seconds at most. Raises OSError where there is no multicast any more."""
        if self._zeroconf is None:
            return
        try:
            await self._look_again(self._zeroconf.zeroconf)
        except (OSError, RuntimeError, Error) as error:
            raise OSError(str(error) or type(error).__name__) from error

    async def _look_again(self, zeroconf: Zeroconf) -> None:
        if zeroconf.done:
            raise OSError(_CLOSED)
        if self._zeroconf is not self._lent:
            await zeroconf.async_update_interfaces()
        if asyncio.get_running_loop().time() - self._asked_at >= (_ASKED if self._places else _ALONE):
            if self._browser is not None:
                await self._browser.async_cancel()
            self._browse(zeroconf)
        names = list(self._placeless)[:_ASKED_AGAIN]
        for name in names:  # to the end of the line
            self._placeless.pop(name, None)
            self._placeless[name] = None
        infos = [AsyncServiceInfo(_TYPE, name) for name in names]
        await asyncio.gather(*(info.async_request(zeroconf, _ANSWER, DNSQuestionType.QM) for info in infos))
        for name in names:
            if name in self._placeless:
                self._look_at(zeroconf, name)

    def _changed(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        """Called by the browser, whose names are whatever somebody sent."""
        if name == self._own or not _NAME.fullmatch(name):
            return
        if state_change is ServiceStateChange.Removed:
            self._places.pop(name, None)
            self._placeless.pop(name, None)
        else:
            self._look_at(zeroconf, name)

    def _look_at(self, zeroconf: Zeroconf, name: str) -> None:
        info = AsyncServiceInfo(_TYPE, name)
        if not info.load_from_cache(zeroconf):
            _remember(self._placeless, name, None)
            return
        self._placeless.pop(name, None)
        if any(info.properties.get(key) != value for key, value in self._properties.items()):
            self._places.pop(name, None)
            return
        place = self._place_of(info)
        if place is not None and self._places.get(name) != place:
            _remember(self._places, name, place)
            self.found.set()

    def _place_of(self, info: AsyncServiceInfo) -> Address | None:
        """The first of its addresses at which somebody else could be."""
        for host in info.parsed_scoped_addresses():
            try:
                place = check_peer(Address(host, info.port or 0))
            except ValueError:
                continue
            if place != self._address and (self._bind.is_loopback or not place.is_loopback):
                return place
        return None


class _ToTheGroupAlone(Zeroconf):
    """Answers, but nobody in particular. Whoever asks on the link hears the answer all the same."""

    def async_send(self, out: Any, addr: str | None = None, *arguments: Any, **more: Any) -> None:
        if addr is None:
            super().async_send(out, addr, *arguments, **more)


def _remember(those: dict[str, Any], name: str, what: Any) -> None:
    """The newest at the end; the oldest goes if there are too many."""
    those.pop(name, None)
    while len(those) >= MOST_REMEMBERED:
        del those[next(iter(those))]
    those[name] = what
