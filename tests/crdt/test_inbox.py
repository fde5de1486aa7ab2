"""Is everything delivered once, in order and in whole transactions, whatever comes when, and however little fits?

The network in these tests repeats and reorders; the sender sends again what the inbox refused, as gossip does when it
pulls. Not here: what the writes say; the batches are blanks.
"""

from __future__ import annotations

from itertools import permutations
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crdt import Batch, Inbox

ANN, BOB, EVE = 7, 8, 9


def blanks(first: int, last: int, more: bool = False, replica: int = ANN) -> Batch:
    return Batch(replica, first, last, (), more)


def payload_of(batch: Batch, size: int) -> bytes:
    return f"{batch.replica} {batch.first} {batch.last}".encode().ljust(size)[:size]


def told(ready: list[tuple[Batch, bytes]]) -> list[Batch]:
    """The batches, each of which must come with its own bytes."""
    assert all(payload == payload_of(batch, len(payload)) for batch, payload in ready)
    return [batch for batch, _ in ready]


def add(inbox: Inbox, batch: Batch, size: int, delivered: int) -> list[Batch]:
    return told(inbox.add(batch, payload_of(batch, size), delivered))


def release(inbox: Inbox, replica: int, delivered: int) -> list[Batch]:
    return told(inbox.release(replica, delivered))


# -- gaps ------------------------------------------------------------------------------------------------------------


def test_what_is_in_order_passes_through_and_leaves_nothing() -> None:
    inbox = Inbox(limit=0)
    for n in range(1, 4):
        assert add(inbox, blanks(n, n), size=50, delivered=n - 1) == [blanks(n, n)]
    assert (inbox.size, inbox.refused, inbox.waiting()) == (0, 0, [])


def test_what_is_known_gives_nothing_and_what_overlaps_gives_the_rest() -> None:
    inbox = Inbox(limit=100)
    assert add(inbox, blanks(1, 3), size=9, delivered=3) == []
    assert add(inbox, blanks(2, 5), size=9, delivered=3) == [blanks(2, 5)]
    assert inbox.waiting() == []


def test_a_gap_is_told_until_it_is_filled() -> None:
    inbox = Inbox(limit=100)
    assert inbox.gap(ANN, delivered=0) is None
    assert add(inbox, blanks(9, 9), size=10, delivered=2) == []
    assert inbox.gap(ANN, delivered=2) == (3, 8)
    assert add(inbox, blanks(5, 6), size=10, delivered=2) == []
    assert inbox.gap(ANN, delivered=2) == (3, 4) and inbox.gap(BOB, delivered=0) is None
    assert add(inbox, blanks(3, 4), size=10, delivered=2) == [blanks(3, 4), blanks(5, 6)]
    assert inbox.gap(ANN, delivered=6) == (7, 8) and inbox.size == 10
    assert add(inbox, blanks(7, 8), size=10, delivered=6) == [blanks(7, 8), blanks(9, 9)]
    assert inbox.gap(ANN, delivered=9) is None and (inbox.size, inbox.waiting()) == (0, [])


def test_an_open_part_is_no_gap_but_what_comes_after_it_may_be() -> None:
    inbox = Inbox(limit=100)
    assert add(inbox, blanks(1, 2, more=True), size=10, delivered=0) == []
    assert inbox.gap(ANN, delivered=0) is None
    assert add(inbox, blanks(5, 5), size=10, delivered=0) == []
    assert inbox.gap(ANN, delivered=0) == (3, 4)


def test_a_state_that_comes_another_way_lets_go_what_waited_for_it() -> None:
    inbox = Inbox(limit=100)
    for batch in (blanks(4, 5), blanks(8, 8), blanks(6, 6, more=True)):
        assert add(inbox, batch, size=10, delivered=0) == []
    assert release(inbox, ANN, delivered=3) == [blanks(4, 5)]
    assert inbox.size == 20
    assert release(inbox, ANN, delivered=7) == [blanks(8, 8)]
    assert (inbox.size, inbox.waiting(), release(inbox, ANN, delivered=8)) == (0, [], [])
    assert release(inbox, BOB, delivered=0) == []


def test_a_state_that_covers_all_that_was_held_empties_the_inbox() -> None:
    inbox = Inbox(limit=100)
    add(inbox, blanks(4, 5, more=True), size=10, delivered=0)
    assert release(inbox, ANN, delivered=6) == []
    assert (inbox.size, inbox.waiting()) == (0, [])


# -- transactions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
def test_half_a_transaction_is_never_given_out(order: tuple[int, ...]) -> None:
    """One before, a transaction in three parts around nothing else."""
    parts = [blanks(1, 1), blanks(2, 3, more=True), blanks(4, 4, more=True), blanks(5, 6)]
    inbox, delivered = Inbox(limit=100), 0
    for place in order:
        ready = add(inbox, parts[place], size=10, delivered=delivered)
        if ready:
            assert ready in (parts, parts[:1], parts[1:])
            delivered = ready[-1].last
    assert delivered == 6 and inbox.size == 0


