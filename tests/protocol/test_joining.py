"""How does a node become a member, and how does it stop being one?"""

from __future__ import annotations

import pytest

from crdt import LWWMap, dot_of
from gossip.protocol.effects import MemberChanged, Ready, Reborn
from gossip.protocol.members import Claim, Status
from gossip.protocol.messages import Ack, Busy, Gossip, Join, Ping, Pull, Push, StateNext, StatePart, Welcome
from gossip.protocol.settings import Settings
from tests.protocol.wire import EPOCH, Node, Wire, address, agree


def test_two_strangers_meet_and_the_newcomer_gets_everything() -> None:
    wire = Wire()
    ann, bob = wire.start("ann"), wire.start("bob")
    ann.write(a=1, b=2)
    bob.join("ann")
    assert ann.living == bob.living == {"ann", "bob"}
    assert bob.data == {"a": 1, "b": 2}
    assert bob.saw(Ready) == [Ready()]
    assert agree(ann, bob)
    assert [type(packet.message) for packet in wire.sent if packet.source == "bob"] == [Join, Pull, Gossip, StateNext]


def test_the_third_is_introduced_to_all_by_the_one_it_asked() -> None:
    wire = Wire()
    ann, bob, cat = (wire.start(name) for name in ("ann", "bob", "cat"))
    bob.join("ann")
    cat.join("bob")
    assert ann.living == bob.living == cat.living == {"ann", "bob", "cat"}
    cat.write(c=3)
    assert ann.data == bob.data == {"c": 3}


def test_joining_twice_is_joining_once() -> None:
    wire = Wire()
    ann, bob = wire.start("ann"), wire.start("bob")
    ann.write(a=1)
    join = bob.engine.join([address("ann"), address("ann")], wire.now)
    wire.perform(bob, join)
    wire.deliver()
    assert bob.saw(Ready) == [Ready()]
    assert len(ann.saw(MemberChanged)) == len(bob.saw(MemberChanged)) == 1
    before = len(wire.sent)
    bob.join("ann")
    assert len(wire.sent) == before, "a living member is not asked again"


def test_a_newcomer_that_has_written_already_brings_it_along_and_is_ready() -> None:
    wire = Wire()
    ann, bob = wire.start("ann"), wire.start("bob")
    bob.write(b=1)
    bob.join("ann")
    wire.advance(3.0)
    assert bob.saw(Ready) == [Ready()]
    assert ann.data == {"b": 1}
    assert agree(ann, bob)


def test_a_write_that_overtakes_the_state_does_not_make_a_newcomer_ready() -> None:
    """Ann has data of others, and makes her own first write while bob's pull is under way: it comes without a gap."""
    wire = Wire()
    ann, zoe = wire.cluster("ann", "zoe")
    zoe.write(old="from zoe")
    bob = wire.start("bob")
    with wire.losing(lambda packet: isinstance(packet.message, Pull)) as pulls:
        bob.join("ann")
        ann.write(new="from ann")
    assert bob.data == {"new": "from ann"}
    assert not bob.saw(Ready), "what ann had when bob joined is not here yet"
    wire.put(pulls[0])
    wire.deliver()
    assert bob.data == {"old": "from zoe", "new": "from ann"}
    assert bob.saw(Ready) == [Ready()]


def test_an_answer_of_which_the_beginning_was_lost_does_not_make_a_newcomer_ready() -> None:
    """Its end says that it is all. What came before it is missing, and is asked for again."""
    wire = Wire(Settings(push_bytes=1_000))
    ann, zoe = wire.cluster("ann", "zoe")
    zoe.write(old="from zoe")
    zoe.write(large="x" * 2_000)
    bob = wire.start("bob")
    with wire.losing(lambda packet: isinstance(packet.message, Pull)):
        bob.join("ann")
        ann.write(new="from ann")
    with wire.losing(lambda packet: isinstance(packet.message, Push) and packet.message.parts > 1 and not lost) as lost:
        wire.until(lambda: len(lost) > 0, within=3.0)
    assert bob.data == {"new": "from ann"}
    assert not bob.saw(Ready)
    wire.until(lambda: agree(ann, bob), within=3.0)
    assert bob.saw(Ready) == [Ready()]


