"""What happens on a stream: who has to say what first, and when is it over?

    frame     4 bytes of length, then the packet

Without a key that is all. With one a stream begins with a handshake (`handshake`), and its frames are sealed for it
alone. What is to be sent meanwhile waits in the link, within the same bound as what a slow peer has not taken yet.

Invariants: nothing is allocated on the word of a length before its bytes are there, and with a key a stranger has no
choice of length at all; nothing is answered but a hello of this cluster; no packet of a stream is handed over before
its caller has proved that it is not a recording. A stream that ends is told once.
Not here: which streams there are, and how many may be (`transport`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import socket
import time
from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, TypeVar, cast

from crdt import Malformed
from discovery import parse_peer
from gossip.handshake import FIRST, FRESH, GREETING, TAG, Call, Opening, Sealing, answered
from gossip.protocol.codec import MAX_MESSAGE
from gossip.seal import Seal

if TYPE_CHECKING:
    from gossip.transport import Transport

_HEAD = Struct(">I")
_LENGTH = _HEAD.size
MAX_FRAME = MAX_MESSAGE + TAG
_TRUST = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
"""When a stream that says nothing is asked whether it is there (seconds), and how long what was sent may wait for a
sign (milliseconds): left to itself, the kernel sends again for 15 minutes, and never looks at what only listens."""
_P = TypeVar("_P", bound=asyncio.Protocol)


class Inbound(asyncio.BufferedProtocol):
    """A stream that somebody opened to us: frames come in, and nothing goes out but the answer to a hello.

    What comes is read into one room that all streams of a transport share, since the loop hands it over at once. For a
    plain protocol asyncio allocates 256 KiB at each read. Where the allocator asks the kernel for as much each time (a
    young process, or musl) a packet of 100 bytes takes 19 us of that, and not 3; and a turn may be given all that much.
    """

    def __init__(self, owner: Transport) -> None:
        self._owner = owner
        self._begun = bytearray()
        """The beginning of a frame of which the rest has not come."""
        self._silence: asyncio.TimerHandle | None = None
        self._strange = 0
        """Bytes that it sent as a stranger."""
        self._opening: Opening | None = None
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
        stream = transport.get_extra_info("socket")
        if stream is not None and stream.family != socket.AF_UNIX:
            _mistrust(stream)
        self._owner._inbound.add(self)
        self._owner._strangers[self] = None
        self._silence = asyncio.get_running_loop().call_later(self._owner._silence, self.close)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the loop puts what comes."""
        return self._owner.room

    def buffer_updated(self, nbytes: int) -> None:
        """So much has come."""
        came = self._owner.room[:nbytes]
        if self in self._owner._strangers:
            self._owner._count_strange(self, nbytes)
        if not self._begun:
            try:
                self._begun += came[self._take_all(came) :]
            except BaseException:  # a signal handler raised: what is in the room is there only now
                self._begun += came
                raise
            return
        self._begun += came
        with memoryview(self._begun) as begun:
            taken = self._take_all(begun)
        del self._begun[:taken]

    def _take_all(self, came: memoryview) -> int:
        """Takes the frames that are whole; gives where they end."""
        start, size = 0, len(came)
        while size - start >= _LENGTH:
            (length,) = _HEAD.unpack_from(came, start)
            if (length > MAX_FRAME or self._owner.seal is not None) and not self._may_be_long(length):
                self.close()
                return size
            end = start + _LENGTH + length
            if size < end:
                break
            frame = bytes(came[start + _LENGTH : end])
            start = end
            if not self._take(frame):
                self._owner.counters["foreign_streams"] += 1
                self.close()
                return size
        return start

    def _may_be_long(self, length: int) -> bool:
        """Whether a frame of this length may come now."""
        if self._owner.seal is None or (self._opening is not None and self._opening.proved):
            if length > MAX_FRAME:
                self._owner.counters["oversized_frames"] += 1
                return False
        elif length != (GREETING if self._opening is None else FIRST):
            self._owner._count_unsealed()
            return False
        return True

    def _take(self, frame: bytes) -> bool:
        """Takes a frame; says whether it was one of this cluster, and of this stream."""
        owner = self._owner
        packet = frame
        if owner.seal is not None:
            try:
                if self._opening is None:
                    self._answer(owner.seal, frame)
                    return True  # and still a stranger: it may be a recording
                if not self._opening.proved:
                    self._opening.prove(frame)
                    self._known()
                    return True
                packet = self._opening.open(frame)
            except Malformed:
                owner._count_unsealed()
                return False
        if not owner._received(packet, True, None if self._opening is None else self._opening.peer, None):
            return False
        if self._silence is not None:
            self._known()
        return True

    def _answer(self, seal: Seal, hello: bytes) -> None:
        assert self._owner.identity is not None
        answer, self._opening = answered(seal, self._owner.identity, hello, secrets.token_bytes(FRESH))
        # before the proof, so that a datagram that overtakes it is told from one that was never sealed
        self._owner._receipts[self._opening.receipt.name] = self._opening
        assert self.transport is not None
        self.transport.write(_framed(answer))

    @property
    def outdated(self) -> bool:
        """Whether it was begun with a key that the cluster has no more."""
        seal = self._owner.seal
        return seal is not None and self._opening is not None and self._opening.key not in seal.keyring

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
        if self._opening is not None:
            self._owner._receipts.pop(self._opening.receipt.name, None)

    def close(self) -> None:
        self.connection_lost(None)  # it comes a turn later, and until then this would count as a friend
        if self.transport is not None:
            self.transport.abort()


