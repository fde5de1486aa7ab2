"""How do packets get to a peer and back?

Nodes of one host speak over unix streams; across hosts probes go as datagrams and all else over TCP. A node dials whom
it wants to speak to and listens to whoever dials it, so each pair has one stream a direction and nobody has to decide
which of two to keep. Best effort: a packet that can not be sent is dropped and counted, and repaired by the protocol.

A stream is a run of frames: 4 bytes of length, then the packet.

Invariants: nothing is allocated on the word of a length before its bytes are there; every buffer is bounded, as is the
number of connections; a stream that ends is told once (`lost`). A stream is a stranger's until its first good packet:
strangers have a quarter of the connections, a few seconds, and the oldest of them gives way. What is not good ends it.

Not here: what packets mean, and sealing (the runtime hands over sealed bytes).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import TypeVar, cast

from discovery import Address, parse_peer
from gossip.errors import StartError
from gossip.protocol.codec import MAX_MESSAGE
from gossip.seal import OVERHEAD

_LENGTH = 4
_MAX_FRAME = MAX_MESSAGE + OVERHEAD
_SILENCE = 5.0
"""Seconds that a stranger's stream may take until its first good packet."""
_CONNECT = 5.0
"""Seconds to open a stream."""
_LINGER = 5.0
"""Seconds in which what waits for a peer that is gone may still leave."""
_PORT_TRIES = 16
_MOST_DIALS = 512
"""Streams being opened at a time, for a single packet or to a peer: twice as many as there may be seeds."""
_MOST_STRANGE = 16 << 20
"""Bytes of first packets that all strangers together may have under way: with 4 MiB each, they had half a gigabyte."""
_LAST_TURNS = 4
"""Turns of the loop until all is closed: what was accepted in the last one is made in the next, told of in the second,
and closed in the third."""
_P = TypeVar("_P", bound=asyncio.Protocol)


class Transport:
    """The sockets of one node.

    `received` is called with every packet, and whether it came by a stream, and says whether it was one of our cluster;
    `lost` with the peer whose stream ended or could not be opened; `lags` with one that takes less than is sent to it,
    or all of it again; `met` with one of this host to whom a stream was opened, and its descriptor. They are called
    from the loop, and must not raise.
    """

    def __init__(
        self,
        received: Callable[[bytes, bool], bool],
        lost: Callable[[int], None],
        send_buffer: int,
        max_connections: int,
        silence: float = _SILENCE,
        lags: Callable[[int, bool], None] = lambda peer, behind: None,
        met: Callable[[int, int], None] = lambda peer, stream: None,
    ) -> None:
        self._received = received
        self._lost = lost
        self._lags = lags
        self._met = met
        self._send_buffer = send_buffer
        self._max_connections = max_connections
        self._silence = silence
        self._closed = False
        self._links: dict[int, _Link] = {}
        self._leaving: set[_Link] = set()
        self._inbound: set[_Inbound] = set()
        self._strangers: dict[_Inbound, None] = {}
        """Those of them of which no good packet has come, the oldest first."""
        self.strange_bytes = 0
        """What they have sent of their first packets."""
        self._servers: list[asyncio.Server] = []
        self._datagrams: asyncio.DatagramTransport | None = None
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
                server = await loop.create_server(
                    self._accept,
                    bind.host,
                    bind.port,
                    reuse_address=True,
                    backlog=self._max_connections,
                    start_serving=False,
                )
                self._servers.append(server)
                port = server.sockets[0].getsockname()[1]
            except OSError as error:
                raise _start_error(f"can not listen at {bind}", error) from error
            try:
                await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=(bind.host, port))
            except OSError as error:
                server.close()
                self._servers.remove(server)
                if bind.port or last_try:
                    raise _start_error(f"can not take datagrams at {bind}", error) from error
                continue  # port 0 gave a port that is free for streams only
            await server.start_serving()
            return Address(bind.host, port)
        raise AssertionError("the last try returns or raises")

    def _accept(self) -> asyncio.Protocol:
        return _Inbound(self)

    # -- sending --------------------------------------------------------------------------------------------------

    def send(self, peer: int, addresses: tuple[str, ...], packet: bytes, datagram: bool) -> None:
        """Sends a packet to a peer at the best of its addresses; as a datagram, if that is wanted and it can be."""
        link = self._links.get(peer)
        if link is None and len(self._links) >= self._max_connections:
            self.counters["links_refused"] += 1
            return
        if link is None or link.ending:
            local = next((a for a in addresses if a.startswith("unix:") and os.path.exists(a[5:])), None)
            remote = next((a for a in addresses if not a.startswith("unix:")), None)
            if local is None and remote is None:
                self.counters["unreachable"] += 1
                self._call_lost(peer)
                return
            link = _Link(self, peer, local, remote)
            self._links[peer] = link
        if datagram and link.endpoint and self._datagrams:
            self._datagrams.sendto(packet, link.endpoint)
            return
        link.send(packet)

    def backlog(self, peer: int) -> dict[str, int | bool]:
        """For a status: how many bytes wait for a peer, and whether it lags."""
        link = self._links.get(peer)
        return {"unsent": 0 if link is None else link.unsent, "lagging": link is not None and link.lagging}

    def by_datagram(self, peer: int) -> bool | None:
        """Whether probes of this peer go as datagrams; None if not, or if it is not known."""
        link = self._links.get(peer)
        return True if link is not None and link.endpoint and self._datagrams else None

    def dial(self, address: str, packet: bytes) -> None:
        """Sends a packet to whoever listens at an address; the stream is closed after it."""
        if len(self._tasks) >= _MOST_DIALS:
            self.counters["dials_refused"] += 1
            return
        self._spawn(self._dial(address, packet))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _dial(self, address: str, packet: bytes) -> None:
        transport: asyncio.Transport | None = None
        try:
            async with asyncio.timeout(_CONNECT):
                transport, once = await _connect(address, _Once)
                transport.write(_frame(packet))
                transport.write_eof()
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
            self._datagrams.abort()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for _ in range(_LAST_TURNS):
                await asyncio.sleep(0)
        finally:
            for server in self._servers:
                server.close()

    def descriptors(self) -> list[int]:
        """The file descriptors held, for a forked child to close."""
        streams: list[_Link | _Inbound] = [*self._links.values(), *self._leaving, *self._inbound]
        transports = [stream.transport for stream in streams]
        sockets = [transport.get_extra_info("socket") for transport in transports if transport is not None]
        sockets += [each for server in self._servers for each in server.sockets]
        if self._datagrams is not None:
            sockets.append(self._datagrams.get_extra_info("socket"))
        return [each.fileno() for each in sockets if each is not None and each.fileno() >= 0]

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

    def _count_strange(self, stranger: _Inbound, size: int) -> None:
        """A stranger sent so much; the oldest give way if all of them together have sent too much."""
        stranger._strange += size
        self.strange_bytes += size
        while self.strange_bytes > _MOST_STRANGE and len(self._strangers) > 1:
            self.counters["strangers_closed"] += 1
            next(iter(self._strangers)).close()

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