def test_ready_comes_though_the_first_whom_it_asked_vanished() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    ann.write(a=1)
    cat = wire.start("cat")
    with wire.losing(lambda packet: isinstance(packet.message, StatePart)):
        cat.join("ann")
    wire.crash(ann)
    assert not cat.saw(Ready)
    wire.until(lambda: cat.saw(Ready) == [Ready()], within=10.0)
    assert cat.data == {"a": 1}
    assert agree(bob, cat)


def test_eight_workers_that_start_at_once_are_all_ready_at_once() -> None:
    """A state that was sent to its end keeps no place: with four places, the fifth would wait for 10 s otherwise."""
    wire = Wire(Settings(part_bytes=200))
    ann = wire.start("ann")
    ann.write(**{f"k{number}": "x" * 100 for number in range(20)})
    workers = [wire.start(f"w{number}") for number in range(8)]
    for worker in workers:
        worker.join("ann")
    assert all(worker.saw(Ready) for worker in workers)
    assert agree(ann, *workers)


def test_four_newcomers_at_once_are_not_ready_with_nothing() -> None:
    """They meet each other first, and two empty nodes agree at once: that used to count. All came up empty."""
    wire = Wire(Settings(part_bytes=200))
    ann = wire.start("ann")
    ann.write(a=1)
    workers = [wire.start(f"w{number}") for number in range(4)]
    with wire.losing(lambda packet: "ann" in (packet.source, packet.target)) as lost:
        for worker in workers:
            worker.join("ann", *(f"w{number}" for number in range(4)))
    assert not any(worker.saw(Ready) for worker in workers), "ann has not answered yet"
    for packet in lost:
        wire.put(packet)
    wire.deliver()
    assert all(worker.saw(Ready) and worker.data == {"a": 1} for worker in workers)


def test_who_was_given_all_that_another_newcomer_has_is_not_ready_by_that() -> None:
    """Bob brings a write of his own and has not heard of the others' yet: his everything is not what they share."""
    wire = Wire()
    ann, bob, cat = (wire.start(name) for name in ("ann", "bob", "cat"))
    ann.write(a=1)
    bob.write(b=1)
    with wire.losing(lambda packet: "ann" in (packet.source, packet.target)) as lost:
        bob.join("ann")
        cat.join("ann", "bob")
    assert cat.data == {"b": 1}
    assert not cat.saw(Ready) and not bob.saw(Ready)
    for packet in lost:
        wire.put(packet)
    wire.deliver()
    wire.until(lambda: agree(ann, bob, cat), within=3.0)
    assert bob.saw(Ready) == cat.saw(Ready) == [Ready()]


def test_a_whole_cluster_that_starts_at_once_is_ready_at_once() -> None:
    wire = Wire()
    workers = [wire.start(f"w{number}") for number in range(4)]
    for worker in workers:
        worker.join(*(f"w{number}" for number in range(4) if worker.name != f"w{number}"))
    assert all(worker.engine.repair.ready for worker in workers)


def test_newcomers_who_find_one_busy_ask_another_at_once() -> None:
    """Two that have everything, eight that come, one place each: the fifth used to wait for ten seconds."""
    wire = Wire(Settings(part_bytes=200, max_transfers=1))
    ann, bob = wire.cluster("ann", "bob")
    ann.write(**{f"k{number}": "x" * 100 for number in range(20)})
    workers = [wire.start(f"w{number}") for number in range(8)]
    for worker in workers:
        worker.join("ann", "bob")
    wire.until(lambda: all(worker.saw(Ready) for worker in workers), within=5.0)
    assert agree(ann, bob, *workers)


