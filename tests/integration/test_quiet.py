"""Does a cluster with nothing to do keep still? Nobody is suspected, nothing grows, and it costs next to nothing.

Only in the soak: it takes minutes, and there is nothing to see in less.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.integration.lan import LONG, TROUBLE, Ears
from tests.integration.processes import Host, Worker, agree

NODES = 32
SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
TICKS = os.sysconf("SC_CLK_TCK")


def cpu(worker: Worker) -> float:
    """Seconds of processor that it has used."""
    fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def held(worker: Worker) -> dict[str, int]:
    """What it holds: MiB in memory, open descriptors."""
    resident = int(Path(f"/proc/{worker.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {"mib": resident >> 20, "descriptors": len(os.listdir(f"/proc/{worker.pid}/fd"))}


@pytest.mark.skipif(not LONG, reason="takes ten minutes: make soak")
@pytest.mark.timeout(SECONDS + 300)
def test_thirty_two_on_one_host_keep_still(here: Host) -> None:
    workers: list[Worker] = []
    while len(workers) < NODES:  # not all at once, which takes a small machine longer than a worker may take to start
        workers += [worker.ready() for worker in [here.begin() for _ in range(8)]]
    for worker in workers:
        worker.until(lambda worker: len(worker.living()) == NODES, "all know each other")
    for number, worker in enumerate(workers):
        worker.ask("set", key=f"{number}", value=number)
    agree(workers, "size", NODES)
    ears, first = Ears(workers), [held(worker) for worker in workers]
    begun, used, rates = time.monotonic(), [cpu(worker) for worker in workers], []
    while time.monotonic() < begun + SECONDS:
        time.sleep(SECONDS / 10)  # waits: that nothing happens is what is tried
        now = [cpu(worker) for worker in workers]
        rates.append(sum(now) - sum(used))
        used = now
    shares = [100 * rate / (SECONDS / 10) / NODES for rate in rates]
    last = [held(worker) for worker in workers]
    print(f"{NODES} nodes, {SECONDS:.0f} s: % of a CPU each, tenth by tenth: {[round(share, 2) for share in shares]}")
    print(f"MiB each: {max(h['mib'] for h in first)}, in the end {max(h['mib'] for h in last)} at most")
    assert ears.heard(*TROUBLE) == {}
    assert max(shares[1:]) < 2 * min(shares[1:]) + 0.1, "what it costs stays what it is"
    for before, after in zip(first, last, strict=True):
        assert after["mib"] <= before["mib"] + 4
        assert after["descriptors"] <= 4 * NODES + 16, "of each a stream in, one out, its lock and its process"
    for worker in workers:
        assert len(worker.living()) == NODES
        counters = worker.ask("status")["counters"]
        assert {name: counters[name] for name in ("diverged", "refuted", "reborn") if counters.get(name)} == {}
    workers[0].ask("set", key="in the end", value=1)
    agree(workers, "size", NODES + 1)
