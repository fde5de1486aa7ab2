"""Is a node that is slow, stopped or badly connected, but healthy, left alone by the others, and they by it?

Real processes with the usual intervals, where nothing else is said, each on a machine of its own. What must not happen
is asked of the events that every worker was told.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gossip.protocol.settings import Settings
from tests.integration.lan import FAST, LONG, PORT, Ears, Lan, acquainted, heard
from tests.integration.processes import Host, Worker, agree
from tests.integration.slowline import address, needs_tun, slow_line
from tests.namespaces import needs_namespaces
from tests.waiting import until_here

pytestmark = needs_namespaces
A_WHILE = 30.0 if LONG else 5.0
CPU = Path("/sys/fs/cgroup/cpu")


def nobody_dies(workers: list[Worker], seconds: float) -> dict[str, int]:
    """Has them write for as long. Gives what all of them should have in the end."""
    ears = Ears(workers)
    begun, number = time.monotonic(), 0
    while time.monotonic() < begun + seconds:
        number += 1
        for worker in workers:
            worker.ask("set", key=worker.settings["name"], value=number)
        assert ears.heard("died", "reborn") == {}
        time.sleep(0.2)  # waits: the pace of the writes
    happened = ears.heard("suspected", "refuted")
    print(f"{number} rounds of writes in {seconds:.0f} s; suspected and refuted: {sum(map(len, happened.values()))}")
    return {worker.settings["name"]: number for worker in workers}


def test_one_that_was_stopped_for_long_accuses_nobody_when_it_wakes(lan: Lan) -> None:
    """M7: stopped for more than twice the time that a suspect has, as a laptop that loses its network and is closed: it
    has suspects, whose time is over when it wakes, and acks and questions of a dead time wait for it."""
    workers = lan.several(5, **FAST)
    *rest, sleeper = workers
    name, healthy = sleeper.settings["name"], {worker.settings["name"] for worker in rest}
    ears = Ears(workers)
    lan.machines[-1].deaf_to(*lan.machines[:-1])
    sleeper.until(lambda sleeper: heard(sleeper, "suspected"), "it suspects somebody")
    sleeper.kill(signal.SIGSTOP)
    stopped = time.monotonic()
    for worker in rest:
        worker.until(lambda worker: name not in worker.living(), "the stopped one is called dead")
    print(f"called dead after {time.monotonic() - stopped:.2f} s")
    patience = Settings().suspicion_factor * FAST["probe_interval"]
    until_here(lambda: time.monotonic() > stopped + 2 * patience, "twice the time of a suspect is over")
    rest[0].ask("set", key="while it slept", value=1)
    sleeper.kill(signal.SIGCONT)
    lan.heal()
    woken = time.monotonic()
    for worker in workers:
        worker.until(lambda worker: len(worker.living()) == 5, "all are members again")
        worker.until(lambda worker: worker.ask("get", key="while it slept") == 1)
    print(f"back after {time.monotonic() - woken:.2f} s")
    accused = {teller: [name for _, name in told if name in healthy] for teller, told in ears.heard("died").items()}
    assert not any(accused.values()), accused
    for worker in rest:
        assert heard(worker, "reborn") == []


def test_one_whose_program_blocks_the_loop_is_not_called_dead_by_its_host(here: Host) -> None:
    """M8: for several times as long as a suspect has. Its process is there, as all on its host can see."""
    workers = here.several(4, **FAST)
    *rest, blocked = workers
    ears = Ears(rest)
    blocked.ask("block", seconds=3.0)
    for worker in workers:
        worker.until(lambda worker: len(worker.living()) == 4)
    assert ears.heard("died") == {}


@contextmanager
def share_of_a_cpu(pid: int, percent: int) -> Iterator[Path]:
    """Lets a process have so much of one processor, whatever it needs."""
    group = CPU / f"gm-{secrets.token_hex(4)}"
    group.mkdir()
    try:
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text(str(1000 * percent))
        (group / "cgroup.procs").write_text(str(pid))
        yield group
    finally:
        (CPU / "cgroup.procs").write_text(str(pid))
        group.rmdir()


@pytest.mark.skipif(
    not os.access(CPU / "cgroup.procs", os.W_OK),
    reason="needs the cpu controller of cgroup v1",
)
def test_one_of_five_with_a_twentieth_of_a_cpu_is_not_called_dead(lan: Lan) -> None:
    """M8: and calls nobody dead."""
    workers = lan.several(5)
    *rest, starved = workers
    with share_of_a_cpu(starved.pid, 5) as group:
        for worker in workers[:2]:
            worker.ask("start load")
        nobody_dies(rest, A_WHILE)  # it is asked itself when it has time to answer: that took more than 20 s
        done = sum(worker.ask("stop load") for worker in workers[:2])
        throttled = int(re.findall(r"nr_throttled (\d+)", (group / "cpu.stat").read_text())[0])
    print(f"it was held up in {throttled} of {10 * A_WHILE:.0f} tenths of a second")
    assert throttled > 5 * A_WHILE
    assert heard(starved, "died", "reborn") == []
    agree(workers, "value", done, name="load")


def test_a_network_that_loses_a_third_of_all_packets_calls_nobody_dead(lan: Lan) -> None:
    """M8: 30 of 100, at each machine, of datagrams and streams alike."""
    workers = lan.several(5)
    for machine in lan.machines:
        machine.refuse("numgen random mod 100 < 30")
    expected = nobody_dies(workers, A_WHILE)
    assert all(machine.refused() > 10 for machine in lan.machines)
    lan.heal()
    agree(workers, "map", expected)


@needs_tun
@pytest.mark.skipif(not LONG, reason="takes long: HYPOTHESIS_PROFILE=long")
def test_round_trips_of_one_to_three_seconds_call_nobody_dead(lan: Lan) -> None:
    """M8: and no packet arrives in its order."""
    machines = [lan.machine() for _ in range(3)]
    with slow_line(machines, 0.5, 1.5) as line:
        seeds = [f"{address(machines[0])}:{PORT}"]
        workers = [lan.begin(each, bind=f"{address(each)}:{PORT}", seeds=seeds) for each in machines]
        acquainted(workers)
        agree(workers, "map", nobody_dies(workers, A_WHILE))
        assert line.carried > 30