def test_a_newcomer_to_whom_all_are_busy_does_not_ask_round_and_round() -> None:
    """Found by the simulated world, seed 404: two busy ones were asked in turn, each at once after the other."""
    wire = Wire(Settings(max_transfers=1, part_bytes=200))
    ann, _ = wire.cluster("ann", "bob")
    ann.write(**{f"k{number}": "x" * 100 for number in range(20)})
    with wire.losing(lambda packet: isinstance(packet.message, StateNext)):  # their places stay taken
        for name, elder in (("cat", "ann"), ("dan", "bob")):
            wire.start(name).join(elder)
        zoe = wire.start("zoe")
        zoe.join("ann", "bob")
        assert len(wire.packets(Busy, target="zoe")) <= 4
    wire.until(lambda: agree(ann, zoe), within=30.0)


@pytest.mark.parametrize("latency", [0.4, 0.55, 0.7, 0.9])
def test_a_newcomer_far_away_gets_its_state_though_it_asks_again_before_the_answer_comes(latency: float) -> None:
    """Its second pull starts the state anew at the sender; the first part of that must be let in."""
    wire = Wire(Settings(part_bytes=200, join_timeout=10.0), latency=latency)
    ann = wire.start("ann")
    ann.write(**{f"k{number}": "x" * 100 for number in range(3)})
    bob = wire.start("bob")
    bob.join("ann")
    wire.until(lambda: bool(bob.saw(Ready)), within=10.0)
    assert agree(ann, bob)


def test_who_leaves_says_so_and_hands_over_what_it_has_not_sent() -> None:
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    cat.set("last", "words")
    cat.leave()
    for node in (ann, bob):
        assert node.data == {"last": "words"}
        assert node.status_of(cat.instance) == Status.LEFT
        assert [change.claim.status for change in node.saw(MemberChanged)] == [Status.LEFT]
    wire.sent.clear()
    wire.advance(60.0)
    assert not [packet for packet in wire.sent if packet.target == "cat"], "nobody looks for one that left"


def test_who_left_says_nothing_more() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    ping = ann.engine.codec.encode(ann.instance, Ping(1, ann.engine.digest, (ann.engine.me,)))
    wire.perform(bob, bob.engine.leave(wire.now))
    assert bob.hear(ping) == []


def test_leaving_and_joining_again_at_once_makes_a_new_member_of_the_same_name() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    bob.write(b=1)
    bob.leave()
    again = wire.start("bob")
    again.join("ann")
    assert ann.living == {"ann", "bob"}
    assert ann.status_of(bob.instance) == Status.LEFT
    assert ann.status_of(again.instance) == Status.ALIVE
    assert again.data == {"b": 1}
    wire.advance(30.0)
    assert not again.saw(Reborn)


def test_a_leave_of_which_the_last_packet_is_lost_is_a_crash() -> None:
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    with wire.losing(lambda packet: isinstance(packet.message, Gossip)):
        cat.leave()
    wire.until(lambda: ann.living == bob.living == {"ann", "bob"}, within=15.0)
    assert ann.status_of(cat.instance) == Status.DEAD


def test_who_leaves_while_suspected_has_left_and_is_not_dead() -> None:
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    suspicion = cat.engine.me._replace(status=Status.SUSPECT)
    wire.perform(ann, ann.hear(bob.engine.codec.encode(bob.instance, Gossip((suspicion,)))))
    assert ann.status_of(cat.instance) == Status.SUSPECT
    cat.leave()
    wire.advance(30.0)
    assert ann.status_of(cat.instance) == bob.status_of(cat.instance) == Status.LEFT


def test_two_clusters_that_grew_apart_merge_after_one_join() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    cat, dan = wire.cluster("cat", "dan")
    ann.write(a=1, both="ann")
    dan.write(d=4, both="dan")
    dan.join("ann")
    everybody = {"ann", "bob", "cat", "dan"}
    assert all(node.living == everybody for node in (ann, bob, cat, dan))
    wire.until(lambda: agree(ann, bob, cat, dan), within=5.0)
    assert bob.data.keys() == cat.data.keys() == {"a", "d", "both"}


