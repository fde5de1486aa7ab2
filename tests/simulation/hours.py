"""Is a healthy member ever called dead while another one is sick? And is a dead one missed in time?

Ten nodes live for hours in fair weather. One of them is gray: it gets 5 % of a CPU, so each packet and each timer takes
it some twenty times as long, and now and then its loop stands still for seconds. Datagrams get lost, one of a hundred.
In the end a healthy one crashes.

Invariants: nobody ever calls a healthy one dead (`World` looks at each change of a member); all others that are well
notice the crash within `bound`. How often a healthy one was suspected is counted, for it should be next to never.

Source: Lifeguard (Dadgar et al. 2017), section V, measures the same: false positives at healthy members.
Not here: what one seed draws (`options`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log10

from gossip.protocol.settings import Settings
from tests.simulation.model import Violation, demand
from tests.simulation.network import Trouble
from tests.simulation.options import Options
from tests.simulation.process import Process
from tests.simulation.world import World

NODES = 10
COST = 0.02
"""Seconds that a packet or a timer takes the gray one: a millisecond of work, on a twentieth of a CPU."""
BLOCKED = 5.0
"""Seconds for which its loop stands still at most."""
EVERY = 30.0
"""Seconds between two times that it does."""
LOST = 0.01
"""Of all datagrams."""


@dataclass
class Hours:
    """What came of some hours."""

    seed: int
    hours: float
    failure: str = ""
    suspected: int = 0
    """How often a healthy member was."""
    blocked: int = 0
    """How often the loop of the gray one stood still."""
    buried: int = 0
    """How often the gray one was called dead, and went on as another instance."""
    noticed: float = 0.0
    """Seconds until all knew of the crash."""


def live(seed: int, hours: float, nodes: int = NODES, trace: Callable[[str], None] | None = None) -> Hours:
    """Plays the hours of a seed, to their end or to the first broken promise."""
    options = Options(nodes=nodes, seconds=hours * 3600, kinds={}, pace=1.0, turns=0.05, discovery=True, streams=False)
    world = World(seed, options, trace)
    report = Hours(seed, hours)
    try:
        _live(world, report)
    except Violation as violation:
        replay = f"replay: python -m tests.simulation --hours {hours:g} --seeds {seed}"
        report.failure = f"seed {seed} at {world.now:.3f} s: {violation}; {replay}"
    report.suspected = len(world.suspected)
    report.blocked, report.buried = world.happened["blocked"], world.happened["reborn"]
    return report


def bound(settings: Settings, members: int) -> float:
    """Seconds within which all know of a crash: one prober reaches everybody within two rounds, its probe takes an
    interval, and a suspect has its time to refute."""
    suspicion = settings.suspicion_factor * max(1.0, log10(members))
    return (2 * (members - 1) + 1 + suspicion) * settings.probe_interval


def _live(world: World, report: Hours) -> None:
    for _ in range(world.options.nodes):
        world.later(world.rng.random() * 2.0, lambda: world.start(None), "start")
    world.run(until=5.0)
    gray, *healthy = world.processes
    world.network.troubles.append(Trouble("datagram_loss", LOST))
    gray.gray, gray.ill = COST, True
    world.later(world.rng.expovariate(1 / EVERY), lambda: _block(world, gray), "fault")
    world.workload.start()
    world.run(until=world.options.seconds)
    victim, *others = healthy
    victim.ill = True
    world.crash(victim)
    crashed, dead = world.now, victim.engine.me.instance
    while any(dead in other.engine.members for other in others):
        world.run(until=world.now + 0.1)
        report.noticed = world.now - crashed
        demand(report.noticed <= bound(world.options.settings, world.options.nodes), "a crash is not noticed in time")


def _block(world: World, gray: Process) -> None:
    world.happened["blocked"] += 1
    world.block(gray, world.rng.uniform(1.0, BLOCKED))
    world.later(world.rng.expovariate(1 / EVERY), lambda: _block(world, gray), "fault")
