"""How do packets get to a peer and back?

Nodes of one host speak over unix streams; across hosts probes go as datagrams and all else over TCP. A node dials whom
it wants to speak to and listens to whoever dials it, so each pair has one stream a direction and nobody has to decide
which of two to keep. Best effort: a packet that can not be sent is dropped and counted, and repaired by the protocol.

With a key, all of it is sealed: a stream for itself, by a key that both ends agree on when it begins, and so are the
datagrams of who began it. As long as they have not agreed, what would be a datagram goes by the stream. Both ends prove
which instance they are: a stream to a member leads to that one or ends, and what comes is handed on with its sender.

Invariants: every buffer is bounded, as is the number of connections; a stream that ends is told once (`lost`). A stream
is a stranger's until its first good packet: strangers have a quarter of the connections, a few seconds, and the oldest
of them gives way. What is not good ends it, unanswered.

Not here: what packets mean, and what is said on a stream in which order (`streams`).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Container, Coroutine

from crdt import Malformed
from discovery import Address
from gossip.datagrams import NAME, Repeated
from gossip.errors import StartError
from gossip.handshake import Opening
from gossip.protocol.identity import Identity
from gossip.seal import Seal
from gossip.streams import Inbound, Link, Once, connect
from gossip.udp import Datagrams

_SILENCE = 5.0
"""Seconds that a stranger's stream may take until its first good packet."""
_PATIENCE = 5.0
_LINGER = 5.0
"""Seconds in which what waits for a peer that is gone may still leave."""
_REST = 5.0
"""Seconds after which a stream to a neighbour was of no use: of who pings one a second, ten are in use for that."""
_PORT_TRIES = 16
_MOST_DIALS = 512
"""Streams being opened at a time, for a single packet or to a peer: twice as many as there may be seeds."""
_MOST_STRANGE = 16 << 20
"""Bytes of first packets that all strangers together may have under way: with 4 MiB each, they had half a gigabyte."""
_ROOM = 64 << 10
"""Bytes that are read from a stream in one turn of the loop at most: small writes of 5 ms, until their readers are
woken. With 256 KiB, as asyncio has it, it were 20."""
_LAST_TURNS = 4
"""Turns of the loop until all is closed: what was accepted in the last one is made in the next, told of in the second,
and closed in the third."""


