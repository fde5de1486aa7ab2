"""Is nobody called dead who is well, in the weather that other systems lost members to?

Stories of whole clusters on the virtual clock. In each, the world itself demands at every change of a member that
nobody is called dead who is well, and that nobody is a member who never was. What takes only two or three nodes and a
few packets is told in tests/protocol (test_probing, test_joining).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

import gossip
from gossip.protocol.members import Status
from tests.simulation.hours import bound, live
from tests.simulation.network import Cut, Trouble
from tests.simulation.options import Options, only
from tests.simulation.process import Process
from tests.simulation.run import run
from tests.simulation.strangers import Stranger
from tests.simulation.world import World

HOUR = 3600.0


def cluster(nodes: int, seed: int = 1, turns: float = 0.5, streams: bool = False, trace: bool = False) -> World:
    """A cluster of which everybody knows everybody, and writes now and then."""
    options = Options(nodes, 1e9, kinds={}, pace=1.0, turns=turns, discovery=True, streams=streams)
    world = World(seed, options, print if trace else None)
    for _ in range(nodes):
        world.later(world.rng.random(), lambda: world.start(None), "start")
    until(world, lambda: len(world.processes) == nodes and all_see(world.processes), within=30.0)
    world.workload.start()
    return world


def until(world: World, condition: Callable[[], bool], within: float) -> float:
    """Lets time pass until this holds; gives how long that took."""
    began = world.now
    while not condition():
        assert world.now - began <= within, f"not within {within:.0f} s"
        world.run(until=world.now + 0.1)
    return world.now - began


def seen(process: Process) -> set[int]:
    """The instances that a node takes for living, itself included."""
    return {process.engine.me.instance, *process.engine.members.peers()}


def all_see(processes: list[Process]) -> bool:
    """Whether these see each other, and nobody else."""
    together = {process.engine.me.instance for process in processes}
    return all(seen(process) == together for process in processes)


def agree(world: World) -> bool:
    """Whether all have the same data, as soon as nobody writes."""
    world.forget("turn")
    return len({process.engine.digest.context for process in world.processes}) == 1


# -- links (M6) ------------------------------------------------------------------------------------------------------


LINKS = {
    "not transitive": (None, True),
    "one way": (None, False),
    "datagrams only": (True, True),
    "datagrams only, one way": (True, False),
    "streams only": (False, True),
    "streams only, one way": (False, False),
}


@pytest.mark.parametrize("nodes", [3, 6])
@pytest.mark.parametrize(("stream", "both"), LINKS.values(), ids=LINKS)
def test_where_a_link_does_not_let_everything_through_data_converges_and_nobody_flaps(
    stream: bool | None, both: bool, nodes: int
) -> None:
    """M6. Between two of them, for two minutes; streams that can not be opened are given up again and again."""
    world = cluster(nodes, streams=True)
    one, other, *_ = world.processes
    world.network.cuts.append(Cut("link", frozenset({one.address}), frozenset({other.address}), both, stream))
    world.run(until=world.now + 120.0)
    assert world.suspected == set()
    until(world, lambda: agree(world), within=15.0)
    assert all_see(world.processes)


def test_where_a_firewall_stops_all_datagrams_everybody_stays_a_member() -> None:
    """Probes take a stream when no datagram is answered; so do their acks."""
    world = cluster(5)
    world.network.cuts.append(Cut("firewall", frozenset(p.address for p in world.processes[1:]), stream=False))
    world.network.cuts.append(Cut("firewall", frozenset(p.address for p in world.processes[:-1]), stream=False))
    world.run(until=world.now + 120.0)
    assert world.suspected == set()
    assert all_see(world.processes)


# -- stopped and slow ones (M7, M8, M12) -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deaf", "stands"),
    [
        (False, False),
        (True, False),
        (True, True),
    ],
)
def test_two_of_ten_are_stopped_for_twice_the_suspicion_time_and_all_others_stay(deaf: bool, stands: bool) -> None:
    """M7. By a signal, or with their hosts; whose monotonic clocks go on, or stand still and know of nothing. A stream
    of each to somebody has just ended, so that a probe with a short end is under way.
    """
    world = cluster(10)
    stopped, well = world.processes[:2], world.processes[2:]
    before = {process.engine.me.instance for process in well}
    for process in stopped:
        world.lost(process, well[0].engine.me.instance)
        process.paused, process.deaf, process.ill = True, deaf, True
    seconds = 2 * bound(world.options.settings, 10)
    world.run(until=world.now + seconds)
    assert all_see(well)
    for process in stopped:
        process.behind += seconds * stands
        world.resume(process)
    until(world, lambda: all_see(world.processes), within=40.0)
    world.run(until=world.now + 30.0)
    assert {process.engine.me.instance for process in well} == before
    # whose clock stood still can not tell that it was away: it suspects whom it asked before, and is refuted
    assert world.suspected <= ({(well[0].engine.me.instance, 0)} if stands else set())
    until(world, lambda: agree(world), within=15.0)


@pytest.mark.parametrize("stands", [False, True])
@pytest.mark.parametrize("everybody", [False, True])
def test_after_eight_hours_of_sleep_all_find_each_other(everybody: bool, stands: bool) -> None:
    """M12. A laptop with one worker of two, or with both."""
    world = cluster(2, turns=1e-9)
    first, second = world.processes
    sleeping = [first, second] if everybody else [second]
    for process in sleeping:
        process.paused = process.deaf = process.ill = True
    world.run(until=world.now + 8 * HOUR)
    for process in sleeping:
        process.behind += 8 * HOUR * stands
        world.resume(process)
    until(world, lambda: all_see([first, second]), within=70.0)
    until(world, lambda: agree(world), within=15.0)
    if everybody:
        assert world.happened["reborn"] == 0, "nobody was awake to bury anybody"


@pytest.mark.parametrize("seed", range(3))
def test_one_of_five_with_a_twentieth_of_a_cpu_takes_nobody_along(seed: int) -> None:
    """M8. It may be called dead itself; the others stay, and it accuses none of them to death."""
    world = cluster(5, seed)
    gray, *well = world.processes
    gray.gray, gray.ill = 0.02, True
    for _ in range(6):
        world.run(until=world.now + 15.0)
        world.block(gray, 5.0)
    world.recover(gray)
    assert all(seen(process) >= {other.engine.me.instance for other in well} for process in well)
    until(world, lambda: all_see(world.processes), within=40.0)


@pytest.mark.parametrize("seed", range(3))
def test_whoever_blocks_its_loop_for_five_seconds_again_and_again_takes_nobody_along(seed: int) -> None:
    """M8."""
    world = cluster(3, seed)
    blocked, *well = world.processes
    for _ in range(20):
        world.block(blocked, 5.0)
        world.run(until=world.now + 5.0 + world.rng.random())
    assert all(seen(process) >= {other.engine.me.instance for other in well} for process in well)
    until(world, lambda: all_see(world.processes), within=40.0)


@pytest.mark.parametrize("seed", range(2))
def test_where_thirty_percent_are_lost_nobody_dies(seed: int) -> None:
    """M8."""
    world = cluster(10, seed)
    world.network.troubles.append(Trouble("loss", 0.3))
    world.run(until=world.now + 120.0)
    assert all_see(world.processes)


@pytest.mark.parametrize("latency", [0.5, 1.0, 1.5, 2.0])
def test_where_every_packet_takes_seconds_nobody_dies(latency: float) -> None:
    """M8. Round trips of one to four seconds; with six a LAN's settings will not do (the suspected have four)."""
    world = cluster(5)
    world.network.troubles.append(Trouble("far", latency))
    world.run(until=world.now + 180.0)
    assert all_see(world.processes)


