"""What goes wrong, when, and for whom?

One fault at a time is begun, at random intervals, of the kinds that the options allow; each ends by itself after a
while. Invariants: at least two nodes live at any time; after `stop` nothing is wrong any more. Every fault that
happened is counted. Not here: what a fault does to a packet (`network`).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from gossip.protocol.members import Status
from gossip.protocol.messages import Gossip
from tests.simulation.network import Cut, Trouble
from tests.simulation.options import CLOCKS, LIES, LINKS, LIVES, WEATHER

if TYPE_CHECKING:
    from tests.simulation.world import Process, World

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
            **{kind: getattr(self, f"_{kind}") for kind in LINKS + LIVES + CLOCKS + LIES if kind != "skew"},
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
            process.offset = max(-NEAR, min(NEAR, process.offset))
            world.resume(process)

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
        running = [process for process in self.world.processes if not process.paused]
        return self.rng.choice(running) if running else None

    # -- weather and links -----------------------------------------------------------------------------------------

    def _weather(self, kind: str) -> Callable[[float], None]:
        """Packets suffer for a while. What is counted is each packet, by the network."""
        span = {
            "loss": (0.02, 0.5),
            "delay": (0.02, 2.0),
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

    def _end_of_somebody(self, kind: str) -> str | None:
        if len(self.world.processes) <= 2:
            return None
        process = self.rng.choice(self.world.processes)
        self._happened(kind, process)
        if not process.paused and self.rng.random() < 0.3:
            self.world.dies_while_sending(process)
        else:
            self.world.crash(process)
        return process.address

    def _start(self, address: str | None) -> None:
        if len(self.world.processes) < MOST and address not in self.world.listening:
            self.world.start(address, self.offset())

    def _pause(self, intensity: float) -> None:
        process = self._running()
        if process is None:
            return
        self._happened("pause", process)
        process.paused = True
        long = self.rng.random() < 0.4
        seconds = self.rng.uniform(6.0, 25.0) if long else self.rng.uniform(0.05, 3.0)
        self._for(seconds, lambda: self.world.resume(process))

    # -- clocks ----------------------------------------------------------------------------------------------------

    def offset(self) -> float:
        """By how much the clock of a new node is wrong."""
        if "skew" not in self.kinds:
            return 0.0
        self.world.happened["skew"] += 1
        return self.rng.uniform(-NEAR, NEAR) * self.kinds["skew"]

    def _step_back(self, intensity: float) -> None:
        process = self.rng.choice(self.world.processes)
        if abs(process.offset) <= NEAR:
            self._happened("step_back", process)
            process.offset = self.rng.uniform(-NEAR, process.offset)

    def _future(self, intensity: float) -> None:
        self._wrong_clock("future", self.rng.uniform(12.0, 15.0 + 30.0 * intensity))

    def _past(self, intensity: float) -> None:
        self._wrong_clock("past", -self.rng.choice((15.0, 3600.0)))

    def _wrong_clock(self, kind: str, offset: float) -> None:
        process = self.rng.choice(self.world.processes)
        if abs(process.offset) > NEAR:
            return
        self._happened(kind, process)
        right, process.offset = process.offset, offset
        self._for(self.rng.uniform(0.5, 15.0), lambda: setattr(process, "offset", right))

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
        self.world.network.send(self.world.now, liar.address, hearer.address, payload)

    def _replay(self, intensity: float) -> None:
        """Old packets come again, to whoever listens at that address now."""
        past = self.world.network.past
        for target, payload in self.rng.sample(past, min(len(past), 1 + int(20 * intensity))):
            self._happened("replay")
            self.world.deliver(self.world.now + self.rng.random(), target, payload)