class Transport:
    """The sockets of one node.

    `received` is called with every packet, whether it came by a stream, with a key from which instance, and how many
    seconds ago the kernel got it (None where it does not say), and says whether it was one of our cluster;
    `lost` with the peer whose stream ended or could not be opened; `lags` with one that takes less than is sent to it,
    or all of it again; `met` with one of this host to whom a stream was opened, and its descriptor; `strange` when
    something came that was not sealed with a key of ours. They are called from the loop, and must not raise.
    """

    def __init__(
        self,
        received: Callable[[bytes, bool, int | None, float | None], bool],
        lost: Callable[[int], None],
        send_buffer: int,
        max_connections: int,
        silence: float = _SILENCE,
        lags: Callable[[int, bool], None] = lambda peer, behind: None,
        met: Callable[[int, int], None] = lambda peer, stream: None,
        seal: Seal | None = None,
        strange: Callable[[], None] = lambda: None,
        identity: Identity | None = None,
        patience: float = _PATIENCE,
    ) -> None:
        self.patience = patience
        """Seconds to open a stream, and as many until the other side has answered."""
        self.seal = seal
        self.identity = identity
        """Who this node is, to those to whom streams are opened from here on. With a seal there is one."""
        self._strange = strange
        self._received = received
        self._lost = lost
        self._lags = lags
        self._met = met
        self._send_buffer = send_buffer
        self._max_connections = max_connections
        self._silence = silence
        self._closed = False
        self._links: dict[int, Link] = {}
        self._leaving: set[Link] = set()
        self._inbound: set[Inbound] = set()
        self._strangers: dict[Inbound, None] = {}
        """Those of them of which no good packet has come, the oldest first."""
        self.room = memoryview(bytearray(_ROOM))
        """Where what comes by any stream is read into."""
        self.strange_bytes = 0
        """What they have sent of their first packets."""
        self._receipts: dict[bytes, Opening] = {}
        """What opens the datagrams of who began each of them: as many as there are streams."""
        self._servers: list[asyncio.Server] = []
        self._neighbourhood: set[str] = set()
        """The directories in which we listen: only a socket there can be of a node of this host. What else a member
        says of itself may be any program's."""
        self._datagrams: Datagrams | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.counters: Counter[str] = Counter()
        """What was dropped and why."""

    # -- listening ------------------------------------------------------------------------------------------------

    async def listen_unix(self, path: str) -> None:
        """Takes streams at this path. Raises `StartError`."""
        loop = asyncio.get_running_loop()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(path)
            os.chmod(path, 0o600)
            self._neighbourhood.add(os.path.dirname(path))
            # serving begins in a step of its own: cancelled in the middle, asyncio would keep a server that nobody has
            server = await loop.create_unix_server(
                self._accept, sock=listener, backlog=self._max_connections, start_serving=False
            )
        except OSError as error:
            listener.close()
            raise _start_error(f"can not listen at {path}", error) from error
        self._servers.append(server)
        await server.start_serving()

    async def listen_network(self, bind: Address) -> Address:
        """Takes streams and datagrams at this address; gives it with the port it got. Raises `StartError`."""
        loop = asyncio.get_running_loop()
        for last_try in (*[False] * (_PORT_TRIES - 1), True):
            try:
                # asyncio has a listener at [::] take IPv6 alone, though datagrams come there of both
                where: dict[str, object] = {"host": bind.host, "port": bind.port, "reuse_address": True}
                if bind.host == "::":
                    where = {"sock": _of_both_families(bind.port)}
                server = await loop.create_server(
                    self._accept, backlog=self._max_connections, start_serving=False, **where
                )  # type: ignore[call-overload]
                self._servers.append(server)
                host, port, *_ = server.sockets[0].getsockname()
            except OSError as error:
                raise _start_error(f"can not listen at {bind}", error) from error
            try:
                self._datagrams = Datagrams(host, port, self._datagram, self.counters)
            except OSError as error:
                server.close()
                self._servers.remove(server)
                if bind.port or last_try:
                    raise _start_error(f"can not take datagrams at {bind}", error) from error
                continue  # port 0 gave a port that is free for streams only
            await server.start_serving()
            return Address(bind.host, port)
        raise AssertionError("the last try returns or raises")

    def _accept(self) -> asyncio.BaseProtocol:
        return Inbound(self)

    # -- sending --------------------------------------------------------------------------------------------------

    def send(self, peer: int, addresses: tuple[str, ...], packet: bytes, datagram: bool, both: bool = False) -> None:
        """Sends a packet to a peer at the best of its addresses; as a datagram, if that is wanted and it can be, and if
        `both` by a stream as well."""
        link = self._links.get(peer)
        if link is not None and link.address not in addresses:  # it has moved
            self._begin_anew([peer])
            link = None
        if link is None and len(self._links) >= self._max_connections:
            self.counters["links_refused"] += 1
            return
        if link is None or link.ending:
            local = next((a for a in addresses if self._is_near(a)), None)
            remote = next((a for a in addresses if not a.startswith("unix:")), None)
            if local is None and remote is None:
                self.counters["unreachable"] += 1
                self._call_lost(peer)
                return
            if link is not None:
                link.caught_up()  # before it is told of the new one that it lags, if it does
            link = Link(self, peer, local, remote)
            self._links[peer] = link
        if datagram and self._post(link, packet) and not both:
            return
        link.send(packet)

    def _post(self, link: Link, packet: bytes) -> bool:
        """Sends a packet as a datagram, if there is a way for one."""
        if self._datagrams is None or link.endpoint is None or not link.posts:
            return False
        return self._datagrams.send(link.posted(packet), *link.endpoint)

    def catch_up(self) -> None:
        """Takes the datagrams that have come, before somebody is judged."""
        if self._datagrams is not None:
            self._datagrams.catch_up()

    def stream_to(self, peer: int) -> int | None:
        """The descriptor of the stream to a neighbour, if one is open."""
        link = self._links.get(peer)
        return None if link is None else link.descriptor

    def rest(self, kept: Container[int]) -> None:
        """Closes the streams to neighbours that were of no use for a while, but for these."""
        before = time.monotonic() - _REST
        for peer, link in list(self._links.items()):
            if peer not in kept and link.descriptor is not None and not link.unsent and link.used < before:
                self.forget(peer)

    def backlog(self, peer: int) -> dict[str, int | bool]:
        """For a status: how many bytes wait for a peer, and whether it lags."""
        link = self._links.get(peer)
        return {"unsent": 0 if link is None else link.unsent, "lagging": link is not None and link.lagging}

    def _is_near(self, address: str) -> bool:
        path = address.removeprefix("unix:")
        return path != address and os.path.dirname(path) in self._neighbourhood and os.path.exists(path)

    def by_datagram(self, peer: int) -> bool | None:
        """Whether probes of this peer go as datagrams; None if not, or if it is not known."""
        link = self._links.get(peer)
        return True if link is not None and link.endpoint and self._datagrams else None

    def dial(self, address: str, packet: bytes) -> None:
        """Sends a packet to whoever listens at an address; the stream is closed after it. What may be anybody's socket
        on this host is left alone: an address may be one that a dead member said of itself."""
        if address.startswith("unix:") and not self._is_near(address):
            self.counters["unreachable"] += 1
            return
        if len(self._tasks) >= _MOST_DIALS:
            self.counters["dials_refused"] += 1
            return
        self._spawn(self._dial(address, packet, Once(self)))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _dial(self, address: str, packet: bytes, once: Once) -> None:
        transport: asyncio.Transport | None = None
        try:
            async with asyncio.timeout(self.patience):
                transport, _ = await connect(address, lambda: once)
                if await once.begun:
                    once.say(packet)
                    await once.ended
        except (OSError, TimeoutError, ValueError):
            self.counters["dial_failed"] += 1
        finally:
            if transport is not None:
                transport.abort()

    # -- ending ---------------------------------------------------------------------------------------------------

    def forget(self, peer: int) -> None:
        """Closes the stream to a peer that is gone; what waits for it still leaves."""
        link = self._links.pop(peer, None)
        if link is not None:
            self._leaving.add(link)
            link.close()
            asyncio.get_running_loop().call_later(_LINGER, link.abort)

    def moved(self) -> None:
        """Our address has changed: what was opened from the old one hears nothing any more, and gives way to new."""
        self._begin_anew([peer for peer, link in self._links.items() if not link.is_local])

    def rekeyed(self) -> None:
        """The keys have changed: streams that were begun with another key than the one that seals now give way to new
        ones, and those that somebody began with a key that is no more are closed."""
        self._begin_anew([peer for peer, link in self._links.items() if link.outdated])
        for inbound in [each for each in self._inbound if each.outdated]:
            inbound.close()

    def reborn(self, identity: Identity) -> None:
        """This node is another instance from here on, and says so to everybody by new streams. What waits leaves by the
        old ones, in the name of who it was."""
        self.identity = identity
        if self.seal is not None:
            self._begin_anew(list(self._links))

    def _begin_anew(self, peers: list[int]) -> None:
        for peer in peers:
            self._links[peer].caught_up()
            self.forget(peer)

    async def drain(self) -> None:
        """Waits until all that was to be sent is with the kernel."""
        for link in list(self._links.values()):
            await link.drained()

    async def close(self) -> None:
        """Closes everything, at once, whatever still waits; nothing is told from here on."""
        self._closed = True
        for server in self._servers:
            stop_accepting(server)
        for task in list(self._tasks):
            task.cancel()
        for link in [*self._links.values(), *self._leaving]:
            link.abort()
        self._links.clear()
        self._leaving.clear()
        for inbound in list(self._inbound):
            inbound.close()
        if self._datagrams is not None:
            self._datagrams.close()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for _ in range(_LAST_TURNS):
                await asyncio.sleep(0)
        finally:
            for server in self._servers:
                server.close()

    def descriptors(self) -> list[int]:
        """The file descriptors held, for a forked child to close."""
        streams: list[Link | Inbound] = [*self._links.values(), *self._leaving, *self._inbound]
        transports = [stream.transport for stream in streams]
        sockets = [transport.get_extra_info("socket") for transport in transports if transport is not None]
        sockets += [each for server in self._servers for each in server.sockets]
        numbers = [each.fileno() for each in sockets if each is not None]
        if self._datagrams is not None:
            numbers.append(self._datagrams.fileno())
        return [number for number in numbers if number >= 0]

    # -- told by streams ------------------------------------------------------------------------------------------

    def _make_room(self) -> bool:
        """Whether another stream may come. Who has no key must not keep out those who have one."""
        full = len(self._inbound) >= self._max_connections
        if full and len(self._inbound) - len(self._strangers) >= self._max_connections:
            return False
        if full or len(self._strangers) >= max(1, self._max_connections // 4):
            self.counters["strangers_closed"] += 1
            next(iter(self._strangers)).close()
        return True

    def _count_strange(self, stranger: Inbound, size: int) -> None:
        """A stranger sent so much; the oldest give way if all of them together have sent too much."""
        stranger._strange += size
        self.strange_bytes += size
        while self.strange_bytes > _MOST_STRANGE and len(self._strangers) > 1:
            self.counters["strangers_closed"] += 1
            next(iter(self._strangers)).close()

    def _count_unsealed(self) -> None:
        self.counters["unsealed"] += 1
        self._strange()

    def _datagram(self, packet: bytes, ago: float | None) -> None:
        peer = None
        if self.seal is not None:
            opening = self._receipts.get(packet[:NAME])
            try:
                if opening is None:
                    raise Malformed("a datagram of no stream that is open")
                packet, peer = opening.receipt.open(packet), opening.peer
            except Repeated:
                self.counters["repeated"] += 1
                return
            except Malformed:
                self.counters["unsealed"] += 1  # and not a word: who has another key is told of by his streams
                return
            if peer is None:
                self.counters["early"] += 1  # it has overtaken what says whose it is
                return
        self._received(packet, False, peer, ago)

    def _call_lost(self, peer: int) -> None:
        asyncio.get_running_loop().call_soon(self._tell_lost, peer)

    def _tell_lost(self, peer: int) -> None:
        if not self._closed:
            self._lost(peer)

    def _call_lags(self, peer: int, behind: bool) -> None:
        asyncio.get_running_loop().call_soon(self._tell_lags, peer, behind)

    def _tell_lags(self, peer: int, behind: bool) -> None:
        if not self._closed:
            self._lags(peer, behind)


def _of_both_families(port: int) -> socket.socket:
    """A listener at every address. Raises `OSError`."""
    both = socket.has_dualstack_ipv6()
    return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=both)


