"""How is a crash noticed, and a healthy member never taken for one?

The bound: with n members, one prober reaches everybody within 2(n - 1) intervals (the last of one round, the first of
the next), a probe takes one more, and a suspect has 4 max(1, log10 n) intervals to refute. So everybody knows of a
crash within B = 2(n - 1) + 1 + 4 max(1, log10 n) intervals.
"""

from __future__ import annotations

from math import inf, log10

import pytest

from gossip.protocol.effects import Dial, MemberChanged, Reborn, Send
from gossip.protocol.members import Status
from gossip.protocol.messages import Ack, Gossip, Join, Ping, PingReq, Push
from gossip.protocol.settings import Settings
from tests.protocol.wire import Node, Packet, Wire, address, agree, hushed

NAMES = ("ann", "bob", "cat", "dan", "eve", "fay", "gus", "hal", "ida", "jon", "kim", "leo")


def bound(members: int) -> float:
    return 2 * (members - 1) + 1 + 4 * max(1.0, log10(members))


def said(node: Node, name_or_instance: int) -> list[Status]:
    """All that a node was told of an instance, in order."""
    about = [change for change in node.saw(MemberChanged) if change.claim.instance == name_or_instance]
    return [change.claim.status for change in about if change.before is None or is_news(change)]


def is_news(change: MemberChanged) -> bool:
    """Whether something else was said than that others say so too."""
    return change.before is None or change.claim._replace(by=()) != change.before._replace(by=())


def gossip(wire: Wire, to: Node, sender: int, *claims: object) -> None:
    wire.perform(to, to.hear(to.engine.codec.encode(sender, Gossip(claims))))  # type: ignore[arg-type]


def test_one_alone_has_nobody_to_probe_and_no_deadline() -> None:
    wire = Wire()
    ann = wire.start("ann")
    assert ann.engine.deadline == inf
    assert ann.engine.tick(now=100.0, wall=ann.wall) == []
    assert ann.engine.join([], now=100.0) == [], "it was ready before, and there is nobody to ask"
    wire.advance(100.0)
    assert wire.sent == []


@pytest.mark.parametrize("count", [2, 3, 4, 12])
def test_everybody_is_probed_by_everybody_once_a_round(count: int) -> None:
    wire = Wire()
    nodes = wire.cluster(*NAMES[:count])
    rounds = 3
    wire.advance(rounds * (count - 1) + 0.5)
    for node in nodes:
        for other in nodes:
            if other is not node:
                pings = wire.packets(Ping, node.name, other.name)
                assert len(pings) == rounds
                assert len(wire.packets(Ack, other.name, node.name)) == rounds


@pytest.mark.parametrize("count", [2, 3, 5, 12])
def test_a_crash_is_known_to_all_within_the_bound(count: int) -> None:
    wire = Wire()
    nodes = wire.cluster(*NAMES[:count])
    wire.advance(3.3)
    *others, victim = nodes
    wire.crash(victim)
    wire.until(lambda: all(node.status_of(victim.instance) == Status.DEAD for node in others), within=bound(count))
    for node in others:
        assert said(node, victim.instance) == [Status.SUSPECT, Status.DEAD]
        assert [change.claim.instance for change in node.saw(MemberChanged) if is_news(change)] == [victim.instance] * 2
    assert {packet.target for packet in wire.packets(Ping)} >= {victim.name}


def test_half_of_them_killed_at_once_are_found_and_the_other_half_is_left_alone() -> None:
    wire = Wire()
    nodes = wire.cluster(*NAMES)
    for victim in nodes[6:]:
        wire.crash(victim)
    wire.advance(bound(12))
    for node in nodes[:6]:
        assert node.living == set(NAMES[:6])
        assert not node.saw(Reborn)