def test_the_same_transaction_cut_in_two_ways_still_fits_together() -> None:
    inbox = Inbox(limit=100)
    for batch in (blanks(1, 3, more=True), blanks(2, 4, more=True), blanks(1, 2, more=True), blanks(3, 3, more=True)):
        assert add(inbox, batch, size=10, delivered=0) == []
    ready = add(inbox, blanks(4, 6), size=10, delivered=0)
    assert ready[-1] == blanks(4, 6) and inbox.waiting() == []


# -- bounds ----------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_and_counted() -> None:
    inbox = Inbox(limit=25)
    for n in (3, 5, 7):
        assert add(inbox, blanks(n, n), size=10, delivered=0) == []
    assert (inbox.size, inbox.refused) == (20, 1)
    assert add(inbox, blanks(2, 2, replica=BOB), size=10, delivered=0) == []
    assert (inbox.size, inbox.refused, inbox.waiting()) == (20, 2, [ANN])
    assert add(inbox, blanks(9, 9, replica=EVE), size=5, delivered=0) == []
    assert inbox.size == 25, "a limit can be reached"


def test_a_longer_cut_takes_the_place_of_a_shorter_one() -> None:
    inbox = Inbox(limit=25)
    add(inbox, blanks(3, 4), size=10, delivered=0)
    add(inbox, blanks(3, 3), size=5, delivered=0)
    assert inbox.size == 10
    add(inbox, blanks(3, 7), size=20, delivered=0)
    assert (inbox.size, inbox.refused) == (20, 0)
    assert add(inbox, blanks(1, 2), size=10, delivered=0) == [blanks(1, 2), blanks(3, 7)]


def test_a_run_that_continues_takes_the_room_of_others() -> None:
    """It can be delivered soon; what the others wait for may never come."""
    inbox = Inbox(limit=25)
    add(inbox, blanks(5, 5, replica=BOB), size=10, delivered=0)
    add(inbox, blanks(5, 5, replica=EVE), size=10, delivered=0)
    assert add(inbox, blanks(1, 1, more=True), size=10, delivered=0) == []
    assert (inbox.waiting(), inbox.size, inbox.refused) == ([ANN], 10, 2)
    assert add(inbox, blanks(3, 3, replica=BOB), size=20, delivered=0) == []
    assert (inbox.waiting(), inbox.refused) == ([ANN], 3), "what continues nothing takes nobody's room"


def test_what_came_too_early_does_not_keep_out_what_it_waits_for() -> None:
    """The room is full of what comes after a gap; the transaction that fills the gap comes in parts, and gets in.

    They were refused for ever: each part for want of room, and the room was never given up.
    """
    inbox = Inbox(limit=100)
    assert add(inbox, blanks(5, 9), size=100, delivered=0) == []
    assert add(inbox, blanks(1, 2, more=True), size=50, delivered=0) == []
    assert add(inbox, blanks(3, 4), size=50, delivered=0) == [blanks(1, 2, more=True), blanks(3, 4)]
    assert (inbox.refused, inbox.size, inbox.waiting()) == (1, 0, [])


def test_what_closes_the_gap_is_never_refused_however_large() -> None:
    inbox = Inbox(limit=30)
    add(inbox, blanks(2, 2), size=30, delivered=0)
    assert add(inbox, blanks(1, 1), size=1_000, delivered=0) == [blanks(1, 1), blanks(2, 2)]
    add(inbox, blanks(3, 3, more=True), size=30, delivered=2)
    assert add(inbox, blanks(4, 4), size=1_000, delivered=2)[-1] == blanks(4, 4)
    assert (inbox.size, inbox.refused) == (0, 0)


def test_what_was_dropped_for_room_is_missing_again_and_no_run_leads_over_it() -> None:
    """A part comes again, cut longer, and the last one held has to go for it: what follows that is beyond a gap."""
    inbox = Inbox(limit=30)
    for first in (1, 3, 5):
        assert add(inbox, blanks(first, first + 1, more=True), size=10, delivered=0) == []
    assert add(inbox, blanks(1, 3, more=True), size=15, delivered=0) == []
    assert (inbox.refused, inbox.size) == (1, 25)
    assert add(inbox, blanks(7, 8), size=5, delivered=0) == [], "5 and 6 are not here any more"
    assert inbox.gap(ANN, delivered=0) == (5, 6)
    ready = add(inbox, blanks(5, 8), size=10, delivered=0)
    assert ready == [blanks(1, 3, more=True), blanks(3, 4, more=True), blanks(5, 8)]
    assert (inbox.size, inbox.waiting()) == (0, [])


# -- whatever the order ----------------------------------------------------------------------------------------------


