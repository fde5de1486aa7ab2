"""How do a handful of engines talk in a test? Over a fake wire, by real bytes, on a clock that only the test moves.

Each node listens at `unix:/<name>`. As in the runtime, a `Send` goes to the first address that its sender knows of the
member, so whoever listens there now gets it. A test may cut links, lose, hold or double single packets, move time,
crash and pause nodes. Nothing is random but what an engine draws from its own seeded generator.
Not here: random faults (tests/simulation).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, NamedTuple, TypeVar

from crdt import Live, LWWMap, Store, encode_state, value_of
from gossip.identity import KeyPair
from gossip.protocol.effects import Changed, Dial, Effect, Reborn, Send
from gossip.protocol.engine import Engine
from gossip.protocol.members import Claim, Status
from gossip.protocol.messages import Ack, Message, Ping
from gossip.protocol.settings import Settings

EPOCH = 1_700_000_000_000
"""Wall-clock milliseconds at the beginning of every test."""
STORM = 20_000
"""Packets at one instant: far more than any story here makes, far less than an exchange without end."""

E = TypeVar("E", bound=Effect)


class Packet(NamedTuple):
    """A message on its way between two names."""

    source: str
    target: str
    message: Message
    payload: bytes
    peer: int | None = None
    """Who sent it, where there are identities."""
    stream: bool = True
    """Whether it goes by a stream, as far as its sender says so."""


def hushed(engine: Engine) -> None:
    """What this engine has heard is no news to it any more."""
    broadcast = engine.membership.broadcast
    for instance in list(broadcast._told):
        broadcast.drop(instance)


class Node:
    """One engine on the wire, and what it has wanted so far."""

    def __init__(self, wire: Wire, name: str, engine: Engine) -> None:
        self.wire = wire
        self.name = name
        self.engine = engine
        self.effects: list[Effect] = []
        """All effects but packets, in order."""
        self.waiting: list[Packet] | None = None
        """What came while it was stopped; None while it runs."""
        self.clock = 0
        """By how many milliseconds its wall clock is wrong."""
        self.speaker = engine.me.instance
        """In whose name its packets leave."""

    @property
    def wall(self) -> int:
        return EPOCH + int(self.wire.now * 1000) + self.clock

    @property
    def store(self) -> Store:
        return self.engine.replication.store

    @property
    def instance(self) -> int:
        return self.engine.me.instance

    @property
    def data(self) -> dict[str, Any]:
        """The map that the tests write."""
        return dict(LWWMap(self.store, "m").items())

    @property
    def state(self) -> bytes:
        return encode_state(self.store.state())

    @property
    def living(self) -> set[str]:
        """The names of the members that it takes for living, itself included."""
        return {claim.name for claim in self.engine.members.table.values() if not claim.gone}

    def status_of(self, instance: int) -> Status:
        return self.engine.members.table[instance].status

    def saw(self, kind: type[E]) -> list[E]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def steps(self) -> list[list[tuple[str, Any]]]:
        """What became visible, step by step: element bytes and value bytes (None if nothing is shown)."""
        return [[(key[2], _value(after)) for key, _, after in step.changes] for step in self.saw(Changed)]

    # -- what its program does ---------------------------------------------------------------------------------------

    def set(self, key: str, value: Any) -> None:
        """Writes, without ending the turn."""
        engine = self.engine
        stamp = engine.stamp(self.wall)
        write = LWWMap(self.store, "m").set(key, value, engine.replication.replica, stamp)
        self.wire.perform(self, engine.update(write, self.wire.now))

    def delete(self, key: str) -> None:
        engine = self.engine
        write = LWWMap(self.store, "m").delete(key, engine.replication.replica, engine.stamp(self.wall))
        assert write is not None
        self.wire.perform(self, engine.update(write, self.wire.now))

    def flush(self) -> None:
        """Ends the turn; the packets are on the wire then."""
        self.wire.perform(self, self.engine.flush())

    def write(self, **values: Any) -> None:
        """Writes these keys in one turn, and lets the packets arrive."""
        for key, value in values.items():
            self.set(key, value)
        self.flush()
        self.wire.deliver()

    def join(self, *names: str) -> None:
        self.wire.perform(self, self.engine.join([address(name) for name in names], self.wire.now))
        self.wire.deliver()

    def leave(self) -> None:
        """Leaves, and is gone from the wire once its last words are on it."""
        self.wire.perform(self, self.engine.leave(self.wire.now))
        self.wire.crash(self)
        self.wire.deliver()

    def tick(self) -> None:
        self.wire.perform(self, self.engine.tick(self.wire.now, self.wall))

    def hear(self, payload: bytes, peer: int | None = None) -> list[Effect]:
        """Takes a packet from nowhere, or from somebody who has proved who he is; gives what it wants done, which is
        not done."""
        return self.engine.receive(payload, self.wire.now, self.wall, peer)


class Wire:
    """Nodes, links and a clock; with `proved` each node has an identity, as with a key, and its packets bear it."""

    def __init__(self, settings: Settings | None = None, latency: float = 0.0, proved: bool = False) -> None:
        self.proved = proved
        self.settings = settings or Settings()
        self.latency = latency
        self.now = 0.0
        self.nodes: dict[str, Node] = {}
        self.sent: list[Packet] = []
        """Every packet that was sent, the lost ones too."""
        self._queue: list[tuple[float, int, Packet]] = []
        self._cuts: set[tuple[str, str]] = set()
        self._rules: list[Callable[[Packet], bool]] = []
        self._started = self._order = 0

    def start(self, name: str, *, cluster: str = "shop", at: str = "", **claim: Any) -> Node:
        """Starts a node that listens at `at`, or at its own name, in place of whoever listened there."""
        self._started += 1
        identity = KeyPair(cluster, self._started.to_bytes(32, "big")) if self.proved else None
        instance = identity.instance if identity else self._started
        here = {"instance": instance, "started": EPOCH + self._started, "addresses": (address(at or name),)}
        me = Claim(name=name, **{**here, **claim})
        engine = Engine(cluster, me, self.settings, Random(me.instance), Store(), identity=identity)
        node = self.nodes[at or name] = Node(self, name, engine)
        if len(self.nodes) == 1:
            engine.join([], self.now)  # the first finds nobody, and so is ready
        return node

    def cluster(self, *names: str) -> list[Node]:
        """Starts nodes that all know each other and agree."""
        nodes = [self.start(name) for name in names]
        for node in nodes[1:]:
            node.join(names[0])
        assert all(node.living == set(names) for node in nodes)
        self.sent.clear()
        for node in nodes:
            node.effects.clear()
        return nodes

    # -- faults ------------------------------------------------------------------------------------------------------

    def cut(self, one: str, other: str, *, both: bool = True) -> None:
        """Loses all that goes from one to the other, and back if `both`."""
        self._cuts |= {(one, other), (other, one)} if both else {(one, other)}

    def heal(self) -> None:
        self._cuts.clear()

    def crash(self, node: Node) -> None:
        """It stops without a word; who sends to its address is not told."""
        self.nodes = {name: other for name, other in self.nodes.items() if other is not node}

    @contextmanager
    def losing(self, which: Callable[[Packet], bool]) -> Iterator[list[Packet]]:
        """Loses these packets; they are in the list, and `put` brings one back."""
        lost: list[Packet] = []

        def rule(packet: Packet) -> bool:
            if which(packet):
                lost.append(packet)
                return True
            return False

        self._rules.append(rule)
        yield lost
        self._rules.remove(rule)

    def pause(self, node: Node) -> None:
        """SIGSTOP: packets for it wait, its deadlines pass."""
        node.waiting = []

    def resume(self, node: Node) -> None:
        """SIGCONT: first what waits is read, then the late timer runs, as asyncio does it."""
        waiting, node.waiting = node.waiting or [], None
        for packet in waiting:
            self.perform(node, node.hear(packet.payload, packet.peer))
        node.tick()
        self.deliver()

    # -- packets -----------------------------------------------------------------------------------------------------

    def perform(self, node: Node, effects: list[Effect]) -> None:
        """Does what an engine wants: packets go on the wire, the rest is kept for the test to look at."""
        for effect in effects:
            match effect:
                case Send(to, message):
                    known = [node.engine.members.table.get(instance) for instance in to]
                    stream = effect.stream or not isinstance(message, Ping | Ack)
                    for claim in known:
                        if claim is not None:
                            self._post(node, claim.addresses[0], message, stream)
                case Dial(where, message):
                    self._post(node, where, message)
                case Reborn(claim):
                    node.speaker = claim.instance
                    node.effects.append(effect)
                case _:
                    node.effects.append(effect)

    def _post(self, node: Node, where: str, message: Message, stream: bool = True) -> None:
        here = node.engine.me.addresses[0].removeprefix("unix:/")
        payload = node.engine.codec.encode(node.speaker, message)
        peer = node.speaker if self.proved else None
        packet = Packet(here, where.removeprefix("unix:/"), message, payload, peer, stream)
        self.sent.append(packet)
        lost = [rule(packet) for rule in self._rules]  # each keeps what it loses
        if (packet.source, packet.target) not in self._cuts and not any(lost):
            self.put(packet)

    def put(self, packet: Packet) -> None:
        """Puts a packet on the wire, whatever is cut; twice for a doubled one."""
        self._order += 1
        heapq.heappush(self._queue, (self.now + self.latency, self._order, packet))

    def deliver(self) -> None:
        """Lets arrive what is due by now, and what that causes."""
        count = 0
        while self._queue and self._queue[0][0] <= self.now:
            _, _, packet = heapq.heappop(self._queue)
            count += 1
            assert count < STORM, f"packets without end: {packet}"
            node = self.nodes.get(packet.target)
            if node is None:
                continue
            if node.waiting is not None:
                node.waiting.append(packet)
            else:
                self.perform(node, node.hear(packet.payload, packet.peer))

    def packets(self, kind: type[Message], source: str = "", target: str = "") -> list[Packet]:
        """What was sent of this kind."""
        return [
            packet
            for packet in self.sent
            if isinstance(packet.message, kind)
            and (not source or packet.source == source)
            and (not target or packet.target == target)
        ]

    # -- time --------------------------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Moves the clock on, from one deadline to the next."""
        end = self.now + seconds
        self.deliver()
        while (due := self._due()) <= end:
            self.now = max(self.now, due)
            self.deliver()
            for node in list(self.nodes.values()):
                if node.waiting is None and node.engine.deadline <= self.now:
                    node.tick()
                    self.deliver()
        self.now = end

    def _due(self) -> float:
        deadlines = [node.engine.deadline for node in self.nodes.values() if node.waiting is None]
        arrivals = [self._queue[0][0]] if self._queue else []
        return min([*deadlines, *arrivals], default=float("inf"))

    def until(self, condition: Callable[[], bool], within: float) -> float:
        """Moves the clock until this holds; gives how long that took, and fails if it takes longer than `within`."""
        start = self.now
        while not condition():
            due = self._due()
            assert due - start <= within, f"not within {within} s"
            self.advance(max(0.0, due - self.now))
        return self.now - start


def address(name: str) -> str:
    return name if ":" in name else f"unix:/{name}"


def agree(*nodes: Node) -> bool:
    """Whether all hold the same: contexts, bytes and fingerprints."""
    first = nodes[0]
    same = all(node.store.context == first.store.context and node.state == first.state for node in nodes)
    assert not same or len({node.store.fingerprint for node in nodes}) == 1
    return same


def _value(live: Live | None) -> bytes | None:
    return None if live is None else value_of(live)
