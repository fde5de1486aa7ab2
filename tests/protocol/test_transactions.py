"""Is a transaction visible in one step or not at all, however large it is and whoever asks in the middle of it?"""

from __future__ import annotations

import pytest

from crdt import (
    Context,
    LWWMap,
    ORSet,
    decode_batch,
    encode_context,
    encode_element,
    encode_value,
)
from gossip.protocol.effects import Ready, Warned
from gossip.protocol.messages import Pull, Push, StatePart
from gossip.protocol.settings import Settings
from tests.protocol.wire import Node, Packet, Wire, agree


def is_push(packet: Packet) -> bool:
    return isinstance(packet.message, Push)


def test_nothing_coalesces_across_the_border_of_a_transaction() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    ann.set("k", "before")
    ann.engine.begin()
    ann.set("k", "inside")
    ann.set("other", 1)
    ann.engine.end()
    ann.set("k", "after")
    ann.flush()
    sent = [decode_batch(payload) for packet in wire.packets(Push) for payload in packet.message.batches]
    assert [(batch.first, batch.last, len(batch.writes)) for batch in sent] == [(1, 1, 1), (2, 3, 2), (4, 4, 1)]
    wire.deliver()
    assert [sorted(step, key=str) for step in bob.steps()] == [
        [(encode_element("k"), encode_value("before"))],
        [(encode_element("k"), encode_value("inside")), (encode_element("other"), encode_value(1))],
        [(encode_element("k"), encode_value("after"))],
    ]
    assert agree(ann, bob)


def begin_large(ann: Node, mebibytes: int) -> None:
    """A transaction that is still open."""
    ann.engine.begin()
    for number in range(16 * mebibytes):
        ann.set(f"k{number}", "x" * (1 << 16))


def test_a_transaction_larger_than_a_message_becomes_visible_in_one_step() -> None:
    """C10."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    begin_large(ann, 3)
    ann.engine.end()
    ann.flush()
    pushes = wire.packets(Push)
    assert len(pushes) >= 3
    assert max(len(packet.payload) for packet in pushes) < (1 << 20) + (1 << 17)
    wire.deliver()
    assert [len(step) for step in bob.steps()] == [48]
    assert agree(ann, bob)
    assert wire.packets(Pull) == [], "parts that come in order are no gap"
    assert bob.engine.replication.inbox.size == 0


@pytest.mark.parametrize("lost", [0, 1, 2, 3])
def test_a_large_transaction_of_which_a_part_is_lost_is_repaired_and_visible_in_one_step(lost: int) -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    bob.write(b=1)
    ann.write(a=1)
    begin_large(ann, 3)
    ann.engine.end()
    count = iter(range(100))
    with wire.losing(lambda packet: is_push(packet) and next(count) == lost):
        ann.flush()
        wire.deliver()
    wire.until(lambda: agree(ann, bob), within=5.0)
    assert max(len(step) for step in bob.steps()) == 48
    assert len(bob.steps()) == 3
    assert wire.packets(StatePart) == []


def test_of_an_open_transaction_nothing_is_visible_outside() -> None:
    """Not by push, pull, state or digest; and digests stay comparable, so nobody cries out."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    ann.write(a=1)
    ann.engine.begin()
    ann.set("secret", "half done")
    ann.flush()
    cat = wire.start("cat")
    cat.join("ann")
    wire.perform(ann, ann.hear(bob.engine.codec.encode(bob.instance, Pull(1, encode_context(Context())))))
    wire.perform(
        ann, ann.hear(bob.engine.codec.encode(bob.instance, Pull(1, encode_context(Context({ann.instance: 1})))))
    )
    wire.advance(3.5)
    assert "secret" not in bob.data and "secret" not in cat.data
    assert not [packet for packet in wire.sent if packet.source == "ann" and b"secret" in packet.payload]
    assert ann.engine.replication.context() == bob.store.context == {ann.instance: 1}
    assert ann.engine.digest.context == bob.engine.digest.context
    assert not [node for node in (ann, bob, cat) if node.saw(Warned)]
    ann.set("more", "done")
    ann.engine.end()
    ann.flush()
    wire.deliver()
    assert bob.steps()[-1] == [
        (encode_element("secret"), encode_value("half done")),
        (encode_element("more"), encode_value("done")),
    ]
    wire.until(lambda: agree(ann, bob, cat), within=5.0)
    assert cat.saw(Ready) == [Ready()]