def cuts(random: Random, ends: list[int], replica: int) -> list[Batch]:
    """All sequences of a replica in one of the ways that it or a relay may have grouped them."""
    made, last = [], 0
    while last < ends[-1]:
        first, last = last + 1, min(last + random.randint(1, 6), ends[-1])
        whole = max((end for end in ends if first <= end < last), default=0)
        if last not in ends and whole:
            last = whole  # an open batch holds a part of one transaction only
        made.append(blanks(first, last, last not in ends, replica))
    return made


lengths = st.lists(st.integers(1, 5), min_size=1, max_size=12)


@given(
    st.dictionaries(st.sampled_from([ANN, BOB, EVE]), lengths, min_size=1), st.integers(0, 2**32), st.integers(5, 60)
)
@example({ANN: [2, 2, 5]}, 0, 5)
def test_whatever_the_order_all_is_delivered_once_in_order_and_in_whole_transactions(
    transactions: dict[int, list[int]], seed: int, limit: int
) -> None:
    """A sequence takes one byte and no transaction more than five; what is refused is sent again, all of it."""
    random, inbox, delivered = Random(seed), Inbox(limit), dict.fromkeys(transactions, 0)
    ends = {replica: [sum(sizes[: n + 1]) for n in range(len(sizes))] for replica, sizes in transactions.items()}
    rounds = 0
    while any(delivered[replica] < ends[replica][-1] for replica in ends):
        rounds += 1
        assert rounds <= 80, "each round takes at least one transaction further"
        batches = [batch for replica in ends for batch in cuts(random, ends[replica], replica) * random.randint(1, 2)]
        random.shuffle(batches)
        if rounds % 2 == 0:  # a peer that answers a pull sends in order
            batches.sort()
        for batch in batches:
            before = delivered[batch.replica]
            ready = add(inbox, batch, batch.last - batch.first + 1, before)
            for part in ready:
                assert part.first <= delivered[batch.replica] + 1 <= part.last, "new, and without a gap"
                delivered[batch.replica] = part.last
            assert delivered[batch.replica] in [before, *ends[batch.replica]], "whole transactions"
            assert 0 <= inbox.size <= limit
    for replica in ends:
        assert release(inbox, replica, delivered[replica]) == []
    assert (inbox.size, inbox.waiting()) == (0, [])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(0, 2**32))
def test_with_room_enough_one_round_in_any_order_is_enough(sizes: list[int], seed: int) -> None:
    random, inbox, delivered = Random(seed), Inbox(limit=10_000), 0
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    batches = [*cuts(random, ends, ANN), *cuts(random, ends, ANN)]
    random.shuffle(batches)
    for batch in batches:
        for part in add(inbox, batch, 1, delivered):
            delivered = part.last
    assert delivered == ends[-1]
    assert (inbox.size, inbox.waiting(), inbox.refused) == (0, [], 0)


# -- what it costs ---------------------------------------------------------------------------------------------------


class Steps(list[int]):
    """Counts how many of the firsts are looked at, one by one or in slices."""

    looked = 0

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        self.looked += len(found) if isinstance(place, slice) else 1
        return found

    def __iter__(self) -> Any:
        raise AssertionError("all that is held was walked")


def watched(inbox: Inbox) -> Steps:
    held = inbox._held[ANN]
    held.firsts = Steps(held.firsts)
    return held.firsts


def test_taking_an_early_batch_does_not_walk_all_that_is_held() -> None:
    """Each was sorted in: 3 ms a batch with 20 000 held, which is a minute for all of them."""
    inbox = Inbox(limit=1 << 20)
    add(inbox, blanks(2_000, 2_000), size=1, delivered=0)
    steps = watched(inbox)
    for n in range(1_999, 1_000, -1):
        assert add(inbox, blanks(n, n), size=1, delivered=0) == []
        assert inbox.gap(ANN, delivered=0) == (1, n - 1)
    assert len(steps) == 1_000 and steps.looked < 100 * 1_000
    steps.looked = 0
    for n in range(1, 1_000):
        assert add(inbox, blanks(n, n), size=1, delivered=n - 1) == [blanks(n, n)]
    assert steps.looked < 100 * 1_000
    assert len(add(inbox, blanks(1_000, 1_000), size=1, delivered=999)) == 1_001
    assert (inbox.size, inbox.waiting()) == (0, [])


def test_the_parts_of_a_transaction_without_end_are_not_walked_at_each_new_one() -> None:
    inbox = Inbox(limit=1 << 20)
    add(inbox, blanks(1, 1, more=True), size=1, delivered=0)
    steps = watched(inbox)
    for n in range(2, 1_000):
        assert add(inbox, blanks(n, n, more=True), size=1, delivered=0) == []
    assert steps.looked < 100 * 1_000
    assert len(add(inbox, blanks(1_000, 1_000), size=1, delivered=0)) == 1_000
    assert (inbox.size, inbox.waiting()) == (0, [])
