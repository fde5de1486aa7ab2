"""What came of a seed?

Plays a seed and gives a report that another process can send back: figures, and one line if a promise was broken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.simulation.ending import play
from tests.simulation.model import Violation
from tests.simulation.options import Options, draw
from tests.simulation.world import World


@dataclass
class Report:
    """What came of a seed."""

    seed: int
    failure: str = ""
    digest: str = ""
    events: int = 0
    seconds: float = 0.0
    healing: float = 0.0
    happened: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)


def run(
    seed: int,
    nodes: int = 0,
    seconds: float = 0.0,
    trace: Callable[[str], None] | None = None,
    options: Options | None = None,
) -> Report:
    """Plays one seed to its end, or to the first broken promise."""
    options = options or draw(seed, nodes, seconds)
    if trace:
        trace(f"seed {seed}: {options}")
    world = World(seed, options, trace)
    report = Report(seed)
    try:
        report.healing = play(world)
    except Exception as error:
        if trace and not isinstance(error, Violation):
            raise
        violation = error if isinstance(error, Violation) else f"the simulation itself raised {error!r}"
        more = f" --nodes {nodes}" * bool(nodes) + f" --seconds {seconds:g}" * bool(seconds)
        replay = f"replay: python -m tests.simulation --seeds {seed}{more}"
        report.failure = f"seed {seed} at {world.now:.3f} s: {violation}; {replay}"
    report.digest, report.events, report.seconds = world.digest, world.events, world.now
    report.happened = world.happened
    everybody = [*world.processes, *world.gone]
    report.counts = Counter(
        writes=world.writes,
        deliveries=sum(process.watch.delivered for process in everybody),
        states=sum(process.engine.counters["states_received"] for process in everybody),
        differences=sum(process.engine.counters["differences_received"] for process in everybody),
        relayed=sum(process.engine.counters["relayed"] for process in everybody),
        nodes=len(everybody),
    )
    return report
