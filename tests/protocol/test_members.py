"""Do all tables agree in the end, whatever the order in which claims arrive?"""

from __future__ import annotations

from itertools import permutations
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gossip.protocol.members import Claim, Members, Status

ME = Claim(1, "me", ("unix:/me",), 0)


def claims(instances: int = 3) -> st.SearchStrategy[Claim]:
    return st.builds(
        lambda instance, incarnation, status, port, proof: Claim(
            instance, f"n{instance}", (f"10.0.0.{instance}:{port}",), instance, (), incarnation, status, (), proof
        ),
        st.integers(2, 1 + instances),
        st.integers(0, 3) | st.just(2**64 - 1),
        st.sampled_from(Status),
        st.integers(1, 3),
        st.sampled_from((b"", b"one", b"two")),  # nothing forbids an instance to sign one thing twice
    )


def told(heard: list[Claim], start: Members | None = None) -> dict[int, Claim]:
    members = start or Members(ME)
    for claim in heard:
        members.hear(claim, now=0.0)
    return members.table


@given(st.lists(claims(), max_size=8), st.randoms(use_true_random=False))
def test_any_order_and_any_repetition_gives_the_same_table(heard: list[Claim], rng: Random) -> None:
    again = heard + rng.choices(heard, k=3) if heard else []
    rng.shuffle(again)
    assert told(heard) == told(again)


@given(st.lists(claims(1), min_size=2, max_size=4))
def test_two_tables_that_tell_each_other_all_they_know_agree(heard: list[Claim]) -> None:
    for order in permutations(heard):
        one, other = told(list(order[:2])), told(list(order[2:]))
        assert told([*one.values(), *other.values()]) == told(heard)


@given(st.lists(claims(1), max_size=8), claims(1))
def test_a_claim_only_rises_and_the_gone_stay_gone(heard: list[Claim], last: Claim) -> None:
    members = Members(ME)
    told(heard, members)
    before = members.table.get(2)
    changed = members.hear(last, now=0.0)
    after = members.table[2]
    if before is not None:
        assert after.rank >= before.rank
        assert after.gone >= before.gone
        assert (changed is None) == (after == before)


@given(claims(1), claims(1))
def test_of_two_different_claims_exactly_one_holds(one: Claim, other: Claim) -> None:
    """Not only status and incarnation: of two addresses in equal claims, the same one must win everywhere."""
    assert (one == other) == (one.rank == other.rank)
    assert told([one, other])[2] == max(one, other, key=lambda claim: claim.rank)


def test_the_dead_beat_every_incarnation_and_those_that_left_beat_the_dead() -> None:
    alive = ME._replace(instance=2)
    order = [
        alive,
        alive._replace(status=Status.SUSPECT),
        alive._replace(incarnation=1),
        alive._replace(incarnation=2**64 - 1, status=Status.SUSPECT),
        alive._replace(status=Status.DEAD),
        alive._replace(incarnation=10, status=Status.DEAD),
        alive._replace(status=Status.LEFT),
    ]
    assert order == sorted(order, key=lambda claim: claim.rank)


def test_hearing_tells_what_held_before() -> None:
    members = Members(ME)
    new = ME._replace(instance=2)
    suspect = new._replace(status=Status.SUSPECT)
    assert members.hear(new, now=1.0) is new
    assert members.hear(new, now=2.0) is None
    assert members.hear(suspect, now=3.0) is new
    assert members.hear(new, now=4.0) is None


def test_a_suspicion_of_me_is_refuted_and_old_news_of_me_is_not() -> None:
    members = Members(ME._replace(incarnation=4))
    assert members.refutation(ME._replace(incarnation=3, status=Status.SUSPECT)) is None
    assert members.refutation(members.me) is None
    answer = members.refutation(ME._replace(incarnation=4, status=Status.SUSPECT))
    assert answer == ME._replace(incarnation=5)


def test_the_dead_are_forgotten_oldest_first_by_age_and_by_number() -> None:
    members = Members(ME)
    for instance in range(2, 12):
        members.hear(ME._replace(instance=instance, status=Status.DEAD), now=float(instance))
    assert members.forget(before=5.0, most=100) == [2, 3, 4]
    assert members.forget(before=5.0, most=5) == [5, 6]
    assert list(members.table) == [1, 7, 8, 9, 10, 11]
    assert members.forget(before=5.0, most=5) == []


def test_hearing_again_that_it_is_dead_does_not_make_it_younger() -> None:
    members = Members(ME)
    dead = ME._replace(instance=2, status=Status.DEAD)
    members.hear(dead, now=1.0)
    members.hear(dead._replace(incarnation=10), now=9.0)
    members.hear(dead._replace(status=Status.LEFT), now=9.0)
    assert members.gone_at == {2: 1.0}


def test_everybody_is_probed_once_a_round_in_an_order_that_changes() -> None:
    members, rng = Members(ME), Random(1)
    for instance in range(2, 12):
        members.hear(ME._replace(instance=instance), now=0.0)
    rounds = [[members.next_probe(rng) for _ in range(10)] for _ in range(5)]
    assert all(sorted(order) == list(range(2, 12)) for order in rounds)  # type: ignore[type-var]
    assert len({tuple(order) for order in rounds}) > 1


def test_one_alone_or_with_the_dead_only_has_nobody_to_probe() -> None:
    members = Members(ME)
    assert members.next_probe(Random(1)) is None
    members.hear(ME._replace(instance=2, status=Status.DEAD), now=0.0)
    assert members.next_probe(Random(1)) is None
    assert members.peers() == []


def test_one_that_died_in_the_middle_of_a_round_is_passed_over() -> None:
    members, rng = Members(ME), Random(1)
    for instance in (2, 3, 4):
        members.hear(ME._replace(instance=instance), now=0.0)
    first = members.next_probe(rng)
    victim = next(instance for instance in (2, 3, 4) if instance != first)
    members.hear(ME._replace(instance=victim, status=Status.DEAD), now=0.0)
    assert victim not in [members.next_probe(rng) for _ in range(6)]


@given(st.lists(claims(), max_size=12), st.integers(0, 12))
def test_the_peers_are_the_living_others_whatever_was_heard(heard: list[Claim], turn: int) -> None:
    members = Members(ME)
    for place, claim in enumerate(heard):
        members.hear(claim, now=float(place))
        if place == turn:
            members.forget(before=float(place), most=1)
            reborn = ME._replace(instance=9)
            members.become(reborn)
            members.hear(ME._replace(status=Status.DEAD), now=float(place))
        others = [one for one in members.table.values() if one.instance != members.me.instance]
        assert members.peers() == [one.instance for one in others if not one.gone]


class Counted(dict[int, Claim]):
    """A table that is not to be walked."""

    def values(self) -> Any:
        raise AssertionError("all of the table was walked")


def test_asking_for_the_peers_does_not_walk_the_remembered_dead() -> None:
    members = Members(ME)
    for instance in range(2, 12):
        members.hear(ME._replace(instance=instance, status=Status.DEAD if instance < 11 else Status.SUSPECT), now=0.0)
    members.table = Counted(members.table)
    assert members.peers() == [11]
    members.peers().clear()
    assert members.peers() == [11], "it is the caller's own list"
