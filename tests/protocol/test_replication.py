"""Do writes get to everybody, once and in order, whatever is lost, repeated or regrouped on the way?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt import (
    Batch,
    Context,
    LWWMap,
    Store,
    Write,
    decode_batch,
    decode_state,
    encode_batch,
    encode_element,
    encode_state,
)
from gossip.protocol.effects import Send
from gossip.protocol.members import Status
from gossip.protocol.messages import Ack, Gossip, Ping, Pull, Push, StatePart
from gossip.protocol.replication import Replication
from gossip.protocol.settings import Settings
from tests.protocol.wire import EPOCH, Packet, Wire, agree


def is_push(packet: Packet) -> bool:
    return isinstance(packet.message, Push)


def batches(packets: list[Packet]) -> list[Batch]:
    return [decode_batch(payload) for packet in packets for payload in packet.message.batches]


# -- pushing -------------------------------------------------------------------------------------------------------


def test_writes_leave_at_the_end_of_the_turn_in_one_batch() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    ann.set("a", 1)
    ann.set("b", 2)
    assert wire.sent == []
    assert ann.data == {"a": 1, "b": 2}
    ann.flush()
    (batch,) = batches(wire.packets(Push))
    assert (batch.first, batch.last, len(batch.writes), batch.open) == (1, 2, 2, False)
    ann.flush()
    assert len(wire.sent) == 1, "there is nothing more to say"
    wire.deliver()
    assert agree(ann, bob)


def test_own_writes_leave_before_anything_is_answered() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    ann.set("a", 1)
    ping = Ping(1, bob.engine.digest, (bob.engine.me,))
    effects = ann.hear(bob.engine.codec.encode(bob.instance, ping))
    kinds = [type(effect.message) for effect in effects if isinstance(effect, Send)]
    assert kinds == [Push, Ack]


def test_ten_thousand_writes_of_a_hot_key_in_a_turn_are_one_on_the_wire() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    for number in range(10_000):
        ann.set("hot", number)
    ann.flush()
    (batch,) = batches(wire.packets(Push))
    assert (batch.first, batch.last, len(batch.writes)) == (1, 10_000, 1), "blanks complete the range"
    assert len(wire.packets(Push)[0].payload) < 200
    wire.deliver()
    assert bob.data == {"hot": 9_999}
    assert agree(ann, bob)
    assert ann.engine.replication.coalesced == 9_999


def test_more_writes_of_a_hot_key_than_a_batch_may_span_are_two_batches() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    for number in range((1 << 15) + 1):
        ann.set("hot", number)
    ann.flush()
    assert [len(batch.writes) for batch in batches(wire.packets(Push))] == [1, 1]
    wire.deliver()
    assert agree(ann, bob)


def test_a_write_that_replaced_an_unsent_one_takes_over_what_that_one_replaced() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    bob.write(k="from bob")
    ann.set("k", "first")
    ann.set("k", "second")
    ann.flush()
    wire.deliver()
    assert agree(ann, bob)
    assert LWWMap(bob.store, "m").conflicts("k") == []


def test_set_and_deleted_in_a_turn_leaves_nothing_and_what_was_there_is_gone() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    bob.write(k="old")
    ann.set("k", "new")
    ann.delete("k")
    ann.flush()
    wire.deliver()
    assert ann.data == bob.data == {}
    assert agree(ann, bob)


# -- repair --------------------------------------------------------------------------------------------------------


def test_a_lost_push_is_repaired_by_the_next_digest() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    bob.write(b=1)
    with wire.losing(is_push):
        ann.write(a=1)
    assert bob.data == {"b": 1}
    took = wire.until(lambda: agree(ann, bob), within=3.0)
    assert took <= 2.5
    assert wire.packets(StatePart) == [], "the log was enough"


def test_a_gap_is_repaired_by_a_pull_at_once() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    ann.write(a=1)
    with wire.losing(is_push):
        ann.write(b=2)
    ann.write(c=3)
    assert wire.now == 0.0
    assert agree(ann, bob)
    assert bob.data == {"a": 1, "b": 2, "c": 3}
    assert len(wire.packets(Pull)) == 1


def test_what_finds_no_room_is_asked_for_at_once_as_a_gap_is() -> None:
    """Nothing of it is held, so there is no gap to see; and its sender will not say it again by itself."""
    wire = Wire(Settings(held_bytes=50))
    ann, bob = wire.cluster("ann", "bob")
    with wire.losing(is_push):
        ann.write(a=1)
    ann.write(b="x" * 100)
    assert bob.engine.replication.inbox.refused == 1
    assert wire.now == 0.0
    assert agree(ann, bob)
    assert bob.data == {"a": 1, "b": "x" * 100}


def test_gaps_that_follow_each_other_are_one_pull_until_its_answer_is_late() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    ann.write(a=1)
    with wire.losing(is_push):
        ann.write(b=2)
    with wire.losing(lambda packet: isinstance(packet.message, Pull)) as pulls:
        for number in range(10):
            ann.write(**{f"k{number}": number})
            wire.advance(wire.settings.pull_timeout / 20)
        assert bob.engine.counters["gaps"] == 10 and bob.data == {"a": 1}
        assert len(pulls) == 1
        wire.advance(wire.settings.pull_timeout)
        assert len(pulls) > 1, "an answer that does not come is asked for again"
    wire.until(lambda: agree(ann, bob), within=3.0)


def test_writes_of_one_author_show_in_their_order_though_they_come_in_another() -> None:
    """Promise 3."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    with wire.losing(lambda packet: isinstance(packet.message, Push | Pull)) as held:
        for number in range(5):
            ann.write(**{f"k{number}": number})
    for place in (3, 1, 4, 2, 0, 0, 3):
        wire.put(held[place])
        wire.deliver()
    assert [key for step in bob.steps() for key, _ in step] == [encode_element(f"k{number}") for number in range(5)]
    assert agree(ann, bob)