def test_a_member_whose_direct_link_is_cut_is_saved_by_the_others() -> None:
    """M6: not transitive. Data goes the long way round, and nobody is even suspected."""
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    wire.cut("ann", "bob")
    ann.write(a=1)
    bob.write(b=2)
    wire.advance(60.0)
    assert wire.packets(PingReq, "ann", "cat") and wire.packets(Ping, "cat", "bob")
    assert ann.data == bob.data == cat.data == {"a": 1, "b": 2}
    for node in (ann, bob, cat):
        assert node.saw(MemberChanged) == []


def test_a_link_that_works_one_way_only_gets_nobody_killed() -> None:
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    wire.cut("ann", "bob", both=False)
    ann.write(a=1)
    wire.advance(60.0)
    assert agree(ann, bob, cat)
    for node in (ann, bob, cat):
        assert node.saw(MemberChanged) == []


def test_the_witness_passes_the_ack_on_under_the_number_of_the_asker() -> None:
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    asked = ann.engine.codec.encode(ann.instance, PingReq(77, bob.instance))
    wire.perform(cat, cat.hear(asked))
    wire.deliver()
    assert [packet.message.number for packet in wire.packets(Ack, "cat", "ann")] == [77]


def test_nobody_is_asked_about_a_member_that_is_unknown_or_gone() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    for target in (12345, ann.instance):
        effects = ann.hear(ann.engine.codec.encode(bob.instance, PingReq(1, target)))
        assert not [effect for effect in effects if isinstance(effect, Send) and effect.to == (bob.instance,)]


def test_the_suspected_hears_of_it_in_the_ping_and_refutes_in_the_ack() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    gossip(wire, ann, 99, bob.engine.me._replace(status=Status.SUSPECT))
    hushed(ann.engine)  # it is no news any more: the ping carries it for the target's sake
    with wire.losing(lambda packet: isinstance(packet.message, Gossip)):
        wire.advance(1.0)
    ping, ack = wire.packets(Ping, "ann")[0], wire.packets(Ack, "bob")[0]
    assert bob.engine.me._replace(status=Status.SUSPECT, incarnation=0) in ping.message.claims
    assert ack.message.claims[0] == bob.engine.me
    assert bob.engine.me.incarnation == 1
    assert said(ann, bob.instance) == [Status.SUSPECT, Status.ALIVE]
    wire.advance(30.0)
    assert said(ann, bob.instance) == [Status.SUSPECT, Status.ALIVE]
    assert not bob.saw(Reborn)


def test_a_refutation_reaches_those_whom_the_suspected_does_not_probe() -> None:
    wire = Wire()
    ann, bob, cat, dan = wire.cluster("ann", "bob", "cat", "dan")
    gossip(wire, ann, 99, dan.engine.me._replace(status=Status.SUSPECT))
    wire.deliver()
    assert dan.engine.me.incarnation == 1
    for node in (ann, bob, cat):
        assert node.engine.members.table[dan.instance] == dan.engine.me
        assert node.engine.membership.detector._suspects == {}


