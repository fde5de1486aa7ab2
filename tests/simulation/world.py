"""How do a whole cluster and its network live in one process, on a clock that nobody waits for?

A heap of events in virtual time. An event is something that happens to one node: a packet, a deadline, a turn of
writing; its effects are carried out, and the node is checked. A stopped node (SIGSTOP) gets nothing; what is for it
waits in order, as it does while the loop of a slow one is busy. A node that sleeps with its host gets nothing at all.

Invariant: everything follows from the seed. Ties in time go by the order of scheduling, and no set of strings is ever
walked through. `digest` tells whether two runs were the same, event by event and byte by byte.
Not here: what goes wrong (`faults`), what is written (`workload`), what is demanded (`checks`, `ending`).
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from math import inf
from random import Random
from struct import pack

from crdt import Context, Store, decode_batch
from gossip.datagrams import POSTAGE
from gossip.protocol.codec import MAX_MESSAGE, Codec
from gossip.protocol.effects import Dial, Effect, Harden, MemberChanged, Persist, Reborn, Send
from gossip.protocol.engine import Engine
from gossip.protocol.log import Log
from gossip.protocol.members import Claim, Status
from gossip.protocol.messages import Ack, Message, Ping, Push
from tests.simulation.checks import Watch
from tests.simulation.disk import SLOW, Disk
from tests.simulation.faults import Faults
from tests.simulation.identities import Notary, Secret
from tests.simulation.model import History, Violation, demand
from tests.simulation.network import Network, Packet
from tests.simulation.options import SETUP, Options
from tests.simulation.process import Act, Observed, Process
from tests.simulation.strangers import Stranger
from tests.simulation.workload import Workload

CLUSTER = "simulated"
EPOCH = 1_700_000_000.0
"""What the right clock shows when a world begins."""
DISCOVERY = 15.0
"""Seconds between two rounds of discovery, as in the runtime."""
STORM = 10_000
"""Packets that may arrive in one virtual second, among a dozen nodes. In the worst weather each of them is suspected by
two, and refutes: three claims of each, which all tell all others, make 4 700, and nearly twice as many where most
arrive twice (so began seed 5098). A claim that goes round for ever makes more."""
CONNECT = 5.0
"""Seconds after which a stream is given up that can not be opened."""


class World:
    """A cluster, its network and its programs."""

    def __init__(self, seed: int, options: Options, trace: Callable[[str], None] | None = None) -> None:
        self.options = options
        self.now = 0.0
        self.happened: Counter[str] = Counter({kind: 1 for kind in options.kinds if kind in SETUP})
        self.events = 0
        self.writes = 0
        self.history = History()
        self.notary = Notary(CLUSTER) if options.identities else None
        self.processes: list[Process] = []
        self.gone: list[Process] = []
        self.listening: dict[str, Process] = {}
        self.disks: dict[str, Disk] = {}
        """By address; a node that starts somewhere else has lost its own."""
        self.where: dict[int, str] = {}
        """The address at which each instance listened, the dead included."""
        self._started: dict[str, int] = {}
        """When the last one at each address started, by its own clock."""
        self.sent: Counter[tuple[str, str]] = Counter()
        """Messages by kind and by address of the sender."""
        self.pings: Counter[tuple[str, str]] = Counter()
        """By address of the sender, and where to."""
        self.suspected: set[tuple[int, int]] = set()
        """Of those that were well and suspected, which instance and incarnation."""
        self.strangers: dict[str, Stranger] = {}
        """Nodes of another cluster, by address."""
        self.network = Network(Random(f"network {seed}"), Codec(CLUSTER), self._post, self.happened)
        self.faults = Faults(self, Random(f"faults {seed}"))
        self.workload = Workload(self, Random(f"workload {seed}"))
        self.rng = Random(f"world {seed}")
        self._seed = seed
        self._heap: list[tuple[float, int, str, Callable[[], object]]] = []
        self._order = 0
        self._hash = blake2b(digest_size=16)
        self._trace = trace
        self._second, self._arrived = 0, 0
        self._died_at: dict[Process, int] = {}
        self._opening: dict[tuple[str, str], float] = {}
        """Streams that can not be opened, and until when that is tried."""

    # -- time ------------------------------------------------------------------------------------------------------

    def at(self, time: float, action: Callable[[], object], kind: str) -> None:
        """Something will happen."""
        self._order += 1
        heapq.heappush(self._heap, (time, self._order, kind, action))

    def later(self, seconds: float, action: Callable[[], object], kind: str) -> None:
        """Something will happen in so many seconds."""
        self.at(self.now + seconds, action, kind)

    def run(self, until: float) -> None:
        """Lets time pass."""
        while self._heap and self._heap[0][0] <= until:
            self.now, _, _, action = heapq.heappop(self._heap)
            action()
        self.now = until

    def forget(self, *kinds: str) -> None:
        """What was to happen of these kinds will not."""
        self._heap = [entry for entry in self._heap if entry[2] not in kinds]
        heapq.heapify(self._heap)

    @property
    def digest(self) -> str:
        """The same for the same run, and for no other."""
        return self._hash.hexdigest()

    def hashed(self, data: bytes) -> None:
        """Counts something into the digest."""
        self._hash.update(data)

    def note(self, process: Process | None, text: str) -> None:
        """A line of the trace."""
        if self._trace:
            who = f"{process.number}@{process.address} {process.engine.me.instance:016x}" if process else "world"
            self._trace(f"{self.now:10.4f} {who:32} {text}")

    # -- the life of a node ----------------------------------------------------------------------------------------

    def start(self, address: str | None, offset: float = 0.0) -> Process:
        """A node starts with nothing, at a new address or at one that is free again, and joins."""
        number = len(self.processes) + len(self.gone) + 1
        address = address or f"sim:{number}"
        rng = Random(f"node {self._seed} {number}")
        started = int((EPOCH + self.now + offset) * 1000)
        elder = self._started.get(address, 0) > started
        self._started[address] = started
        tags = (("role", "x" * rng.choice((0, 0, 20, 240))),)
        name = "worker" if "namesake" in self.options.kinds else f"node-{number}"
        identity = Secret(self.notary, rng.randbytes(32)) if self.notary else None
        instance = identity.instance if identity else rng.getrandbits(64) | 1
        me = Claim(instance, name, (address,), started, tags)
        settings = self.options.settings
        disk = self.disks.setdefault(address, Disk()) if self.options.disks else None
        recent = Log(settings.log_bytes)
        store = disk.restore(recent) if disk is not None else Store()
        engine = Engine(CLUSTER, me, settings, rng, store, identity=identity)
        engine.replication = engine.recovery.replication = Observed(store, settings, me.instance, recent)
        process = Process(number, address, engine, Watch(engine, settings, self.history), offset)
        engine.replication.watch, process.disk = process.watch, disk
        self.happened["restored"] += bool(store.context)
        process.seeds = self._seeds(address)
        process.ill = elder  # by its clock, so that it may be called dead for its predecessor's sake
        self.processes.append(process)
        self.listening[address] = process
        self.where[me.instance] = address
        self.note(process, f"starts, clock {offset:+.3f} s, knows {process.seeds}")
        self._discover(process)
        return process

    def _seeds(self, address: str) -> list[str]:
        known = [other for other in self.listening if other != address]
        return self.rng.sample(known, min(2, len(known)))

    def _discover(self, process: Process) -> None:
        if process.address in self.listening and self.listening[process.address] is process:
            addresses = [*self.where.values()] if self.options.discovery else process.seeds
            others = [address for address in dict.fromkeys(addresses) if address != process.address]
            self.event(process, "discover", lambda now, wall: process.engine.join(others, now))
            self.later(DISCOVERY, lambda: self._discover(process), "discover")

    def crash(self, process: Process) -> None:
        """A node is gone, with all it had. With streams, whoever hears from it sees them end; and whoever shares its
        host has proof."""
        self.note(process, "crashes")
        self._end(process)
        if process.disk is not None:
            process.disk.crash(self.rng)
            if self.options.settings.durability == "full":
                # what is on the disk leaves with whoever starts from it, though its author had no time for that
                for me in dict.fromkeys(local.write.dot[0] for local in process.watch.tail):
                    process.watch.published(me, process.disk.unheard_of(me, self.history))
        if self.options.streams:
            instance = process.engine.me.instance
            for other in self.processes:
                if not self.network.cut(process.address, other.address, stream=True):
                    self.later(self.rng.random() * 0.01, partial(self.lost, other, instance), "lost")
                if self.rng.random() < 0.3:
                    self.happened["proof"] += 1
                    self.later(self.rng.random() * 0.02, partial(self.exited, other, instance), "exited")

    def dies_while_sending(self, process: Process) -> None:
        """A node writes, and is gone before it told everybody."""
        self._died_at[process] = self.rng.randrange(4)
        self.workload.turn(process)
        self.crash(process)

    def leave(self, process: Process) -> None:
        """A node says goodbye; what it wrote leaves first."""
        while process.watch.depth:
            self.end(process)
        if self.options.settings.durability == "full":
            self.settle(process)  # as the runtime waits for the disk
        self.event(process, "leave", lambda now, wall: process.engine.leave(now))
        demand(not process.watch.tail, "left without what it had written", process.watch.tail)
        self._end(process)
        if process.disk is not None:
            process.disk.safe = process.disk.size  # it is closed with care

    def _end(self, process: Process) -> None:
        self.processes.remove(process)
        self.gone.append(process)
        del self.listening[process.address]

    def resume(self, process: Process) -> None:
        """A stopped node goes on: its packets and its clock are waiting, in any order."""
        if not process.paused:
            return
        self.note(process, f"goes on, {len(process.waiting)} waiting")
        process.paused = process.deaf = False
        if process.gray:
            self._read_on(process)
            return
        waiting, process.waiting = process.waiting, deque()
        if self.rng.random() < 0.5:
            self._arm(process)
        for what in waiting:
            self.event(process, *what)
        self._arm(process)

    def recover(self, process: Process) -> None:
        """A slow or stopped node is as fast as others again, and does at once what waits for it."""
        process.gray = process.busy = 0.0
        process.paused = True
        self.resume(process)

    def block(self, process: Process, seconds: float) -> None:
        """The loop of a node does nothing for so long."""
        process.ill = True
        process.busy = max(process.busy, self.now + seconds)
        self.at(process.busy, lambda: self._read_on(process), "busy")

    def _read_on(self, process: Process) -> None:
        """The loop of a node is free again: first what is due, then what came."""
        if self.listening.get(process.address) is not process or process.paused or process.busy > self.now:
            return
        if process.engine.deadline + process.behind <= self.now:
            self._happen(process, "tick", partial(self._tick, process))
        while process.waiting and process.busy <= self.now:
            self._happen(process, *process.waiting.popleft())
        self._arm(process)

    # -- what happens to a node ------------------------------------------------------------------------------------

    def event(self, process: Process, kind: str, act: Act, data: bytes = b"", stream: bool = True) -> None:
        """Something happens to a node now, or as soon as it goes on."""
        if self.listening.get(process.address) is not process:
            return
        if not process.free(self.now):
            process.waiting.append((kind, act, data, stream))
            return
        self._happen(process, kind, act, data, stream)

    def _happen(self, process: Process, kind: str, act: Act, data: bytes = b"", stream: bool = True) -> None:
        self.events += 1
        self._hash.update(pack("<dI", self.now, process.number) + kind.encode() + data)
        wall = int((EPOCH + self.now + process.wrong(self.now)) * 1000)
        if self._trace and kind != "update":
            self.note(process, f"{kind} {_short(process.engine.codec, data)}")
        try:
            effects = act(self.now - process.behind, wall)
        except Violation:
            raise
        except Exception as error:
            raise Violation(f"{kind} raised {error!r}") from error
        process.watch.after(effects, wall)
        self._judged(process, effects)
        self._carry_out(process, effects, stream)
        if process.gray and kind in ("receive", "tick"):
            self.block(process, process.gray * self.rng.uniform(0.5, 1.5))
        self._arm(process)

    def _judged(self, process: Process, effects: Sequence[Effect]) -> None:
        """What a node says of others: nobody is a member who never was, and, in weather that does no harm, nobody is
        called dead who is well and not cut off."""
        for effect in effects:
            if not isinstance(effect, MemberChanged):
                continue
            claim = effect.claim
            demand(claim.instance in self.where, "a member that is none", claim)
            demand(not self.notary or self.notary.vouches(claim), "a member did not say what is believed of it", claim)
            victim = self.listening.get(self.where[claim.instance])
            if victim is None or victim.engine.me.instance != claim.instance or victim.ill:
                continue
            if self.network.cut(process.address, victim.address, stream=True):
                continue
            if claim.status == Status.SUSPECT:
                self.suspected.add((claim.instance, claim.incarnation))
            harmed = claim.status == Status.DEAD and self.options.harmless
            demand(not harmed, "a healthy member was called dead", victim.number, effect.why)

    def flush(self, process: Process) -> None:
        """The turn is over."""
        self.event(process, "flush", lambda now, wall: process.engine.flush())

    def retag(self, process: Process, tags: tuple[tuple[str, str], ...]) -> None:
        """A program changes the tags of its node; the turn ends a moment later."""
        self.event(process, "retag", lambda now, wall: process.engine.retagged(tags))
        self.later(self.rng.random() * 0.01, partial(self._news, process), "news")

    def _news(self, process: Process) -> None:
        self.event(process, "news", lambda now, wall: process.engine.news())

    def settle(self, process: Process) -> None:
        """The turn is over, and so is what the disk had to do."""
        self.flush(process)
        if process.disk is not None:
            self._safe(process, process.disk, process.disk.size, process.engine.replication.handed)

    def _keep(self, process: Process, step: Persist) -> None:
        """A step goes to the disk, and is safe there after a while."""
        disk = process.disk
        if disk is not None:
            count = disk.append(step)
            slow = self.options.kinds.get("late_disk", 0.0) > self.rng.random()
            disk.due = max(disk.due, self.now + (SLOW if slow else 0.01) * self.rng.random())
            self.at(disk.due, lambda: self._safe(process, disk, count, step.own), "disk")

    def _safe(self, process: Process, disk: Disk, count: int, own: int) -> None:
        if process in self.processes and count > disk.safe:  # else it was closed with care before its time
            disk.safe = min(count, disk.size)
            if own and self.options.settings.durability == "full":
                self.event(process, "stored", lambda now, wall: process.engine.stored(own))

    def _harden(self, process: Process, asked: Harden) -> None:
        """Somebody wants to know when all that is here is safe."""
        disk, replication = process.disk, process.engine.replication
        context = Context(replication.store.context)
        context[replication.replica] = replication.flushed  # of an open transaction nobody else can have asked

        def answer() -> None:
            if disk is not None and process in self.processes:
                demand(disk.safe >= count, "the disk is not in order", disk.safe, count)
                disk.promise(context)
                self.event(process, "hardened", lambda now, wall: self._hardened(process, asked, context))

        count = 0 if disk is None else disk.size
        if disk is None:
            self.event(process, "hardened", lambda now, wall: process.engine.hardened(*asked, durable=False))
        else:
            self.at(max(disk.due, self.now), answer, "disk")

    def _hardened(self, process: Process, asked: Harden, context: Context) -> list[Effect]:
        """It answers in the name of the instance that it is by now: it may have been called dead meanwhile."""
        self.history.safe.setdefault(process.engine.me.instance, Context()).join(context)
        return process.engine.hardened(*asked, durable=True)

    def begin(self, process: Process) -> None:
        """A transaction begins."""
        process.engine.begin()
        process.watch.depth += 1
        process.watch.segment += process.watch.depth == 1

    def end(self, process: Process, flush: bool = True) -> None:
        """A transaction ends; the turn with it, if `flush`."""

        def act(now: float, wall: int) -> list[Effect]:
            if process.watch.depth == 0:
                return []
            process.engine.end()
            process.watch.depth -= 1
            process.watch.segment += process.watch.depth == 0
            return process.engine.flush() if flush and process.watch.depth == 0 else []

        self.event(process, "end", act)

    def lost(self, process: Process, instance: int) -> None:
        """A stream ended."""
        self.event(process, "lost", lambda now, wall: process.engine.lost(instance, now))

    def exited(self, process: Process, instance: int) -> None:
        """A process of its host has ended."""
        self.event(process, "exited", lambda now, wall: process.engine.exited(instance, now))

    def _arm(self, process: Process) -> None:
        deadline = process.engine.deadline + process.behind
        if deadline < process.armed and process.free(self.now):
            process.armed = max(deadline, self.now) + self.rng.random() * 0.002
            self.at(process.armed, partial(self._due, process, process.armed), "tick")

    def _due(self, process: Process, due: float) -> None:
        if process.armed != due or self.listening.get(process.address) is not process:
            return
        process.armed = inf
        if not process.free(self.now) or process.engine.deadline + process.behind > self.now:
            self._arm(process)
            return
        self.event(process, "tick", partial(self._tick, process))

    def _tick(self, process: Process, now: float, wall: int) -> list[Effect]:
        effects = process.engine.tick(now, wall)
        demand(process.engine.deadline > now, "the deadline stands still", process.engine.deadline)
        return effects

    # -- packets ---------------------------------------------------------------------------------------------------

    def _carry_out(self, process: Process, effects: Sequence[Effect], stream: bool) -> None:
        """Does what a node wants; `stream` says whether it was told by one, for so are pings answered."""
        for effect in effects:
            match effect:
                case Send(to, message):
                    probe = isinstance(message, Ping) or (isinstance(message, Ack) and not stream)
                    streamed = effect.stream or not probe
                    payload = self._encoded(process, message, streamed)
                    for instance in to:
                        address = _address(process.engine, instance)
                        self._send(process, address, message, payload, streamed)
                        if effect.both:
                            self._send(process, address, message, payload, stream=False)
                        if streamed and self.options.streams:
                            self._open(process, instance, address)
                case Dial(address, message):
                    self._send(process, address, message, self._encoded(process, message), stream=True)
                case Persist():
                    self._keep(process, effect)
                case Harden():
                    self._harden(process, effect)
                case Reborn(claim):
                    self.where[claim.instance] = process.address
                    process.speaker = claim.instance
                    self.happened["reborn"] += 1
            if self._trace and not isinstance(effect, Send | Dial):
                self.note(process, f"  {effect}"[:300])

    def _open(self, process: Process, instance: int, address: str) -> None:
        """A stream that can not be opened is given up after a while, and its owner told."""
        link = process.address, address
        if self._opening.get(link, 0.0) <= self.now and self.network.cut(*link, stream=True):
            self._opening[link] = self.now + CONNECT
            self.later(CONNECT, lambda: self.lost(process, instance), "lost")

    def _encoded(self, process: Process, message: Message, streamed: bool = True) -> bytes:
        payload = process.engine.codec.encode(process.speaker, message)
        demand(len(payload) <= MAX_MESSAGE, "a message is too long to be taken", len(payload))
        if not streamed:
            room = self.options.settings.datagram - POSTAGE
            demand(len(payload) <= room, "a probe is too long to be sealed and sent", len(payload), message)
        self._check_safe(process, message)
        return payload

    def _send(self, process: Process, target: str, message: Message, payload: bytes, stream: bool) -> None:
        left = self._died_at.get(process)
        if left is not None:
            if left == 0:
                return
            self._died_at[process] = left - 1
        self.sent[process.address, type(message).__name__] += 1
        self.pings[process.address, target] += isinstance(message, Ping)
        self.network.send(self.now, process.address, target, payload, stream, process.speaker if self.notary else None)

    def _check_safe(self, process: Process, message: Message) -> None:
        """With `full`, own writes are on the disk before they leave."""
        disk = process.disk
        if disk is None or self.options.settings.durability != "full" or not isinstance(message, Push):
            return
        own = [payload for payload in message.batches if decode_batch(payload).replica == process.engine.me.instance]
        demand(all(map(disk.has, own)), "an own write left before it was on the disk")

    def _post(self, time: float, target: str, packet: Packet) -> None:
        if packet.damaged:
            self.at(time, lambda: self.in_vain(target, packet.payload, packet.peer), "packet")
        else:
            self.deliver(time, target, packet.payload, packet.stream, packet.peer)

    def deliver(self, time: float, target: str, payload: bytes, stream: bool = False, peer: int | None = None) -> None:
        """A packet will arrive at whoever listens there then."""
        self.at(time, lambda: self._arrive(target, payload, stream, peer), "packet")

    def _arrive(self, target: str, payload: bytes, stream: bool = False, peer: int | None = None) -> None:
        process = self.listening.get(target)
        if process is None and target in self.strangers:
            self.strangers[target].hear(payload)
        if process is None or process.deaf:
            return
        if int(self.now) != self._second:
            self._second, self._arrived = int(self.now), 0
        self._arrived += 1
        if self._arrived >= STORM * max(1, self.options.nodes**2 // 144):
            demand(False, "a storm of packets", _short(process.engine.codec, payload))
        act = lambda now, wall: process.engine.receive(payload, now, wall, peer)  # noqa: E731
        self.event(process, "receive", act, payload, stream)

    def in_vain(self, target: str, payload: bytes, peer: int | None) -> None:
        """A packet arrives that is damaged or forged: nothing comes of it."""
        process = self.listening.get(target)
        if process is None or not process.free(self.now):
            return
        context = dict(process.engine.replication.store.context)
        members = dict(process.engine.members.table)
        self._arrive(target, payload, peer=peer)
        demand(context == process.engine.replication.store.context, "damage or a forgery was delivered", payload)
        demand(members == process.engine.members.table, "damage or a forgery was believed", payload)


def _address(engine: Engine, instance: int) -> str:
    """Where a node believes that an instance listens, as the runtime would find it: in its own table."""
    claim = engine.members.table.get(instance)
    return claim.addresses[-1] if claim is not None and claim.addresses else "nowhere"


def _short(codec: Codec, payload: bytes) -> str:
    """A packet on a line."""
    try:
        sender, message = codec.decode(payload)
    except ValueError:
        return payload[:20].hex()
    return f"{sender:016x} {message!r:.300}"
