"""Does everybody know what a member says of itself now, however much that is, and whatever is lost on the way?"""

from __future__ import annotations

from itertools import combinations

import pytest

from gossip.protocol.codec import MAX_MESSAGE, MAX_TAG_BYTES
from gossip.protocol.effects import MemberChanged, Reborn, Send
from gossip.protocol.members import Claim, Status
from gossip.protocol.messages import Ack, Gossip, Join, Ping, Welcome
from tests.protocol.wire import EPOCH, Node, Wire, hushed

Tags = tuple[tuple[str, str], ...]
WHOLE: Tags = (("config", "x" * (MAX_TAG_BYTES - 6)),)
"""All that a member may have."""


def retag(node: Node, tags: Tags) -> None:
    """Its program changes its tags, and its turn ends."""
    node.wire.perform(node, node.engine.retagged(tags))
    node.wire.perform(node, node.engine.news())
    node.wire.deliver()


def tags_of(node: Node, other: Node) -> Tags:
    """The tags of another one, as a node sees them."""
    return node.engine.members.table[other.instance].tags


def all_know(*nodes: Node) -> bool:
    pairs = [*combinations(nodes, 2), *combinations(reversed(nodes), 2)]
    return all(tags_of(node, other) == other.engine.me.tags for node, other in pairs)


@pytest.mark.parametrize("tags", [(("role", "db"),), (), WHOLE], ids=["small", "none", "all"])
def test_new_tags_are_known_to_all_at_once_and_each_hears_of_them_once(tags: Tags) -> None:
    wire = Wire()
    nodes = wire.cluster("ann", "bob", "cat")
    ann = nodes[0]
    retag(ann, (("role", "web"),))
    for node in nodes:
        node.effects.clear()
    retag(ann, tags)
    assert all_know(*nodes)
    wire.advance(30.0)
    for node in nodes:
        (changed,) = node.saw(MemberChanged)
        assert changed.before is not None and changed.why
        assert (changed.before.tags, changed.claim.tags) == ((("role", "web"),), tags)
        assert (changed.claim.instance, changed.claim.incarnation) == (ann.instance, 2)


def test_who_says_the_same_as_before_tells_nobody() -> None:
    wire = Wire()
    ann, _ = wire.cluster("ann", "bob")
    retag(ann, (("role", "web"),))
    wire.sent.clear()
    retag(ann, (("role", "web"),))
    assert not wire.sent and ann.engine.me.incarnation == 1


def test_a_greeting_asks_for_nothing_that_is_known_and_is_no_datagram_that_does_not_fit() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    retag(ann, WHOLE)
    retag(bob, WHOLE)
    (greeting,) = ann.engine.greet(bob.instance)
    assert isinstance(greeting, Send) and greeting.stream
    wire.sent.clear()
    wire.perform(ann, [greeting])
    wire.deliver()
    assert wire.packets(Ack) and not wire.packets(Gossip)


def test_who_is_somewhere_else_from_now_on_tells_so_the_same_way() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    wire.perform(ann, ann.engine.moved(("unix:/ann", "10.0.0.9:1"), ann.wall))
    wire.perform(ann, ann.engine.news())
    wire.deliver()
    assert bob.engine.members.table[ann.instance].addresses == ("unix:/ann", "10.0.0.9:1")


@pytest.mark.parametrize("tags", [(("role", "db"),), WHOLE], ids=["small", "all"])
def test_what_a_suspect_says_of_itself_refutes_what_is_said_of_it(tags: Tags) -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    suspect = ann.engine.me._replace(status=Status.SUSPECT)
    bob.hear(bob.engine.codec.encode(7, Gossip((suspect,))))
    assert bob.status_of(ann.instance) == Status.SUSPECT
    retag(ann, tags)
    assert bob.status_of(ann.instance) == Status.ALIVE and all_know(ann, bob)


def test_a_new_life_keeps_the_tags_of_the_old_one() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    retag(ann, WHOLE)
    dead = ann.engine.me.ended()
    wire.advance(2.0)
    wire.perform(ann, ann.hear(ann.engine.codec.encode(bob.instance, Gossip((dead,)))))
    wire.deliver()
    assert ann.saw(Reborn) and ann.instance != dead.instance
    assert tags_of(bob, ann) == WHOLE


@pytest.mark.parametrize("size", [0, 300, 500, 600, 1_500, 4_000])
def test_new_tags_that_got_lost_are_known_after_the_next_ping_of_each_other(size: int) -> None:
    """Small ones ride on each ping. Of large ones each says how far it has heard, and gets what it missed."""
    wire = Wire()
    nodes = wire.cluster(*(f"n{number}" for number in range(6)))
    with wire.losing(lambda packet: isinstance(packet.message, Gossip)):
        retag(nodes[0], (("role", "x" * size),))
        hushed(nodes[0].engine)
    wire.until(lambda: all_know(*nodes), within=6.0)
    assert all(len(packet.payload) <= wire.settings.datagram for packet in wire.sent if not packet.stream)


