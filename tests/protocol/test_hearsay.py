"""Who is shown of those of whom only others told?

Few nodes on the wire, packet by packet. That the long dead stay dead is in test_hardships.py.
"""

from __future__ import annotations

import pytest

from gossip.protocol.effects import MemberChanged, Ready
from gossip.protocol.members import Claim, Status
from gossip.protocol.messages import Gossip, Ping
from tests.protocol.wire import EPOCH, Node, Wire, address

ZOE = Claim(900, "zoe", (address("zoe"),), EPOCH)


def tell(node: Node, *claims: Claim) -> None:
    """Somebody tells a node of these, and is not heard of again."""
    node.wire.perform(node, node.hear(node.engine.codec.encode(99, Gossip(claims))))


def shown(node: Node, instance: int) -> list[tuple[Status, str]]:
    """What a program was told of one of them."""
    return [(each.claim.status, each.why) for each in node.saw(MemberChanged) if each.claim.instance == instance]


def test_whom_others_told_of_is_shown_when_it_answers_a_moment_later() -> None:
    wire = Wire(latency=0.01)
    ann, bob = wire.start("ann"), wire.start("bob")
    tell(ann, bob.engine.me)
    assert "bob" in ann.living and shown(ann, bob.instance) == []
    took = wire.until(lambda: bool(shown(ann, bob.instance)), within=1.0)
    assert took == pytest.approx(0.27), "a quarter of a second in which it might have spoken, and a round trip"
    assert shown(ann, bob.instance) == [(Status.ALIVE, "it spoke to us")]


def test_whom_others_told_of_is_not_asked_if_it_speaks_by_itself() -> None:
    """As newcomers do: a node that hears of one has heard it before it would ask."""
    wire = Wire(latency=0.01)
    ann, bob, cat = (wire.start(name) for name in ("ann", "bob", "cat"))
    bob.join("ann")
    wire.advance(0.1)
    cat.join("ann")
    wire.sent.clear()
    wire.advance(0.8)
    assert all(node.living == {"ann", "bob", "cat"} for node in (ann, bob, cat))
    assert not any(node.engine.membership.hearsay for node in (ann, bob, cat))
    assert [packet for packet in wire.packets(Ping) if packet.message.number] == []


