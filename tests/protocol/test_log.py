"""Does the log know exactly what it can complete, within its budget?"""

from __future__ import annotations

import gc
import tracemalloc
from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gossip.protocol.log import OVERHEAD, Entry, Log


def entry(replica: int, first: int, last: int, size: int = 10) -> Entry:
    """An entry that counts as `size` bytes beside those that every entry counts."""
    return Entry(replica, first, last, bytes(size))


def ranges(entries: list[Entry] | None) -> list[tuple[int, int]] | None:
    return None if entries is None else [(one.first, one.last) for one in entries]


def filled(*entries: Entry, budget: int = 10_000) -> Log:
    log = Log(budget)
    for one in entries:
        log.append(one)
    return log


def test_it_gives_what_a_peer_misses_and_nothing_that_it_has_whole() -> None:
    log = filled(entry(7, 1, 3), entry(7, 4, 4), entry(7, 5, 9))
    assert ranges(log.since(7, delivered=0, upto=9)) == [(1, 3), (4, 4), (5, 9)]
    assert ranges(log.since(7, delivered=2, upto=9)) == [(1, 3), (4, 4), (5, 9)]
    assert ranges(log.since(7, delivered=3, upto=9)) == [(4, 4), (5, 9)]
    assert ranges(log.since(7, delivered=8, upto=9)) == [(5, 9)]


def test_it_admits_what_it_has_not() -> None:
    log = filled(entry(7, 5, 9))
    assert log.since(7, delivered=3, upto=9) is None, "4 is missing"
    assert ranges(log.since(7, delivered=4, upto=9)) == [(5, 9)]
    assert log.since(7, delivered=4, upto=10) is None, "10 is missing"
    assert log.since(8, delivered=0, upto=1) is None, "never heard of"


def test_a_gap_starts_the_run_anew() -> None:
    log = filled(entry(7, 1, 3), entry(7, 6, 7))
    assert log.since(7, delivered=0, upto=7) is None
    assert log.since(7, delivered=3, upto=7) is None
    assert ranges(log.since(7, delivered=5, upto=7)) == [(6, 7)]
    assert log.size == 10 + OVERHEAD


def test_the_oldest_of_all_replicas_goes_first() -> None:
    log = filled(entry(7, 1, 1, 40), entry(8, 1, 1, 40), entry(7, 2, 2, 40), budget=100 + 2 * OVERHEAD)
    assert log.since(7, delivered=0, upto=2) is None
    assert ranges(log.since(7, delivered=1, upto=2)) == [(2, 2)]
    assert ranges(log.since(8, delivered=0, upto=1)) == [(1, 1)]
    assert (log.size, log.cut) == (80 + 2 * OVERHEAD, 1)


def test_a_batch_larger_than_the_budget_is_not_kept() -> None:
    log = filled(entry(7, 1, 1), entry(7, 2, 2, 20_000))
    assert log.since(7, delivered=1, upto=2) is None
    assert log.size == 0


def test_what_was_dropped_is_not_cut_again() -> None:
    log = filled(entry(7, 1, 1, 40), entry(7, 2, 2, 40), budget=100 + 2 * OVERHEAD)
    log.drop(7)
    for one in (entry(7, 9, 9, 40), entry(8, 1, 1, 40)):
        log.append(one)
    assert log.size == 80 + 2 * OVERHEAD
    log.append(entry(8, 2, 2, 40))
    assert ranges(log.since(8, delivered=0, upto=2)) == [(1, 1), (2, 2)]
    assert log.since(7, delivered=8, upto=9) is None


def test_a_run_that_was_dropped_and_begun_anew_is_not_cut_by_its_old_places() -> None:
    log = filled(entry(7, 1, 1, 40), entry(7, 2, 2, 40), budget=100 + 2 * OVERHEAD)
    log.drop(7)
    for one in (entry(8, 1, 1, 40), entry(7, 9, 9, 40), entry(8, 2, 2, 40)):
        log.append(one)
    assert ranges(log.since(7, delivered=8, upto=9)) == [(9, 9)], "it is younger than the first of 8"
    assert ranges(log.since(8, delivered=1, upto=2)) == [(2, 2)]
    assert log.since(8, delivered=0, upto=2) is None
    assert (log.size, log.cut) == (80 + 2 * OVERHEAD, 1)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2), st.integers(1, 3), st.integers(1, 60)), max_size=40))
def test_it_keeps_its_budget_and_never_gives_a_run_with_a_hole(steps: list[tuple[int, int, int, int]]) -> None:
    log, reach = Log(100 + 3 * OVERHEAD), dict.fromkeys((1, 2, 3), 0)
    for replica, skipped, length, size in steps:
        first = reach[replica] + 1 + skipped
        reach[replica] = first + length - 1
        log.append(entry(replica, first, reach[replica], size))
        assert 0 <= log.size <= 100 + 3 * OVERHEAD
        for asked, upto in reach.items():
            for delivered in range(upto):
                given_ = ranges(log.since(asked, delivered, upto))
                if given_ is not None:
                    assert given_[0][0] <= delivered + 1 and given_[-1][1] == upto
                    assert all(a[1] + 1 == b[0] for a, b in pairwise(given_))


# -- what it costs ---------------------------------------------------------------------------------------------------


def test_its_memory_is_what_its_budget_says_however_small_the_batches() -> None:
    """The payloads alone were counted: batches of 70 bytes took 295 MiB of 64."""
    budget = 1 << 20
    tracemalloc.start()
    try:
        log = Log(budget)
        for n in range(1, 2 * budget // 270):
            log.append(Entry(2**63 + 7, n, n, b"x" * (69 + n % 2)))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert log.cut > 0
    assert budget // 2 < taken < budget * 1.35


def test_the_collector_does_not_walk_what_is_kept() -> None:
    log = filled(*(entry(7, n, n) for n in range(1, 11)))
    gc.collect()
    assert not any(map(gc.is_tracked, log._runs[7]))
    assert not any(map(gc.is_tracked, log._oldest))


class Steps(deque[Any]):
    """Counts the steps that are made through it, which are to be from the new end."""

    made = 0

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("walked from the old end")

    def __reversed__(self) -> Iterator[Any]:
        for item in super().__reversed__():
            self.made += 1
            yield item


def test_looking_for_the_newest_does_not_walk_the_whole_run() -> None:
    log = filled(*(entry(7, n, n) for n in range(1, 1_001)), budget=1 << 20)
    run = log._runs[7] = Steps(log._runs[7].copy())
    assert ranges(log.since(7, delivered=998, upto=1_000)) == [(999, 999), (1_000, 1_000)]
    assert run.made == 3
    assert log.since(7, delivered=1_000, upto=1_000) == [] and run.made == 4


def test_runs_that_are_dropped_again_and_again_leave_nothing() -> None:
    log = filled(entry(8, 1, 1))
    for n in range(2, 10_000, 2):
        log.append(entry(7, n, n))
        log.drop(7)
    assert len(log._oldest) < 100
    assert log.size == 10 + OVERHEAD
    assert ranges(log.since(8, delivered=0, upto=1)) == [(1, 1)]


def test_the_tail_of_a_replica_is_its_newest_batches_in_order() -> None:
    log = Log(100_000)
    for number in range(1, 8):
        log.append(Entry(7, number, number, b"x" * 10))
    assert [entry.first for entry in log.tail(7, 25)] == [5, 6, 7]
    assert [entry.first for entry in log.tail(7, 1_000)] == list(range(1, 8)) and log.tail(8, 10) == []
