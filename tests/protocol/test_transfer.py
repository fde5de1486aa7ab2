"""Does a full state arrive whole or not at all, whatever happens on its way?"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import pytest

from crdt import LWWMap, Malformed, Store, encode_element, encode_value, state_parts
from gossip.protocol.effects import Changed, Ready
from gossip.protocol.messages import Pull, Push, StateNext, StatePart, Sums
from gossip.protocol.settings import Settings
from gossip.protocol.transfer import Arrived, Transfers
from tests.protocol.wire import Node, Packet, Wire, agree

SMALL = Settings(part_bytes=200)


def parts(count: int = 5) -> Iterator[bytes]:
    """A head and `count` more."""
    store = Store()
    for number in range(count):
        store.merge(LWWMap(store, "m").set(f"k{number}", "x" * 200, replica=7, stamp=1 + number))
    return state_parts(store.state(), limit=200)


def all_of(sender: Transfers, receiver: Transfers, part: StatePart | Sums | None) -> Arrived:
    """Lets a transfer run to its end."""
    assert isinstance(part, StatePart)
    while not isinstance(answer := receiver.receive(1, part, now=0.0), Arrived):
        assert answer is not None
        part = sender.asked(2, answer, now=0.0)
        assert isinstance(part, StatePart)
    return answer


def test_a_state_goes_part_by_part_as_it_is_asked_for() -> None:
    sender, receiver = Transfers(SMALL), Transfers(SMALL)
    first = sender.offer(2, parts(), now=0.0, wall=0)
    assert receiver.deadline == inf
    arrived = all_of(sender, receiver, first)
    assert len(arrived.state.objects[(1, "m")]) == 5
    assert not receiver.receiving


def test_a_state_of_one_part_is_whole_at_once() -> None:
    sender, receiver = Transfers(SMALL), Transfers(SMALL)
    first = sender.offer(2, parts(0), now=0.0, wall=0)
    assert first is not None
    assert first.last
    assert isinstance(receiver.receive(1, first, now=0.0), Arrived)


def test_a_lost_part_is_asked_for_again_and_sent_again() -> None:
    sender, receiver = Transfers(SMALL), Transfers(SMALL)
    first = sender.offer(2, parts(), now=0.0, wall=0)
    assert first is not None
    ask = receiver.receive(1, first, now=0.0)
    assert ask == StateNext(1, 1)
    lost = sender.asked(2, ask, now=0.0)
    assert receiver.deadline == 1.0
    assert receiver.tick(0.9) is None
    assert receiver.tick(1.0) == (1, ask)
    assert sender.asked(2, ask, now=1.0) == lost
    assert lost is not None
    arrived = all_of(sender, receiver, lost)
    assert len(arrived.state.objects[(1, "m")]) == 5


def test_a_part_twice_or_out_of_order_or_of_another_is_passed_over() -> None:
    sender, receiver = Transfers(SMALL), Transfers(SMALL)
    first = sender.offer(2, parts(), now=0.0, wall=0)
    assert first is not None
    second, third = sender.asked(2, StateNext(1, 1), now=0.0), sender.asked(2, StateNext(1, 2), now=0.0)
    assert isinstance(second, StatePart) and isinstance(third, StatePart)
    assert receiver.receive(1, second, now=0.0) is None, "nothing has begun"
    receiver.receive(1, first, now=0.0)
    assert receiver.receive(1, first, now=0.0) is None, "twice"
    assert receiver.receive(1, third, now=0.0) is None, "too early"
    assert receiver.receive(9, second, now=0.0) is None, "of another peer"
    assert receiver.receive(1, second._replace(transfer=8), now=0.0) is None, "of another transfer"
    assert receiver.receive(9, first, now=0.0) is None, "one at a time"
    assert receiver.receive(1, second, now=0.0) == StateNext(1, 2)


def test_the_same_peer_may_begin_anew() -> None:
    """It was asked twice, so what it began first is no longer there to be asked for."""
    sender, receiver = Transfers(SMALL), Transfers(SMALL)
    first = sender.offer(2, parts(), now=0.0, wall=0)
    again = sender.offer(2, parts(), now=0.0, wall=0)
    assert first and again
    assert receiver.receive(1, first, now=0.0) == StateNext(1, 1)
    assert sender.asked(2, StateNext(1, 1), now=0.0) is None
    assert receiver.receive(1, again, now=0.0) == StateNext(2, 1)
    assert receiver.receive(1, first, now=0.0) is None
    part = sender.asked(2, StateNext(2, 1), now=0.0)
    assert len(all_of(sender, receiver, part).state.objects[(1, "m")]) == 5


def test_it_gives_up_after_five_more_tries() -> None:
    sender, receiver = Transfers(SMALL), Transfers(SMALL)
    first = sender.offer(2, parts(), now=0.0, wall=0)
    assert first is not None
    receiver.receive(1, first, now=0.0)
    asked = 0
    while receiver.tick(receiver.deadline) is not None:
        asked += 1
    assert asked == 5
    assert not receiver.receiving
    assert receiver.deadline == inf
    assert sender.deadline == 10.0
    sender.tick(10.0)
    assert sender.deadline == inf
    assert sender.asked(2, StateNext(1, 1), now=10.0) is None


def test_a_transfer_over_a_bad_line_goes_on_as_long_as_each_part_comes_in_the_end() -> None:
    """Far more is lost in all than a single part may be, and all of it takes far longer than a part may take."""
    sender, receiver = Transfers(SMALL), Transfers(SMALL)
    part: StatePart | Sums | None = sender.offer(2, parts(8), now=0.0, wall=0)
    now = 0.0
    while isinstance(part, StatePart) and not isinstance(answer := receiver.receive(1, part, now), Arrived):
        for _ in range(4):
            now = receiver.deadline
            assert receiver.tick(now) == (1, answer)
            assert sender.tick(now) is None
        assert isinstance(answer, StateNext)
        part = sender.asked(2, answer, now)
    assert isinstance(part, StatePart) and part.last
    assert now > 3 * SMALL.transfer_timeout
    assert sender.tick(now + SMALL.transfer_timeout) is None and sender.deadline == inf


def test_only_so_many_go_out_at_a_time_and_those_sent_to_their_end_do_not_count() -> None:
    sender = Transfers(SMALL)
    for peer in range(2, 2 + SMALL.max_transfers):
        assert not sender.busy
        sender.offer(peer, parts(1), now=0.0, wall=0)
    assert sender.busy
    last = sender.asked(3, StateNext(2, 1), now=0.0)
    assert isinstance(last, StatePart) and last.last
    assert not sender.busy
    assert sender.asked(3, StateNext(2, 1), now=1.0) == last, "the last part may be lost as well"


def test_a_state_larger_than_allowed_is_given_up() -> None:
    sender, receiver = Transfers(SMALL), Transfers(Settings(max_state=500))
    part = sender.offer(2, parts(), now=0.0, wall=0)
    with pytest.raises(Malformed):
        all_of(sender, receiver, part)
    assert not receiver.receiving


def test_of_a_peer_that_is_gone_nothing_is_kept() -> None:
    transfers = Transfers(SMALL)
    part = transfers.offer(2, parts(), now=0.0, wall=0)
    assert part is not None
    transfers.receive(2, part, now=0.0)
    transfers.gone(3)
    assert transfers.receiving
    transfers.gone(2)
    assert not transfers.receiving
    assert transfers.deadline == inf


# -- whole engines -------------------------------------------------------------------------------------------------


def filled(wire: Wire, name: str) -> Node:
    node = wire.start(name)
    node.write(**{f"k{number}": "x" * 150 for number in range(8)})
    return node


def part_number(number: int) -> object:
    def which(packet: Packet) -> bool:
        return isinstance(packet.message, StatePart) and packet.message.number == number

    return which


@pytest.mark.parametrize("number", range(5))
def test_whichever_part_is_lost_the_newcomer_gets_all_and_sees_it_in_one_step(number: int) -> None:
    wire = Wire(SMALL)
    ann, bob = filled(wire, "ann"), wire.start("bob")
    with wire.losing(part_number(number)) as lost:  # type: ignore[arg-type]
        bob.join("ann")
    assert lost
    assert bob.data == {}
    wire.until(lambda: agree(ann, bob), within=5.0)
    assert len(bob.saw(Changed)) == 1
    assert bob.saw(Ready) == [Ready()]


@pytest.mark.parametrize("kind", [Pull, StatePart, StateNext])
def test_every_packet_of_a_transfer_twice_is_a_transfer(kind: type) -> None:
    wire = Wire(SMALL)
    ann, bob = filled(wire, "ann"), wire.start("bob")

    def double(packet: Packet) -> bool:
        if isinstance(packet.message, kind):
            wire.put(packet)
        return False

    with wire.losing(double):
        bob.join("ann")
    wire.until(lambda: agree(ann, bob), within=2.0)
    assert len(bob.saw(Changed)) == 1


def test_what_waited_for_a_state_shows_in_a_step_of_its_own_after_it() -> None:
    """A write that came while the state was under way was held back until then: watchers hear of it as well."""
    wire = Wire(Settings(part_bytes=200, log_bytes=1))
    ann, bob = wire.cluster("ann", "bob")
    bob.write(b=1)
    with wire.losing(lambda packet: isinstance(packet.message, Push)):
        ann.write(a=1)
    with wire.losing(part_number(4)) as parts_:  # type: ignore[arg-type]
        wire.until(lambda: len(parts_) > 0, within=3.0)
        ann.write(c=3)
    assert bob.data == {"b": 1}
    wire.put(parts_[0])
    wire.deliver()
    assert bob.data == {"a": 1, "b": 1, "c": 3}
    assert bob.steps()[-2:] == [[(encode_element(key), encode_value(value))] for key, value in (("a", 1), ("c", 3))]
    assert agree(ann, bob)


def test_a_part_that_is_malformed_in_the_middle_changes_nothing_and_the_state_comes_later() -> None:
    wire = Wire(SMALL)
    ann, bob = filled(wire, "ann"), wire.start("bob")
    with wire.losing(part_number(3)) as lost:  # type: ignore[arg-type]
        bob.join("ann")
    before = bob.state
    bad = lost[0].message._replace(payload=b"\xc1")
    assert bob.hear(ann.engine.codec.encode(ann.instance, bad)) == []
    assert bob.engine.counters["malformed"] == 1
    assert bob.state == before
    assert not bob.engine.transfers.receiving
    wire.until(lambda: agree(ann, bob), within=5.0)


def test_a_state_that_ends_too_soon_changes_nothing() -> None:
    """The last part says that it is; the head said how many keys there are."""
    wire = Wire(SMALL)
    ann, bob = filled(wire, "ann"), wire.start("bob")
    with wire.losing(part_number(3)) as lost:  # type: ignore[arg-type]
        bob.join("ann")
    before = bob.state
    assert bob.hear(ann.engine.codec.encode(ann.instance, lost[0].message._replace(last=True))) == []
    assert (bob.state, bob.engine.counters["malformed"]) == (before, 1)


def test_the_sender_dies_in_the_middle_and_another_takes_over() -> None:
    wire = Wire(SMALL)
    ann, cat = filled(wire, "ann"), wire.start("cat")
    cat.join("ann")
    assert agree(ann, cat)
    bob = wire.start("bob")
    with wire.losing(part_number(3)):  # type: ignore[arg-type]
        bob.join("ann")
    wire.crash(ann)
    assert bob.data == {}
    wire.until(lambda: agree(bob, cat), within=15.0)
    assert bob.saw(Ready) == [Ready()]


def test_a_state_that_nobody_asked_for_is_not_let_in() -> None:
    """It would be merged: a stranger's context can hold whatever he likes."""
    wire = Wire()
    ann, bob = filled(wire, "ann"), wire.start("bob")
    part = StatePart(1, 0, True, next(state_parts(ann.store.state())), 0)
    assert bob.hear(ann.engine.codec.encode(ann.instance, part)) == []
    assert bob.engine.counters["unasked"] == 1
    assert not bob.engine.transfers.receiving


def test_a_slow_newcomer_stops_neither_pings_nor_writes() -> None:
    wire = Wire(SMALL)
    ann, cat = filled(wire, "ann"), wire.start("cat")
    cat.join("ann")
    slow = wire.start("bob")

    def late(packet: Packet) -> bool:
        return isinstance(packet.message, StatePart)

    with wire.losing(late) as held:
        slow.join("ann")
        wire.advance(4.0)
        ann.write(new=1)
        assert cat.data["new"] == 1
        assert slow.engine.members.table[ann.instance].status == 0
    assert held
    assert wire.packets(StateNext, "bob", "ann") == [] or slow.engine.transfers.receiving
    wire.until(lambda: agree(ann, slow, cat), within=10.0)