def stop_accepting(server: asyncio.Server) -> None:
    """Has a server accept nobody more, some turns of the loop before it is closed.

    What it had accepted in the very turn in which it was closed, asyncio would neither tell of nor close
    (https://github.com/python/cpython/issues/109564). uvloop does, and has no readers to remove.
    """
    for listener in server.sockets:
        server.get_loop().remove_reader(listener.fileno())


class _Inbound(asyncio.Protocol):
    """A stream that somebody opened to us: frames come in, nothing goes out."""

    def __init__(self, owner: Transport) -> None:
        self._owner = owner
        self._buffer = bytearray()
        self._silence: asyncio.TimerHandle | None = None
        self._strange = 0
        """Bytes that it sent as a stranger."""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._owner._closed:  # it was accepted in the very turn in which we closed
            self.transport.abort()
            return
        if not self._owner._make_room():
            self._owner.counters["refused_connections"] += 1
            self.transport.abort()
            return
        self._owner._inbound.add(self)
        self._owner._strangers[self] = None
        self._silence = asyncio.get_running_loop().call_later(self._owner._silence, self.close)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self in self._owner._strangers:
            self._owner._count_strange(self, len(data))
        start = 0
        while len(self._buffer) - start >= _LENGTH:
            length = int.from_bytes(self._buffer[start : start + _LENGTH], "big")
            if length > _MAX_FRAME:
                self._owner.counters["oversized_frames"] += 1
                self.close()
                return
            end = start + _LENGTH + length
            if len(self._buffer) < end:
                break
            packet = bytes(self._buffer[start + _LENGTH : end])
            start = end
            if not self._owner._received(packet, True):
                self._owner.counters["foreign_streams"] += 1
                self.close()
                return
            self._known()
        del self._buffer[:start]

    def _known(self) -> None:
        if self in self._owner._strangers:
            del self._owner._strangers[self]
            self._owner.strange_bytes -= self._strange
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def connection_lost(self, error: Exception | None) -> None:
        self._known()
        self._owner._inbound.discard(self)

    def close(self) -> None:
        self._known()  # `connection_lost` comes a turn later, and until then it would count as a friend
        self._owner._inbound.discard(self)
        if self.transport is not None:
            self.transport.abort()


