"""Does what is owned go with its owner everywhere, and stay with one that was only called dead?

Handles are not here: a node sees by `visible`, with the living members and its wall clock.
"""

from __future__ import annotations

from typing import Any

from crdt import FOREVER, WITH_AUTHOR, LWWMap, Store, chain, decode_value, encode_element, visible
from crdt.timestamp import at
from gossip.protocol.effects import Appeared, Changed, Reborn, Warned
from gossip.protocol.expiry import Expiry
from gossip.protocol.members import Status
from gossip.protocol.messages import Gossip, Push
from gossip.protocol.settings import Settings
from tests.protocol.wire import EPOCH, Node, Wire


def put(node: Node, key: str, value: Any, expires: int = FOREVER) -> None:
    """Writes and ends the turn."""
    engine = node.engine
    write = LWWMap(node.store, "m").set(key, value, engine.replication.replica, engine.stamp(node.wall))
    node.wire.perform(node, engine.update(write._replace(expires=expires), node.wire.now))
    node.flush()
    node.wire.deliver()


def seen(node: Node) -> dict[str, Any]:
    """What a reader of this node sees."""
    view = LWWMap(node.store, "m")
    shown = {key: next(visible(view.live(key), at(node.wall), node.engine.members), None) for key in list(view.keys())}
    return {key: decode_value(live[3]) for key, live in shown.items() if live is not None}


def test_an_expired_write_is_dropped_when_its_time_has_come_and_not_before() -> None:
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    put(ann, "k", 1, expires=at(EPOCH + 5_000))
    wire.advance(4.9)
    assert seen(ann) == seen(bob) == {"k": 1} and bob.store.mortal
    wire.until(lambda: not ann.store.mortal and not bob.store.mortal, within=0.2)
    assert seen(ann) == seen(bob) == {} and ann.store.objects == bob.store.objects == {}
    ((_, _, after),) = bob.saw(Changed)[-1].changes
    assert after is None


def test_a_refresh_against_an_expiry_with_clocks_that_differ_ends_equal() -> None:
    """C16: bob's clock is 5 s ahead, so he has dropped the session when ann refreshes it."""
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    bob.clock = 5_000
    put(ann, "session", 1, expires=at(EPOCH + 6_000))
    wire.until(lambda: not bob.store.mortal, within=2.0)
    put(ann, "session", 2, expires=at(EPOCH + 60_000))
    assert seen(ann) == seen(bob) == seen(cat) == {"session": 2}
    assert ann.store.context == bob.store.context == cat.store.context


def test_what_is_owned_is_gone_when_the_owner_is_and_kept_while_it_is_suspected() -> None:
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    put(cat, "k", "cat's", expires=WITH_AUTHOR)
    wire.crash(cat)
    wire.until(lambda: bob.status_of(cat.instance) == Status.SUSPECT, within=10.0)
    assert seen(bob) == {"k": "cat's"}
    wire.until(lambda: ann.status_of(cat.instance) == bob.status_of(cat.instance) == Status.DEAD, within=30.0)
    assert seen(ann) == seen(bob) == {} and not ann.store.mortal and not bob.store.objects


def test_who_was_called_dead_by_mistake_writes_what_it_owns_anew() -> None:
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    put(cat, "k", "cat's", expires=WITH_AUTHOR)
    put(cat, "plain", 1)
    was = cat.instance
    buried = cat.engine.me._replace(status=Status.DEAD)
    wire.perform(ann, ann.hear(bob.engine.codec.encode(bob.instance, Gossip((buried,)))))
    assert seen(ann) == {"plain": 1}
    wire.until(lambda: cat.saw(Reborn), within=5.0)
    wire.until(lambda: seen(ann) == seen(bob) == seen(cat) == {"k": "cat's", "plain": 1}, within=5.0)
    assert cat.instance != was and ann.store.context == bob.store.context == cat.store.context
    live = LWWMap(ann.store, "m").live("k")
    assert live is not None and [link[1] for link in chain(live)] == [cat.instance]


def test_an_owned_write_that_comes_after_the_news_of_its_owners_death_is_not_shown() -> None:
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    with wire.losing(lambda packet: isinstance(packet.message, Push) and packet.target == "bob"):
        put(cat, "k", "cat's", expires=WITH_AUTHOR)
    wire.cut("bob", "ann")
    wire.crash(cat)
    wire.until(lambda: bob.status_of(cat.instance) == Status.DEAD, within=30.0)
    wire.heal()
    wire.until(lambda: bob.store.context == ann.store.context, within=60.0)
    wire.until(lambda: seen(ann) == {}, within=30.0)
    assert seen(bob) == {} and not bob.store.mortal


def test_what_a_newcomer_owns_is_shown_when_the_newcomer_is_known() -> None:
    """Its write may overtake its claim."""
    wire = Wire()
    ann, bob = wire.cluster("ann", "bob")
    cat = wire.start("cat")
    with wire.losing(lambda packet: packet.target == "bob"):
        cat.join("ann")
        put(cat, "k", "cat's", expires=WITH_AUTHOR)
    state = ann.store.state()
    bob.engine.replication.merge_state(state, 0, bob.wall)
    assert cat.instance not in bob.engine.members and seen(bob) == {} and bob.store.mortal
    wire.until(lambda: cat.instance in bob.engine.members, within=5.0)
    assert seen(bob) == {"k": "cat's"} and bob.saw(Appeared)