def test_a_restart_at_the_same_address_replaces_the_old_at_once() -> None:
    wire = Wire()
    ann, bob, old = wire.cluster("ann", "bob", "cat")
    new = wire.start("cat")
    new.join("ann")
    assert wire.now == 0.0
    for node in (ann, bob):
        assert (node.status_of(old.instance), node.status_of(new.instance)) == (Status.DEAD, Status.ALIVE)
        why = {change.claim.instance: change.why for change in node.saw(MemberChanged)}
        assert old.instance in why


def test_an_old_instance_heard_of_after_its_successor_is_found_dead_too() -> None:
    """Pings for it reach the successor at the same address, whose ack must not count as the old one's."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    old = wire.start("cat").engine.me
    new = wire.start("cat")
    new.join("ann")
    wire.perform(ann, ann.hear(ann.engine.codec.encode(99, Gossip((old,)))))
    wire.deliver()
    wire.until(lambda: all(node.status_of(old.instance) == Status.DEAD for node in (ann, bob)), within=10.0)
    assert ann.status_of(new.instance) == Status.ALIVE
    assert not new.saw(Reborn)


def test_an_ack_of_the_successor_is_not_one_of_the_instance_that_was_pinged() -> None:
    """As above, where nobody can tell by their starts: the address of the old one was forwarded to the new."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    wire.nodes["bob"] = cat = wire.start("cat")
    wire.until(lambda: ann.status_of(bob.instance) == Status.DEAD, within=30.0)
    assert cat.living == {"cat", "ann", "bob"} or cat.living == {"cat", "ann"}


def test_a_successor_whose_clock_was_set_back_survives_and_the_old_one_is_found_dead() -> None:
    wire = Wire()
    ann, bob, old = wire.cluster("ann", "bob", "cat")
    new = wire.start("cat", started=EPOCH - 3_600_000)
    new.join("ann")
    wire.advance(30.0)
    for node in (ann, bob, new):
        assert node.living == {"ann", "bob", "cat"}
        assert node.status_of(old.instance) == Status.DEAD
        assert node.status_of(new.instance) == Status.ALIVE
    assert len(new.saw(Reborn)) <= 2


@pytest.mark.parametrize("later", [1, 5_000])
def test_two_that_announce_the_same_address_by_mistake_make_no_storm(later: int) -> None:
    """A copied configuration file. Each is at its own socket as well, so each hears that it is said to be replaced."""
    wire = Wire()
    shared = "10.0.0.1:7946"
    ann = wire.start("ann")
    bob = wire.start("bob", addresses=(address("bob"), shared))
    cat = wire.start("cat", addresses=(address("cat"), shared), started=bob.engine.me.started + later)
    bob.join("ann")
    cat.join("ann")
    wire.sent.clear()
    wire.advance(10.0)
    assert len(wire.sent) < 600
    assert len(bob.saw(Reborn)) + len(cat.saw(Reborn)) < 30
    assert ann.data == {}


def test_all_restart_at_once_while_old_claims_of_their_deaths_go_round() -> None:
    """M1 [memberlist #311]: the stale claims are of other instances, so they are of nobody who lives."""
    wire = Wire()
    names = ("ann", "bob", "cat")
    stale = tuple(node.engine.me._replace(status=Status.DEAD, incarnation=100) for node in wire.cluster(*names))
    nodes = [wire.start(name) for name in names]
    nodes[0].hear(nodes[0].engine.codec.encode(77, Gossip(stale)))
    for node in nodes[1:]:
        node.join("ann")
    assert all(node.living == set(names) for node in nodes)
    wire.advance(60.0)
    assert all(node.living == set(names) and not node.saw(Reborn) for node in nodes)


