"""What becomes of members when hardly anything fits, or when somebody remembers what all others have forgotten?

Few nodes on the wire, packet by packet. Whole clusters in bad weather are in tests/simulation/test_members.py.
"""

from __future__ import annotations

import pytest

from crdt import Malformed
from gossip.datagrams import POSTAGE
from gossip.protocol.codec import MAX_CLAIMS, MAX_MESSAGE, Codec
from gossip.protocol.effects import MemberChanged, Reborn, Send
from gossip.protocol.members import Claim, Status
from gossip.protocol.messages import Ack, Gossip, Join, Ping, PingReq, Push
from gossip.protocol.settings import Settings
from tests.protocol.wire import EPOCH, Wire, address


def test_an_ack_is_filled_to_the_last_bytes_and_never_beyond() -> None:
    """M11: beside another, one claim rides, of any size around what fits. Sealed, the ack is within its datagram."""
    room = Settings().datagram - POSTAGE
    riding: list[bool] = []
    sizes: list[int] = []
    other = Claim(8, "n", ("a" * 230, "b" * 220), EPOCH)
    for length in range(1, 290):
        wire = Wire()
        ann, bob = wire.cluster("ann", "bob")
        news = Claim(7, "n", ("c" * 180, "d" * length), EPOCH)
        ann.hear(ann.engine.codec.encode(99, Gossip((news, other))))
        ping = Ping(1, bob.engine.digest, (bob.engine.me,))
        effects = ann.hear(bob.engine.codec.encode(bob.instance, ping))
        (ack,) = [each.message for each in effects if isinstance(each, Send) and isinstance(each.message, Ack)]
        sizes.append(len(ann.engine.codec.encode(ann.instance, ack)))
        riding.append(news in ack.claims)
        assert other in ack.claims
    assert max(sizes) <= room
    assert riding == sorted(riding, reverse=True), "up to some size, and not beyond"
    assert any(riding) and not all(riding)
    assert max(sizes) > room - 160, "no more is kept back than the fields may grow"


def test_a_message_of_exactly_the_limit_is_taken_and_one_of_a_byte_more_is_not() -> None:
    """M11."""
    codec = Codec("shop")
    around = len(codec.encode(7, Push((bytes(1 << 20),)))) - (1 << 20)
    largest = codec.encode(7, Push((bytes(MAX_MESSAGE - around),)))
    assert len(largest) == MAX_MESSAGE
    assert codec.decode(largest)[0] == 7
    with pytest.raises(Malformed, match="too long"):
        codec.decode(codec.encode(7, Push((bytes(MAX_MESSAGE - around + 1),))))


@pytest.mark.parametrize("count", [255, 256, 257, MAX_CLAIMS - 1])
def test_more_claims_than_a_byte_counts_come_with_one_join(count: int) -> None:
    """M11."""
    wire = Wire()
    ann, bob = wire.start("ann"), wire.start("bob")
    crowd = tuple(Claim(1_000 + number, f"w{number}", (f"unix:/w{number}",), EPOCH) for number in range(count))
    join = Join((bob.engine.me, *crowd), bob.engine.digest)
    effects = ann.hear(bob.engine.codec.encode(bob.instance, join))
    assert len(ann.engine.members.peers()) == count + 1
    shown = [each.claim.name for each in effects if isinstance(each, MemberChanged)]
    assert shown == ["bob"], "of the others it was only told"


def test_a_dead_member_long_forgotten_and_brought_back_by_a_list_is_not_shown_as_alive() -> None:
    """M4. Cat slept while zoe died, and all others have forgotten zoe since. Then cat wakes, and gives a newcomer its
    old list, of which that tells all."""
    wire = Wire(Settings(remember_dead=100.0))
    ann, bob, cat, zoe = wire.cluster("ann", "bob", "cat", "zoe")
    wire.pause(cat)
    wire.crash(zoe)
    wire.advance(300.0)
    for node in (ann, bob):
        assert zoe.instance not in node.engine.members.table, "forgotten"
        node.effects.clear()
    cat.waiting = []  # its host slept
    wire.resume(cat)
    wire.start("dan").join("cat")
    wire.advance(60.0)
    for node in (ann, bob, cat):
        assert node.living == {"ann", "bob", "cat", "dan"}
    for node in (ann, bob):
        shown = [change.claim.status for change in node.saw(MemberChanged) if change.claim.instance == zoe.instance]
        assert Status.ALIVE not in shown


HOURS = Settings(probe_interval=30.0, probe_timeout=15.0, heal_interval=900.0)
"""Thirty times as slow, so that hours are soon over."""


