"""What does a node not believe: clocks that are wrong, states that should be equal, and its own writes from others?"""

from __future__ import annotations

from typing import Any

from crdt import (
    Batch,
    Context,
    State,
    Store,
    Write,
    encode_batch,
    encode_element,
    encode_value,
    state_parts,
)
from crdt.live import AT_VALUE
from gossip.protocol.effects import Changed, Persist, Ready, Warned
from gossip.protocol.messages import Pull, Push, StatePart
from gossip.protocol.settings import Settings
from tests.protocol.wire import EPOCH, Node, Wire, agree

YEAR_9999 = 253_370_764_800_000


# -- clocks --------------------------------------------------------------------------------------------------------


def test_a_stamp_of_the_year_9999_waits_at_its_author_until_clocks_agree() -> None:
    """C9."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    bob.write(before=1)
    ann.clock = YEAR_9999 - EPOCH
    before = (bob.state, bob.engine.replication._stamp)
    ann.write(k="from the future")
    assert (bob.state, bob.engine.replication._stamp) == before, "no trace"
    (warning,) = bob.saw(Warned)
    assert (warning.kind, warning.peer) == ("skewed", ann.instance)
    wire.advance(5.0)
    assert bob.data == {"before": 1}
    bob.write(after=2)
    assert ann.data == {"before": 1, "k": "from the future", "after": 2}
    bob.clock = ann.clock
    wire.advance(12.0)
    assert bob.data == {"before": 1, "k": "from the future", "after": 2}
    assert agree(ann, bob)


def test_a_skewed_state_is_refused_and_reported_as_well() -> None:
    wire = Wire()
    ann, bob = wire.start("ann"), wire.start("bob")
    ann.clock = YEAR_9999 - EPOCH
    ann.write(k="from the future")
    bob.join("ann")
    assert bob.data == {} and bob.store.context == {}
    assert {warning.kind for warning in bob.saw(Warned)} == {"skewed"}
    assert not bob.saw(Ready)


def test_others_in_the_same_message_do_not_suffer_for_one_that_is_skewed() -> None:
    wire = Wire()
    ann = wire.start("ann")
    good = encode_batch(Batch(7, 1, 1, (Write((7, 1), (1, "m", b"\xa1g"), 1 << 16, b"\x01", ()),)))
    skewed = encode_batch(Batch(8, 1, 1, (Write((8, 1), (1, "m", b"\xa1s"), 2**63, b"\x01", ()),)))
    effects = ann.hear(ann.engine.codec.encode(99, Push((skewed, good))))
    assert [type(effect) for effect in effects] == [Persist, Changed, Warned]
    assert ann.store.context == {7: 1}


def test_ten_seconds_ahead_are_let_in_and_one_millisecond_more_is_not() -> None:
    for ahead, there in ((10_000, True), (10_001, False)):
        wire = Wire()
        ann, bob = wire.cluster("ann", "bob")
        ann.clock = ahead
        ann.write(k=1)
        assert ("k" in bob.data) == there


def test_a_skew_is_told_once_each_time_it_begins() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    for time in (1, 2):
        bob.clock = -60_000
        for number in range(3):
            ann.write(**{f"k{number}": time})
        assert len(bob.saw(Warned)) == time
        bob.clock = 0
        wire.until(lambda: agree(ann, bob), within=5.0)
        ann.write(right=time)
        assert bob.data["right"] == time


def test_a_stamp_of_the_future_is_found_wherever_it_stands_in_a_batch() -> None:
    """No honest author goes back in a batch. One such write would win over all that is written in a thousand years."""
    wire = Wire()
    ann = wire.start("ann")
    future, now = ((YEAR_9999 << 16), (EPOCH << 16))
    for order in ((future, now, now), (now, future, now), (now, now, future)):
        keys = (b"\xa1a", b"\xa1b", b"\xa1c")
        writes = [Write((7, place + 1), (1, "m", keys[place]), order[place], b"\x01", ()) for place in range(3)]
        ann.hear(ann.engine.codec.encode(99, Push((encode_batch(Batch(7, 1, 3, tuple(writes))),))))
        assert (ann.data, ann.store.context) == ({}, {})
    assert ann.engine.counters["skewed"] == 3


def test_who_heard_of_a_later_write_writes_later_still() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    ann.clock = 9_000
    ann.write(k="ann")
    bob.clock = -3_600_000
    bob.write(k="bob, an hour behind")
    assert ann.data == bob.data == {"k": "bob, an hour behind"}


# -- the audit -----------------------------------------------------------------------------------------------------


def tamper(node: Node, key: str, value: Any) -> None:
    """Changes a store behind its own back."""
    store = Store()
    store.context.join(node.store.context)
    live = node.store.objects[(1, "m")].pop(encode_element(key))
    node.store._tally._fingerprint = (node.store.fingerprint - 1) % 2**64
    node.store.objects[(1, "m")][encode_element(key)] = live[:AT_VALUE] + encode_value(value)


def test_equal_contexts_with_unequal_states_raise_the_alarm_with_the_next_ping() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    ann.write(k=1, other=2)
    wire.advance(10.0)
    assert not ann.saw(Warned) and not bob.saw(Warned)
    tamper(bob, "k", "wrong")
    wire.advance(1.5)
    assert {(warning.kind, warning.peer) for warning in ann.saw(Warned)} == {("diverged", bob.instance)}
    assert {(warning.kind, warning.peer) for warning in bob.saw(Warned)} == {("diverged", ann.instance)}
    assert ann.engine.counters["diverged"] > 0


def test_no_alarm_while_writes_are_on_their_way_or_a_transaction_is_open() -> None:
    wire = Wire(latency=0.4)
    nodes = ann, bob, cat = tuple(wire.start(name) for name in ("ann", "bob", "cat"))
    bob.join("ann")
    cat.join("ann")
    wire.advance(2.0)
    for number in range(40):
        node = nodes[number % 3]
        if number % 5 == 0:
            ann.engine.begin()
        node.set(f"k{number % 7}", number)
        node.flush()
        wire.advance(0.3)
        if number % 5 == 0:
            ann.engine.end()
    wire.advance(10.0)
    assert agree(*nodes)
    assert not [node for node in nodes if node.saw(Warned)]


# -- who knows my own writes best ----------------------------------------------------------------------------------


def test_a_batch_in_my_own_name_is_not_for_others_to_send() -> None:
    """S5: own dots with another payload, and ones that I have not made yet."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    ann.write(k="mine")
    for first in (1, 2):
        forged = Batch(ann.instance, first, first, (Write((ann.instance, first), (1, "m", b"\xa1k"), 9, b"\x09", ()),))
        assert ann.hear(ann.engine.codec.encode(99, Push((encode_batch(forged),)))) == []
    assert ann.store.context == {ann.instance: 1}
    ann.write(k="still mine")
    assert ann.data == bob.data == {"k": "still mine"}