def test_the_log_too_short_means_the_full_state() -> None:
    wire = Wire(Settings(log_bytes=1_000))
    ann, bob = wire.cluster("ann", "bob")
    bob.write(b=1)
    with wire.losing(is_push):
        for number in range(20):
            ann.write(**{f"k{number}": "x" * 100})
    wire.until(lambda: agree(ann, bob), within=3.0)
    assert wire.packets(StatePart)
    assert bob.data["b"] == 1


def test_with_the_full_state_goes_what_was_deleted_meanwhile() -> None:
    """Bob has ann's last write still; cat, who deleted it, is the one that he hears of it from."""
    wire = Wire(Settings(log_bytes=1))
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    ann.write(k=1)
    wire.crash(ann)
    with wire.losing(is_push):
        cat.delete("k")
        cat.flush()
    assert (bob.data, cat.data) == ({"k": 1}, {})
    wire.until(lambda: agree(bob, cat), within=5.0)
    assert wire.packets(StatePart)
    assert bob.data == {}


def test_a_peer_far_behind_gets_there_in_several_pulls() -> None:
    wire = Wire(Settings(push_bytes=2_000))
    ann, bob = wire.cluster("ann", "bob")
    bob.write(b=1)
    with wire.losing(is_push):
        for number in range(100):
            ann.write(**{f"k{number}": "x" * 100})
    wire.sent.clear()
    wire.until(lambda: agree(ann, bob), within=3.0)
    pulls, pushes = wire.packets(Pull, "bob"), wire.packets(Push, "ann")
    assert 5 < len(pulls) <= 20
    assert all(len(packet.payload) < 3_000 for packet in pushes)
    assert sum(len(packet.message.batches) for packet in pushes) == 100, "nothing was sent twice"


def test_what_was_not_new_is_not_answered_or_passed_on() -> None:
    wire = Wire()
    ann, bob, _ = wire.cluster("ann", "bob", "cat")
    ann.write(a=1)
    (push,) = wire.packets(Push, target="bob")
    assert len(wire.sent) == 2
    assert bob.hear(push.payload) == []


def test_what_was_lost_is_repaired_though_others_never_stop_writing() -> None:
    """Something is always on its way then, and is no reason to wait for ever with what is not."""
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    with wire.losing(lambda packet: is_push(packet) and packet.target == "bob"):
        cat.write(lost=1)
    for number in range(50):
        ann.write(busy=number)
        wire.advance(0.1)
    assert bob.data == {"lost": 1, "busy": 49}
    wire.until(lambda: agree(ann, bob, cat), within=1.0)