def test_dead_stays_dead_whatever_is_said_later() -> None:
    """M2: alive@1, dead@1, dead@10, late alive@2."""
    wire = Wire()
    ann = wire.start("ann")
    claim = Claim(9, "zoe", (address("zoe"),), EPOCH)
    for incarnation, status in ((1, Status.ALIVE), (1, Status.DEAD), (10, Status.DEAD), (2, Status.ALIVE)):
        said = claim._replace(incarnation=incarnation, status=status)
        wire.perform(ann, ann.hear(ann.engine.codec.encode(8, Gossip((said,)))))
    assert ann.engine.members.table[9] == claim._replace(incarnation=10, status=Status.DEAD)
    assert ann.living == {"ann"}


def test_a_dead_member_brought_up_again_by_a_lagging_peer_is_not_shown_as_alive() -> None:
    """M4."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    dead = Claim(9, "zoe", (address("zoe"),), EPOCH, status=Status.DEAD)
    wire.perform(ann, ann.hear(ann.engine.codec.encode(8, Gossip((dead,)))))
    wire.deliver()
    lagging = wire.start("cat")
    lagging.hear(ann.engine.codec.encode(8, Gossip((dead._replace(status=Status.ALIVE, incarnation=7),))))
    lagging.join("bob")
    assert ann.living == bob.living == lagging.living == {"ann", "bob", "cat"}


def test_the_same_name_at_two_addresses_is_two_members() -> None:
    wire = Wire()
    one, other = wire.start("web", at="one"), wire.start("web", at="other")
    other.join("one")
    wire.advance(30.0)
    assert len(one.engine.members.peers()) == len(other.engine.members.peers()) == 1


def test_two_clusters_on_one_wire_never_mix() -> None:
    wire = Wire()
    ann = wire.start("ann", cluster="shop")
    eve = wire.start("eve", cluster="bank")
    eve.join("ann")
    ann.join("eve")
    ann.write(a=1)
    wire.advance(60.0)
    assert (ann.living, eve.living) == ({"ann"}, {"eve"})
    assert eve.data == {}
    assert ann.engine.counters["malformed"] == eve.engine.counters["malformed"] == 1


@pytest.mark.parametrize("lost", [Join, Welcome, Gossip, Pull, StatePart])
def test_a_join_is_repaired_whichever_of_its_packets_is_lost(lost: type) -> None:
    """The runtime offers an address again and again until somebody there is a member."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    ann.write(a=1)
    cat = wire.start("cat")
    with wire.losing(lambda packet: isinstance(packet.message, lost)):
        cat.join("ann")
    for _ in range(5):
        cat.join("ann")
        wire.advance(1.0)
    assert ann.living == bob.living == cat.living == {"ann", "bob", "cat"}
    assert agree(ann, bob, cat)
    assert cat.saw(Ready) == [Ready()]


def test_a_ping_introduces_a_stranger() -> None:
    wire = Wire()
    ann, zoe = wire.start("ann"), wire.start("zoe")
    ping = Ping(5, zoe.engine.digest, (zoe.engine.me,))
    wire.perform(ann, ann.hear(zoe.engine.codec.encode(zoe.instance, ping)))
    assert ann.living == {"ann", "zoe"}
    assert [packet.message.number for packet in wire.packets(Ack, target="zoe")] == [5]


def test_what_was_written_before_a_restart_stays_and_cannot_be_numbered_again() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    bob.write(k="first life")
    wire.crash(bob)
    again: Node = wire.start("bob")
    again.join("ann")
    again.write(k="second life")
    assert ann.data == again.data == {"k": "second life"}
    assert ann.store.context.keys() == {bob.instance, again.instance}
    live = LWWMap(ann.store, "m").live("k")
    assert live is not None
    assert dot_of(live) == (again.instance, 1)


def test_a_join_does_not_wait_for_the_end_of_a_turn() -> None:
    wire = Wire()
    ann, bob = wire.start("ann"), wire.start("bob")
    ann.set("k", 1)
    bob.join("ann")
    assert bob.data == {"k": 1}, "own writes leave before anything is answered"
    assert len(wire.packets(Push)) == 0 or agree(ann, bob)
