"""Who does not answer, and whose process is seen to exist: is he kept, and for how long?

A witness is a member of the same host. What it sees is told to the engine (`watching`, `exited`); here that is all
there is of a host.
"""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.protocol.effects import MemberChanged, Reborn
from gossip.protocol.members import MOST_BY, Claim, Members, Status
from gossip.protocol.messages import Gossip
from gossip.protocol.settings import Settings
from tests.protocol.wire import Node, Wire

LONGEST = 6 * Settings().suspicion_factor * Settings().probe_interval
"""Seconds that any suspicion among few may take."""


def watch(wire: Wire, witness: Node, watched: Node) -> None:
    wire.perform(witness, witness.engine.watching(watched.instance, wire.now))


def statuses(nodes: list[Node], instance: int) -> set[Status]:
    return {node.status_of(instance) for node in nodes}


def test_whoever_stands_still_under_a_witness_is_stalled_and_answers_again_as_himself() -> None:
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    watch(wire, ann, bob)
    wire.pause(bob)
    wire.until(lambda: statuses([ann, cat], bob.instance) == {Status.STALLED}, within=20.0)
    wire.advance(3 * LONGEST)
    assert statuses([ann, cat], bob.instance) == {Status.STALLED}, "however long it takes"
    assert bob.instance in ann.engine.members.doubtful, "nothing is handed on to him"
    wire.resume(bob)
    wire.until(lambda: statuses([ann, cat], bob.instance) == {Status.ALIVE}, within=20.0)
    assert bob.saw(Reborn) == [] and bob.engine.me.incarnation > 0


def test_without_a_witness_the_same_silence_is_a_death() -> None:
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    wire.pause(bob)
    wire.until(lambda: statuses([ann, cat], bob.instance) == {Status.DEAD}, within=2 * LONGEST)


def test_a_suspect_of_others_is_vouched_for_at_once() -> None:
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    watch(wire, ann, bob)
    wire.pause(bob)
    suspected = bob.engine.me.by_whom(Status.SUSPECT, cat.instance)
    wire.perform(ann, ann.hear(ann.engine.codec.encode(cat.instance, Gossip((suspected,)))))
    wire.deliver()
    claims = [node.engine.members.table[bob.instance] for node in (ann, cat)]
    assert {(claim.status, claim.by) for claim in claims} == {(Status.STALLED, (ann.instance,))}
    assert ann.saw(MemberChanged)[-1].why == "it does not answer, and its process exists"


def test_who_was_suspected_before_he_is_seen_is_vouched_for_then() -> None:
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    wire.pause(bob)
    wire.until(lambda: ann.status_of(bob.instance) == Status.SUSPECT, within=20.0)
    watch(wire, ann, bob)
    wire.deliver()
    assert statuses([ann, cat], bob.instance) == {Status.STALLED}


def test_the_end_of_his_process_ends_it() -> None:
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    watch(wire, ann, bob)
    wire.pause(bob)
    wire.until(lambda: cat.status_of(bob.instance) == Status.STALLED, within=20.0)
    wire.perform(ann, ann.engine.exited(bob.instance, wire.now))
    wire.deliver()
    assert statuses([ann, cat], bob.instance) == {Status.DEAD}


@pytest.mark.parametrize("leaves", [True, False])
def test_of_whom_nobody_is_left_who_saw_him_only_the_silence_is_known(leaves: bool) -> None:
    """The power of a whole host fails: its members vouched for each other a moment before."""
    wire = Wire()
    ann, bob, cat, dan = wire.cluster("ann", "bob", "cat", "dan")
    watch(wire, ann, bob)
    wire.pause(bob)
    wire.until(lambda: statuses([cat, dan], bob.instance) == {Status.STALLED}, within=20.0)
    wire.advance(2 * LONGEST)
    if leaves:
        ann.leave()
    else:
        wire.crash(ann)
    wire.until(lambda: statuses([cat, dan], bob.instance) == {Status.DEAD}, within=3 * LONGEST)


@pytest.mark.parametrize("how", ["leaves", "reborn"])
def test_who_still_sees_him_says_so_as_soon_as_the_witness_is_gone(how: str) -> None:
    """Not when the silence has lasted: all others, who see nothing, judge in that very moment."""
    wire = Wire()
    ann, bob, cat, dan, eve = wire.cluster("ann", "bob", "cat", "dan", "eve")
    watch(wire, ann, bob)
    wire.pause(bob)
    wire.until(lambda: statuses([ann, cat, dan, eve], bob.instance) == {Status.STALLED}, within=20.0)
    if how == "leaves":
        watch(wire, cat, bob)
        ann.leave()
    else:
        called_dead = ann.engine.codec.encode(dan.instance, Gossip((ann.engine.me.ended(),)))
        wire.perform(ann, ann.hear(called_dead))
        wire.deliver()
        assert len(ann.saw(Reborn)) == 1
    witness = cat if how == "leaves" else ann
    for node in (dan, eve):
        assert witness.instance in node.engine.members.table[bob.instance].by
    wire.advance(3 * LONGEST)
    assert statuses([cat, dan, eve], bob.instance) == {Status.STALLED}


def test_a_newcomer_who_hears_of_the_stalled_before_he_hears_of_the_witness_buries_nobody() -> None:
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    stalled = bob.engine.me.by_whom(Status.STALLED, ann.instance)
    wire.pause(bob)
    dan = wire.start("dan")
    wire.perform(dan, dan.hear(dan.engine.codec.encode(cat.instance, Gossip((stalled,)))))
    watch(wire, ann, bob)
    dan.join("ann")
    wire.advance(3 * LONGEST)
    assert statuses([ann, cat, dan], bob.instance) == {Status.STALLED}


CLAIMS = st.builds(
    Claim,
    st.just(7),
    st.sampled_from(["a", "b"]),
    st.just(()),
    st.integers(0, 1),
    incarnation=st.integers(0, 1),
    status=st.sampled_from(Status),
    by=st.sets(st.integers(1, 6), max_size=MOST_BY).map(sorted).map(tuple),
)


@given(st.lists(CLAIMS, min_size=3, max_size=3))
def test_claims_join_in_any_order_and_grouping_and_repeated(claims: list[Claim]) -> None:
    one, two, three = claims
    assert one.joined(one) == one
    results = {a.joined(b).joined(c) for a, b, c in permutations(claims)}
    assert results == {one.joined(two.joined(three))}
    tables = set()
    for order in permutations([*claims, one]):
        members = Members(Claim(1, "me", (), 0))
        for claim in order:
            members.hear(claim, now=0.0)
        tables.add(members.table[7])
    assert tables == results, "and so all tables agree in the end"
