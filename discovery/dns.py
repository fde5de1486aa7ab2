"""Which addresses has a name just now?

A name with one address, or with the addresses of all nodes: a headless Service of Kubernetes, a round robin, or an
entry of /etc/hosts. It is asked of the system, as every other program asks for it (hosts file, search domains, A and
AAAA). SRV records the system's resolver does not give: those are asked for with dnspython.

Invariant: whoever asks has an answer or an error within `PATIENCE`; of one name at most one look-up is under way,
however often it is asked for, so a name server that is silent for long costs one thread a name. No answer has more
than `MOST_SEEDS` addresses, and each of them could be a peer's.

Source: RFC 2782 (SRV, whose weights say nothing here: all that are named are peers), RFC 6724 (the order of addresses).

Deliberately not here: when to ask (again), which of the addresses are our own, and remembering answers: names change.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final

from discovery.address import Address, check_peer
from discovery.seeds import MOST_SEEDS, Seed, Service

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver as Asking
    from dns.name import Name
    from dns.resolver import Answer

__all__ = ["PATIENCE", "Resolver"]

PATIENCE: Final = 5.0
"""Seconds until a look-up counts as failed. The system's may go on longer, and is taken up again by who asks next."""

_AT_A_TIME = 16
"""Look-ups of different names at a time; the others wait for their turn."""
_TARGET_PATIENCE = 2.0
"""Seconds for the address of one host that an SRV record names: one that is gone must not hide the others."""


class Resolver:
    """Looks up seeds, for one event loop.

    >>> [str(each) for each in asyncio.run(Resolver().addresses(Address("10.0.0.1", 7946)))]
    ['10.0.0.1:7946']
    >>> Address("127.0.0.1", 7946) in asyncio.run(Resolver().addresses(Address("localhost", 7946)))
    True
    """

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Future[list[str] | OSError]] = {}

    async def addresses(self, seed: Seed) -> list[Address]:
        """The addresses that a seed stands for just now; one that is no name stands for itself.

        Raises OSError, which says why there are none, always in the same words for the same reason.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                if isinstance(seed, Service):
                    return _peers(await _located(seed))
                if not seed.is_name:
                    return [seed]
                return _peers((host, seed.port) for host in await self._hosts(seed.host))
        except TimeoutError:
            raise TimeoutError(f"no answer about {seed} within {PATIENCE:g} s") from None

    async def _hosts(self, name: str) -> list[str]:
        while name not in self._under_way and len(self._under_way) >= _AT_A_TIME:
            await asyncio.wait(self._under_way.values(), return_when=asyncio.FIRST_COMPLETED)
        found = await asyncio.shield(self._under_way.get(name) or self._look_up(name))
        if isinstance(found, OSError):
            raise OSError(f"{name}: {found.strerror or found}")
        return found

    def _look_up(self, name: str) -> asyncio.Future[list[str] | OSError]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str] | OSError] = loop.create_future()
        self._under_way[name] = answer

        def settle(found: list[str] | OSError) -> None:
            del self._under_way[name]
            if not answer.done():
                answer.set_result(found)

        # Not `loop.getaddrinfo`: its threads are waited for when a loop, and again when the interpreter ends. With a
        # name server that is silent, a program that had left took 10 s to end, and the loop's other work in threads
        # had to wait as well.
        arguments = (name, loop, settle)
        threading.Thread(target=_ask_the_system, args=arguments, name=f"look up {name}", daemon=True).start()
        return answer


def _ask_the_system(name: str, loop: asyncio.AbstractEventLoop, settle: Callable[[list[str] | OSError], None]) -> None:
    found: list[str] | OSError
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        found = [str(endpoint[0]) for *_, endpoint in islice(answers, MOST_SEEDS)]
    except OSError as error:
        found = error
    except UnicodeError:
        found = OSError("this can not be looked up")
    with suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits for it
        loop.call_soon_threadsafe(settle, found)


def _peers(places: Iterable[tuple[str, int]]) -> list[Address]:
    """Of what a name server said, each address that somebody else could have, once."""
    distinct: dict[Address, None] = {}
    for host, port in places:
        with suppress(ValueError):  # 0.0.0.0, a group, port 0: nothing that could be dialled
            distinct[check_peer(Address(host, port))] = None
    return list(islice(distinct, MOST_SEEDS))


# -- SRV --------------------------------------------------------------------------------------------------------------


async def _located(service: Service) -> list[tuple[str, int]]:
    """The hosts and ports in a service's records. Raises OSError."""
    try:
        from dns import asyncresolver, exception, resolver
    except ImportError:
        raise OSError(f"{service} needs dnspython: pip install 'gossamesh[dns]'") from None
    try:
        asking = asyncresolver.Resolver()  # reads /etc/resolv.conf anew
        answer = await asking.resolve(service.name, "SRV", lifetime=PATIENCE, search=True)
        return await _targets(asking, answer)
    except resolver.NXDOMAIN:
        raise OSError(f"{service}: there is no such name") from None
    except resolver.NoAnswer:
        raise OSError(f"{service}: this name has no SRV records") from None
    except exception.Timeout:
        raise TimeoutError from None
    except exception.DNSException as error:  # its text has times and server addresses, which differ each time
        raise OSError(f"{service}: no name server gave an answer that can be used ({type(error).__name__})") from None


async def _targets(asking: Asking, answer: Answer) -> list[tuple[str, int]]:
    """Where the records point to. Most servers send the addresses along: what they left out is asked for."""
    from dns.exception import DNSException

    sent: dict[Name, list[str]] = {}
    for records in answer.response.additional:
        sent.setdefault(records.name, []).extend(str(each.address) for each in records if hasattr(each, "address"))
    room = asyncio.Semaphore(_AT_A_TIME)

    async def locate(target: Name) -> list[str]:
        if target in sent:
            return sent[target]
        async with room:
            with suppress(DNSException):
                return list((await asking.resolve_name(target, lifetime=_TARGET_PATIENCE)).addresses())
            return []

    first = islice(sorted(answer, key=lambda each: (each.priority, each.target, each.port)), MOST_SEEDS)
    places = [(each.target, each.port) for each in first if len(each.target) > 1]  # "." says: not offered here
    hosts = await asyncio.gather(*(locate(target) for target, _ in places))
    return [(host, port) for (_, port), found in zip(places, hosts, strict=True) for host in found]
