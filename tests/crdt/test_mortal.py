"""Do expired and owned writes go for every reader, and leave nothing behind?

Expiry and ownership belong to the reading: no write tells of an end, so what was concurrent shows again, and each node
may forget by itself.
"""

from __future__ import annotations

from collections.abc import Container

from crdt import WITH_AUTHOR, LWWMap, Store, Write, chain, decode_value, encode_element, value_of, visible
from crdt.timestamp import LATEST

ANN, BOB, EVE = 7, 8, 9
NOBODY = Store()


def merged(store: Store, write: Write | None) -> Write:
    assert write is not None
    store.merge(write)
    return write


def until(expires: int, write: Write) -> Write:
    """The write with an expiry, which the types do not offer."""
    return write._replace(expires=expires)


def shown(store: Store, now: int, living: Container[int] = (ANN, BOB, EVE)) -> list[object]:
    return [decode_value(link[3]) for link in visible(LWWMap(store, "m").live("k"), now, living)]


def test_what_was_concurrent_with_an_expired_write_shows_again() -> None:
    store, entries = Store(), LWWMap(NOBODY, "m")
    store.merge(entries.set("k", "kept", ANN, stamp=5))
    store.merge(until(70, entries.set("k", "fleeting", BOB, stamp=9)))
    assert shown(store, now=69) == ["fleeting", "kept"]
    assert shown(store, now=70) == shown(store, now=LATEST) == ["kept"]


def test_what_an_expired_write_replaced_stays_replaced() -> None:
    store = Store()
    merged(store, LWWMap(store, "m").set("k", "old", ANN, stamp=5))
    merged(store, until(70, LWWMap(store, "m").set("k", "fleeting", ANN, stamp=9)))
    assert shown(store, now=70) == []


def test_an_owned_write_goes_with_its_author_and_nobody_else() -> None:
    store, entries = Store(), LWWMap(NOBODY, "m")
    store.merge(until(WITH_AUTHOR, entries.set("k", "bob is here", BOB, stamp=9)))
    store.merge(entries.set("k", "for all", ANN, stamp=5))
    assert shown(store, now=LATEST, living={BOB}) == ["bob is here", "for all"]
    assert shown(store, now=0, living={ANN, EVE}) == ["for all"]


def test_the_fingerprint_counts_only_what_neither_expires_nor_is_owned() -> None:
    """Those may be dropped from memory at different moments by different nodes."""
    store = Store()
    merged(store, until(70, LWWMap(store, "m").set("k", 1, ANN, stamp=1)))
    merged(store, until(WITH_AUTHOR, LWWMap(store, "m").set("j", 1, ANN, stamp=1)))
    assert store.fingerprint == 0
    merged(store, LWWMap(store, "m").set("k", 1, ANN, stamp=2))
    assert store.fingerprint != 0
    merged(store, LWWMap(store, "m").delete("k", ANN, stamp=3))
    assert store.fingerprint == 0


# -- forgetting ------------------------------------------------------------------------------------------------------

KEY = (1, "m", encode_element("k"))


def concurrent() -> Store:
    """One key, written by three who did not see each other: for ever, until 70, and as long as Eve lives."""
    store, entries = Store(), LWWMap(NOBODY, "m")
    store.merge(entries.set("k", "kept", ANN, stamp=5))
    store.merge(until(70, entries.set("k", "fleeting", BOB, stamp=9)))
    store.merge(until(WITH_AUTHOR, entries.set("k", "owned", EVE, stamp=7)))
    return store


def values(store: Store) -> list[object]:
    return [decode_value(link[3]) for link in chain(store.shown(KEY))]


def test_what_is_over_is_dropped_and_the_rest_stays() -> None:
    store = concurrent()
    assert values(store) == ["fleeting", "owned", "kept"] and store.mortal == {KEY[:2]: {KEY[2]: None}}
    assert store.drop(KEY, now=69, gone={ANN, BOB}) is None, "a gone author takes only what is owned"
    change = store.drop(KEY, now=70, gone=())
    assert change is not None
    assert [live and decode_value(value_of(live)) for live in change[1:]] == ["fleeting", "owned"]
    assert values(store) == ["owned", "kept"] and KEY[:2] in store.mortal
    assert store.drop(KEY, now=70, gone={EVE}) is not None
    assert values(store) == ["kept"] and store.mortal == {}
    assert store.drop(KEY, now=LATEST, gone={ANN, BOB, EVE}) is None


def test_what_was_dropped_does_not_come_back() -> None:
    store, other = concurrent(), concurrent()
    store.drop(KEY, now=70, gone={EVE})
    assert store.merge_state(other.state()) == [] and values(store) == ["kept"]
    other.merge_state(store.state())
    assert values(other) == ["kept"] and other.mortal == {}, "who has it still learns that it is over"


def test_what_was_dropped_is_not_taken_for_lost() -> None:
    """A peer that has not tidied up yet still has it, and contexts are equal: the repair must not bring it back."""
    store, other = concurrent(), concurrent()
    store.drop(KEY, now=70, gone={EVE})
    assert store.adopt(other.state()) == [] and values(store) == ["kept"]
    other._put(KEY, None)
    other.recount()
    assert len(other.adopt(concurrent().state())) == 1 and values(other) == ["kept"], "what lasts was lost"
    assert other.state() == store.state() and other.sums == store.sums and not other.mortal


def test_dropping_changes_neither_context_nor_fingerprint() -> None:
    store = concurrent()
    context, fingerprint = dict(store.context), store.fingerprint
    store.drop(KEY, now=70, gone={EVE})
    assert (store.context, store.fingerprint) == (context, fingerprint)
    told = store.sums
    store.recount()
    assert store.sums == told, "what was dropped is in no sum"


def test_a_key_that_is_written_for_good_is_mortal_no_more() -> None:
    store = concurrent()
    merged(store, LWWMap(store, "m").set("k", "for good", BOB, stamp=10))
    assert store.mortal == {}
    merged(store, until(70, LWWMap(store, "m").set("j", 1, BOB, stamp=11)))
    merged(store, LWWMap(store, "m").delete("j", BOB, stamp=12))
    assert store.mortal == {}


def test_a_newcomer_knows_what_is_mortal_of_a_state() -> None:
    newcomer, other = Store(), Store()
    newcomer.merge_state(concurrent().state())
    merged(other, LWWMap(other, "x").set("x", 1, 11, stamp=1))
    other.merge_state(concurrent().state())
    assert newcomer.mortal == other.mortal == {KEY[:2]: {KEY[2]: None}}


def test_a_refreshed_key_outlives_what_it_replaced() -> None:
    """The refresh names the older write; a node that dropped that by its fast clock takes the new one all the same."""
    slow = Store()
    merged(slow, until(70, LWWMap(slow, "m").set("k", "session", ANN, stamp=1)))
    fast = Store()
    fast.merge_state(slow.state())
    fast.drop(KEY, now=75, gone=())
    refresh = merged(slow, until(140, LWWMap(slow, "m").set("k", "session", ANN, stamp=65)))
    fast.merge(refresh)
    assert shown(fast, now=80) == shown(slow, now=80) == ["session"]
    assert fast.context == slow.context and values(fast) == values(slow)