def test_early_batches_wait_until_somebody_has_what_lies_between() -> None:
    """C2: 1 to 3 known, 5 to 7 arrive, 4 later; and nobody claims 4 before."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    for number in range(1, 4):
        ann.write(**{f"k{number}": number})
    with wire.losing(lambda packet: isinstance(packet.message, Push | Pull)) as held:
        for number in range(4, 8):
            ann.write(**{f"k{number}": number})
    fourth, *later = held
    with wire.losing(lambda packet: isinstance(packet.message, Pull)):
        for packet in [*later, *later]:
            wire.put(packet)
        wire.deliver()
        assert bob.store.context == {ann.instance: 3}
        assert bob.engine.digest.context == Context({ann.instance: 3}).fingerprint()
        assert bob.data.keys() == {"k1", "k2", "k3"}
        wire.put(fourth)
        wire.deliver()
    assert agree(ann, bob)
    assert bob.engine.replication.inbox.size == 0


def test_what_died_with_its_author_is_not_asked_for_for_ever() -> None:
    """C2: 4 never comes. Those who hold 5 stay quiet in the end, and go on with everybody else."""
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    with wire.losing(is_push):
        ann.write(a=1)
    with wire.losing(lambda packet: (is_push(packet) and packet.target == "cat") or isinstance(packet.message, Pull)):
        ann.write(b=2)
    wire.crash(ann)
    wire.advance(60.0)
    before = len(wire.packets(Pull))
    wire.advance(60.0)
    assert len(wire.packets(Pull)) == before
    bob.write(c=3)
    assert bob.data == cat.data == {"c": 3}
    assert agree(bob, cat)


def test_the_last_writes_of_the_dead_are_taken_though_the_news_of_its_death_was_faster() -> None:
    """Promise 4: nobody else has them, and their author can not send them again."""
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    with wire.losing(is_push) as held:
        cat.write(last="words")
    wire.crash(cat)
    wire.perform(ann, ann.engine.exited(cat.instance, wire.now))
    wire.deliver()
    assert ann.living == bob.living == {"ann", "bob"}
    wire.put(next(packet for packet in held if packet.target == "ann"))
    wire.deliver()
    assert ann.data == {"last": "words"}
    wire.until(lambda: agree(ann, bob), within=3.0)


def test_a_remove_does_not_make_later_adds_disappear() -> None:
    """C5 [akka #22890]: it names what its author saw, and claims nothing else."""
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    ann.write(x=1)
    with wire.losing(lambda packet: packet.target == "cat" and is_push(packet)):
        ann.write(y=2)
        bob.delete("x")
        bob.flush()
        wire.deliver()
    assert cat.data == {"x": 1}
    ann.write(z=3)
    wire.until(lambda: agree(ann, bob, cat), within=5.0)
    assert cat.data == {"y": 2, "z": 3}


def test_a_remove_that_comes_before_its_add_is_remembered() -> None:
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    with wire.losing(lambda packet: packet.target == "cat") as held:
        ann.write(x=1)
    bob.delete("x")
    bob.flush()
    wire.deliver()
    assert cat.data == {}
    for packet in held:
        wire.put(packet)
    wire.deliver()
    assert ann.data == bob.data == cat.data == {}
    assert agree(ann, bob, cat)
    assert cat.store.named == set()


def test_a_part_of_a_state_never_comes_with_its_context() -> None:
    """C1 [delta_crdt_ex #65]: else what was not sent is taken for deleted."""
    wire = Wire(Settings(part_bytes=200))
    ann = wire.start("ann")
    ann.write(**{f"k{number}": "x" * 200 for number in range(5)})
    bob = wire.start("bob")
    with wire.losing(lambda packet: isinstance(packet.message, StatePart) and packet.message.number == 2):
        bob.join("ann")
    assert (bob.store.context, bob.data) == ({}, {})
    assert bob.engine.digest[:2] == (0, 0)
    wire.until(lambda: agree(ann, bob), within=5.0)


def test_batches_regrouped_by_somebody_on_the_way_are_the_same_writes() -> None:
    """C6 [akka #22606]."""
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    with wire.losing(lambda packet: packet.target == "cat"):
        for number in range(6):
            ann.write(**{f"k{number}": number})
    writes = [write for batch in batches(wire.packets(Push, target="bob")) for write in batch.writes]
    for first, last in ((2, 4), (1, 2), (2, 2), (4, 6), (3, 5), (1, 6)):
        regrouped = encode_batch(Batch(ann.instance, first, last, tuple(writes[first - 1 : last])))
        wire.perform(cat, cat.hear(bob.engine.codec.encode(bob.instance, Push((regrouped,)))))
    wire.deliver()
    assert agree(ann, bob, cat)


def test_five_megabytes_of_conflicts_under_one_key_reach_a_newcomer() -> None:
    """C7: each of them fits into a message, all together do not."""
    wire = Wire()
    nodes = wire.cluster("ann", "bob", "cat", "dan", "eve")
    with wire.losing(is_push):
        for node in nodes:
            node.write(k="x" * (1 << 20 - 1))
            node.write(k="x" * ((1 << 20) - 100))
    wire.until(lambda: agree(*nodes), within=20.0)
    assert len(LWWMap(nodes[0].store, "m").conflicts("k")) == 4
    newcomer = wire.start("fay")
    newcomer.join("ann")
    assert agree(newcomer, *nodes)


# -- order, repetition, grouping -----------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from("abc"), st.sampled_from(["set", "delete", "begin", "end", "flush"])),
    max_size=25,
)