@pytest.mark.parametrize("latency", [0.5, 1.0, 1.5])
@pytest.mark.parametrize(("nodes", "seeds"), [(2, 4), (3, 8), (5, 2), (10, 1)])
def test_where_they_meet_over_links_of_seconds_nobody_dies(nodes: int, seeds: int, latency: float) -> None:
    """M8. With the settings of a LAN, and nobody knows yet how far the others are. At 1.5 s seven of ten clusters of
    three lost a healthy one: a late answer was none, and the suspected heard of it when its round came."""
    for seed in range(seeds):
        world = World(seed, Options(nodes, 1e9, {}, pace=1.0, turns=0.5, discovery=True, streams=False))
        world.network.troubles.append(Trouble("far", latency))
        for _ in range(nodes):
            world.later(world.rng.random(), lambda world=world: world.start(None), "start")
        world.workload.start()
        world.run(until=30.0)
        assert len(world.processes) == nodes and all_see(world.processes), seed
        met = len(world.suspected)
        world.run(until=45.0)
        assert len(world.suspected) <= met + 1, (seed, "by now they know")


@pytest.mark.parametrize("latency", [1.0, 1.5])
def test_who_joins_those_who_are_far_from_each_other_kills_nobody_and_lives(latency: float) -> None:
    """M8. Those who are there expect of who comes that it is as far as the others; it has to learn that itself."""
    world = cluster(5)
    world.network.troubles.append(Trouble("far", latency))
    world.run(until=world.now + 60.0)
    for _ in range(3):
        world.start(None)
        world.run(until=world.now + 20.0)
    assert all_see(world.processes)
    victim, *left = world.processes
    world.crash(victim)
    far = 2 * latency * (4 + 2)  # a probe of one who is far, its refutation that does not come, and the news of it
    until(world, lambda: all_see(left), within=bound(world.options.settings, 8) + far)


