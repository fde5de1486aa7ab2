"""What if a signal handler raises in the middle of counting, or of writing?

At any line: a soft time limit or Ctrl-C comes wherever it likes. Not here: what leaves of what was cut short
(test_replication, in tests/protocol).
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from crdt import FOREVER, WITH_AUTHOR, Key, Link, Note, Store, Write, chain
from crdt.live import is_mortal, packed, unpacked

ANN, BOB = 0xA, 0xB


class TimeIsUp(Exception):
    pass


def cut_short(work: Callable[[], object], at: int) -> bool:
    """Does this until so many lines, calls and returns have been; whether there were so many."""
    events = 0

    def trace(frame: object, what: str, argument: object) -> object:
        nonlocal events
        events += 1
        if events == at:
            raise TimeIsUp
        return trace

    tracing = sys.gettrace()
    try:
        sys.settrace(trace)  # type: ignore[arg-type]
        work()
    except TimeIsUp:
        pass
    finally:
        sys.settrace(tracing)
    return events >= at


def test_who_is_cut_short_while_he_counts_has_counted_nothing() -> None:
    """What was counted twice was wrong for ever."""
    event, was_cut = 0, True
    while was_cut:
        event += 1
        store = Store()
        for number in range(1, 4):
            store.merge(Write((ANN, number), (1, "m", b"%d" % number), number, b"\x01", (), 0 if number < 3 else 70))
        store.merge(Write((ANN, 4), (1, "m", b"1"), 4, None, ((ANN, 1),)))
        was_cut = cut_short(lambda store=store: (store.fingerprint, store.context_fingerprint()), event)
        told = store.fingerprint, store.context_fingerprint()
        store.recount()
        assert told == (store.fingerprint, store.context.fingerprint()), f"cut short at event {event}"
    assert event > 30


# where a generator is thrown away, Python says that an exception was ignored, and goes on
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_who_is_cut_short_while_he_writes_has_all_in_its_place_when_he_writes_it_once_more() -> None:
    """So a turn is settled that was cut short. The first key is new, and one each was alone, beside another, mortal."""
    keys: list[Key] = [(1, "m", b"%d" % number) for number in range(4)]
    ends = (FOREVER, FOREVER, 70, FOREVER)
    drafts: list[tuple[Key, Link]] = [
        (key, (9, ANN, 0, b"new", expires, None)) for key, expires in zip(keys, ends, strict=True)
    ]
    event, was_cut = 0, True
    while was_cut:
        event += 1
        store = Store()
        store.merge(Write((BOB, 1), keys[1], 1, b"alone", ()))
        store.merge(Write((BOB, 2), keys[2], 2, b"one", ()))
        store.merge(Write((ANN, 1), keys[2], 3, b"beside", ()))
        store.merge(Write((BOB, 3), keys[3], 4, b"mortal", (), WITH_AUTHOR))
        was_cut = cut_short(lambda store=store: store.put_all(drafts, ANN), event)
        writes, changes = store.put_all(drafts, ANN)
        assert [write.dot for write in writes] == [(ANN, store.context[ANN] - back) for back in (3, 2, 1, 0)]
        for (key, draft), write, change in zip(drafts, writes, changes, strict=True):
            live = store.shown(key)
            assert [link[:5] for link in chain(live)] == [(9, *write.dot, b"new", draft[4])], f"cut short at {event}"
            assert change[0] == key and change[2] == live == packed(unpacked(live))
        assert {key for key in keys if is_mortal(store.shown(key))} == {(1, "m", each) for each in store.mortal[1, "m"]}
    assert event > 60


# as above
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_who_is_cut_short_while_he_takes_over_a_state_leaves_nobody_in_an_old_one() -> None:
    """The elements of an object are one dict, until none is left. A state that was taken over, and then once more, was
    put into new ones; who still had the old, like a handle that remembers what it read, read that for ever.
    """
    event, was_cut, begun = 0, True, 0
    while was_cut:
        event += 1
        peer, store = Store(), Store()
        peer.merge(Write((ANN, 1), (1, "m", b"k"), 1, b"old", ()), Note("ann", None))
        peer.merge(Write((ANN, 2), (1, "m", b"mortal"), 2, b"ends", (), 70))
        was_cut = cut_short(lambda store=store, peer=peer: store.merge_state(peer.state()), event)
        elements = store.elements((1, "m"))
        begun += bool(elements) and was_cut
        peer.merge(Write((ANN, 3), (1, "m", b"k"), 3, b"new", ((ANN, 1),)))
        store.merge_state(peer.state())
        assert not elements or elements is store.elements((1, "m")), f"cut short at event {event}"
        assert store.state() == peer.state(), f"cut short at event {event}"
        assert store.mortal == peer.mortal, f"cut short at event {event}: nobody would see it end"
        assert store.fingerprint == peer.fingerprint, f"cut short at event {event}"
    assert begun > 3
