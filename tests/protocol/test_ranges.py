"""Does a peer whom no log can complete get just what it lacks, and are two whose states differ brought together?"""

from __future__ import annotations

import pytest

from crdt import (
    FOREVER,
    WITH_AUTHOR,
    Context,
    Inbox,
    LWWMap,
    Malformed,
    Note,
    Stage,
    State,
    Store,
    chain,
    decode_batch,
    encode_element,
    state_parts,
)
from crdt.ranges import Comparison, Telling
from crdt.timestamp import at
from gossip.protocol.effects import Persist, Rewrite, Warned
from gossip.protocol.messages import Busy, Pull, Push, StateNext, StatePart, Sums
from gossip.protocol.settings import Settings
from tests.protocol.wire import EPOCH, Node, Packet, Wire, agree

NO_LOG = Settings(log_bytes=1, part_bytes=2_000)
MANY = 2_000


def pushes(packet: Packet) -> bool:
    return isinstance(packet.message, Push)


def filled(wire: Wire, *names: str) -> list[Node]:
    """A cluster in which all have the same many keys."""
    nodes = wire.cluster(*names)
    nodes[0].write(**{f"k{number}": "x" * 50 for number in range(MANY)})
    assert agree(*nodes)
    wire.sent.clear()
    return nodes


def bytes_of(wire: Wire, *kinds: type) -> int:
    return sum(len(packet.payload) for packet in wire.sent if isinstance(packet.message, kinds))


# -- what differs, and no more ----------------------------------------------------------------------------------------


def test_what_is_sent_follows_the_difference_and_not_the_size() -> None:
    wire = Wire(NO_LOG)
    ann, bob = filled(wire, "ann", "bob")
    with wire.losing(pushes):
        ann.write(k7="changed", new="added")
        ann.delete("k8")
        ann.flush()
    wire.until(lambda: agree(ann, bob), within=5.0)
    assert bob.data["k7"] == "changed" and bob.data["new"] == "added" and "k8" not in bob.data
    assert bob.engine.counters["differences_received"] == 1
    assert "states_received" not in bob.engine.counters
    whole = sum(map(len, state_parts(ann.store.state())))
    assert bytes_of(wire, Sums, StatePart, StateNext, Pull) < whole / 20


def test_where_nothing_differs_the_context_alone_comes() -> None:
    """A key that was set and deleted again leaves nothing but how far its author is."""
    wire = Wire(NO_LOG)
    ann, bob = filled(wire, "ann", "bob")
    with wire.losing(pushes):
        ann.write(gone=1)
        ann.delete("gone")
        ann.flush()
    wire.until(lambda: agree(ann, bob), within=5.0)
    assert [len(packet.message.sums) for packet in wire.packets(Sums)] == [128 * 8, 0]  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", [Sums, StateNext, StatePart])
@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_each_message_may_be_lost_once_and_is_asked_for_again(kind: type, number: int) -> None:
    wire = Wire(NO_LOG)
    ann, bob = filled(wire, "ann", "bob")
    with wire.losing(pushes):
        ann.write(**{f"k{each}": "changed" for each in range(0, MANY, 20)})
    once: list[Packet] = []

    def first(packet: Packet) -> bool:
        if isinstance(packet.message, kind) and packet.message.number == number and not once:  # type: ignore[attr-defined]
            once.append(packet)
            return True
        return False

    with wire.losing(first):
        wire.until(lambda: agree(ann, bob), within=15.0)
    exists = (kind is Sums and number < 2) or (kind is StateNext and number > 0) or (kind is StatePart and number > 1)
    assert bool(once) == exists


def test_both_may_lack_something_of_the_other() -> None:
    wire = Wire(NO_LOG)
    ann, bob = filled(wire, "ann", "bob")
    with wire.losing(pushes):
        ann.write(a="of ann", k1="of ann")
        bob.write(b="of bob", k1="of bob")
        bob.delete("k2")
        bob.flush()
    wire.until(lambda: agree(ann, bob), within=10.0)
    assert ann.data["a"] == "of ann" and ann.data["b"] == "of bob" and "k2" not in ann.data
    assert ann.data["k1"] == "of bob", "the later of two"
    assert len(list(LWWMap(ann.store, "m").conflicts("k1"))) == 1


