"""Is everything bounded that others can make grow, and does nobody have to pay again and again for what can not be?

Each of these was found by somebody who tried: by a peer with the key, by a wrong clock, or by months of workers that
come and go. The bounds are small here, so that the tests are.
"""

from __future__ import annotations

from typing import Any

import pytest

from crdt import Batch, Store, Write, decode_state, encode_batch, encode_element, encode_state
from crdt.codec import MAX_REPLICAS
from gossip.protocol.codec import MAX_CLAIMS
from gossip.protocol.effects import MemberChanged, Ready, Send, Warned
from gossip.protocol.members import Claim, Status
from gossip.protocol.messages import Digest, Gossip, Join, Ping, Pull, Push, StatePart, Welcome
from gossip.protocol.settings import Settings
from tests.protocol.wire import EPOCH, Node, Wire, address

HOUR = 3_600_000


def said(node: Node, sender: int, message: Any) -> list[Any]:
    """What a node wants done when it hears this."""
    return node.hear(node.engine.codec.encode(sender, message))


def stranger(number: int, **fields: Any) -> Claim:
    return Claim(1_000 + number, f"n{number}", (address(f"n{number}"),), EPOCH, **fields)


# -- readiness that is not --------------------------------------------------------------------------------------------


def test_who_is_ready_by_mere_time_makes_nobody_else_ready() -> None:
    """The elder's loop was blocked for a second. One newcomer gave up waiting, and the next took that for an answer."""
    wire = Wire()
    ann = wire.start("ann")
    ann.write(a=1)
    wire.pause(ann)
    bob, cat = wire.start("bob"), wire.start("cat")
    bob.join("ann")
    wire.until(lambda: bob.saw(Ready), within=3.0)
    cat.join("ann", "bob")
    assert cat.living >= {"bob", "cat"} and not cat.saw(Ready)
    wire.resume(ann)
    wire.until(lambda: cat.saw(Ready), within=3.0)
    assert cat.data == {"a": 1}


def test_where_somebody_is_down_for_good_the_rest_is_ready_for_others_in_the_end() -> None:
    wire = Wire()
    wire.start("zoe")
    bob = wire.start("bob")
    bob.join("ann")  # which is down, for good
    wire.advance(20.0)
    assert bob.saw(Ready) and bob.engine.digest.ready


# -- clocks -----------------------------------------------------------------------------------------------------------


def test_a_state_from_the_future_is_not_asked_for_again_and_again() -> None:
    """A newcomer whose clock was half a minute late was sent 23 MB a minute, and had nothing."""
    wire = Wire(Settings(part_bytes=1_000))
    ann, _ = wire.cluster("ann", "bob")
    for number in range(50):
        ann.write(**{f"k{number}": "x" * 100})
    cat = wire.start("cat")
    cat.clock = -60_000
    cat.join("ann")
    wire.sent.clear()
    wire.advance(30.0)
    parts = [packet for packet in wire.sent if isinstance(packet.message, StatePart)]
    assert cat.data == {} and len(parts) < 60, "some tries of both, not one a second"
    assert len([warning for warning in cat.saw(Warned) if warning.kind == "skewed"]) <= 2
    cat.clock = 0
    wire.until(lambda: cat.data == ann.data, within=15.0)


def test_what_one_wrote_from_the_future_keeps_back_nobody_else() -> None:
    """A megabyte of it stood first in every answer, and was refused as a whole."""
    wire = Wire(Settings(push_bytes=1_000))
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    cat.write(mine="has something, so that it is answered from the log")
    with wire.losing(lambda packet: packet.target == "cat" and isinstance(packet.message, Push)):
        for number in range(20):
            bob.clock = ann.clock = 9_000
            bob.write(**{f"early{number}": "x" * 200})
            ann.write(**{f"good{number}": "x" * 200})
    cat.clock = -9_000
    ann.clock = bob.clock = 0
    ann.write(wanted=1)
    wire.until(lambda: "wanted" in cat.data or cat.clock == 0, within=60.0)
    assert "wanted" in cat.data


