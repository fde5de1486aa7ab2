"""How does a packet get from one address to another, if at all?

Bytes in, bytes out. Each link keeps order and has its own delay; *cuts* stop what crosses them, *troubles* lose, delay,
double, reorder, damage or throttle packets. Packets on their way when a cut begins still arrive. A packet goes by a
stream or as a datagram, as the runtime would send it; firewalls and bad weather may tell them apart.

A damaged packet arrives only if the node can tell that it is damaged: whatever still decodes would have been dropped by
the checksum of UDP or TCP, or by the seal, so it counts as lost.

Invariant: what happens is a function of the random generator and the order of calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from crdt import Malformed, Stage, decode_batch, decode_context
from gossip.protocol.codec import Codec
from gossip.protocol.messages import Pull, Push, StatePart

QUEUE = 5.0
"""Seconds that a slow link may be behind; beyond, packets are dropped, as by the bounded queues of the runtime."""
REMEMBERED = 200
"""Old packets that may be replayed."""


@dataclass(frozen=True)
class Cut:
    """Nothing gets from `side` to `other` (None: to anybody outside), nor back if `both`."""

    kind: str
    side: frozenset[str]
    other: frozenset[str] | None = None
    both: bool = True
    stream: bool | None = None
    """What it stops: streams, or datagrams; None: both."""

    def stops(self, source: str, target: str, stream: bool) -> bool:
        """Whether a packet from here to there is lost."""
        if self.stream not in (None, stream):
            return False
        return self._crosses(source, target) or (self.both and self._crosses(target, source))

    def _crosses(self, source: str, target: str) -> bool:
        return source in self.side and (target not in self.side if self.other is None else target in self.other)


@dataclass(frozen=True)
class Trouble:
    """Bad weather, everywhere or on the links of some addresses."""

    kind: str
    amount: float
    where: frozenset[str] | None = None

    def on(self, source: str, target: str, stream: bool) -> bool:
        """Whether a packet on this link suffers from it."""
        if self.kind == ("datagram_loss" if stream else "stream_loss"):
            return False
        return self.where is None or source in self.where or target in self.where


@dataclass
class Packet:
    """A packet on its way."""

    payload: bytes
    delay: float
    stream: bool
    copies: int = 1
    in_order: bool = True
    damaged: bool = False
    peer: int | None = None
    """Which instance sent it, where that is proved."""


class Network:
    """All links."""

    def __init__(
        self, rng: Random, codec: Codec, post: Callable[[float, str, Packet], None], happened: Counter[str]
    ) -> None:
        self.cuts: list[Cut] = []
        self.troubles: list[Trouble] = []
        self.past: list[tuple[str, bytes]] = []
        self._rng = rng
        self._codec = codec
        self._post = post
        self._happened = happened
        self._delays: dict[tuple[str, str], float] = {}
        self._last: dict[tuple[str, str, bool], float] = {}
        self._sent = 0

    def cut(self, source: str, target: str, stream: bool) -> bool:
        """Whether nothing gets from here to there now, by a stream or as a datagram."""
        return any(cut.stops(source, target, stream) for cut in self.cuts)

    def send(self, now: float, source: str, target: str, payload: bytes, stream: bool, peer: int | None = None) -> None:
        """A packet leaves: it will arrive, or not, or twice."""
        if self.cut(source, target, stream):
            return
        self._remember(target, payload)
        link = source, target, stream
        if link[:2] not in self._delays:
            self._delays[link[:2]] = self._rng.uniform(0.0002, 0.004)
        packet = Packet(payload, self._delays[link[:2]] * self._rng.uniform(1.0, 1.3), stream, peer=peer)
        for trouble in self.troubles:
            if trouble.on(source, target, stream) and not self._suffer(trouble, packet, now, link):
                return
        for _ in range(packet.copies):
            arrival = now + packet.delay
            if packet.in_order:
                arrival = self._last[link] = max(arrival, self._last.get(link, 0.0))
            else:
                arrival += self._rng.random() * 0.5
            self._post(arrival, target, packet)

    def _suffer(self, trouble: Trouble, packet: Packet, now: float, link: tuple[str, str, bool]) -> bool:
        """What the weather does to a packet; False if that was the end of it."""
        if trouble.kind == "slow":
            arrival = max(now, self._last.get(link, 0.0)) + len(packet.payload) / trouble.amount
            packet.delay = max(packet.delay, arrival - now)
            self._happened["slow"] += 1
            return arrival < now + QUEUE
        if trouble.kind == "far":
            packet.delay += trouble.amount
            self._happened["far"] += 1
            return True
        chance = 0.3 if trouble.kind == "delay" else trouble.amount
        if self._rng.random() >= chance:
            return True
        self._happened[trouble.kind] += 1
        match trouble.kind:
            case "loss" | "datagram_loss" | "stream_loss":
                return False
            case "delay":
                packet.delay += self._rng.random() * trouble.amount
            case "duplicate":
                packet.copies += 1
            case "reorder":
                packet.in_order = False
            case "damage":
                packet.payload, packet.damaged = self._damage(packet.payload), True
                return self._shows(packet.payload)
        return True

    def _damage(self, payload: bytes) -> bytes:
        broken = bytearray(payload or b"cut off by other weather")
        place = self._rng.randrange(len(broken))
        match self._rng.randrange(4):
            case 0:
                return bytes(broken[:place])
            case 1:
                return self._rng.randbytes(self._rng.randrange(64))
            case _:
                broken[place] ^= 1 << self._rng.randrange(8)
                return bytes(broken)

    def _shows(self, payload: bytes) -> bool:
        """Whether the node can tell that this is damaged."""
        try:
            match self._codec.decode(payload)[1]:
                case Push(batches):
                    for batch in batches:
                        decode_batch(batch)
                case Pull(_, context):
                    decode_context(context)
                case StatePart(_, 0, _, part, _):
                    Stage().add(part)
        except Malformed:
            return True
        return False

    def _remember(self, target: str, payload: bytes) -> None:
        """Keeps a fair sample of all packets ever sent, for replays."""
        self._sent += 1
        if len(self.past) < REMEMBERED:
            self.past.append((target, payload))
        elif (place := self._rng.randrange(self._sent)) < REMEMBERED:
            self.past[place] = (target, payload)