def test_of_an_owner_whom_nobody_knows_nothing_is_kept_for_ever() -> None:
    """A whole cluster was started again from what had been saved: its owners are no more, and nobody can tell."""
    wire = Wire()
    ann = wire.start("ann")
    bob = wire.start("bob")
    put(bob, "k", "bob's", expires=WITH_AUTHOR)
    effects = ann.engine._show([tuple(ann.store.merge_state(bob.store.state()))], wire.now)
    wire.perform(ann, effects)
    wire.crash(bob)
    assert seen(ann) == {} and ann.store.mortal
    wire.until(lambda: not ann.store.mortal, within=70.0)
    assert ann.status_of(bob.instance) == Status.DEAD


def test_an_owner_whom_nobody_knew_and_who_lives_speaks_up() -> None:
    wire = Wire()
    ann, cat = wire.cluster("ann", "cat")
    bob = wire.start("bob")
    put(bob, "k", "bob's", expires=WITH_AUTHOR)
    wire.perform(ann, ann.engine._show([tuple(ann.store.merge_state(bob.store.state()))], wire.now))
    wire.until(lambda: not ann.store.mortal, within=70.0)
    bob.join("cat")
    assert bob.saw(Reborn)
    bob.join("cat")  # as discovery does again and again
    wire.until(lambda: seen(ann) == seen(bob) == seen(cat) == {"k": "bob's"}, within=20.0)


def test_what_was_written_since_is_not_buried_by_who_comes_back() -> None:
    """What it owned had lost against a newer value; written anew with a fresh stamp it won, and that was gone."""
    wire = Wire()
    ann, bob, cat = wire.cluster("ann", "bob", "cat")
    with wire.losing(lambda packet: isinstance(packet.message, Push)):
        put(cat, "k", "cat's", expires=WITH_AUTHOR)
        wire.advance(0.01)
        put(bob, "k", "newer")
    wire.until(lambda: seen(ann) == seen(bob) == seen(cat) == {"k": "newer"}, within=10.0)
    buried = cat.engine.me._replace(status=Status.DEAD)
    wire.perform(ann, ann.hear(bob.engine.codec.encode(bob.instance, Gossip((buried,)))))
    wire.until(lambda: cat.saw(Reborn), within=5.0)
    wire.advance(5.0)
    assert seen(ann) == seen(bob) == seen(cat) == {"k": "newer"}
    assert len(list(chain(LWWMap(ann.store, "m").live("k")))) == 2, "and is a conflict still"


def test_what_ended_lately_is_known_from_the_last_that_had_to_be_forgotten() -> None:
    """Ours: with each that was forgotten all was, so whoever came back after 4 096 ends got everything anew."""
    expiry = Expiry(Store())
    expiry.begin(0.0)
    keys = [(1, "m", encode_element(number)) for number in range(6_000)]
    for number, key in enumerate(keys):
        expiry.remember([key], float(number), owned=False)
    assert expiry.since(5_990.0) == set(keys[5_990:]) and len(expiry._ended) == 4_096
    assert expiry.since(1_904.0) is not None and expiry.since(1_900.0) is None
    expiry.remember([keys[0]], 6_000.0, owned=True)
    assert expiry.since(7_000.0) == {keys[0]}, "of a death another node may hear much later"
    expiry.remember(keys[:4_096], 6_001.0, owned=False)
    assert expiry.since(6_200.0) is None and expiry.since(6_301.0) == set(), "and for minutes that is missed"


def test_a_node_whose_clock_is_ahead_takes_from_nobody_what_has_not_ended_yet() -> None:
    """Ours: it drops what is over by its clock, without a write; and whoever merged its state, or began with it, had
    lost it too. Nothing showed that: what ends by itself is in no fingerprint."""
    wire = Wire(Settings(log_bytes=1))
    ann, bob, fast = wire.cluster("ann", "bob", "fast")
    put(ann, "session", "s", expires=at(EPOCH + 1_800_000))
    put(ann, "other", 1)
    fast.clock = 3_600_000
    wire.advance(2.0)
    assert seen(fast) == {"other": 1} and seen(bob) == {"other": 1, "session": "s"}
    with wire.losing(lambda packet: isinstance(packet.message, Push) and packet.target == "bob"):
        put(ann, "missed", 1)
    wire.perform(bob, bob.engine.recovery.pull(fast.instance, wire.now))
    wire.deliver()
    assert seen(bob)["session"] == "s" and [each.kind for each in bob.saw(Warned)] == ["skewed"]
    wire.until(lambda: "missed" in seen(bob), within=10.0)
    assert seen(bob)["session"] == "s", "ann's state is as good as any"
    late = wire.start("late")
    late.join("fast")
    wire.until(lambda: "session" in seen(late), within=10.0)


def test_the_end_of_a_conflict_that_is_not_shown_is_not_forgotten_with_those_that_were_replaced() -> None:
    store = Store()
    store.merge(store.write((1, "m", b"\xa1k"), b"\x01", 1, 1, expires=at(5_000)))
    other = Store()
    store.merge(other.write((1, "m", b"\xa1k"), b"\x02", 2, 2, expires=at(9_000)))
    expiry = Expiry(store)
    expiry.note([((1, "m", b"\xa1k"), None, store.shown((1, "m", b"\xa1k")))], {}, 0.0)
    expiry._tidy()
    assert len(list(chain(store.shown((1, "m", b"\xa1k"))))) == 2
    (change,) = expiry.tick(1.0, at(5_001))
    assert [link[3] for link in chain(change[2])] == [b"\x02"]
    assert len(expiry.tick(2.0, at(9_001))) == 1 and not store.objects