def test_a_second_suspicion_after_an_unheard_refutation_starts_its_own_time() -> None:
    """The greater incarnation proves that the member lived in between, so the first suspicion was wrong."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    wire.crash(bob)
    suspected = bob.engine.me._replace(status=Status.SUSPECT)
    wire.nodes["ann"].engine.membership.detector.next_round = inf  # what others say is the only news here
    gossip(wire, ann, 99, suspected)
    wire.advance(3.0)
    gossip(wire, ann, 99, suspected._replace(incarnation=1))
    wire.advance(3.0)
    assert ann.status_of(bob.instance) == Status.SUSPECT
    wire.advance(1.1)
    assert ann.status_of(bob.instance) == Status.DEAD


def test_a_repeated_suspicion_gets_no_new_time() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    wire.crash(bob)
    wire.nodes["ann"].engine.membership.detector.next_round = inf
    gossip(wire, ann, 99, bob.engine.me._replace(status=Status.SUSPECT))
    wire.advance(3.0)
    gossip(wire, ann, 98, bob.engine.me._replace(status=Status.SUSPECT))
    wire.advance(1.1)
    assert ann.status_of(bob.instance) == Status.DEAD


def test_a_false_hint_is_cancelled_by_any_ack() -> None:
    """The stream broke, the member did not; its direct answer is lost, but a witness reached it."""
    wire = Wire(latency=0.02)
    ann, bob, cat = (wire.start(name) for name in ("ann", "bob", "cat"))
    bob.join("ann")
    cat.join("ann")
    wire.advance(0.5)
    wire.cut("ann", "bob")
    wire.perform(ann, ann.engine.lost(bob.instance, wire.now))
    wire.advance(0.19)
    assert wire.packets(Ack, "cat", "ann")
    wire.advance(0.3)
    assert ann.status_of(bob.instance) == Status.ALIVE
    assert said(ann, bob.instance) == [Status.ALIVE]


def test_a_true_hint_is_a_suspicion_after_200_milliseconds_and_a_death_an_interval_later() -> None:
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    wire.crash(bob)
    wire.perform(ann, ann.engine.lost(bob.instance, wire.now))
    assert len(wire.packets(PingReq, "ann", "cat")) == 1, "others are asked at once"
    wire.advance(0.199)
    assert ann.status_of(bob.instance) == Status.ALIVE
    wire.advance(0.002)
    assert ann.status_of(bob.instance) == cat.status_of(bob.instance) == Status.SUSPECT
    assert "stream ended" in ann.saw(MemberChanged)[-1].why
    wire.advance(0.998)
    assert ann.status_of(bob.instance) == Status.SUSPECT
    wire.advance(0.002)
    assert ann.status_of(bob.instance) == cat.status_of(bob.instance) == Status.DEAD


def test_a_living_member_whose_streams_were_all_reset_while_it_was_busy_refutes() -> None:
    """Half a second of a blocked loop and a reset stream used to be a death without a chance to refute."""
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    wire.pause(bob)
    for witness in (ann, cat):
        wire.perform(witness, witness.engine.lost(bob.instance, wire.now))
    wire.advance(0.5)
    assert ann.status_of(bob.instance) == Status.SUSPECT
    wire.resume(bob)
    wire.advance(2.0)
    assert ann.status_of(bob.instance) == cat.status_of(bob.instance) == Status.ALIVE
    assert bob.saw(Reborn) == []


def test_the_end_of_a_process_is_proof_and_all_know_at_once() -> None:
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    wire.crash(bob)
    wire.perform(ann, ann.engine.exited(bob.instance, wire.now))
    wire.deliver()
    assert ann.status_of(bob.instance) == cat.status_of(bob.instance) == Status.DEAD
    assert ann.saw(MemberChanged)[-1].why == "its process has ended"
    assert ann.engine.exited(bob.instance, wire.now) == [], "once"


def test_a_hint_about_a_stranger_or_one_that_is_gone_is_nothing() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    assert ann.engine.lost(12345, wire.now) == []
    bob.leave()
    assert ann.engine.lost(bob.instance, wire.now) == []


def test_a_hint_repeated_is_one_probe() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    assert ann.engine.lost(bob.instance, wire.now) != []
    assert ann.engine.lost(bob.instance, wire.now) == []


@pytest.mark.parametrize("seconds", [2.0, 20.0])
def test_a_stopped_node_accuses_nobody_when_it_goes_on(seconds: float) -> None:
    """M7: SIGSTOP, then SIGCONT. The acks lie unread in its socket; the late timer is its own fault."""
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    wire.advance(1.05)
    wire.pause(cat)
    wire.advance(seconds)
    wire.resume(cat)
    wire.advance(10.0)
    for node in (ann, bob):
        assert node.living == {"ann", "bob", "cat"}
        assert said(cat, node.instance) == []
        assert said(node, ann.instance) == said(node, bob.instance) == []
    assert len(cat.saw(Reborn)) == (1 if seconds > bound(3) else 0)


def test_a_probe_that_was_under_way_when_the_node_was_stopped_gets_its_full_time() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    with wire.losing(lambda packet: isinstance(packet.message, Ack)):
        wire.advance(1.01)
        wire.pause(ann)
        wire.advance(8.0)
    wire.resume(ann)
    wire.advance(2.0)
    assert said(ann, bob.instance) == []
    assert ann.engine.counters["late"] == 1


def test_who_is_told_that_it_is_dead_goes_on_as_a_new_instance_with_its_data() -> None:
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    bob.write(kept=1)
    old = bob.instance
    bob.set("unsent", 2)
    gossip(wire, bob, ann.instance, bob.engine.me._replace(status=Status.DEAD))
    wire.deliver()
    assert bob.saw(Reborn) == [Reborn(bob.engine.me)]
    assert bob.instance != old and bob.engine.replication.replica == bob.instance
    bob.write(after=3)
    assert ann.data == bob.data == cat.data == {"kept": 1, "unsent": 2, "after": 3}
    assert ann.store.context == {old: 2, bob.instance: 1}
    for node in (ann, cat):
        assert node.living == {"ann", "bob", "cat"}
        assert (node.status_of(old), node.status_of(bob.instance)) == (Status.DEAD, Status.ALIVE)
    wire.advance(60.0)
    assert len(bob.saw(Reborn)) == 1


def test_who_hears_of_its_death_from_one_whom_it_buried_loses_no_unsent_write() -> None:
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    old = ann.instance
    with wire.losing(lambda packet: True):
        gossip(wire, ann, 99, bob.engine.me._replace(status=Status.DEAD))
    ann.set("unsent", 1)
    gossip(wire, ann, bob.instance, ann.engine.me._replace(status=Status.DEAD))
    wire.deliver()
    assert len(ann.saw(Reborn)) == 1
    assert cat.data == {"unsent": 1}
    assert cat.store.context == {old: 1}


def test_who_does_not_know_that_it_is_dead_is_told_when_it_speaks() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    gossip(wire, ann, 99, bob.engine.me._replace(status=Status.DEAD))
    assert ann.living == {"ann"}
    wire.advance(2.0)
    assert len(bob.saw(Reborn)) == 1
    assert ann.living == bob.living == {"ann", "bob"}


def test_nobody_is_born_again_in_the_middle_of_a_transaction() -> None:
    """Its writes are numbered already; it is reborn when it is told again, after the end."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    bob.engine.begin()
    bob.set("a", 1)
    gossip(wire, ann, 99, bob.engine.me._replace(status=Status.DEAD))
    wire.advance(2.0)
    assert not bob.saw(Reborn)
    bob.set("b", 2)
    bob.engine.end()
    wire.advance(10.0)
    assert len(bob.saw(Reborn)) == 1
    assert ann.data == {"a": 1, "b": 2}