class _Call(asyncio.Protocol):
    """A stream that we opened: frames go out, and nothing comes in but the answer to our hello."""

    def __init__(self, owner: Transport) -> None:
        self._owner = owner
        self._identity = owner.identity
        """In whose name it is opened: what is to be said by it is said by that one, whoever this node is by then."""
        self._call: Call | None = None
        """While its hello is not answered: it holds the secret of this stream, which nobody may come to later."""
        self._key = b""
        """With which of the cluster's keys it was begun."""
        self._answer = bytearray()
        self._sealing: Sealing | None = None
        self._patience: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._owner.seal is None:
            self.opened()
            return
        self._call = Call(self._owner.seal, secrets.token_bytes(FRESH))
        self._key = self._call.key
        self._patience = asyncio.get_running_loop().call_later(self._owner.patience, self.transport.abort)
        self.transport.write(_framed(self._call.hello))

    def data_received(self, data: bytes) -> None:
        call, missing = self._call, _LENGTH + GREETING - len(self._answer)
        if call is None:
            return  # nobody was asked, or more than was asked for: passed over
        self._answer += data[:missing]
        if len(data) < missing:
            return
        assert self.transport is not None
        self._wait_no_more()
        self._call = None
        try:
            self._sealing = call.accept(bytes(self._answer[_LENGTH:]))
        except Malformed:
            self._owner.counters["unproved"] += 1
            self.transport.abort()
            return
        if self.wanted not in (None, self._sealing.peer):
            self._owner.counters["replaced"] += 1
            self.transport.abort()
            return
        assert self._identity is not None
        self.transport.write(_framed(self._sealing.proof(self._identity)))
        self.opened()

    def connection_lost(self, error: Exception | None) -> None:
        self._wait_no_more()

    def opened(self) -> None:
        """From here on packets can be written."""

    @property
    def wanted(self) -> int | None:
        """Which instance is to be spoken to; None for whoever listens there."""
        return None

    @property
    def outdated(self) -> bool:
        """Whether it was begun with another key than the one that seals now."""
        return self._owner.seal is not None and self._key not in (b"", self._owner.seal.keyring.first)

    def _write(self, packet: bytes) -> None:
        assert self.transport is not None
        self.transport.write(_framed(packet if self._sealing is None else self._sealing.seal(packet)))

    def _wait_no_more(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


class Link(_Call):
    """The stream that we opened to a peer."""

    def __init__(self, owner: Transport, peer: int, local: str | None, remote: str | None) -> None:
        super().__init__(owner)
        self._peer = peer
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._flowing = asyncio.Event()
        self._opened = False
        self._closed = False
        self._aborted = False
        self.lagging = False
        """Whether something was dropped, and what waits has not all left since."""
        self.is_local = local is not None
        self.address = local or remote or ""
        self.used = time.monotonic()
        """When something was sent last."""
        self.endpoint = None if local else _endpoint(remote)
        owner._spawn(self._open(self.address))

    @property
    def wanted(self) -> int:
        """That peer: what listens at its address by now may be somebody else."""
        return self._peer

    @property
    def ending(self) -> bool:
        """Whether what is sent from here on would be lost."""
        return self.transport is not None and self.transport.is_closing()

    @property
    def descriptor(self) -> int | None:
        """That of an open stream to a neighbour: not before it has proved who it is, for until then its process may be
        that of somebody else."""
        stream = self.transport.get_extra_info("socket") if self.is_local and self._opened and self.transport else None
        return None if stream is None else int(stream.fileno())  # uvloop has none if the other side closed at once

    async def _open(self, address: str) -> None:
        try:
            async with asyncio.timeout(self._owner.patience):
                await connect(address, lambda: self)
        except asyncio.CancelledError:
            if self.transport is None and not self._owner._closed:
                # `asyncio.run` ends, and cancels all there is: the goodbye of a node may still wait for this stream
                self._owner._spawn(self._open(address))
            raise
        except (OSError, TimeoutError, ValueError):
            self._owner.counters["connect_failed"] += 1
            self._end()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._aborted:
            self.transport = cast(asyncio.Transport, transport)
            self.transport.abort()
            return
        # so that `resume_writing` means: all is with the kernel
        cast(asyncio.Transport, transport).set_write_buffer_limits(high=0)
        super().connection_made(transport)

    def opened(self) -> None:
        """What waited leaves."""
        assert self.transport is not None
        self._opened = True
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        for packet in waiting:
            if self.transport.is_closing():
                break  # the peer ended just now, and asyncio would log a warning for each of the rest
            self._write(packet)
        if not self.unsent:
            self.resume_writing()
        if self.descriptor is not None and not self._owner._closed:
            self._owner._met(self._peer, self.descriptor)
        if self._closed:
            self.transport.close()

    @property
    def posts(self) -> bool:
        """Whether datagrams can be sent to where this stream leads."""
        return self.endpoint is not None and (self._opened or self._owner.seal is None)

    def posted(self, packet: bytes) -> bytes:
        """A packet as a datagram."""
        return packet if self._sealing is None else self._sealing.posting.seal(packet)

    @property
    def unsent(self) -> int:
        """Bytes that wait for the peer."""
        return self.transport.get_write_buffer_size() if self._opened and self.transport else self._waiting_bytes

    def send(self, packet: bytes) -> None:
        self.used = time.monotonic()
        if self.unsent + len(packet) > self._owner._send_buffer:
            self._owner.counters["dropped"] += 1  # the peer is slow: it will see the gap and pull
            if not self.lagging:
                self.lagging = True
                self._owner._call_lags(self._peer, True)
            return
        if self._opened:
            self._write(packet)
        else:
            self._waiting.append(packet)
            self._waiting_bytes += _LENGTH + len(packet)

    def pause_writing(self) -> None:
        self._flowing.clear()

    def resume_writing(self) -> None:
        if self._opened:  # before, it was but our hello that has left
            self._flowing.set()
            self.caught_up()

    def caught_up(self) -> None:
        """Nothing waits for the peer any more."""
        if self.lagging:
            self.lagging = False
            self._owner._call_lags(self._peer, False)

    async def drained(self) -> None:
        while not self._flowing.is_set():  # set and cleared again in one step, if what waited for the stream filled it
            await self._flowing.wait()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._end()

    def _end(self) -> None:
        """The stream is over, or never came to be: tell it once, unless we closed it ourselves."""
        self._flowing.set()
        self._owner._leaving.discard(self)
        if self._owner._links.get(self._peer) is self:
            del self._owner._links[self._peer]
        if not self._closed:
            self._closed = True
            self.caught_up()  # what waited is lost, and the next stream begins with nothing
            self._owner._call_lost(self._peer)

    def close(self) -> None:
        """Ends the stream after what waits for it, and tells nobody."""
        self._closed = True
        if self._opened and self.transport is not None:
            self.transport.close()
        elif not self._waiting:
            self.abort()

    def abort(self) -> None:
        """Ends the stream now, or as soon as it is open."""
        self._closed = self._aborted = True
        self._flowing.set()
        if self.transport is not None:
            self.transport.abort()


class Once(_Call):
    """A stream for a single packet. `begun` is done when it can be said, or never will; `ended` when the other side has
    taken it and closed."""

    def __init__(self, owner: Transport) -> None:
        super().__init__(owner)
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[bool] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()

    def opened(self) -> None:
        """Whoever waits for this may say his packet."""
        if not self.begun.done():
            self.begun.set_result(True)

    def say(self, packet: bytes) -> None:
        """Says the packet, and that there will be no other."""
        assert self.transport is not None
        self._write(packet)
        self.transport.write_eof()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if not self.begun.done():
            self.begun.set_result(False)
        if not self.ended.done():
            self.ended.set_result(None)


async def connect(address: str, factory: Callable[[], _P]) -> tuple[asyncio.Transport, _P]:
    """Opens a stream to an address. Raises `OSError`, or `ValueError` for what is none."""
    loop = asyncio.get_running_loop()
    peer = parse_peer(address)
    if peer.is_unix:
        return await loop.create_unix_connection(factory, peer.path)
    transport, protocol = await loop.create_connection(factory, peer.host, peer.port)
    opened = transport.get_extra_info("socket")
    if opened is not None:  # uvloop has none any more if the other side closed at once
        with contextlib.suppress(OSError):
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _mistrust(opened)
    return transport, protocol


def _mistrust(stream: socket.socket) -> None:
    """Has the kernel end a stream over TCP whose other end has moved, or was cut off, without a word."""
    with contextlib.suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _TRUST.items():
            if hasattr(socket, option):
                stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _endpoint(address: str | None) -> tuple[str, int] | None:
    """Where datagrams for this address go. None, so that the stream is used, if that can not be told at once: a name
    would be looked up in the middle of the loop."""
    try:
        peer = parse_peer(address or "")
        ipaddress.ip_address(peer.host)
    except ValueError:
        return None
    return peer.host, peer.port


def _framed(packet: bytes) -> bytes:
    return len(packet).to_bytes(_LENGTH, "big") + packet
