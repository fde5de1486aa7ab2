"""What of a peer that is wrong or hostile does the kernel refuse?

Who has got past the seal may write anything in the name of anybody, and no kernel can tell. But what he writes must be
something that calls can name, read and delete, or it would stay for ever.
"""

from __future__ import annotations

import pytest

from crdt import (
    Batch,
    LWWMap,
    Malformed,
    ORSet,
    PNCounter,
    Store,
    Write,
    chain,
    decode_batch,
    encode_batch,
    encode_element,
)

NOT_CANONICAL = {
    "1 in three bytes": b"\xcd\x00\x01",
    "text of a longer header": b"\xd9\x01k",
    "text that is not UTF-8": b"\xa1\xff",
    "text that ends too early": b"\xa2k",
    "a float of half the size": b"\xca\x3f\x80\x00\x00",
    "-0.0": b"\xcb\x80" + bytes(7),
    "nan": b"\xcb\x7f\xf8" + bytes(6),
    "a list too deep for a tuple": b"\x91" * 40 + b"\xc0",
    "no msgpack": b"\xc1",
    "nothing": b"",
}


@pytest.mark.parametrize("kind", [1, 2], ids=["map", "set"])
@pytest.mark.parametrize("element", NOT_CANONICAL.values(), ids=NOT_CANONICAL.keys())
def test_a_peer_can_not_bring_in_a_key_that_nobody_can_name(kind: int, element: bytes) -> None:
    """It would stay for ever, since no call reaches it to delete it; one that is no msgpack would break iteration."""
    with pytest.raises(Malformed):
        decode_batch(encode_batch(Batch(7, 1, 1, (Write((7, 1), (kind, "m", element), 5, b"\x01", ()),))))


@pytest.mark.parametrize("key", ["k", "x" * 31, "x" * 32, "é", "", 1, -1, 2**64 - 1, 1.5, True, None, b"b", ("a", 1)])
def test_every_key_that_a_call_can_name_comes_in(key: object) -> None:
    batch = Batch(7, 1, 1, (Write((7, 1), (1, "m", encode_element(key)), 5, b"\x01", ()),))
    assert decode_batch(encode_batch(batch)) == batch


@pytest.mark.parametrize("named", [(7, 1), (7, 2)], ids=["itself", "the one after it"])
def test_a_write_that_names_itself_or_a_later_one_of_its_author_is_refused(named: tuple[int, int]) -> None:
    """live = delivered - named would call it dead, and a store that applies it call it live."""
    with pytest.raises(Malformed):
        decode_batch(encode_batch(Batch(7, 1, 1, (Write((7, 1), (1, "m", b"\xa1k"), 5, b"\x01", (named,)),))))


def test_five_thousand_concurrent_writes_are_settled_by_two_more() -> None:
    """What one write may name is bounded, on both sides alike: the greatest first, the next write takes the rest."""
    store = Store()
    for replica in range(1, 5_001):
        store.merge(Write((replica, 1), (1, "m", b"\xa1k"), replica, b"\x01", ()))
    for stamp in (9_998, 9_999):
        write = LWWMap(store, "m").set("k", stamp, 9_999, stamp)
        assert decode_batch(encode_batch(Batch(9_999, write.dot[1], write.dot[1], (write,)))).writes == (write,)
        store.merge(write)
    assert LWWMap(store, "m").get("k") == 9_999 and len(list(chain(LWWMap(store, "m").live("k")))) == 1


@pytest.mark.parametrize(
    "name", ["", "x" * 256, "\ud800", "é" * 255], ids=["empty", "long", "surrogate", "long in bytes"]
)
@pytest.mark.parametrize("make", [LWWMap, ORSet, PNCounter])
def test_a_name_that_peers_would_refuse_is_refused_at_the_call(make: type, name: str) -> None:
    with pytest.raises(ValueError):
        make(Store(), name)
