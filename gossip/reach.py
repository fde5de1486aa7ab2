"""At which addresses is a node of this host reached?

Invariant: nothing is sent to find out: the routing table and the interfaces are asked.
Not here: what is listened at (`transport`), and what members say of their addresses (the protocol).
"""

from __future__ import annotations

import fcntl
import socket
import struct
from contextlib import suppress
from typing import Final

from discovery import Address

_SIOCGIFADDR: Final = 0x8915


def reachable(bound: Address) -> Address:
    """Where others reach us, if we listen on every interface: the address from which we would reach the world."""
    if not bound.is_unspecified:
        return bound
    family = _family(bound)
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # connecting a datagram socket sends nothing: it only asks the routing table
            probe.connect(("2001:db8::1" if family == socket.AF_INET6 else "192.0.2.1", 9))
            return Address(probe.getsockname()[0], bound.port)
        except OSError:
            return Address(
                _of_an_interface(family) or ("::1" if family == socket.AF_INET6 else "127.0.0.1"), bound.port
            )


def _of_an_interface(family: socket.AddressFamily) -> str | None:
    """The first address that is none of the loopback's: where no route leads to the world, a switch may lead to others.

    Of IPv4 alone, since that is what the system call knows, and on Linux alone: None elsewhere.
    """
    if family != socket.AF_INET:
        return None
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            with suppress(OSError):
                answer = fcntl.ioctl(asked, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                host = socket.inet_ntoa(answer[20:24])
                if not host.startswith("127."):
                    return host
    return None


def announced(told: Address, bound: Address) -> Address | None:
    """What a node that tells everybody the first announces on its links: an address that can be used as it stands."""
    for each in (told, reachable(bound)):
        if not each.is_name and (bound.is_loopback or not each.is_loopback):
            return each
    return None


def moved(said: Address, bound: Address) -> Address | None:
    """Where others reach us now, if we listen on every interface and this host has lost the address at which we said we
    are; None while it has it, or has no other: between two networks a laptop has none.

    Another way to the world alone is no reason to move: who reached us so far may not reach us there.
    """
    if not bound.is_unspecified or (is_of_this_host(said) and not said.is_loopback):
        return None
    now = reachable(bound)
    return None if now.is_loopback or now == said else now


def is_of_this_host(address: Address) -> bool:
    """Whether an interface of this host has it: nothing else can be bound to."""
    try:
        with socket.socket(_family(address), socket.SOCK_DGRAM) as probe:
            probe.bind((address.host, 0))
    except OSError:
        return False
    return True


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address.host else socket.AF_INET
