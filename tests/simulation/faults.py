"""What goes wrong, when, and for whom?

One fault at a time is begun, at random intervals, of the kinds that the options allow; each ends by itself after a
while. Invariants: at least two nodes live at any time; after `stop` nothing is wrong any more. Every fault that
happened is counted. Not here: what a fault does to a packet (`network`).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from gossip.protocol.identity import statement
from gossip.protocol.members import Status
from gossip.protocol.messages import Gossip, Message
from tests.simulation.network import Cut, Trouble
from tests.simulation.options import CLOCKS, FORGERIES, ILLS, LIES, LINKS, LIVES, WEATHER
from tests.simulation.strangers import Stranger

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

MOST = 9
"""Nodes that live at a time."""
NEAR = 4.0
"""Seconds that a clock may be off without ever being refused: twice that, and a little, is less than 10."""


class Faults:
    """The fault schedule of a world."""

    def __init__(self, world: World, rng: Random) -> None:
        self.world = world
        self.rng = rng
        self.kinds = world.options.kinds
        self._begin: dict[str, Callable[[float], None]] = {
            **{kind: self._weather(kind) for kind in WEATHER},
            **{
                kind: getattr(self, f"_{kind}")
                for kind in LINKS + LIVES + ILLS + CLOCKS + LIES + FORGERIES
                if kind != "skew"
            },
        }
        self._off: dict[Process, float] = {}

    def start(self) -> None:
        """From now on things go wrong."""
        if any(kind in self._begin for kind in self.kinds):
            self.world.later(self.rng.expovariate(1 / self.world.options.pace), self._next, "fault")

    def _next(self) -> None:
        kind = self.rng.choice([kind for kind in self.kinds if kind in self._begin])
        self._begin[kind](self.kinds[kind])
        self.start()

    def stop(self) -> None:
        """All is well from now on: links, clocks, and who was stopped goes on."""
        world = self.world
        world.network.cuts.clear()
        world.network.troubles.clear()
        for process in world.processes:
            process.set_clock(_near(process.wrong(world.now)), world.now)
            world.recover(process)

    def _for(self, seconds: float, end: Callable[[], None]) -> None:
        self.world.later(seconds, end, "fault")

    def _happened(self, kind: str, process: Process | None = None) -> None:
        self.world.happened[kind] += 1
        self.world.note(process, f"fault {kind}")

    def _some(self, most: int = 3) -> frozenset[str]:
        """The addresses of some nodes, never all."""
        addresses = [process.address for process in self.world.processes]
        return frozenset(self.rng.sample(addresses, self.rng.randint(1, min(most, len(addresses) - 1))))

    def _running(self) -> Process | None:
        running = [process for process in self.world.processes if process.free(self.world.now)]
        return self.rng.choice(running) if running else None

    # -- weather and links -----------------------------------------------------------------------------------------

    def _weather(self, kind: str) -> Callable[[float], None]:
        """Packets suffer for a while. What is counted is each packet, by the network."""
        span = {
            "loss": (0.02, 0.5),
            "datagram_loss": (0.05, 0.9),
            "stream_loss": (0.05, 0.9),
            "delay": (0.02, 2.0),
            "far": (0.1, 1.5),
            "duplicate": (0.05, 0.5),
            "reorder": (0.05, 0.5),
            "damage": (0.01, 0.05),
            "slow": (200_000.0, 5_000.0),
        }[kind]

        def begin(intensity: float) -> None:
            low, high = span
            where = None if self.rng.random() < 0.5 else self._some()
            trouble = Trouble(kind, low + (high - low) * intensity * self.rng.random(), where)
            self.world.note(None, f"fault {trouble}")
            self.world.network.troubles.append(trouble)
            self._for(self.rng.uniform(1.0, 12.0), lambda: self._clear(trouble))

        return begin

    def _clear(self, trouble: Trouble) -> None:
        self.world.network.troubles.remove(trouble)

    def _cut_off(self, cut: Cut, seconds: float) -> None:
        self._happened(cut.kind)
        self.world.note(None, f"{cut} for {seconds:.1f} s")
        self.world.network.cuts.append(cut)
        self._for(seconds, lambda: self.world.network.cuts.remove(cut))

    def _partition(self, intensity: float) -> None:
        self._cut_off(Cut("partition", self._some()), self.rng.uniform(0.5, 12.0 * intensity + 1))

    def _split(self, intensity: float) -> None:
        """Long enough for each half to bury the other."""
        self._cut_off(Cut("split", self._some(most=99)), self.rng.uniform(10.0, 20.0 + 20.0 * intensity))

    def _one_way(self, intensity: float) -> None:
        self._cut_off(Cut("one_way", self._some(), both=False), self.rng.uniform(0.5, 15.0 * intensity + 1))

    def _cut(self, intensity: float) -> None:
        """A to B, B to C, but not A to C."""
        first, second = self.rng.sample([process.address for process in self.world.processes], 2)
        cut = Cut("cut", frozenset({first}), frozenset({second}))
        self._cut_off(cut, self.rng.uniform(1.0, 30.0 * intensity + 2))

    def _datagram_only(self, intensity: float) -> None:
        """Streams are stopped by a firewall."""
        self._firewall(Cut("datagram_only", self._some(), stream=True), intensity)

    def _stream_only(self, intensity: float) -> None:
        self._firewall(Cut("stream_only", self._some(most=99), stream=False), intensity)

    def _firewall(self, cut: Cut, intensity: float) -> None:
        self._cut_off(cut, self.rng.uniform(1.0, 30.0 * intensity + 2))

    # -- lives -----------------------------------------------------------------------------------------------------

    def _crash(self, intensity: float) -> None:
        self._end_of_somebody("crash")

    def _restart(self, intensity: float) -> None:
        address = self._end_of_somebody("restart")
        if address is not None:
            self._for(self.rng.choice((0.001, 1.0, 12.0)) * self.rng.random(), lambda: self._start(address))

    def _move(self, intensity: float) -> None:
        if self._end_of_somebody("move") is not None:
            self._for(self.rng.random() * 8.0, lambda: self._start(None))

    def _leave(self, intensity: float) -> None:
        process = self._running()
        if process is None or len(self.world.processes) <= 2:
            return
        self._happened("leave", process)
        if self.rng.random() < 0.5:
            self.world.workload.turn(process, ends=False)
        self.world.leave(process)
        address = process.address if self.rng.random() < 0.5 else None
        if self.rng.random() < 0.8:
            self._for(self.rng.choice((0.01, 6.0)) * self.rng.random(), lambda: self._start(address))

    def _newcomer(self, intensity: float) -> None:
        if len(self.world.processes) < MOST:
            self._happened("newcomer")
            self._start(None)

    def _half_killed(self, intensity: float) -> None:
        """Half of them at once; some of those come again somewhere else."""
        victims = self.rng.sample(
            self.world.processes, min(len(self.world.processes) // 2, len(self.world.processes) - 2)
        )
        for victim in victims:
            self._happened("half_killed", victim)
            self.world.crash(victim)
            if self.rng.random() < 0.7:
                self._for(self.rng.random() * 12.0, lambda: self._start(None))

    def _mass_restart(self, intensity: float) -> None:
        """All restart at once. That those who they were are dead still goes round, with great incarnations."""
        old = list(self.world.processes)
        stale = tuple(one.engine.me._replace(status=Status.DEAD, incarnation=100) for one in old)
        liar = old[0]
        payload = liar.engine.codec.encode(liar.engine.me.instance, Gossip(stale))
        for process in old:
            self.world.crash(process)
        for process in old:
            self._happened("mass_restart")
            self._start(process.address)
            if self.rng.random() < 0.5:
                self.world.deliver(self.world.now + self.rng.random(), process.address, payload)

    def _recycled(self, intensity: float) -> None:
        """Where somebody was, a node of another cluster listens from now on."""
        address = self._end_of_somebody("recycled")
        if address is not None:
            self.world.strangers[address] = Stranger(self.world, address, self.rng)

    def _retag(self, intensity: float) -> None:
        """Somebody changes its tags, and now and then again before others have heard of it."""
        process = self._running()
        if process is None:
            return
        self._happened("retag", process)
        for number in range(self.rng.choice((1, 1, 3))):
            size = self.rng.choice((0, 20, 400, 600, 4_000))
            self.world.retag(process, (("role", f"{self.world.happened['retag']}-{number} {'x' * size}"),))

    def _end_of_somebody(self, kind: str) -> str | None:
        if len(self.world.processes) <= 2:
            return None
        process = self.rng.choice(self.world.processes)
        self._happened(kind, process)
        if process.free(self.world.now) and self.rng.random() < 0.3:
            self.world.dies_while_sending(process)
        else:
            self.world.crash(process)
        return process.address

    def _start(self, address: str | None) -> None:
        taken = address in self.world.listening or address in self.world.strangers
        if len(self.world.processes) < MOST and not taken:
            self.world.start(address, self.offset())

    # -- ills ------------------------------------------------------------------------------------------------------

    def _fallen_ill(self, kind: str) -> Process | None:
        process = self._running()
        if process is not None:
            self._happened(kind, process)
            process.ill = True
        return process

    def _pause(self, intensity: float) -> None:
        process = self._fallen_ill("pause")
        if process is None:
            return
        process.paused = True
        long = self.rng.random() < 0.4
        seconds = self.rng.uniform(6.0, 25.0) if long else self.rng.uniform(0.05, 3.0)
        self._for(seconds, lambda: self.world.resume(process))

    def _sleep(self, intensity: float) -> None:
        """Its host sleeps: what is sent to it is lost, and on some systems the monotonic clock stands still."""
        process = self._fallen_ill("sleep")
        if process is None:
            return
        seconds, stands = self.rng.uniform(0.5, 5.0 + 30.0 * intensity), self.rng.random() < 0.7

        def wakes() -> None:
            process.behind += seconds * stands
            self.world.resume(process)

        process.paused = process.deaf = True
        self._for(seconds, wakes)

    def _gray(self, intensity: float) -> None:
        """It gets 5 % of a CPU for a while."""
        process = self._fallen_ill("gray")
        if process is not None:
            process.gray = 0.005 + 0.02 * intensity
            self._for(self.rng.uniform(5.0, 25.0), lambda: setattr(process, "gray", 0.0))

    def _blocked(self, intensity: float) -> None:
        """Its program blocks the loop again and again."""
        process = self._fallen_ill("blocked")
        if process is not None:
            self._block(process, self.rng.randint(1, 4), 0.2 + 5.0 * intensity)

    def _block(self, process: Process, times: int, most: float) -> None:
        seconds = self.rng.uniform(0.1, most)
        self.world.block(process, seconds)
        if times > 1:
            self._for(seconds + self.rng.random(), lambda: self._block(process, times - 1, most))

    # -- clocks ----------------------------------------------------------------------------------------------------

    def offset(self) -> float:
        """By how much the clock of a new node is wrong."""
        if "skew" not in self.kinds:
            return 0.0
        self.world.happened["skew"] += 1
        return self.rng.uniform(-NEAR, NEAR) * self.kinds["skew"]

    def _step_back(self, intensity: float) -> None:
        self._step("step_back", -NEAR)

    def _step_forward(self, intensity: float) -> None:
        self._step("step_forward", NEAR)

    def _step(self, kind: str, towards: float) -> None:
        process, now = self.rng.choice(self.world.processes), self.world.now
        if abs(process.wrong(now)) <= NEAR:
            self._happened(kind, process)
            process.set_clock(self.rng.uniform(process.wrong(now), towards), now)

    def _drift(self, intensity: float) -> None:
        """It runs too fast or too slow for a while."""
        process, now = self.rng.choice(self.world.processes), self.world.now
        wrong = process.wrong(now)
        if abs(wrong) > NEAR:
            return
        self._happened("drift", process)
        seconds = self.rng.uniform(2.0, 20.0)
        process.set_clock(wrong, now, rate=(self.rng.uniform(-NEAR, NEAR) - wrong) / seconds)
        self._for(seconds, lambda: process.set_clock(_near(process.wrong(self.world.now)), self.world.now))

    def _future(self, intensity: float) -> None:
        self._wrong_clock("future", self.rng.uniform(12.0, 15.0 + 30.0 * intensity))

    def _past(self, intensity: float) -> None:
        self._wrong_clock("past", -self.rng.choice((15.0, 3600.0)))

    def _wrong_clock(self, kind: str, offset: float) -> None:
        process, now = self.rng.choice(self.world.processes), self.world.now
        right = process.wrong(now)
        if abs(right) > NEAR:
            return
        self._happened(kind, process)
        process.set_clock(offset, now)
        self._for(self.rng.uniform(0.5, 15.0), lambda: process.set_clock(right, self.world.now))

    # -- lies ------------------------------------------------------------------------------------------------------

    def _hint(self, intensity: float) -> None:
        """A stream ends, and the one at its other end is well."""
        process, other = self.rng.sample(self.world.processes, 2)
        self._happened("hint", process)
        self.world.lost(process, other.engine.me.instance)

    def _suspect(self, intensity: float) -> None:
        """Somebody says of somebody to somebody that he is suspect. He can refute that."""
        self._slander("suspect", Status.SUSPECT, self.rng.choice((0, 0, 1)))

    def _accuse(self, intensity: float) -> None:
        """Somebody says of somebody to somebody that he is dead, or what he can not refute."""
        if self.rng.random() < 0.7:
            self._slander("accuse", Status.DEAD, self.rng.choice((0, 1)))
        else:
            self._slander("accuse", Status.SUSPECT, 1 << 63)

    def _slander(self, kind: str, status: Status, raised: int) -> None:
        liar, victim, hearer = (self.rng.choice(self.world.processes) for _ in range(3))
        me = victim.engine.me
        claim = me._replace(status=status, incarnation=me.incarnation + raised)
        self._happened(kind, victim)
        payload = liar.engine.codec.encode(liar.engine.me.instance, Gossip((claim,)))
        self.world.network.send(self.world.now, liar.address, hearer.address, payload, stream=True)

    def _impostor(self, intensity: float) -> None:
        """Somebody with the key says of another, or as another, what only that one may say."""
        liar, victim = self.rng.sample(self.world.processes, 2)
        hearer, me, instance = self.rng.choice(self.world.processes), victim.engine.me, liar.engine.me.instance
        claim = self.rng.choice(
            (
                me.ended(Status.LEFT), me._replace(incarnation=me.incarnation + 1, by=(), status=Status.ALIVE),
                me._replace(addresses=(liar.address,)), me._replace(tags=()), me._replace(started=me.started + 1),
                me._replace(status=Status.SUSPECT, incarnation=1 << 63),
                me._replace(status=Status.DEAD, incarnation=me.incarnation + 1),
            )
        )  # fmt: skip
        notary = self.world.notary
        if notary is not None and self.rng.random() < 0.5:
            claim = claim._replace(proof=liar.engine.membership.identity.prove(statement(notary.cluster, claim)))
        message: Message = Gossip((claim,))
        if self.rng.random() < 0.3:
            message, instance = Gossip((me._replace(status=Status.DEAD),)), me.instance
        payload = liar.engine.codec.encode(instance, message)
        self._happened("impostor", victim)
        peer = liar.engine.me.instance
        self._for(self.rng.random() * 0.01, lambda: self.world.in_vain(hearer.address, payload, peer))

    def _replay(self, intensity: float) -> None:
        """Old packets come again, to whoever listens at that address now."""
        past = self.world.network.past
        for target, payload in self.rng.sample(past, min(len(past), 1 + int(20 * intensity))):
            self._happened("replay")
            self.world.deliver(self.world.now + self.rng.random(), target, payload)

    def _wrong_cluster(self, intensity: float) -> None:
        """A node of another cluster comes, and looks for others at our addresses."""
        self._happened("wrong_cluster")
        address = f"other:{self.world.happened['wrong_cluster']}"
        self.world.strangers[address] = Stranger(self.world, address, self.rng)


def _near(offset: float) -> float:
    return max(-NEAR, min(NEAR, offset))
