"""Is news passed on often enough, and no oftener; and does what rides on a ping fit into it?"""

from __future__ import annotations

from math import ceil, log10

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.codec import pack
from gossip.protocol.broadcast import Broadcast, size_of
from gossip.protocol.codec import MAX_CLAIMS
from gossip.protocol.effects import Send
from gossip.protocol.identity import PROOF
from gossip.protocol.members import Claim, Status
from gossip.protocol.messages import Ack, Gossip, Ping
from tests.protocol.wire import EPOCH, Node, Wire, hushed


def claim(instance: int, name: str = "n", **fields: object) -> Claim:
    return Claim(**{"instance": instance, "name": name, "addresses": ("unix:/x",), "started": 0, **fields})  # type: ignore[arg-type]


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(st.integers(1, 2**64 - 1), text, st.lists(text, max_size=8), st.lists(st.tuples(text, text), max_size=8))
def test_a_claim_is_never_larger_than_it_is_taken_for(
    number: int, name: str, addresses: list[str], tags: list[tuple[str, str]]
) -> None:
    said = Claim(number, name, tuple(addresses), number, tuple(tags), number, Status.LEFT)
    for each in (said, said._replace(by=(1, 2, number), proof=bytes(PROOF))):
        assert len(pack(each)) <= size_of(each)


@pytest.mark.parametrize("members", [1, 2, 9, 10, 99, 100, 1000])
def test_a_claim_is_told_four_times_the_logarithm_of_the_members(members: int) -> None:
    news = Broadcast()
    news.add(claim(7))
    told = 0
    while news.take(members, limit=1200):
        told += 1
    assert told == 4 * ceil(log10(members + 1))
    assert len(news) == 0


def test_what_was_told_least_often_goes_first_and_the_newest_of_those() -> None:
    news = Broadcast()
    for instance in (1, 2, 3):
        news.add(claim(instance))
    one = size_of(claim(1))
    assert [said.instance for said in news.take(9, limit=one)] == [3]
    assert [said.instance for said in news.take(9, limit=2 * one)] == [2, 1]
    news.add(claim(4))
    assert [said.instance for said in news.take(9, limit=2 * one)] == [4, 3]


def test_newer_news_of_an_instance_replaces_the_older_and_is_told_anew() -> None:
    news = Broadcast()
    news.add(claim(1))
    for _ in range(3):
        news.take(3, limit=1200)
    raised = claim(1, incarnation=1)
    news.add(raised)
    assert [news.take(3, limit=1200) for _ in range(5)] == [(raised,)] * 4 + [()]


def test_newer_news_of_an_instance_goes_before_what_came_since_the_older() -> None:
    news = Broadcast()
    for instance in (1, 2, 3):
        news.add(claim(instance))
    raised = claim(1, incarnation=1)
    news.add(raised)
    assert news.take(3, limit=size_of(raised)) == (raised,)


def test_a_claim_that_does_not_fit_keeps_no_smaller_one_from_going() -> None:
    news = Broadcast()
    news.add(claim(1))
    news.add(claim(2, name="x" * 200))
    assert [said.instance for said in news.take(9, limit=size_of(claim(1)))] == [1]
    assert {said.instance for said in news.take(9, limit=1200)} == {1, 2}


def test_a_large_claim_is_passed_over_by_datagrams_and_told_as_often_by_streams() -> None:
    """It was passed over by every ping, so it was never told, and stayed for ever; or was not, and never went."""
    news = Broadcast(largest=500)
    large, small = claim(1, name="x" * 2_000), claim(2)
    news.add(small)
    news.add(large)
    assert news.take(9, limit=1_200) == (small,) and news.fresh
    assert news.take_fresh(9) == (large,)
    assert news.take_large(9, limit=2_000) == ()
    assert [news.take_large(9, limit=9_999) for _ in range(4)] == [(large,)] * 3 + [()]
    assert [news.take(9, limit=1_200) for _ in range(4)] == [(small,)] * 3 + [()]
    assert len(news) == 0


def test_large_claims_take_turns_in_the_room_that_they_have_together() -> None:
    news = Broadcast(largest=500)
    for instance in range(1, 7):
        news.add(claim(instance, name="x" * 2_000))
    told = [[said.instance for said in news.take_large(9, limit=4_500)] for _ in range(12)]
    assert told[:3] == [[6, 5], [4, 3], [2, 1]]
    assert sorted(instance for turn in told for instance in turn) == sorted([*range(1, 7)] * 4)
    assert len(news) == 0