def written(steps: list[tuple[int, str, str]]) -> tuple[list[bytes], list[Replication]]:
    """Three authors who write as told, and see each other's batches at every flush."""
    authors = [Replication(Store(), Settings(batch_bytes=200), replica) for replica in (1, 2, 3)]
    payloads: list[bytes] = []
    open_: set[int] = set()

    def flush(who: int) -> None:
        sent = authors[who].flush()
        payloads.extend(sent)
        for other in authors:
            other.receive([(decode_batch(payload), payload) for payload in sent], EPOCH)

    for who, key, what in steps:
        author, a_map = authors[who], LWWMap(authors[who].store, "m")
        write: Write | None = None
        match what:
            case "begin" if who not in open_:
                author.begin()
                open_.add(who)
            case "end" if who in open_:
                author.end()
                open_.discard(who)
            case "flush":
                flush(who)
            case "set":
                write = a_map.set(key, key * 60, author.replica, author.stamp(EPOCH))
            case "delete":
                write = a_map.delete(key, author.replica, author.stamp(EPOCH))
        if write is not None:
            author.update(write)
    for who, author in enumerate(authors):
        if who in open_:
            author.end()
        flush(who)
    return payloads, authors


@given(STEPS, st.data())
def test_any_order_repetition_and_grouping_of_batches_and_states_gives_equal_bytes(
    steps: list[tuple[int, str, str]], data: st.DataObject
) -> None:
    """P2."""
    payloads, authors = written(steps)
    expected = encode_state(authors[0].store.state())
    assert all(encode_state(author.store.state()) == expected for author in authors)
    reader = Replication(Store(), Settings(), 9)
    order = data.draw(st.permutations([*payloads, *payloads[::2]]))
    half_way = Replication(Store(), Settings(), 8)
    half_way.receive([(decode_batch(payload), payload) for payload in order[::3]], EPOCH)
    place = data.draw(st.integers(0, len(order)))
    while order:
        count = data.draw(st.integers(1, len(order)))
        group, order = order[:count], order[count:]
        reader.receive([(decode_batch(payload), payload) for payload in group], EPOCH)
        if len(order) <= place:
            reader.merge_state(decode_state(encode_state(half_way.store.state())), 0, EPOCH)
            place = -1
    assert encode_state(reader.store.state()) == expected
    assert reader.store.fingerprint == authors[0].store.fingerprint
    assert reader.inbox.size == 0


@given(STEPS)
def test_what_is_published_is_all_that_shows_at_any_moment(steps: list[tuple[int, str, str]]) -> None:
    """Whatever the authors are in the middle of: who reads only what has left holds what the published contexts say."""
    payloads, _ = written(steps)
    reader = Replication(Store(), Settings(), 9)
    for payload in payloads:
        batch = decode_batch(payload)
        reader.receive([(batch, payload)], EPOCH)
        assert reader.store.context[batch.replica] <= batch.last
        assert batch.open or reader.store.context[batch.replica] == batch.last


def test_a_write_that_was_cut_short_is_a_blank_to_others_until_the_audit_finds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal handler raised (a soft time limit, Ctrl-C) between the merge of a write and its place in the batch. The
    next one was numbered as it, and no peer could read that batch, nor any after it."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    with monkeypatch.context() as patch:
        patch.setattr(Replication, "_gather", lambda self, write: time_is_up())
        with pytest.raises(TimeoutError):
            ann.set("cut short", 1)
    ann.write(next=2)
    assert bob.data == {"next": 2}
    assert bob.store.context == ann.store.context
    wire.until(lambda: agree(ann, bob), within=10.0)
    assert bob.data == {"cut short": 1, "next": 2}


def time_is_up() -> None:
    raise TimeoutError