def test_one_that_sleeps_for_eight_hours_comes_back_with_what_it_had() -> None:
    """M12. It was called dead long ago; what came for it while it slept is lost."""
    wire = Wire(HOURS)
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    slept = cat.instance
    wire.pause(cat)
    wire.advance(8 * 3600.0)
    assert ann.living == bob.living == {"ann", "bob"}
    ann.write(k=1)
    cat.waiting = []
    cat.set("w", 2)
    wire.resume(cat)
    wire.until(lambda: all(node.data == {"k": 1, "w": 2} for node in (ann, bob, cat)), within=120.0)
    assert ann.living == bob.living == cat.living == {"ann", "bob", "cat"}
    assert cat.instance != slept and not ann.saw(Reborn) and not bob.saw(Reborn), "nobody else was called dead"


def test_when_all_have_slept_nobody_is_called_anything() -> None:
    """M12: a laptop with all of them on it, or a host that stood still. Their clocks jump by eight hours, in the middle
    of a probe whose ping was lost."""
    wire = Wire(latency=0.02)
    nodes = [wire.start(name) for name in ("ann", "bob", "cat")]
    for node in nodes[1:]:
        node.join("ann")
        wire.advance(1.0)
    for node in nodes:
        node.effects.clear()
    with wire.losing(lambda packet: isinstance(packet.message, Ping) and packet.source == "ann"):
        wire.until(lambda: bool(wire.packets(PingReq, "ann")), within=5.0)
    for node in nodes:
        wire.pause(node)
    wire.advance(8 * 3600.0)
    for node in nodes:
        wire.resume(node)
    wire.advance(60.0)
    for node in nodes:
        assert node.living == {"ann", "bob", "cat"} and not node.saw(MemberChanged)


@pytest.mark.parametrize("asleep", [True, False], ids=["asleep", "cut off"])
def test_one_that_was_called_dead_and_is_elsewhere_by_now_is_told_so_where_it_is(asleep: bool) -> None:
    """M12. It was answered where it is no more, and stayed alone for ever."""
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    if asleep:
        wire.pause(cat)
    for other in ("ann", "bob"):
        wire.cut(other, "cat")
    wire.advance(60.0)
    assert ann.living == bob.living == {"ann", "bob"}
    assert cat.living == ({"ann", "bob", "cat"} if asleep else {"cat"})
    wire.nodes["cafe"] = wire.nodes.pop("cat")
    wire.perform(cat, cat.engine.moved((address("cafe"),), cat.wall) + cat.engine.news())
    if asleep:
        cat.waiting = []
        wire.resume(cat)
    wire.until(lambda: ann.living == bob.living == cat.living == {"ann", "bob", "cat"}, within=40.0)
    for node in (ann, bob):
        assert node.engine.members.table[cat.instance].addresses == (address("cafe"),)


def test_one_that_moves_is_known_to_be_there_by_all_and_stays_who_it_is() -> None:
    """M12."""
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    wire.nodes["cafe"] = wire.nodes.pop("cat")
    wire.perform(cat, cat.engine.moved((address("cafe"),), cat.wall) + cat.engine.news())
    wire.deliver()
    for node in (ann, bob):
        claim = node.engine.members.table[cat.instance]
        assert (claim.addresses, claim.incarnation) == ((address("cafe"),), 1)
    wire.advance(60.0)
    assert not any(node.saw(Reborn) for node in (ann, bob, cat))
    assert cat.engine.moved((address("cafe"),), cat.wall) == [], "that is known"


def test_one_that_is_given_the_address_of_a_younger_one_that_is_off_is_called_dead_by_nobody() -> None:
    """M12. Who was there before started later, so all took that one for who had come last, and the living for gone."""
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    wire.advance(1.0)
    wire.crash(bob)
    wire.nodes["bob"] = wire.nodes.pop("ann")
    wire.perform(ann, ann.engine.moved((address("bob"),), ann.wall) + ann.engine.news())
    wire.deliver()
    assert ann.living == cat.living == {"ann", "cat"}
    wire.advance(60.0)
    assert ann.living == cat.living == {"ann", "cat"} and not ann.saw(Reborn)


def test_a_dead_member_brought_back_by_a_list_is_buried_again_by_all_within_seconds() -> None:
    """M4, as far as it goes: it answers nobody."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    zoe = Claim(9, "zoe", (address("zoe"),), EPOCH)
    wire.perform(ann, ann.hear(ann.engine.codec.encode(8, Gossip((zoe,)))))
    wire.until(lambda: ann.living == bob.living == {"ann", "bob"}, within=15.0)
    wire.advance(60.0)
    assert ann.status_of(9) == bob.status_of(9) == Status.DEAD