def test_a_member_whose_clock_is_an_hour_ahead_is_not_pulled_dry() -> None:
    wire = Wire()
    ann, bob, dan = wire.cluster("ann", "bob", "dan")
    ann.write(a=1)
    dan.clock = HOUR
    for number in range(30):
        dan.write(**{f"k{number}": "x" * 1_000})
    wire.sent.clear()
    wire.advance(60.0)
    assert len([packet for packet in wire.sent if isinstance(packet.message, Pull) and packet.target == "dan"]) < 30
    assert ann.data == {"a": 1}
    dan.clock = 0
    ann.clock = bob.clock = HOUR
    wire.until(lambda: ann.data == bob.data == dan.data, within=30.0)


# -- members ----------------------------------------------------------------------------------------------------------


def test_a_list_of_a_thousand_is_answered_with_a_ping_to_each_and_not_with_all_of_it() -> None:
    """Each got all that was known of everybody: 16 MB for one Welcome."""
    wire = Wire()
    wire.start("zoe")
    bob = wire.start("bob")
    bob.join("ann")
    claims = tuple(stranger(number) for number in range(1_000))
    effects = said(bob, claims[0].instance, Welcome(claims, Digest(5, 0, False)))
    sends = [effect for effect in effects if isinstance(effect, Send)]
    assert not [send for send in sends if isinstance(send.message, Join)]
    (pings,) = [send for send in sends if isinstance(send.message, Ping)]
    assert len(pings.to) == 999 and pings.message.claims == (bob.engine.me,)  # type: ignore[union-attr]


def test_more_members_than_are_allowed_are_not_believed_in() -> None:
    wire = Wire(Settings(max_members=10))
    ann = wire.start("ann")
    said(ann, 1_000, Gossip(tuple(stranger(number) for number in range(50))))
    assert len(ann.engine.members.peers()) == 10 and ann.engine.counters["members_refused"] == 40


def test_what_somebody_says_who_is_no_member_is_not_kept_in_mind() -> None:
    wire = Wire()
    ann = wire.start("ann")
    for number in range(100):
        said(ann, 5_000 + number, Ping(1, Digest(number + 1, 0, True), ()))
    assert not ann.engine.repair._digests and not ann.engine.repair._differs


def test_of_those_who_are_forgotten_nobody_is_told_any_more() -> None:
    """News of 1 500 workers of the past went round for half an hour, each time as that of somebody new."""
    wire = Wire(Settings(max_remembered=20))
    ann, bob = wire.cluster("ann", "bob")
    for number in range(200):
        said(ann, bob.instance, Gossip((stranger(number), stranger(number, status=Status.LEFT))))
    assert len(ann.engine.membership.broadcast) <= 21
    wire.advance(30.0)
    ann.effects.clear()
    bob.effects.clear()
    wire.advance(60.0)
    assert not ann.saw(MemberChanged) and not bob.saw(MemberChanged)


def test_all_that_is_known_goes_in_lists_of_which_none_has_too_many_claims() -> None:
    """Small ones, of which more fit the bytes of a message than a list may have."""
    wire = Wire(Settings(max_members=MAX_CLAIMS))
    ann = wire.start("ann")
    for number in range(MAX_CLAIMS):
        ann.engine.members.hear(Claim(1_000 + number, "n", (), EPOCH), 0.0)
    assert [len(claims) for claims in ann.engine.membership.lists(0.0)] == [MAX_CLAIMS, 1]