def test_two_that_buried_each_other_and_can_not_be_reborn_now_do_not_chatter() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    for node, other in ((ann, bob), (bob, ann)):
        node.engine.begin()
        node.set("k", node.name)
        gossip(wire, node, 99, other.engine.me._replace(status=Status.DEAD))
    gossip(wire, ann, bob.instance, bob.engine.me)
    ping = Ping(1, bob.engine.digest, (bob.engine.me,))
    wire.perform(ann, ann.hear(bob.engine.codec.encode(bob.instance, ping)))
    wire.deliver()
    assert len(wire.sent) < 10
    for node in (ann, bob):
        node.engine.end()
    wire.advance(70.0)
    assert ann.living == bob.living == {"ann", "bob"}
    assert agree(ann, bob)


def test_alive_in_my_name_from_another_is_overruled() -> None:
    """S5: a forged address would draw all my messages away."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    forged = bob.engine.me._replace(addresses=(address("eve"),), incarnation=41)
    gossip(wire, ann, 99, forged)
    assert ann.engine.members.table[bob.instance].addresses == forged.addresses
    gossip(wire, bob, ann.instance, forged)
    bob.tick()
    wire.deliver()
    assert bob.engine.me.incarnation == 42
    assert ann.engine.members.table[bob.instance] == bob.engine.me


@pytest.mark.parametrize("incarnation", [2**63 - 1, 2**63, 2**64 - 1])
def test_an_incarnation_that_leaves_no_room_makes_a_new_instance(incarnation: int) -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    gossip(wire, bob, ann.instance, bob.engine.me._replace(incarnation=incarnation, status=Status.SUSPECT))
    wire.deliver()
    assert len(bob.saw(Reborn)) == 1
    assert bob.engine.me.incarnation == 0
    assert ann.living == bob.living == {"ann", "bob"}


def test_everybody_is_dead_ten_thousand_times() -> None:
    """S5: whoever holds the cluster's name can annoy; he can not stop it, nor make it grow."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    bob.write(b=1)
    for _ in range(10_000):
        everybody = [claim._replace(status=Status.DEAD) for claim in ann.engine.members.table.values()]
        ann.hear(ann.engine.codec.encode(99, Gossip(tuple(everybody))))
    assert len(ann.engine.members.table) < 100
    assert len(ann.engine.membership.broadcast) < 100
    wire.advance(70.0)
    assert ann.living == bob.living == {"ann", "bob"}
    assert agree(ann, bob)


