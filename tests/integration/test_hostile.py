"""Does a node live on, unchanged, whatever comes to its sockets?

What is said is captured from real nodes, cut, bent and played again over real sockets: UDP, TCP and the unix socket.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from typing import Any

import pytest

import gossip
from gossip.streams import Inbound
from tests.integration.processes import free_port
from tests.waiting import nodes, until

KEY = secrets.token_bytes(32)
sealed_and_open = pytest.mark.parametrize("key", [b"", KEY], ids=["open", "sealed"])


class Target:
    """A node that listens everywhere, with what it was sent by a peer that it no longer has."""

    def __init__(self, node: gossip.Node, port: int) -> None:
        self.node = node
        self.port = port
        self.datagrams: list[bytes] = []
        self.streams: dict[Inbound, bytearray] = {}
        """All that came by each stream."""

    @property
    def packets(self) -> list[bytes]:
        """All datagrams and frames, as they came."""
        return [*self.datagrams, *(frame for stream in self.streams.values() for frame in frames(bytes(stream)))]

    @property
    def refused(self) -> int:
        counters = self.node.status()["counters"]
        return int(counters.get("unsealed", 0) + counters.get("malformed", 0))

    def capture(self, patch: pytest.MonkeyPatch) -> None:
        """Keeps what comes in from here on, as it came."""
        transport = self.node._runtime.transport  # type: ignore[union-attr]
        take, hear = transport._datagram, Inbound.buffer_updated

        def datagram(data: bytes, ago: float | None) -> None:
            self.datagrams.append(data)
            take(data, ago)

        def buffer_updated(inbound: Inbound, nbytes: int) -> None:
            if inbound._owner is transport:
                self.streams.setdefault(inbound, bytearray()).extend(transport.room[:nbytes])
            hear(inbound, nbytes)

        transport._datagrams._take = datagram
        patch.setattr(Inbound, "buffer_updated", buffer_updated)

    @contextmanager
    def sender(self, wire: str) -> Iterator[Callable[[bytes], None]]:
        """Something that sends packets to the node over UDP, TCP or its unix socket."""
        if wire == "udp":
            with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as datagrams:
                datagrams.connect(("127.0.0.1", self.port))
                yield lambda packet: datagrams.send(packet) and None
            return
        family, where = (socket.AF_INET, ("127.0.0.1", self.port)) if wire == "tcp" else (socket.AF_UNIX, self.unix)

        yield lambda packet: self._say(family, where, len(packet).to_bytes(4, "big") + packet)

    def _say(self, family: int, where: Any, said: bytes) -> None:
        with closing(socket.socket(family)) as stream:  # one each: what is not good ends its stream
            stream.connect(where)
            stream.sendall(said)

    def replay(self, stream: bytes) -> None:
        """Says again all that was said on a stream, on a new one of each kind."""
        self._say(socket.AF_INET, ("127.0.0.1", self.port), stream)
        self._say(socket.AF_UNIX, self.unix, stream)

    @property
    def unix(self) -> str:
        return str(self.node._runtime.whereabouts.place.socket_path)  # type: ignore[union-attr]

    async def send(self, wire: str, packets: list[bytes]) -> None:
        """Sends them all, and waits until the node has seen them."""
        with self.sender(wire) as send:
            for number, packet in enumerate(packets):
                send(packet)
                if number % 20 == 0:  # a socket's buffer is small, and what overflows it says nothing
                    await asyncio.sleep(0.001)  # waits: the kernel does not tell when a datagram was taken
            await asyncio.sleep(0.01)  # waits: likewise


def frames(stream: bytes) -> Iterator[bytes]:
    """The frames of a stream, without their lengths."""
    while len(stream) > 4:
        length = int.from_bytes(stream[:4], "big")
        yield stream[4 : 4 + length]
        stream = stream[4 + length :]


@asynccontextmanager
async def target(cluster: str, key: bytes, port: int = 0) -> Any:
    port = port or free_port()
    async with gossip.Node(cluster, name="target", bind=f"127.0.0.1:{port}", key=key, probe_interval=0.1) as node:
        yield Target(node, port)


async def captured(cluster: str, key: bytes, it: Target, short: str) -> list[bytes]:
    """Real packets of a peer over TCP and UDP that wrote, pinged, and left: all kinds that there are."""
    with pytest.MonkeyPatch.context() as patch:
        it.capture(patch)
        return await _captured(cluster, key, it, short)


async def _captured(cluster: str, key: bytes, it: Target, short: str) -> list[bytes]:
    peer = gossip.Node(
        cluster,
        name="peer",
        bind="127.0.0.1:0",
        seeds=[f"127.0.0.1:{it.port}"],
        key=key,
        probe_interval=0.05,
        runtime_dir=short,
    )
    async with peer:
        peer.map("m", int)["from the peer"] = 1
        await until(lambda: "from the peer" in it.node.map("m") and len(it.packets) > 12)
        del peer.map("m")["from the peer"]
        await until(lambda: not it.node.map("m"))
    await until(lambda: len(it.node.members) == 1)
    return it.packets


@pytest.fixture
def short() -> Iterator[str]:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="gm-") as path:
        yield path


def bent(packets: list[bytes], chance: random.Random) -> list[bytes]:
    """Every truncation of some packets, and a sample of single flipped bits of all."""
    cut = [packet[:length] for packet in packets[:6] for length in range(0, len(packet), 1 + len(packet) // 60)]
    flipped = []
    for _ in range(600):
        packet = bytearray(chance.choice([each for each in packets if each]))
        packet[chance.randrange(len(packet))] ^= 1 << chance.randrange(8)
        flipped.append(bytes(packet))
    return cut + flipped


@sealed_and_open
@pytest.mark.parametrize("wire", ["udp", "tcp", "unix"])
def test_random_bytes_cost_a_counter_each(cluster: str, wire: str, key: bytes) -> None:
    async def story() -> None:
        chance = random.Random(7)
        async with target(cluster, key) as it, nodes(cluster + "-witness", 1):
            it.node.map("m", int)["k"] = 1
            packets = [b"", b"\0", b"g", b"gm", b"gm\1", chance.randbytes(65_507)]
            packets += [chance.randbytes(chance.randrange(1, 1200)) for _ in range(300)]
            with it.sender(wire) as send:
                for number, packet in enumerate(packets, 1):
                    send(packet)
                    await until(lambda number=number: it.refused == number)
            assert it.node.map("m", int) == {"k": 1} and len(it.node.members.all) == 1
            assert it.node.status()["writes_delivered"] == 1

    asyncio.run(story())


@sealed_and_open
@pytest.mark.parametrize("wire", ["udp", "tcp", "unix"])
def test_real_packets_cut_and_bent_change_nothing(cluster: str, wire: str, key: bytes, short: str) -> None:
    async def story() -> None:
        async with target(cluster, key) as it:
            packets = await captured(cluster, key, it, short)
            it.node.map("own", int)["k"] = 1
            before = it.node.status()
            changed = bent(packets, random.Random(7))
            await it.send(wire, changed)
            await until(lambda: it.refused - refused_of(before) >= 300)
            if key:
                await until(lambda: it.refused - refused_of(before) == len(changed))
                after = it.node.status()
                assert after["members"] == before["members"] and after["writes_delivered"] == before["writes_delivered"]
            # without a key a flipped bit may make another honest message: what it says is believed, and then outlived
            await until(lambda: len(it.node.members) == 1)
            assert it.node.map("own", int) == {"k": 1}
            it.node.map("own", int)["still"] = 1
            async with gossip.Node(cluster, seeds=[f"127.0.0.1:{it.port}"], bind="127.0.0.1:0", key=key) as friend:
                assert friend.map("own", int) == {"k": 1, "still": 1}

    asyncio.run(story())


def refused_of(status: dict[str, Any]) -> int:
    return int(status["counters"].get("unsealed", 0) + status["counters"].get("malformed", 0))


def test_packets_played_again_after_the_sender_left_change_nothing(cluster: str, short: str) -> None:
    key = b""

    async def story() -> None:
        async with target(cluster, key) as it:
            packets = await captured(cluster, key, it, short)
            before = it.node.status()
            for wire in ("udp", "tcp", "unix"):
                await it.send(wire, [packet for packet in packets if len(packet) < 60_000])
            await until(lambda: it.node.status()["counters"].get("from_the_dead", 0) >= len(packets))
            after = it.node.status()
            assert after["members"] == before["members"], "who left stays gone"
            assert after["writes_delivered"] == before["writes_delivered"] and it.node.map("m") == {}
            assert [member.name for member in it.node.members] == ["target"]

    asyncio.run(story())


@pytest.mark.parametrize("restarted", [False, True])
def test_with_a_key_nothing_that_was_recorded_is_believed_again(cluster: str, restarted: bool, short: str) -> None:
    """S1. It does not reach the engine at all, whether or not the node remembers who said it."""

    async def story() -> None:
        port = free_port()
        async with AsyncExitStack() as stack:
            it = await stack.enter_async_context(target(cluster, KEY, port))
            await captured(cluster, KEY, it, short)
            recorded = list(map(bytes, it.streams.values()))
            assert recorded
            if restarted:
                await stack.aclose()
                it = await stack.enter_async_context(target(cluster, KEY, port))
            before = it.node.status()
            for stream in recorded:
                it.replay(stream)
            await until(lambda: it.refused - refused_of(before) == 2 * len(recorded))
            after = it.node.status()
            assert "from_the_dead" not in after["counters"] and after["members"] == before["members"]
            assert after["writes_delivered"] == before["writes_delivered"] and it.node.map("m") == {}

    asyncio.run(story())


def test_packets_played_again_after_a_restart_are_outlived(cluster: str, short: str) -> None:
    """Without a key. The restarted node does not know that their sender left. It believes them, looks, and finds nobody
    there."""
    key = b""

    async def story() -> None:
        port = free_port()
        async with target(cluster, key, port) as it:
            packets = await captured(cluster, key, it, short)
        async with target(cluster, key, port) as it:
            it.node.map("own", int)["k"] = 1
            await it.send("udp", packets[:-2])  # all but the goodbye
            await until(lambda: "peer" in [member.name for member in it.node.members.all])
            await until(lambda: [member.name for member in it.node.members] == ["target"], timeout=20)
            assert it.node.map("own", int) == {"k": 1} and it.refused == 0
            await it.send("udp", packets[:-2])
            assert [member.name for member in it.node.members] == ["target"], "and once found dead, it stays so"

    asyncio.run(story())


def test_claims_with_addresses_that_are_none_harm_nobody(cluster: str) -> None:
    """A member (or anybody, where there is no key) tells of others at addresses that no socket takes."""
    from gossip.protocol.codec import Codec
    from gossip.protocol.members import Claim
    from gossip.protocol.messages import Gossip

    async def story() -> None:
        async with target(cluster, b"") as it:
            addresses = [
                "nonsense",
                "127.0.0.1:99999",
                "0.0.0.0:1",
                "255.255.255.255:7946",
                "10.0.0.1:0",
                "10.0.0.1:65536",
                "224.0.0.251:5353",
                "unix:/no/such",
                "[::1]:0",
                "x" * 290,
            ]
            claims = tuple(
                Claim(number, f"phantom {number}", (address,), 1) for number, address in enumerate(addresses, 100)
            )
            with it.sender("udp") as send:
                send(Codec(cluster).encode(99, Gossip(claims)))
                await until(lambda: len(it.node.members.all) == 1 + len(addresses))
                await until(lambda: len(it.node.members) == 1, "each is found dead", timeout=20)
            assert it.node.map("m") == {}
            async with gossip.Node(
                cluster, seeds=[f"127.0.0.1:{it.port}"], bind="127.0.0.1:0", runtime_dir=""
            ) as friend:
                await until(lambda: len(friend.members) == 2)
                assert it.node._runtime.transport._datagrams is not None  # type: ignore[union-attr]
                it.node.map("m")["k"] = 1
                await until(lambda: "k" in friend.map("m"))

    asyncio.run(story())


def test_a_flood_of_streams_does_not_keep_friends_out(cluster: str) -> None:
    async def story() -> None:
        port = free_port()
        async with gossip.Node(cluster, bind=f"127.0.0.1:{port}", max_connections=20) as node:
            flood = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
            await until(lambda: node.status()["counters"].get("strangers_closed", 0) >= 30)
            async with gossip.Node(cluster) as friend:
                await until(lambda: len(node.members) == len(friend.members) == 2)
            for _, writer in flood:
                writer.close()

    asyncio.run(story())


def test_strangers_have_one_room_for_all_their_first_packets(cluster: str) -> None:
    """Each might send a whole message before it was judged: 128 of them had half a gigabyte."""

    async def story() -> None:
        port = free_port()
        async with gossip.Node(cluster, bind=f"127.0.0.1:{port}") as node:
            transport = node._runtime.transport  # type: ignore[union-attr]
            flood = []
            for _ in range(40):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write((4 << 20).to_bytes(4, "big") + bytes(1 << 20))
                flood.append(writer)
            await until(lambda: transport.counters["strangers_closed"] > 20)
            assert sum(len(each._begun) for each in transport._inbound) <= 17 << 20
            for writer in flood:
                writer.close()
            await until(lambda: not transport._inbound)
            assert transport.strange_bytes == 0

    asyncio.run(story())


@pytest.mark.parametrize("how", ["unsealed", "with another key", "another cluster"])
def test_no_stranger_has_us_speak_to_a_victim(cluster: str, how: str) -> None:
    """S4: a packet that names somebody else's address as its sender's has nothing sent there, and nothing back."""
    from gossip.keyring import Keyring
    from gossip.protocol.codec import Codec
    from gossip.protocol.members import Claim
    from gossip.protocol.messages import Digest, Join, Ping
    from gossip.seal import Seal

    async def story() -> None:
        met: list[object] = []

        class Victim(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, address: object) -> None:
                met.append(data)

        port, loop = free_port(), asyncio.get_running_loop()
        server = await asyncio.start_server(lambda reader, writer: met.append(writer), "127.0.0.1", port)
        datagrams, _ = await loop.create_datagram_endpoint(Victim, local_addr=("127.0.0.1", port))
        claims, digest = (Claim(99, "victim", (f"127.0.0.1:{port}",), 1),), Digest(1, 1, ready=True, writes=7)
        packets = [
            Codec(cluster + "-other" if how == "another cluster" else cluster).encode(99, message)
            for message in (Join(claims, digest), Ping(1, digest, claims))
        ]
        if how != "unsealed":
            key = KEY if how == "another cluster" else secrets.token_bytes(32)
            theirs = cluster + "-other" if how == "another cluster" else cluster
            seal = Seal(Keyring([key]), theirs, secrets.token_bytes(16))
            packets = [seal.seal(packet, b"hello") for packet in packets]
        async with target(cluster, KEY) as it:
            for number, wire in enumerate(("udp", "tcp", "unix"), 1):
                await it.send(wire, packets)
                await until(lambda number=number: it.refused == 2 * number)
            async with gossip.Node(cluster, seeds=[f"127.0.0.1:{it.port}"], bind="127.0.0.1:0", key=KEY) as friend:
                await until(lambda: len(friend.members) == len(it.node.members) == 2, "a friend it does speak to")
            assert it.node.status()["counters"].get("dial_failed", 0) == 0
        assert met == []
        server.close()
        datagrams.close()

    asyncio.run(story())