@pytest.mark.parametrize("weather", [("loss", 0.0), ("datagram_loss", 0.3), ("loss", 0.1)], ids=str)
@pytest.mark.parametrize("nodes", [2, 5])
def test_where_every_packet_takes_three_seconds_nobody_dies_by_the_settings_for_that(
    nodes: int, weather: tuple[str, float]
) -> None:
    """They meet there, too, live there for ten minutes, and change their tags; and one that crashes is missed."""
    settings = gossip.Config.wan()
    options = Options(nodes, 1e9, {}, pace=1.0, turns=0.2, discovery=True, streams=nodes > 2, settings=settings)
    world = World(7, options)
    world.network.troubles += [Trouble("far", 3.0), Trouble(*weather)]
    for _ in range(nodes):
        world.later(world.rng.random(), lambda: world.start(None), "start")
    world.workload.start()
    until(world, lambda: len(world.processes) == nodes and all_see(world.processes), within=120.0)
    world.run(until=world.now + 300.0)
    for process in world.processes:
        world.retag(process, (("role", "x" * 4_000),))
    world.run(until=world.now + 300.0)
    assert all_see(world.processes) and (world.suspected == set() or weather == ("loss", 0.1))
    for process in world.processes:
        tables = [other.engine.members.table for other in world.processes]
        assert all(table[process.engine.me.instance].tags == process.engine.me.tags for table in tables)
    assert all(process.watch.ready for process in world.processes)
    victim, *left = world.processes
    world.crash(victim)
    until(world, lambda: all_see(left), within=6 * bound(settings, nodes))  # a suspicion that nobody confirms


# -- many at once (M1, M9) -------------------------------------------------------------------------------------------


def test_a_hundred_that_start_at_once_know_each_other_a_second_later() -> None:
    """M9."""
    world = cluster(100, turns=1e-9)
    assert world.now < 5.0
    world.run(until=world.now + 5.0)
    assert all_see(world.processes)
    assert world.suspected == set()


def test_half_of_them_are_killed_at_once_and_the_other_half_is_left_alone() -> None:
    """M9."""
    world = cluster(30, turns=1e-9)
    killed, left = world.processes[::2], world.processes[1::2]
    for process in killed:
        world.crash(process)
    until(world, lambda: all_see(left), within=bound(world.options.settings, 30))
    world.run(until=world.now + 10.0)
    assert all_see(left)
    assert world.suspected == set()


@pytest.mark.parametrize("seed", range(3))
def test_all_restart_at_once_again_and_again_while_their_deaths_go_round(seed: int) -> None:
    """M1: the stale claims have great incarnations; they are of who was there before."""
    report = run(seed, options=only(seed, "mass_restart"))
    assert not report.failure
    assert report.happened["mass_restart"] and not report.happened["reborn"]


# -- addresses (M5) --------------------------------------------------------------------------------------------------


def test_at_the_address_of_a_dead_member_a_node_of_another_cluster_is_nobodys_member() -> None:
    """M5 [alertmanager #2250, akka #26284]. The clusters look for each other there all the time."""
    world = cluster(4)
    *others, victim = world.processes
    dead = victim.engine.me.instance
    world.crash(victim)
    stranger = world.strangers[victim.address] = Stranger(world, victim.address, world.rng)
    friend = world.strangers["other:1"] = Stranger(world, "other:1", world.rng)
    until(world, lambda: all_see(others), within=bound(world.options.settings, 4))
    world.run(until=world.now + 120.0)
    assert all_see(others)
    assert all(process.engine.members.table[dead].status == Status.DEAD for process in others)
    assert all(process.engine.counters["malformed"] for process in others), "they did hear of each other"
    assert stranger.engine.members.peers() == [friend.engine.me.instance]


# -- false positives -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_beside_one_gray_node_of_ten_no_healthy_member_is_called_dead(seed: int) -> None:
    """A node-hour each; `make gray` lives for a hundred."""
    report = live(seed, hours=0.1)
    assert not report.failure
    assert report.blocked and report.suspected <= 2
    assert report.noticed <= bound(only(0).settings, 10)