def test_who_says_that_a_member_missed_all_tags_again_and_again_draws_them_once_in_half_an_interval() -> None:
    """Where there is no key anybody says that, in 60 bytes, in the name of a member; of a stranger nothing is sent."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    retag(ann, WHOLE)
    ping = Ping(1, bob.engine.digest, (), known=0)

    def drawn(sender: int) -> int:
        effects = ann.hear(ann.engine.codec.encode(sender, ping))
        return sum(isinstance(effect, Send) and isinstance(effect.message, Gossip) for effect in effects)

    assert [drawn(bob.instance) for _ in range(100)] == [1] + [0] * 99
    assert drawn(99) == 0
    wire.now += 0.5
    assert drawn(bob.instance) == 1, "it may have got lost again"
    wire.crash(bob)
    wire.advance(30.0)
    assert ann.status_of(bob.instance) == Status.DEAD and not ann.engine.membership._brought


def test_large_claims_are_sent_to_nobody_who_has_them() -> None:
    wire = Wire()
    nodes = wire.cluster("ann", "bob", "cat")
    for node in nodes:
        retag(node, WHOLE)
    wire.advance(10.0)
    wire.sent.clear()
    wire.advance(20.0)
    assert {type(packet.message) for packet in wire.sent} == {Ping, Ack}
    assert max(len(packet.payload) for packet in wire.sent) < 200


def test_a_suspect_with_all_tags_hears_of_it_and_refutes() -> None:
    """Its claim rides on no ping, so what it has to refute goes beside."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    retag(ann, WHOLE)
    wire.advance(10.0)
    suspect = ann.engine.me._replace(status=Status.SUSPECT)
    bob.hear(bob.engine.codec.encode(7, Gossip((suspect,))))  # what it wants done is lost
    hushed(bob.engine)
    wire.until(lambda: ann.engine.counters["refuted"] > 0, within=2.0)
    assert bob.status_of(ann.instance) == Status.ALIVE


def test_who_is_not_known_by_the_one_it_probes_introduces_itself_with_all_tags() -> None:
    wire = Wire()
    ann, bob = wire.start("ann", tags=WHOLE), wire.start("bob")
    with wire.losing(lambda packet: packet.source == "ann"):
        bob.join("ann")  # ann knows bob, and bob heard no answer
    wire.sent.clear()
    wire.until(lambda: bob.living == {"ann", "bob"}, within=2.0)
    assert tags_of(bob, ann) == WHOLE
    wire.advance(20.0)
    assert not [effect for effect in ann.saw(MemberChanged) if effect.claim.status != Status.ALIVE]


def crowd(first: int, count: int, tags: Tags = WHOLE) -> tuple[Claim, ...]:
    """Members of which somebody is told."""
    return tuple(
        Claim(1_000 + number, f"worker-{number}", (f"unix:/{number}",), EPOCH, tags)
        for number in range(first, first + count)
    )


def test_all_of_a_thousand_with_all_tags_are_in_what_a_newcomer_is_told_and_no_message_is_too_long() -> None:
    wire = Wire()
    ann = wire.start("ann", tags=WHOLE)
    ann.hear(ann.engine.codec.encode(99, Gossip(crowd(0, 500))))
    ann.hear(ann.engine.codec.encode(99, Gossip(crowd(500, 500))))
    ann.hear(ann.engine.codec.encode(99, Gossip(tuple(claim.ended() for claim in crowd(9_000, 500)))))
    hushed(ann.engine)
    bob = wire.start("bob", tags=WHOLE)
    bob.join("ann")
    assert {claim.instance for claim in crowd(0, 1_000)} <= bob.engine.members.table.keys()
    told = [packet.message.claims for packet in wire.packets(Gossip, "ann", "bob")]  # type: ignore[union-attr]
    assert wire.packets(Welcome, "ann") and len(told) >= 4
    assert not any(claims[0].gone for claims in told), "for the dead there is the room that is left"
    assert max(len(packet.payload) for packet in wire.sent) < MAX_MESSAGE // 2
    wire.advance(5.0)
    assert max(len(packet.payload) for packet in wire.sent) < MAX_MESSAGE // 2


def test_much_news_at_once_is_passed_on_in_pieces_until_all_is_told() -> None:
    wire = Wire()
    ann, _ = wire.cluster("ann", "bob")
    said = crowd(0, 600)
    wire.perform(ann, ann.hear(ann.engine.codec.encode(99, Gossip(said))))
    wire.advance(5.0)
    assert max(len(packet.payload) for packet in wire.sent) < MAX_MESSAGE // 2
    assert not ann.engine.membership.broadcast.fresh


def test_of_a_third_with_all_tags_one_hears_again_if_it_was_lost_the_first_time() -> None:
    """What is said of somebody else is told several times, at most once a probe."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    (said,) = crowd(0, 1)
    with wire.losing(lambda packet: isinstance(packet.message, Gossip)) as lost:
        wire.perform(ann, ann.hear(ann.engine.codec.encode(99, Gossip((said,)))))
        wire.deliver()
    assert lost and said.instance not in bob.engine.members.table
    wire.until(lambda: said.instance in bob.engine.members.table, within=3.0)
    assert bob.engine.members.table[said.instance].tags == said.tags


def test_two_crowds_that_meet_tell_each_other_of_all() -> None:
    """What has no room in `Join` follows the answer."""
    wire = Wire()
    ann, bob = wire.start("ann", tags=WHOLE), wire.start("bob", tags=WHOLE)
    for node, first in ((ann, 0), (bob, 500)):
        node.hear(node.engine.codec.encode(99, Gossip(crowd(first, 500))))
        hushed(node.engine)
    bob.join("ann")
    (join,) = wire.packets(Join)
    assert len(join.message.claims) < 500  # type: ignore[union-attr]
    assert len(ann.living) == len(bob.living) == 1_002
