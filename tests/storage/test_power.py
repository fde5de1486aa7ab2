"""Is everything that was said to be safe there after a power cut, and after a kill at any point of a run?

A run is recorded with strace: every write, fsync, rename and word. From the record every state of the files is built
that a kill or a power cut may leave, and each must open to a prefix that has all that was acknowledged.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest

from crdt import Store
from gossip.errors import StartError
from gossip.storage import Storage
from tests.storage.processes import LONG, in_memory, why_no_strace
from tests.storage.story import CLUSTER, append, found_in, steps
from tests.storage.trace import Op, killed, lay_out, power_cuts, record, said_before
from tests.waiting import until_here

pytestmark = pytest.mark.skipif(bool(why_no_strace()), reason=why_no_strace())

SEEDS = range(1, 9) if LONG else [1]
COUNT = 14
RUNS: list[dict[str, Any]] = [
    {"durability": "interval", "pace": "stored", "compact": [5, 10], "checkpoint": 12, "small": True},
    {"durability": "full", "pace": "synced", "compact": [6], "checkpoint": 20, "small": True},
    {"durability": "interval", "pace": "burst", "compact": [4, 9], "checkpoint": 8},
    # a queue that has no room for larger steps: states cover what is dropped
    {"durability": "full", "pace": "burst", "auto": True, "queue_bytes": 6_000, "checkpoint": 12, "small": True},
]


@pytest.fixture(params=[f"{number}-{seed}" for number in range(len(RUNS)) for seed in SEEDS])
def recorded(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[list[Op], int]:
    number, seed = request.param.split("-")
    ops = record(tmp_path / "kept", tmp_path / "trace", seed=int(seed), count=COUNT, **RUNS[int(number)])
    assert said_before(ops, len(ops), "synced") == COUNT
    assert any(op.what == "write" and op.name == "gossamesh.sqlite" for op in ops), "a WAL was moved into the database"
    return ops, int(seed)


def check(image: dict[str, bytes], at_least: int, seed: int, story: str, base: Path) -> None:
    """Opens what is left, twice: the second time finds what the first has left."""
    directory = lay_out(image, base / "left")
    try:
        found = found_in(directory, seed, COUNT)
        again = found_in(directory, seed, COUNT)
    except (StartError, AssertionError) as error:
        raise AssertionError(f"{story}: {error}") from error
    finally:
        shutil.rmtree(directory)
    assert at_least <= found == again, f"{story}: {at_least} steps were acknowledged, and {found} are there"


def test_what_was_stored_is_there_after_a_kill_at_any_point(recorded: tuple[list[Op], int]) -> None:
    ops, seed = recorded
    images = 0
    with in_memory() as base:
        for place, image in killed(ops):
            if ops[place - 1].what != "say":
                check(image, said_before(ops, place, "stored"), seed, f"killed after op {place}", base)
                images += 1
    print(f"{images} images")
    assert images > 50


def test_what_was_synced_is_there_after_a_power_cut_at_any_point(recorded: tuple[list[Op], int]) -> None:
    ops, seed = recorded
    images = 0
    with in_memory() as base:
        for place, image in power_cuts(ops, Random(seed), more=20 if LONG else 2):
            check(image, said_before(ops, place, "synced"), seed, f"power cut {images} after op {place}", base)
            images += 1
    print(f"{images} images")
    assert images > 300


def test_the_power_fails_again_while_the_next_start_goes_on(tmp_path: Path) -> None:
    """Killed in the middle of replacing; the next start clears that away, writes on, and is cut off as well."""
    seed, half = 3, COUNT // 2
    run = RUNS[0]
    ops = record(tmp_path / "kept", tmp_path / "trace", seed=seed, count=half, **(run | {"compact": [half - 1]}))
    chance = Random(seed)
    cuts = list(power_cuts(ops, chance, more=1))
    with in_memory() as base:
        for number, (place, image) in enumerate(chance.sample(cuts[len(cuts) // 2 :], 20 if LONG else 3)):
            left = lay_out(image, tmp_path / f"left-{number}")
            start = found_in(left, seed, COUNT)
            shutil.rmtree(left)
            lay_out(image, left)
            later = record(
                left, tmp_path / "trace", seed=seed, count=half + 3, start=start, **(run | {"compact": [half]})
            )
            before = [Op(what, name, data) for name, data in image.items() for what in ("create", "write")]
            safe = [*before, *(Op("sync", name) for name in image), Op("sync", "")]
            for cut, after in power_cuts([*safe, *later], chance, more=1):
                if cut > len(safe):
                    said = said_before(later, cut - len(safe), "synced")
                    check(after, start + said, seed, f"start {number} after op {place}, cut {cut}", base)


def test_what_a_killed_predecessor_had_not_synced_is_synced_before_it_is_vouched_for(tmp_path: Path) -> None:
    """It is with the kernel and may not be on the disk; whoever opens it says `durable` of what he has read."""
    kept = Storage(
        tmp_path / "kept", CLUSTER, durability="interval", stored=print, synced=print, failed=print
    )  # its disk takes its time, as far as anybody outside can know
    kept.open(Store())
    for step in steps(3, 5):
        append(kept, step)
    until_here(lambda: kept.counters["steps"] == 5)
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "kept", copy)
    kept.close()
    (copy / "lock").unlink()
    ops = record(copy, tmp_path / "trace", seed=3, count=0, start=5)
    syncs = [place for place, op in enumerate(ops) if op.what == "sync" and op.name.endswith("-wal")]
    says = [place for place, op in enumerate(ops) if op.what == "say"]
    assert syncs and says and syncs[0] < says[0], ops
