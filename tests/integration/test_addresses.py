"""Do nodes meet whatever kind of addresses their machines have, and whatever their names resolve to?

Real processes, each on a machine of its own (a network namespace).
"""

from __future__ import annotations

import signal
import sys

import pytest

from tests.integration.lan import FAST, PORT, TROUBLE, Ears, Lan, acquainted
from tests.integration.processes import Worker, network_ports
from tests.namespaces import Machine, needs_namespaces

pytestmark = needs_namespaces
EVERYWHERE = f"0.0.0.0:{PORT}"
SOON = 4.0


def speak(workers: list[Worker]) -> None:
    """Each writes, all get it, and each has had an ack of each, before anybody was suspected."""
    ears = Ears(workers)
    exchange(workers)
    for worker in workers:
        worker.until(
            lambda worker: all(
                each["rtt"] for each in worker.ask("members") if each["name"] != worker.settings["name"]
            ),
            "it had an ack of everybody",
        )
    assert ears.heard(*TROUBLE) == {}


def exchange(workers: list[Worker]) -> None:
    names = {worker.settings["name"] for worker in workers}
    for worker in workers:
        worker.ask("set", key=worker.settings["name"], value=1)
    for worker in workers:
        worker.until(lambda worker: worker.ask("map").keys() == names, "all that was written is here", SOON)


def test_where_there_is_ipv6_alone_they_meet(lan: Lan) -> None:
    machines = [lan.machine(ipv4=False, ipv6=True) for _ in range(3)]
    workers = acquainted([lan.begin(machine, **FAST) for machine in machines])
    speak(workers)
    for worker in workers:
        assert {line.split()[0] for line in network_ports(worker.pid)} == {"tcp6", "udp6"}


def test_some_that_listen_at_ipv4_and_some_at_ipv6_meet_where_all_have_both(lan: Lan) -> None:
    machines = [lan.machine(ipv6=True) for _ in range(3)]
    binds = [machine.ipv4 if machine.number != 2 else f"[{machine.ipv6}]" for machine in machines]
    workers = [lan.begin(machine, bind=f"{bind}:{PORT}", **FAST) for machine, bind in zip(machines, binds, strict=True)]
    speak(acquainted(workers))


def test_one_that_listens_at_every_address_of_both_is_found_by_either(lan: Lan) -> None:
    first, second = lan.machine(ipv6=True), lan.machine(ipv6=True)
    one = lan.begin(first, bind=f"[::]:{PORT}", seeds=[], **FAST).ready()
    two = lan.begin(second, seeds=[f"{first.ipv4}:{PORT}"], **FAST).ready()
    two.until(lambda two: two.living() == ["m1", "m2"], "they have met", SOON)
    speak([one, two])


@pytest.mark.parametrize("advertised", [True, False], ids=["it is advertised", "it is found out"])
def test_a_name_that_is_loopback_at_home_leads_nobody_astray(lan: Lan, advertised: bool) -> None:
    """M12: as Debian has it, where /etc/hosts says 127.0.1.1 for the machine's own name; others resolve it well."""
    machines = [lan.machine() for _ in range(3)]
    names = {f"{machine.number}.example": machine.ipv4 for machine in machines}
    workers = []
    for machine in machines:
        own = f"{machine.number}.example"
        known = {"localhost": "127.0.0.1", **names, own: "127.0.1.1"}
        (machine.files / "hosts").write_text("".join(f"{ip} {name}\n" for name, ip in known.items()))
        named = {"advertise": f"{own}:{PORT}"} if advertised else {}
        workers.append(lan.begin(machine, bind=EVERYWHERE, seeds=[f"1.example:{PORT}"], **named, **FAST).ready())
    for worker in workers:
        worker.until(lambda worker: len(worker.living()) == 3, "all know each other")
    speak(workers)
    shown = {each["name"]: each["address"] for each in workers[0].ask("members")}
    assert shown["m2"] == (f"2.example:{PORT}" if advertised else f"10.77.0.2:{PORT}")