def test_what_comes_between_the_comparison_and_its_end_and_is_dead_by_it_stays_dead() -> None:
    """The race that a comparison opens. Bob compares, and a range is equal. Then a write of cat's comes to him by
    another way, into that range. Ann had it long before, and had it replaced: it is in her context and not in her
    state. Her answer does not tell of that range, and all the same the write must die here."""
    ann, bob, cat = Store(), Store(), Store()
    keys = LWWMap(ann, "m")
    for number in range(100):
        write = keys.set(f"k{number}", number, replica=1, stamp=1 + number)
        for store in (ann, bob, cat):
            store.merge(write)
    late = LWWMap(cat, "m").set("late", "of cat", replica=3, stamp=500)
    ann.merge(late)
    replaced = keys.delete("late", replica=1, stamp=501)
    assert replaced is not None
    ann.merge(replaced)

    telling, comparison = Telling(ann.state(), ann.sums), Comparison(bob)
    wanted = comparison.ranges(telling.ranges(comparison.groups(telling.groups())))
    bob.merge(late)
    assert LWWMap(bob, "m").get("late") == "of cat"
    stage = Stage()
    for part in telling.parts(wanted, limit=1_000):
        stage.add(part)
    bob.merge_state(stage.state(comparison.scope))
    assert bob.context == ann.context
    assert "late" not in LWWMap(bob, "m")
    assert (bob.fingerprint, bob.sums) == (ann.fingerprint, ann.sums)


def test_what_expires_or_is_owned_is_among_what_differs() -> None:
    """The fingerprint of the state leaves these out; the sums of the ranges must not, or they would never come."""
    wire = Wire(NO_LOG)
    ann, bob = filled(wire, "ann", "bob")
    with wire.losing(pushes):
        for key, expires in (("owned", WITH_AUTHOR), ("short", at(EPOCH + 60_000)), ("for ever", FOREVER)):
            write = LWWMap(ann.store, "m").set(key, key, ann.instance, ann.engine.stamp(ann.wall))
            wire.perform(ann, ann.engine.update(write._replace(expires=expires), wire.now))
        ann.flush()
    wire.until(lambda: agree(ann, bob), within=5.0)
    assert {"owned", "short", "for ever"} <= set(bob.data)
    wire.until(lambda: "short" not in bob.data and "short" not in ann.data, within=70.0)
    assert ann.store.sums == bob.store.sums, "what has ended is taken out of the sums too"


def test_what_a_disk_keeps_of_a_difference_leads_to_the_same_state() -> None:
    wire = Wire(NO_LOG)
    ann, bob = filled(wire, "ann", "bob")
    with wire.losing(pushes):
        ann.write(k7="changed")
        ann.delete("k8")
        ann.flush()
    wire.until(lambda: agree(ann, bob), within=5.0)
    assert played_back(bob) == bob.store.state()


def played_back(node: Node) -> State:
    store, inbox = Store(), Inbox(limit=1 << 30)
    for step in node.saw(Persist):
        if step.state:
            stage = Stage()
            for part in step.payloads:
                stage.add(part)
            store.merge_state(stage.state())
        for payload in () if step.state else step.payloads:
            batch = decode_batch(payload)
            for ready, _ in inbox.add(batch, payload, store.context[batch.replica]):
                store.merge_batch(ready)
    return store.state()


# -- bad messages ------------------------------------------------------------------------------------------------------


def test_sums_of_another_length_and_choices_of_ranges_that_are_none_are_refused() -> None:
    telling, comparison = Telling(Store().state(), Store().sums), Comparison(Store())
    for sums in (b"", b"\0" * 7, telling.groups()[:-1], telling.groups() + b"\0"):
        with pytest.raises(Malformed):
            comparison.groups(sums)
    for wanted in (b"", b"\xff" * 15, b"\xff" * 17):
        with pytest.raises(Malformed):
            telling.ranges(wanted)
    telling.ranges((1).to_bytes(16, "big"))
    with pytest.raises(Malformed):
        telling.parts(b"\xff" * 2048, limit=100)


def test_a_part_of_a_state_is_never_taken_for_the_whole() -> None:
    """It would delete whatever it does not tell of."""
    wire = Wire(NO_LOG)
    ann, bob = filled(wire, "ann", "bob")
    before = bob.state
    claimed = State(Context({**ann.store.context, 77: 1}), frozenset(), {})
    head, tail = state_parts(claimed, ranges=frozenset())
    bob.engine.recovery.pull(ann.instance, wire.now)
    for number, part in enumerate((head, tail)):
        message = StatePart(1, number, number == 1, part, 0)
        bob.hear(ann.engine.codec.encode(ann.instance, message))
    assert bob.state == before
    assert bob.engine.counters["malformed"] == 1


def test_sums_that_nobody_asked_for_are_not_compared() -> None:
    wire = Wire(NO_LOG)
    ann, bob = filled(wire, "ann", "bob")
    assert bob.hear(ann.engine.codec.encode(ann.instance, Sums(1, 0, bytes(1024), 0))) == []
    assert bob.engine.counters["unasked"] == 1


# -- the audit ---------------------------------------------------------------------------------------------------------


def lose(node: Node, key: str) -> None:
    """What a bug might do: a live write is gone, and no write says so."""
    full = LWWMap(node.store, "m")._key(key)
    (link,) = chain(node.store.shown(full))
    node.store._tally.remove(link)
    node.store._put(full, None)