def stop_accepting(server: asyncio.Server) -> None:
    """Has a server accept nobody more, some turns of the loop before it is closed.

    What it had accepted in the very turn in which it was closed, asyncio would neither tell of nor close
    (https://github.com/python/cpython/issues/109564). uvloop does, and has no readers to remove.
    """
    for listener in server.sockets:
        server.get_loop().remove_reader(listener.fileno())


def _start_error(what: str, error: OSError) -> StartError:
    """Why a socket could not be had. uvloop tells it in a cause only."""
    cause = error if error.errno or not isinstance(error.__cause__, OSError) else error.__cause__
    remedy = ""
    if cause.errno == errno.EADDRINUSE:
        remedy = (
            ": another process has this port, perhaps a worker of the same program. Let one node of each host bind "
            "it (`gossip run`, for example), and the workers none; or give port 0"
        )
    elif cause.errno == errno.EADDRNOTAVAIL:
        remedy = (
            ": this host has no such address (ip addr). bind='0.0.0.0:PORT' takes all that it has; the address that "
            "others use, where a router or a container's host passes it on, belongs in advertise"
        )
    elif cause.errno == errno.EACCES:
        remedy = ": ports below 1024 are for privileged programs on most systems; give another, such as 7946"
    elif isinstance(cause, socket.gaierror):
        remedy = ": give an address of this host, or 0.0.0.0 for all that it has"
    return StartError(cause.errno, f"{what}: {cause.strerror or cause}{remedy}")
