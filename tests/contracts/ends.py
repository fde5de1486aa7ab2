"""What does a test of the transport hold? One end of each kind, a stranger's raw socket, somebody who listens in, and a
look at what is open."""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import socket
import struct
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Self

import uvloop

from discovery import Address
from gossip.identity import KeyPair
from gossip.keyring import Keyring
from gossip.seal import Seal
from gossip.transport import Transport
from tests.waiting import until

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
KINDS = ("unix", "tcp")


class End:
    """A transport that listens, with all that it was told."""

    def __init__(
        self, send_buffer: int = 16 << 20, max_connections: int = 16, silence: float = 5.0, keys: Sequence[bytes] = ()
    ) -> None:
        self.received: list[bytes] = []
        self.lost: list[int] = []
        self.lags: list[tuple[int, bool]] = []
        self.foreign: set[bytes] = set()
        """What this end says of which packets, if they come: that they are not of its cluster."""
        self.keyring = Keyring(keys)
        self.strange = 0
        """How often it was told that something came that no key of its own opens."""
        self.senders: list[int | None] = []
        """From which instance each packet came, as far as that was proved."""
        seal = Seal(self.keyring, "shop", secrets.token_bytes(16)) if keys else None
        self.identity = KeyPair("shop", secrets.token_bytes(32)) if keys else None
        self.transport = Transport(
            self._receive, self.lost.append, send_buffer, max_connections, silence, seal=seal, strange=self._wonder,
            identity=self.identity, lags=lambda peer, behind: self.lags.append((peer, behind)),
        )  # fmt: skip
        self.address = ""

    def _receive(self, packet: bytes, stream: bool, peer: int | None, ago: float | None) -> bool:
        self.received.append(packet)
        self.senders.append(peer)
        return packet not in self.foreign

    def _wonder(self) -> None:
        self.strange += 1

    @property
    def counters(self) -> dict[str, int]:
        return dict(self.transport.counters)

    @property
    def me(self) -> int:
        """Which instance it is; 1 without a key, for then nobody asks."""
        return 1 if self.identity is None else self.identity.instance

    def send(self, to: str | End | Tap, packet: bytes, peer: int = 0, datagram: bool = False) -> None:
        """Sends to an end, or to whoever listens at an address."""
        address = to if isinstance(to, str) else to.address
        self.transport.send(peer or (1 if isinstance(to, str) else to.me), (address,), packet, datagram)


class Tap:
    """Somebody on the way to an end: hears all, and may change what the caller says."""

    def __init__(self, change: Callable[[bytes], bytes], me: int) -> None:
        self.said: list[bytearray] = []
        """What each caller said."""
        self.answers: list[bytearray] = []
        self.change = change
        self.me = me
        """The instance of the end to which it leads."""
        self.address = ""
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, world: World, target: str) -> Self:
        listener, self.address = world.listener()
        over = asyncio.start_unix_server if world.kind == "unix" else asyncio.start_server
        self._server = await over(lambda reader, writer: self._relay(reader, writer, target), sock=listener)
        return self

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        host, _, port = target.rpartition(":")
        there, back = await (
            asyncio.open_unix_connection(port) if host == "unix" else asyncio.open_connection(host, int(port))
        )
        self._writers += (writer, back)
        said, answers = bytearray(), bytearray()
        self.said.append(said)
        self.answers.append(answers)
        await asyncio.gather(self._copy(reader, back, said, self.change), self._copy(there, writer, answers, bytes))

    async def _copy(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        kept: bytearray,
        change: Callable[[bytes], bytes],
    ) -> None:
        with suppress(ConnectionError, asyncio.CancelledError):
            while data := await source.read(1 << 16):
                kept += data
                sink.write(change(data))
                await sink.drain()
        sink.close()

    async def over(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class World:
    """One kind of wire, in one kind of loop. `end` makes an end that is closed when the story is over."""

    def __init__(self, kind: str, directory: str) -> None:
        self.kind = kind
        self._directory = directory
        self.ends: list[End] = []
        """Those that are closed when the story is over."""
        self._sockets: list[socket.socket] = []
        self._taps: list[Tap] = []

    async def end(self, **bounds: Any) -> End:
        end = End(**bounds)
        self.ends.append(end)
        if self.kind == "unix":
            path = self.path()
            await end.transport.listen_unix(path)
            end.address = f"unix:{path}"
        else:
            end.address = str(await end.transport.listen_network(Address("127.0.0.1", 0)))
        return end

    async def tap(self, end: End, change: Callable[[bytes], bytes] = bytes) -> Tap:
        """Somebody on the way to an end; its `address` is where to call."""
        self._taps.append(await Tap(change, end.me).start(self, end.address))
        return self._taps[-1]

    def path(self) -> str:
        return f"{self._directory}/{secrets.token_hex(4)}.sock"

    def listener(self) -> tuple[socket.socket, str]:
        """A raw socket that listens, and its address: a peer that does with streams what it likes."""
        if self.kind == "unix":
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path := self.path())
            address = f"unix:{path}"
        else:
            listener = socket.socket()
            listener.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{listener.getsockname()[1]}"
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)  # a full reader is full soon
        listener.listen()
        listener.setblocking(False)
        self._sockets.append(listener)
        return listener, address

    async def accept(self, listener: socket.socket) -> socket.socket:
        accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
        self._sockets.append(accepted)
        return accepted

    async def stranger(self, end: End) -> socket.socket:
        """A raw stream to an end."""
        raw = socket.socket(socket.AF_UNIX if self.kind == "unix" else socket.AF_INET)
        raw.setblocking(False)
        self._sockets.append(raw)
        host, _, port = end.address.rpartition(":")
        await asyncio.get_running_loop().sock_connect(raw, port if self.kind == "unix" else (host, int(port)))
        return raw

    async def over(self) -> None:
        for end in self.ends:
            await end.transport.close()
        for tap in self._taps:
            await tap.over()
        for each in self._sockets:
            each.close()


def reset(stream: socket.socket) -> None:
    """Closes a stream so that the other side sees a reset, where the kind of stream has such a thing."""
    if stream.family == socket.AF_INET:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


async def closed(stream: socket.socket) -> bool:
    """Waits until the other side has closed the stream; what it said before is passed over."""
    loop = asyncio.get_running_loop()
    with suppress(ConnectionError):
        while await asyncio.wait_for(loop.sock_recv(stream, 1 << 16), 10):
            pass
    return True


def descriptors() -> set[str]:
    """Which sockets and files are open in this process, as the kernel calls them; a loop's own do not count."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return {each for each in found if each.startswith(("socket:", "/")) and not each.startswith(("/proc/", "/dev/"))}


Story = Callable[[World], Awaitable[None]]
Play = Callable[[Story], None]


def frame(packet: bytes) -> bytes:
    """A packet as it goes by a stream."""
    return len(packet).to_bytes(4, "big") + packet


def play(kind: str, loop: str, story: Callable[[World], Awaitable[None]]) -> None:
    """Plays a story, and demands that nothing is left of it: no task, no open file, no exception that nobody saw."""
    unseen: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: unseen.append(context))
        before = descriptors()
        with tempfile.TemporaryDirectory(prefix="gm-") as directory:
            world = World(kind, directory)
            try:
                await story(world)
            finally:
                await world.over()
        await until(
            lambda: descriptors() == before,
            "every descriptor is closed",
            timeout=2.0,
        )
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())
    gc.collect()  # a task's exception is told when nobody can ask for it any more
    assert unseen == []
