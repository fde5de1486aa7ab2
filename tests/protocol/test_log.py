"""Does the log know exactly what it can complete, within its budget?"""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gossip.protocol.log import Entry, Log


def entry(replica: int, first: int, last: int, size: int = 10) -> Entry:
    return Entry(replica, first, last, bytes(size))


def ranges(entries: list[Entry] | None) -> list[tuple[int, int]] | None:
    return None if entries is None else [(one.first, one.last) for one in entries]


def filled(*entries: Entry, budget: int = 1_000) -> Log:
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
    assert log.size == 10


def test_the_oldest_of_all_replicas_goes_first() -> None:
    log = filled(entry(7, 1, 1, 40), entry(8, 1, 1, 40), entry(7, 2, 2, 40), budget=100)
    assert log.since(7, delivered=0, upto=2) is None
    assert ranges(log.since(7, delivered=1, upto=2)) == [(2, 2)]
    assert ranges(log.since(8, delivered=0, upto=1)) == [(1, 1)]
    assert (log.size, log.cut) == (80, 1)


def test_a_batch_larger_than_the_budget_is_not_kept() -> None:
    log = filled(entry(7, 1, 1), entry(7, 2, 2, 2_000))
    assert log.since(7, delivered=1, upto=2) is None
    assert log.size == 0


def test_what_was_dropped_is_not_cut_again() -> None:
    log = filled(entry(7, 1, 1, 40), entry(7, 2, 2, 40), budget=100)
    log.drop(7)
    for one in (entry(7, 9, 9, 40), entry(8, 1, 1, 40)):
        log.append(one)
    assert log.size == 80
    log.append(entry(8, 2, 2, 40))
    assert ranges(log.since(8, delivered=0, upto=2)) == [(1, 1), (2, 2)]
    assert log.since(7, delivered=8, upto=9) is None


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2), st.integers(1, 3), st.integers(1, 60)), max_size=40))
def test_it_keeps_its_budget_and_never_gives_a_run_with_a_hole(steps: list[tuple[int, int, int, int]]) -> None:
    log, reach = Log(100), dict.fromkeys((1, 2, 3), 0)
    for replica, skipped, length, size in steps:
        first = reach[replica] + 1 + skipped
        reach[replica] = first + length - 1
        log.append(entry(replica, first, reach[replica], size))
        assert 0 <= log.size <= 100
        for asked, upto in reach.items():
            for delivered in range(upto):
                given_ = ranges(log.since(asked, delivered, upto))
                if given_ is not None:
                    assert given_[0][0] <= delivered + 1 and given_[-1][1] == upto
                    assert all(a[1] + 1 == b[0] for a, b in pairwise(given_))
