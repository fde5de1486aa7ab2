"""Is everything that was acknowledged there after kill -9, in real processes, again and again?"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import time
from pathlib import Path

import pytest

from tests.integration.processes import Host, Worker, agree
from tests.waiting import until_here

CYCLES = 200 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 20


def acknowledged(worker: Worker, seconds: float) -> int:
    """The last number that the worker said was on the disk, when it is killed after so many seconds."""
    assert worker.process.stdin is not None and worker.process.stdout is not None
    worker.process.stdin.write(b'{"do": "write on"}\n')
    worker.process.stdin.flush()
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        select.select([], [], [], left)  # waits: the moment of the kill is what is tried here, whatever it falls on
    worker.killed()
    said = worker._buffer + worker.process.stdout.read()
    whole = [json.loads(line) for line in said.split(b"\n")[:-1]]
    return max((line["kept"] for line in whole if "kept" in line), default=0)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("durability", ["interval", "full"])
def test_nothing_acknowledged_is_lost_by_kill_9(here: Host, tmp_path: Path, durability: str) -> None:
    """Nothing that was answered for is missing, what is there is a beginning, and no transaction is there in part."""
    chance = random.Random(durability)
    last = total = 0
    for _ in range(CYCLES // 2):
        worker = here.start(data_dir=str(tmp_path / "data"), durability=durability)
        kept = worker.ask("map", name="kept")
        count = worker.ask("value", name="kept")
        assert count >= last, "everything acknowledged is there"
        assert sorted(kept.values()) == list(range(1, count + 1)), "in order, whole, and nothing twice"
        last = acknowledged(worker, chance.uniform(0.005, 0.25)) or count
        total = max(total, last)
    print(f"{durability}: {CYCLES // 2} kills, {total} acknowledged, 0 lost")
    assert total > CYCLES, "it wrote something in between"


def test_a_whole_cluster_that_is_killed_has_what_it_acknowledged(here: Host, tmp_path: Path) -> None:
    def start() -> list[Worker]:
        begun = [here.begin(f"w{number}", data_dir=str(tmp_path / str(number))) for number in range(3)]
        workers = [worker.ready() for worker in begun]
        for worker in workers:
            worker.until(lambda worker: len(worker.living()) == 3, "all know each other")
        return workers

    for number in range(1, 4):
        workers = start()
        agree(workers, "value", 3 * 100 * (number - 1), name="hits")
        for worker in workers:
            worker.ask("count", name="hits", amount=100)
        for worker in workers:
            assert worker.ask("sync", peers=2, durable=True, within=20)
        for worker in workers:
            worker.killed()


def test_one_that_comes_back_from_the_disk_brings_nothing_back_from_the_dead(here: Host, tmp_path: Path) -> None:
    """C8: it was away while what it had was deleted, and what it alone had written is still its own to give."""
    one = here.start("one", data_dir=str(tmp_path / "one"))
    two = here.start("two", data_dir=str(tmp_path / "two"))
    for worker in (one, two):
        worker.until(lambda worker: len(worker.living()) == 2)
    one.ask("set", key="deleted", value=1)
    one.ask("set", key="kept", value=1)
    assert one.ask("sync", peers="all", durable=True, within=20)
    two.kill(signal.SIGSTOP)
    one.ask("set", key="unsent", value=1)
    assert one.ask("sync", peers=0, durable=True, within=20)
    one.killed()
    two.kill(signal.SIGCONT)
    two.until(lambda two: two.ask("get", key="deleted") == 1)
    two.ask("delete", key="deleted")
    one = here.start("one", data_dir=str(tmp_path / "one"))
    for worker in (one, two):
        until_here(lambda worker=worker: worker.ask("map") == {"kept": 1, "unsent": 1}, timeout=20)