class _Link(asyncio.Protocol):
    """The stream that we opened to a peer: frames go out, nothing comes in."""

    def __init__(self, owner: Transport, peer: int, local: str | None, remote: str | None) -> None:
        self._owner = owner
        self._peer = peer
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._flowing = asyncio.Event()
        self._closed = False
        self._aborted = False
        self.lagging = False
        """Whether something was dropped, and what waits has not all left since."""
        self._is_local = local is not None
        self.endpoint = None if local else _endpoint(remote)
        self.transport: asyncio.Transport | None = None
        owner._spawn(self._open(local or remote or ""))

    @property
    def ending(self) -> bool:
        """Whether what is sent from here on would be lost."""
        return self.transport is not None and self.transport.is_closing()

    async def _open(self, address: str) -> None:
        try:
            async with asyncio.timeout(_CONNECT):
                await _connect(address, lambda: self)
        except asyncio.CancelledError:
            if self.transport is None and not self._owner._closed:
                # `asyncio.run` ends, and cancels all there is: the goodbye of a node may still wait for this stream
                self._owner._spawn(self._open(address))
            raise
        except (OSError, TimeoutError, ValueError):
            self._owner.counters["connect_failed"] += 1
            self._end()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._aborted:
            self.transport.abort()
            return
        self.transport.set_write_buffer_limits(high=0)  # so that `resume_writing` means: all is with the kernel
        self._flowing.set()
        if self._is_local and not self._owner._closed:
            stream = self.transport.get_extra_info("socket")
            if stream is not None:  # uvloop has none any more if the other side closed at once
                self._owner._met(self._peer, stream.fileno())
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        for frame in waiting:
            self.transport.write(frame)
        if not self.unsent:
            self._caught_up()
        if self._closed:
            self.transport.close()

    @property
    def unsent(self) -> int:
        """Bytes that wait for the peer."""
        return self._waiting_bytes if self.transport is None else self.transport.get_write_buffer_size()

    def send(self, packet: bytes) -> None:
        if self.unsent + len(packet) > self._owner._send_buffer:
            self._owner.counters["dropped"] += 1  # the peer is slow: it will see the gap and pull
            if not self.lagging:
                self.lagging = True
                self._owner._call_lags(self._peer, True)
            return
        frame = _frame(packet)
        if self.transport is not None:
            self.transport.write(frame)
        else:
            self._waiting.append(frame)
            self._waiting_bytes += len(frame)

    def pause_writing(self) -> None:
        self._flowing.clear()

    def resume_writing(self) -> None:
        self._flowing.set()
        self._caught_up()

    def _caught_up(self) -> None:
        if self.lagging:
            self.lagging = False
            self._owner._call_lags(self._peer, False)

    async def drained(self) -> None:
        while not self._flowing.is_set():  # set and cleared again in one step, if what waited for the stream filled it
            await self._flowing.wait()

    def connection_lost(self, error: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        """The stream is over, or never came to be: tell it once, unless we closed it ourselves."""
        self._flowing.set()
        self._owner._leaving.discard(self)
        if self._owner._links.get(self._peer) is self:
            del self._owner._links[self._peer]
        if not self._closed:
            self._closed = True
            self._owner._call_lost(self._peer)

    def close(self) -> None:
        """Ends the stream after what waits for it, and tells nobody."""
        self._closed = True
        if self.transport is not None:
            self.transport.close()
        elif not self._waiting:
            self.abort()

    def abort(self) -> None:
        """Ends the stream now, or as soon as it is open."""
        self._closed = self._aborted = True
        self._flowing.set()
        if self.transport is not None:
            self.transport.abort()


class _Once(asyncio.Protocol):
    """A stream for a single packet; `ended` is done when the other side has taken it and closed."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, owner: Transport) -> None:
        self._owner = owner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # taken here and not where it was asked for: if that is cancelled, uvloop leaves it to nobody
        self._owner._datagrams = cast(asyncio.DatagramTransport, transport)
        if self._owner._closed:
            self._owner._datagrams.abort()

    def datagram_received(self, data: bytes, address: object) -> None:
        self._owner._received(data, False)

    def error_received(self, error: Exception) -> None:
        self._owner.counters["datagram_failed"] += 1


async def _connect(address: str, factory: Callable[[], _P]) -> tuple[asyncio.Transport, _P]:
    loop = asyncio.get_running_loop()
    peer = parse_peer(address)
    if peer.is_unix:
        return await loop.create_unix_connection(factory, peer.path)
    transport, protocol = await loop.create_connection(factory, peer.host, peer.port)
    opened = transport.get_extra_info("socket")
    if opened is not None:  # uvloop has none any more if the other side closed at once
        with contextlib.suppress(OSError):
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return transport, protocol


def _endpoint(address: str | None) -> tuple[str, int] | None:
    """Where datagrams for this address go. None, so that the stream is used, if that can not be told at once: a name
    would be looked up in the middle of the loop, and asyncio closes the socket over an address it can not use."""
    try:
        peer = parse_peer(address or "")
        ipaddress.ip_address(peer.host)
    except ValueError:
        return None
    return peer.host, peer.port


def _start_error(what: str, error: OSError) -> StartError:
    """Why a socket could not be had. uvloop tells it in a cause only."""
    cause = error if error.errno or not isinstance(error.__cause__, OSError) else error.__cause__
    remedy = ""
    if cause.errno == errno.EADDRINUSE:
        remedy = (
            ": another process has this port, perhaps a worker of the same program. Let one node of each host bind "
            "it (`gossip run`, for example), and the workers none; or give port 0"
        )
    return StartError(cause.errno, f"{what}: {cause.strerror or cause}{remedy}")


def _frame(packet: bytes) -> bytes:
    return len(packet).to_bytes(_LENGTH, "big") + packet