def test_the_closed_parts_of_an_open_transaction_do_not_leave_before_its_end() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    ann.set("before", 1)
    begin_large(ann, 1)
    for turn in range(2):
        ann.flush()
        ann.set(f"between {turn}", "x" * (1 << 16))
        wire.deliver()
    pushed = [decode_batch(payload) for packet in wire.packets(Push) for payload in packet.message.batches]
    assert [(batch.first, batch.last, batch.open) for batch in pushed] == [(1, 1, False)], "what was made before it"
    assert bob.engine.replication.inbox.size == 0 and bob.data == {"before": 1}
    wire.sent.clear()
    ann.engine.end()
    ann.flush()
    pushed = [decode_batch(payload) for packet in wire.packets(Push) for payload in packet.message.batches]
    assert len(pushed) > 10 and [batch.open for batch in pushed] == [True] * (len(pushed) - 1) + [False]
    wire.deliver()
    assert [len(step) for step in bob.steps()] == [1, 18]
    assert agree(ann, bob)


def test_writes_made_before_a_transaction_leave_during_it_and_are_no_part_of_it() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    ann.set("before", 1)
    ann.engine.begin()
    ann.set("inside", 2)
    ann.flush()
    wire.deliver()
    assert bob.data == {"before": 1}
    ann.engine.end()
    ann.flush()
    wire.deliver()
    assert [len(step) for step in bob.steps()] == [1, 1]
    assert agree(ann, bob)


def test_a_transaction_in_a_transaction_is_a_part_of_it() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    ann.engine.begin()
    ann.set("a", 1)
    ann.engine.begin()
    ann.set("b", 2)
    ann.engine.end()
    ann.set("c", 3)
    ann.flush()
    assert wire.packets(Push) == []
    ann.engine.end()
    ann.flush()
    wire.deliver()
    assert [len(step) for step in bob.steps()] == [3]


def test_a_transaction_that_would_be_too_large_is_refused_at_the_call_and_nothing_changed() -> None:
    wire = Wire(Settings(max_transaction=10_000))
    ann, bob = wire.cluster("ann", "bob")
    ann.engine.begin()
    ann.set("fits", "x" * 5_000)
    before, context = ann.state, dict(ann.store.context)
    with pytest.raises(ValueError, match="larger than 10000 bytes"):
        ann.set("too much", "x" * 5_000)
    assert (ann.state, ann.store.context) == (before, context)
    ann.engine.end()
    ann.set("afterwards", "x" * 5_000)
    ann.flush()
    wire.deliver()
    assert bob.data.keys() == {"fits", "afterwards"}
    assert agree(ann, bob)


def test_a_transaction_is_counted_in_bytes_whatever_its_names_are_written_in() -> None:
    """A letter may be four bytes. What is let in beyond the bound finds no room at a peer, however often it asks."""
    for name in ("m" * 252, "\u043c" * 126, "\U0001f500" * 63):
        wire = Wire(Settings(max_transaction=10_000))
        ann, _ = wire.cluster("ann", "bob")
        long = LWWMap(ann.store, name)
        ann.engine.begin()
        with pytest.raises(ValueError, match="larger than 10000 bytes"):
            for number in range(1_000):
                write = long.set(number, number, ann.instance, ann.engine.stamp(ann.wall))
                wire.perform(ann, ann.engine.update(write, wire.now))
        ann.engine.end()
        ann.flush()
        (push,) = wire.packets(Push)
        assert 5_000 < sum(map(len, push.message.batches)) <= 10_000


def test_each_transaction_has_all_the_room() -> None:
    """However many there were before it, in one turn or in many."""
    wire = Wire(Settings(max_transaction=10_000))
    ann, bob = wire.cluster("ann", "bob")
    for number in range(5):
        ann.engine.begin()
        ann.set(f"k{number}", "x" * 9_000)
        ann.engine.end()
        if number % 2:
            ann.flush()
    ann.flush()
    wire.deliver()
    assert len(bob.data) == 5
    assert agree(ann, bob)


def test_add_remove_and_add_of_one_element_in_a_transaction_is_an_add() -> None:
    """C10."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    online = ORSet(ann.store, "online")
    ann.engine.begin()
    for ask in (online.add, online.remove, online.add):
        write = ask("ann", ann.instance, ann.engine.stamp(ann.wall))
        assert write is not None
        wire.perform(ann, ann.engine.update(write, wire.now))
    ann.engine.end()
    ann.flush()
    wire.deliver()
    assert list(ORSet(bob.store, "online")) == ["ann"]
    assert agree(ann, bob)