def test_a_network_without_a_way_out_will_do(lan: Lan) -> None:
    """A switch and machines, no gateway: as in a laboratory, a plant or a rack of its own."""
    machines = [lan.machine(gateway=False) for _ in range(2)]
    workers = [lan.begin(machine, bind=EVERYWHERE, **FAST).ready() for machine in machines]
    for worker in workers:
        worker.until(lambda worker: worker.living() == ["m1", "m2"], "they have met", SOON)
    speak(workers)


def test_one_whose_address_changes_stays_or_comes_back(lan: Lan) -> None:
    """M12: a new lease, another network of a laptop. It listens everywhere, and says itself where it is."""
    workers = acquainted([lan.begin(lan.machine(), bind=EVERYWHERE, **FAST) for _ in range(3)])
    ears = Ears(workers[:2])
    moved(lan.machines[2])
    there = {"10.77.0.1", "10.77.0.2", "10.77.0.33"}
    for worker in workers:
        worker.until(lambda worker: there == addresses(worker), "it is where it is", 2 * SOON)
    exchange(workers)
    assert ears.heard("reborn") == {}, "those who stayed were not called dead"


@pytest.mark.parametrize("asleep", [True, False], ids=["it sleeps", "it is cut off"])
def test_one_that_is_called_dead_and_turns_up_elsewhere_comes_back(lan: Lan, asleep: bool) -> None:
    """M12: a laptop that is carried to another place, asleep or awake; then it calls the others dead in turn."""
    patience = {**FAST, "suspicion_factor": 2.0}
    workers = acquainted([lan.begin(lan.machine(), bind=EVERYWHERE, **patience) for _ in range(3)])
    machine, traveller, stayed = lan.machines[2], workers[2], workers[:2]
    if asleep:
        traveller.kill(signal.SIGSTOP)
    else:
        machine.run("ip", "link", "set", "eth0", "down")
    for worker in stayed:
        worker.until(lambda worker: worker.living() == ["m1", "m2"], "it is called dead", 3 * SOON)
    if not asleep:
        traveller.until(lambda worker: worker.living() == ["m3"], "it calls the others dead", 4 * SOON)
        machine.run("ip", "link", "set", "eth0", "up")
    moved(machine)
    if asleep:
        traveller.kill(signal.SIGCONT)
    there = {"10.77.0.1", "10.77.0.2", "10.77.0.33"}
    for worker in workers:
        worker.until(lambda worker: there == addresses(worker), "it is where it is", 3 * SOON)
    exchange(workers)


def test_a_host_is_elsewhere_when_it_has_lost_its_address_and_has_another(lan: Lan) -> None:
    machine = lan.machine()

    def now(said: str = machine.ipv4) -> str:
        looked = (
            "from discovery import Address as A; from gossip.reach import moved; print(moved(A({!r}, 7), A({!r}, 7)))"
        )
        return machine.run(sys.executable, "-c", looked.format(said, "0.0.0.0")).strip()

    assert now("127.0.0.1") == f"{machine.ipv4}:7", "it started before its network was there"
    machine.run("ip", "link", "add", "vpn", "type", "veth", "peer", "name", "far")
    for end in ("vpn", "far"):
        machine.run("ip", "link", "set", end, "up")
    machine.run("ip", "address", "add", "10.78.0.1/24", "dev", "vpn")
    machine.run("ip", "route", "replace", "default", "via", "10.78.0.254")
    assert now() == "None", "another way to the world alone: who reached it goes on to"
    machine.run("ip", "address", "del", f"{machine.ipv4}/24", "dev", "eth0")
    assert now() == "10.78.0.1:7"
    machine.run("ip", "link", "del", "vpn")
    assert now() == "None", "it is nowhere"


def moved(machine: Machine) -> None:
    """Gives a machine another address in place of its own."""
    machine.run("ip", "address", "del", f"{machine.ipv4}/24", "dev", "eth0")
    machine.run("ip", "address", "add", "10.77.0.33/24", "dev", "eth0")
    machine.run("ip", "route", "add", "default", "via", "10.77.0.254")


def addresses(worker: Worker) -> set[str]:
    """Of those that a worker takes for living."""
    living = [each for each in worker.ask("members") if each["status"] in ("alive", "suspect")]
    return {each["address"].partition(":")[0] for each in living}
