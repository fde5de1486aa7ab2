"""Do nodes on a network that breaks go on, and agree again by themselves when it is whole?

Real processes, each on a machine of its own (a network namespace). Intervals are short, so that what takes minutes
takes seconds. What must not happen meanwhile is asked of the events that every worker was told.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

import pytest

from tests.integration.lan import FAST, LONG, PORT, TROUBLE, Ears, Lan, heard, lan_of
from tests.integration.processes import Worker, agree, host
from tests.namespaces import needs_namespaces

pytestmark = needs_namespaces
STEADY = {name: FAST[name] for name in ("heal_interval", "discovery_interval")}
"""Probes as usual, where nobody may be suspected: whoever is tested on a busy machine is late as well."""
A_WHILE = 30.0 if LONG else 3.0


@pytest.fixture
def three() -> Iterator[tuple[Lan, list[Worker]]]:
    """Three machines, new for each test: where a link was broken, the kernel sends again only after as long a while,
    and a witness who is asked by such a stream hears of it too late."""
    with host(f"test-{secrets.token_hex(4)}") as here, lan_of(here) as lan:
        yield lan, lan.several(3, **STEADY)


def converge(workers: list[Worker], label: str, timeout: float = 20.0) -> None:
    """Each writes, and waits for what the others wrote."""
    for worker in workers:
        worker.ask("set", key=f"{label} {worker.settings['name']}", value=label)
    expected = {f"{label} {each.settings['name']}" for each in workers}
    for worker in workers:
        worker.until(lambda worker: expected <= worker.ask("map").keys(), f"all of {expected} is here", timeout)


def all_alive(workers: list[Worker], timeout: float = 20.0) -> None:
    """Waits until each takes them all for alive, and nobody else."""
    everybody = sorted(worker.settings["name"] for worker in workers)
    for worker in workers:
        worker.until(lambda worker: living(worker, "alive") == everybody, f"alive are {everybody}", timeout)


def living(worker: Worker, *statuses: str) -> list[str]:
    return sorted(each["name"] for each in worker.ask("members") if each["status"] in statuses)


def peaceful(workers: list[Worker], seconds: float) -> None:
    """Has them write and agree, over and over, for as long: nobody is suspected meanwhile, nor called dead."""
    ears = Ears(workers)
    begun, rounds = time.monotonic(), 0
    while time.monotonic() < begun + seconds:
        converge(workers, f"round {rounds}")
        rounds += 1
        time.sleep(0.05)  # waits: the pace of the writes, nothing is asserted after it
    print(f"{rounds} rounds of writes in {seconds} s")
    assert ears.heard(*TROUBLE) == {}


def mended(lan: Lan, workers: list[Worker]) -> None:
    """Streams go on when the kernel sends again what was lost, which may be as long after as they were broken."""
    lan.heal()
    all_alive(workers)
    begun = time.monotonic()
    converge(workers, f"mended at {begun}", timeout=20.0 + 3 * A_WHILE)
    print(f"data agrees {time.monotonic() - begun:.2f} s after the mending")


def sides_agree_again(lan: Lan, workers: list[Worker]) -> None:
    lan.heal()
    healed = time.monotonic()
    all_alive(workers)
    known = time.monotonic()
    agree(workers, "map", {"before": 1, "left": 1, "right": 1})
    agree(workers, "value", 4)
    print(f"members agree {known - healed:.2f} s after the healing, data {time.monotonic() - healed:.2f} s after it")
    converge(workers, "after")
    for worker in workers:
        assert worker.ask("status")["counters"].get("diverged", 0) == 0


def test_a_short_partition_costs_nobody_his_place(lan: Lan) -> None:
    workers = lan.several(4, suspicion_factor=60.0, **FAST)
    workers[0].ask("set", key="before", value=1)
    agree(workers, "map", {"before": 1})
    lan.partition([1, 2], [3, 4])
    write_on_both_sides(workers)
    for worker in workers:
        worker.until(lambda worker: len(living(worker, "suspect")) == 2, "it suspects the other side")
    sides_agree_again(lan, workers)
    for worker in workers:
        assert heard(worker, "died", "reborn") == []


def write_on_both_sides(workers: list[Worker]) -> None:
    for worker in workers:
        worker.ask("count", amount=1)
    for key, side in (("left", workers[:2]), ("right", workers[2:])):
        side[0].ask("set", key=key, value=1)
        agree(side, "map", {"before": 1, key: 1})
        agree(side, "value", 2)


@pytest.mark.parametrize("memory", ["they remember", "they forgot"])
def test_sides_that_called_each_other_dead_become_one_again(lan: Lan, memory: str) -> None:
    """M3: by the addresses of the dead alone; and when both have forgotten that the other ever was, by a seed alone."""
    forgot = memory == "they forgot"
    workers = lan.several(4, **FAST | ({"remember_dead": 1.0} if forgot else {"discovery_interval": 60.0}))
    workers[0].ask("set", key="before", value=1)
    agree(workers, "map", {"before": 1})
    lan.partition([1, 2], [3, 4])
    cut = time.monotonic()
    write_on_both_sides(workers)
    for worker in workers:
        worker.until(lambda worker: len(worker.living()) == 2, "the other side is dead to it")
    print(f"called dead after {time.monotonic() - cut:.2f} s")
    if forgot:
        for worker in workers:
            worker.until(lambda worker: len(worker.ask("members")) == 2, "it has forgotten them")
    for machine in lan.machines:
        machine.give_up_streams()
    sides_agree_again(lan, workers)
    said = lan.gossip(workers[3], "members")
    assert sorted(each["name"] for each in said if each["status"] == "alive") == ["m1", "m2", "m3", "m4"]
    assert lan.gossip(workers[3], "get", "shared", "left") == 1, "and so it is told to people"


@pytest.mark.timeout(240 if LONG else 60)
def test_a_link_that_works_in_one_direction_only_harms_nobody(three: tuple[Lan, list[Worker]]) -> None:
    """M6: the second machine hears nothing of the first, which hears all that the second says."""
    lan, workers = three
    first, second, _ = lan.machines
    second.deaf_to(first)
    peaceful(workers, A_WHILE)
    assert second.refused() > 0
    mended(lan, workers)


@pytest.mark.timeout(240 if LONG else 60)
def test_two_who_do_not_hear_each_other_agree_through_a_third(three: tuple[Lan, list[Worker]]) -> None:
    """M6: non-transitive, A-B and B-C, but not A-C."""
    lan, workers = three
    first, _, third = lan.machines
    first.deaf_to(third)
    third.deaf_to(first)
    peaceful(workers, A_WHILE)
    assert first.refused() > 0 and third.refused() > 0
    mended(lan, workers)


def test_a_network_that_drops_all_datagrams_lets_everybody_join_and_live(lan: Lan) -> None:
    machines = [lan.machine() for _ in range(3)]
    for machine in machines:
        machine.refuse(f"udp dport {PORT}")
    workers = [lan.begin(machine, **STEADY) for machine in machines]
    for worker in workers:
        worker.ready()
    all_alive(workers)
    peaceful(workers, A_WHILE)
    assert all(machine.refused() > 0 for machine in machines)


@pytest.mark.timeout(240 if LONG else 60)
def test_a_network_that_drops_all_streams_calls_nobody_dead(three: tuple[Lan, list[Worker]]) -> None:
    """Data needs streams, so it waits; that everybody lives, datagrams show."""
    lan, workers = three
    for machine in lan.machines:
        machine.refuse("meta l4proto tcp")
    ears = Ears(workers)
    workers[0].ask("set", key="meanwhile", value=1)
    begun = time.monotonic()
    while time.monotonic() < begun + A_WHILE:
        assert ears.heard(*TROUBLE) == {}
        time.sleep(0.1)  # waits: between two looks at what must not happen
    assert workers[1].ask("get", key="meanwhile") is None and lan.machines[1].refused() > 0
    mended(lan, workers)
    agree(workers, "get", 1, key="meanwhile")