def test_of_one_that_never_answers_no_program_hears_anything_but_that_it_is_dead() -> None:
    """Neither that it joined nor that it died: there was nobody."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    tell(ann, ZOE)
    wire.until(lambda: ann.living == bob.living == {"ann", "bob"}, within=15.0)
    for node in (ann, bob):
        dead = [each for each in node.saw(MemberChanged) if each.claim.instance == ZOE.instance]
        assert [(each.claim.status, each.before) for each in dead] == [(Status.DEAD, None)]


def test_one_that_only_others_can_reach_is_shown_on_their_word() -> None:
    wire = Wire()
    ann, bob, cat = wire.start("ann"), wire.start("bob"), wire.start("cat")
    bob.join("ann")
    wire.cut("ann", "cat")
    cat.join("bob")
    assert "cat" in ann.living and shown(ann, cat.instance) == []
    wire.until(lambda: bool(shown(ann, cat.instance)), within=1.5)
    assert shown(ann, cat.instance) == [(Status.ALIVE, "it answered somebody else")]


def test_one_that_stalls_is_shown_if_a_member_of_its_host_lives_who_sees_its_process() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    by_nobody = Claim(901, "yan", (address("yan"),), EPOCH).by_whom(Status.STALLED, 77)
    tell(ann, ZOE.by_whom(Status.STALLED, bob.instance), by_nobody)
    assert shown(ann, ZOE.instance) == [(Status.STALLED, "its process exists")]
    assert shown(ann, by_nobody.instance) == []


def test_one_whose_process_is_watched_is_shown() -> None:
    wire = Wire()
    ann = wire.start("ann")
    tell(ann, ZOE)
    wire.perform(ann, ann.engine.watching(ZOE.instance, wire.now))
    assert shown(ann, ZOE.instance) == [(Status.ALIVE, "its process exists")]


def test_a_newcomer_is_ready_when_all_of_whom_it_was_told_have_answered() -> None:
    """So that a program that has just started is shown everybody who is there."""
    wire = Wire(latency=0.01)
    wire.start("ann")
    for name in ("bob", "cat", "dan"):
        wire.start(name).join("ann")
        wire.advance(1.0)
    eve = wire.start("eve")
    with wire.losing(lambda packet: (packet.source, packet.target) == ("dan", "eve")) as lost:
        eve.join("ann")
        wire.until(lambda: "cat" in {each.claim.name for each in eve.saw(MemberChanged)}, within=0.1)
        assert lost and not eve.saw(Ready), "dan was not heard"
    wire.put(lost[0])
    wire.deliver()
    assert eve.saw(Ready) == []
    wire.advance(0.01)
    assert [each.claim.name for each in eve.saw(MemberChanged)] == ["ann", "bob", "cat", "dan"]
    assert eve.saw(Ready) == [Ready()]


def test_a_newcomer_waits_a_quarter_of_a_second_for_those_who_do_not_answer() -> None:
    wire = Wire()
    wire.crash(wire.cluster("ann", "bob", "cat")[-1])
    dan = wire.start("dan")
    dan.join("ann")
    assert not dan.saw(Ready)
    assert wire.until(lambda: bool(dan.saw(Ready)), within=1.0) == pytest.approx(0.25)


def test_hundreds_of_whom_one_tells_are_asked_some_at_a_time() -> None:
    wire = Wire()
    ann = wire.start("ann")
    tell(ann, *(Claim(1_000 + number, f"w{number}", (f"unix:/w{number}",), EPOCH) for number in range(150)))
    asked = []
    for _ in range(3):
        wire.advance(0.25)
        asked.append(len({packet.target for packet in wire.packets(Ping, "ann")}))
    assert asked == [64, 128, 150]


def with_the_long_dead(count: int = 18, dead: int = 60) -> list[Node]:
    """All of a cluster are told of many who are no more, as by one who has slept for a day."""
    wire = Wire()
    nodes = [wire.start(f"n{number}", instance=(8 * number + 1) << 56) for number in range(count)]
    for node in nodes[1:]:
        node.join("n0")
    told = [Claim((4 * each << 56) + 2, f"old{each}", (address(f"old{each}"),), EPOCH) for each in range(dead)]
    for node in nodes:
        tell(node, *told)
    return nodes


def test_nobody_of_whom_others_only_told_is_to_hand_writes_on() -> None:
    """What one who slept brings up is mostly dead: what was handed to those came to nobody until digests differed."""
    nodes = with_the_long_dead()
    nodes[0].write(k=1)
    assert all(node.data == {"k": 1} for node in nodes)


def test_from_the_silence_of_those_of_whom_others_only_told_nobody_learns_to_mistrust_itself() -> None:
    """Asked as witnesses they said nothing: all took themselves for cut off, and probed once in eight seconds."""
    nodes = with_the_long_dead()
    nodes[0].wire.advance(2.0)
    assert [node.engine.membership.detector.health for node in nodes] == [0] * len(nodes)


def test_news_is_told_to_those_who_were_heard() -> None:
    nodes = with_the_long_dead()
    ann, last = nodes[0], nodes[-1]
    ann.wire.crash(last)
    ann.wire.deliver()
    ann.wire.perform(ann, ann.engine.exited(last.instance, ann.wire.now))
    ann.wire.deliver()
    assert all(node.status_of(last.instance) == Status.DEAD for node in nodes[:-1])


@pytest.mark.parametrize("end", [Status.DEAD, Status.LEFT])
def test_who_was_never_heard_and_is_gone_is_kept_in_mind_no_longer(end: Status) -> None:
    wire = Wire()
    ann, _ = wire.cluster("ann", "bob")
    tell(ann, ZOE)
    tell(ann, ZOE.ended(end))
    assert ann.engine.membership.hearsay == {} and not ann.engine.membership.introducing
    wire.advance(3.0)
    assert wire.packets(Ping, "ann", "zoe") == []