def test_a_state_that_knows_more_of_my_writes_than_i_do_is_refused() -> None:
    """Else my next write would be numbered beyond it, and no peer could ever read the batch."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    with wire.losing(lambda packet: isinstance(packet.message, Pull)):
        bob.write(b=1)
        wire.perform(ann, ann.engine.recovery.pull(bob.instance, wire.now))
    claimed = State(Context({ann.instance: 2**62}), frozenset(), {})
    (head,) = state_parts(claimed)
    assert ann.hear(bob.engine.codec.encode(bob.instance, StatePart(1, 0, True, head, 0))) == []
    assert ann.engine.counters["malformed"] == 1
    assert ann.instance not in ann.store.context
    ann.write(k="mine")
    assert bob.data == {"b": 1, "k": "mine"}


def test_a_range_too_long_claims_nothing() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    endless = encode_batch(Batch(bob.instance, 1, 2**62, ()))
    assert ann.hear(ann.engine.codec.encode(99, Push((endless,)))) == []
    assert ann.engine.counters["malformed"] == 1
    bob.write(b=1)
    assert ann.data == {"b": 1}


def test_batches_that_come_too_early_fill_no_more_than_their_room() -> None:
    wire = Wire(Settings(held_bytes=10_000))
    ann = wire.start("ann")
    for first in range(2, 1_000):
        write = Write((7, first), (1, "m", b"\xa1k"), 1, encode_value("x" * 100), ())
        ann.hear(ann.engine.codec.encode(99, Push((encode_batch(Batch(7, first, first, (write,))),))))
    assert ann.engine.replication.inbox.size <= 10_000
    assert ann.engine.replication.inbox.refused > 800
    assert ann.store.context == {}
