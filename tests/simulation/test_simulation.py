"""Does a cluster keep its promises in any weather? The part of the simulation that every test run has time for.

`python -m tests.simulation --seeds 0:2000` is the same, longer. What the world demands all the time stands in `checks`,
what it demands in the end in `ending`; that both can fail is shown by `test_teeth`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.simulation.options import HARMLESS, KINDS, only
from tests.simulation.run import Report, run

CHUNK = 15
CHUNKS = 8


@cache
def reports(chunk: int) -> tuple[Report, ...]:
    return tuple(run(seed) for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "chunk", range(CHUNKS), ids=lambda chunk: f"seeds-{chunk * CHUNK}-to-{(chunk + 1) * CHUNK - 1}"
)
def test_every_promise_is_kept(chunk: int) -> None:
    failures = [report.failure for report in reports(chunk) if report.failure]
    assert not failures, "\n".join(failures)


FOUND = {
    5098: "a dozen that all suspect each other at once, and refute, send more packets than any rest allows",
    7138: "who said that all is on his disk was busy until he had been called dead: another instance said it",
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", FOUND, ids=str)
def test_what_a_seed_once_found_is_right_now(seed: int) -> None:
    report = run(seed)
    assert not report.failure, f"{FOUND[seed]}: {report.failure}"


@pytest.mark.timeout(600)
def test_every_kind_of_fault_happened() -> None:
    """Swarm testing proves nothing about a fault that was never drawn."""
    happened, counts = Counter[str](), Counter[str]()
    for chunk in range(CHUNKS):
        for report in reports(chunk):
            happened.update(report.happened)
            counts.update(report.counts)
    assert [kind for kind in ("reborn", "refused", "proof", "restored") if not happened[kind]] == []
    assert counts["states"] > 0 and counts["deliveries"] > counts["writes"]


@pytest.mark.timeout(600)
def test_every_kind_of_fault_happens_in_one_of_twenty_seeds_at_least() -> None:
    played = [report for chunk in range(CHUNKS) for report in reports(chunk)]
    seeds = Counter(kind for report in played for kind in KINDS if report.happened[kind])
    assert len(KINDS) >= 20
    assert {kind: seeds[kind] for kind in KINDS if seeds[kind] < len(played) / 20} == {}


@pytest.mark.parametrize("seed", range(4))
def test_healthy_members_are_never_called_dead(seed: int) -> None:
    """Crashes and restarts, stopped and slow nodes, damaged packets, firewalls, false hints, clocks that differ: none
    of those who are well dies of that."""
    options = only(seed, *HARMLESS)
    assert options.harmless
    assert not run(seed, options=options).failure


def test_a_seed_is_a_history() -> None:
    """The same seed plays the same packets at the same times in another process that hashes strings otherwise."""

    def hashes(hash_seed: str) -> list[str]:
        command = [sys.executable, "-m", "tests.simulation", "--seeds", "3:6", "--jobs", "1", "--hash"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        root = Path(__file__).parents[2]
        done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[:3]

    first, second = hashes("1"), hashes("2")
    assert first == second
    assert len({line.split()[1] for line in first}) == 3
    assert first == [f"{seed} {run(seed).digest}" for seed in (3, 4, 5)]


def test_a_failure_says_how_to_replay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from gossip.protocol.engine import Engine

    monkeypatch.setattr(Engine, "tick", lambda *_: 1 / 0)
    line = run(17, nodes=3).failure
    assert line.startswith("seed 17 at ") and "ZeroDivisionError" in line and "\n" not in line
    assert line.endswith("replay: python -m tests.simulation --seeds 17 --nodes 3")