@pytest.mark.parametrize("size", [0, 120, 250, 400, 800, 4_000])
def test_a_probe_fits_a_datagram_whatever_names_and_tags_there_are(size: int) -> None:
    wire = Wire()
    tags = (("role", "x" * size),)
    ann, bob = wire.start("ä" * 60, tags=tags), wire.start("bob", at="b" * 90, tags=tags)
    bob.join("ä" * 60)
    suspect = bob.engine.me._replace(status=Status.SUSPECT)
    wire.perform(ann, said(ann, 77, Gossip((suspect, *(stranger(number, tags=tags) for number in range(9))))))
    wire.sent.clear()
    wire.advance(20.0)
    probes = [packet for packet in wire.sent if isinstance(packet.message, Ping) and not packet.stream]
    assert probes and max(len(packet.payload) for packet in probes) + 40 <= 1_200


# -- writes -----------------------------------------------------------------------------------------------------------


def batch(replica: int, names: tuple[tuple[int, int], ...] = (), sequence: int = 1) -> bytes:
    key = (1, "m", encode_element("k"))
    return encode_batch(Batch(replica, sequence, sequence, (Write((replica, sequence), key, 1 << 16, None, names),)))


def test_named_writes_that_nobody_sent_have_a_bound_and_the_state_stays_readable() -> None:
    """Seventeen such writes, and no newcomer could read the state any more."""
    wire = Wire()
    ann = wire.start("ann")
    for number in range(20):
        names = tuple((10_000 + number, sequence) for sequence in range(1, 4_097))
        said(ann, 99, Push((batch(100 + number, names),)))
    assert len(ann.store.named) <= MAX_REPLICAS and ann.engine.replication.refused == 4
    assert decode_state(encode_state(ann.store.state())) == ann.store.state()
    assert ann.engine.counters["malformed"] == 0


def test_one_replica_too_many_is_refused_and_all_that_are_known_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pull was malformed from there on, of old members too."""
    monkeypatch.setattr("gossip.protocol.replication.MAX_REPLICAS", 10)
    wire = Wire()
    ann = wire.start("ann")
    for number in range(20):
        said(ann, 99, Push((batch(100 + number),)))
    assert len(ann.store.context) == 10
    said(ann, 99, Push((batch(100, sequence=2),)))
    assert ann.store.context[100] == 2


def test_what_is_held_of_the_dead_is_dropped_when_nobody_has_what_is_missing() -> None:
    wire = Wire()
    ann, _, cat = wire.cluster("ann", "bob", "cat")
    with wire.losing(lambda packet: isinstance(packet.message, Push)):
        cat.write(a=1)
    with wire.losing(lambda packet: isinstance(packet.message, Pull) or packet.target == "bob"):
        cat.write(b=2)
        wire.crash(cat)
    assert ann.engine.replication.inbox.waiting() == [cat.instance]
    wire.until(lambda: not ann.engine.replication.inbox.waiting(), within=120.0)
    assert ann.engine.replication.inbox.size == 0 and ann.data == {}


def test_states_that_differ_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    ann.write(a=1)
    bob.store._tally._fingerprint = bob.store.fingerprint ^ 1
    monkeypatch.setattr(Store, "recount", lambda store: None)  # it can not be mended, so it is seen again and again
    wire.advance(3_600.0)
    assert [warning.kind for warning in ann.saw(Warned)] == ["diverged"] and ann.engine.counters["diverged"] > 1_000
    assert 5 < len(wire.packets(Pull, "ann", "bob")) < 20, "less and less often are ranges compared in an hour"


def test_each_of_two_with_whom_states_differ_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours: two peers in turn, or contexts that move on, made each time the first."""
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    bob.store._tally._fingerprint = bob.store.fingerprint ^ 1
    counted = []
    monkeypatch.setattr(Store, "recount", lambda store: counted.append(store))
    for number in range(60):
        ann.write(k=number)
        wire.advance(1.0)
    assert len(bob.saw(Warned)) == 2 and len(ann.saw(Warned)) == len(cat.saw(Warned)) == 1
    assert len([store for store in counted if store is bob.store]) <= 14, "all is counted anew as seldom"
