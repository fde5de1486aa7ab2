"""When all faults are over, does everything come right, and then quiet?

A random core of living nodes is healed; the others crash, or stay cut off and live on alone. Within a bound of virtual
time (`patience` says how it follows from the settings) the core must agree on all data and all members; afterwards only
the idle probes may go on.

Invariant: what anybody in the core had delivered, or had published, is at everybody's in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from math import inf, log10
from typing import Any

from crdt import FOREVER, WITH_AUTHOR, Link, Live, State, chain, encode_state, visible
from crdt.live import linked, packed
from crdt.timestamp import milliseconds
from gossip.protocol.members import Status
from tests.simulation.faults import NEAR
from tests.simulation.model import Violation, demand
from tests.simulation.network import Cut
from tests.simulation.process import Process
from tests.simulation.world import DISCOVERY, EPOCH, World

CALM = 10.0
"""Seconds after the core agreed in which probes and repairs that began before may end: eight repairs of a second."""
QUIET = 20.0
"""Seconds that the core is watched after that."""


def play(world: World) -> float:
    """A whole history: the cluster starts, lives through its faults, heals. Gives the seconds that healing took."""
    for _ in range(world.options.nodes):
        world.later(world.rng.random() * 2.0, lambda: world.start(None, world.faults.offset()), "start")
    world.later(3.0, world.workload.start, "turn")
    world.later(4.0, world.faults.start, "fault")
    world.run(until=world.options.seconds)
    core = _heal(world)
    due = _promised(core)
    patience = _patience(world, core)
    began = world.now
    while reason := _unsettled(core, due):
        demand(world.now - began < patience, f"not healed after {patience:.0f} s:", reason)
        world.run(until=world.now + 0.5)
    took = world.now - began
    _quiet(world, core)
    for process in world.processes:
        process.watch.everything()
        world.happened["confirmed"] += process.watch.confirmed
    return took


def _heal(world: World) -> list[Process]:
    """All faults end, for a core of at least two; the others are no more, or on their own."""
    world.forget("turn", "fault", "end", "flush")
    world.faults.stop()
    while len(world.processes) < 2:
        world.start(None)
    for process in world.processes:
        while process.watch.depth:
            world.end(process)
        world.settle(process)
    core = sorted(
        world.rng.sample(world.processes, world.rng.randint(2, len(world.processes))), key=lambda one: one.number
    )
    crashes = world.rng.random() < 0.5
    for process in [process for process in world.processes if process not in core]:
        if crashes:
            world.crash(process)
    world.network.cuts.append(Cut("the rest", frozenset(process.address for process in core)))
    world.note(None, f"healed: {[process.number for process in core]}")
    _introduce(world, core)
    return core


def _introduce(world: World, core: Sequence[Process]) -> None:
    """Without discovery, nodes that no chain of addresses connects could never meet: only then they get it.

    The address of one that left counts for nothing: nobody is looked for there again, whoever listens there now.
    """
    addresses = {process.address for process in core}
    knows: dict[str, set[str]] = {address: {address} for address in addresses}
    for process in core:
        claims = process.engine.members.table.values()
        told = {address for claim in claims if claim.status != Status.LEFT for address in claim.addresses}
        for address in sorted((told | set(process.seeds)) & addresses):
            together = knows[process.address] | knows[address]
            for member in together:
                knows[member] = together
    if not world.options.discovery and any(group != addresses for group in knows.values()):
        for process in core:
            process.seeds = sorted(addresses - {process.address})


def _promised(core: Sequence[Process]) -> dict[int, int]:
    """What must be everywhere in the end: all that anybody in the core had delivered; his own writes are among it."""
    due: dict[int, int] = {}
    for process in core:
        demand(not process.watch.tail, "a write did not leave at the end of its turn", process.watch.tail)
        for replica, sequence in process.watch.shadow.context.items():
            due[replica] = max(sequence, due.get(replica, 0))
    return due


def _patience(world: World, core: Sequence[Process]) -> float:
    """How long healing may take, in virtual seconds.

    Writes from the future wait until they are not. Then those who lost each other must meet: a round of discovery, or,
    where only healing brings them together, so many attempts at two of all dead addresses that missing each other has a
    chance of one in 10 000. Whoever is gone must be probed (one member an interval), suspected and buried, twice over
    since the first round may go to members that are gone themselves; nobody may be there to confirm it, which takes six
    times as long, and who was ill probes slower until it has been answered seven times. What comes from a disk may be
    owned by somebody whom nobody knows; a minute later that is called dead. A difference in data is seen at the next
    probe of each other; it may take three rounds of it (down the longest chain of who has what), each with a transfer
    that is given up once.
    """
    settings = world.options.settings
    right = (EPOCH + world.now) * 1000
    stamps = [live.stamp for one in core for chain in one.watch.shadow.live.values() for live in chain.values()]
    ahead = max((milliseconds(stamp) - right) / 1000 for stamp in [int(right) << 16, *stamps])
    future = max(0.0, ahead + NEAR - settings.max_clock_skew)
    believed = max(len(one.engine.members.peers()) for one in core) + len(core)
    rounds = believed * settings.probe_interval
    suspicion = 6 * settings.suspicion_factor * max(1.0, log10(believed + 1)) * settings.probe_interval
    recovery = sum(range(1, 8)) * settings.probe_interval
    burial = 2 * (rounds + 2 * settings.probe_interval + suspicion) + recovery
    transfer = 6 * settings.pull_timeout + settings.transfer_timeout
    meeting = DISCOVERY
    if not world.options.discovery:
        dead = max(len(set(world.where.values())), 2)
        meeting += settings.heal_interval * (1 + 9.2 * dead / 2)
    unknown = 70.0 if world.options.disks else 0.0
    return future + meeting + burial + 3 * (rounds + transfer) + unknown


def _unsettled(core: Sequence[Process], due: dict[int, int]) -> str:
    """What is not as it must be in the end; empty if all is."""
    first = core[0]
    store = first.engine.replication.store
    living = {process.engine.me.instance for process in core}
    for process in core:
        engine, who = process.engine, f"node {process.number}"
        mine = engine.replication.store
        if mine.context != store.context:
            return f"{who} and {first.number} have other contexts"
        if any(mine.context[replica] < sequence for replica, sequence in due.items()):
            return f"{who} misses what was delivered"
        table = engine.members.table
        for instance in living:
            if instance not in table or table[instance].status != Status.ALIVE:
                return f"{who} does not see {instance:016x} alive: {table.get(instance)}"
            if instance in engine.membership.hearsay:
                return f"{who} was only told of {instance:016x}"
        for other in core:
            said = table[other.engine.me.instance]
            if said.tags != other.engine.me.tags:
                return f"{who} sees other tags at {other.number} than it has: {said}"
        for instance, claim in table.items():
            if instance not in living and not claim.gone:
                return f"{who} does not know that {claim} is gone"
        if any(not _buried(core, replica) for replica in engine.replication.inbox.waiting()):
            return f"{who} holds back {engine.replication.inbox.waiting()}"
        if engine.transfers.deadline != inf:
            return f"{who} has a transfer under way"
        if not process.watch.ready:
            return f"{who} is not ready"
        if any(live[1] not in table for live in _owning(process)):
            return f"{who} has what somebody owns whom it does not know"
    if len({encode_state(_lasting(process)) for process in core}) > 1:
        raise Violation("equal contexts, unequal bytes")
    if len({_owned(process) for process in core}) > 1:
        return "what is owned is not the same everywhere"
    if any(live[1] not in living for _, _, live in _owned(first)):
        return "what the dead owned is shown"
    return ""


def _lasting(process: Process) -> State:
    """The state without what expires or is owned: that, each may drop at another moment."""
    state = process.engine.replication.store.state()
    objects: dict[Any, dict[bytes, Live]] = {}
    for name, elements in state.objects.items():
        for element, head in elements.items():
            lasting = packed(linked([link for link in chain(head) if link[4] == FOREVER], None))
            if lasting is not None:
                objects.setdefault(name, {})[element] = lasting
    return state._replace(objects=objects)


def _owning(process: Process) -> list[Link]:
    """All owned writes that a node has, seen or not."""
    store = process.engine.replication.store
    keys = [(*name, element) for name, elements in store.mortal.items() for element in elements]
    return [link for key in keys for link in chain(store.shown(key)) if link[4] == WITH_AUTHOR]


def _owned(process: Process) -> frozenset[tuple[Any, ...]]:
    """What is owned, as a reader sees it."""
    store, members = process.engine.replication.store, process.engine.members
    return frozenset(
        (name, element, link[:4])
        for name, elements in store.mortal.items()
        for element in elements
        for link in visible(store.shown((*name, element)), 0, members)
        if link[4] == WITH_AUTHOR
    )


def _buried(core: Sequence[Process], replica: int) -> bool:
    """Whether the author is gone, so that what lies before its held writes may have died with it."""
    return all(replica != process.engine.replication.replica for process in core)


def _quiet(world: World, core: Sequence[Process]) -> None:
    """Nothing but idle probes: a ping an interval and an ack for it, and knocking at the doors of the dead."""
    # who mistrusted itself most probes at its own pace again when it has been answered seven times
    world.run(until=world.now + CALM + sum(range(1, 9)) * world.options.settings.probe_interval)
    before, pinged, news = world.sent.copy(), world.pings.copy(), [process.watch.news for process in core]
    world.run(until=world.now + QUIET)
    demand(news == [process.watch.news for process in core], "members change in a quiet cluster")
    sent = world.sent - before
    probes = QUIET / world.options.settings.probe_interval + 1
    for process in core:
        for kind in ("Push", "Pull", "StatePart", "StateNext", "Sums", "PingReq", "Gossip", "Welcome"):
            demand(not sent[process.address, kind], f"{kind} is sent in a quiet cluster by", process.number)
        demand(sent[process.address, "Ping"] <= probes, "too many pings in a quiet cluster", process.number)
    acks = sum(sent[process.address, "Ack"] for process in core)
    demand(acks <= probes * len(core), "too many acks in a quiet cluster", acks)
    if 2 * (len(core) - 1) < probes:  # then each has time for a whole round
        for one, other in permutations(core, 2):
            asked = world.pings[one.address, other.address] - pinged[one.address, other.address]
            demand(asked > 0, "a member is not probed", one.number, other.number)
    demand(not _unsettled(core, {}), "it did not stay healed:", _unsettled(core, {}))