def test_states_that_differ_under_equal_contexts_are_told_and_brought_together() -> None:
    wire = Wire()
    ann, bob = filled(wire, "ann", "bob")
    lose(bob, "k7")
    lose(ann, "k9")
    wire.until(lambda: agree(ann, bob), within=10.0)
    assert ann.data["k9"] == bob.data["k7"] == "x" * 50
    for node, name in ((ann, "ann"), (bob, "bob")):
        told = [warning.kind for warning in node.saw(Warned)]
        assert sorted(told) == ["diverged", "repaired"], name
        assert node.engine.counters["repaired"] == 1
        assert len(node.saw(Rewrite)) == 1, "the disk's steps do not lead to this"
    wire.sent.clear()
    wire.advance(10.0)
    assert wire.packets(Pull) == [], "and then it is over"


def test_an_audit_under_load_takes_and_never_drops() -> None:
    """Ours: a write that came between the audit's question and its answer had contexts differ. So what differed was
    merged, and what one had lost, all others dropped."""
    for hurry in range(12):
        wire = Wire()
        ann, bob, cat = nodes = filled(wire, "ann", "bob", "cat")
        wire.latency = 0.01
        lose(bob, "k7")
        for number in range(200):
            nodes[number % 3].set("busy", number)
            nodes[number % 3].flush()
            wire.advance(0.05 + 0.001 * hurry)
        wire.until(lambda: agree(ann, bob, cat), within=30.0)  # noqa: B023
        assert ann.data["k7"] == bob.data["k7"] == cat.data["k7"] == "x" * 50, hurry


def test_an_audit_takes_nothing_that_was_deleted_nor_what_has_not_come_yet() -> None:
    """What a peer that is ahead still holds is missing here; what is beyond what was delivered here is not."""
    ahead, behind = Store(), Store()
    for number in range(4):
        write = LWWMap(ahead, "m").set(f"k{number}", number, 1, stamp=1 + number)
        ahead.merge(write, Note("ann", f"why {number}"))
        if number < 3:
            behind.merge(write, Note("ann", f"why {number}"))
    del behind.notes[1, 2]
    (lost,) = chain(LWWMap(behind, "m").live("k1"))
    behind._tally.remove(lost)
    behind._put((1, "m", encode_element("k1")), None)
    assert [key[2] for key, _, _ in behind.adopt(ahead.state())] == [encode_element("k1")]
    assert set(LWWMap(behind, "m").keys()) == {"k0", "k1", "k2"} and behind.context == {1: 3}
    assert behind.notes == {(1, number + 1): Note("ann", f"why {number}") for number in range(3)}, "each with its note"
    told = behind.fingerprint, behind.sums
    behind.recount()
    assert (behind.fingerprint, behind.sums) == told, "what was taken is counted"


def test_who_can_not_take_a_state_does_not_end_one_that_comes_from_him() -> None:
    """Ours: `Busy` was the answer to two questions, and whoever got it gave up both ways."""
    wire = Wire(NO_LOG)
    ann, bob = filled(wire, "ann", "bob")
    with wire.losing(pushes):
        ann.write(new=1)
    with wire.losing(lambda packet: isinstance(packet.message, StatePart)):
        wire.perform(bob, bob.engine.recovery.pull(ann.instance, wire.now))
        wire.deliver()
    assert bob.engine.transfers.receiving == ann.instance
    bob.hear(ann.engine.codec.encode(ann.instance, Busy(7)))
    assert bob.engine.transfers.receiving == ann.instance, "it speaks of a state that we would send"
    wire.until(lambda: agree(ann, bob), within=10.0)


def test_a_wrong_fingerprint_is_counted_anew() -> None:
    wire = Wire()
    ann, bob = filled(wire, "ann", "bob")
    bob.store._tally._fingerprint = bob.store.fingerprint ^ 1
    bob.store.sums[77] ^= 1
    wire.until(lambda: ann.engine.digest == bob.engine.digest, within=10.0)
    assert agree(ann, bob)
    assert ann.engine.counters["repaired"] == bob.engine.counters["repaired"] == 0


def test_what_was_delivered_since_the_comparison_puts_the_repair_off() -> None:
    wire = Wire()
    ann, bob = filled(wire, "ann", "bob")
    lose(bob, "k7")
    with wire.losing(lambda packet: isinstance(packet.message, StatePart) and packet.target == "bob") as lost:
        wire.until(lambda: len(lost) > 0, within=5.0)
    ann.write(more=1)
    for packet in lost:
        wire.put(packet)
    wire.until(lambda: agree(ann, bob), within=10.0)
    assert bob.data["k7"] == "x" * 50 and bob.data["more"] == 1
