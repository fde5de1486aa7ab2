"""What does a node find that looks at itself, and knocks at the doors of the others?

For `gossip doctor`, which judges it. A *knock* opens a stream to an address, says one packet that means nothing, and
waits for a moment: a node of our cluster listens on, and never says a word on a stream that others opened; with a key
it answers the hello that every stream begins with, and nobody else can. One that has another key, or is of another
cluster, closes it; another program says something, or nothing.

Invariants: a knock changes nothing at whoever is there but a counter; no more than `_MOST` are made, all at once, and
each ends within `_PATIENCE` and `_STILL`; nothing that is told has the key in it.
Not here: what any of it means, and what to do about it (`gossip.cli.diagnosis`).
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from crdt import Malformed
from discovery import Address, parse_peer, read_seeds
from gossip.config import Config
from gossip.handshake import FRESH, GREETING, Call
from gossip.keyring import Keyring
from gossip.protocol.codec import Codec
from gossip.protocol.messages import Gossip
from gossip.seal import Seal

if TYPE_CHECKING:
    from gossip.node import Node

Answer: TypeAlias = Literal["open", "closed", "spoke", "refused", "silent", "unreachable", "unknown name", "no address"]
"""What came of a knock: it listens on; it hung up; it said something; nobody listens; nothing came back at all; there
is no way there; the name leads nowhere; this is no address."""

_LENGTH = 4
_PATIENCE = 2.0
"""Seconds to open a stream. A firewall that drops says nothing, however long one waits."""
_STILL = 0.7
"""Seconds in which whoever does not want us hangs up: a round trip, and the loop of a busy node."""
_MOST = 64
"""Addresses that are knocked at: the seeds, then members."""
_MOST_SAID = _LENGTH + GREETING
_SHOWN = 60
"""Bytes of what another program said."""
_NO_WAY = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.EACCES, errno.EPERM}


class Greeting(NamedTuple):
    """What to say at a door: a `packet`, or a `call` where there is a key; nothing if it is neither."""

    packet: bytes = b""
    call: Call | None = None

    @property
    def frame(self) -> bytes:
        """As it is said."""
        said = self.packet if self.call is None else self.call.hello
        return len(said).to_bytes(_LENGTH, "big") + said if said else b""

    def is_answered(self, said: bytes) -> bool:
        """Whether that is how a node of our cluster answers."""
        if self.call is None:
            return False
        try:
            self.call.accept(said[_LENGTH:])
        except Malformed:
            return False
        return True


class Knock(NamedTuple):
    """What came of a knock at an address; `said` is what another program answered, or why it could not be done."""

    address: str
    answer: Answer
    said: str = ""


async def knock(address: str, greeting: Greeting) -> Knock:
    """Knocks at an address. Never raises but when it is cancelled.

    >>> asyncio.run(knock("127.0.0.1:1", Greeting())).answer
    'refused'
    """
    writer: asyncio.StreamWriter | None = None
    try:
        peer = parse_peer(address)
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await _opened(peer)
    except ValueError as error:
        return Knock(address, "no address", str(error))
    except TimeoutError:
        return Knock(address, "silent")
    except socket.gaierror as error:
        return Knock(address, "unknown name", str(error.strerror))
    except OSError as error:
        refused: Answer = "unreachable" if error.errno in _NO_WAY else "refused"
        return Knock(address, refused, os.strerror(error.errno) if error.errno else str(error))
    try:
        writer.write(greeting.frame)
        async with asyncio.timeout(_STILL):
            said = await reader.read(_MOST_SAID)
    except TimeoutError:
        return Knock(address, "open")
    except OSError:
        said = b""
    finally:
        writer.transport.abort()
    if greeting.is_answered(said):
        return Knock(address, "open")
    return Knock(address, "spoke", repr(said[:_SHOWN])[2:-1]) if said else Knock(address, "closed")


async def _opened(peer: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if peer.is_unix:
        return await asyncio.open_unix_connection(peer.path)
    return await asyncio.open_connection(peer.host, peer.port)


def greeting(config: Config, keys: Keyring, instance: int) -> Greeting:
    """What every node of the cluster takes, and what tells it nothing."""
    if not keys:
        return Greeting(Codec(config.cluster).encode(instance, Gossip(())))
    seal = Seal(keys, config.cluster, secrets.token_bytes(16))
    return Greeting(call=Call(seal, secrets.token_bytes(FRESH)))


async def knocked(addresses: Sequence[str], said: Greeting) -> list[Knock]:
    """What came of a knock at each of these; they are made all at once."""
    return list(await asyncio.gather(*(knock(address, said) for address in addresses[:_MOST])))


async def resolved(addresses: Sequence[str]) -> dict[str, list[str]]:
    """Where each of these leads, as addresses that have no names in them. What leads nowhere is left out."""
    found: dict[str, list[str]] = {}
    loop = asyncio.get_running_loop()
    for address in addresses[:_MOST]:
        with suppress(ValueError, OSError, TimeoutError):
            peer = parse_peer(address)
            if not peer.is_unix:
                async with asyncio.timeout(_PATIENCE):
                    infos = await loop.getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)
                found[address] = sorted({str(Address(str(info[4][0]), peer.port)) for info in infos})
    return found


def is_local(address: str) -> bool:
    """Whether an address, without a name in it, is one of this machine.

    >>> is_local("127.0.0.1:7946"), is_local("192.0.2.1:7946")
    (True, False)
    """
    peer = parse_peer(address)
    family = socket.AF_INET6 if ":" in peer.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((peer.host, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True


def files() -> dict[str, int]:
    """How many descriptors this process has open, and how many it may have."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {"open": len(os.listdir("/dev/fd")), "limit": limit}