def test_fresh_news_goes_newest_first_and_in_pieces_that_fit_a_message() -> None:
    news = Broadcast()
    for instance in (1, 2, 3):
        news.add(claim(instance))
    assert [said.instance for said in news.take_fresh(9, limit=2 * size_of(claim(1)))] == [3, 2]
    assert news.fresh
    assert news.take_fresh(9) == (claim(1),) and not news.fresh


def test_of_a_crowd_heard_of_at_once_no_message_has_more_than_whoever_reads_it_takes() -> None:
    """The bound in bytes alone let 8 000 small claims into one, which everybody refused as malformed."""
    news = Broadcast()
    for instance in range(1, MAX_CLAIMS + 9):
        news.add(claim(instance))
    assert [len(news.take_fresh(9, limit=1 << 20)) for _ in range(3)] == [MAX_CLAIMS, 8, 0]


def test_fresh_news_is_what_nobody_was_told_of() -> None:
    news = Broadcast()
    assert not news.fresh
    news.add(claim(1))
    assert news.fresh
    assert news.take_fresh(3) == (claim(1),)
    assert not news.fresh
    assert news.take_fresh(3) == ()


def crowd(wire: Wire, node: Node, count: int) -> tuple[Claim, ...]:
    """Has a node hear of many that it does not tell anybody of at once, and that it need not ask."""
    said = tuple(
        claim(1_000 + number, f"worker-{number}", addresses=(f"unix:/{number}",), started=EPOCH)
        for number in range(count)
    )
    node.hear(node.engine.codec.encode(99, Gossip(said)))
    for one in said:
        node.engine.membership.spoke(one.instance, "it was heard")
    return said


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 255, 256, 1000, 4096])
def test_a_ping_fits_its_datagram_whatever_rides_on_it(count: int) -> None:
    """M11."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    crowd(wire, ann, count)
    for message in (Ping, Ack):
        payload = ann.engine.codec.encode(bob.instance, Ping(1, bob.engine.digest, (bob.engine.me,)))
        sends = [effect for effect in ann.hear(payload) if isinstance(effect, Send)]
        sends += [effect for effect in ann.engine.tick(5.0, ann.wall) if isinstance(effect, Send)]
        riding = [effect.message for effect in sends if isinstance(effect.message, message)]
        assert riding
        for said in riding:
            size = len(ann.engine.codec.encode(2**64 - 1, said))
            assert size <= wire.settings.datagram
            assert len(said.claims) > min(count, 8)


def test_all_of_a_crowd_are_told_of_in_the_end_by_what_rides_on_pings_alone() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    said = crowd(wire, ann, 300)
    hushed(wire.nodes["bob"].engine)
    with wire.losing(lambda packet: isinstance(packet.message, Gossip)):
        for number in range(100):
            ping = Ping(number, bob.engine.digest, (bob.engine.me,))
            wire.perform(ann, ann.hear(bob.engine.codec.encode(bob.instance, ping)))
            wire.deliver()
    assert {one.instance for one in said} <= bob.engine.members.table.keys()


def test_the_tags_of_a_member_that_has_many_leave_the_room_on_its_pings_to_others() -> None:
    wire = Wire()
    ann = wire.start("ann", tags=tuple((f"t{number:02}", "v" * 50) for number in range(16)))
    bob = wire.start("bob")
    bob.join("ann")
    crowd(wire, ann, 50)
    wire.advance(1.0)
    (packet,) = wire.packets(Ping, "ann")
    assert ann.engine.me not in packet.message.claims and len(packet.message.claims) > 8
    assert len(packet.payload) <= wire.settings.datagram


def test_in_a_large_cluster_news_goes_to_some_and_they_pass_it_on() -> None:
    wire = Wire()
    nodes = [wire.start(f"n{number}") for number in range(30)]
    for node in nodes[1:]:
        node.join("n0")
    wire.advance(10.0)
    assert all(len(node.living) == 30 for node in nodes)
    wire.sent.clear()
    news = claim(5_000, "newcomer", addresses=("unix:/newcomer",), started=EPOCH)
    wire.perform(nodes[0], nodes[0].hear(nodes[0].engine.codec.encode(99, Gossip((news,)))))
    assert len(wire.packets(Gossip)) == 4
    wire.deliver()
    know = sum(5_000 in node.engine.members.table for node in nodes)
    assert know > 20
    wire.until(lambda: all(5_000 in node.engine.members.table for node in nodes), within=4.0)