def test_a_partition_heals_though_each_side_buried_the_other() -> None:
    """M3. Nobody tells them: two of the dead addresses are tried every 30 s."""
    wire = Wire()
    nodes = ann, bob, _, dan = wire.cluster("ann", "bob", "cat", "dan")
    for one in ("ann", "bob"):
        for other in ("cat", "dan"):
            wire.cut(one, other)
    wire.advance(60.0)
    assert (ann.living, dan.living) == ({"ann", "bob"}, {"cat", "dan"})
    ann.write(a=1, both="ann")
    dan.write(d=2, both="dan")
    wire.heal()
    wire.until(lambda: all(node.living == {"ann", "bob", "cat", "dan"} for node in nodes), within=65.0)
    wire.until(lambda: agree(*nodes), within=5.0)
    assert bob.data.keys() == {"a", "d", "both"}


def test_who_never_joined_anybody_looks_for_the_dead_as_well() -> None:
    wire = Wire()
    _, bob = wire.cluster("ann", "bob")
    wire.crash(bob)
    wire.advance(40.0)
    assert wire.packets(Join, "ann", "bob")


def test_healing_tries_two_of_the_dead_and_none_that_left() -> None:
    wire = Wire()
    ann, *others = wire.cluster(*NAMES[:6])
    others[0].leave()
    for node in others[1:]:
        wire.crash(node)
    wire.advance(6 * bound(6))  # alone, with nobody to confirm what she suspects, and none too sure of herself
    ann.engine.membership.heal_due = wire.now
    dialled = [effect.address for effect in ann.engine.tick(wire.now, ann.wall) if isinstance(effect, Dial)]
    assert len(dialled) == 2
    assert set(dialled) <= {address(node.name) for node in others[1:]}


def test_the_dead_are_forgotten_in_the_end() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    wire.crash(bob)
    wire.advance(20.0)
    assert bob.instance in ann.engine.members.table
    wire.advance(ann.engine._settings.remember_dead + 60.0)
    assert list(ann.engine.members.table) == [ann.instance]
    assert ann.engine.deadline == inf, "alone, with nobody to look for"


def test_of_the_dead_of_long_ago_nobody_is_told_any_more() -> None:
    """Who forgets them a little later than another would bring them back to him, and be reminded himself, for ever."""
    wire = Wire(Settings(remember_dead=200.0))
    ann, _, cat = wire.cluster("ann", "bob", "cat")
    wire.crash(cat)
    wire.advance(60.0)
    early = wire.start("dan")
    early.join("ann")
    assert early.status_of(cat.instance) == Status.DEAD
    wire.crash(early)
    wire.advance(60.0)
    late = wire.start("eve")
    late.join("ann")
    assert late.living == {"ann", "bob", "eve"}
    assert cat.instance in ann.engine.members.table and cat.instance not in late.engine.members.table


