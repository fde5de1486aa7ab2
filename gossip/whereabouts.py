"""Where does a node listen, and what does it say of that?

On its host it has a place, where the others of this host find it; beyond, if it is told to `bind`, one address of the
network, which may change while it runs.

Invariant: what is said comes first is the place, and then the network, so that a neighbour takes the shorter way.
Not here: how an address is found out (`reach`), who else is on this host (`neighbours`), the sockets (`transport`).
"""

from __future__ import annotations

import logging

from discovery import Address, Place, parse_address
from gossip.config import Config
from gossip.neighbours import Neighbours
from gossip.reach import announced, moved, reachable
from gossip.transport import Transport

log = logging.getLogger("gossip")


class Whereabouts:
    """The places of one node, on its host and beyond."""

    def __init__(self, config: Config, transport: Transport, instance: int) -> None:
        self._config, self._transport = config, transport
        self.neighbours = Neighbours(config.cluster, config.runtime_dir, instance)
        self.bound: Address | None = None
        """Where it listens on the network, if it does."""
        self.announced: Address | None = None
        """What it may say of that to whoever is on its links."""

    @property
    def place(self) -> Place:
        """Where the other nodes of this host find this one."""
        return self.neighbours.place

    async def listen(self) -> tuple[str, ...]:
        """Opens what the configuration asks for; gives the addresses to be said. Raises `StartError`."""
        config = self._config
        await self._transport.listen_unix(str(self.place.socket_path))
        if not config.bind:
            return (str(self.place.address),)
        bound = self.bound = await self._transport.listen_network(parse_address(config.bind, allow_port_zero=True))
        said = config.advertise or str(reachable(bound))
        self.announced = announced(parse_address(said), bound)
        if config.insecure and not config.key and not bound.is_loopback:
            log.warning("listening at %s without a key: whoever reaches it can read and write everything", bound)
        return str(self.place.address), said

    async def restore(self, name: str) -> bool:
        """Makes the files of this node anew if somebody removed them: nobody new of this host could find it. Says
        whether it did."""
        if self.place.listed:
            return False
        log.warning(
            "somebody removed the files of node %r in %s: they are made anew. Keep cleaners of temporary files away "
            "from there", name, self.place.socket_path.parent,
        )  # fmt: skip
        self.neighbours.claim_anew()
        await self._transport.listen_unix(str(self.place.socket_path))
        return True

    def moved(self, name: str, said: tuple[str, ...]) -> tuple[str, ...] | None:
        """What to say from now on, if this host is elsewhere: another lease, another network. What was open led from
        the old address, and begins anew. None if it did not move, or has to say what it was told."""
        if self.bound is None or self._config.advertise:
            return None
        place, before = said
        now = moved(parse_address(before), self.bound)
        if now is None:
            return None
        log.warning("node %r is not at %s any more: it tells others that it is at %s", name, before, now)
        self.announced = announced(now, self.bound)
        self._transport.moved()
        return place, str(now)