def test_a_disk_slower_than_the_program_costs_no_memory_and_loses_nothing() -> None:
    """With full durability writes wait for the disk before they leave. What is too much to wait in memory is forgotten,
    and found by comparing ranges when the disk has it."""
    wire = Wire(Settings(durability="full", log_bytes=10_000))
    ann, bob = wire.cluster("ann", "bob")
    for number in range(300):
        ann.set(f"k{number}", "x" * 100)
        ann.flush()
    replication = ann.engine.replication
    assert sum(len(entry.payload) for entry in replication._storing) <= 10_000 < 300 * 100
    assert not replication.exposable and ann.engine.digest.writes == 0
    wire.advance(3.0)
    assert not bob.data, "nothing leaves before the disk has it"
    for upto in (7, 150, 300):
        wire.perform(ann, ann.engine.stored(upto))
        wire.deliver()
        assert ann.engine.digest.writes == upto and replication.published == upto
        assert len(bob.data) in (0, 300), "a state is told of when all of it is on the disk"
    wire.until(lambda: agree(ann, bob), within=5.0)
    assert len(bob.data) == 300 and replication.exposable
    ann.set("after", 1)
    ann.flush()
    wire.perform(ann, ann.engine.stored(301))
    wire.deliver()
    assert bob.data["after"] == 1 and replication._storing_size == 0


def test_who_is_called_dead_while_its_disk_is_behind_goes_on_at_once_and_shows_nothing_too_soon() -> None:
    """Ours: with full durability it waited until nothing waited for the disk, and a program that writes in every turn
    was never a member again."""
    wire = Wire(Settings(durability="full"))
    ann, bob = wire.cluster("ann", "bob")
    ann.set("first", 1)
    ann.flush()
    wire.perform(ann, ann.engine.stored(1))
    wire.deliver()
    ann.set("late", 1)
    ann.flush()
    old = ann.instance
    buried = ann.engine.me._replace(status=Status.DEAD)
    wire.perform(ann, ann.hear(bob.engine.codec.encode(bob.instance, Gossip((buried,)))))
    wire.deliver()
    assert ann.instance != old and ann.name in bob.living
    ann.set("new", 1)
    ann.flush()
    wire.advance(5.0)
    assert bob.data == {"first": 1}, "neither of the two is on the disk"
    assert ann.engine.replication.context() == {old: 1} and ann.engine.digest.writes == 1
    wire.perform(ann, ann.engine.stored(2))
    wire.deliver()
    assert bob.data == {"first": 1, "late": 1}
    wire.perform(ann, ann.engine.stored(3))
    wire.deliver()
    assert bob.data == {"first": 1, "late": 1, "new": 1} and agree(ann, bob)
    assert ann.engine.replication.written == {old: 2, ann.instance: 1}
    wire.advance(10.0)
    assert ann.engine.digest == bob.engine.digest


def test_what_was_lost_of_who_goes_on_as_another_comes_before_what_it_writes_then() -> None:
    """Ours: order is kept for each replica, and it was another one from there on: `ready` was seen without the data."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    ann.write(first=1)
    with wire.losing(lambda packet: isinstance(packet.message, Push)):
        ann.write(data="there")
    buried = ann.engine.me._replace(status=Status.DEAD)
    wire.perform(ann, ann.hear(bob.engine.codec.encode(bob.instance, Gossip((buried,)))))
    ann.set("ready", 1)
    ann.flush()
    wire.deliver()
    shown = [dict.fromkeys(key for key, _ in step) for step in bob.steps()]
    assert shown[-2:] == [{encode_element("data"): None}, {encode_element("ready"): None}]
    assert bob.data == {"first": 1, "data": "there", "ready": 1}


def test_what_waits_for_the_disk_is_among_what_was_touched() -> None:
    """A reader of this node sees it, so one who goes on here has to be told."""
    wire = Wire(Settings(durability="full", log_bytes=2_000))
    ann, _bob = wire.cluster("ann", "bob")
    ann.set("first", 1)
    ann.flush()
    wire.perform(ann, ann.engine.stored(1))
    replication, before = ann.engine.replication, Context(ann.store.context)
    ann.set("waits", 1)
    ann.flush()
    ann.set("gathered", 1)
    key = LWWMap(ann.store, "m")._key
    assert replication.touched(before) == {key("waits"), key("gathered")}
    for number in range(40):
        ann.set("large", "x" * 100 * number)
        ann.flush()
    assert replication.touched(before) is None, "some of it was forgotten"