def test_a_slow_but_living_member_is_not_killed_by_latency() -> None:
    """M8: 300 ms each way is more than the probe's timeout and less than its interval."""
    wire = Wire(latency=0.3)
    nodes = [wire.start(name) for name in ("ann", "bob", "cat")]
    for node in nodes[1:]:
        node.join("ann")
    wire.advance(60.0)
    for node in nodes:
        assert node.living == {"ann", "bob", "cat"}
        assert {change.claim.status for change in node.saw(MemberChanged)} == {Status.ALIVE}


def test_a_ping_that_is_lost_is_no_reason_to_suspect() -> None:
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")

    def first(packet: Packet) -> bool:
        return isinstance(packet.message, Ping) and not lost

    with wire.losing(first) as lost:
        wire.advance(5.0)
    assert len(lost) == 1
    assert not [change for node in (ann, bob, cat) for change in node.saw(MemberChanged)]


def test_a_dead_member_gets_no_writes() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    wire.crash(bob)
    wire.advance(bound(2))
    ann.write(a=1)
    assert wire.packets(Push) == []


def test_who_has_to_refute_mistrusts_itself_and_who_only_says_something_new_does_not() -> None:
    """Its acks were not heard: that may be its own fault."""
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    detector = ann.engine.membership.detector
    wire.perform(ann, ann.engine.retagged((("role", "web"),)))
    assert detector.health == 0
    gossip(wire, ann, bob.instance, ann.engine.me.by_whom(Status.SUSPECT, cat.instance))
    assert detector.health == 1 and ann.engine.me.incarnation == 2
    gossip(wire, ann, bob.instance, ann.engine.me._replace(incarnation=1, status=Status.SUSPECT))
    assert detector.health == 1, "that was refuted before"


def test_the_dead_at_whose_address_somebody_lives_take_no_turn_of_those_who_may_come_back() -> None:
    wire = Wire()
    ann, bob, cat, dan = wire.cluster("ann", "bob", "cat", "dan")
    before = [node.engine.me._replace(instance=900 + node.instance).ended() for node in (bob, cat, dan)]
    away = ann.engine.me._replace(instance=990, addresses=(address("zoe"),)).ended()
    gossip(wire, ann, bob.instance, *before, away)
    assert ann.engine.membership.heal(wire.now) == [address("zoe")]


def test_what_was_asked_in_the_name_of_the_dead_accuses_nobody() -> None:
    """It was not answered, since those who were asked took the asker for dead."""
    wire = Wire()
    ann, bob, _ = wire.cluster("ann", "bob", "cat")
    detector = ann.engine.membership.detector
    with wire.losing(lambda packet: isinstance(packet.message, Ack) and packet.target == "ann"):
        wire.until(lambda: detector.waits, within=5.0)
        gossip(wire, ann, bob.instance, ann.engine.me.ended())
        assert len(ann.saw(Reborn)) == 1 and not detector.waits


def test_who_is_suspected_is_told_in_that_moment_and_not_in_its_turn() -> None:
    """With a dozen others its turn may come too late; so with one who is far, of whom nobody knows it yet."""
    wire = Wire()
    *others, leo = wire.cluster(*NAMES)
    for other in others:
        wire.cut("leo", other.name, both=False)  # it hears, and is not heard
    doubting = lambda: [each for each in others if each.status_of(leo.instance) == Status.SUSPECT]  # noqa: E731
    wire.until(lambda: bool(doubting()), within=2 * len(NAMES))
    assert leo.engine.me.incarnation > 0, "it has refuted already"
    (first, *_) = doubting()
    told = wire.packets(Ping, first.name, "leo")[-1].message
    assert isinstance(told, Ping)
    assert [claim.status for claim in told.claims if claim.instance == leo.instance] == [Status.SUSPECT]
