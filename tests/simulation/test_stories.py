"""What did the simulation find? Its seeds, shrunk to the few steps that matter, and told.

A seed is no test: the next change to the simulation makes it another history. Further ones, told by the same wire,
stand beside what they are about in tests/protocol.
"""

from __future__ import annotations

from crdt import LWWMap, Store
from gossip.protocol.detector import Detector
from gossip.protocol.effects import Persist, Reborn
from gossip.protocol.log import Log
from gossip.protocol.members import Status
from gossip.protocol.messages import Gossip, Pull, Push, Sums
from gossip.protocol.settings import Settings
from tests.protocol.wire import Node, Wire, agree
from tests.simulation.disk import Disk


def test_two_that_buried_each_other_listen_when_they_are_told() -> None:
    """Seed 0. A split outlasts the suspicion. Each answered "you are dead" by the same, and read no word."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    wire.cut("ann", "bob")
    wire.advance(20.0)
    assert ann.living == {"ann"} and bob.living == {"bob"}
    wire.heal()
    wire.sent.clear()
    wire.advance(2 * wire.settings.heal_interval)
    assert ann.living == bob.living == {"ann", "bob"}
    assert len(wire.packets(Gossip)) < 20


def test_a_transaction_larger_than_a_push_can_be_pulled() -> None:
    """Seeds 6 and 10. What is held back is in no context, so each pull was answered with the same first part."""
    wire = Wire(Settings(batch_bytes=2_000, push_bytes=4_000))
    ann, bob = wire.cluster("ann", "bob")
    with wire.losing(lambda packet: packet.source == "ann"):
        ann.engine.begin()
        for number in range(10):
            ann.set(f"key {number}", "x" * 1_500)
        ann.engine.end()
        ann.flush()
    wire.advance(5.0)
    assert len(bob.data) == 10 and agree(ann, bob)


def test_who_only_welcomed_others_is_ready_too() -> None:
    """Seed 30. The first node of a cluster asks nobody, so no answer could ever make it ready."""
    wire = Wire()
    ann, bob = wire.start("ann"), wire.start("bob")
    ann.write(colour="blue")
    bob.join("ann")
    wire.advance(3.0)
    assert ann.engine.repair.ready
    assert bob.engine.repair.ready


def test_what_was_asked_in_the_name_of_the_dead_kills_nobody() -> None:
    """Seed 489. A hint about bob; before he answers, ann is told that she is dead and becomes somebody else. Bob
    answers the dead with nothing but that, and so did not answer "in time".
    """
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    with wire.losing(lambda packet: True):
        wire.perform(ann, ann.engine.lost(bob.instance, wire.now))
    dead = Gossip((ann.engine.me._replace(status=Status.DEAD),))
    wire.perform(ann, ann.hear(bob.engine.codec.encode(bob.instance, dead)))
    wire.advance(5.0)
    assert len(ann.saw(Reborn)) == 1
    assert ann.status_of(bob.instance) == Status.ALIVE


def test_a_late_node_does_not_put_off_what_began_since() -> None:
    """Seed 489 again. Stopped for 12 s, a node reads a hint first and its late timer second: the hint still decides
    within 200 ms, and not after 12 s in which no other probe of the member was begun.
    """
    detector = Detector(Settings())
    detector.probe(7, now=100.0)
    detector.probe(8, now=112.0, hint="its stream ended")
    detector.late(11.5, now=112.0)
    verdicts, _ = detector.tick(112.25)
    assert [verdict.instance for verdict in verdicts] == [8]


def test_nobody_is_asked_for_ever_for_what_died_with_its_author() -> None:
    """Seed 12. Bob has cat's second write and not her first; then cat is no more. He asks a few times, then no more."""
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    with wire.losing(lambda packet: packet.source == "cat"):
        cat.write(first=1)
    with wire.losing(lambda packet: packet.source == "cat" and packet.target == "ann"):
        cat.set("second", 2)
        cat.flush()
        wire.crash(cat)
        wire.deliver()
    wire.advance(30.0)
    wire.sent.clear()
    wire.advance(30.0)
    assert bob.data == {} and agree(ann, bob)
    assert wire.packets(Pull) == []


def test_a_crash_in_a_transaction_brings_back_nothing_that_a_difference_took_for_dead() -> None:
    """Seed 107. Ann deletes a key in a transaction; bob deletes it as well, and she took that in as a difference, which
    did not tell of it: both had it no more. She crashed before the end. Her disk had the difference, by which bob's
    delete was delivered, and still the key. So no difference is asked for while a transaction is open.
    """
    wire = Wire(Settings(log_bytes=0))
    ann, bob = wire.cluster("ann", "bob")
    ann.write(k=1)
    with wire.losing(lambda packet: packet.source == "bob" and isinstance(packet.message, Push)):
        bob.delete("k")
        bob.write(other=2)
    ann.engine.begin()
    ann.delete("k")
    wire.advance(10.0)
    assert wire.packets(Sums, "bob", "ann"), "he has tried"
    kept = kept_by(ann)
    assert kept.context.covers((bob.instance, 2)) == ("k" not in LWWMap(kept, "m"))
    ann.engine.end()
    wire.until(lambda: ann.data == {"other": 2}, within=10.0)
    kept = kept_by(ann)
    assert kept.context.covers((bob.instance, 2)), "what bob did was delivered"
    assert dict(LWWMap(kept, "m").items()) == {"other": 2}


def kept_by(node: Node) -> Store:
    """What a crash would leave it."""
    disk = Disk()
    for step in node.saw(Persist):
        disk.append(step)
    return disk.restore(Log(0))


def test_whoever_is_reborn_gives_those_whom_it_suspected_time_to_refute() -> None:
    """Ann's host slept, and her clock stood still: she asked bob before, and his ack was lost. She suspects him, but is
    dead herself, so nobody listens, and he can not refute. Then she goes on as somebody else, and calls him dead.
    """
    wire = Wire()
    ann, bob, cat, *_ = wire.cluster("ann", "bob", "cat", *(f"w{number}" for number in range(7)))
    wire.advance(0.79)
    dead = Gossip((ann.engine.me._replace(status=Status.DEAD),))
    with wire.losing(lambda packet: "ann" in (packet.source, packet.target)):
        wire.perform(ann, ann.engine.lost(bob.instance, wire.now))
        wire.perform(cat, cat.hear(cat.engine.codec.encode(99, dead)))
        wire.advance(0.215)
    assert ann.status_of(bob.instance) == Status.SUSPECT
    wire.perform(ann, ann.hear(cat.engine.codec.encode(cat.instance, dead)))
    wire.advance(20.0)
    assert len(ann.saw(Reborn)) == 1
    assert bob.saw(Reborn) == []
    assert ann.status_of(bob.instance) == cat.status_of(bob.instance) == Status.ALIVE