def room(directory: str) -> dict[str, int] | None:
    """Bytes that are free for us on the disk of a directory, and that it has; None if there is no such directory."""
    try:
        status = os.statvfs(directory)
    except OSError:
        return None
    return {"free": status.f_bavail * status.f_frsize, "size": status.f_blocks * status.f_frsize}


def seeds_of(config: Config) -> list[str]:
    """All addresses that a node is told to try. Raises `OSError` or `ValueError` for a file of seeds that is none."""
    listed = read_seeds(Path(config.seeds_file)) if config.seeds_file else []
    return list(dict.fromkeys([*config.seeds, *map(str, listed)]))


async def examined(node: Node) -> dict[str, Any]:
    """All that a running node finds, as JSON has it."""
    config, runtime = node.config, node._running()
    table, me = runtime.engine.members.table, runtime.engine.me
    seeds = list(config.seeds)
    own = [address for address in me.addresses if not address.startswith("unix:")]
    others = [claim for claim in table.values() if not claim.gone and claim.instance != me.instance]
    doors = [address for claim in others for address in claim.addresses if not address.startswith("unix:")]
    with suppress(OSError, ValueError):  # the search says so in the log, and `gossip doctor` of the settings
        seeds = seeds_of(config)
    addresses = list(dict.fromkeys([*own, *seeds, *doors]))
    said = greeting(config, runtime.keyring, me.instance)
    knocks, where = await asyncio.gather(knocked(addresses, said), resolved([*own, *seeds]))
    return {
        "bind": config.bind,
        "advertised": own[-1] if own else None,
        "here": [address for address, leads in where.items() if leads and all(map(is_local, leads))],
        "seeds": seeds,
        "sealed": bool(config.key),
        "insecure": config.insecure,
        "max_clock_skew": config.max_clock_skew,
        "max_connections": config.max_connections,
        "files": files(),
        "directory": str(runtime.whereabouts.place.socket_path.parent),
        "listed": runtime.whereabouts.place.listed,
        "room": await asyncio.to_thread(room, config.data_dir) if config.data_dir else None,
        "knocks": {each.address: each._asdict() for each in knocks},
        "resolved": where,
    }
