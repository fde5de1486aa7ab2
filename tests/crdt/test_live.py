"""How is it kept what is live under a key?

One write that lasts is packed, and a dict of nothing else is none of the collector's business (up to Python 3.13, which
does not track it): whichever door it came in by. All else is a chain, and becomes packed again when one write that
lasts is left of it.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt import (
    FOREVER,
    WITH_AUTHOR,
    Batch,
    Context,
    Key,
    Link,
    LWWMap,
    Stage,
    Store,
    Write,
    chain,
    decode_state,
    dot_of,
    encode_state,
    head_of,
    state_parts,
    value_of,
)
from crdt.causality import range_of
from crdt.live import linked, packed, unpacked
from crdt.write import Scope

ANN, BOB, EVE = 7, 2**64 - 1, 9
TRACKED = sys.version_info >= (3, 14)
"""Whether all dicts are; what is bytes in them never is."""
KEYS: list[Key] = [(1, "m", bytes([place])) for place in range(50)]

numbers = st.integers(0, 2**64 - 1)
links = st.tuples(numbers, numbers, numbers, st.binary(max_size=40), st.just(FOREVER), st.none())


@given(links)
def test_what_is_packed_is_what_was_given(link: Link) -> None:
    live = packed(link)
    assert isinstance(live, bytes) and not gc.is_tracked(live)
    assert unpacked(live) == link and list(chain(live)) == [link]
    assert (head_of(live), dot_of(live), value_of(live)) == (link[:3], link[1:3], link[3])


@given(links, st.sampled_from([WITH_AUTHOR, 70, 2**64 - 1]), links)
def test_what_ends_and_what_has_conflicts_is_a_chain(link: Link, expires: int, other: Link) -> None:
    mortal = (*link[:4], expires, None)
    above = (*link[:5], other)
    for each in (mortal, above):
        live = packed(each)
        assert live is each and unpacked(live) is each
        assert (head_of(each), dot_of(each), value_of(each)) == (each[:3], each[1:3], each[3])
    assert packed(None) is unpacked(None) is None


def one_by_one(store: Store, stamp: int) -> None:
    for key in KEYS:
        assert store.merge(store.write(key, b"\x01", ANN, stamp)) is not None


def by_drafts(store: Store, stamp: int) -> None:
    store.put_all([(key, (stamp, ANN, 0, b"\x01", FOREVER, None)) for key in KEYS], ANN)


def as_batch(store: Store, stamp: int) -> None:
    author = Store()
    author.merge_state(store.state())
    writes, _ = author.put_all([(key, (stamp, ANN, 0, b"\x01", FOREVER, None)) for key in KEYS], ANN)
    store.merge_batch(Batch(ANN, writes[0].dot[1], writes[-1].dot[1], writes))


def as_state(store: Store, stamp: int) -> None:
    author = Store()
    author.merge_state(store.state())
    one_by_one(author, stamp)
    store.merge_state(decode_state(encode_state(author.state())))


DOORS = (one_by_one, by_drafts, as_batch, as_state)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("again", DOORS)
def test_the_collector_never_looks_at_what_lasts(
    door: Callable[[Store, int], None], again: Callable[[Store, int], None]
) -> None:
    """50 000 replaced keys a second were late by 20 ms, one in a hundred, for the collector went through all others.

    Tuples of numbers it stops tracking. But a dict that has been given one, it tracks until it has seen all of it.
    """
    store = Store()
    door(store, 1)
    again(store, 2)
    (elements,) = store.objects.values()
    assert len(elements) == len(KEYS) and gc.is_tracked(elements) == TRACKED
    assert not any(gc.is_tracked(live) for live in elements.values())
    (copied,) = store.state().objects.values()
    assert copied == elements and gc.is_tracked(copied) == TRACKED


@pytest.mark.parametrize("stamp", [4, 6])
def test_what_is_left_alone_is_packed_again(stamp: int) -> None:
    """However it was left: by a delete that did not see it, or since what was beside it, shown or not, has ended."""
    for expires in (FOREVER, WITH_AUTHOR, 70):
        for names in ((), ((BOB, 1),), ((ANN, 1), (BOB, 1))):
            store = Store()
            store.merge(Write((ANN, 1), KEYS[0], 5, b"lasts", ()))
            store.merge(Write((BOB, 1), KEYS[0], stamp, b"beside", (), expires))
            assert isinstance(store.shown(KEYS[0]), tuple)
            if names:
                store.merge(Write((ANN, 2), KEYS[0], 7, None, names))
            elif expires == FOREVER:
                continue
            store.drop(KEYS[0], 80, {BOB})
            left = store.shown(KEYS[0])
            assert left == (None if (ANN, 1) in names else packed((5, ANN, 1, b"lasts", FOREVER, None)))
            assert not store.mortal and not store.named


def test_what_was_lost_is_packed_when_it_is_taken_from_a_peer() -> None:
    store, peer = Store(), Store()
    one_by_one(peer, 1)
    store.merge_state(peer.state())
    store._put(KEYS[0], None)
    store.recount()
    ((key, before, after),) = store.adopt(peer.state())
    assert (key, before, after) == (KEYS[0], None, peer.shown(KEYS[0]))
    assert store.state() == peer.state() and store.sums == peer.sums


def test_a_conflict_that_died_is_found_though_what_is_shown_is_in_no_range_that_is_told() -> None:
    """Two were live here under one key, and the lesser one alone was buried there."""
    mine, theirs = Store(), Store()
    for store in (mine, theirs):
        store.merge(Write((ANN, 1), KEYS[0], 9, b"shown", ()))
        store.merge(Write((BOB, 1), KEYS[1], 4, b"elsewhere", ()))
        store.merge(Write((BOB, 2), KEYS[0], 5, b"beside", ()))
    theirs.merge(Write((EVE, 1), KEYS[0], 10, None, ((BOB, 2),)))
    ranges = frozenset({range_of(BOB, 2)})
    assert range_of(ANN, 1) not in ranges
    stage = Stage()
    for part in state_parts(theirs.state(), ranges=ranges):
        stage.add(part)
    before = mine.shown(KEYS[0])
    changes = mine.merge_state(stage.state(Scope(ranges, Context(mine.context))))
    assert changes == [(KEYS[0], before, packed((9, ANN, 1, b"shown", FOREVER, None)))]
    assert mine.state() == theirs.state() and mine.sums == theirs.sums


def test_a_change_tells_what_was_live_and_what_is() -> None:
    """However the one becomes the other: alone, beside others that last or end, in the place of some, or gone."""
    store, dots = Store(), [(ANN, 1), (BOB, 1)]
    story = [
        Write(dots[0], KEYS[0], 5, b"alone", ()),
        Write(dots[1], KEYS[0], 6, b"above", ()),
        Write((EVE, 1), KEYS[0], 4, b"below", (), 70),
        Write((EVE, 2), KEYS[0], 7, None, (dots[1],)),
        Write((EVE, 3), KEYS[0], 8, b"instead", ((EVE, 1),), WITH_AUTHOR),
        Write((BOB, 2), KEYS[0], 9, b"for good", (dots[0], (EVE, 3))),
        Write((BOB, 3), KEYS[0], 10, None, ((BOB, 2),)),
        Write((BOB, 4), KEYS[0], 11, None, ()),
    ]
    lengths = []
    for write in story:
        before = store.shown(KEYS[0])
        assert store.merge(write) == (KEYS[0], before, store.shown(KEYS[0])), write
        lengths.append(len(list(chain(store.shown(KEYS[0])))))
    assert lengths == [1, 2, 3, 2, 2, 1, 0, 0]


KEY = KEYS[0]
NOBODYS: list[tuple[type[Exception], Any]] = [
    (ValueError, Write((0, 1), KEY, 1, b"", ())),
    (ValueError, Write((2**64, 1), KEY, 1, b"", ())),
    (ValueError, Write((-1, 1), KEY, 1, b"", ())),
    (TypeError, Write((True, 1), KEY, 1, b"", ())),
    (ValueError, Write((ANN, 1), KEY, -1, b"", ())),
    (ValueError, Write((ANN, 1), KEY, 2**64, b"", ())),
    (TypeError, Write((ANN, 1), KEY, 1.5, b"", ())),  # type: ignore[arg-type]
    (TypeError, Write((ANN, 1), KEY, 1, "text", ())),  # type: ignore[arg-type]
    (TypeError, Write((ANN, 1), KEY, 1, bytearray(b"on"), ())),  # type: ignore[arg-type]
    (TypeError, Write((ANN, 1), KEY, 1, 7, ())),  # type: ignore[arg-type]
    (TypeError, Write((ANN, 1), KEY, 1, b"", (), "soon")),  # type: ignore[arg-type]
    (ValueError, Write((ANN, 1), KEY, 1, b"", (), -2)),
    (TypeError, Write((ANN, 1), "beta", 1, b"", ())),  # type: ignore[arg-type]
    (TypeError, Write((ANN, 1), (1, "flags", "beta"), 1, b"", ())),  # type: ignore[arg-type]
    (TypeError, Write((ANN, 1), ("map", "flags", b"x"), 1, b"", ())),  # type: ignore[arg-type]
    (TypeError, Write((ANN, 1), (1, "flags"), 1, b"", ())),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("error", "write"), NOBODYS)
def test_a_write_that_nobody_could_have_asked_for_changes_nothing(error: type[Exception], write: Write) -> None:
    """Its head could not be packed, after the context had been told of it: delivered, and not there. Or it was merged,
    and nobody could read the state in which it was."""
    store = Store()
    with pytest.raises(error):
        store.write(write.key, write.value, write.dot[0], write.stamp, write.expires)
    with pytest.raises(error):
        store.merge(write)
    assert not store.context and not store.objects and store.fingerprint == 0


def test_a_delete_of_what_is_not_there_is_no_write_and_says_so() -> None:
    store = Store()
    with pytest.raises(TypeError, match="delete gives None where nothing is live"):
        store.merge(LWWMap(store, "m").delete("k", ANN, 1))  # type: ignore[arg-type]


def test_a_chain_that_is_left_as_it_was_is_the_very_same() -> None:
    link: Link = (5, ANN, 1, b"one", FOREVER, None)
    assert linked([], link) is link and linked([link], None) is link
